// Brokers in memory that are read from, for tests of the source: topics are lists, brokers numbers, and a test makes them fail.
//
// What a test can do: append records with gaps, delete from the front, cut off the end, delete topics, move leaders, take brokers away, and see which requests came.
// What writes has a double of its own (memory-cluster.ts), with transactions instead of brokers.

import { randomUUID } from 'node:crypto';
import type {
  ClientSettings,
  Cluster,
  FetchedPartition,
  FetchedRecord,
  FetchOptions,
  KafkaAdapter,
  OffsetAt,
  TopicMetadata,
  WantedPartition,
} from '../../../src/connectors/kafka/client.ts';
import { MillraceError } from '../../../src/errors.ts';

interface Partition {
  leader: number;
  earliest: bigint;
  /** Behind the newest, gaps included. */
  next: bigint;
  /** Behind the newest whose transaction is decided. */
  stable: bigint;
  records: FetchedRecord[];
}

interface Topic {
  readonly id: string;
  readonly partitions: Partition[];
}

export interface Appended {
  readonly value: string | Uint8Array | null;
  readonly key?: string;
  readonly timestamp?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

const unwritten = async (): Promise<never> => {
  throw new Error('These brokers are read from only.');
};

export class ReadableKafka implements KafkaAdapter {
  readonly kind = 'readable';
  readonly #topics = new Map<string, Topic>();
  readonly #groups = new Map<string, Map<number, bigint>>();
  readonly #down = new Set<number>();
  readonly #waiting = new Set<() => void>();
  /** Of an answer about one partition, at most. */
  batchRecords = 1_000;
  /** Brokers do not know the ids of topics. */
  withoutIds = false;
  /** What every fetch came with. */
  readonly fetches: { readonly leader: number; readonly wanted: readonly WantedPartition[]; readonly options: FetchOptions }[] = [];
  /** Requests under way with each broker, and the most there were. */
  readonly underWay = new Map<number, number>();
  mostUnderWay = 0;
  clusters = 0;
  metadataAsked = 0;
  /** Thrown by the next metadata and offsets requests for as long as it is set. */
  unreachable: Error | undefined;

  create(topic: string, partitions: number, leader = 1): this {
    this.#topics.set(topic, {
      id: this.withoutIds ? '' : randomUUID(),
      partitions: Array.from({ length: partitions }, () => ({ leader, earliest: 0n, next: 0n, stable: 0n, records: [] })),
    });
    this.#changed();
    return this;
  }

  grow(topic: string, partitions: number): void {
    const of = this.#topics.get(topic)!;
    while (of.partitions.length < partitions) of.partitions.push({ leader: 1, earliest: 0n, next: 0n, stable: 0n, records: [] });
  }

  delete(topic: string): void {
    this.#topics.delete(topic);
    this.#changed();
  }

  append(topic: string, partition: number, ...records: (Appended | string)[]): this {
    const of = this.#of(topic, partition);
    for (const given of records) {
      const record = typeof given === 'string' ? { value: given } : given;
      const { value, key, timestamp = -1, headers = {} } = record;
      of.records.push({
        offset: of.next,
        timestamp,
        key: key === undefined ? null : Buffer.from(key),
        value: value === null ? null : Buffer.from(value),
        headers: Object.fromEntries(Object.entries(headers).map(([name, text]) => [name, Buffer.from(text)])),
      });
      of.next += 1n;
    }
    of.stable = of.next;
    this.#changed();
    return this;
  }

  /** Offsets that no reader sees: markers, aborted records. */
  gap(topic: string, partition: number, count: number): this {
    const of = this.#of(topic, partition);
    of.next += BigInt(count);
    of.stable = of.next;
    this.#changed();
    return this;
  }

  /** What was appended from there on belongs to a transaction that is open; undefined: it is committed. */
  open(topic: string, partition: number, from: bigint | undefined): void {
    const of = this.#of(topic, partition);
    of.stable = from ?? of.next;
    this.#changed();
  }

  deleteBefore(topic: string, partition: number, offset: bigint): void {
    const of = this.#of(topic, partition);
    of.earliest = offset;
    of.records = of.records.filter((record) => record.offset >= offset);
  }

  /** As an unclean election does. */
  truncate(topic: string, partition: number, offset: bigint): void {
    const of = this.#of(topic, partition);
    of.next = offset;
    of.stable = offset;
    of.records = of.records.filter((record) => record.offset < offset);
    this.#changed();
  }

  lead(topic: string, partition: number, leader: number): void {
    this.#of(topic, partition).leader = leader;
    this.#changed();
  }

  down(broker: number): void {
    this.#down.add(broker);
    this.#changed();
  }

  up(broker: number): void {
    this.#down.delete(broker);
  }

  group(group: string, topic: string): ReadonlyMap<number, bigint> {
    return this.#groups.get(`${group}/${topic}`) ?? new Map();
  }

  idOf(topic: string): string {
    return this.#topics.get(topic)!.id;
  }

  /** No cluster is being closed any more. */
  async idle(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
  }

  /** So many fetches have come. */
  async fetched(count: number): Promise<void> {
    while (this.fetches.length < count) await new Promise((resolve) => setImmediate(resolve));
  }

  #of(topic: string, partition: number): Partition {
    return this.#topics.get(topic)!.partitions[partition]!;
  }

  #changed(): void {
    for (const wake of [...this.#waiting]) wake();
  }

  async connect(settings: ClientSettings): Promise<Cluster> {
    if (this.unreachable !== undefined) throw this.unreachable;
    this.clusters += 1;
    let closed = false;
    const open = (): void => {
      if (closed) throw new MillraceError('SOURCE_FAILED', `The cluster of ${settings.clientId} is closed.`);
      if (this.unreachable !== undefined) throw this.unreachable;
    };
    const found = (topic: string): Topic => {
      const of = this.#topics.get(topic);
      if (of === undefined) throw new MillraceError('KAFKA_TOPIC_MISSING', `There is no topic '${topic}'.`);
      return of;
    };
    return {
      topics: async () => {
        open();
        return [...this.#topics.keys()];
      },
      metadata: async (topics) => {
        open();
        this.metadataAsked += 1;
        const known = new Map<string, TopicMetadata>();
        for (const topic of topics) {
          const of = this.#topics.get(topic);
          if (of === undefined) continue;
          const partitions = of.partitions.map(({ leader }, partition) => ({ partition, leader: this.#down.has(leader) ? -1 : leader }));
          known.set(topic, { topic, id: of.id === '' ? undefined : of.id, partitions });
        }
        return known;
      },
      rights: async (topics) => {
        open();
        return new Map(topics.filter((topic) => this.#topics.has(topic)).map((topic) => [topic, { read: true, write: false }]));
      },
      offsets: async (topic, partitions, at: OffsetAt) => {
        open();
        return new Map(
          partitions.map((partition) => {
            const of = found(topic).partitions[partition]!;
            if (at === 'earliest') return [partition, of.earliest];
            if (at === 'latest') return [partition, of.next];
            if (at === 'stable') return [partition, of.stable];
            return [partition, of.records.find(({ timestamp }) => timestamp >= at.timestamp)?.offset ?? of.next];
          }),
        );
      },
      fetch: (leader, wanted, options) => this.#fetch(leader, wanted, options, () => closed),
      producer: unwritten,
      transactionalProducer: unwritten,
      groupOffsets: async (group, topic) => {
        open();
        return new Map(this.#groups.get(`${group}/${topic}`));
      },
      commitGroupOffsets: async (group, topic, offsets) => {
        open();
        this.#groups.set(`${group}/${topic}`, new Map([...(this.#groups.get(`${group}/${topic}`) ?? []), ...offsets]));
      },
      createTopic: unwritten,
      topicConfigs: unwritten,
      brokerConfigs: unwritten,
      close: async () => {
        closed = true;
        this.clusters -= 1;
        this.#changed();
      },
    };
  }

  async #fetch(leader: number, wanted: readonly WantedPartition[], options: FetchOptions, closed: () => boolean): Promise<FetchedPartition[]> {
    this.fetches.push({ leader, wanted: wanted.map((one) => ({ ...one })), options });
    const now = (this.underWay.get(leader) ?? 0) + 1;
    this.underWay.set(leader, now);
    this.mostUnderWay = Math.max(this.mostUnderWay, now);
    try {
      const until = performance.now() + options.maxWaitMs;
      for (;;) {
        if (closed()) throw new MillraceError('SOURCE_FAILED', 'The cluster is closed.');
        if (this.#down.has(leader)) throw new MillraceError('KAFKA_UNREACHABLE', `Broker ${leader} does not answer.`);
        const answers = wanted.map((one) => this.#answer(leader, one, options));
        const left = until - performance.now();
        if (left <= 0 || answers.some(({ problem, records, next }, at) => problem !== undefined || records.length > 0 || next > wanted[at]!.offset))
          return answers;
        await new Promise<void>((resolve) => {
          const wake = (): void => {
            clearTimeout(timer);
            this.#waiting.delete(wake);
            resolve();
          };
          const timer = setTimeout(wake, left);
          this.#waiting.add(wake);
        });
      }
    } finally {
      this.underWay.set(leader, this.underWay.get(leader)! - 1);
    }
  }

  #answer(leader: number, { topic, partition, offset, id }: WantedPartition, { committed }: FetchOptions): FetchedPartition {
    const there = this.#topics.get(topic);
    const of = id === undefined || there?.id === id ? there?.partitions[partition] : undefined;
    const nothing = { topic, partition, records: [], next: offset, highWatermark: -1n, lastStable: -1n };
    if (of === undefined)
      return { ...nothing, problem: { kind: 'gone', error: new MillraceError('KAFKA_TOPIC_MISSING', `There is no '${topic}/${partition}'.`) } };
    if (of.leader !== leader) return { ...nothing, problem: { kind: 'moved', error: new Error('another broker leads') } };
    if (offset < of.earliest || offset > of.next)
      return { ...nothing, problem: { kind: 'out of range', error: new Error(`offset ${offset} is out of range`) } };
    const upTo = committed ? of.stable : of.next;
    const all = of.records.filter((record) => record.offset >= offset && record.offset < upTo);
    const records = all.slice(0, this.batchRecords);
    const next = records.length < all.length ? records.at(-1)!.offset + 1n : upTo > offset ? upTo : offset;
    return { topic, partition, records, next, highWatermark: of.next, lastStable: of.stable, problem: undefined };
  }
}
