// The fetch: one request for partitions that a broker leads, and what its answer says of each.
//
// Invariant: with a topic's id a topic that was created again under the name is `gone`; asked by its name alone it would be read on as if it were the same.

import type { FetchedPartition, FetchOptions, WantedPartition } from './client.ts';
import { answered } from './errors.ts';
import { type AbortedTransaction, decodeBatches } from './record-batch.ts';
import { byTopic, type Call } from './requests.ts';
import { WireReader, WireWriter } from './wire.ts';

export interface FetchAnswer {
  readonly error: number;
  readonly partitions: readonly PartitionOfAnswer[];
}

export interface PartitionOfAnswer {
  /** The name, or in a request by ids the id. */
  readonly topic: string;
  readonly partition: number;
  readonly error: number;
  readonly highWatermark: bigint;
  readonly lastStable: bigint;
  readonly aborted: readonly AbortedTransaction[];
  readonly batches: Buffer;
}

/** By the ids of all topics, or by their names. */
export function fetchCall(wanted: readonly WantedPartition[], ids: ReadonlyMap<string, string> | undefined, options: FetchOptions): Call<FetchAnswer> {
  const to = new WireWriter(256 + wanted.length * 48);
  to.int32(-1);
  to.int32(options.maxWaitMs);
  to.int32(options.minBytes);
  to.int32(Math.min(0x7fffffff, options.maxBytes * wanted.length));
  to.int8(options.committed ? 1 : 0);
  // Without a session: each request says all.
  to.int32(0);
  to.int32(-1);
  to.compactArray(byTopic(wanted), ([topic, partitions]) => {
    if (ids === undefined) to.compactString(topic);
    else to.uuid(ids.get(topic)!);
    to.compactArray(partitions, ({ partition, offset }) => {
      to.int32(partition);
      to.int32(-1);
      to.int64(offset);
      to.int32(-1);
      to.int64(-1n);
      to.int32(options.maxBytes);
      to.noTags();
    });
    to.noTags();
  });
  to.compactArray([], () => {});
  to.compactString('');
  to.noTags();
  return {
    apiKey: 1,
    name: 'Fetch',
    version: ids === undefined ? 12 : 13,
    flexible: true,
    body: to.done(),
    read: (answer) => readAnswer(new WireReader(answer), ids !== undefined),
  };
}

function readAnswer(from: WireReader, byId: boolean): FetchAnswer {
  from.int32();
  const error = from.int16();
  from.int32();
  const partitions = from
    .compactArray(() => {
      const topic = byId ? from.uuid() : from.compactString();
      const read = from.compactArray(() => {
        const partition = from.int32();
        const problem = from.int16();
        const highWatermark = from.int64();
        const lastStable = from.int64();
        from.int64();
        const aborted = from.compactArray(() => {
          const transaction = { producerId: from.int64(), firstOffset: from.int64() };
          from.skipTags();
          return transaction;
        });
        from.int32();
        const batches = from.compactBytes();
        from.skipTags();
        return { topic, partition, error: problem, highWatermark, lastStable, aborted, batches };
      });
      from.skipTags();
      return read;
    })
    .flat();
  return { error, partitions };
}

/** What the answer means for one of the wanted; undefined: it says nothing of it. */
export function fetched(wanted: WantedPartition, answer: PartitionOfAnswer | undefined): FetchedPartition {
  const { topic, partition, offset } = wanted;
  const place = `'${topic}' ${partition}`;
  const nothing = { topic, partition, records: [], next: offset };
  if (answer === undefined) {
    const error = answered(UNKNOWN_TOPIC_OR_PARTITION, `a fetch of ${place}`);
    return { ...nothing, highWatermark: -1n, lastStable: -1n, problem: { kind: 'gone', error } };
  }
  const { highWatermark, lastStable } = answer;
  if (answer.error !== 0) {
    const error = answered(answer.error, `a fetch of ${place} at offset ${offset}`);
    return { ...nothing, highWatermark, lastStable, problem: { kind: PROBLEMS[answer.error] ?? 'failed', error } };
  }
  try {
    const { records, next } = decodeBatches(answer.batches, offset, answer.aborted, place);
    return { topic, partition, records, next, highWatermark, lastStable, problem: undefined };
  } catch (error) {
    return { ...nothing, highWatermark, lastStable, problem: { kind: 'failed', error } };
  }
}

const UNKNOWN_TOPIC_OR_PARTITION = 3;

const PROBLEMS: Readonly<Record<number, NonNullable<FetchedPartition['problem']>['kind']>> = {
  1: 'out of range',
  3: 'gone',
  5: 'moved',
  6: 'moved',
  9: 'moved',
  56: 'moved',
  74: 'moved',
  75: 'moved',
  100: 'gone',
  103: 'gone',
};
