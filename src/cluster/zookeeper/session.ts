// The ZooKeeper client: sessions one after the other, each a `Wire`, with what their owner may count on (client.ts).
//
// Who owns what: the session owns wires, requests under way, watches and the lease; recipes own their nodes, and are told when to make them anew.
//
// Invariants, beside those of the port:
//  S1  A request is handed to the library only while there is a connection, so that it is sent at once: one that was not handed over was not sent, and nothing is queued
//      that could be sent later.
//  S2  While a connection is there a heartbeat, which is `settle()`, is sent every sixth of the session's time. A request that is not answered within a third of it ends
//      the connection: the library would wait for ever. Whether an answer lies in the socket already is looked at first: an event loop that stood still is no dead server.
//  S3  The first `connect()` that fails leaves nothing behind, and the next call tries again. Later on connections are tried for until `close()`.
//  S4  The root is made once, before any other request is sent.

import type { ConnectionOptions } from 'node:tls';
import { type Client, type ClientEvent, type CreateMode, type Operation, type Stat, VALUE_BYTES, type Znode } from './client.ts';
import { type Answered, closed, isLoss, lost, refusalOf, refused, rejected, unreachable, ZooKeeperError } from './errors.ts';
import { type LibraryStat, Wire } from './wire.ts';

export interface SessionOptions {
  /** `host:port,host:port`. */
  readonly connect: string;
  /** '' or `/a/path`: the chroot. */
  readonly root: string;
  readonly auth?: { readonly scheme: string; readonly credentials: string } | undefined;
  readonly tls?: ConnectionOptions | undefined;
  /** What is asked for; servers may grant another. */
  readonly sessionTimeoutMs: number;
  /** How long a first connection, and any single request, may take. */
  readonly connectTimeoutMs: number;
}

interface Request {
  readonly sent: number;
  readonly write: boolean;
  readonly what: string;
  readonly reject: (error: ZooKeeperError) => void;
}

interface Waiting {
  readonly resolve: (wire: Wire) => void;
  readonly reject: (error: ZooKeeperError) => void;
}

interface Watch {
  readonly path: string;
  readonly fire: () => void;
  readonly wakes: Set<() => void>;
}

/** Calls back once, with an error or an answer. */
type Ask<A extends unknown[]> = (wire: Wire, callback: (error: Answered | null | undefined, ...answer: A) => void) => void;

const LEASE_SHARE = 0.75;
const HEARTBEATS = 6;
const READ_SHARE = 3;
const CLOSE_MS = 1000;

export class Session implements Client {
  readonly #options: SessionOptions;
  readonly #servers: readonly string[];
  #wire: Wire | undefined;
  #epoch = 0;
  #connected = false;
  /** S4. */
  #rooted = false;
  #connecting: Promise<void> | undefined;
  /** It is over: closed by its owner, or refused. */
  #ended: ZooKeeperError | undefined;
  #waiting = new Set<Waiting>();
  readonly #requests = new Set<Request>();
  readonly #watches = new Map<string, Watch>();
  readonly #listeners: Record<ClientEvent, Set<() => void>> = { connected: new Set(), lapsed: new Set(), expired: new Set(), closed: new Set() };
  /** Monotonic: when the last write that was answered had been sent (Z4). */
  #proof = Number.NEGATIVE_INFINITY;
  #lapsed = true;
  #lapse: NodeJS.Timeout | undefined;
  #heart: NodeJS.Timeout | undefined;
  #beating = false;
  #holds = 0;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#servers = options.connect.split(',').filter((server) => server !== '');
  }

  get epoch(): number {
    return this.#epoch;
  }
  get sessionId(): bigint {
    return this.#wire?.sessionId ?? 0n;
  }
  get sessionTimeoutMs(): number {
    return this.#wire?.sessionTimeoutMs ?? this.#options.sessionTimeoutMs;
  }

  get connected(): boolean {
    return this.#connected;
  }

  leaseLeft(): number {
    if (this.#ended !== undefined) return 0;
    return Math.max(0, this.#proof + this.sessionTimeoutMs * LEASE_SHARE - performance.now());
  }

  connect(): Promise<void> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    // S3.
    this.#connecting ??= this.#open().catch((error) => {
      this.#connecting = undefined;
      throw error;
    });
    return this.#connecting;
  }

  async get(path: string, wake?: () => void): Promise<Znode | undefined> {
    const full = this.#full(path);
    for (;;) {
      try {
        const [value, stat] = await this.#read<[Buffer | undefined, LibraryStat]>(`read ${path}`, (wire, callback) =>
          wire.getData(full, this.#watched('data', full, wake), callback),
        );
        return { value: value ?? Buffer.alloc(0), stat: statOf(stat) };
      } catch (error) {
        if (refusalOf(error) !== 'no-node') throw error;
      }
      if (wake === undefined || !(await this.#exists(path, full, wake))) return undefined;
    }
  }

  async children(path: string, wake?: () => void): Promise<string[] | undefined> {
    const full = this.#full(path);
    for (;;) {
      try {
        const [names] = await this.#read<[string[]]>(`list ${path}`, (wire, callback) =>
          wire.getChildren(full, this.#watched('children', full, wake), callback),
        );
        return names;
      } catch (error) {
        if (refusalOf(error) !== 'no-node') throw error;
      }
      if (wake === undefined || !(await this.#exists(path, full, wake))) return undefined;
    }
  }

  /** Where it is not there the wake is called when it is created. */
  async #exists(path: string, full: string, wake?: () => void): Promise<boolean> {
    const [stat] = await this.#read<[LibraryStat | null]>(`look for ${path}`, (wire, callback) =>
      wire.exists(full, this.#watched('data', full, wake), callback),
    );
    return stat !== null && stat !== undefined;
  }

  async create(path: string, value: Uint8Array, mode: CreateMode = 'persistent'): Promise<string> {
    refuseLarge(path, value.byteLength);
    const full = this.#full(path);
    const [created] = await this.#write<[string]>(`create ${path}`, (wire, callback) => wire.create(full, value, mode, callback));
    return created.slice(this.#options.root.length);
  }

  async make(path: string): Promise<void> {
    const full = this.#full(path);
    const release = this.hold();
    try {
      if (!(await this.#exists(path, full))) await this.#make(full);
    } finally {
      release();
    }
  }

  async set(path: string, value: Uint8Array, version: number): Promise<void> {
    refuseLarge(path, value.byteLength);
    const full = this.#full(path);
    await this.#write(`set ${path}`, (wire, callback) => wire.setData(full, value, version, callback));
  }

  async remove(path: string, version: number): Promise<void> {
    const full = this.#full(path);
    await this.#write(`remove ${path}`, (wire, callback) => wire.remove(full, version, callback));
  }

  async multi(operations: readonly Operation[]): Promise<void> {
    let bytes = 0;
    for (const operation of operations) if ('value' in operation) bytes += operation.value.byteLength;
    const names = operations.map(({ kind, path }) => `${kind} ${path}`).join(', ');
    refuseLarge(names, bytes);
    const full = operations.map((operation) => ({ ...operation, path: this.#full(operation.path) }));
    await this.#write(`do together: ${names}`, (wire, callback) => multi(wire, full, callback));
  }

  async settle(): Promise<void> {
    for (;;) {
      try {
        await this.#write('settle what was asked before', (wire, callback) => this.#beat(wire, callback));
        return;
      } catch (error) {
        // It changes nothing, so it may be asked again.
        if (!(error instanceof ZooKeeperError) || error.code !== 'ZOOKEEPER_CONNECTION_LOST' || this.#ended !== undefined) throw this.#ended ?? error;
      }
    }
  }

  unwatch(wake: () => void): void {
    for (const [key, { path, fire, wakes }] of this.#watches) {
      if (!wakes.delete(wake) || wakes.size > 0) continue;
      this.#watches.delete(key);
      this.#wire?.unwatch(path, fire);
    }
  }

  on(event: ClientEvent, listener: () => void): () => void {
    // One function may be given twice.
    const own = (): void => listener();
    this.#listeners[event].add(own);
    return () => void this.#listeners[event].delete(own);
  }

  hold(): () => void {
    this.#holds += 1;
    if (this.#holds === 1) this.#wire?.hold(true);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#holds -= 1;
      if (this.#holds === 0) this.#wire?.hold(false);
    };
  }

  async close(): Promise<void> {
    if (this.#ended === undefined) {
      const wire = this.#wire;
      const connected = this.#connected;
      // What waits for a connection is told at once; ephemeral nodes go with the session.
      this.#end(closed());
      await (connected ? wire?.close(CLOSE_MS) : wire?.abandon());
      this.#tell('closed');
    }
  }

  // ── connections ──

  async #open(): Promise<void> {
    if (this.#ended !== undefined) throw this.#ended;
    const release = this.hold();
    try {
      this.#begin();
      await this.#connection(this.#options.connectTimeoutMs, true);
      const { root } = this.#options;
      if (!this.#rooted && root !== '') await this.#make(root, true);
      this.#rooted = true;
      this.#admit();
    } catch (error) {
      if (this.#ended === undefined) {
        this.#connected = false;
        this.#quiet();
        this.#wire?.abandon();
        this.#wire = undefined;
        this.#fail(error as ZooKeeperError);
      }
      throw error;
    } finally {
      release();
    }
  }

  #begin(): void {
    const { auth, tls, sessionTimeoutMs } = this.#options;
    const wire = new Wire({
      servers: this.#servers,
      sessionTimeoutMs,
      auth,
      tls,
      on: (state) => {
        if (state === 'connected') this.#onConnected(wire);
        else if (state === 'disconnected') this.#onDisconnected();
        else if (state === 'expired') this.#onExpired(wire);
        else this.#onRejected(wire);
      },
    });
    this.#wire = wire;
    wire.hold(this.#holds > 0);
    wire.connect();
  }

  #onConnected(wire: Wire): void {
    if (wire.sessionId !== this.#lastSession) {
      this.#lastSession = wire.sessionId;
      this.#epoch += 1;
    }
    this.#connected = true;
    this.#proven(wire.began);
    this.#quiet();
    this.#heart = setInterval(() => this.#beatOnce(wire), wire.sessionTimeoutMs / HEARTBEATS).unref();
    this.#admit();
    this.#tell('connected');
  }
  #lastSession = 0n;

  #onDisconnected(): void {
    this.#connected = false;
    this.#quiet();
    this.#watches.clear();
    for (const request of this.#requests) request.reject(lost(request.what, request.write));
    this.#requests.clear();
  }

  #onExpired(wire: Wire): void {
    wire.abandon();
    this.#onDisconnected();
    this.#proof = Number.NEGATIVE_INFINITY;
    this.#wire = undefined;
    this.#begin();
    this.#noticeLapse();
    this.#tell('expired');
  }

  #onRejected(wire: Wire): void {
    const { failure } = wire;
    wire.abandon();
    this.#end(rejected(failure));
    this.#tell('closed');
  }

  #end(error: ZooKeeperError): void {
    this.#ended = error;
    this.#onDisconnected();
    this.#fail(error);
    clearTimeout(this.#lapse);
    if (!this.#lapsed) {
      this.#lapsed = true;
      this.#tell('lapsed');
    }
  }

  #fail(error: ZooKeeperError): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const { reject } of waiting) reject(error);
  }

  /** Lets those who wait for a connection in: before the root is there, only what makes it. */
  #admit(): void {
    if (!this.#connected || this.#wire === undefined) return;
    for (const waiting of this.#waiting) {
      if (!this.#rooted && this.#options.root !== '' && waiting !== this.#first) continue;
      this.#waiting.delete(waiting);
      waiting.resolve(this.#wire);
    }
  }
  #first: Waiting | undefined;

  /** Resolves when there is one that a request may be sent on. */
  #connection(ms: number, first: boolean): Promise<Wire> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    if (this.#connected && (this.#rooted || first)) return Promise.resolve(this.#wire!);
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => {
        this.#waiting.delete(waiting);
        reject(unreachable(this.#options.connect, ms, this.#wire?.failure));
      }, ms);
      const waiting: Waiting = {
        resolve: (wire) => {
          clearTimeout(late);
          resolve(wire);
        },
        reject: (error) => {
          clearTimeout(late);
          reject(error);
        },
      };
      if (first) this.#first = waiting;
      this.#waiting.add(waiting);
    });
  }

  // ── requests ──

  async #read<A extends unknown[]>(what: string, ask: Ask<A>): Promise<A> {
    const until = performance.now() + this.#options.connectTimeoutMs;
    for (;;) {
      try {
        return await this.#ask(what, false, ask);
      } catch (error) {
        const again = error instanceof ZooKeeperError && error.code === 'ZOOKEEPER_CONNECTION_LOST' && this.#ended === undefined;
        if (!again || performance.now() > until) throw this.#ended ?? error;
      }
    }
  }

  #write<A extends unknown[]>(what: string, ask: Ask<A>): Promise<A> {
    return this.#ask(what, true, ask);
  }

  async #ask<A extends unknown[]>(what: string, write: boolean, ask: Ask<A>): Promise<A> {
    const release = this.hold();
    try {
      await this.connect();
      return await this.#send(await this.#connection(this.#options.connectTimeoutMs, false), what, write, ask);
    } finally {
      release();
    }
  }

  /** S1: a connection is there. */
  #send<A extends unknown[]>(wire: Wire, what: string, write: boolean, ask: Ask<A>): Promise<A> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    // It may have gone between being given and being used.
    if (!this.#connected || wire !== this.#wire) return Promise.reject(lost(what, false));
    return new Promise((resolve, reject) => {
      const request: Request = { sent: performance.now(), write, what, reject };
      this.#requests.add(request);
      const answered = (error: Answered | null | undefined, ...answer: A): void => {
        if (!this.#requests.delete(request)) return;
        if (error !== null && error !== undefined && isLoss(error)) {
          reject(lost(what, write));
          return;
        }
        // Refusals too: they have gone through the leader.
        if (write && wire === this.#wire) this.#proven(request.sent);
        if (error === null || error === undefined) resolve(answer);
        else reject(refused(error, what, (error as { operation?: number }).operation));
      };
      try {
        ask(wire, answered);
      } catch (error) {
        // Not sent: such as for a path that is none. It is not waited for (S2).
        this.#requests.delete(request);
        reject(error);
      }
    });
  }

  async #make(full: string, first = false): Promise<void> {
    const names = full.split('/').slice(1);
    let sure = true;
    for (let depth = 1; depth <= names.length; depth++) {
      const path = `/${names.slice(0, depth).join('/')}`;
      for (;;) {
        try {
          const wire = await this.#connection(this.#options.connectTimeoutMs, first);
          await this.#send<[string]>(wire, `create ${path}`, true, (to, callback) => to.create(path, Buffer.alloc(0), 'persistent', callback));
        } catch (error) {
          // Unknown outcomes are told by asking again: it is there then.
          if (error instanceof ZooKeeperError && error.code === 'ZOOKEEPER_CONNECTION_LOST' && this.#ended === undefined) continue;
          // Where a node above may not be added to, the one below may be there all the same.
          const above = depth < names.length && error instanceof ZooKeeperError && error.code === 'ZOOKEEPER_FORBIDDEN';
          if (above) sure = false;
          // What was there was removed in between: from the top, then.
          else if (sure && depth > 1 && refusalOf(error) === 'no-node') depth = 0;
          else if (refusalOf(error) !== 'node-exists') throw error;
        }
        break;
      }
    }
  }

  #beat(wire: Wire, callback: (error: Answered | null | undefined) => void): void {
    const { root } = this.#options;
    multi(wire, [{ kind: 'check', path: root === '' ? '/' : root, version: -1 }], (error) => {
      // That the node is not there, or that we may not look at it, is an answer.
      callback(error !== null && error !== undefined && isLoss(error) ? error : undefined);
    });
  }

  /** S2. */
  #beatOnce(wire: Wire): void {
    if (wire !== this.#wire || !this.#connected) return;
    const late = (): boolean => {
      const oldest = this.#requests.values().next().value;
      return oldest !== undefined && performance.now() - oldest.sent > wire.sessionTimeoutMs / READ_SHARE;
    };
    if (late()) {
      // After what has come meanwhile was read.
      setImmediate(() => {
        if (wire === this.#wire && this.#connected && late()) wire.breakOff();
      });
      return;
    }
    if (this.#beating) return;
    this.#beating = true;
    this.#send(wire, 'settle what was asked before', true, (to, callback) => this.#beat(to, callback))
      .catch(() => {
        // The connection is lost, which 'disconnected' has told.
      })
      .finally(() => {
        this.#beating = false;
      });
  }

  #quiet(): void {
    clearInterval(this.#heart);
  }

  // ── the lease ──

  #proven(sent: number): void {
    if (sent > this.#proof) this.#proof = sent;
    if (!this.#lapsed || this.leaseLeft() === 0) return;
    this.#lapsed = false;
    this.#awaitLapse();
  }

  #awaitLapse(): void {
    clearTimeout(this.#lapse);
    this.#lapse = setTimeout(() => this.#noticeLapse(), Math.ceil(this.leaseLeft())).unref();
  }

  #noticeLapse(): void {
    if (this.#lapsed) return;
    if (this.leaseLeft() > 0) {
      this.#awaitLapse();
      return;
    }
    clearTimeout(this.#lapse);
    this.#lapsed = true;
    this.#tell('lapsed');
  }

  #tell(event: ClientEvent): void {
    for (const listener of [...this.#listeners[event]]) listener();
  }

  // ── watches ──

  /** One function for each node and kind, which the library keeps once. */
  #watched(kind: 'data' | 'children', full: string, wake: (() => void) | undefined): (() => void) | undefined {
    if (wake === undefined) return undefined;
    const key = `${kind}${full}`;
    let watch = this.#watches.get(key);
    if (watch === undefined) {
      const wakes = new Set<() => void>();
      const made: Watch = {
        path: full,
        wakes,
        fire: () => {
          if (this.#watches.get(key) === made) this.#watches.delete(key);
          for (const each of wakes) each();
        },
      };
      watch = made;
      this.#watches.set(key, made);
    }
    watch.wakes.add(wake);
    return watch.fire;
  }

  #full(path: string): string {
    const { root } = this.#options;
    return path === '/' ? (root === '' ? '/' : root) : `${root}${path}`;
  }
}

/** Names the operation that was refused, which the library does not. */
function multi(wire: Wire, operations: readonly Operation[], callback: (error: Answered | null | undefined) => void): void {
  wire.multi(operations, (error, results) => {
    if (error === null || error === undefined || !Array.isArray(results)) return callback(error);
    // Those before it are rolled back and say 0.
    const operation = results.findIndex(({ err }) => err !== undefined && err !== 0);
    callback(Object.assign(error, { operation }));
  });
}

function statOf(stat: LibraryStat): Stat {
  return { czxid: stat.czxid.readBigInt64BE(), version: stat.version, owner: stat.ephemeralOwner.readBigInt64BE() };
}

function refuseLarge(path: string, bytes: number): void {
  if (bytes <= VALUE_BYTES) return;
  throw new ZooKeeperError('ZOOKEEPER_VALUE_TOO_LARGE', `${bytes} bytes for ${path} are more than the ${VALUE_BYTES} that a request may carry.`);
}
