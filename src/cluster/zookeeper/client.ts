// The ZooKeeper client port: the few calls of a client that the recipes in this folder stand on, and what they may count on.
//
// Who: `session.ts` implements it over a client library (`wire.ts`); recipes, the configuration source and service discovery speak to a `Client` only.
//
// Invariants:
//  Z1  Paths are absolute below the root that the client was given (its chroot). Versions are those of the node's value; −1, where a version is asked for: any.
//  Z2  A call gives its result or throws a ZooKeeperError. Reads are tried again until the time limit of a request is over; writes never are, once they were sent: a write
//      that was not answered throws with `unknown: true`.
//  Z3  Within a session answers come in the order of the calls. `settle()` is a write through the quorum that changes nothing: a read behind it sees everything that any
//      earlier write of this session has done, and no earlier write of this session is done after it, whatever connection it was sent on. (Reads alone may be stale: a
//      server that lags behind answers them.)
//  Z4  The lease counts from the sending of the last *write* that was answered, on the monotonic clock: a server that has lost its leader goes on answering reads for a
//      while, when the session may be over. It is three quarters of the session's time: what the servers tell each other of sessions lags by half a tick, and a session
//      lasts for at least two. `leaseLeft()` is compared where it is used; a timer only tells those who wait (protocols 18).
//  Z5  `epoch` counts the sessions of this client. Ephemeral nodes of an earlier one are gone, or go; whoever owns some makes them anew.
//  Z6  A wake is called once, at the first change of what was read, or never where the connection is lost first: whoever waits reads again after 'connected' and
//      'expired' (follow.ts does). It may be called without a change.
//  Z7  Where the client has credentials, all that it creates may be read and changed by their holder only.

export interface Stat {
  /** The transaction that created the node: no two nodes have one, and a later node has a larger one. */
  readonly czxid: bigint;
  /** How often the value was set since. */
  readonly version: number;
  /** The session that it lives and ends with; 0: none. */
  readonly owner: bigint;
}

export interface Znode {
  readonly value: Buffer;
  readonly stat: Stat;
}

export type CreateMode = 'persistent' | 'ephemeral' | 'ephemeral-sequential';

/** A step of a `multi`: all are done, or none. */
export type Operation =
  | { readonly kind: 'check'; readonly path: string; readonly version: number }
  | { readonly kind: 'create'; readonly path: string; readonly value: Uint8Array; readonly mode?: CreateMode }
  | { readonly kind: 'set'; readonly path: string; readonly value: Uint8Array; readonly version: number }
  | { readonly kind: 'remove'; readonly path: string; readonly version: number };

/**
 * `connected`: there is a connection, anew. `lapsed`: the lease is over while the session may live yet. `expired`: the session is over, and another one is being made.
 * `closed`: by its owner.
 */
export type ClientEvent = 'connected' | 'lapsed' | 'expired' | 'closed';

export interface Client {
  /** Z5; 0 before the first. */
  readonly epoch: number;
  /** Of the present session; 0n before the first. */
  readonly sessionId: bigint;
  /** As the servers have granted it, ms. */
  readonly sessionTimeoutMs: number;
  /** Whether there is a connection, as far as we know. */
  readonly connected: boolean;
  /** Z4: milliseconds, 0 where there is none. */
  leaseLeft(): number;
  /** Resolves when there is a connection. @throws ZOOKEEPER_UNREACHABLE, ZOOKEEPER_AUTHENTICATION, ZOOKEEPER_FORBIDDEN (the root), ZOOKEEPER_CLOSED */
  connect(): Promise<void>;
  /** Undefined: there is none; the wake then tells of its creation. */
  get(path: string, wake?: () => void): Promise<Znode | undefined>;
  /** Names, in no order; undefined: there is no such node, whose creation wakes. */
  children(path: string, wake?: () => void): Promise<string[] | undefined>;
  /** The path, which of a sequential node has its number at the end. */
  create(path: string, value: Uint8Array, mode?: CreateMode): Promise<string>;
  /** With its parents, where they are not there; what is there stays as it is. */
  make(path: string): Promise<void>;
  set(path: string, value: Uint8Array, version: number): Promise<void>;
  remove(path: string, version: number): Promise<void>;
  multi(operations: readonly Operation[]): Promise<void>;
  /** Z3. */
  settle(): Promise<void>;
  /** Nobody calls that wake any more. */
  unwatch(wake: () => void): void;
  on(event: ClientEvent, listener: () => void): () => void;
  /** Until what it returns is called, the connection keeps the process alive. */
  hold(): () => void;
  close(): Promise<void>;
}

/** What a value may have at most, as servers count by default. */
export const VALUE_BYTES = 1_048_576 - 1024;
