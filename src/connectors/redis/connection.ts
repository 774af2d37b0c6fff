// One connection to Redis: what the connector needs of `redis`, with its errors named. Commands are arrays of strings and bytes, answers those of RESP 2.
//
// Invariants:
//  C1  What is thrown is REDIS_UNREACHABLE (no answer, a lost connection) or REDIS_REFUSED with what Redis said; the error of the package is the cause. A refusal is
//      retryable where Redis says that it may pass (it loads its data, is out of memory, follows another).
//  C2  A connection that was lost stays so: there is no reconnecting inside, which would send commands again that may have been done.
//  C3  Commands of one call go out together and are answered in order. One that is not answered in `timeoutMs` ends the connection.

import { MillraceError, messageOf } from '../../errors.ts';
import { peer } from '../peers.ts';

export type Argument = string | Buffer;
/** Bytes where they were asked for. */
export type Reply = string | number | null | Buffer | Error | readonly Reply[];

export interface ConnectionOptions {
  readonly url: string;
  readonly uid?: string | undefined;
  readonly timeoutMs: number;
  /** Aborted: the connection ends, and commands under way throw. */
  readonly signal?: AbortSignal | undefined;
}

export interface Connection {
  /** Answers as strings. */
  command(...args: Argument[]): Promise<Reply>;
  /** Answers with bytes for strings. */
  commandForBytes(...args: Argument[]): Promise<Reply>;
  /** Sent together; the first that is refused rejects, and the others are done all the same. */
  commands(all: readonly (readonly Argument[])[]): Promise<Reply[]>;
  /** In one MULTI, answers with bytes for strings; one that was refused is an Error among them. */
  transactionForBytes(all: readonly (readonly Argument[])[]): Promise<readonly Reply[]>;
  /** It then holds no process up. */
  unref(): void;
  readonly lost: boolean;
  close(): void;
}

const CONNECT_MS = 10_000;
/** Bulk strings. */
const BYTES = { typeMapping: { 36: Buffer } };

type Client = ReturnType<typeof import('redis').createClient>;

export async function connect(options: ConnectionOptions): Promise<Connection> {
  const redis = await peer('redis', () => import('redis'), 'redis');
  let client: Client;
  try {
    client = redis.createClient({
      url: options.url,
      RESP: 2,
      disableOfflineQueue: true,
      socket: { reconnectStrategy: false, connectTimeout: CONNECT_MS },
    }) as unknown as Client;
  } catch (cause) {
    throw new MillraceError('OPTION_INVALID', `That is no address of Redis: ${messageOf(cause)}.`, { todo: 'redis://user:password@host:port/database', cause });
  }
  const connection = new ClientConnection(client, redis.ErrorReply, options);
  await connection.open();
  return connection;
}

class ClientConnection implements Connection {
  readonly #client: Client;
  readonly #refusal: new (
    ...args: never[]
  ) => Error;
  readonly #options: ConnectionOptions;
  #abort: (() => void) | undefined;
  lost = false;

  constructor(client: Client, refusal: new (...args: never[]) => Error, options: ConnectionOptions) {
    this.#client = client;
    this.#refusal = refusal;
    this.#options = options;
    // Without a listener the process would end. The commands under way, or the next one, say why.
    client.on('error', () => this.close());
    client.on('end', () => this.close());
  }

  async open(): Promise<void> {
    const { signal } = this.#options;
    this.#abort = () => this.close();
    signal?.addEventListener('abort', this.#abort);
    try {
      signal?.throwIfAborted();
      await this.#client.connect();
    } catch (error) {
      this.close();
      throw this.#named(error);
    }
  }

  async command(...args: Argument[]): Promise<Reply> {
    return this.#answered(this.#client.sendCommand<Reply>(args));
  }

  async commandForBytes(...args: Argument[]): Promise<Reply> {
    return this.#answered(this.#client.sendCommand<Reply>(args, BYTES));
  }

  commands(all: readonly (readonly Argument[])[]): Promise<Reply[]> {
    return this.#answered(Promise.all(all.map((args) => this.#client.sendCommand<Reply>(args))));
  }

  async transactionForBytes(all: readonly (readonly Argument[])[]): Promise<readonly Reply[]> {
    const sent = [this.#client.sendCommand<Reply>(['MULTI']), ...all.map((args) => this.#client.sendCommand<Reply>(args))];
    const done = this.#client.sendCommand<Reply>(['EXEC'], BYTES);
    // A command that is refused when it is queued discards them all; its own answer says why.
    const [, answers] = await this.#answered(Promise.all([Promise.all(sent), done]));
    return answers as readonly Reply[];
  }

  unref(): void {
    this.#client.unref();
  }

  close(): void {
    if (this.lost) return;
    this.lost = true;
    if (this.#abort !== undefined) this.#options.signal?.removeEventListener('abort', this.#abort);
    if (this.#client.isOpen) this.#client.destroy();
  }

  async #answered<T>(answers: Promise<T>): Promise<T> {
    const late = setTimeout(() => this.close(), this.#options.timeoutMs);
    try {
      return await answers;
    } catch (error) {
      throw this.#named(error);
    } finally {
      clearTimeout(late);
    }
  }

  #named(cause: unknown): MillraceError {
    const { uid } = this.#options;
    const said = messageOf(cause);
    if (!(cause instanceof this.#refusal)) {
      return new MillraceError('REDIS_UNREACHABLE', `Redis does not answer: ${said}.`, { todo: 'Is the server there, and the address right?', uid, cause });
    }
    return new MillraceError('REDIS_REFUSED', `Redis refuses: ${said}.`, {
      todo: /^(WRONGPASS|NOAUTH|NOPERM)|AUTH/.test(said) ? 'Correct user and password in the url, or the rights of the user.' : 'Read what it says.',
      uid,
      cause,
      retryable: /^(LOADING|BUSY|TRYAGAIN|CLUSTERDOWN|MASTERDOWN|OOM|READONLY|MISCONF|NOREPLICAS)/.test(said),
    });
  }
}
