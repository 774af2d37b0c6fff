// A record of a Kafka sink in the form that checkpoints keep, and as the client takes it.
//
// Encoded when it arrives (a record that cannot be is its own error, with its own policy), placed when it is sent: the partition of a key is looked up then, so that a
// topic that has grown meanwhile is used. Only a `partitioner` of the user's, which needs the value, is asked on arrival; where the topic is not known yet, since it
// is the first record for it, the value goes along.
//
// Invariant: a row is an array of plain data and bytes; what is missing at its end is left out.

import { MillraceError } from '../../errors.ts';
import type { Format } from '../formats.ts';
import type { OutgoingRecord } from './client.ts';
import { partitionOfKey, Sticky } from './partitioner.ts';
import type { Topics } from './topics.ts';

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
  readonly compressed: boolean;
}

/** Of the record batch and of the record's own fields, generously. */
const OVERHEAD = 100;

export class Rows<T> {
  readonly #options: RowOptions<T>;
  readonly #topics: Topics;
  readonly #uid: string;
  readonly #sticky: Sticky;
  /** Seen and not known when the topics are asked for next. */
  readonly unknown = new Set<string>();

  constructor(options: RowOptions<T>, topics: Topics, uid: string, writer: number) {
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
    if (known === undefined) this.unknown.add(name);
    const pairs = headers === undefined ? null : this.#pairs(headers(value));
    this.#fits(name, known?.maxBytes, sizeOf(bytes, keyed, pairs));
    if (typeof topic === 'string' && pairs === null && partitioner === undefined) return [bytes, keyed, at];
    const to = typeof topic === 'string' ? null : name;
    if (partitioner === undefined) return pairs === null ? [bytes, keyed, at, null, to] : [bytes, keyed, at, null, to, pairs];
    if (known === undefined) return [bytes, keyed, at, null, to, pairs, value];
    return [bytes, keyed, at, this.#partition(name, partitioner(value, known.partitions), known.partitions), to, pairs];
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
    const [value, keyed, timestamp, placed, , pairs] = row;
    const topic = this.topicOf(row);
    const { partitions } = this.#topics.get(topic)!;
    const key = typeof keyed === 'string' ? Buffer.from(keyed) : keyed;
    let partition: number;
    if (placed !== undefined && placed !== null) partition = this.#partition(topic, placed, partitions);
    else if (row.length > 6) partition = this.#partition(topic, this.#options.partitioner!(row[6] as T, partitions), partitions);
    else if (key === null) partition = this.#sticky.partition(topic, partitions, value?.byteLength ?? 0);
    else partition = partitionOfKey(key, partitions);
    const headers = pairs === undefined || pairs === null ? undefined : headersOf(pairs);
    return { topic, partition, key, value, headers, timestamp: timestamp < 0 ? now : timestamp };
  }

  #fits(topic: string, maxBytes: number | undefined, bytes: number): void {
    if (maxBytes === undefined || this.#options.compressed || bytes <= maxBytes) return;
    throw new MillraceError('KAFKA_RECORD_TOO_LARGE', `A record of ${bytes} bytes does not fit into the topic '${topic}', which takes ${maxBytes}.`, {
      todo: "Raise the topic's max.message.bytes, or make the record smaller.",
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
