import { expect, it, onTestFinished } from 'vitest';
import { Fetcher, type Subscription } from '../../../src/connectors/kafka/fetcher.ts';
import { type Logger, SILENT } from '../../../src/graph/context.ts';
import { type Io, systemIo } from '../../../src/runtime/io.ts';
import { ReadableKafka } from './readable-kafka.ts';

interface Words {
  readonly warn: string[];
  readonly info: string[];
}

async function fetcherOf(kafka: ReadableKafka, { grown = () => {}, io = systemIo() }: { grown?: () => void; io?: Io } = {}) {
  const cluster = await kafka.connect({ brokers: ['memory'], clientId: 'test', timeoutMs: 1000, log: SILENT });
  const words: Words = { warn: [], info: [] };
  const log: Logger = {
    ...SILENT,
    warn: (_: unknown, said?: string) => void words.warn.push(said!),
    info: (_: unknown, said?: string) => void words.info.push(said!),
  };
  const fetcher = new Fetcher({ cluster, uid: 'in', log, io, grown });
  onTestFinished(async () => {
    fetcher.close();
    await cluster.close();
  });
  return { fetcher, words, cluster };
}

async function texts(subscription: Subscription): Promise<string[]> {
  const taken = await subscription.take();
  if (taken?.kind !== 'records') throw new Error(`not records: ${taken?.kind}`);
  return taken.records.map(({ value }) => value!.toString());
}

/** Lets everything run that needs no timer. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

it('partitions of one broker share its request, and one request is under way with a broker at most', async () => {
  const kafka = new ReadableKafka().create('t', 3).append('t', 0, 'a').append('t', 1, 'b').append('t', 2, 'c');
  const { fetcher } = await fetcherOf(kafka);
  const reads = [0, 1, 2].map((partition) => fetcher.subscribe('t', partition, 0n, undefined));
  expect(await Promise.all(reads.map(texts))).toEqual([['a'], ['b'], ['c']]);
  expect(kafka.fetches[0]!.wanted.length).toBe(3);
  kafka.append('t', 1, 'd');
  expect(await texts(reads[1]!)).toEqual(['d']);
  expect(kafka.mostUnderWay).toBe(1);
  expect(kafka.metadataAsked).toBe(1);
});

it('a read that takes no records has one batch waiting, and costs no requests', async () => {
  const kafka = new ReadableKafka().create('t', 1);
  kafka.batchRecords = 2;
  kafka.append('t', 0, ...['a', 'b', 'c', 'd', 'e', 'f']);
  const { fetcher } = await fetcherOf(kafka);
  const read = fetcher.subscribe('t', 0, 0n, undefined);
  await settled();
  expect(fetcher.counts.fetches).toBe(1);
  expect(await texts(read)).toEqual(['a', 'b']);
  await settled();
  // The next is fetched while this one is read, and no more.
  expect(fetcher.counts.fetches).toBe(2);
  expect(read.behind).toBe(4);
  expect(await texts(read)).toEqual(['c', 'd']);
  expect(await texts(read)).toEqual(['e', 'f']);
  expect(read.behind).toBe(0);
});

it('a partition that waits does not hold back one that does not: requests without it are short', async () => {
  const kafka = new ReadableKafka().create('t', 2);
  kafka.batchRecords = 1;
  kafka.append('t', 0, 'a', 'b', 'c');
  const { fetcher } = await fetcherOf(kafka);
  const busy = fetcher.subscribe('t', 0, 0n, undefined);
  const idle = fetcher.subscribe('t', 1, 0n, undefined);
  await settled();
  const last = kafka.fetches.at(-1)!;
  expect(last.wanted.map(({ partition }) => partition)).toEqual([1]);
  expect(last.options.maxWaitMs).toBeLessThan(100);
  kafka.append('t', 1, 'x');
  expect(await texts(idle)).toEqual(['x']);
  expect([await texts(busy), await texts(busy), await texts(busy)]).toEqual([['a'], ['b'], ['c']]);
  // Nobody is left out any more.
  while (kafka.fetches.at(-1)!.options.maxWaitMs < 500) await kafka.fetched(kafka.fetches.length + 1);
  expect(kafka.fetches.at(-1)!.wanted.length).toBe(2);
});

it('a gap without records moves the position', async () => {
  const kafka = new ReadableKafka().create('t', 1).append('t', 0, 'a').gap('t', 0, 3);
  const { fetcher } = await fetcherOf(kafka);
  expect(await fetcher.subscribe('t', 0, 1n, undefined).take()).toEqual({ kind: 'records', records: [], next: 4n });
});

it('follows the leader, in the middle of a request too', async () => {
  const kafka = new ReadableKafka().create('t', 1).append('t', 0, 'a');
  const { fetcher, words } = await fetcherOf(kafka);
  const read = fetcher.subscribe('t', 0, 0n, undefined);
  expect(await texts(read)).toEqual(['a']);
  const next = texts(read);
  kafka.lead('t', 0, 2);
  kafka.append('t', 0, 'b');
  expect(await next).toEqual(['b']);
  expect(kafka.fetches.at(-1)!.leader).toBe(2);
  expect(words.warn).toEqual([]);
});

it('goes on when a broker comes back, however long it took, and says once that it is away and once that it is there', async () => {
  const kafka = new ReadableKafka().create('t', 2).append('t', 0, 'a');
  // Waits are as short as they can be: how many there are is what counts.
  const io = { ...systemIo(), clock: { ...systemIo().clock, setTimeout: (fn: () => void) => setTimeout(fn, 1) } };
  const { fetcher, words } = await fetcherOf(kafka, { io });
  const reads = [0, 1].map((partition) => fetcher.subscribe('t', partition, 0n, undefined));
  expect(await texts(reads[0]!)).toEqual(['a']);
  const next = reads.map(texts);
  kafka.down(1);
  const asked = kafka.metadataAsked;
  while (kafka.metadataAsked < asked + 20) await new Promise((resolve) => setTimeout(resolve, 1));
  expect(words).toEqual({ warn: ['Records cannot be fetched at present; it is tried again until they can.'], info: [] });
  kafka.up(1);
  kafka.append('t', 0, 'b').append('t', 1, 'c');
  expect(await Promise.all(next)).toEqual([['b'], ['c']]);
  expect(words.info).toEqual(['Records are fetched again.']);
});

it('the waits between two tries grow', async () => {
  const kafka = new ReadableKafka().create('t', 1);
  const waits: number[] = [];
  const setTimeoutNow = (fn: () => void, ms: number): unknown => {
    waits.push(ms);
    return setTimeout(fn, 1);
  };
  const io = { ...systemIo(), random: () => 0.5, clock: { ...systemIo().clock, setTimeout: setTimeoutNow } };
  const { fetcher } = await fetcherOf(kafka, { io });
  kafka.down(1);
  fetcher.subscribe('t', 0, 0n, undefined);
  while (waits.length < 8) await new Promise((resolve) => setTimeout(resolve, 1));
  expect(waits.slice(0, 8)).toEqual([50, 100, 200, 400, 800, 1600, 2000, 2000]);
});

it('one partition without a leader does not hold the others back', async () => {
  const kafka = new ReadableKafka().create('t', 2).append('t', 0, 'a', 'b').append('t', 1, 'c');
  kafka.batchRecords = 1;
  kafka.lead('t', 1, 9);
  kafka.down(9);
  const { fetcher } = await fetcherOf(kafka);
  const reads = [0, 1].map((partition) => fetcher.subscribe('t', partition, 0n, undefined));
  expect([await texts(reads[0]!), await texts(reads[0]!)]).toEqual([['a'], ['b']]);
  kafka.up(9);
  expect(await texts(reads[1]!)).toEqual(['c']);
});

it('an offset that is out of range is the business of its read, which may go on elsewhere', async () => {
  const kafka = new ReadableKafka().create('t', 2).append('t', 0, 'a', 'b', 'c').append('t', 1, 'd');
  kafka.deleteBefore('t', 0, 2n);
  const { fetcher } = await fetcherOf(kafka);
  const reads = [0, 1].map((partition) => fetcher.subscribe('t', partition, 0n, undefined));
  expect(await reads[0]!.take()).toMatchObject({ kind: 'out of range' });
  expect(await texts(reads[1]!)).toEqual(['d']);
  reads[0]!.seek(2n, undefined);
  expect(await texts(reads[0]!)).toEqual(['c']);
});

it('what was fetched for the place before is dropped', async () => {
  const kafka = new ReadableKafka().create('t', 1).append('t', 0, 'a', 'b', 'c');
  kafka.batchRecords = 1;
  const { fetcher } = await fetcherOf(kafka);
  const read = fetcher.subscribe('t', 0, 0n, undefined);
  await settled();
  read.seek(2n, undefined);
  expect(await texts(read)).toEqual(['c']);
});

it('another topic under the name is told before anything of it is read', async () => {
  const kafka = new ReadableKafka().create('t', 1).append('t', 0, 'a');
  const { fetcher } = await fetcherOf(kafka);
  const id = (await (await fetcherOf(kafka)).cluster.metadata(['t'])).get('t')!.id!;
  const read = fetcher.subscribe('t', 0, 0n, id);
  expect(await texts(read)).toEqual(['a']);
  const next = read.take();
  kafka.delete('t');
  kafka.create('t', 1).append('t', 0, 'x', 'y', 'z');
  // The offset is there in the new topic, too.
  expect(await next).toMatchObject({ kind: 'recreated', id: expect.not.stringMatching(id) });
});

it('a topic that stays away is gone after ten seconds of answers without it, and not before', async () => {
  const kafka = new ReadableKafka().create('t', 1).append('t', 0, 'a');
  let now = 0;
  const passes = (fn: () => void, ms: number): unknown => {
    now += ms;
    return setTimeout(fn, 1);
  };
  const io = { ...systemIo(), clock: { ...systemIo().clock, now: () => now, setTimeout: passes } };
  const { fetcher } = await fetcherOf(kafka, { io });
  const read = fetcher.subscribe('t', 0, 0n, undefined);
  expect(await texts(read)).toEqual(['a']);
  const next = read.take();
  const before = now;
  kafka.delete('t');
  expect(await next).toEqual({ kind: 'gone' });
  expect(now - before).toBeGreaterThanOrEqual(10_000);
  // It stands still until the read says where to go on.
  const asked = kafka.metadataAsked;
  await settled();
  expect(kafka.metadataAsked).toBe(asked);
});

it('tells when a topic has grown, and a closed one gives nothing any more', async () => {
  const kafka = new ReadableKafka().create('t', 1);
  const grown: string[] = [];
  const { fetcher } = await fetcherOf(kafka, { grown: () => grown.push('grown') });
  const read = fetcher.subscribe('t', 0, 0n, undefined);
  const next = read.take();
  await settled();
  kafka.grow('t', 2);
  kafka.lead('t', 0, 2);
  kafka.append('t', 0, 'a');
  expect(await next).toMatchObject({ kind: 'records' });
  expect(grown).toEqual(['grown']);
  const last = read.take();
  fetcher.close();
  expect(await last).toBeUndefined();
  expect(await read.take()).toBeUndefined();
});
