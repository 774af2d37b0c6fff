// One session with ZooKeeper over node-zookeeper-client: the only file that knows that library.
//
// What: the library frames requests, numbers them and resumes the session after a lost connection. What it lacks is added around it, on its own
// objects, version 1.1.3 exactly: a limit for the handshake and for whoever never answers, TLS, a socket that holds no process up, an end at once.
//
// Invariants:
//  W1  A socket is made here: it has to have a session within `handshakeMs`, else it is destroyed and the next server is tried. Bytes left over from the last
//      connection do not get into the next one, which the library forgets.
//  W2  What the library throws while it reads an answer (a number that it does not know) ends the connection, and not the process.
//  W3  After `abandon()` nothing that was queued is sent, and no listener is called.
//  W4  Version 0 is checked: the library takes it for «any» in transactions.
//  W5  Watches end with their connection. The library would ask for all of them again in one request, which servers refuse beyond a mebibyte, again and again; and some
//      would be lost all the same. Whoever watches reads again (client.ts, Z6).
//  W6  After EXPIRED or AUTH_FAILED the object is of no use; whoever owns it makes another.
//  W7  What is queued when a connection ends goes with it. The library would send our credentials as often as a connection was begun.

import type { EventEmitter } from 'node:events';
import { createRequire } from 'node:module';
import { connect as connectPlain, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import type { CreateMode, Operation } from './client.ts';
import type { Answered } from './errors.ts';

/** Of the library, what is used here; it has no types of its own. */
interface Library {
  createClient(connect: string, options: { sessionTimeout: number; spinDelay: number; retries: number }): LibraryClient;
  readonly CreateMode: Readonly<Record<'PERSISTENT' | 'EPHEMERAL' | 'EPHEMERAL_SEQUENTIAL', number>>;
  readonly ACL: { readonly OPEN_ACL_UNSAFE: unknown[]; readonly CREATOR_ALL_ACL: unknown[] };
}

export interface LibraryStat {
  readonly czxid: Buffer;
  readonly version: number;
  readonly ephemeralOwner: Buffer;
}

type Callback<A extends unknown[]> = (error: Answered | null | undefined, ...answer: A) => void;

interface LibraryClient {
  readonly connectionManager: Connection;
  addAuthInfo(scheme: string, credentials: Buffer): void;
  on(event: 'state', listener: (state: { readonly name: string }) => void): void;
  removeAllListeners(event: 'state'): void;
  connect(): void;
  close(): void;
  getSessionId(): Buffer;
  getSessionTimeout(): number;
  getData(path: string, watcher: (() => void) | undefined, callback: Callback<[Buffer | undefined, LibraryStat]>): void;
  exists(path: string, watcher: (() => void) | undefined, callback: Callback<[LibraryStat | null]>): void;
  getChildren(path: string, watcher: (() => void) | undefined, callback: Callback<[string[]]>): void;
  create(path: string, value: Buffer, acls: unknown[], mode: number, callback: Callback<[string]>): void;
  setData(path: string, value: Buffer, version: number, callback: Callback<[LibraryStat]>): void;
  remove(path: string, version: number, callback: Callback<[]>): void;
  transaction(): Transaction;
}

interface Transaction {
  readonly ops: { version?: number }[];
  create(path: string, value: Buffer, acls: unknown[], mode: number): void;
  check(path: string, version: number): void;
  setData(path: string, value: Buffer, version: number): void;
  remove(path: string, version: number): void;
  commit(callback: Callback<[readonly { readonly err?: number }[]]>): void;
}

/** The library's own connection manager, which is not documented. */
interface Connection {
  connect(): void;
  setState(state: number): void;
  socket: Socket | undefined;
  pendingBuffer: Buffer | null;
  readonly packetQueue: { shift(): unknown };
  readonly watcherManager: Record<'dataWatchers' | 'existenceWatchers' | 'childWatchers', Record<string, EventEmitter | undefined>>;
  onSocketConnected(): void;
  onSocketData(bytes: Buffer): void;
  onSocketDrain(): void;
  onSocketClosed(): void;
}

const CONNECTING = 1;
const CLOSING = -1;

export interface WireOptions {
  /** `host:port`, at least one. */
  readonly servers: readonly string[];
  readonly sessionTimeoutMs: number;
  readonly auth: { readonly scheme: string; readonly credentials: string } | undefined;
  readonly tls: ConnectionOptions | undefined;
  /** `connected` comes again after each lost connection, `disconnected` in between. `expired` and `rejected` are ends. */
  readonly on: (state: 'connected' | 'disconnected' | 'expired' | 'rejected') => void;
}

const PAUSE_MS = 50;
const PAUSE_SPREAD_MS = 200;
const YOUNG_MS = 1000;
const HANDSHAKE_MIN_MS = 250;
const HANDSHAKE_MAX_MS = 5000;

const require = createRequire(import.meta.url);

export class Wire {
  readonly #library: Library;
  readonly #client: LibraryClient;
  readonly #connection: Connection;
  readonly #options: WireOptions;
  readonly #acls: unknown[];
  #next: number;
  /** Servers tried since there was a session. */
  #tried = 0;
  /** There was a session on the newest connection. */
  #granted = false;
  #held = false;
  #abandoned = false;
  #pause: NodeJS.Timeout | undefined;
  #handshake: NodeJS.Timeout | undefined;
  /** When the connection that is there now began to be made; see `began`. */
  #began = 0;
  /** What the last connection that did not come about ended with. */
  failure: Error | undefined;

  constructor(options: WireOptions) {
    // Here and not above: a program that does without ZooKeeper does not load it.
    this.#library = require('node-zookeeper-client') as Library;
    this.#options = options;
    this.#next = Math.floor(Math.random() * options.servers.length);
    this.#client = this.#library.createClient(options.servers.join(','), { sessionTimeout: options.sessionTimeoutMs, spinDelay: 0, retries: 0 });
    const { auth } = options;
    if (auth !== undefined) this.#client.addAuthInfo(auth.scheme, Buffer.from(auth.credentials));
    this.#acls = auth === undefined ? this.#library.ACL.OPEN_ACL_UNSAFE : this.#library.ACL.CREATOR_ALL_ACL;
    this.#client.on('state', ({ name }) => this.#state(name));
    this.#connection = this.#client.connectionManager;
    this.#connection.connect = () => this.#dial();
  }

  connect(): void {
    this.#client.connect();
  }

  get sessionId(): bigint {
    return this.#client.getSessionId().readBigInt64BE();
  }
  get sessionTimeoutMs(): number {
    return this.#client.getSessionTimeout();
  }
  /** The monotonic time before the session was asked for on the present connection: it was alive later than that. */
  get began(): number {
    return this.#began;
  }

  /** Whether the connection keeps the process alive. */
  hold(held: boolean): void {
    this.#held = held;
    // One that is over would only gather listeners.
    const socket = this.#connection.socket?.destroyed === false ? this.#connection.socket : undefined;
    if (held) {
      socket?.ref();
      this.#pause?.ref();
      this.#handshake?.ref();
    } else {
      socket?.unref();
      this.#pause?.unref();
      this.#handshake?.unref();
    }
  }

  /** Ends the connection, not the session: another one is made. */
  breakOff(): void {
    this.#connection.socket?.destroy();
  }

  /** W3. The session ends at the servers when its time is over. */
  abandon(): void {
    if (this.#abandoned) return;
    this.#abandoned = true;
    clearTimeout(this.#pause);
    clearTimeout(this.#handshake);
    this.#client.removeAllListeners('state');
    while (this.#connection.packetQueue.shift() !== undefined);
    // What closes now does not dial again.
    this.#connection.setState(CLOSING);
    this.#connection.socket?.destroy();
  }

  /** Ends the session, and with it its ephemeral nodes, where a server answers within that time. */
  async close(ms: number): Promise<void> {
    // One that is over would only gather listeners.
    const socket = this.#connection.socket?.destroyed === false ? this.#connection.socket : undefined;
    if (!this.#abandoned && socket !== undefined && !socket.destroyed && this.sessionId !== 0n) {
      await new Promise<void>((resolve) => {
        const late = setTimeout(resolve, ms);
        socket.once('close', () => {
          clearTimeout(late);
          resolve();
        });
        this.#client.removeAllListeners('state');
        this.#client.close();
      });
    }
    this.abandon();
  }

  getData(path: string, watcher: (() => void) | undefined, callback: Callback<[Buffer | undefined, LibraryStat]>): void {
    this.#client.getData(path, watcher, callback);
  }
  exists(path: string, watcher: (() => void) | undefined, callback: Callback<[LibraryStat | null]>): void {
    this.#client.exists(path, watcher, callback);
  }
  getChildren(path: string, watcher: (() => void) | undefined, callback: Callback<[string[]]>): void {
    this.#client.getChildren(path, watcher, callback);
  }
  /** The library would keep it until it fires. */
  unwatch(path: string, watcher: () => void): void {
    for (const watchers of this.#watchers()) {
      watchers[path]?.removeListener('notification', watcher);
      if (watchers[path]?.listenerCount('notification') === 0) delete watchers[path];
    }
  }

  create(path: string, value: Uint8Array, mode: CreateMode, callback: Callback<[string]>): void {
    this.#client.create(path, bytesOf(value), this.#acls, this.#modeOf(mode), callback);
  }
  setData(path: string, value: Uint8Array, version: number, callback: Callback<[LibraryStat]>): void {
    this.#client.setData(path, bytesOf(value), version, callback);
  }
  remove(path: string, version: number, callback: Callback<[]>): void {
    this.#client.remove(path, version, callback);
  }

  multi(operations: readonly Operation[], callback: Callback<[readonly { readonly err?: number }[]]>): void {
    const transaction = this.#client.transaction();
    for (const operation of operations) {
      const { path } = operation;
      if (operation.kind === 'create') transaction.create(path, bytesOf(operation.value), this.#acls, this.#modeOf(operation.mode ?? 'persistent'));
      else {
        if (operation.kind === 'check') transaction.check(path, operation.version);
        else if (operation.kind === 'set') transaction.setData(path, bytesOf(operation.value), operation.version);
        else transaction.remove(path, operation.version);
        // W4.
        transaction.ops.at(-1)!.version = operation.version;
      }
    }
    transaction.commit(callback);
  }

  #watchers(): Record<string, EventEmitter | undefined>[] {
    const { dataWatchers, existenceWatchers, childWatchers } = this.#connection.watcherManager;
    return [dataWatchers, existenceWatchers, childWatchers];
  }

  #modeOf(mode: CreateMode): number {
    const { CreateMode: modes } = this.#library;
    return mode === 'persistent' ? modes.PERSISTENT : mode === 'ephemeral' ? modes.EPHEMERAL : modes.EPHEMERAL_SEQUENTIAL;
  }

  #state(name: string): void {
    if (name === 'SYNC_CONNECTED') {
      clearTimeout(this.#handshake);
      this.#tried = 0;
      this.#granted = true;
      this.failure = undefined;
      this.#options.on('connected');
    } else if (name === 'DISCONNECTED') this.#options.on('disconnected');
    else if (name === 'EXPIRED') this.#options.on('expired');
    else if (name === 'AUTH_FAILED') this.#options.on('rejected');
  }

  /** W1. In the place of the library's own. */
  #dial(): void {
    if (this.#abandoned) return;
    this.#connection.setState(CONNECTING);
    const { servers } = this.#options;
    const dial = (): void => this.#open(servers[this.#next++ % servers.length]!);
    // A connection that was lost at once may be so again.
    const young = this.#granted && performance.now() - this.#began < YOUNG_MS;
    if (this.#tried++ < servers.length && !young) {
      dial();
      return;
    }
    this.#pause = setTimeout(dial, PAUSE_MS + Math.random() * PAUSE_SPREAD_MS);
    if (!this.#held) this.#pause.unref();
  }

  #open(server: string): void {
    const connection = this.#connection;
    const { tls } = this.#options;
    const { host, port } = addressOf(server);
    this.#began = performance.now();
    this.#granted = false;
    const socket = tls === undefined ? connectPlain({ host, port }) : connectTls({ host, port, ...tls });
    if (!this.#held) socket.unref();
    connection.socket = socket;
    connection.pendingBuffer = null;
    // W7.
    while (connection.packetQueue.shift() !== undefined);
    // W5.
    Object.assign(connection.watcherManager, { dataWatchers: {}, existenceWatchers: {}, childWatchers: {} });
    socket.setNoDelay();
    socket.once(tls === undefined ? 'connect' : 'secureConnect', () => connection.onSocketConnected());
    socket.on('data', (bytes) => {
      try {
        connection.onSocketData(bytes);
      } catch {
        // W2. What was asked is told that the connection was lost.
        socket.destroy();
      }
    });
    socket.on('drain', () => connection.onSocketDrain());
    // 'close' comes next.
    socket.on('error', (error) => {
      this.failure = error;
    });
    socket.once('close', () => {
      clearTimeout(this.#handshake);
      connection.onSocketClosed();
    });
    const ms = Math.min(HANDSHAKE_MAX_MS, Math.max(HANDSHAKE_MIN_MS, this.#options.sessionTimeoutMs / (this.#options.servers.length + 1)));
    clearTimeout(this.#handshake);
    this.#handshake = setTimeout(() => socket.destroy(), ms);
    if (!this.#held) this.#handshake.unref();
  }
}

/** `host`, `host:port`, `[::1]:port`. */
export function addressOf(server: string): { readonly host: string; readonly port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(server);
  return { host: match?.[1] ?? match?.[2] ?? server, port: Number(match?.[3] ?? 2181) };
}

function bytesOf(value: Uint8Array): Buffer {
  return Buffer.isBuffer(value) ? value : Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}
