// The marker of a Postgres writer: one row that says what the writer has committed, changed in the transaction of the rows themselves.
//
//   <markerTable> (uid, lineage, writer → checkpoint, attempt)
//
// Invariants:
//  M1  `open` raises `attempt` in every row of its lineage, waiting for whoever holds one: a transaction of an older attempt is over before the marker is read. One that
//      does not end is ended: its connection is closed by the server, which knows it by its name (protocols 18). All rows, since an attempt is superseded as a whole: it may
//      have writers that the newer one, with fewer instances or from an older checkpoint, knows nothing of. Openings of a lineage follow one another, so that no row of an
//      older attempt is made beside one.
//  M2  The first statement of a commit is the update of the row, on the condition that it says what this attempt read and that no newer attempt was here. One row, or
//      everything is rolled back: of two attempts that commit the same checkpoint one waits for the other, and then finds nothing to update.
//  M3  A row is made once in the life of an identity. A writer that a snapshot knows and that has no row has lost it: MARKER_LOST.

import { createHash } from 'node:crypto';
import { MillraceError } from '../../errors.ts';
import type { SinkContext } from '../../graph/sink.ts';
import { type Connection, quoted, type Row, sqlStateOf } from './connection.ts';

export interface Kept {
  /** Database and table: another one has no marker to lose. */
  readonly target: string;
  readonly committed: number;
}

const LOCK_MS = 1000;
const SAID_EVERY = 10;

/** How the server lists the connection of a writer: by it older attempts are found. */
export function connectionName(context: SinkContext): string {
  return `${namePrefix(context)}${context.attempt}`;
}

function namePrefix(context: Pick<SinkContext, 'uid' | 'lineage'>): string {
  return `millrace-${digestOf(context).toString('hex').slice(0, 16)}-`;
}

function digestOf({ uid, lineage }: Pick<SinkContext, 'uid' | 'lineage'>): Buffer {
  return createHash('sha256')
    .update(JSON.stringify([uid, lineage]))
    .digest();
}

export class Marker {
  readonly #connection: Connection;
  readonly #table: string;
  readonly #context: SinkContext;

  constructor(connection: Connection, table: string, context: SinkContext) {
    this.#connection = connection;
    this.#table = table;
    this.#context = context;
  }

  get #identity(): [string, string, string] {
    return [this.#context.uid, this.#context.lineage, this.#context.writer];
  }

  /** The newest checkpoint that is committed, behind the fence (M1). `born`: a snapshot knows of this writer. */
  async open(born: boolean): Promise<number> {
    await this.#ensureTable();
    const { attempt, log, uid } = this.#context;
    for (let tries = 1; ; tries++) {
      await this.#query('BEGIN');
      try {
        await this.#query(`SET LOCAL lock_timeout = ${LOCK_MS}`);
        const opened = await this.#raise(born);
        await this.#query('COMMIT');
        return opened;
      } catch (error) {
        // The connection is closed by who opens, and with it the transaction.
        if (sqlStateOf(error) !== '55P03') throw error;
        await this.#query('ROLLBACK');
        const ended = await this.#endOlder();
        if (ended > 0) log.warn(`The sink '${uid}' has closed ${ended} connection(s) of an older attempt that held its marker.`);
        else if (tries % SAID_EVERY === 0)
          log.warn(`The sink '${uid}' waits for attempt ${attempt} to have its rows in ${this.#table}, which another transaction holds.`);
      }
    }
  }

  /** Within a transaction. */
  async #raise(born: boolean): Promise<number> {
    const { uid, lineage, attempt } = this.#context;
    const table = quoted(this.#table);
    await this.#query('SELECT pg_advisory_xact_lock($1)', [String(digestOf(this.#context).readBigInt64BE())]);
    const [newest] = await this.#query(`SELECT max(attempt) AS attempt FROM ${table} WHERE uid = $1 AND lineage = $2`, [uid, lineage]);
    if (Number(newest!.attempt ?? 0) > attempt) throw this.#fenced(Number(newest!.attempt));
    await this.#query(`UPDATE ${table} SET attempt = $3 WHERE uid = $1 AND lineage = $2 AND attempt < $3`, [uid, lineage, attempt]);
    const there = await this.#read();
    if (there !== undefined) return there.checkpoint;
    if (born) throw this.#lost('its row is gone');
    await this.#query(`INSERT INTO ${table} (uid, lineage, writer, checkpoint, attempt) VALUES ($1, $2, $3, 0, $4)`, [...this.#identity, attempt]);
    return 0;
  }

  #query(text: string, values?: readonly unknown[]): Promise<Row[]> {
    return this.#connection.query(text, values);
  }

  /** How many. None where our role may not: the server then lets go of an idle transaction itself (sink.ts, S3). */
  async #endOlder(): Promise<number> {
    const prefix = namePrefix(this.#context);
    try {
      const rows = await this.#query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE pid <> pg_backend_pid()
           AND CASE WHEN left(application_name, $1::int) = $2 AND substr(application_name, $1::int + 1) ~ '^[0-9]{1,18}$'
               THEN substr(application_name, $1::int + 1)::bigint < $3 ELSE false END`,
        [prefix.length, prefix, this.#context.attempt],
      );
      return rows.length;
    } catch (error) {
      if (sqlStateOf(error) !== '42501') throw error;
      return 0;
    }
  }

  /** The first statement of a commit (M2), inside of its transaction. False: nothing may be committed. */
  async advance(from: number, to: number): Promise<boolean> {
    const rows = await this.#query(
      `UPDATE ${quoted(this.#table)} SET checkpoint = $4, attempt = $5
       WHERE uid = $1 AND lineage = $2 AND writer = $3 AND checkpoint = $6 AND attempt <= $5 RETURNING 1`,
      [...this.#identity, to, this.#context.attempt, from],
    );
    return rows.length === 1;
  }

  /** Why `advance` was refused; asked outside of that transaction. */
  async refusal(from: number): Promise<MillraceError> {
    const there = await this.#read();
    if (there === undefined) return this.#lost('its row is gone');
    if (there.attempt > this.#context.attempt) return this.#fenced(there.attempt);
    return this.#lost(`its row says ${there.checkpoint} instead of ${from}`);
  }

  /** What a snapshot says that was committed is (M3). */
  check(kept: Kept | undefined, target: string, committed: number): void {
    if (kept !== undefined && kept.target === target && committed < kept.committed) {
      throw this.#lost(`its row says ${committed}, and ${kept.committed} was committed`);
    }
  }

  async #read(): Promise<{ checkpoint: number; attempt: number } | undefined> {
    const rows = await this.#query(`SELECT checkpoint, attempt FROM ${quoted(this.#table)} WHERE uid = $1 AND lineage = $2 AND writer = $3`, this.#identity);
    return rows.length === 0 ? undefined : { checkpoint: Number(rows[0]!.checkpoint), attempt: Number(rows[0]!.attempt) };
  }

  async #ensureTable(): Promise<void> {
    const [there] = await this.#query('SELECT to_regclass($1) IS NOT NULL AS here', [quoted(this.#table)]);
    if (there!.here === true) return;
    try {
      await this.#query(
        `CREATE TABLE IF NOT EXISTS ${quoted(this.#table)} (uid text, lineage text, writer text, checkpoint bigint NOT NULL, attempt bigint NOT NULL,
         PRIMARY KEY (uid, lineage, writer))`,
      );
    } catch (error) {
      // Another writer was making it: IF NOT EXISTS looks before it makes.
      const state = sqlStateOf(error);
      if (state !== '23505' && state !== '42P07') throw error;
    }
  }

  #fenced(attempt: number): MillraceError {
    return new MillraceError('WRITER_FENCED', `Attempt ${attempt} writes as '${this.#identity.join('/')}', and this is ${this.#context.attempt}.`, {
      todo: 'Stop this process: another one has taken over.',
      uid: this.#context.uid,
    });
  }

  #lost(why: string): MillraceError {
    return new MillraceError('MARKER_LOST', `What the sink has committed as '${this.#identity.join('/')}' is not known: ${why} (table ${this.#table}).`, {
      todo: `Put the row back with the checkpoint that was committed last, or begin anew with restore none.`,
      uid: this.#context.uid,
    });
  }
}
