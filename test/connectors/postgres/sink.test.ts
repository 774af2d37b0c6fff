import { randomBytes } from 'node:crypto';
import { job } from 'millrace';
import { postgres } from 'millrace/connectors';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { postgresSink } from '../../../src/connectors/postgres/sink.ts';
import { type Io, systemIo } from '../../../src/runtime/io.ts';
import { checkpointsIn, rejection } from '../../protocols/lab.ts';
import { NO_OWN_POSTGRES, NO_POSTGRES, PostgresServer } from '../../services/postgres.ts';
import { sinkContext, temporaryFolder } from '../reading.ts';
import { Database, lineage } from './database.ts';

describe.skipIf(NO_POSTGRES)('postgres.sink()', () => {
  let database: Database;
  beforeAll(async () => {
    database = await Database.open();
  });
  afterAll(() => database?.close());

  async function write<T>(options: Omit<Parameters<typeof postgresSink<T>>[0], 'url'>, values: readonly T[]): Promise<void> {
    const writer = await postgresSink<T>({ url: database.url, ...options }).open(sinkContext({ lineage: lineage() }));
    try {
      await writer.commit(
        1,
        values.map((value) => writer.encode!(value, Number.NaN)),
      );
    } finally {
      await writer.close();
    }
  }

  it('takes every type of column that a JavaScript value stands for', async () => {
    const table = await database.table(
      'id bigint, name text, ratio float8, amount numeric, at timestamptz, raw bytea, doc jsonb, tags text[], flag bool, gone text, "Odd ""name" int',
    );
    const row = {
      id: 2n ** 60n,
      name: 'ärger "quoted" \\ \n \u2028',
      ratio: Number.NaN,
      amount: '12345678901234567890.125',
      at: new Date('2030-01-31T12:00:00.123Z'),
      raw: new Uint8Array([0, 255, 92]),
      doc: { list: [1, 'two', null], deep: { at: new Date(0) }, missing: undefined },
      tags: ['a,b', '"', ''],
      flag: false,
      gone: null,
      'Odd "name': 7,
    };
    await write({ table }, [row, { id: 1, ratio: -Infinity }]);
    const [first, second] = await database.query(`SELECT * FROM ${table} ORDER BY id DESC`);
    expect(first).toEqual({
      ...row,
      id: String(2n ** 60n),
      raw: Buffer.from([0, 255, 92]),
      doc: { list: [1, 'two', null], deep: { at: '1970-01-01T00:00:00.000Z' } },
    });
    expect(second).toMatchObject({ id: '1', ratio: -Infinity, name: null });
  });

  it('with a key replaces the row, the last of a batch winning, and leaves columns alone that a row does not name', async () => {
    const table = await database.table('"Key" text, part int, total int, seen int DEFAULT 5, PRIMARY KEY ("Key", part)');
    const rows = [
      { Key: 'a', part: 1, total: 1 },
      { Key: 'b', part: 1, total: 2 },
      { Key: 'a', part: 1, total: 3 },
      { Key: 'a', part: '1', seen: 9 },
      { Key: 'b', part: 1 },
    ];
    await write({ table, key: ['part', 'Key'] }, rows);
    expect(await database.query(`SELECT * FROM ${table} ORDER BY 1`)).toEqual([
      { Key: 'a', part: 1, total: 3, seen: 9 },
      { Key: 'b', part: 1, total: 2, seen: 5 },
    ]);
  });

  it('writes more rows than a batch holds in their order', async () => {
    const table = await database.table('id serial, n int');
    const numbers = Array.from({ length: 5001 }, (_, n) => n);
    await write({ table, row: (n: number) => ({ n }) }, numbers);
    expect((await database.query(`SELECT n FROM ${table} ORDER BY id`)).map(({ n }) => n)).toEqual(numbers);
  });

  it('refuses what is no row when the record arrives', async () => {
    const table = await database.table('id int UNIQUE, doc jsonb');
    const writer = await postgresSink<unknown>({ url: database.url, table, key: ['id'] }).open(sinkContext({ lineage: lineage() }));
    for (const value of [
      7,
      null,
      [1],
      {},
      { id: null },
      { doc: 1 },
      { id: 1, doc: () => {} },
      { id: 1, doc: { deep: new Map() } },
      { id: 1, doc: new Date(Number.NaN) },
    ]) {
      expect(await rejection((async () => writer.encode!(value, Number.NaN))())).toMatchObject({ code: 'RECORD_UNENCODABLE', uid: 'out' });
    }
    await writer.close();
  });

  it('says at the start what is wrong with table, key, database, user and server', async () => {
    const table = await database.table('id int, other int');
    const at = (options: { url?: string; table?: string; key?: string[] }) =>
      rejection(postgresSink({ url: database.url, table, ...options }).open(sinkContext({ lineage: lineage() })));
    expect(await at({ table: 'nowhere' })).toMatchObject({ code: 'POSTGRES_REFUSED', retryable: false, message: expect.stringContaining("'nowhere'") });
    expect(await at({ key: ['id'] })).toMatchObject({ code: 'POSTGRES_REFUSED', todo: expect.stringContaining(`CREATE UNIQUE INDEX ON "${table}" ("id")`) });
    await database.query(`CREATE UNIQUE INDEX ON ${table} (other, id)`);
    expect(await at({ key: ['id'] })).toMatchObject({ code: 'POSTGRES_REFUSED' });
    const url = new URL(database.url);
    url.pathname = '/nothing-here';
    expect(await at({ url: url.href })).toMatchObject({ code: 'POSTGRES_REFUSED', todo: expect.stringContaining('database') });
    url.username = 'nobody-here';
    expect(await at({ url: url.href })).toMatchObject({ code: 'POSTGRES_REFUSED', todo: expect.stringContaining('user') });
    url.port = '1';
    expect(await at({ url: url.href })).toMatchObject({ code: 'POSTGRES_UNREACHABLE', retryable: true });
    expect(() => postgres.sink({ url: '', table })).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
  });

  it('fails the job, for good, with what the server says of a row; nothing of its checkpoint is written', async () => {
    const table = await database.table('n int CHECK (n < 3), word varchar(4)');
    const rows = [{ n: 1 }, { n: 2, word: 'too long' }];
    expect(await rejection(write({ table }, rows))).toMatchObject({ code: 'POSTGRES_REFUSED', retryable: false, message: expect.stringContaining('22001') });
    expect(await rejection(write({ table }, [{ n: 1 }, { n: 3 }]))).toMatchObject({
      code: 'POSTGRES_REFUSED',
      message: expect.stringContaining('check constraint'),
    });
    expect(await rejection(write({ table }, [{ n: 1, nothing: 1 }]))).toMatchObject({ code: 'POSTGRES_REFUSED', todo: expect.stringContaining('columns') });
    expect(await rejection(write({ table }, [{ word: '\0' }]))).toMatchObject({ code: 'POSTGRES_REFUSED', retryable: false });
    expect(await database.numbers(table)).toEqual([]);
  });

  it('makes its table of markers once, however many writers open at the same time', async () => {
    const table = await database.table('n int');
    const markerTable = `m_${randomBytes(6).toString('hex')}`;
    const sink = postgresSink<{ n: number }>({ url: database.url, table, markerTable });
    const of = lineage();
    const writers = await Promise.all(Array.from({ length: 8 }, (_, i) => sink.open(sinkContext({ lineage: of, writer: String(i) }))));
    await Promise.all(writers.map((writer, n) => writer.commit(1, [{ n }])));
    await Promise.all(writers.map((writer) => writer.close()));
    expect(await database.numbers(table)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(await database.numbers(markerTable, 'checkpoint')).toEqual(Array(8).fill(1));
  });

  it('postgres.rows() writes as records come, and with a key the same again', async () => {
    const table = await database.table('n int PRIMARY KEY, word text');
    for (const word of ['one', 'two']) {
      await job('rows', (env) => {
        env.fromArray('in', [1, 2, 3]).sink('out', postgres.rows({ url: database.url, table, key: ['n'], row: (n: number) => ({ n, word }) }));
      }).run();
    }
    expect(await database.query(`SELECT * FROM ${table} ORDER BY n`)).toEqual([1, 2, 3].map((n) => ({ n, word: 'two' })));
  });

  it.skipIf(NO_OWN_POSTGRES)('a server that stands still in the middle of a commit leaves an outcome that the next attempt asks for', async () => {
    const server = await PostgresServer.start();
    try {
      const own = await Database.open(server.url);
      await own.query('CREATE TABLE numbers (n int)');
      const of = lineage();
      const paused = (name: string): Io => ({
        ...systemIo(),
        step(reached) {
          if (reached === name) server.pause();
          return undefined;
        },
      });
      let attempt = 0;
      for (const step of ['sink.postgres.begin', 'sink.postgres.marked', 'sink.postgres.commit']) {
        const open = (io = systemIo()) => {
          attempt += 1;
          return postgresSink<{ n: number }>({ url: server.url, table: 'numbers', timeout: 300 }, io).open(sinkContext({ lineage: of, attempt }));
        };
        const writer = await open(paused(step));
        const checkpoint = (await writer.lastCommitted()) + 1;
        expect(await rejection(writer.commit(checkpoint, [{ n: checkpoint }]))).toMatchObject({ code: 'POSTGRES_UNREACHABLE', retryable: true });
        await writer.close();
        server.resume();
        const next = await open();
        if ((await next.lastCommitted()) < checkpoint) await next.commit(checkpoint, [{ n: checkpoint }]);
        await next.close();
      }
      expect(await own.numbers('numbers')).toEqual([1, 2, 3]);
      await own.close();
    } finally {
      server.resume();
      await server.close();
    }
  });

  it.skipIf(NO_OWN_POSTGRES)('a job whose server is killed and comes back has written every row once', async () => {
    const folder = await temporaryFolder();
    const server = await PostgresServer.start();
    try {
      let own = await Database.open(server.url);
      await own.query('CREATE TABLE numbers (n int)');
      await own.close();
      const numbers = Array.from({ length: 60 }, (_, n) => n);
      let killed: Promise<void> | undefined;
      const { status } = await job('outage', (env) => {
        env
          .fromArray('in', numbers)
          .asyncMap(
            'slowly',
            async (n) => {
              if (n === 30) killed ??= server.kill().then(() => server.up());
              await new Promise((resolve) => setTimeout(resolve, 20));
              return { n };
            },
            { capacity: 2 },
          )
          .sink('out', postgres.sink({ url: server.url, table: 'numbers' }));
      }).run({
        checkpoints: { ...checkpointsIn(folder), every: 50 },
        restarts: { max: 200, within: 60_000, backoff: { initial: 50, max: 200, factor: 1, jitter: 0 } },
      });
      expect(status).toBe('finished');
      expect(killed).toBeDefined();
      await killed;
      own = await Database.open(server.url);
      expect(await own.numbers('numbers')).toEqual(numbers);
      await own.close();
    } finally {
      await server.close();
    }
  });
});
