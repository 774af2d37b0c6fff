// One connection to PostgreSQL: what the connector needs of `pg`, with its errors named.
//
// Invariants:
//  C1  What is thrown is POSTGRES_UNREACHABLE (no answer, a lost connection, a server that stops) or POSTGRES_REFUSED with what the server said; the error of `pg`
//      is the cause. A refusal is retryable where the server says that it may pass (locks, deadlocks, resources).
//  C2  A connection that was lost stays so: `lost` says it, and every query throws.
//  C3  `close` never waits for a server that does not answer.

import type { Client } from 'pg';
import { MillraceError, messageOf } from '../../errors.ts';
import { peer } from '../peers.ts';

export type Row = Record<string, unknown>;

export interface ConnectionOptions {
  readonly url: string;
  /** What the server lists it as. */
  readonly name: string;
  /** The operator that errors name. */
  readonly uid?: string | undefined;
  /** How long the server may take for one query. */
  readonly timeoutMs: number;
  /** Aborted: the connection is closed, and queries under way throw. */
  readonly signal?: AbortSignal | undefined;
}

export interface Connection {
  /** The rows of one statement. */
  query(text: string, values?: readonly unknown[]): Promise<Row[]>;
  /** Of the channels that were listened to. */
  onNotification(heard: (channel: string, payload: string) => void): void;
  /** Why there is no connection any more. */
  readonly lost: unknown;
  /** Resolves when it was lost or closed. */
  readonly over: Promise<void>;
  /** It then holds no process up. */
  unref(): void;
  close(): Promise<void>;
}

const CONNECT_MS = 10_000;
const CLOSE_MS = 500;

export async function connect(options: ConnectionOptions): Promise<Connection> {
  const { default: pg } = await peer('pg', () => import('pg'), 'postgres');
  let client: Client;
  try {
    client = new pg.Client({
      connectionString: options.url,
      application_name: options.name,
      connectionTimeoutMillis: CONNECT_MS,
      query_timeout: options.timeoutMs,
      keepAlive: true,
    });
  } catch (cause) {
    throw new MillraceError('OPTION_INVALID', `That is no address of PostgreSQL: ${messageOf(cause)}.`, {
      todo: 'postgres://user:password@host:port/database',
      cause,
    });
  }
  const connection = new ClientConnection(client, options);
  await connection.open();
  return connection;
}

class ClientConnection implements Connection {
  readonly #client: Client;
  readonly #options: ConnectionOptions;
  readonly over: Promise<void>;
  #ended: () => void = () => {};
  lost: unknown;

  constructor(client: Client, options: ConnectionOptions) {
    this.#client = client;
    this.#options = options;
    this.over = new Promise((resolve) => {
      this.#ended = resolve;
    });
    // Without a listener the process would end.
    client.on('error', (error) => this.#lose(error));
    client.on('end', () => this.#lose(new Error('the connection was closed')));
  }

  async open(): Promise<void> {
    const { signal } = this.#options;
    const destroy = (): void => this.#destroy();
    signal?.addEventListener('abort', destroy);
    void this.over.then(() => signal?.removeEventListener('abort', destroy));
    try {
      signal?.throwIfAborted();
      await this.#client.connect();
    } catch (error) {
      this.#destroy();
      throw this.#named(error);
    }
  }

  async query(text: string, values?: readonly unknown[]): Promise<Row[]> {
    if (this.lost !== undefined) throw this.#named(this.lost);
    try {
      const { rows } = await this.#client.query<Row>(text, values as unknown[] | undefined);
      return rows;
    } catch (error) {
      const named = this.#named(error);
      // Its answer may still come, to the next query.
      if (named.code === 'POSTGRES_UNREACHABLE') this.#destroy();
      throw named;
    }
  }

  onNotification(heard: (channel: string, payload: string) => void): void {
    this.#client.on('notification', ({ channel, payload }) => heard(channel, payload ?? ''));
  }

  unref(): void {
    (this.#client as unknown as { unref(): void }).unref();
  }

  async close(): Promise<void> {
    if (this.lost === undefined) {
      let late: NodeJS.Timeout | undefined;
      const patience = new Promise<void>((resolve) => {
        late = setTimeout(resolve, CLOSE_MS);
      });
      await Promise.race([this.#client.end().catch(() => {}), patience]);
      clearTimeout(late);
    }
    this.#destroy();
  }

  #destroy(): void {
    const { connection } = this.#client as unknown as { connection: { stream: { destroy(): void } } };
    connection.stream.destroy();
    this.#lose(new Error('the connection was closed'));
  }

  #lose(error: unknown): void {
    this.lost ??= error;
    this.#ended();
  }

  #named(cause: unknown): MillraceError {
    const { uid } = this.#options;
    const state = sqlStateOf(cause);
    const said = messageOf(cause);
    if (state === undefined || isConnectionLoss(state)) {
      return new MillraceError('POSTGRES_UNREACHABLE', `PostgreSQL does not answer: ${said}.`, {
        todo: 'Is the server there, and the address right?',
        uid,
        cause,
      });
    }
    const { detail, where } = cause as { detail?: string; where?: string };
    const more = [detail, where].filter((text) => text !== undefined && text !== '').map((text) => ` (${text})`);
    return new MillraceError('POSTGRES_REFUSED', `PostgreSQL refuses (${state}): ${said}${more.join('')}.`, {
      todo: todoOf(state),
      uid,
      cause,
      retryable: isPassing(state),
    });
  }
}

/** The five characters by which PostgreSQL names an error; undefined where it is none of its own. */
export function sqlStateOf(error: unknown): string | undefined {
  for (let at = error; at instanceof Error; at = at.cause) {
    const { code } = at as { code?: unknown };
    // Those of Node begin with an E and another letter.
    if (typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && /\d/.test(code)) return code;
  }
  return undefined;
}

/** Connection exceptions, and a server that shuts down, crashes or starts. */
function isConnectionLoss(state: string): boolean {
  return state.startsWith('08') || /^57P0[1235]$/.test(state);
}

/** Rolled back by a conflict, out of resources, waiting for a lock or for an operator, idle for too long, or its disk. */
function isPassing(state: string): boolean {
  return /^(40|53|55|57|58)/.test(state) || state === '25P03';
}

function todoOf(state: string): string {
  if (state.startsWith('28')) return 'Correct user and password in the url, or the rights of the role.';
  if (state === '3D000') return 'Create the database, or correct the url.';
  if (state === '42P01') return 'Create the table, or correct its name.';
  if (state === '42703') return 'Correct what `row` gives: its names are the columns.';
  if (state === '42501') return 'Grant the role what it needs.';
  if (state === '21000') return 'Give the key columns values in one spelling: two rows of a batch differ as written and are one key to the server.';
  if (/^2[23]/.test(state)) return 'Correct the row, or map it to something that the table takes.';
  return 'Read what the server says.';
}

/** `orders`, `sales.orders`: as it is written, capitals too. */
export function quoted(name: string): string {
  return name
    .split('.')
    .map((part) => `"${part.replaceAll('"', '""')}"`)
    .join('.');
}
