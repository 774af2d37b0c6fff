// A record of a Kafka sink in the form that checkpoints keep, and as the client takes it.
//
// Encoded when it arrives (a record that cannot be is its own error, with its own policy), placed when it is sent: the partition of a key is looked up then, so that a
// topic that has grown meanwhile is used. Only a `partitioner` of the user's, which needs the value, is asked on arrival; where the topic is not known yet, since it
// is the first record for it, the value goes along.
//
// Invariants:
//  R1  A row is an array of plain data and bytes; what is missing at its end is left out.
//  R2  What brokers would refuse is refused on arrival, where the record has its policy: at its commit nothing could be done any more. Of a topic that is met for the
//      first time rows wait in `met`, and are looked at before a checkpoint may have them.

import { MillraceError } from '../../errors.ts';
import type { Format } from '../formats.ts';
import type { OutgoingRecord } from './client.ts';
import type { Codec } from './compression.ts';
import { partitionOfKey, Sticky } from './partitioner.ts';
import { encodeBatch, bytesOf as recordBytes } from './record-batch.ts';
import type { TopicLimits, Topics } from './topics.ts';

/** Timestamp −1: none. `raw`: the value itself, for a partitioner that could not be asked. */
export type KafkaRow = readonly [
  value: Uint8Array | null,
  key: string | Uint8Array | null,
  timestamp: number,
  partition?: number | null,
  topic?: string | null,
  headers?: readonly (string | Uint8Array)[] | null,
  raw?: unknown,
];

export interface RowOptions<T> {
  readonly topic: string | ((value: T) => string);
  readonly key: ((value: T) => string | Uint8Array | null) | undefined;
  readonly headers: ((value: T) => Record<string, string | Uint8Array>) | undefined;
  readonly tombstone: ((value: T) => boolean) | undefined;
  readonly format: Format<T>;
  readonly partitioner: ((value: T, partitions: number) => number) | undefined;
  /** Compressed, a record may fit that looks too large. */
  readonly codec: Codec;
}

/** A row for a topic that was not known when it arrived. */
interface Met<T> {
  readonly topic: string;
  readonly row: KafkaRow;
  readonly value: T;
}

/** Of the record batch and of the record's own fields, generously. */
const OVERHEAD = 100;

export class Rows<T> {
  readonly #options: RowOptions<T>;
  readonly #topics: Topics;
  readonly #uid: string;
  readonly #sticky: Sticky;
  readonly #now: () => number;
  /** R2. */
  #met: Met<T>[] = [];

  constructor(options: RowOptions<T>, topics: Topics, facts: { readonly uid: string; readonly writer: number; readonly now: () => number }) {
    const { uid, writer, now } = facts;
    this.#now = now;
    this.#options = options;
    this.#topics = topics;
    this.#uid = uid;
    this.#sticky = new Sticky(writer);
  }

  encode(value: T, timestamp: number): KafkaRow {
    const { topic, key, headers, tombstone, format, partitioner } = this.#options;
    const at = timestamp >= 0 && timestamp < Number.POSITIVE_INFINITY ? Math.floor(timestamp) : -1;
    const keyed = key === undefined ? null : this.#checkedKey(key(value));
    const gone = tombstone?.(value) === true;
    if (gone && keyed === null) throw this.#unencodable('A tombstone needs a key: it says of which there is no value any more');
    const bytes = gone ? null : format.encode(value);
    const name = typeof topic === 'string' ? topic : this.#checkedTopic(topic(value));
    const known = this.#topics.get(name);
    const pairs = headers === undefined ? null : this.#pairs(headers(value));
    let row: KafkaRow;
    const to = typeof topic === 'string' ? null : name;
    if (partitioner === undefined) {
      row = pairs !== null ? [bytes, keyed, at, null, to, pairs] : to === null ? [bytes, keyed, at] : [bytes, keyed, at, null, to];
    } else if (known === undefined) row = [bytes, keyed, at, null, to, pairs, value];
    else row = [bytes, keyed, at, this.#partition(name, partitioner(value, known.partitions), known.partitions), to, pairs];
    if (known === undefined) this.#met.push({ topic: name, row, value });
    else this.#accept(name, known, row);
    return row;
  }

  /** Names of topics that were met for the first time since the last `check`. */
  get met(): ReadonlySet<string> {
    return new Set(this.#met.map(({ topic }) => topic));
  }

  get meeting(): boolean {
    return this.#met.length > 0;
  }

  /** R2, once the topics are known. Throws what `encode` would have thrown, worth a restart: then they are known on arrival. */
  check(): void {
    const { partitioner } = this.#options;
    const left: Met<T>[] = [];
    for (const met of this.#met) {
      const { topic, row, value } = met;
      const known = this.#topics.get(topic);
      if (known === undefined) {
        left.push(met);
        continue;
      }
      try {
        this.#accept(topic, known, row);
        if (partitioner !== undefined) this.#partition(topic, partitioner(value, known.partitions), known.partitions);
      } catch (error) {
        if (!(error instanceof MillraceError)) throw error;
        throw new MillraceError(error.code, error.sentence, { todo: error.todo!, uid: this.#uid, cause: error, retryable: true });
      }
    }
    this.#met = left;
  }

  topicOf(row: KafkaRow): string {
    // Only a topic that is the same for all is left out.
    return row[4] ?? (this.#options.topic as string);
  }

  knows(row: KafkaRow): boolean {
    return this.#topics.get(this.topicOf(row)) !== undefined;
  }

  /** Its topic is known by now. */
  outgoing(row: KafkaRow, now: number): OutgoingRecord {
    const [value, keyed, , placed] = row;
    const topic = this.topicOf(row);
    const { partitions } = this.#topics.get(topic)!;
    const key = typeof keyed === 'string' ? Buffer.from(keyed) : keyed;
    let partition: number;
    if (placed !== undefined && placed !== null) partition = this.#partition(topic, placed, partitions);
    else if (row.length > 6) partition = this.#partition(topic, this.#options.partitioner!(row[6] as T, partitions), partitions);
    else if (key === null) partition = this.#sticky.partition(topic, partitions, value?.byteLength ?? 0);
    else partition = partitionOfKey(key, partitions);
    return asRecord(row, topic, partition, now);
  }

  #accept(topic: string, { maxBytes, beforeMs, afterMs }: TopicLimits, row: KafkaRow): void {
    const bytes = bytesOf(row);
    if (maxBytes !== undefined && bytes > maxBytes && this.#packedBytes(topic, row, bytes) > maxBytes) {
      throw new MillraceError('KAFKA_RECORD_TOO_LARGE', `A record of ${bytes} bytes does not fit into the topic '${topic}', which takes ${maxBytes}.`, {
        todo: "Raise the topic's max.message.bytes, or make the record smaller.",
        uid: this.#uid,
      });
    }
    const at = row[2];
    if (at < 0 || (beforeMs === undefined && afterMs === undefined)) return;
    const ahead = at - this.#now();
    if (afterMs !== undefined && ahead > afterMs) throw this.#untimely(topic, at, `${ahead} ms ahead of now`, 'after', afterMs);
    if (beforeMs !== undefined && -ahead > beforeMs) throw this.#untimely(topic, at, `${-ahead} ms ago`, 'before', beforeMs);
  }

  /** In a batch by itself, as it goes out where it is large. */
  #packedBytes(topic: string, row: KafkaRow, bytes: number): number {
    const { codec } = this.#options;
    if (codec === 0) return bytes;
    const record = asRecord(row, topic, 0, 0);
    return encodeBatch([record], recordBytes(record), { producerId: 0n, epoch: 0, sequence: 0, transactional: true, codec }).length;
  }

  #untimely(topic: string, at: number, where: string, side: 'before' | 'after', limit: number): MillraceError {
    return new MillraceError('KAFKA_TIMESTAMP', `The time of a record is ${new Date(at).toISOString()}, ${where}; the topic '${topic}' takes ${limit} ms.`, {
      todo: `Raise message.timestamp.${side}.max.ms of the topic, or set its message.timestamp.type to LogAppendTime.`,
      uid: this.#uid,
    });
  }

  #partition(topic: string, partition: unknown, partitions: number): number {
    if (Number.isInteger(partition) && (partition as number) >= 0 && (partition as number) < partitions) return partition as number;
    throw new MillraceError('PARTITION_INVALID', `${String(partition)} is no partition of the topic '${topic}', which has ${partitions}.`, {
      todo: 'Return a whole number from 0 to below the number of partitions; was the topic made anew with fewer?',
      uid: this.#uid,
    });
  }

  #checkedKey(key: unknown): string | Uint8Array | null {
    if (typeof key === 'string' || key instanceof Uint8Array) return key;
    if (key === null || key === undefined) return null;
    throw this.#unencodable(
      `The key of a Kafka record is ${typeof key === 'object' ? 'an object' : `the ${typeof key} ${String(key)}`}; it is a string, bytes or null`,
    );
  }

  #checkedTopic(topic: unknown): string {
    if (typeof topic === 'string' && topic !== '') return topic;
    throw this.#unencodable(`${JSON.stringify(topic)} is no topic`);
  }

  #pairs(headers: Record<string, string | Uint8Array>): (string | Uint8Array)[] | null {
    const pairs: (string | Uint8Array)[] = [];
    for (const name of Object.keys(headers)) {
      const value: unknown = headers[name];
      if (typeof value !== 'string' && !(value instanceof Uint8Array))
        throw this.#unencodable(`The header '${name}' of a Kafka record is neither a string nor bytes`);
      pairs.push(name, value);
    }
    return pairs.length === 0 ? null : pairs;
  }

  #unencodable(said: string): MillraceError {
    return new MillraceError('RECORD_UNENCODABLE', `${said}.`, { uid: this.#uid });
  }
}

/** What it takes in a request, about. */
export function bytesOf(row: KafkaRow): number {
  return sizeOf(row[0], row[1], row[5] ?? null);
}

function asRecord([value, keyed, timestamp, , , pairs]: KafkaRow, topic: string, partition: number, now: number): OutgoingRecord {
  const key = typeof keyed === 'string' ? Buffer.from(keyed) : keyed;
  const headers = pairs === undefined || pairs === null ? undefined : headersOf(pairs);
  return { topic, partition, key, value, headers, timestamp: timestamp < 0 ? now : timestamp };
}

function sizeOf(value: Uint8Array | null, key: string | Uint8Array | null, pairs: readonly (string | Uint8Array)[] | null): number {
  let bytes = OVERHEAD + (value?.byteLength ?? 0) + lengthOf(key);
  if (pairs !== null) for (const part of pairs) bytes += lengthOf(part) + 2;
  return bytes;
}

function lengthOf(content: string | Uint8Array | null): number {
  if (content === null) return 0;
  return typeof content === 'string' ? Buffer.byteLength(content) : content.byteLength;
}

function headersOf(pairs: readonly (string | Uint8Array)[]): Record<string, Uint8Array> {
  const headers: Record<string, Uint8Array> = {};
  for (let i = 0; i < pairs.length; i += 2) {
    const value = pairs[i + 1]!;
    headers[pairs[i] as string] = typeof value === 'string' ? Buffer.from(value) : value;
  }
  return headers;
}
