import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { decodeMarker } from '../../../src/connectors/kafka/marker.ts';
import { partitionOfKey } from '../../../src/connectors/kafka/partitioner.ts';
import { type KafkaSinkOptions, kafkaSink } from '../../../src/connectors/kafka/sink.ts';
import type { Sink } from '../../../src/graph/sink.ts';
import { decode, encode } from '../../../state-backends/index.ts';
import { rejection } from '../../protocols/lab.ts';
import { MemoryKafka } from './memory-cluster.ts';
import { commit, contextOf, exactlyOnce } from './sinks.ts';

const MARKERS = 'millrace-markers';

function markersIn(kafka: MemoryKafka): unknown[] {
  return kafka.committed(MARKERS).map(({ key, value }) => [String(key), decodeMarker(value)]);
}

describe('a Kafka sink that commits exactly once', () => {
  it('writes a checkpoint together with its marker, which is there from the first open on', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1);
    const writer = await exactlyOnce<string>(kafka.client()).open(contextOf());
    expect(await writer.lastCommitted()).toBe(0);
    await commit(writer, 3, ['a', 'b']);
    expect(kafka.values('out')).toEqual(['"a"', '"b"']);
    expect(await writer.lastCommitted()).toBe(3);
    expect(markersIn(kafka)).toEqual([
      ['out/one/0', { checkpoint: 0, chunk: 0, records: 0, whole: 0 }],
      ['out/one/0', { checkpoint: 3, chunk: 1, records: 2, whole: 3 }],
    ]);
    await writer.close();
  });

  it('makes the marker topic compacted, and nothing else', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1);
    const writer = await exactlyOnce(kafka.client()).open(contextOf());
    expect(kafka.topics.get(MARKERS)!.configs.get('cleanup.policy')).toBe('compact');
    await writer.close();
    expect([...kafka.topics.keys()]).toEqual(['out', MARKERS]);
  });

  it('cuts a checkpoint into transactions, and goes on behind the last one that was committed, wherever the next attempt cuts', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1);
    const values = Array.from({ length: 10 }, (_, i) => `record ${i}`);
    const first = await exactlyOnce<string>(kafka.client(), { commitBytes: 250 }, 'sink.kafka.send=fail@3').open(contextOf());
    const data = first.snapshot!();
    const records = values.map((value) => first.encode!(value, Number.NaN));
    await expect(first.commit(7, records)).rejects.toMatchObject({ code: 'FAULT_INJECTED' });
    expect(kafka.values('out')).toHaveLength(4);
    await first.close();
    const second = await exactlyOnce<string>(kafka.client(), { commitBytes: 600 }).open(contextOf({ attempt: 2, restored: decode(encode(data)) }));
    expect([await second.lastCommitted(), await second.lastBegun!()]).toEqual([0, 7]);
    await second.commit(7, records);
    expect(kafka.values('out')).toEqual(values.map((value) => JSON.stringify(value)));
    expect([await second.lastCommitted(), await second.lastBegun!()]).toEqual([7, 7]);
    await second.close();
  });

  it('has no use for a writer after a commit that failed, since nobody knows what became of it', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1);
    const writer = await exactlyOnce<string>(kafka.client(), {}, 'sink.kafka.committed=fail').open(contextOf());
    await expect(commit(writer, 1, ['a'])).rejects.toMatchObject({ code: 'FAULT_INJECTED' });
    await expect(commit(writer, 1, ['a'])).rejects.toMatchObject({ code: 'SINK_FAILED' });
    await expect(writer.lastCommitted()).rejects.toMatchObject({ code: 'SINK_FAILED' });
    await writer.close();
    expect(kafka.values('out')).toEqual(['"a"']);
  });

  it('refuses a checkpoint that it has committed', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1);
    const writer = await exactlyOnce<string>(kafka.client()).open(contextOf());
    await commit(writer, 4, ['a']);
    await expect(commit(writer, 4, ['b'])).rejects.toMatchObject({ code: 'COMMIT_ID_REUSED' });
    await writer.close();
  });

  it('keeps what it encodes in arrays that a checkpoint can hold', async () => {
    const kafka = new MemoryKafka().createTopic('out', 4);
    const options: Partial<KafkaSinkOptions<{ id: string }>> = { key: ({ id }) => id, headers: ({ id }) => ({ id, raw: Buffer.from([0, 255]) }) };
    const writer = await exactlyOnce(kafka.client(), options).open(contextOf());
    const row = writer.encode!({ id: 'mill' }, 1234.5);
    await writer.commit(1, [decode(encode(row)) as typeof row]);
    const [record] = kafka.committed('out');
    expect([String(record!.key), String(record!.value), record!.timestamp]).toEqual(['mill', '{"id":"mill"}', 1234]);
    expect([String(record!.headers.id), [...record!.headers.raw!]]).toEqual(['mill', [0, 255]]);
    expect(kafka.partition('out', partitionOfKey(Buffer.from('mill'), 4)).entries).not.toHaveLength(0);
    await writer.close();
  });

  it('writes tombstones without a value, and refuses one without a key', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1);
    const options: Partial<KafkaSinkOptions<string>> = { key: (value) => (value === '' ? null : value), tombstone: () => true };
    const writer = await exactlyOnce(kafka.client(), options).open(contextOf());
    await commit(writer, 1, ['gone']);
    expect(kafka.committed('out').map(({ key, value }) => [String(key), value])).toEqual([['gone', null]]);
    expect(() => writer.encode!('', 0)).toThrow(expect.objectContaining({ code: 'RECORD_UNENCODABLE' }));
    await writer.close();
  });

  it('gives a record without a time the time at which it is sent', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1);
    const writer = await exactlyOnce<string>(kafka.client()).open(contextOf());
    const before = Date.now();
    await commit(writer, 1, ['a', 'b'], Number.NaN);
    for (const { timestamp } of kafka.committed('out')) expect(timestamp).toBeGreaterThanOrEqual(before);
    await writer.close();
  });

  it('uses the partitions of a topic that has grown', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1);
    const options: Partial<KafkaSinkOptions<number>> = { partitioner: (value, partitions) => value % partitions };
    const writer = await exactlyOnce(kafka.client(), options).open(contextOf());
    await commit(writer, 1, [0, 1, 2]);
    kafka.grow('out', 3);
    await commit(writer, 2, [3]);
    await commit(writer, 3, [0, 1, 2]);
    expect([0, 1, 2].map((partition) => kafka.partition('out', partition).entries.filter(({ control }) => !control).length)).toEqual([5, 1, 1]);
    await writer.close();
  });

  it('asks a partitioner for a topic that it meets first when the partitions are known', async () => {
    const kafka = new MemoryKafka().createTopic('even', 2).createTopic('odd', 5);
    const options: Partial<KafkaSinkOptions<number>> = {
      topic: (value) => (value % 2 === 0 ? 'even' : 'odd'),
      partitioner: (value, partitions) => value % partitions,
    };
    const writer = await exactlyOnce(kafka.client(), options).open(contextOf());
    await commit(writer, 1, [1, 2, 3, 4]);
    await commit(writer, 2, [5, 6, 8]);
    expect(kafka.committed('odd').map(({ value }) => Number(value))).toEqual([5, 1, 3]);
    expect(
      kafka
        .partition('odd', 3)
        .entries.filter(({ control }) => !control)
        .map(({ value }) => String(value)),
    ).toEqual(['3']);
    expect(kafka.values('even')).toEqual(['2', '4', '6', '8']);
    await writer.close();
  });

  it('refuses a partition that there is not, a key that is none, and a record that the topic does not take', async () => {
    const kafka = new MemoryKafka().createTopic('out', 2, { 'max.message.bytes': '2000' });
    const of = async (options: Partial<KafkaSinkOptions<unknown>>) => exactlyOnce(kafka.client(), options).open(contextOf());
    const placed = await of({ partitioner: () => 2 });
    expect(() => placed.encode!('a', 0)).toThrow(expect.objectContaining({ code: 'PARTITION_INVALID' }));
    const keyed = await of({ key: (value) => value as string });
    expect(() => keyed.encode!(12, 0)).toThrow(expect.objectContaining({ code: 'RECORD_UNENCODABLE' }));
    const large = await of({});
    expect(() => large.encode!('x'.repeat(3000), 0)).toThrow(/3102 bytes.*'out'.*2000/);
    for (const writer of [placed, keyed, large]) await writer.close();
  });

  it('refuses what a topic does not take that it meets for the first time before a checkpoint has it, worth a restart; from then on, on arrival', async () => {
    const kafka = new MemoryKafka().createTopic('small', 2, { 'max.message.bytes': '2000' });
    const large = exactlyOnce<string>(kafka.client(), { topic: () => 'small' });
    const placed = exactlyOnce<string>(kafka.client(), { topic: () => 'small', partitioner: () => 2 });
    for (const [sink, value, code] of [
      [large, 'x'.repeat(3000), 'KAFKA_RECORD_TOO_LARGE'],
      [placed, 'x', 'PARTITION_INVALID'],
    ] as const) {
      const first = await sink.open(contextOf({ job: code }));
      first.encode!(value, 0);
      expect(await rejection(first.checked!())).toMatchObject({ code, retryable: true });
      await first.close();
      const second = await sink.open(contextOf({ job: code, attempt: 2 }));
      expect(() => second.encode!(value, 0)).toThrow(expect.objectContaining({ code, retryable: false }));
      await second.checked!();
      await second.close();
    }
  });

  it('takes a record that fits when it is compressed, and refuses one that does not', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1, { 'max.message.bytes': '2000' });
    const writer = await exactlyOnce<string>(kafka.client(), { compression: 'gzip' }).open(contextOf());
    writer.encode!('x'.repeat(30_000), 0);
    const noise = randomBytes(3000).toString('base64');
    expect(() => writer.encode!(noise, 0)).toThrow(expect.objectContaining({ code: 'KAFKA_RECORD_TOO_LARGE' }));
    await writer.close();
  });

  it('refuses a time that the topic does not take, unless the broker gives its own', async () => {
    const hours = 3_600_000;
    const limits = { 'message.timestamp.after.max.ms': String(hours), 'message.timestamp.before.max.ms': '9223372036854775807' };
    const kafka = new MemoryKafka()
      .createTopic('ahead', 1, limits)
      .createTopic('behind', 1, { 'message.timestamp.difference.max.ms': String(24 * hours) })
      .createTopic('append', 1, { ...limits, 'message.timestamp.type': 'LogAppendTime' });
    const codes: unknown[] = [];
    for (const topic of ['ahead', 'behind', 'append']) {
      const writer = await exactlyOnce<string>(kafka.client(), { topic }).open(contextOf());
      for (const at of [Date.now() + 2 * hours, Date.now(), Date.now() - 30 * hours, Number.NaN]) {
        try {
          writer.encode!('a', at);
          codes.push('taken');
        } catch (error) {
          codes.push((error as { code: string }).code);
        }
      }
      await writer.close();
    }
    expect(codes).toEqual(['KAFKA_TIMESTAMP', 'taken', 'taken', 'taken', 'taken', 'taken', 'KAFKA_TIMESTAMP', 'taken', 'taken', 'taken', 'taken', 'taken']);
  });

  it('has nothing to say of a topic that is gone once nobody writes to it', async () => {
    const kafka = new MemoryKafka().createTopic('kept', 1).createTopic('dropped', 1);
    const writer = await exactlyOnce<string>(kafka.client(), { topic: (value) => value }).open(contextOf());
    await commit(writer, 1, ['kept', 'dropped']);
    kafka.topics.delete('dropped');
    await commit(writer, 2, ['kept']);
    await expect(commit(writer, 3, ['dropped'])).rejects.toMatchObject({ code: 'KAFKA_TOPIC_MISSING' });
    await writer.close();
  });

  it('names a topic that does not exist', async () => {
    const kafka = new MemoryKafka().createTopic('other', 1);
    await expect(exactlyOnce(kafka.client()).open(contextOf())).rejects.toMatchObject({ code: 'KAFKA_TOPIC_MISSING', uid: 'out' });
    const several = await exactlyOnce<string>(kafka.client(), { topic: (value) => value }).open(contextOf());
    await commit(several, 1, ['other']);
    await expect(commit(several, 2, ['nowhere'])).rejects.toMatchObject({ code: 'KAFKA_TOPIC_MISSING' });
    await several.close();
  });

  it('refuses a marker topic whose records expire, and a timeout that the broker does not grant', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1).createTopic(MARKERS, 1, { 'cleanup.policy': 'compact,delete' });
    expect((await rejection(exactlyOnce(kafka.client()).open(contextOf()))).code).toBe('KAFKA_MARKER_TOPIC');
    kafka.brokerConfigs.set('transaction.max.timeout.ms', '5000');
    const asking = exactlyOnce(kafka.client(), { markerTopic: 'mine', transactionTimeout: 6000 }).open(contextOf());
    expect((await rejection(asking)).message).toMatch(/6000 ms.*5000/);
    await (await exactlyOnce(kafka.client(), { markerTopic: 'mine' }).open(contextOf())).close();
  });

  it('refuses options that make no sense when it is made', () => {
    const client = () => new MemoryKafka().client();
    const wrong: Record<string, unknown>[] = [
      { brokers: [] },
      { topic: '' },
      { commitBytes: 0 },
      { guarantee: 'perhaps' },
      { onMarkerLost: 'ask' },
      { markerTopic: 'out' },
    ];
    for (const options of wrong) {
      const made = () => kafkaSink({ brokers: ['b:1'], topic: 'out', ...options } as KafkaSinkOptions<unknown>, { client });
      expect(made, JSON.stringify(options)).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
    }
    expect(() => kafkaSink({ brokers: ['b:1'], topic: 'out', client: { kind: 'other' } }, { client })).toThrow(
      expect.objectContaining({ code: 'OPTION_INVALID' }),
    );
  });
});

describe('a Kafka sink that writes at least once', () => {
  it('has written what it was given when write resolves, without markers', async () => {
    const kafka = new MemoryKafka().createTopic('out', 2);
    const sink = kafkaSink<string>({ brokers: ['b:1'], topic: 'out', guarantee: 'at-least-once', key: (value) => value }, { client: () => kafka.client() });
    const writer = await (sink as Sink<string>).open(contextOf());
    await writer.write(['a', 'b'], [1, Number.NaN]);
    await writer.flush();
    expect(kafka.values('out').sort()).toEqual(['"a"', '"b"']);
    expect([...kafka.topics.keys()]).toEqual(['out']);
    await writer.close();
  });

  it('fails with what the broker says', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1);
    const sink = kafkaSink<string>({ brokers: ['b:1'], topic: (value) => value, guarantee: 'at-least-once' }, { client: () => kafka.client() });
    const writer = await (sink as Sink<string>).open(contextOf());
    await expect(writer.write(['nowhere'], [1])).rejects.toMatchObject({ code: 'KAFKA_TOPIC_MISSING' });
    await writer.close();
  });
});
