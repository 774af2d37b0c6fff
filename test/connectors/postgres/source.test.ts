import { randomBytes } from 'node:crypto';
import { job } from 'millrace';
import { collect, postgres } from 'millrace/connectors';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Bounds } from '../../../src/connectors/postgres/bounds.ts';
import { postgresNotifications } from '../../../src/connectors/postgres/notifications.ts';
import { type PostgresPosition, postgresSource } from '../../../src/connectors/postgres/source.ts';
import { SILENT } from '../../../src/graph/context.ts';
import type { SourceBatch } from '../../../src/graph/source.ts';
import { rejection } from '../../protocols/lab.ts';
import { NO_POSTGRES } from '../../services/postgres.ts';
import { type Letter, readContext } from '../reading.ts';
import { Database } from './database.ts';

describe('a bound of a rising column', () => {
  it('holds once every transaction is over that ran when it was seen, and the time to settle', () => {
    const bounds = new Bounds(100);
    expect(bounds.seen({ max: '5', next: 12n, over: 10n, at: 0 })).toBeUndefined();
    expect(bounds.pending).toBe(true);
    expect(bounds.seen({ max: '7', next: 13n, over: 11n, at: 200 })).toBeUndefined();
    expect(bounds.seen({ max: '7', next: 14n, over: 12n, at: 250 })).toBe('5');
    expect(bounds.seen({ max: '7', next: 14n, over: 14n, at: 299 })).toBeUndefined();
    expect(bounds.seen({ max: '7', next: 14n, over: 14n, at: 300 })).toBe('7');
    expect(bounds.pending).toBe(false);
    expect(bounds.seen({ max: '7', next: 14n, over: 14n, at: 900 })).toBeUndefined();
    expect(bounds.pending).toBe(false);
  });

  it('is none while there are no rows', () => {
    const bounds = new Bounds(0);
    expect(bounds.seen({ max: undefined, next: 1n, over: 1n, at: 0 })).toBeUndefined();
    expect(bounds.pending).toBe(false);
  });
});

describe.skipIf(NO_POSTGRES)('postgres.source()', () => {
  let database: Database;
  beforeAll(async () => {
    database = await Database.open();
  });
  afterAll(() => database?.close());

  const QUICK = { every: 20, settle: 20 };

  it('reads a table in the order of its column, rows of one value in one batch, to the end that it had', async () => {
    const table = await database.table('id serial, at timestamptz, n bigint');
    await database.query(
      `INSERT INTO ${table} (at, n) SELECT '2030-01-31 00:00:00.000001Z'::timestamptz + (7 - i) / 3 * interval '1 us', i FROM generate_series(1, 7) i`,
    );
    const source = postgresSource<string>({ url: database.url, table, column: 'at', until: 'end', batch: 2, settle: 0, map: (row) => String(row.n) });
    const batches: SourceBatch<string, PostgresPosition>[] = [];
    for await (const batch of source.read(table, undefined, readContext())) {
      batches.push(batch);
      await database.query(`INSERT INTO ${table} (at, n) VALUES (now() + interval '10 years', 99)`);
    }
    expect(batches.map(({ values }) => values.toSorted())).toEqual([['5', '6', '7'], ['2', '3', '4'], ['1']]);
    expect(batches[0]!.position).toEqual({ at: '2030-01-31 00:00:00.000001+00', end: '2030-01-31 00:00:00.000003+00' });
    const again: string[] = [];
    for await (const { values } of source.read(table, batches[0]!.position, readContext())) again.push(...values);
    expect(again.toSorted()).toEqual(['1', '2', '3', '4']);
  });

  it('a row of a transaction that commits after one with a larger value is not passed over', async () => {
    const table = await database.table('id serial PRIMARY KEY, word text');
    const slow = await Database.open(database.url);
    await slow.query('BEGIN');
    await slow.query(`INSERT INTO ${table} (word) VALUES ('first')`);
    await database.query(`INSERT INTO ${table} (word) VALUES ('second')`);
    const words: string[] = [];
    const ending = new AbortController();
    let looks = 0;
    const source = postgresSource<{ word: string }>({ url: database.url, table, column: 'id', ...QUICK });
    const reading = (async () => {
      for await (const { values } of source.read(table, undefined, readContext([], { signal: ending.signal }))) {
        words.push(...values.map(({ word }) => word));
        if (words.length === 3) ending.abort();
      }
    })();
    // It has looked often enough to have given the second row, had it not waited.
    while (looks < 5) {
      const [seen] = await database.query(
        `SELECT count(*)::int AS count FROM pg_stat_activity WHERE query LIKE '%${table}%' AND pid <> pg_backend_pid() AND state = 'idle'`,
      );
      looks += Number(seen!.count);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(words).toEqual([]);
    await slow.query('COMMIT');
    await database.query(`INSERT INTO ${table} (word) VALUES ('third')`);
    await reading;
    expect(words).toEqual(['first', 'second', 'third']);
    await slow.close();
  });

  it('is woken by a notification, and goes on behind a position', async () => {
    const table = await database.table('id int PRIMARY KEY');
    const channel = `c_${randomBytes(4).toString('hex')}`;
    await database.query(`INSERT INTO ${table} VALUES (1), (2)`);
    const source = postgresSource<{ id: number }>({ url: database.url, table, column: 'id', every: 3_600_000, settle: 0, notify: channel, from: 1 });
    const ending = new AbortController();
    const reading = source.read(table, undefined, readContext([], { signal: ending.signal }))[Symbol.asyncIterator]();
    expect((await reading.next()).value).toEqual({ values: [{ id: 2 }], position: { at: '2', end: undefined } });
    const next = reading.next();
    await database.query(`INSERT INTO ${table} VALUES (3)`);
    await database.query(`NOTIFY ${channel}`);
    expect((await next).value).toMatchObject({ values: [{ id: 3 }] });
    const last = reading.next();
    ending.abort();
    expect(await last).toMatchObject({ done: true });
  });

  it('says what is wrong with its options, its table and its column', async () => {
    const table = await database.table('id int');
    for (const options of [{ table: '' }, { column: '' }, { every: 0 }, { settle: -1 }, { batch: Number.NaN }, { url: '' }]) {
      expect(() => postgres.source({ url: database.url, table, column: 'id', ...options })).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
    }
    for (const options of [{ column: 'other' }, { table: 'nowhere' }]) {
      const failure = rejection(
        job('wrong', (env) => {
          env.source('in', postgres.source({ url: database.url, table, column: 'id', until: 'end', ...options })).sink('out', collect([]));
        }).run(),
      );
      expect(await failure).toMatchObject({ code: 'POSTGRES_REFUSED', uid: 'in' });
    }
  });

  it('is read by a job into a table, each row once', async () => {
    const table = await database.table('id int');
    const copy = await database.table('id int PRIMARY KEY');
    await database.query(`INSERT INTO ${table} SELECT generate_series(1, 2500)`);
    await job('copy', (env) => {
      env
        .source('in', postgres.source<{ id: number }>({ url: database.url, table, column: 'id', until: 'end', settle: 0 }))
        .sink('out', postgres.sink({ url: database.url, table: copy }));
    }).run();
    expect(await database.numbers(copy, 'id')).toEqual(Array.from({ length: 2500 }, (_, i) => i + 1));
  });

  it('postgres.notifications() gives payloads, and listens again after its connection was lost, saying so', async () => {
    const channel = `C_${randomBytes(4).toString('hex')}`;
    const source = postgresNotifications<{ n: number }>({ url: database.url, channel });
    const letters: Letter[] = [];
    const warned: string[] = [];
    const ending = new AbortController();
    const uid = `listen-${randomBytes(4).toString('hex')}`;
    const log = { ...SILENT, warn: (said: unknown) => void warned.push(String(said)) };
    const reading = source.read(channel, undefined, readContext(letters, { uid, log, signal: ending.signal }))[Symbol.asyncIterator]();
    const listening = async (): Promise<unknown> => {
      for (;;) {
        const [row] = await database.query(`SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND state = 'idle' AND query LIKE 'LISTEN%'`, [
          `millrace ${uid}`,
        ]);
        if (row !== undefined) return row.pid;
      }
    };
    let next = reading.next();
    const pid = await listening();
    await database.query(`NOTIFY "${channel}", '{"n":1}'`);
    expect((await next).value).toMatchObject({ values: [{ n: 1 }], position: 1 });
    next = reading.next();
    await database.query(`NOTIFY "${channel}", 'no json'`);
    expect((await next).value).toMatchObject({ values: [], position: 2 });
    expect(letters).toMatchObject([{ error: { code: 'RECORD_UNDECODABLE' } }]);
    next = reading.next();
    await database.query('SELECT pg_terminate_backend($1)', [pid]);
    while ((await listening()) === pid);
    await database.query(`NOTIFY "${channel}", '{"n":2}'`);
    expect((await next).value).toMatchObject({ values: [{ n: 2 }], position: 3 });
    expect(warned).toEqual([expect.stringContaining('lost')]);
    next = reading.next();
    ending.abort();
    expect(await next).toMatchObject({ done: true });
  });

  it('postgres.lookup() gives rows by key within asyncMap, those of one moment by one query', async () => {
    const table = await database.table('id bigint, name text');
    await database.query(`INSERT INTO ${table} VALUES (1, 'one'), (2, 'two')`);
    const names = postgres.lookup<{ id: string; name: string }>({ url: database.url, query: `SELECT id, name FROM ${table} WHERE id = ANY($1)`, key: 'id' });
    const seen: (string | undefined)[] = [];
    await job('lookup', (env) => {
      env
        .fromArray('in', [1, 2, 3, 1])
        .asyncMap('name', async (id) => (await names.get(id))?.name)
        .sink('out', collect(seen));
    }).run();
    expect(seen).toEqual(['one', 'two', undefined, 'one']);
    expect(names.misses).toBe(3);
    await names.close();
    const wrong = postgres.lookup({ url: database.url, query: `SELECT name FROM ${table} WHERE id = ANY($1)`, key: 'id' });
    expect(await rejection(wrong.get(1))).toMatchObject({ code: 'POSTGRES_REFUSED' });
    await wrong.close();
  });
});
