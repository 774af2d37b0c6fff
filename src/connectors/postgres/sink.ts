// The Postgres sink: rows and marker in one transaction, exactly once (marker.ts); and the plain one, whose rows go out as they come.
//
// commit(n): BEGIN; the marker's update; the rows in batches; COMMIT. Nothing is open between commits: the runtime holds the rows, in its snapshots.
//
// Invariants:
//  S1  After a commit that failed its outcome is unknown: the writer refuses everything but `close`, and must be opened again, which asks the marker behind a fence.
//  S2  A connection that was lost between two commits is made anew: the condition of the marker's update holds on any connection.
//  S3  Of a transaction that is idle for `timeout` the server lets go by itself: a writer whose machine is gone holds no locks.

import { MillraceError } from '../../errors.ts';
import type { Sink, SinkContext, SinkWriter, TransactionalSink, TransactionalWriter } from '../../graph/sink.ts';
import { type Io, systemIo } from '../../runtime/io.ts';
import { type Connection, connect, quoted } from './connection.ts';
import { connectionName, type Kept, Marker } from './marker.ts';
import { batchesOf, type PlainRow, plainRow, statementOf } from './rows.ts';

/** Where rows go. */
export interface PostgresRowsOptions<T> {
  /** `postgres://user:password@host:port/database`. */
  url: string;
  /** `orders` or `sales.orders`, as it is written, capitals too. It must be there. */
  table: string;
  /** Columns and values of a record; by default the record itself. Plain data, dates, bytes; objects and arrays for columns of json or array types. */
  row?: (value: T) => Record<string, unknown>;
  /** Columns with a unique index: a row of the same key is replaced. Without it every record is a new row. */
  key?: string[];
  /** How long the server may take for one statement, ms; 60 s by default. */
  timeout?: number;
}

/** What `postgres.sink()` writes, and where. */
export interface PostgresSinkOptions<T> extends PostgresRowsOptions<T> {
  /** The table of markers, in the same database; made if it is not there. `millrace_markers` by default. */
  markerTable?: string;
}

/** Every step at which a test can fail or kill the process, in the order of their first use. */
export const POSTGRES_SINK_STEPS = [
  'sink.postgres.open',
  'sink.postgres.opened',
  'sink.postgres.begin',
  'sink.postgres.marked',
  'sink.postgres.rows',
  'sink.postgres.commit',
  'sink.postgres.committed',
] as const;

const TIMEOUT_MS = 60_000;

interface Checked<T> {
  readonly url: string;
  readonly table: string;
  readonly markerTable: string;
  readonly row: ((value: T) => unknown) | undefined;
  readonly key: readonly string[];
  readonly timeoutMs: number;
}

function checked<T>(options: PostgresSinkOptions<T>, name: string): Checked<T> {
  const { url, table, row, key = [], timeout = TIMEOUT_MS, markerTable = 'millrace_markers' } = options;
  const wrong = (what: string): MillraceError => new MillraceError('OPTION_INVALID', `${name} needs ${what}.`, { todo: 'Look at its options.' });
  if (typeof url !== 'string' || url === '') throw wrong('a url');
  if (typeof table !== 'string' || table === '') throw wrong('a table');
  if (!Array.isArray(key) || key.some((column) => typeof column !== 'string' || column === '')) throw wrong('a key that is a list of columns');
  if (!(timeout > 0)) throw wrong('a timeout above 0');
  return { url, table, markerTable, row, key: [...key], timeoutMs: timeout };
}

export function postgresSink<T>(options: PostgresSinkOptions<T>, io: Io = systemIo()): TransactionalSink<T, PlainRow> {
  const settings = checked(options, 'postgres.sink()');
  return { transactional: true, open: (context) => Writer.open(settings, context, io) };
}

class Writer<T> implements TransactionalWriter<T, PlainRow> {
  readonly #settings: Checked<T>;
  readonly #context: SinkContext;
  readonly #io: Io;
  #connection: Connection;
  #marker: Marker;
  #target = '';
  #committed = 0;
  #state: 'ready' | 'doubtful' | 'closed' = 'ready';

  private constructor(settings: Checked<T>, context: SinkContext, io: Io, connection: Connection) {
    this.#settings = settings;
    this.#context = context;
    this.#io = io;
    this.#connection = connection;
    this.#marker = new Marker(connection, settings.markerTable, context);
  }

  static async open<T>(settings: Checked<T>, context: SinkContext, io: Io): Promise<Writer<T>> {
    await io.step('sink.postgres.open');
    const connection = await session(settings, context);
    try {
      const writer = new Writer<T>(settings, context, io, connection);
      await preflight(connection, settings, context.uid);
      const [database] = await connection.query('SELECT current_database() AS name');
      writer.#target = `${database!.name}/${settings.table}/${settings.markerTable}`;
      const kept = context.restored as Kept | undefined;
      writer.#committed = await writer.#marker.open(kept !== undefined && kept.target === writer.#target);
      writer.#marker.check(kept, writer.#target, writer.#committed);
      await io.step('sink.postgres.opened');
      return writer;
    } catch (error) {
      await connection.close();
      throw error;
    }
  }

  encode(value: T): PlainRow {
    const { row, key } = this.#settings;
    return plainRow(row === undefined ? value : row(value), key, this.#context.uid);
  }

  async commit(checkpoint: number, records: Iterable<PlainRow>): Promise<void> {
    this.#usable();
    if (checkpoint <= this.#committed) {
      throw new MillraceError('COMMIT_ID_REUSED', `Checkpoint ${checkpoint} was to be committed after ${this.#committed}.`, {
        todo: 'Begin anew with restore none, or with a checkpoint directory of its own.',
        uid: this.#context.uid,
      });
    }
    this.#state = 'doubtful';
    if (this.#connection.lost !== undefined) await this.#reconnect();
    const { key, table } = this.#settings;
    await this.#io.step('sink.postgres.begin');
    await this.#connection.query('BEGIN');
    if (!(await this.#marker.advance(this.#committed, checkpoint))) {
      await this.#connection.query('ROLLBACK');
      throw await this.#marker.refusal(this.#committed);
    }
    await this.#io.step('sink.postgres.marked');
    for (const { columns, json } of batchesOf(records, key)) {
      await this.#connection.query(statementOf(table, columns, key), [json]);
      await this.#io.step('sink.postgres.rows');
    }
    await this.#io.step('sink.postgres.commit');
    await this.#connection.query('COMMIT');
    await this.#io.step('sink.postgres.committed');
    this.#committed = checkpoint;
    this.#state = 'ready';
  }

  /** S2. */
  async #reconnect(): Promise<void> {
    this.#connection = await session(this.#settings, this.#context);
    this.#marker = new Marker(this.#connection, this.#settings.markerTable, this.#context);
  }

  snapshot(): Kept {
    return { target: this.#target, committed: this.#committed };
  }

  async lastCommitted(): Promise<number> {
    this.#usable();
    return this.#committed;
  }

  async close(): Promise<void> {
    this.#state = 'closed';
    await this.#connection.close();
  }

  #usable(): void {
    if (this.#state === 'ready') return;
    const sentence = this.#state === 'closed' ? 'The Postgres writer is closed.' : 'The outcome of an earlier commit of this Postgres writer is unknown.';
    throw new MillraceError('SINK_FAILED', sentence, { todo: 'Open the sink again.', uid: this.#context.uid });
  }
}

async function session<T>({ url, timeoutMs }: Checked<T>, context: SinkContext): Promise<Connection> {
  const connection = await connect({ url, name: connectionName(context), uid: context.uid, timeoutMs, signal: context.signal });
  try {
    await connection.query(`SET idle_in_transaction_session_timeout = ${Math.ceil(timeoutMs)}`);
    return connection;
  } catch (error) {
    await connection.close();
    throw error;
  }
}

/** The table, its columns of the key and their index: what would otherwise be found out with the first commit. */
async function preflight<T>(connection: Connection, { table, key }: Checked<T>, uid: string): Promise<void> {
  const [there] = await connection.query('SELECT to_regclass($1)::oid AS oid', [quoted(table)]);
  const refuse = (what: string, todo: string): MillraceError => new MillraceError('POSTGRES_REFUSED', what, { todo, uid });
  if (there!.oid === null) throw refuse(`There is no table '${table}'.`, 'Create it, or correct its name; capitals count.');
  if (key.length === 0) return;
  const [index] = await connection.query(
    `SELECT count(*)::int AS count FROM pg_index i WHERE i.indrelid = $1 AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
       AND ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = ANY((i.indkey::int2[])[0:i.indnkeyatts - 1]) ORDER BY 1)
         = ARRAY(SELECT unnest($2::text[]) ORDER BY 1)`,
    [there!.oid, key],
  );
  if (index!.count === 0) {
    throw refuse(
      `The table '${table}' has no unique index on exactly (${key.join(', ')}).`,
      `CREATE UNIQUE INDEX ON ${quoted(table)} (${key.map((name) => `"${name}"`).join(', ')}), or correct the key.`,
    );
  }
}

/** Rows as they come, at least once; with a key, the same in the end. */
export function postgresRows<T>(options: PostgresRowsOptions<T>): Sink<T> {
  const settings = checked(options, 'postgres.rows()');
  return {
    async open(context: SinkContext): Promise<SinkWriter<T>> {
      const { url, timeoutMs, row, key, table } = settings;
      const connection = await connect({ url, name: `millrace ${context.uid}`, uid: context.uid, timeoutMs, signal: context.signal });
      try {
        await preflight(connection, settings, context.uid);
      } catch (error) {
        await connection.close();
        throw error;
      }
      return {
        async write(values: readonly T[]): Promise<void> {
          const rows = values.map((value) => plainRow(row === undefined ? value : row(value), key, context.uid));
          for (const batch of batchesOf(rows, key)) await connection.query(statementOf(table, batch.columns, key), [batch.json]);
        },
        // A statement is its own transaction: what has resolved is committed.
        async flush(): Promise<void> {},
        close: () => connection.close(),
      };
    },
  };
}
