import { type Format, json, type Source, text } from 'millrace';
import { describe, expect, it, onTestFinished } from 'vitest';
import { BEGUN, type KafkaSplit } from '../../../src/connectors/kafka/discovery.ts';
import type { KafkaPosition } from '../../../src/connectors/kafka/reader.ts';
import { type KafkaSourceOptions, kafkaRecords, kafkaSource } from '../../../src/connectors/kafka/source.ts';
import { type Logger, SILENT } from '../../../src/graph/context.ts';
import type { SourceContext } from '../../../src/graph/source.ts';
import { type Io, systemIo } from '../../../src/runtime/io.ts';
import { batchesOf, type Letter, readContext, sourceContext, splitsOf, valuesOf } from '../reading.ts';
import { ReadableKafka } from './readable-kafka.ts';

type Given = Partial<KafkaSourceOptions<string>>;
type Kafka = Source<string, KafkaSplit, KafkaPosition>;

function sourceOf(kafka: ReadableKafka, given: Given = {}, io?: Io): Kafka {
  return kafkaSource<string>({ brokers: ['memory'], topic: 't', format: text(), ...given }, { client: () => kafka, io });
}

/** Waits of the source are as short as they can be, and time runs by them. */
function quick(): Io {
  const io = systemIo();
  let now = 0;
  return {
    ...io,
    clock: {
      ...io.clock,
      now: () => now,
      setTimeout: (fn, ms) => {
        now += ms;
        return setTimeout(fn, 1);
      },
    },
  };
}

async function everything(source: Kafka, options: Partial<SourceContext> = {}): Promise<string[]> {
  const all = [];
  for (const split of await splitsOf(source, options)) all.push(await valuesOf(source, split));
  return all.flat();
}

/** The first lists of splits that are found, one for each look that finds any. */
async function found(source: Kafka, count: number, options: Partial<SourceContext> = {}, meanwhile: (at: number) => void = () => {}): Promise<string[][]> {
  const lists: string[][] = [];
  for await (const list of source.splits(sourceContext(options)) as AsyncIterable<KafkaSplit[]>) {
    lists.push(list.map((split) => `${source.splitId(split)}@${split.start ?? 'earliest'}`));
    if (lists.length === count) break;
    meanwhile(lists.length);
  }
  return lists;
}

const letters = (count: number, from = 0): string[] => Array.from({ length: count }, (_, i) => `v${from + i}`);
const LOST = { code: 'KAFKA_OFFSET_LOST' };

describe('a bounded read', () => {
  it('gives what was there at the start, and ends, though more is written meanwhile', async () => {
    const kafka = new ReadableKafka()
      .create('t', 2)
      .append('t', 0, ...letters(2500))
      .append('t', 1, 'b');
    const source = sourceOf(kafka, { until: 'end' });
    expect(source.bounded).toBe(true);
    const splits = await splitsOf(source);
    kafka.append('t', 0, 'late').append('t', 1, 'late');
    expect(await Promise.all(splits.map((split) => valuesOf(source, split)))).toEqual([letters(2500), ['b']]);
    await kafka.idle();
    expect(kafka.clusters).toBe(0);
  });

  it('ends where its end is a gap of aborted records or markers', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, 'a', 'b').gap('t', 0, 3);
    const source = sourceOf(kafka, { until: 'end' });
    const [split] = await splitsOf(source);
    expect(split!.end).toBe('5');
    const batches = await batchesOf(source, split!);
    expect(batches.flatMap(({ values }) => values)).toEqual(['a', 'b']);
    expect(batches.at(-1)!.position).toEqual({ offset: '5', id: split!.id, end: '5' });
  });

  it('up to an offset in the middle of a batch ends in front of it, and its position is that offset', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, ...letters(100));
    const source = sourceOf(kafka, { until: { offsets: { 0: '40' } } });
    const batches = await batchesOf(source, (await splitsOf(source))[0]!);
    expect(batches.flatMap(({ values }) => values)).toEqual(letters(40));
    expect(batches.at(-1)!.position.offset).toBe('40');
  });

  it('ends at the same offsets after a restore, whatever was written since', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, ...letters(3000));
    const source = sourceOf(kafka, { until: 'end' });
    const [split] = await splitsOf(source);
    const before: string[] = [];
    let position: KafkaPosition | undefined;
    for await (const batch of source.read(split!, undefined, readContext())) {
      before.push(...batch.values);
      position = batch.position;
      if (before.length > 1000) break;
    }
    kafka.append('t', 0, ...letters(500, 3000));
    const again = sourceOf(kafka, { until: 'end' });
    expect([...before, ...(await valuesOf(again, structuredClone(split!), structuredClone(position)))]).toEqual(letters(3000));
  });

  it('fails where the log does not go as far as its end any more, or ends there where the policy says so', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, ...letters(10));
    const [split] = await splitsOf(sourceOf(kafka, { until: 'end' }));
    kafka.truncate('t', 0, 6n);
    const io = systemIo();
    // Ten seconds are over with the second answer.
    const hurried = { ...io, clock: { ...io.clock, now: () => Date.now() * 1_000 } };
    const [failed, ended] = await Promise.allSettled([
      valuesOf(sourceOf(kafka, { until: 'end' }, hurried), split!),
      valuesOf(sourceOf(kafka, { until: 'end', onOffsetLost: 'latest' }, hurried), split!),
    ]);
    expect(failed).toMatchObject({ reason: { ...LOST, message: expect.stringContaining('up to offset 10, where it ended before, and ends at 6 now') } });
    expect(ended).toMatchObject({ value: letters(6) });
  });

  it('of a topic without records is over at once', async () => {
    expect(await everything(sourceOf(new ReadableKafka().create('t', 3), { until: 'end' }))).toEqual([]);
  });

  it('begins at the oldest record that is left, and that is no loss', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, ...letters(10));
    kafka.deleteBefore('t', 0, 4n);
    expect(await everything(sourceOf(kafka, { until: 'end' }))).toEqual(letters(6, 4));
    kafka.deleteBefore('t', 0, 10n);
    expect(await everything(sourceOf(kafka, { until: 'end' }))).toEqual([]);
  });

  it('waits for transactions that were open at its end', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, 'a', 'b', 'c');
    kafka.open('t', 0, 1n);
    const source = sourceOf(kafka, { until: 'end' });
    const [split] = await splitsOf(source);
    const seen: string[] = [];
    for await (const { values } of source.read(split!, undefined, readContext())) {
      if (seen.push(...values) === 1) kafka.open('t', 0, undefined);
    }
    expect(seen).toEqual(['a', 'b', 'c']);
  });

  it('takes over the position of a read that had no end, and one without an end takes over that of one that had', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, ...letters(10));
    const source = sourceOf(kafka, { until: 'end' });
    const split = { topic: 't', partition: 0 };
    expect(await valuesOf(source, split, { offset: '7' })).toEqual(letters(3, 7));
    const endless = sourceOf(kafka)
      .read({ ...split, end: '2' }, { offset: '8', end: '9' }, readContext())
      [Symbol.asyncIterator]();
    expect((await endless.next()).value.values).toEqual(letters(2, 8));
    await endless.return!();
  });
});

describe('records', () => {
  it('have the timestamp of their message, and NaN where it has none', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, { value: 'a', timestamp: 1500 }, { value: 'b' });
    const source = sourceOf(kafka, { until: 'end' });
    const [batch] = await batchesOf(source, (await splitsOf(source))[0]!);
    expect(batch!.timestamps).toEqual([1500, Number.NaN]);
  });

  it('without a value are passed over by source() and given by records()', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, { value: null, key: 'k' }, { value: '7', key: 'l', timestamp: 5, headers: { h: 'x' } });
    const options = { brokers: ['memory'], topic: 't', until: 'end' as const };
    const ports = { client: () => kafka };
    const values = kafkaSource<number>(options, ports);
    expect(await valuesOf(values, (await splitsOf(values))[0]!)).toEqual([7]);
    const records = kafkaRecords<number>(options, ports);
    expect(await valuesOf(records, (await splitsOf(records))[0]!)).toEqual([
      { value: null, key: Buffer.from('k'), headers: {}, topic: 't', partition: 0, offset: '0', timestamp: Number.NaN },
      { value: 7, key: Buffer.from('l'), headers: { h: Buffer.from('x') }, topic: 't', partition: 0, offset: '1', timestamp: 5 },
    ]);
  });

  it('that do not decode are dead letters with their bytes and where they lie; the others go on', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, '1', '{"broken', '3');
    const source = kafkaSource<number>({ brokers: ['memory'], topic: 't', until: 'end' }, { client: () => kafka });
    const dead: Letter[] = [];
    expect(await valuesOf(source, (await splitsOf(source))[0]!, undefined, readContext(dead))).toEqual([1, 3]);
    expect(dead).toEqual([{ record: new Uint8Array(Buffer.from('{"broken')), error: expect.objectContaining({ code: 'RECORD_UNDECODABLE' }) }]);
    expect((dead[0]!.error as Error).message).toMatch(/offset 1 of partition 0 of 't'/);
  });

  it('all undecodable give a batch without values, so that the position goes on', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, '{', '{');
    const source = kafkaSource<number>({ brokers: ['memory'], topic: 't', until: 'end' }, { client: () => kafka });
    expect((await batchesOf(source, (await splitsOf(source))[0]!)).map(({ values, position }) => [values.length, position.offset])).toEqual([[0, '2']]);
  });

  it('of a schema that validates asynchronously fail the read: the program is wrong, not the record', async () => {
    const later = { '~standard': { version: 1 as const, vendor: 'own', validate: async (value: unknown) => ({ value }) } };
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, '1');
    const source = kafkaSource({ brokers: ['memory'], topic: 't', until: 'end', format: json(later) }, { client: () => kafka });
    await expect(valuesOf(source, (await splitsOf(source))[0]!)).rejects.toMatchObject({ code: 'SCHEMA_IS_ASYNC' });
  });

  it('are decoded when their format has what it needs for them, and as records of their topic', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, 'a', { value: null }, 'b');
    const ready = new Set<string>();
    const ofTopic = (topic: string): Format<string> => ({
      ...text(),
      prepare: (bytes) => (ready.has(String(bytes)) ? undefined : new Promise((resolve) => setImmediate(() => resolve(void ready.add(String(bytes)))))),
      decode: (bytes) => (ready.has(String(bytes)) ? `${topic}: ${bytes}` : 'too early'),
    });
    expect(await everything(sourceOf(kafka, { until: 'end', format: { ...text(), ofTopic } }))).toEqual(['t: a', 't: b']);
  });

  it('come in pieces that are small enough for a snapshot, each with its own position', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, ...letters(3000));
    kafka.batchRecords = 3000;
    const source = sourceOf(kafka, { until: 'end' });
    const batches = await batchesOf(source, (await splitsOf(source))[0]!);
    expect(batches.map(({ values, position }) => [values.length, position.offset])).toEqual([
      [1024, '1024'],
      [1024, '2048'],
      [952, '3000'],
    ]);
  });
});

describe('records that are gone', () => {
  const at = (offset: string): KafkaPosition => ({ offset });
  const split = { topic: 't', partition: 0 };

  function withHoles(): ReadableKafka {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, ...letters(10));
    kafka.deleteBefore('t', 0, 4n);
    return kafka;
  }

  it('fail the read, and the error names the topic, the partition, what was wanted and what there is', async () => {
    await expect(valuesOf(sourceOf(withHoles(), { until: 'end' }, quick()), split, at('2'))).rejects.toMatchObject({
      ...LOST,
      retryable: false,
      message: expect.stringContaining("Partition 0 of 't' was to be read from offset 2 and holds 4 to 10"),
    });
  });

  it("are passed over where the policy is 'earliest' or 'latest', and that is logged", async () => {
    const warned: string[] = [];
    const log: Logger = { ...SILENT, warn: (_: unknown, said?: string) => void warned.push(said!) };
    const options = { until: { offsets: { 0: '10' } } };
    expect(await valuesOf(sourceOf(withHoles(), { ...options, onOffsetLost: 'earliest' }, quick()), split, at('2'), readContext([], { log }))).toEqual(
      letters(6, 4),
    );
    expect(await valuesOf(sourceOf(withHoles(), { ...options, onOffsetLost: 'latest' }, quick()), split, at('2'), readContext([], { log }))).toEqual([]);
    expect(warned).toEqual([expect.stringMatching(/Reading goes on at 4, as onOffsetLost says/), expect.stringMatching(/Reading goes on at 10/)]);
  });

  it('because the log ends before the offset, or offsets that were never there, fail too', async () => {
    const kafka = withHoles();
    kafka.truncate('t', 0, 6n);
    await expect(valuesOf(sourceOf(kafka, {}, quick()), split, at('8'))).rejects.toMatchObject(LOST);
    const source = sourceOf(kafka, { from: { offsets: { 0: '99' } }, until: { offsets: { 0: '100' } } }, quick());
    await expect(valuesOf(source, (await splitsOf(source))[0]!)).rejects.toMatchObject(LOST);
  });

  it('because the topic is another one are not looked for in it, also where it has the offset', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, ...letters(10));
    const id = kafka.idOf('t');
    kafka.delete('t');
    kafka.create('t', 1).append('t', 0, ...letters(20, 100));
    const old = { offset: '5', id };
    await expect(valuesOf(sourceOf(kafka, { until: 'end' }, quick()), split, old)).rejects.toMatchObject({ code: 'TOPIC_RECREATED', retryable: false });
    const batches = await batchesOf(sourceOf(kafka, { until: 'end', onOffsetLost: 'earliest' }, quick()), split, old);
    expect(batches.flatMap(({ values }) => values)).toEqual(letters(20, 100));
    expect(batches.at(-1)!.position.id).toBe(kafka.idOf('t'));
    expect(await valuesOf(sourceOf(kafka, { until: 'end', onOffsetLost: 'latest' }, quick()), split, old)).toEqual([]);
  });

  it('because the topic is gone fail with its own code, and are waited for where the policy says to go on', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, 'a');
    const id = kafka.idOf('t');
    kafka.delete('t');
    await expect(valuesOf(sourceOf(kafka, {}, quick()), split, { offset: '1', id })).rejects.toMatchObject({ code: 'KAFKA_TOPIC_MISSING' });
    const log: Logger = {
      ...SILENT,
      warn: (_: unknown, said?: string) => said!.includes('It is waited for') && void kafka.create('t', 1).append('t', 0, 'again'),
    };
    const reading = sourceOf(kafka, { onOffsetLost: 'earliest' }, quick()).read(split, { offset: '1', id }, readContext([], { log }))[Symbol.asyncIterator]();
    expect((await reading.next()).value.values).toEqual(['again']);
    await reading.return!();
  });

  it('are noticed in the middle of a read as well', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, ...letters(10));
    const reading = sourceOf(kafka, {}, quick()).read(split, undefined, readContext())[Symbol.asyncIterator]();
    expect((await reading.next()).value.values).toEqual(letters(10));
    const next = reading.next();
    kafka.delete('t');
    kafka.create('t', 1).append('t', 0, ...letters(30));
    await expect(next).rejects.toMatchObject({ code: 'TOPIC_RECREATED' });
  });
});

describe('discovery', () => {
  it('finds new partitions while the job runs, and begins them at their oldest record whatever `from` says', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, 'a', 'b');
    const lists = await found(sourceOf(kafka, { from: 'latest', discoverEvery: 1 }), 2, {}, () => {
      kafka.grow('t', 3);
      kafka.append('t', 2, 'before it was found');
    });
    expect(lists).toEqual([['t/0@2'], ['t/1@earliest', 't/2@earliest']]);
  });

  it('finds new topics of a pattern, and none is needed at the start', async () => {
    const kafka = new ReadableKafka();
    const lists = await found(sourceOf(kafka, { topic: /^m-\d$/g, discoverEvery: 1 }), 3, {}, (at) => kafka.create(`m-${at}`, 1).create(`other-${at}`, 1));
    expect(lists.slice(1)).toEqual([['m-1/0@earliest'], ['m-2/0@earliest']]);
  });

  it('of a pattern that nothing matches at first is known to have begun: what is there after a restore is read from its oldest record', async () => {
    const kafka = new ReadableKafka();
    const source = sourceOf(kafka, { topic: /^m-/, from: 'latest', discoverEvery: 1 });
    const [begun] = await found(source, 1);
    const known = new Set(begun!.map((name) => name.split('@')[0]!));
    expect(known.size).toBe(1);
    expect(await valuesOf(source, BEGUN)).toEqual([]);
    kafka.create('m-1', 1).append('m-1', 0, 'while it was down');
    expect((await found(source, 1, { known }))[0]).toEqual(['m-1/0@earliest']);
  });

  it('after a restore takes what it does not know from the oldest record', async () => {
    const kafka = new ReadableKafka().create('t', 2).append('t', 1, 'a', 'b');
    expect(await found(sourceOf(kafka, { from: 'latest' }), 1, { known: new Set(['t/0']) })).toEqual([['t/1@earliest']]);
  });

  it('looks at once when the fetcher sees that a topic has grown', async () => {
    const kafka = new ReadableKafka().create('t', 1).append('t', 0, 'a');
    const source = sourceOf(kafka, { discoverEvery: 1_000_000 });
    const abort = new AbortController();
    onTestFinished(() => abort.abort());
    const reading = source.read({ topic: 't', partition: 0 }, undefined, readContext([], { signal: abort.signal }))[Symbol.asyncIterator]();
    await reading.next();
    const next = reading.next();
    const lists = await found(source, 2, {}, () => {
      kafka.grow('t', 2);
      kafka.lead('t', 0, 2);
    });
    expect(lists).toEqual([['t/0@earliest'], ['t/1@earliest']]);
    abort.abort();
    expect((await next).done).toBe(true);
  });

  it('fails at the start where a topic does not exist, after it was waited for', async () => {
    const kafka = new ReadableKafka();
    await expect(splitsOf(sourceOf(kafka, { until: 'end' }, quick()))).rejects.toMatchObject({
      code: 'KAFKA_TOPIC_MISSING',
      message: expect.stringContaining("'t'"),
    });
    const io = quick();
    const later = (fn: () => void, ms: number): unknown => {
      kafka.create('t', 1).append('t', 0, 'a');
      return io.clock.setTimeout(fn, ms);
    };
    const late: Io = { ...io, clock: { ...io.clock, setTimeout: later } };
    expect(await everything(sourceOf(kafka, { until: 'end' }, late))).toEqual(['a']);
  });

  it('fails at the start where brokers cannot be reached, and goes on later', async () => {
    const kafka = new ReadableKafka().create('t', 1);
    const { MillraceError } = await import('../../../src/errors.ts');
    const away = new MillraceError('KAFKA_UNREACHABLE', 'No broker answers.');
    kafka.unreachable = away;
    await expect(splitsOf(sourceOf(kafka, { until: 'end' }))).rejects.toBe(away);
    kafka.unreachable = undefined;
    const said: string[] = [];
    const log: Logger = {
      ...SILENT,
      info: (_: unknown, words?: string) => void said.push(words!),
      warn: (_: unknown, words?: string) => {
        said.push(words!);
        kafka.unreachable = undefined;
        kafka.grow('t', 2);
      },
    };
    const lists = await found(sourceOf(kafka, { discoverEvery: 1 }), 2, { log }, () => {
      kafka.unreachable = away;
    });
    expect(lists[1]).toEqual(['t/1@earliest']);
    expect(said).toEqual(['New partitions cannot be looked for at present; what is known is read on.', 'New partitions are looked for again.']);
  });
});

describe('the connection', () => {
  it('is one for all reads of a process, and closed behind the last', async () => {
    const kafka = new ReadableKafka().create('t', 3);
    const source = sourceOf(kafka);
    const abort = new AbortController();
    const reads = [0, 1, 2].map((partition) =>
      source.read({ topic: 't', partition }, undefined, readContext([], { signal: abort.signal }))[Symbol.asyncIterator](),
    );
    const pending = reads.map((read) => read.next());
    await kafka.fetched(1);
    expect(kafka.clusters).toBe(1);
    expect(kafka.fetches[0]!.wanted.length).toBe(3);
    abort.abort();
    expect((await Promise.all(pending)).every(({ done }) => done)).toBe(true);
    await kafka.idle();
    expect(kafka.clusters).toBe(0);
  });

  it('is given up when the attempt ends while it is being made', async () => {
    const kafka = new ReadableKafka().create('t', 1);
    let go!: () => void;
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    const slow = Object.assign(Object.create(kafka) as ReadableKafka, {
      kind: 'slow',
      connect: async (settings: never) => gate.then(() => kafka.connect(settings)),
    });
    const abort = new AbortController();
    const reading = sourceOf(kafka, { client: slow })
      .read({ topic: 't', partition: 0 }, undefined, readContext([], { signal: abort.signal }))
      [Symbol.asyncIterator]();
    const next = reading.next();
    abort.abort();
    expect((await next).done).toBe(true);
    go();
    await gate;
    await kafka.idle();
    expect(kafka.clusters).toBe(0);
  });
});

describe('a group', () => {
  it('is told the offsets of completed checkpoints, of the newest only where one is being told', async () => {
    const kafka = new ReadableKafka().create('t', 2).create('u', 1);
    const source = sourceOf(kafka, { topic: ['t', 'u'], groupId: 'g' });
    const told = [3, 5, 9].map((offset) =>
      source.onCheckpointComplete!(
        new Map([
          ['t/0', { offset: String(offset) }],
          ['u/0', { offset: '1' }],
        ]),
      ),
    );
    await Promise.all(told);
    expect([...kafka.group('g', 't')]).toEqual([[0, 9n]]);
    expect([...kafka.group('g', 'u')]).toEqual([[0, 1n]]);
    await kafka.idle();
    expect(kafka.clusters).toBe(0);
  });

  it('that cannot be told is an error of the call, and nothing else', async () => {
    const kafka = new ReadableKafka().create('t', 1);
    const source = sourceOf(kafka, { groupId: 'g' });
    kafka.unreachable = new Error('away');
    await expect(source.onCheckpointComplete!(new Map([['t/0', { offset: '3' }]]))).rejects.toThrow('away');
    kafka.unreachable = undefined;
    await source.onCheckpointComplete!(new Map([['t/0', { offset: '4' }]]));
    expect([...kafka.group('g', 't')]).toEqual([[0, 4n]]);
  });

  it('that was not named is told nothing', () => {
    expect(sourceOf(new ReadableKafka()).onCheckpointComplete).toBeUndefined();
  });
});

it('options that say nothing are refused where the source is made', () => {
  const wrong: Given[] = [
    { brokers: [] },
    { topic: [] },
    { topic: '' },
    { from: 'group' },
    { from: { offsets: { 0: '-1' } } },
    { from: { timestamp: Number.NaN } },
    { topic: ['a', 'b'], from: { offsets: { 0: '1' } } },
    { topic: /a/, until: { offsets: { 0: '1' } } },
    { from: 'newest' as never },
    { until: 'never' as never },
    { onOffsetLost: 'skip' as never },
    { groupId: '' },
    { discoverEvery: 0 },
    { client: { kind: 'own' } },
  ];
  for (const given of wrong)
    expect(() => sourceOf(new ReadableKafka(), given), JSON.stringify(given)).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
});
