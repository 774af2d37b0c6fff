// Which door a command asks: the one at an address, those of a cluster's members, or whichever jobs of this machine have.

import type { Command } from 'commander';
import type { MemberDoor } from '../cluster/zookeeper/membership.ts';
import { MillraceError, messageOf } from '../errors.ts';

export interface Where {
  readonly url?: string;
  /** Servers; the two others mean something with it alone. */
  readonly zookeeper?: string;
  readonly root?: string;
  readonly auth?: string;
}

export function withWhere(command: Command): Command {
  return command
    .option('--url <url>', "address of the job's door, instead of looking on this machine")
    .option('--zookeeper <servers>', 'host:port of the servers of a cluster whose members have doors, instead of looking on this machine')
    .option('--root <path>', 'the path in ZooKeeper below which that cluster lies')
    .option('--auth <variable>', 'the variable of the environment that holds user:password for ZooKeeper');
}

/** Whether a door was named at all. @throws OPTION_INVALID */
export function isNamed({ url, zookeeper, root, auth }: Where): boolean {
  if (zookeeper === undefined && (root !== undefined || auth !== undefined))
    throw new MillraceError('OPTION_INVALID', `${root === undefined ? '--auth' : '--root'} is of a cluster.`, { todo: 'Name its servers with --zookeeper.' });
  return url !== undefined || zookeeper !== undefined;
}

/** From the command line it would be in the list of processes: it is the name of a variable. */
export function authOf(variable: string | undefined): { auth?: { scheme: string; credentials: string } } {
  if (variable === undefined) return {};
  const credentials = process.env[variable];
  if (credentials === undefined || !credentials.includes(':'))
    throw new MillraceError('OPTION_INVALID', `The variable ${variable} holds no credentials.`, { todo: 'Set it to user:password.' });
  return { auth: { scheme: 'digest', credentials } };
}

/** The doors that members of a cluster say they have. ZooKeeper's client is loaded here alone. */
export async function doorsOfCluster({ zookeeper: connect, root, auth }: Where): Promise<MemberDoor[]> {
  const [{ clientOf, zookeeper }, { membersNow }] = await Promise.all([
    import('../cluster/zookeeper/zookeeper.ts'),
    import('../cluster/zookeeper/membership.ts'),
  ]);
  const cluster = zookeeper({ connect: connect!, ...(root === undefined ? {} : { root }), ...authOf(auth) });
  try {
    const client = clientOf(cluster)!;
    await client.connect();
    const members = await membersNow(client);
    const doors = members.flatMap((member) => Object.values(member.doors ?? {}));
    if (doors.length > 0) return doors;
    const there = members.length === 0 ? 'There is no member of a cluster' : `None of ${members.length} members of the cluster has a control door`;
    throw new MillraceError('JOB_NOT_FOUND', `${there} below ${root ?? '/'} at ${connect}.`, {
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
