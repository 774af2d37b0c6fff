// The polling Postgres source: rows of a table in the order of a column that rises, such as an identity or a time of change.
//
// What it can miss: a row whose value was drawn more than `settle` before its transaction wrote anything at all (ids that a program reserves in blocks, clocks that
// go back); rows that are deleted before they are read; and, of a row that changes, the states between two looks, or every later one where the column does not
// rise with it. Order and gaps of the column mean nothing to it otherwise (bounds.ts).
//
// Invariants:
//  P1  A position is the text of the last value read, and every row up to it has been given: a batch ends behind the last row of its last value (WITH TIES).
//  P2  What is read lies below a bound that has settled, which is asked for on the same server as the rows.
//  P3  With `until` the end is in the position: after a restore it is the same.

import { setTimeout as sleep } from 'node:timers/promises';
import { MillraceError } from '../../errors.ts';
import type { ReadContext, Source, SourceBatch, WithoutTimestamps } from '../../graph/source.ts';
import { Bounds, type Look } from './bounds.ts';
import { type Connection, connect, quoted, type Row } from './connection.ts';

/** What `postgres.source()` reads. */
export interface PostgresSourceOptions<T> {
  /** `postgres://user:password@host:port/database`. */
  url: string;
  /** A table or a view: `orders` or `sales.orders`, as it is written, capitals too. */
  table: string;
  /** The column that rises with every new row. An index on it spares the server reading the whole table each time. */
  column: string;
  /** Rows above this value; all by default. */
  from?: string | number;
  /** `'end'`: what is there at the start, and no more; the source is then bounded. */
  until?: 'end';
  /** How often new rows are looked for, ms; each second by default. */
  every?: number;
  /** A channel that is notified of new rows: they are then looked for at once. */
  notify?: string;
  /** How long a transaction may take from drawing a value to its first write, ms; 1 s by default. Rows come that much later. */
  settle?: number;
  /** Rows of one statement; 1,000 by default. */
  batch?: number;
  /** What a row becomes; the row itself by default, with the types of `pg`: bigint and numeric as text, times as Date. */
  map?: (row: Record<string, unknown>) => T;
  /** How long the server may take for one statement, ms; 60 s by default. */
  timeout?: number;
}

export interface PostgresPosition {
  /** The last value read; undefined: none yet. */
  readonly at: string | undefined;
  /** With `until`: where reading ends. */
  readonly end?: string | undefined;
}

type Settings<T> = Required<Omit<PostgresSourceOptions<T>, 'from' | 'until' | 'notify' | 'map'>> &
  Pick<PostgresSourceOptions<T>, 'notify' | 'map'> & { readonly from: string | undefined; readonly bounded: boolean };

export function postgresSource<T>(options: PostgresSourceOptions<T>): Source<T, string, PostgresPosition> & WithoutTimestamps {
  const { url, table, column, from, until, notify, map, every = 1000, settle = 1000, batch = 1000, timeout = 60_000 } = options;
  const wrong = (what: string): MillraceError => new MillraceError('OPTION_INVALID', `postgres.source() needs ${what}.`, { todo: 'Look at its options.' });
  for (const [name, value] of Object.entries({ url, table, column })) if (typeof value !== 'string' || value === '') throw wrong(`a ${name}`);
  for (const [name, value] of Object.entries({ every, batch, timeout })) if (!(value > 0)) throw wrong(`'${name}' above 0`);
  if (!(settle >= 0)) throw wrong("a 'settle' that is not below 0");
  if (until !== undefined && until !== 'end') throw wrong("an 'until' that is 'end'");
  const settings: Settings<T> = {
    ...{ url, table, column, every, settle, batch, timeout, notify, map },
    from: from === undefined ? undefined : String(from),
    bounded: until === 'end',
  };
  return {
    assignsTimestamps: false,
    bounded: settings.bounded,
    splits: async () => [table],
    splitId: (split) => split,
    read: (_split, position, context) => read(settings, position, context),
  };
}

async function* read<T>(settings: Settings<T>, position: PostgresPosition | undefined, context: ReadContext): AsyncGenerator<SourceBatch<T, PostgresPosition>> {
  const { url, timeout, notify, every, settle, bounded } = settings;
  const { uid, signal } = context;
  if (signal.aborted) return;
  const connection = await connect({ url, name: `millrace ${uid}`, uid, timeoutMs: timeout, signal });
  try {
    // Values travel as text. The index on the column, where there is one, is to be used however little the server knows of the table: it would sort all of the rest
    // for each batch. Where there is none it sorts nevertheless, and takes the query for one worth compiling.
    await connection.query("SET datestyle = 'ISO, YMD'; SET timezone = 'UTC'; SET extra_float_digits = 3; SET enable_sort = off; SET jit = off");
    const wakes = new Wakes(connection);
    if (notify !== undefined) await connection.query(`LISTEN ${quoted(notify)}`);
    const rows = new Rows(connection, settings, uid);
    await rows.prepare();
    const bounds = new Bounds(settle);
    let at = position === undefined ? settings.from : position.at;
    let end = position?.end;
    if (bounded && end === undefined) {
      end = (await rows.look()).max;
      if (end === undefined) return;
    }
    while (!signal.aborted) {
      const look = await rows.look();
      // The end has settled when everything of before has, whatever became of its row.
      const bound = bounds.seen(end === undefined ? look : { ...look, max: end });
      if (bound !== undefined) {
        for await (const { values, last } of rows.between(at, bound)) {
          at = last;
          yield { values, position: { at, end } };
        }
        if (end !== undefined) return;
      }
      await wakes.wait(bounds.pending ? Math.min(every, Math.max(settle, MIN_WAIT_MS)) : every, signal);
    }
  } catch (error) {
    // The attempt ended: the connection was closed under way.
    if (!signal.aborted) throw error;
  } finally {
    await connection.close();
  }
}

const MIN_WAIT_MS = 20;

/** Pauses that a notification ends. */
class Wakes {
  #heard = false;
  #wake: (() => void) | undefined;

  constructor(connection: Connection) {
    connection.onNotification(() => {
      this.#heard = true;
      this.#wake?.();
    });
    // The next query says why.
    void connection.over.then(() => this.#wake?.());
  }

  async wait(ms: number, signal: AbortSignal): Promise<void> {
    if (!this.#heard) {
      const over = new AbortController();
      const heard = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      const passed = sleep(ms, undefined, { signal: AbortSignal.any([over.signal, signal]) }).catch(() => {});
      await Promise.race([heard, passed]);
      over.abort();
      this.#wake = undefined;
    }
    this.#heard = false;
  }
}

class Rows<T> {
  readonly #connection: Connection;
  readonly #settings: Settings<T>;
  readonly #uid: string;
  readonly #column: string;
  /** Of the column, as the server writes it. */
  #type = '';

  constructor(connection: Connection, settings: Settings<T>, uid: string) {
    this.#connection = connection;
    this.#settings = settings;
    this.#uid = uid;
    this.#column = `"${settings.column.replaceAll('"', '""')}"`;
  }

  async prepare(): Promise<void> {
    const { table, column } = this.#settings;
    const [found] = await this.#connection.query(
      'SELECT format_type(atttypid, NULL) AS type FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2 AND NOT attisdropped',
      [quoted(table), column],
    );
    if (found === undefined) {
      throw new MillraceError('POSTGRES_REFUSED', `There is no table '${table}' with a column '${column}'.`, {
        todo: 'Create it, or correct the names; capitals count.',
        uid: this.#uid,
      });
    }
    this.#type = String(found.type);
  }

  async look(): Promise<Look> {
    const [seen] = await this.#connection.query(
      `SELECT (SELECT max(${this.#column})::text FROM ${quoted(this.#settings.table)}) AS max,
       pg_snapshot_xmax(pg_current_snapshot())::text AS next, pg_snapshot_xmin(pg_current_snapshot())::text AS over`,
    );
    const { max, next, over } = seen as { max: string | null; next: string; over: string };
    return { max: max ?? undefined, next: BigInt(next), over: BigInt(over), at: performance.now() };
  }

  /** Rows behind `at`, up to `to` included. */
  async *between(at: string | undefined, to: string): AsyncGenerator<{ values: T[]; last: string }> {
    const { table, batch, map } = this.#settings;
    const POSITION = '__millrace_position';
    for (let from = at; ; ) {
      const behind = from === undefined ? '' : `AND t.${this.#column} > $2::${this.#type}`;
      const rows = await this.#connection.query(
        `SELECT t.*, t.${this.#column}::text AS "${POSITION}" FROM ${quoted(table)} t WHERE t.${this.#column} <= $1::${this.#type} ${behind}
         ORDER BY t.${this.#column} FETCH FIRST ${Math.floor(batch)} ROWS WITH TIES`,
        from === undefined ? [to] : [to, from],
      );
      if (rows.length === 0) return;
      from = String(rows.at(-1)![POSITION]);
      const values = rows.map((row: Row) => {
        delete row[POSITION];
        return map === undefined ? (row as T) : map(row);
      });
      yield { values, last: from };
      if (rows.length < batch) return;
    }
  }
}
