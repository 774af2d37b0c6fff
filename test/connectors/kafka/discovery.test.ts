import { describe, expect, it } from 'vitest';
import type { Cluster } from '../../../src/connectors/kafka/client.ts';
import { type KafkaSplit, look, missingTopics, ofSplitId, type Reading, splitId, startOf, unseen } from '../../../src/connectors/kafka/discovery.ts';
import { SILENT } from '../../../src/graph/context.ts';
import { ReadableKafka } from './readable-kafka.ts';

const connect = (kafka: ReadableKafka): Promise<Cluster> => kafka.connect({ brokers: ['memory'], clientId: 'test', timeoutMs: 1000, log: SILENT });
const reading = (given: Partial<Reading>): Reading => ({ topics: ['t'], from: 'earliest', until: undefined, groupId: undefined, policy: 'fail', ...given });
const places = (splits: readonly KafkaSplit[]) => splits.map(({ topic, partition, start, end }) => [`${topic}/${partition}`, start, end]);
const first = { seen: new Set<string>(), first: true };
const later = { seen: new Set<string>(), first: false };

function filled(): ReadableKafka {
  const kafka = new ReadableKafka().create('t', 2);
  for (let i = 0; i < 10; i++) kafka.append('t', 0, { value: String(i), timestamp: i * 100 });
  return kafka.append('t', 1, { value: 'a', timestamp: 450 });
}

describe('a first look', () => {
  it("at 'earliest' stores no offset: what retention takes before the first fetch is not lost by us", async () => {
    expect(places(await look(await connect(filled()), reading({}), first))).toEqual([
      ['t/0', undefined, undefined],
      ['t/1', undefined, undefined],
    ]);
  });

  it("at 'latest' stores the end as it is now, before transactions that are open", async () => {
    const kafka = filled();
    kafka.open('t', 0, 7n);
    expect(places(await look(await connect(kafka), reading({ from: 'latest' }), first))).toEqual([
      ['t/0', '7', undefined],
      ['t/1', '1', undefined],
    ]);
  });

  it('at a time stores its first record in each partition, and the end where there is none', async () => {
    expect(places(await look(await connect(filled()), reading({ from: { timestamp: 500 } }), first))).toEqual([
      ['t/0', '5', undefined],
      ['t/1', '1', undefined],
    ]);
  });

  it('at offsets begins at the earliest record of a partition that is not named', async () => {
    expect(places(await look(await connect(filled()), reading({ from: { offsets: { 0: '4' } } }), first))).toEqual([
      ['t/0', '4', undefined],
      ['t/1', undefined, undefined],
    ]);
    await expect(look(await connect(filled()), reading({ from: { offsets: { 5: '4' } } }), first)).rejects.toMatchObject({ code: 'OPTION_INVALID' });
  });

  it('at the offsets of a group begins at the earliest record where it has none, and fails where it has none at all', async () => {
    const cluster = await connect(filled());
    const group = reading({ from: 'group', groupId: 'g' });
    await expect(look(cluster, group, first)).rejects.toMatchObject({ code: 'KAFKA_OFFSET_LOST' });
    expect(places(await look(cluster, { ...group, policy: 'earliest' }, first)).map(([, start]) => start)).toEqual([undefined, undefined]);
    expect(places(await look(cluster, { ...group, policy: 'latest' }, first)).map(([, start]) => start)).toEqual(['10', '1']);
    await cluster.commitGroupOffsets('g', 't', new Map([[0, 3n]]));
    expect(places(await look(cluster, group, first)).map(([, start]) => start)).toEqual(['3', undefined]);
  });

  it('of a bounded read stores where it ends: the high watermark, since what was committed just now may still wait for its marker', async () => {
    const kafka = filled();
    kafka.open('t', 0, 7n);
    expect(places(await look(await connect(kafka), reading({ until: 'end' }), first)).map(([, , end]) => end)).toEqual(['10', '1']);
    expect(places(await look(await connect(kafka), reading({ until: { timestamp: 300 } }), first)).map(([, , end]) => end)).toEqual(['3', '0']);
  });

  it('up to offsets leaves out a partition that is not named', async () => {
    expect(places(await look(await connect(filled()), reading({ until: { offsets: { 1: '1' } } }), first))).toEqual([['t/1', undefined, '1']]);
  });

  it('of a pattern takes the topics that match', async () => {
    const kafka = new ReadableKafka().create('metrics-a', 1).create('metrics-b', 1).create('other', 1).create('millrace-markers', 1);
    const splits = await look(await connect(kafka), reading({ topics: /^metrics-/ }), first);
    expect(splits.map(splitId)).toEqual(['metrics-a/0', 'metrics-b/0']);
    expect(splits[0]!.id).not.toBe(splits[1]!.id);
  });

  it('of a pattern passes over the markers of sinks, which are read where they are named', async () => {
    const kafka = new ReadableKafka().create('a', 1).create('millrace-markers', 1);
    expect((await look(await connect(kafka), reading({ topics: /./ }), first)).map(splitId)).toEqual(['a/0']);
    expect((await look(await connect(kafka), reading({ topics: ['millrace-markers'] }), first)).map(splitId)).toEqual(['millrace-markers/0']);
  });
});

describe('a later look', () => {
  it('begins at the earliest record whatever `from` says', async () => {
    const kafka = filled();
    for (const from of ['latest', { timestamp: 500 }, { offsets: { 0: '4' } }] as const) {
      expect(places(await look(await connect(kafka), reading({ from }), later)).map(([, start]) => start)).toEqual([undefined, undefined]);
      expect(startOf(0, from, { first: false, asked: new Map([[0, 5n]]) })).toBeUndefined();
    }
  });

  it('passes over what was handed out', async () => {
    const found = await (await connect(filled())).metadata(['t']);
    expect([...unseen(found, new Set(['t/0'])).values()]).toEqual([[1]]);
    expect(unseen(found, new Set(['t/0', 't/1'])).size).toBe(0);
  });
});

it('the id of a split says which topic and partition it is', () => {
  expect(ofSplitId(splitId({ topic: 'a.b_c-d', partition: 12 }))).toEqual({ topic: 'a.b_c-d', partition: 12 });
});

it('a topic is missing where neither a split nor a restored one is of it; a pattern misses none', () => {
  expect(missingTopics(['a', 'b', 'c'], [{ topic: 'a', partition: 0 }], new Set(['b/0']))).toEqual(['c']);
  expect(missingTopics(/x/, [], new Set())).toEqual([]);
});
