// What every client library does behind the port (src/connectors/kafka/client.ts), against a real broker. An adapter adopts it in one line:
//
//    clientContract('kafkajs', kafkajs(), kafkaForTests);
//
// Topics have random names: brokers are shared.

import { randomUUID } from 'node:crypto';
import * as zlib from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type {
  Cluster,
  Compression,
  FetchedPartition,
  KafkaAdapter,
  KafkaClient,
  OutgoingRecord,
  WantedPartition,
} from '../../../src/connectors/kafka/client.ts';
import { codeOf } from '../../../src/errors.ts';
import { SILENT } from '../../../src/graph/context.ts';

/** zstd where this Node has it. */
const COMPRESSIONS: Compression[] = ['gzip', 'snappy', 'lz4', ...('zstdCompressSync' in zlib ? (['zstd'] as const) : [])];

export const FETCH = { maxWaitMs: 50, minBytes: 1, maxBytes: 1 << 20, committed: true };

export function connect(client: KafkaClient, brokers: readonly string[], more: object = {}): Promise<Cluster> {
  return (client as KafkaAdapter).connect({ brokers, clientId: 'contract', timeoutMs: 10_000, log: SILENT, ...more });
}

export function record(topic: string, partition: number, value: string | null, more: Partial<OutgoingRecord> = {}): OutgoingRecord {
  return { topic, partition, key: null, value: value === null ? null : Buffer.from(value), timestamp: 1_700_000_000_000, ...more };
}

export async function freshTopic(cluster: Cluster, partitions = 1, configs: Record<string, string> = {}): Promise<string> {
  const topic = `contract-${randomUUID()}`;
  expect(await cluster.createTopic(topic, { partitions, configs })).toBe(true);
  return topic;
}

export async function leaderOf(cluster: Cluster, topic: string, partition = 0): Promise<number> {
  return (await cluster.metadata([topic])).get(topic)!.partitions[partition]!.leader;
}

/** What a fetch of one partition gives. */
export async function fetchOne(cluster: Cluster, wanted: WantedPartition, options: Partial<typeof FETCH> = {}): Promise<FetchedPartition> {
  const leader = await leaderOf(cluster, wanted.topic, wanted.partition);
  const [fetched] = await cluster.fetch(leader, [wanted], { ...FETCH, ...options });
  return fetched!;
}

/** Values from an offset up to the end as it is now. Of committed ones when all is decided: brokers write the end of a transaction after they have said that it is. */
export async function valuesFrom(cluster: Cluster, topic: string, offset = 0n, committed = true, partition = 0): Promise<string[]> {
  const end = (await cluster.offsets(topic, [partition], 'latest', false)).get(partition)!;
  while (committed && (await cluster.offsets(topic, [partition], 'stable', true)).get(partition)! < end)
    await new Promise((resolve) => setTimeout(resolve, 10));
  const values: string[] = [];
  for (let at = offset; at < end; ) {
    const { records, next, problem } = await fetchOne(cluster, { topic, partition, offset: at }, { committed });
    if (problem !== undefined) throw problem.error;
    for (const { value } of records) values.push(String(value));
    at = next;
  }
  return values;
}

export async function codeThrown(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => 'nothing',
    (error: unknown) => codeOf(error) ?? error,
  );
}

export function clientContract(name: string, client: KafkaClient, brokers: () => Promise<readonly string[]>): void {
  describe(`a Kafka client on ${name}`, () => {
    let cluster: Cluster;
    beforeAll(async () => {
      cluster = await connect(client, await brokers());
    });
    afterAll(() => cluster?.close());

    describe('of topics', () => {
      it('creates one once, tells its partitions and its id, and leaves out those that are not there', async () => {
        const topic = await freshTopic(cluster, 3, { 'cleanup.policy': 'compact' });
        expect(await cluster.createTopic(topic, { partitions: 1 })).toBe(false);
        const found = await cluster.metadata([topic, `none-${randomUUID()}`]);
        expect([...found.keys()]).toEqual([topic]);
        const { id, partitions } = found.get(topic)!;
        expect(id).toMatch(/^[0-9a-f]{32}$/);
        expect(partitions.map(({ partition }) => partition)).toEqual([0, 1, 2]);
        expect(partitions.every(({ leader }) => leader >= 0)).toBe(true);
        expect((await cluster.topicConfigs(topic)).get('cleanup.policy')).toBe('compact');
      });

      it('lists all but the internal ones', async () => {
        const topic = await freshTopic(cluster);
        await cluster.commitGroupOffsets(`g-${randomUUID()}`, topic, new Map([[0, 0n]]));
        const topics = await cluster.topics();
        expect(topics).toContain(topic);
        expect(topics.filter((one) => one.startsWith('__'))).toEqual([]);
      });

      it('tells the limits of brokers', async () => {
        expect(Number((await cluster.brokerConfigs()).get('transaction.max.timeout.ms'))).toBeGreaterThan(0);
      });

      it('says of a setting that brokers refuse what they said', async () => {
        const refused = cluster.createTopic(`contract-${randomUUID()}`, { partitions: 1, configs: { 'no.such.setting': '1' } });
        await expect(refused).rejects.toMatchObject({ code: 'KAFKA_REFUSED', retryable: false });
      });
    });

    describe('of offsets', () => {
      it('finds the oldest, the end and a time; behind the newest record the end', async () => {
        const topic = await freshTopic(cluster, 2);
        const producer = await cluster.producer({});
        await producer.send([0, 1, 2].map((i) => record(topic, 0, `${i}`, { timestamp: 1000 + i * 10 })));
        const at = (where: Parameters<Cluster['offsets']>[2]) => cluster.offsets(topic, [0, 1], where, true);
        expect([...(await at('earliest'))].sort()).toEqual([
          [0, 0n],
          [1, 0n],
        ]);
        expect((await at('latest')).get(0)).toBe(3n);
        expect([...(await at({ timestamp: 1005 }))].sort()).toEqual([
          [0, 1n],
          [1, 0n],
        ]);
        expect((await at({ timestamp: 9_000_000_000_000 })).get(0)).toBe(3n);
        await producer.close();
      });

      it('keeps those of a group', async () => {
        const [topic, group] = [await freshTopic(cluster, 2), `g-${randomUUID()}`];
        expect([...(await cluster.groupOffsets(group, topic))]).toEqual([]);
        await cluster.commitGroupOffsets(group, topic, new Map([[1, 7n]]));
        expect([...(await cluster.groupOffsets(group, topic))]).toEqual([[1, 7n]]);
      });

      it('of a topic that is not there says so', async () => {
        const hasty = await connect(client, await brokers(), { timeoutMs: 300 });
        expect(await codeThrown(hasty.offsets(`none-${randomUUID()}`, [0], 'latest', true))).toBe('KAFKA_TOPIC_MISSING');
        await hasty.close();
      });
    });

    describe('reading', () => {
      it('gives records as they were written, with key, headers, time and offset', async () => {
        const topic = await freshTopic(cluster);
        const producer = await cluster.producer({});
        const headers = { kind: Buffer.from('a'), empty: Buffer.alloc(0) };
        await producer.send([
          record(topic, 0, 'one', { key: Buffer.from('k'), headers, timestamp: 5 }),
          record(topic, 0, null, { key: Buffer.from([0, 255]), timestamp: 3 }),
        ]);
        const { records, next, highWatermark, lastStable } = await fetchOne(cluster, { topic, partition: 0, offset: 0n });
        expect(records).toEqual([
          { offset: 0n, timestamp: 5, key: Buffer.from('k'), value: Buffer.from('one'), headers },
          { offset: 1n, timestamp: 3, key: Buffer.from([0, 255]), value: null, headers: {} },
        ]);
        expect([next, highWatermark, lastStable]).toEqual([2n, 2n, 2n]);
        await producer.close();
      });

      it('begins at the wanted offset, also in the middle of a batch', async () => {
        const topic = await freshTopic(cluster);
        const producer = await cluster.producer({});
        await producer.send([...'abcdef'].map((value) => record(topic, 0, value)));
        const { records, next } = await fetchOne(cluster, { topic, partition: 0, offset: 4n });
        expect(records.map(({ offset, value }) => [offset, String(value)])).toEqual([
          [4n, 'e'],
          [5n, 'f'],
        ]);
        expect(next).toBe(6n);
        await producer.close();
      });

      it('of several partitions gives each its own, and says of each by itself what is wrong', async () => {
        const topic = await freshTopic(cluster, 2);
        const producer = await cluster.producer({});
        await producer.send([record(topic, 0, 'zero'), record(topic, 1, 'one')]);
        const wanted = [
          { topic, partition: 0, offset: 0n },
          { topic, partition: 1, offset: 99n },
          { topic, partition: 7, offset: 0n },
          { topic: `none-${randomUUID()}`, partition: 0, offset: 0n },
        ];
        const fetched = await cluster.fetch(await leaderOf(cluster, topic), wanted, FETCH);
        expect(fetched.map(({ problem }) => problem?.kind)).toEqual([undefined, 'out of range', 'gone', 'gone']);
        expect(fetched[1]!.problem!.error).toMatchObject({ code: 'KAFKA_OFFSET_LOST' });
        expect(fetched[2]!.problem!.error).toMatchObject({ code: 'KAFKA_TOPIC_MISSING' });
        expect(String(fetched[0]!.records[0]!.value)).toBe('zero');
        await producer.close();
      });

      it('of another topic that has the name by now gives nothing', async () => {
        const topic = await freshTopic(cluster);
        const producer = await cluster.producer({});
        await producer.send([record(topic, 0, 'x')]);
        const right = (await cluster.metadata([topic])).get(topic)!.id!;
        const other = randomUUID().replaceAll('-', '');
        expect((await fetchOne(cluster, { topic, partition: 0, offset: 0n, id: right })).records).toHaveLength(1);
        const { records, problem } = await fetchOne(cluster, { topic, partition: 0, offset: 0n, id: other });
        expect([records.length, problem?.kind]).toEqual([0, 'gone']);
        await producer.close();
      });

      it('that waits for records holds back nothing else', async () => {
        const topic = await freshTopic(cluster);
        const leader = await leaderOf(cluster, topic);
        // Its leader may be named before it has heard of that.
        while ((await fetchOne(cluster, { topic, partition: 0, offset: 0n }, { maxWaitMs: 1 })).problem !== undefined);
        const done: string[] = [];
        const waiting = cluster.fetch(leader, [{ topic, partition: 0, offset: 0n }], { ...FETCH, maxWaitMs: 20_000 }).then((fetched) => {
          done.push('fetch');
          return fetched;
        });
        const producer = await cluster.producer({});
        await cluster.offsets(topic, [0], 'latest', true);
        done.push('offsets');
        await producer.send([record(topic, 0, 'x')]);
        expect((await waiting)[0]!.records).toHaveLength(1);
        expect(done).toEqual(['offsets', 'fetch']);
        await producer.close();
      });
    });

    describe('writing', () => {
      it('keeps the order of each partition through many sends that nobody waits for', async () => {
        const topic = await freshTopic(cluster, 3);
        const producer = await cluster.producer({});
        const sends: Promise<void>[] = [];
        for (let i = 0; i < 300; i++) {
          sends.push(producer.send([record(topic, i % 3, `${i}`)]));
          if (i % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
        }
        await Promise.all(sends);
        for (const partition of [0, 1, 2]) {
          const expected = Array.from({ length: 100 }, (_, i) => `${i * 3 + partition}`);
          expect(await valuesFrom(cluster, topic, 0n, true, partition)).toEqual(expected);
        }
        await producer.close();
      });

      it('splits what is more than a request takes', async () => {
        const topic = await freshTopic(cluster);
        const producer = await cluster.producer({ requestBytes: 2000 });
        const values = Array.from({ length: 50 }, (_, i) => `${i}`.padStart(200, '.'));
        await producer.send(values.map((value) => record(topic, 0, value)));
        expect(await valuesFrom(cluster, topic)).toEqual(values);
        await producer.close();
      });

      it('of a record that the topic does not take fails, and everything behind it', async () => {
        const topic = await freshTopic(cluster, 1, { 'max.message.bytes': '1000' });
        const producer = await cluster.producer({});
        await expect(producer.send([record(topic, 0, 'x'.repeat(5000))])).rejects.toMatchObject({ code: 'KAFKA_RECORD_TOO_LARGE', retryable: false });
        expect(await codeThrown(producer.send([record(topic, 0, 'x')]))).toBe('KAFKA_RECORD_TOO_LARGE');
        await producer.close();
      });

      it.each(COMPRESSIONS)('compresses with %s, and reads it', async (compression) => {
        const topic = await freshTopic(cluster);
        const producer = await cluster.producer({ compression });
        const values = Array.from({ length: 200 }, (_, i) => `value ${i % 10} and again value ${i}`);
        await producer.send(values.map((value) => record(topic, 0, value)));
        expect(await valuesFrom(cluster, topic)).toEqual(values);
        await producer.close();
      });
    });

    describe('in a transaction', () => {
      const options = (timeoutMs = 10_000) => ({ transactionalId: `tx-${randomUUID()}`, timeoutMs });

      it('writes all or nothing, again and again, and readers pass the gaps', async () => {
        const topic = await freshTopic(cluster, 2);
        const producer = await cluster.transactionalProducer(options());
        await producer.fence();
        for (let i = 0; i < 3; i++) await producer.commit([record(topic, 0, `a${i}`), record(topic, 1, `b${i}`)]);
        expect(await valuesFrom(cluster, topic)).toEqual(['a0', 'a1', 'a2']);
        expect(await valuesFrom(cluster, topic, 0n, true, 1)).toEqual(['b0', 'b1', 'b2']);
        // Three records, and the end of each transaction.
        expect((await cluster.offsets(topic, [0], 'latest', true)).get(0)).toBe(6n);
        await producer.close();
      });

      it('shows nothing to who reads what is committed, before it is', async () => {
        const topic = await freshTopic(cluster);
        const producer = await cluster.transactionalProducer(options());
        await producer.fence();
        let before: unknown;
        await producer.commit([record(topic, 0, 'x')], async () => {
          const { records, highWatermark, lastStable } = await fetchOne(cluster, { topic, partition: 0, offset: 0n });
          const stable = (await cluster.offsets(topic, [0], 'stable', false)).get(0);
          const all = await valuesFrom(cluster, topic, 0n, false);
          before = [records.length, highWatermark, lastStable, stable, all];
        });
        expect(before).toEqual([0, 1n, 0n, 0n, ['x']]);
        expect(await valuesFrom(cluster, topic)).toEqual(['x']);
        await producer.close();
      });

      it('that was aborted leaves nothing to who reads what is committed', async () => {
        const topic = await freshTopic(cluster);
        const producer = await cluster.transactionalProducer(options());
        await producer.fence();
        const aborted = producer.commit([record(topic, 0, 'no')], () => Promise.reject(new Error('stopped')));
        await expect(aborted).rejects.toThrow('stopped');
        expect(await codeThrown(producer.commit([record(topic, 0, 'without a fence')]))).toBe('KAFKA_FAILED');
        await producer.fence();
        await producer.commit([record(topic, 0, 'yes')]);
        expect(await valuesFrom(cluster, topic)).toEqual(['yes']);
        expect(await valuesFrom(cluster, topic, 0n, false)).toEqual(['no', 'yes']);
        await producer.close();
      });

      it('fences who had its id before, also with records stored and not committed', async () => {
        const topic = await freshTopic(cluster);
        const id = options();
        const zombie = await cluster.transactionalProducer(id);
        await zombie.fence();
        await zombie.commit([record(topic, 0, 'before')]);
        const newer = await cluster.transactionalProducer(id);
        const late = zombie.commit([record(topic, 0, 'zombie')], () => newer.fence());
        await expect(late).rejects.toMatchObject({ code: 'KAFKA_FENCED' });
        await newer.commit([record(topic, 0, 'newer')]);
        expect(await codeThrown(zombie.commit([record(topic, 0, 'again')]))).toBe('KAFKA_FAILED');
        expect(await valuesFrom(cluster, topic)).toEqual(['before', 'newer']);
        await Promise.all([zombie.close(), newer.close()]);
      });

      it('that is open for too long is lost, and after a fence goes on', async () => {
        const topic = await freshTopic(cluster);
        const producer = await cluster.transactionalProducer(options(200));
        await producer.fence();
        // The broker has given it up when what is committed goes past it.
        const slow = producer.commit([record(topic, 0, 'late')], async () => {
          while ((await cluster.offsets(topic, [0], 'stable', true)).get(0) === 0n) await new Promise((resolve) => setTimeout(resolve, 50));
        });
        expect(await codeThrown(slow)).toBe('KAFKA_FENCED');
        await producer.fence();
        await producer.commit([record(topic, 0, 'next')]);
        expect(await valuesFrom(cluster, topic)).toEqual(['next']);
        await producer.close();
      });

      it('longer than brokers grant is refused', async () => {
        const producer = await cluster.transactionalProducer(options(2_000_000_000));
        expect(await codeThrown(producer.fence())).toBe('KAFKA_REFUSED');
        await producer.close();
      });
    });

    it('closed with a fetch and a send under way ends both, and leaves no socket', async () => {
      const own = await connect(client, await brokers());
      const topic = await freshTopic(own);
      const producer = await own.producer({});
      await producer.send([record(topic, 0, 'x')]);
      const waiting = own.fetch(await leaderOf(own, topic), [{ topic, partition: 0, offset: 1n }], { ...FETCH, maxWaitMs: 60_000 });
      const sending = producer.send([record(topic, 0, 'y')]);
      const both = Promise.all([codeThrown(waiting), codeThrown(sending)]);
      await own.close();
      expect(await both).toEqual(['KAFKA_CLOSED', 'KAFKA_CLOSED']);
      expect(await codeThrown(own.metadata([topic]))).toBe('KAFKA_CLOSED');
    });
  });
}
