// Kafka in memory, for unit tests of the source and the sink: topics that grow, are cut off and made anew, transactions with fencing, a last stable offset, control
// records, and a hook before each call. What stands here outlives the clusters that are connected to it.
//
// Offsets, gaps and visibility are those of a broker (client.ts, C3 and C4); speed, replication and leaders are not: broker 0 leads everything unless a test says so.

import type {
  ClientSettings,
  Cluster,
  FetchedPartition,
  FetchedRecord,
  FetchOptions,
  KafkaAdapter,
  OffsetAt,
  OutgoingRecord,
  Producer,
  TopicMetadata,
  TopicRights,
  TransactionalProducer,
  WantedPartition,
} from '../../../src/connectors/kafka/client.ts';
import { MillraceError } from '../../../src/errors.ts';

interface Entry extends FetchedRecord {
  readonly transaction: Transaction | undefined;
  readonly control: boolean;
}

interface Transaction {
  state: 'open' | 'committed' | 'aborted';
  readonly partitions: Set<MemoryPartition>;
}

export class MemoryPartition {
  leader = 0;
  /** Offset of the first entry. */
  start = 0n;
  entries: Entry[] = [];

  get end(): bigint {
    return this.start + BigInt(this.entries.length);
  }

  get stable(): bigint {
    return this.entries.find(({ transaction }) => transaction?.state === 'open')?.offset ?? this.end;
  }

  /** What was in front of it is gone, as by retention. */
  cutTo(offset: bigint): void {
    this.entries = this.entries.filter((entry) => entry.offset >= offset);
    this.start = offset;
  }

  append(record: Omit<OutgoingRecord, 'topic' | 'partition'>, transaction?: Transaction): void {
    const { key, value, headers = {}, timestamp } = record;
    this.entries.push({
      offset: this.end,
      timestamp,
      key: key === null ? null : Buffer.from(key),
      value: value === null ? null : Buffer.from(value),
      headers: Object.fromEntries(Object.entries(headers).map(([name, bytes]) => [name, Buffer.from(bytes)])),
      transaction,
      control: false,
    });
    transaction?.partitions.add(this);
  }

  control(): void {
    this.entries.push({ offset: this.end, timestamp: -1, key: null, value: null, headers: {}, transaction: undefined, control: true });
  }
}

interface MemoryTopic {
  readonly id: string;
  readonly configs: Map<string, string>;
  readonly partitions: MemoryPartition[];
}

export type Call =
  | 'connect'
  | 'metadata'
  | 'offsets'
  | 'fetch'
  | 'send'
  | 'fence'
  | 'store'
  | 'end'
  | 'createTopic'
  | 'topicConfigs'
  | 'brokerConfigs'
  | 'groupOffsets';

export class MemoryKafka {
  readonly topics = new Map<string, MemoryTopic>();
  readonly brokerConfigs = new Map([['transaction.max.timeout.ms', '900000']]);
  readonly groups = new Map<string, Map<number, bigint>>();
  /** In order, of all clusters. */
  readonly calls: string[] = [];
  /** Before each call, which it may hold back or fail. `subject`: the topic or the transactional id. */
  before: (call: Call, subject: string) => void | Promise<void> = () => {};
  readonly #epochs = new Map<string, { epoch: number; open: Transaction | undefined }>();
  #ids = 0;
  #waiting: (() => void)[] = [];

  createTopic(topic: string, partitions: number, configs: Readonly<Record<string, string>> = {}): this {
    this.topics.set(topic, {
      id: `id-${++this.#ids}`,
      configs: new Map(Object.entries({ 'cleanup.policy': 'delete', 'max.message.bytes': '1048588', ...configs })),
      partitions: Array.from({ length: partitions }, () => new MemoryPartition()),
    });
    return this;
  }

  grow(topic: string, partitions: number): void {
    const { partitions: there } = this.topics.get(topic)!;
    while (there.length < partitions) there.push(new MemoryPartition());
  }

  /** Without a transaction; values are written as they are. */
  produce(topic: string, partition: number, values: readonly string[], options: { key?: string; timestamp?: number } = {}): void {
    for (const value of values)
      this.partition(topic, partition).append({
        key: options.key === undefined ? null : Buffer.from(options.key),
        value: Buffer.from(value),
        timestamp: options.timestamp ?? Date.now(),
      });
    this.woke();
  }

  partition(topic: string, partition: number): MemoryPartition {
    return this.topics.get(topic)!.partitions[partition]!;
  }

  /** What a reader with read_committed sees, by partition. */
  committed(topic: string): FetchedRecord[] {
    return this.topics.get(topic)!.partitions.flatMap((partition) => visible(partition, partition.start, true).records);
  }

  values(topic: string): string[] {
    return this.committed(topic).map(({ value }) => String(value));
  }

  producer(id: string): { epoch: number; open: Transaction | undefined } {
    let held = this.#epochs.get(id);
    if (held === undefined) {
      held = { epoch: 0, open: undefined };
      this.#epochs.set(id, held);
    }
    return held;
  }

  /** As the coordinator does when a transaction was open for too long, or another producer takes the id over. */
  fence(id: string): number {
    const held = this.producer(id);
    if (held.open !== undefined) this.end(held.open, 'aborted');
    held.open = undefined;
    held.epoch += 1;
    return held.epoch;
  }

  end(transaction: Transaction, state: 'committed' | 'aborted'): void {
    transaction.state = state;
    for (const partition of transaction.partitions) partition.control();
    this.woke();
  }

  /** An adapter for `client`. */
  client(): KafkaAdapter {
    return {
      kind: 'memory',
      connect: async (settings) => {
        await this.call('connect', settings.brokers.join());
        return new MemoryCluster(this, settings);
      },
    };
  }

  async call(call: Call, subject: string): Promise<void> {
    this.calls.push(`${call} ${subject}`);
    await this.before(call, subject);
  }

  woke(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Resolves when something was written, or after so many ms. */
  written(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#waiting.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}

function visible(
  partition: MemoryPartition,
  from: bigint,
  committed: boolean,
  maxBytes = Number.POSITIVE_INFINITY,
): { records: FetchedRecord[]; next: bigint } {
  const limit = committed ? partition.stable : partition.end;
  const records: FetchedRecord[] = [];
  let bytes = 0;
  let next = from;
  for (const entry of partition.entries.slice(Number(from - partition.start))) {
    if (entry.offset >= limit || bytes >= maxBytes) break;
    next = entry.offset + 1n;
    if (entry.control || (committed && entry.transaction?.state === 'aborted')) continue;
    const { offset, timestamp, key, value, headers } = entry;
    records.push({ offset, timestamp, key, value, headers });
    bytes += (key?.length ?? 0) + (value?.length ?? 0) + 20;
  }
  return { records, next };
}

export class MemoryCluster implements Cluster {
  readonly settings: ClientSettings;
  readonly #kafka: MemoryKafka;
  #closed = false;

  constructor(kafka: MemoryKafka, settings: ClientSettings) {
    this.#kafka = kafka;
    this.settings = settings;
  }

  async #call(call: Call, subject: string): Promise<void> {
    this.#usable();
    await this.#kafka.call(call, subject);
    this.#usable();
  }

  #usable(): void {
    if (this.#closed) throw new MillraceError('KAFKA_UNREACHABLE', 'The cluster is closed.');
  }

  async topics(): Promise<string[]> {
    await this.#call('metadata', '*');
    return [...this.#kafka.topics.keys()].filter((name) => !name.startsWith('__'));
  }

  async metadata(topics: readonly string[]): Promise<Map<string, TopicMetadata>> {
    await this.#call('metadata', topics.join());
    const found = new Map<string, TopicMetadata>();
    for (const topic of topics) {
      const there = this.#kafka.topics.get(topic);
      if (there !== undefined) found.set(topic, { topic, id: there.id, partitions: there.partitions.map(({ leader }, partition) => ({ partition, leader })) });
    }
    return found;
  }

  async rights(topics: readonly string[]): Promise<Map<string, TopicRights>> {
    return new Map(topics.filter((topic) => this.#kafka.topics.has(topic)).map((topic) => [topic, { read: true, write: true }]));
  }

  async offsets(topic: string, partitions: readonly number[], at: OffsetAt, committed: boolean): Promise<Map<number, bigint>> {
    await this.#call('offsets', topic);
    const there = this.#topic(topic);
    const found = new Map<number, bigint>();
    for (const number of partitions) {
      const partition = there.partitions[number];
      if (partition === undefined) throw missing(topic);
      const latest = committed || at === 'stable' ? partition.stable : partition.end;
      if (at === 'earliest') found.set(number, partition.start);
      else if (typeof at === 'string') found.set(number, latest);
      else found.set(number, partition.entries.find((entry) => !entry.control && entry.timestamp >= at.timestamp)?.offset ?? latest);
    }
    return found;
  }

  async fetch(leader: number, wanted: readonly WantedPartition[], options: FetchOptions): Promise<FetchedPartition[]> {
    await this.#call('fetch', [...new Set(wanted.map(({ topic }) => topic))].join());
    const answer = this.#answer(leader, wanted, options);
    if (answer.some(({ next, problem }, i) => problem !== undefined || next > wanted[i]!.offset)) return answer;
    await this.#kafka.written(options.maxWaitMs);
    this.#usable();
    return this.#answer(leader, wanted, options);
  }

  #answer(leader: number, wanted: readonly WantedPartition[], { committed, maxBytes }: FetchOptions): FetchedPartition[] {
    return wanted.map(({ topic, partition: number, offset }) => {
      const partition = this.#kafka.topics.get(topic)?.partitions[number];
      const nothing = { topic, partition: number, records: [], next: offset, highWatermark: partition?.end ?? -1n, lastStable: partition?.stable ?? -1n };
      const problem = (kind: 'moved' | 'out of range' | 'gone') => ({ ...nothing, problem: { kind, error: new Error(kind) } });
      if (partition === undefined) return problem('gone');
      if (partition.leader !== leader) return problem('moved');
      if (offset < partition.start || offset > partition.end) return problem('out of range');
      return { ...nothing, ...visible(partition, offset, committed, maxBytes), problem: undefined };
    });
  }

  #topic(topic: string): MemoryTopic {
    const there = this.#kafka.topics.get(topic);
    if (there === undefined) throw missing(topic);
    return there;
  }

  /** All or nothing. */
  #append(records: readonly OutgoingRecord[], transaction: Transaction | undefined): void {
    const placed = records.map((record) => {
      const { partitions, configs } = this.#topic(record.topic);
      const partition = partitions[record.partition];
      if (partition === undefined) throw missing(record.topic);
      if ((record.value?.byteLength ?? 0) > Number(configs.get('max.message.bytes')))
        throw new MillraceError('KAFKA_RECORD_TOO_LARGE', `A record is larger than the topic '${record.topic}' takes.`);
      return { record, partition };
    });
    for (const { record, partition } of placed) partition.append(record, transaction);
    this.#kafka.woke();
  }

  async producer(): Promise<Producer> {
    return {
      send: async (records) => {
        await this.#call('send', [...new Set(records.map(({ topic }) => topic))].join());
        this.#append(records, undefined);
      },
      close: async () => {},
    };
  }

  async transactionalProducer({ transactionalId: id }: { readonly transactionalId: string }): Promise<TransactionalProducer> {
    let epoch = -1;
    const current = (): { epoch: number; open: Transaction | undefined } => {
      this.#usable();
      const held = this.#kafka.producer(id);
      if (held.epoch !== epoch) throw new MillraceError('KAFKA_FENCED', `Another producer has taken over '${id}'.`);
      return held;
    };
    return {
      fence: async () => {
        await this.#call('fence', id);
        epoch = this.#kafka.fence(id);
      },
      commit: async (records, ending) => {
        await this.#call('store', id);
        const transaction: Transaction = { state: 'open', partitions: new Set() };
        current().open = transaction;
        this.#append(records, transaction);
        await ending?.();
        current();
        await this.#call('end', id);
        const held = current();
        held.open = undefined;
        this.#kafka.end(transaction, 'committed');
      },
      close: async () => {},
    };
  }

  async groupOffsets(group: string, topic: string): Promise<Map<number, bigint>> {
    await this.#call('groupOffsets', topic);
    return new Map(this.#kafka.groups.get(`${group}/${topic}`));
  }

  async commitGroupOffsets(group: string, topic: string, offsets: ReadonlyMap<number, bigint>): Promise<void> {
    await this.#call('groupOffsets', topic);
    this.#kafka.groups.set(`${group}/${topic}`, new Map([...(this.#kafka.groups.get(`${group}/${topic}`) ?? []), ...offsets]));
  }

  async createTopic(
    topic: string,
    { partitions, configs = {} }: { readonly partitions: number; readonly configs?: Readonly<Record<string, string>> },
  ): Promise<boolean> {
    await this.#call('createTopic', topic);
    if (this.#kafka.topics.has(topic)) return false;
    this.#kafka.createTopic(topic, partitions, configs);
    return true;
  }

  async topicConfigs(topic: string): Promise<Map<string, string>> {
    await this.#call('topicConfigs', topic);
    return new Map(this.#topic(topic).configs);
  }

  async brokerConfigs(): Promise<Map<string, string>> {
    await this.#call('brokerConfigs', '');
    return new Map(this.#kafka.brokerConfigs);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#kafka.woke();
  }
}

function missing(topic: string): MillraceError {
  return new MillraceError('KAFKA_TOPIC_MISSING', `There is no topic '${topic}', or no such partition of it.`);
}
