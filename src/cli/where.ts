// Which door a command asks: the one at an address, those of a cluster's members, or whichever jobs of this machine have. And how a command reaches ZooKeeper.

import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { MemberDoor } from '../cluster/zookeeper/membership.ts';
import type { ZooKeeperOptions } from '../cluster/zookeeper/zookeeper.ts';
import { MillraceError, messageOf } from '../errors.ts';

export interface ZooKeeperFlags {
  /** Servers; the others mean something with it alone. */
  readonly zookeeper?: string;
  readonly root?: string;
  readonly auth?: string;
  /** Any of the following is TLS. */
  readonly zookeeperTls?: boolean;
  readonly zookeeperCa?: string;
  readonly zookeeperCert?: string;
  readonly zookeeperKey?: string;
}

export interface Where extends ZooKeeperFlags {
  readonly url?: string;
}

/** Beside the servers. */
export function withZooKeeper(command: Command): Command {
  return command
    .option('--root <path>', 'the path in ZooKeeper below which the cluster lies, such as /shop')
    .option('--auth <variable>', 'the variable of the environment that holds user:password for ZooKeeper')
    .option('--zookeeper-tls', 'reach ZooKeeper by TLS, at its secureClientPort, with a certificate that this system trusts')
    .option('--zookeeper-ca <file>', 'by TLS, with a certificate of the authority whose certificates are in that file, PEM')
    .option('--zookeeper-cert <file>', 'by TLS, and show ZooKeeper this certificate, PEM')
    .option('--zookeeper-key <file>', 'its private key, PEM');
}

export function withWhere(command: Command): Command {
  const named = command
    .option('--url <url>', "address of the job's door, instead of looking on this machine")
    .option('--zookeeper <servers>', 'host:port of the servers of a cluster whose members have doors, instead of looking on this machine');
  return withZooKeeper(named);
}

const OF_A_CLUSTER = {
  root: '--root',
  auth: '--auth',
  zookeeperTls: '--zookeeper-tls',
  zookeeperCa: '--zookeeper-ca',
  zookeeperCert: '--zookeeper-cert',
  zookeeperKey: '--zookeeper-key',
} as const;

/** Whether a door was named at all. @throws OPTION_INVALID */
export function isNamed({ url, zookeeper, ...of }: Where): boolean {
  const flag = Object.entries(OF_A_CLUSTER).find(([name]) => of[name as keyof typeof OF_A_CLUSTER] !== undefined)?.[1];
  if (zookeeper === undefined && flag !== undefined)
    throw new MillraceError('OPTION_INVALID', `${flag} is of a cluster.`, { todo: 'Name its servers with --zookeeper.' });
  return url !== undefined || zookeeper !== undefined;
}

/** How ZooKeeper is reached. @throws OPTION_INVALID */
export function zookeeperOf(flags: ZooKeeperFlags & { readonly zookeeper: string }): ZooKeeperOptions {
  const { zookeeper: connect, root, auth, zookeeperTls = false, zookeeperCa, zookeeperCert, zookeeperKey } = flags;
  if ((zookeeperCert === undefined) !== (zookeeperKey === undefined))
    throw new MillraceError('OPTION_INVALID', 'A certificate for ZooKeeper is --zookeeper-cert and --zookeeper-key.', { todo: 'Name both files.' });
  const files = {
    ...(zookeeperCa === undefined ? {} : { ca: pemIn(zookeeperCa, '--zookeeper-ca') }),
    ...(zookeeperCert === undefined ? {} : { cert: pemIn(zookeeperCert, '--zookeeper-cert') }),
    ...(zookeeperKey === undefined ? {} : { key: pemIn(zookeeperKey, '--zookeeper-key') }),
  };
  const tls = Object.keys(files).length === 0 ? zookeeperTls : files;
  return { connect, ...(root === undefined ? {} : { root }), ...authOf(auth), tls };
}

function pemIn(path: string, flag: string): string {
  try {
    const text = readFileSync(path, 'utf8');
    if (!text.includes('-----BEGIN ')) throw new Error('it is not PEM');
    return text;
  } catch (cause) {
    throw new MillraceError('OPTION_INVALID', `The file of ${flag}, ${path}, cannot be used: ${messageOf(cause)}.`, {
      cause,
      todo: 'Name a PEM file that this user can read.',
    });
  }
}

/** From the command line it would be in the list of processes: it is the name of a variable. */
function authOf(variable: string | undefined): { auth?: { scheme: string; credentials: string } } {
  if (variable === undefined) return {};
  const credentials = process.env[variable];
  if (credentials === undefined || !credentials.includes(':'))
    throw new MillraceError('OPTION_INVALID', `The variable ${variable} holds no credentials.`, { todo: 'Set it to user:password.' });
  return { auth: { scheme: 'digest', credentials } };
}

/** The doors that members of a cluster say they have. ZooKeeper's client is loaded here alone. */
export async function doorsOfCluster(where: Where & { readonly zookeeper: string }): Promise<MemberDoor[]> {
  const [{ clientOf, zookeeper }, { membersNow }] = await Promise.all([
    import('../cluster/zookeeper/zookeeper.ts'),
    import('../cluster/zookeeper/membership.ts'),
  ]);
  const options = zookeeperOf(where);
  const cluster = zookeeper(options);
  try {
    const client = clientOf(cluster)!;
    await client.connect();
    const members = await membersNow(client);
    const doors = members.flatMap((member) => Object.values(member.doors ?? {}));
    if (doors.length > 0) return doors;
    const there = members.length === 0 ? 'There is no member of a cluster' : `None of ${members.length} members of the cluster has a control door`;
    throw new MillraceError('JOB_NOT_FOUND', `${there} below ${options.root ?? '/'} at ${options.connect}.`, {
      todo:
        members.length === 0 ? 'Correct --root, or start a worker.' : 'Start the replicas with control: { host, port }; millrace worker has a door by default.',
    });
  } catch (error) {
    if (error instanceof MillraceError) throw error;
    throw new MillraceError('JOB_NOT_FOUND', `The members of the cluster cannot be read: ${messageOf(error)}.`, { cause: error });
  } finally {
    await cluster.close();
  }
}
