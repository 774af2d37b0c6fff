import { job } from 'millrace';
import { collect, redis } from 'millrace/connectors';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { redisEntries, redisSource, type StreamSplit } from '../../../src/connectors/redis/source.ts';
import { compareIds, countAt, lostSince, type StreamPosition } from '../../../src/connectors/redis/trimmed.ts';
import { SILENT } from '../../../src/graph/context.ts';
import type { SourceBatch } from '../../../src/graph/source.ts';
import { rejection } from '../../protocols/lab.ts';
import { NO_REDIS } from '../../services/redis.ts';
import { type Letter, readContext, splitsOf, valuesOf } from '../reading.ts';
import { openServer, type Server } from './server.ts';

describe('what a trimmed stream has lost', () => {
  const facts = { length: 2, first: '5-0', last: '6-0', added: 6 };
  it.each([
    ['nothing, while the last entry read is there', { id: '5-0', count: undefined }, facts, false],
    ['nothing, where nothing was added since', { id: '6-0', count: undefined }, { ...facts, length: 0, first: undefined }, false],
    ['nothing, where trimming has stopped at the position', { id: '4-0', count: 4 }, facts, false],
    ['entries, where more are gone than were read', { id: '3-0', count: 3 }, facts, true],
    ['entries, where it is not known', { id: '4-0', count: undefined }, facts, true],
    ['entries, before Redis 7', { id: '4-0', count: 4 }, { ...facts, added: undefined }, true],
    ['entries, where all are gone that came since', { id: '4-0', count: 4 }, { ...facts, length: 0, first: undefined }, true],
    ['everything, where it is gone', { id: '4-0', count: 4 }, undefined, true],
    ['nothing, where it was never there', { id: '0-0', count: undefined }, undefined, false],
    ['everything, where it was made anew', { id: '7-0', count: 7 }, facts, true],
  ])('%s', (_, position, of, lost) => {
    expect(lostSince(position, of) !== undefined).toBe(lost);
  });

  it('is counted from the newest entry, where that was read', () => {
    expect([countAt('6-0', undefined, 1, facts), countAt('5-0', 4, 1, facts), countAt('5-0', undefined, 1, facts)]).toEqual([6, 5, undefined]);
    expect([compareIds('10-0', '9-5'), compareIds('9-10', '9-9'), compareIds('18446744073709551615-1', '18446744073709551614-2')]).toEqual([1, 1, 1]);
  });
});

describe.skipIf(NO_REDIS)('redis.source()', () => {
  let server: Server;
  beforeAll(async () => {
    server = await openServer();
  });
  afterAll(() => server?.close());

  const add = (stream: string, id: string, value: string, ...more: string[]): Promise<unknown> => server.command('XADD', stream, id, ...more, 'value', value);
  const whole = (stream: string): StreamSplit => ({ stream, from: '0-0', end: undefined });

  it('reads what is there at the start, field, id and time, and keeps what does not decode as a dead letter', async () => {
    const stream = server.key();
    await add(stream, '1000-0', '{"n":1}', 'other', 'x');
    await add(stream, '1000-1', 'no json');
    await server.command('XADD', stream, '2000-0', 'other', 'y');
    await add(stream, '3000-7', '{"n":2}');
    const source = redisSource<{ n: number }>({ url: server.url, stream, until: 'end', batch: 3 });
    const [split] = await splitsOf(source);
    await add(stream, '4000-0', '{"n":3}');
    const letters: Letter[] = [];
    const batches: SourceBatch<{ n: number }, StreamPosition>[] = [];
    for await (const batch of source.read(split!, undefined, readContext(letters))) batches.push(batch);
    expect(batches).toEqual([
      { values: [{ n: 1 }], timestamps: [1000], position: { id: '2000-0', count: 3 } },
      { values: [{ n: 2 }], timestamps: [3000], position: { id: '3000-7', count: 4 } },
    ]);
    expect(letters.map(({ error }) => (error as { code: string }).code)).toEqual(['RECORD_UNDECODABLE', 'RECORD_UNDECODABLE']);
    expect(JSON.parse(String(letters[1]!.record))).toMatchObject({ id: '2000-0', fields: ['other', 'y'] });
    expect(await valuesOf(source, split!, batches[0]!.position)).toEqual([{ n: 2 }]);
    const entries = redisEntries({ url: server.url, stream, from: { id: '3000-7' }, until: 'end' });
    expect(await valuesOf(entries, (await splitsOf(entries))[0]!)).toEqual([{ stream, id: '4000-0', fields: { value: '{"n":3}' } }]);
  });

  it("waits for a stream that is not there, goes on with what is added, and ends when it is told to; 'latest' is where it was found", async () => {
    const stream = server.key();
    const source = redisSource<number>({ url: server.url, stream });
    const ending = new AbortController();
    const reading = source.read(whole(stream), undefined, readContext([], { signal: ending.signal }))[Symbol.asyncIterator]();
    for (const n of [1, 2, 3]) {
      const batch = reading.next();
      await add(stream, '*', String(n));
      expect((await batch).value).toMatchObject({ values: [n] });
    }
    const pending = reading.next();
    ending.abort();
    expect(await pending).toEqual({ done: true, value: undefined });
    const [latest] = await splitsOf(redisSource<number>({ url: server.url, stream, from: 'latest' }));
    await add(stream, '*', '4');
    const [first] = await batchesUntil(source, latest!, undefined, 1);
    expect(first!.values).toEqual([4]);
  });

  async function batchesUntil(
    source: ReturnType<typeof redisSource<number>>,
    split: StreamSplit,
    from: StreamPosition | undefined,
    count: number,
    log = SILENT,
  ): Promise<SourceBatch<number, StreamPosition>[]> {
    const batches: SourceBatch<number, StreamPosition>[] = [];
    const ending = new AbortController();
    for await (const batch of source.read(split, from, readContext([], { signal: ending.signal, log }))) {
      batches.push(batch);
      if (batches.length === count) ending.abort();
    }
    return batches;
  }

  it('entries that were trimmed before they were read are an error, never passed over; trimming what was read is none', async () => {
    const stream = server.key();
    for (let n = 1; n <= 4; n++) await add(stream, `${n}-0`, String(n));
    const source = redisSource<number>({ url: server.url, stream, batch: 2 });
    const [{ position }] = (await batchesUntil(source, whole(stream), undefined, 1)) as [SourceBatch<number, StreamPosition>];
    expect(position).toEqual({ id: '2-0', count: 2 });
    await server.command('XTRIM', stream, 'MINID', '3-0');
    expect((await batchesUntil(source, whole(stream), position, 1))[0]!.values).toEqual([3, 4]);
    await server.command('XTRIM', stream, 'MINID', '4-0');
    expect(await rejection(batchesUntil(source, whole(stream), position, 1))).toMatchObject({ code: 'STREAM_TRIMMED', retryable: false, uid: 'in' });
    const warned: string[] = [];
    const going = redisSource<number>({ url: server.url, stream, onTrimmed: 'continue' });
    const log = { ...SILENT, warn: (said: unknown) => void warned.push(String(said)) };
    expect((await batchesUntil(going, whole(stream), position, 1, log))[0]!.values).toEqual([4]);
    expect(warned).toEqual([expect.stringContaining('1 entries')]);
    await server.command('DEL', stream);
    expect(await rejection(batchesUntil(source, whole(stream), position, 1))).toMatchObject({ code: 'STREAM_TRIMMED' });
    await add(stream, '1-0', '9');
    expect(await rejection(batchesUntil(source, whole(stream), position, 1))).toMatchObject({ code: 'STREAM_TRIMMED' });
    expect((await batchesUntil(going, whole(stream), position, 1, log))[0]!.values).toEqual([9]);
  });

  it('a key that is no stream fails the job; what cannot be is refused when it is written', async () => {
    const key = server.key();
    await server.command('SET', key, 'text');
    const failure = await rejection(
      job('no-stream', (env) => {
        env.source('in', redis.source<number>({ url: server.url, stream: key, until: 'end' })).sink('out', collect<number>([]));
      }).run(),
    );
    expect(failure).toMatchObject({ code: 'REDIS_REFUSED' });
    for (const options of [{ stream: [] }, { stream: 's', from: { id: 'x' } }, { stream: 's', batch: 0 }, { stream: 's', url: '' }]) {
      expect(() => redis.source({ url: server.url, ...options })).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
    }
  });

  it('several streams are read side by side by a job', async () => {
    const streams = [server.key(), server.key(), server.key()];
    for (const [i, stream] of streams.entries()) for (let n = 0; n < 3; n++) await add(stream, '*', String(i * 3 + n));
    const seen: number[] = [];
    await job('streams', (env) => {
      env.source('in', redis.source<number>({ url: server.url, stream: streams, until: 'end' })).sink('out', collect(seen));
    }).run({ parallelism: 2 });
    expect(seen.sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it('redis.lookup() gives values by key, and undefined where there is none', async () => {
    const prefix = `${server.key()}:`;
    await server.command('SET', `${prefix}7`, '{"name":"mill"}');
    const customers = redis.lookup<{ name: string }>({ url: server.url, prefix });
    expect(await Promise.all([customers.get(7), customers.get('7'), customers.get('nobody')])).toEqual([{ name: 'mill' }, { name: 'mill' }, undefined]);
    await server.command('SET', `${prefix}8`, 'no json');
    const [bad, good] = await Promise.allSettled([customers.get(8), customers.get(9)]);
    expect([bad, good]).toMatchObject([{ reason: { code: 'RECORD_UNDECODABLE' } }, { value: undefined }]);
    await customers.close();
    const nowhere = redis.lookup({ url: 'redis://127.0.0.1:1' });
    expect(await rejection(nowhere.get(1))).toMatchObject({ code: 'REDIS_UNREACHABLE' });
  });
});
