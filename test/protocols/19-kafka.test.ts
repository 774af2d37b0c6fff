import { job, type RunningJob, type RunOptions, text } from 'millrace';
import { type KafkaSourceOptions, kafka } from 'millrace/kafka';
import { describe, expect, it, vi } from 'vitest';
import { topicsOf } from '../connectors/kafka/topics.ts';
import { kafkaForTests, NO_KAFKA } from '../services/kafka.ts';
import { checkpointsIn, ends, RESTARTS, rejection, Seen, Store, temporaryFolder } from './lab.ts';

const topics = topicsOf(kafkaForTests);
const numbered = (count: number, from = 0): string[] => Array.from({ length: count }, (_, i) => `v${from + i}`);

describe.skipIf(NO_KAFKA)('protocols 19: Kafka as a source', () => {
  const define = async (topic: string, store: Store<string>, given: Partial<KafkaSourceOptions<string>> = {}) => {
    const source = kafka.source<string>({ brokers: (await topics()).brokers, topic, format: text(), ...given });
    return job('source', (env) => void env.source('in', source).sink('out', store));
  };

  it("a partition that was created while the job was down is read from its first record, though `from` is 'latest'", async () => {
    const all = await topics();
    const topic = await all.create(1);
    const folder = await temporaryFolder();
    const store = new Store<string>();
    const options: RunOptions = { checkpoints: { ...checkpointsIn(folder), every: 30 }, restarts: RESTARTS };
    const first = ends(await (await define(topic, store, { from: 'latest' })).start(options));
    // 'latest' is stored with the split by the first checkpoint that has it, before there is a record.
    await vi.waitFor(async () => expect((await first.metrics()).map(({ name }) => name)).toContain(`lag.${topic}/0`), { timeout: 30_000 });
    await first.checkpoint();
    await first.stop();
    await all.write(topic, ['while it was down']);
    await all.grow(topic, 2);
    await all.write(topic, [{ value: 'in the new partition', partition: 1 }]);
    const second = ends(await (await define(topic, store, { from: 'latest' })).start(options));
    await store.until((r) => r.length === 2);
    await second.stop();
    expect(store.records.toSorted()).toEqual(['in the new partition', 'while it was down']);
  });

  it('a topic that was created again with more records than the stored offset is not read on in its middle', async () => {
    const all = await topics();
    const topic = await all.create(1);
    const folder = await temporaryFolder();
    const store = new Store<string>();
    const options: RunOptions = { checkpoints: { ...checkpointsIn(folder), every: 30 }, restarts: RESTARTS };
    await all.write(topic, numbered(5));
    const first = ends(await (await define(topic, store)).start(options));
    await store.until((r) => r.length === 5);
    await first.stop();
    await all.recreate(topic, 1);
    await all.write(topic, numbered(9, 100));
    const failure = await rejection((await define(topic, store)).run(options));
    expect(failure.code).toBe('TOPIC_RECREATED');
    expect(failure.retryable).toBe(false);
    const second = ends(await (await define(topic, store, { onOffsetLost: 'earliest' })).start(options));
    await store.until((r) => r.length === 14);
    await second.stop();
    expect(store.records).toEqual([...numbered(5), ...numbered(9, 100)]);
  });

  it('a topic that is created again while the job reads it ends the job, at once', async () => {
    const all = await topics();
    const topic = await all.create(1);
    await all.write(topic, numbered(3));
    const seen = new Seen<string>();
    const source = kafka.source<string>({ brokers: all.brokers, topic, format: text() });
    const running = ends(await job('read', (env) => void env.source('in', source).sink('out', seen)).start());
    await seen.until((values) => values.length === 3);
    await all.recreate(topic, 1);
    await all.write(topic, numbered(9, 100));
    expect((await rejection(running.finished)).code).toBe('TOPIC_RECREATED');
    expect(seen.values).toEqual(numbered(3));
  });

  it('a barrier in the middle of a batch keeps its rest, with keys and headers as they were', async () => {
    const all = await topics();
    const topic = await all.create(1);
    const count = 3_000;
    const folder = await temporaryFolder();
    const store = new Store<string>();
    let running: RunningJob | undefined;
    let taken: Promise<unknown> | undefined;
    const bytes = (given: Buffer | null | undefined): string => (Buffer.isBuffer(given) ? given.toString() : 'no Buffer');
    const define = () =>
      job('half', (env) => {
        env
          .source('in', kafka.records<string>({ brokers: all.brokers, topic, format: text() }))
          .map(({ value, key, headers }) => {
            if (value === 'v500') taken ??= running!.checkpoint();
            return [value, bytes(key), bytes(headers.h)].join();
          })
          .sink('out', store);
      });
    running = ends(await define().start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS }));
    const written = numbered(count).map((value) => ({ value, key: `k-${value}`, headers: { h: value } }));
    await all.write(topic, written);
    await store.until((r) => r.length > 0);
    await taken;
    // In the middle of a piece, as the task takes 512 records at once.
    expect(store.records.length % 1024).not.toBe(0);
    await running.cancel();
    const again = ends(await define().start({ checkpoints: { ...checkpointsIn(folder), every: 30 }, restore: { from: 1 }, restarts: RESTARTS }));
    await store.until((r) => r.length >= count);
    await again.stop();
    expect(store.records).toEqual(written.map(({ value, key }) => `${value},${key},${value}`));
  });
});
