import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { job } from 'millrace';
import { redis } from 'millrace/connectors';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { redisStream } from '../../../src/connectors/redis/stream-sink.ts';
import { systemIo, withFaults } from '../../../src/runtime/io.ts';
import { checkpointsIn, ends, Feed, jobOn, RESTARTS, rejection, temporaryFolder } from '../../protocols/lab.ts';
import { NO_OWN_REDIS, NO_REDIS, RedisServer } from '../../services/redis.ts';
import { sinkContext } from '../reading.ts';
import { numbersIn, openServer, type Server } from './server.ts';

const program = fileURLToPath(new URL('./stream-writer-process.ts', import.meta.url));
const typescript = pathToFileURL(fileURLToPath(new URL('../../../scripts/typescript.mjs', import.meta.url))).href;

describe.skipIf(NO_REDIS)('Redis sinks', () => {
  let server: Server;
  beforeAll(async () => {
    server = await openServer();
  });
  afterAll(() => server?.close());
  const lineage = (): string => randomBytes(6).toString('hex');

  it('redis.sink() sends the commands of records in order', async () => {
    const key = server.key();
    await job('commands', (env) => {
      env.fromArray('in', ['a', 'b', 'c']).sink('out', redis.sink({ url: server.url, command: (v: string) => ['RPUSH', key, v] }));
    }).run();
    expect(await server.command('LRANGE', key, '0', '-1')).toEqual(['a', 'b', 'c']);
  });

  it('redis.keys() sets, lets expire and removes; redis.hashes() sets fields and leaves the others', async () => {
    const key = server.key();
    const values = [
      { id: 1, word: 'ä' },
      { id: 2, word: 'gone' },
      { id: 2, word: '' },
    ];
    await job('keys', (env) => {
      const stream = env.fromArray('in', values);
      stream.sink('keys', redis.keys({ url: server.url, key: (v) => `${key}:${v.id}`, expire: 60_000, remove: (v) => v.word === '' }));
      stream.sink(
        'hashes',
        redis.hashes({ url: server.url, key: () => key, fields: (v) => (v.word === '' ? { last: Buffer.from('x') } : { [v.word]: v.id }) }),
      );
    }).run();
    expect(JSON.parse(String(await server.command('GET', `${key}:1`)))).toEqual(values[0]);
    expect(Number(await server.command('PTTL', `${key}:1`))).toBeGreaterThan(0);
    expect(await server.command('EXISTS', `${key}:2`)).toBe(0);
    expect(await server.command('HGETALL', key)).toEqual(['ä', '1', 'gone', '2', 'last', 'x']);
  });

  it('a command that Redis refuses, a wrong password and a server that is not there each have their error', async () => {
    const list = server.key();
    await server.command('RPUSH', list, 'a');
    const failure = (sink: ReturnType<typeof redis.sink<string>>) =>
      rejection(
        job('failing', (env) => {
          env.fromArray('in', ['a']).sink('out', sink);
        }).run(),
      );
    const command = (): string[] => ['INCR', list];
    expect(await failure(redis.sink({ url: server.url, command }))).toMatchObject({ code: 'REDIS_REFUSED', retryable: false, uid: 'out' });
    const guarded = new URL(server.url);
    guarded.username = 'nobody';
    guarded.password = 'wrong';
    expect(await rejection(redis.sink({ url: guarded.href, command }).open(sinkContext()))).toMatchObject({
      code: 'REDIS_REFUSED',
      todo: expect.stringContaining('password'),
    });
    guarded.port = '1';
    expect(await rejection(redis.sink({ url: guarded.href, command }).open(sinkContext()))).toMatchObject({ code: 'REDIS_UNREACHABLE', retryable: true });
    expect(() => redis.sink({ url: '', command })).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
  });

  it('a newer attempt fences an older one, whose chunks are refused from then on; what was written of a checkpoint is not written again', async () => {
    const stream = server.key();
    const of = lineage();
    const numbers = Array.from({ length: 1200 }, (_, n) => n);
    const faults = withFaults(systemIo(), 'sink.redis.chunk=fail@3');
    const sink = redisStream<number>({ url: server.url, stream });
    const first = await redisStream<number>({ url: server.url, stream }, faults).open(sinkContext({ lineage: of }));
    const entries = numbers.map((n) => first.encode!(n, Number.NaN));
    expect(await rejection(first.commit(7, entries))).toMatchObject({ code: 'FAULT_INJECTED' });
    expect(await numbersIn(server, stream)).toEqual(numbers.slice(0, 1000));
    const second = await sink.open(sinkContext({ lineage: of, attempt: 2 }));
    expect([await second.lastCommitted(), await second.lastBegun!()]).toEqual([0, 7]);
    const stray = await sink.open(sinkContext({ lineage: of, attempt: 2 }));
    expect(await rejection(stray.commit(8, entries))).toMatchObject({ code: 'RESTORE_WOULD_DUPLICATE' });
    await second.commit(7, entries);
    await second.commit(9, entries.slice(0, 1));
    expect(await numbersIn(server, stream)).toEqual([...numbers, 0]);
    const third = await sink.open(sinkContext({ lineage: of, attempt: 3, restored: second.snapshot!() }));
    expect([await third.lastCommitted(), await third.lastBegun!()]).toEqual([9, 9]);
    expect(await rejection(second.commit(10, entries))).toMatchObject({ code: 'WRITER_FENCED' });
    expect(await rejection(second.commit(11, entries))).toMatchObject({ code: 'SINK_FAILED' });
    expect(await numbersIn(server, stream)).toEqual([...numbers, 0]);
    await Promise.all([first, second, stray, third].map((writer) => writer.close()));
  });

  it('an entry of more fields than a script can add is refused on arrival, and not behind others of its checkpoint', async () => {
    const stream = server.key();
    const wide = (n: number): Record<string, number> => Object.fromEntries(Array.from({ length: n }, (_, i) => [`f${i}`, i]));
    const writer = await redisStream<number>({ url: server.url, stream, fields: wide }).open(sinkContext({ lineage: lineage() }));
    expect(() => writer.encode!(3501, Number.NaN)).toThrow(expect.objectContaining({ code: 'RECORD_UNENCODABLE' }));
    await writer.commit(
      1,
      [1, 3500].map((n) => writer.encode!(n, Number.NaN)),
    );
    expect(await server.command('XLEN', stream)).toBe(2);
    await writer.close();
  });

  it('a lost marker and a key that is no stream stop the job', async () => {
    const stream = server.key();
    const of = lineage();
    const sink = redisStream<number>({ url: server.url, stream });
    const writer = await sink.open(sinkContext({ lineage: of }));
    const restored = writer.snapshot!();
    await server.command('SET', stream, 'text');
    expect(await rejection(writer.commit(1, [writer.encode!(1, 0)]))).toMatchObject({ code: 'REDIS_REFUSED' });
    await server.command('DEL', `millrace:{${stream}}:out/${of}/0`);
    expect(await rejection(sink.open(sinkContext({ lineage: of, attempt: 2, restored })))).toMatchObject({ code: 'MARKER_LOST' });
    await writer.close();
  });

  it.each(['sink.redis.chunk', 'sink.redis.written'])('a process killed at %s in its second commit leaves every entry to be added once', async (step) => {
    const stream = server.key();
    const of = lineage();
    const run = (attempt: number, faults: string) => {
      const { signal, status, stderr } = spawnSync(
        process.execPath,
        ['--import', typescript, program, JSON.stringify({ url: server.url, stream, lineage: of, attempt })],
        { env: { ...process.env, MILLRACE_FAULTS: faults }, encoding: 'utf8' },
      );
      if (signal === null && status !== 0) throw new Error(stderr);
      return signal ?? status;
    };
    expect(run(1, `${step}=kill@3`)).toBe('SIGKILL');
    const writer = await redisStream<number>({ url: server.url, stream }).open(sinkContext({ lineage: of, attempt: 2 }));
    expect(await writer.lastCommitted()).toBe(1);
    for (const checkpoint of [2, 3]) {
      const numbers = Array.from({ length: 600 }, (_, i) => (checkpoint - 1) * 600 + i);
      await writer.commit(
        checkpoint,
        numbers.map((n) => writer.encode!(n, Number.NaN)),
      );
    }
    await writer.close();
    expect(await numbersIn(server, stream)).toEqual(Array.from({ length: 1800 }, (_, n) => n));
  });

  it('a job that fails behind a commit, and is restored at another parallelism, has added every entry once', async () => {
    const folder = await temporaryFolder();
    const stream = server.key();
    const faults = withFaults(systemIo(), 'sink.redis.written=fail@2');
    const numbers = Array.from({ length: 40 }, (_, n) => n);
    const build = (of: typeof job, feed: Feed<number>, io = systemIo()) =>
      of('redis-rescaled', (env) => {
        env
          .source('in', feed)
          .rebalance()
          .sink('out', redisStream<number>({ url: server.url, stream }, io));
      });
    const feed = new Feed<number>({ bounded: false });
    const first = ends(await build(jobOn(faults.step), feed, faults).start({ parallelism: 3, checkpoints: checkpointsIn(folder), restarts: false }));
    await feed.push(numbers.slice(0, 20)).taken();
    await first.checkpoint().catch(() => {});
    await rejection(first.finished);
    await build(job, new Feed<number>().push(numbers.slice(0, 20)).push(numbers.slice(20)).end()).run({ parallelism: 2, checkpoints: checkpointsIn(folder) });
    expect((await numbersIn(server, stream)).sort((a, b) => a - b)).toEqual(numbers);
  });

  it.skipIf(NO_OWN_REDIS)('a job whose server is killed and comes back has added every entry once', async () => {
    const folder = await temporaryFolder();
    const own = await RedisServer.start();
    try {
      const numbers = Array.from({ length: 60 }, (_, n) => n);
      let killed: Promise<void> | undefined;
      await job('redis-outage', (env) => {
        env
          .fromArray('in', numbers)
          .asyncMap(
            'slowly',
            async (n) => {
              if (n === 30) killed ??= own.kill().then(() => own.up());
              await new Promise((resolve) => setTimeout(resolve, 20));
              return n;
            },
            { capacity: 2 },
          )
          .sink('out', redis.stream({ url: own.url, stream: 'numbers' }));
      }).run({
        checkpoints: { ...checkpointsIn(folder), every: 50 },
        restarts: { ...RESTARTS, max: 300, backoff: { initial: 50, max: 100, factor: 1, jitter: 0 } },
      });
      expect(killed).toBeDefined();
      await killed;
      const there = await openServer(own.url);
      expect(await numbersIn(there, 'numbers')).toEqual(numbers);
      await there.close();
    } finally {
      await own.close();
    }
  });
});
