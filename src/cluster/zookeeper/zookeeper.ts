// `zookeeper()`: what programs see of ZooKeeper, and the narrow door through which the cluster gets its client (`clientOf`).

import type { ConnectionOptions } from 'node:tls';
import type { Format } from '../../connectors/formats.ts';
import { MillraceError } from '../../errors.ts';
import type { Cluster } from '../../graph/job.ts';
import type { Source } from '../../graph/source.ts';
import { type Barrier, enter } from './barrier.ts';
import type { Client } from './client.ts';
import { configSource } from './config-source.ts';
import { type Lock, lock } from './lock.ts';
import { isPath } from './paths.ts';
import { type Endpoint, lookup, register, watch } from './services.ts';
import { Session } from './session.ts';

/** How `zookeeper()` connects. */
export interface ZooKeeperOptions {
  /** `host:port` of the servers, separated by commas. */
  connect: string;
  /** A path below which everything lies that is read and written, such as `/millrace`: made when it is missing. The root of ZooKeeper by default. */
  root?: string;
  /** `{ scheme: 'digest', credentials: 'user:password' }`: what is created may then be read and changed by that user only. None by default. */
  auth?: { scheme: string; credentials: string };
  /** true, or the options of `tls.connect`: for servers with a `secureClientPort`. False by default. */
  tls?: boolean | ConnectionOptions;
  /** Milliseconds after which a process that is not heard of counts as dead, 15,000 by default. The servers set bounds: 4 to 40 s by default. */
  sessionTimeout?: number;
  /** Milliseconds that a first connection, and then a request, waits for a server; 10,000 by default. */
  connectTimeout?: number;
}

/** Waiting that can be given up. */
export interface WaitOptions {
  /** Its abort rejects with its reason. */
  signal?: AbortSignal;
}

/** A connection to ZooKeeper, made when it is first needed: the `cluster` of RunOptions, configurations, service discovery, locks and barriers. */
export interface ZooKeeper extends Cluster {
  /**
   * The values of a node as a source: the one that is there, then each later one that is current when it is read. Values in between may be skipped, the last never. A
   * node that is not there is waited for; removing it is no record.
   *
   * @param options - `format`: of the value, `json()` by default. A value that does not decode is a dead letter.
   * @throws OPTION_INVALID; ZOOKEEPER_UNREACHABLE, ZOOKEEPER_AUTHENTICATION, ZOOKEEPER_FORBIDDEN in the job.
   */
  config<T>(path: string, options?: { format?: Format<T> }): Source<T>;
  /**
   * Lists an endpoint under a service for as long as this process lives, also after an expired session, until `close()`.
   *
   * @throws OPTION_INVALID, ZOOKEEPER_UNREACHABLE, ZOOKEEPER_AUTHENTICATION, ZOOKEEPER_FORBIDDEN, ZOOKEEPER_CLOSED
   */
  register(service: string, endpoint: Endpoint): Promise<{ close(): Promise<void> }>;
  /**
   * The endpoints of a service at present, in the order of host and port; none where nobody has registered.
   *
   * @throws ZOOKEEPER_UNREACHABLE, ZOOKEEPER_AUTHENTICATION, ZOOKEEPER_FORBIDDEN, ZOOKEEPER_CLOSED
   */
  lookup(service: string): Promise<Endpoint[]>;
  /**
   * The endpoints of a service at once, then each time they change, without an end: lists in between may be skipped, the last never. While there is no connection it waits.
   *
   * @throws ZOOKEEPER_UNREACHABLE where there is no first connection; ZOOKEEPER_AUTHENTICATION, ZOOKEEPER_FORBIDDEN, ZOOKEEPER_CLOSED
   */
  watch(service: string): AsyncIterable<Endpoint[]>;
  /**
   * Waits until no other process holds the lock, in the order of asking, and holds it until `release()`, or until it is lost: with the connection, in time before
   * another process gets it. Look at `held()` before each step that it protects, or listen to `signal`.
   *
   * @throws ZOOKEEPER_UNREACHABLE, ZOOKEEPER_AUTHENTICATION, ZOOKEEPER_FORBIDDEN, ZOOKEEPER_SESSION_EXPIRED, ZOOKEEPER_CLOSED
   */
  lock(name: string, options?: WaitOptions): Promise<Lock>;
  /**
   * Waits until `size` participants have come, each by a call of its own; `leave()` of the barrier waits until all have left.
   *
   * @throws OPTION_INVALID, ZOOKEEPER_UNREACHABLE, ZOOKEEPER_AUTHENTICATION, ZOOKEEPER_FORBIDDEN, ZOOKEEPER_CLOSED
   */
  barrier(name: string, size: number, options?: WaitOptions): Promise<Barrier>;
  /** Ends the session, and with it what was registered. Resolves also where no server answers. */
  close(): Promise<void>;
}

const SESSION_MS = 15_000;
const CONNECT_MS = 10_000;

const clients = new WeakMap<Cluster, Client>();

/** The client of a cluster that `zookeeper()` has made. */
export function clientOf(cluster: Cluster): Client | undefined {
  return clients.get(cluster);
}

/**
 * ZooKeeper: one session, which is made when it is first needed and made anew when it has expired. It keeps the process alive only while something waits for it, is
 * registered or held.
 *
 * @throws OPTION_INVALID
 * @example
 * const zk = zookeeper({ connect: 'zk1:2181,zk2:2181,zk3:2181', root: '/shop' });
 * const limits = job('limits', (env) => {
 *   env.source('limits', zk.config<{ service: string; max: number }>('/config/limits')).forEach('show', (limit) => console.log(limit.max));
 * });
 * assert.equal(limits.name, 'limits');
 * await zk.close();
 */
export function zookeeper(options: ZooKeeperOptions): ZooKeeper {
  const { connect, root = '', auth, tls = false, sessionTimeout = SESSION_MS, connectTimeout = CONNECT_MS } = options;
  const { servers, chroot } = parted(connect);
  const below = root === '/' ? '' : root.replace(/\/$/, '');
  if (below !== '' && !isPath(below)) throw invalid(`root '${root}' is no path`, 'It begins with a slash: /millrace.');
  if (auth !== undefined && !(isText(auth.scheme) && isText(auth.credentials)))
    throw invalid('auth needs a scheme and credentials', "{ scheme: 'digest', credentials: 'user:password' }");
  for (const [name, ms] of [
    ['sessionTimeout', sessionTimeout],
    ['connectTimeout', connectTimeout],
  ] as const)
    if (!(ms >= 1 && ms <= 2 ** 31 - 1)) throw invalid(`${name} ${ms} is no time`, 'Give it in milliseconds.');
  const client = new Session({
    connect: servers,
    root: chroot + below,
    auth,
    tls: tls === false ? undefined : tls === true ? {} : tls,
    sessionTimeoutMs: Math.floor(sessionTimeout),
    connectTimeoutMs: connectTimeout,
  });
  const cluster: ZooKeeper = {
    kind: 'zookeeper',
    config(path, { format } = {}) {
      if (!isPath(path)) throw invalid(`config('${String(path)}') is no path of a node`, 'It begins with a slash: /config/limits.');
      return configSource(client, path, format) as Source<never>;
    },
    async register(service, endpoint) {
      named(service, 'register');
      if (!isText(endpoint?.host) || !Number.isInteger(endpoint.port))
        throw invalid(`register('${service}') needs an endpoint`, "{ host: '10.0.0.1', port: 8080 }");
      return register(client, service, endpoint);
    },
    async lookup(service) {
      named(service, 'lookup');
      return lookup(client, service);
    },
    watch(service) {
      named(service, 'watch');
      return {
        [Symbol.asyncIterator]() {
          // Whoever leaves the loop ends the wait too, which a generator alone does not.
          const ending = new AbortController();
          const lists = watch(client, service, ending.signal);
          return {
            next: () => lists.next(),
            return() {
              ending.abort();
              return lists.return(undefined);
            },
          };
        },
      };
    },
    async lock(name, { signal } = {}) {
      named(name, 'lock');
      return lock(client, name, signal);
    },
    async barrier(name, size, { signal } = {}) {
      named(name, 'barrier');
      if (!Number.isInteger(size) || size < 1) throw invalid(`barrier('${name}', ${size}): the size is a whole number above 0`, 'Say how many take part.');
      return enter(client, name, size, signal);
    },
    close() {
      return client.close();
    },
  };
  clients.set(cluster, client);
  return cluster;
}

function parted(connect: unknown): { readonly servers: string; readonly chroot: string } {
  const [, servers = '', chroot = ''] = (isText(connect) && /^([^/]*)(\/.*)?$/.exec(connect)) || [];
  const each = servers.split(',').map((server) => server.trim());
  if (each.some((server) => !/^(\[[^\]]+\]|[^:\s[\]]+)(:\d{1,5})?$/.test(server)))
    throw invalid(`connect '${String(connect)}' names no servers`, 'Write host:port,host:port.');
  const below = chroot.replace(/\/$/, '');
  if (below !== '' && !isPath(below)) throw invalid(`connect '${String(connect)}' ends with no path`, 'Write host:port,host:port/path.');
  return { servers: each.join(','), chroot: below };
}

function named(name: unknown, call: string): void {
  if (!isText(name)) throw invalid(`${call}() needs a name`, 'Give it a text that is not empty.');
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}

function invalid(what: string, todo: string): MillraceError {
  return new MillraceError('OPTION_INVALID', `zookeeper(): ${what}.`, { todo });
}
