import { randomUUID } from 'node:crypto';
import { job, type RunOptions, type Source, seconds, text, tumbling } from 'millrace';
import { type KafkaRecord, type KafkaSourceOptions, kafka } from 'millrace/kafka';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LONG } from '../../long.ts';
import { checkpointsIn, ends, RESTARTS, rejection, Seen, Store, temporaryFolder, Watch } from '../../protocols/lab.ts';
import { KafkaBroker, type KafkaVersion, kafkaForTests, NO_KAFKA } from '../../services/kafka.ts';
import { type Topics, topicsOf } from './topics.ts';

const VERSIONS: readonly KafkaVersion[] = LONG ? ['4.3.1', '3.9.2'] : ['4.3.1'];
/** The older one is for long runs, and this file's own. */
let older: Promise<KafkaBroker> | undefined;
afterAll(async () => (await older)?.close());

async function olderBrokers(): Promise<string[]> {
  older ??= KafkaBroker.start({ version: '3.9.2' });
  return (await older).brokers;
}

const on: Readonly<Record<KafkaVersion, () => Promise<Topics>>> = { '4.3.1': topicsOf(kafkaForTests), '3.9.2': topicsOf(olderBrokers) };
let topics = on['4.3.1'];
const numbered = (count: number, from = 0): string[] => Array.from({ length: count }, (_, i) => `v${from + i}`);

async function optionsOf(topic: KafkaSourceOptions<string>['topic'], given: Partial<KafkaSourceOptions<string>> = {}): Promise<KafkaSourceOptions<string>> {
  return { brokers: (await topics()).brokers, topic, format: text(), ...given };
}

/** All that a bounded read gives. */
async function everything<T>(source: Source<T>): Promise<T[]> {
  const seen = new Seen<T>();
  await job('everything', (env) => void env.source('in', source).sink('out', seen)).run();
  return seen.values;
}

async function read(topic: string, given: Partial<KafkaSourceOptions<string>> = {}): Promise<string[]> {
  return everything(kafka.source(await optionsOf(topic, { until: 'end', ...given })));
}

describe.skipIf(NO_KAFKA).each(VERSIONS)('a Kafka source on %s', (version) => {
  beforeAll(() => {
    topics = on[version];
  });

  it('begins where `from` says, and ends where `until` says', async () => {
    const all = await topics();
    const topic = await all.create(1);
    await all.write(
      topic,
      numbered(10).map((value, i) => ({ value, timestamp: 1_000_000 + i * 1000 })),
    );
    await kafka.source(await optionsOf(topic, { groupId: `g-${topic}` })).onCheckpointComplete!(new Map([[`${topic}/0`, { offset: '7' }]]));
    expect(await all.committed(`g-${topic}`, topic)).toEqual(new Map([[0, '7']]));
    expect(await read(topic)).toEqual(numbered(10));
    expect(await read(topic, { from: 'latest' })).toEqual([]);
    expect(await read(topic, { from: { timestamp: 1_004_500 } })).toEqual(numbered(5, 5));
    expect(await read(topic, { from: { offsets: { 0: '8' } } })).toEqual(numbered(2, 8));
    expect(await read(topic, { from: 'group', groupId: `g-${topic}` })).toEqual(numbered(3, 7));
    expect(await read(topic, { until: { timestamp: 1_003_000 } })).toEqual(numbered(3));
    expect(await read(topic, { until: { offsets: { 0: '2' } } })).toEqual(numbered(2));
    expect((await rejection(read(`${topic}-missing`))).code).toBe('KAFKA_TOPIC_MISSING');
  });

  it('gives committed records only, and a bounded read ends behind the gaps of transactions', async () => {
    const all = await topics();
    const topic = await all.create(1);
    await (await all.transaction(topic, ['a', 'b'])).commit();
    await (await all.transaction(topic, ['never'])).abort();
    expect(await read(topic)).toEqual(['a', 'b']);
    const open = await all.transaction(topic, ['c']);
    const seen = new Seen<string>();
    const source = kafka.source(await optionsOf(topic, { until: 'end' }));
    const running = ends(await job('open', (env) => void env.source('in', source).sink('out', seen)).start());
    await seen.until((values) => values.length === 2);
    await all.write(topic, ['behind the end']);
    await open.commit();
    await running.finished;
    expect(seen.values).toEqual(['a', 'b', 'c']);
  });

  it('gives whole records by records(), tombstones among them', async () => {
    const all = await topics();
    const topic = await all.create(2);
    await all.write(topic, [
      { value: 'one', key: 'k', partition: 1, timestamp: 1234, headers: { trace: 'x' } },
      { value: null, key: 'k', partition: 1, timestamp: 1235 },
    ]);
    expect(await everything(kafka.records(await optionsOf(topic, { until: 'end' })))).toEqual([
      { value: 'one', key: Buffer.from('k'), headers: { trace: Buffer.from('x') }, topic, partition: 1, offset: '0', timestamp: 1234 },
      { value: null, key: Buffer.from('k'), headers: {}, topic, partition: 1, offset: '1', timestamp: 1235 },
    ] satisfies KafkaRecord<string | null>[]);
    expect(await read(topic)).toEqual(['one']);
  });

  it('finds partitions and topics while it runs, and reads them from their first record', async () => {
    const all = await topics();
    const prefix = await all.create(1);
    const seen = new Seen<string>();
    const source = kafka.source(await optionsOf(new RegExp(`^${prefix}`), { from: 'latest', discoverEvery: 100 }));
    await all.write(prefix, ['before']);
    const watch = new Watch();
    ends(await job('growing', (env) => void env.source('in', source).sink('out', seen)).start({ parallelism: 2, onEvent: watch.onEvent }));
    // From here on `latest` has been resolved.
    while (seen.values.length === 0) await all.write(prefix, ['tick']);
    await all.grow(prefix, 2);
    await all.write(prefix, [{ value: 'of the new partition', partition: 1 }]);
    const other = await all.create(1, { name: `${prefix}-other` });
    await all.write(other, ['of the new topic']);
    await seen.until((values) => values.includes('of the new partition') && values.includes('of the new topic'));
    expect(seen.values).not.toContain('before');
  });

  it('remembers over a restore that a pattern which nothing matched has begun', async () => {
    const all = await topics();
    const prefix = `p-${randomUUID()}`;
    const store = new Store<string>();
    const options: RunOptions = { checkpoints: { ...checkpointsIn(await temporaryFolder()), every: 30 } };
    let looked = (): void => {};
    const first = new Promise<void>((resolve) => {
      looked = resolve;
    });
    const define = async () => {
      const source = kafka.source(await optionsOf(new RegExp(`^${prefix}`), { from: 'latest' }));
      const { splits } = source;
      source.splits = async function* (context) {
        for await (const found of splits(context) as AsyncIterable<unknown[]>) {
          yield found;
          looked();
        }
      };
      return job('waiting', (env) => void env.source('in', source).sink('out', store));
    };
    const running = ends(await (await define()).start({ ...options, parallelism: 2 }));
    // The runtime asks for more when it has taken what was found.
    await first;
    await running.stop();
    await all.create(1, { name: prefix });
    await all.write(prefix, ['while it was down']);
    const second = ends(await (await define()).start(options));
    await store.until((records) => records.length === 1);
    await second.stop();
    expect(store.records).toEqual(['while it was down']);
  });

  it('is replayed from its checkpoints after crashes and at another parallelism, each record once', async () => {
    const all = await topics();
    const topic = await all.create(4);
    const count = 12_000;
    const records = (from: number) => numbered(count, from).map((value, i) => ({ value, partition: i % 4 }));
    await all.write(topic, records(0), { gzip: true });
    const folder = await temporaryFolder();
    const store = new Store<string>();
    const watch = new Watch();
    let crashes = 0;
    const source = await optionsOf(topic, { groupId: `g-${topic}` });
    const define = (crashAt: readonly string[]) =>
      job('replayed', (env) => {
        env
          .source('in', kafka.source(source))
          .map((value) => {
            if (crashes < crashAt.length && value === crashAt[crashes]) {
              crashes += 1;
              throw new Error('a crash');
            }
            return value;
          })
          .rebalance()
          .sink('out', store);
      });
    const options: RunOptions = { checkpoints: { ...checkpointsIn(folder), every: 50 }, restarts: RESTARTS };
    const first = ends(await define(['v3000', 'v9000']).start({ ...options, parallelism: 3, onEvent: watch.onEvent }));
    await store.until((r) => r.length >= count / 2);
    await first.stop();
    expect(crashes).toBe(2);
    await all.write(topic, records(count));
    const second = ends(await define([]).start({ ...options, parallelism: 2 }));
    await store.until((r) => r.length >= 2 * count);
    await second.stop();
    expect(store.records.length).toBe(2 * count);
    expect(new Set(store.records).size).toBe(2 * count);
    // For monitoring only; the last are told while the job ends.
    for (;;) {
      const committed = await all.committed(`g-${topic}`, topic);
      if ([...committed.values()].every((offset) => Number(offset) > 0)) break;
    }
  });

  it('has watermarks by partition: one that is behind holds windows back, one that is idle does not', async () => {
    const all = await topics();
    const topic = await all.create(3);
    const seen = new Seen<string>();
    const at = (value: string, timestamp: number, partition: number) => ({ value, timestamp, partition });
    const source = kafka.source(await optionsOf(topic));
    ends(
      await job('by-partition', (env) => {
        env
          // So long that partition 1 does not become idle between two writes on a busy machine.
          .source('in', source, { idleness: 3_000 })
          .keyBy(() => 'all')
          .window(tumbling(seconds(10)))
          .reduce('joined', (a, b) => `${a},${b}`)
          .map(({ value }) => value.split(',').sort().join())
          .sink('out', seen);
      }).start({ parallelism: 1 }),
    );
    // Partition 2 has nothing and becomes idle; partition 1 is behind partition 0.
    await all.write(topic, [at('a', 1_000, 0), at('b', 2_000, 1), at('late for a global clock', 100_000, 0)]);
    await all.write(topic, [at('c', 9_000, 1), at('d', 15_000, 1)]);
    await seen.until((values) => values.length >= 1);
    expect(seen.values[0]).toBe('a,b,c');
    // What an idle partition brings later is taken, too.
    await all.write(topic, [at('e', 200_000, 0), at('f', 200_000, 1), at('g', 200_000, 2)]);
    await seen.until((values) => values.includes('d') && values.includes('late for a global clock'));
  });
});
