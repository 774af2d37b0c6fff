// A cluster of Kafka brokers, as the port (client.ts) wants it, over connections of whichever library dials them.
//
// What: each call here is a request or two (requests.ts) to the broker that it concerns (directory.ts), tried again as its errors allow (attempts.ts). Fetches are asked
// once: their caller has other partitions to go on with. Writing is in delivery.ts, and in transactions.ts what is all or nothing.

import { persistently } from './attempts.ts';
import { Brokers } from './brokers.ts';
import type {
  ClientSettings,
  Cluster,
  FetchedPartition,
  FetchOptions,
  OffsetAt,
  PartitionMetadata,
  Producer,
  ProducerOptions,
  TopicMetadata,
  TopicRights,
  TransactionalProducer,
  WantedPartition,
} from './client.ts';
import { Delivery } from './delivery.ts';
import { Directory } from './directory.ts';
import { answered, KafkaError } from './errors.ts';
import { fetchCall, fetched } from './fetch-request.ts';
import type { Dial } from './link.ts';
import {
  type Call,
  type CoordinatorKind,
  commitOffsetsCall,
  createTopicCall,
  describeConfigsCall,
  groupOffsetsCall,
  initProducerCall,
  listOffsetsCall,
  NO_UUID,
  type OffsetAnswer,
  type TopicAnswer,
} from './requests.ts';
import { Transactions } from './transactions.ts';

const OLDEST = -2n;
const BEHIND_NEWEST = -1n;
const UNKNOWN_TOPIC = 3;
const TOPIC_FORBIDDEN = 29;
/** Operations of ACLs, by number. */
const READ = 1 << 3;
const WRITE = 1 << 4;
const LEADER_NOT_AVAILABLE = 5;
const TOPIC_EXISTS = 36;

/** Resolves once a broker has answered. */
export async function connectCluster(dial: Dial, settings: ClientSettings): Promise<Cluster> {
  const cluster = new WireCluster(dial, settings);
  try {
    await cluster.begin();
    return cluster;
  } catch (error) {
    await cluster.close();
    throw error;
  }
}

class WireCluster implements Cluster {
  readonly #brokers: Brokers;
  readonly #directory: Directory;
  readonly #timeoutMs: number;
  #turn = 0;

  constructor(dial: Dial, settings: ClientSettings) {
    this.#timeoutMs = settings.timeoutMs;
    this.#brokers = new Brokers(dial, settings);
    this.#directory = new Directory(this.#brokers, settings.timeoutMs);
  }

  async begin(): Promise<void> {
    await this.#directory.metadata([]);
  }

  async topics(): Promise<string[]> {
    const topics = await this.#directory.metadata(undefined);
    return topics.filter(({ error, internal }) => error === 0 && !internal).map(({ topic }) => topic);
  }

  async metadata(topics: readonly string[]): Promise<Map<string, TopicMetadata>> {
    const found = new Map<string, TopicMetadata>();
    if (topics.length === 0) return found;
    for (const answer of await this.#directory.metadata(topics)) {
      // Without a leader at present it is there all the same.
      if (answer.error !== 0 && answer.error !== UNKNOWN_TOPIC && answer.error !== LEADER_NOT_AVAILABLE) {
        throw answered(answer.error, `the question for topic '${answer.topic}'`);
      }
      if (answer.error === UNKNOWN_TOPIC) continue;
      found.set(answer.topic, { topic: answer.topic, id: answer.id === NO_UUID ? undefined : answer.id, partitions: inOrder(answer) });
    }
    return found;
  }

  async rights(topics: readonly string[]): Promise<Map<string, TopicRights>> {
    const found = new Map<string, TopicRights>();
    if (topics.length === 0) return found;
    for (const { topic, error, operations } of await this.#directory.metadata(topics, true)) {
      if (error === TOPIC_FORBIDDEN) found.set(topic, { read: false, write: false });
      else if (error !== UNKNOWN_TOPIC) found.set(topic, { read: (operations & READ) !== 0, write: (operations & WRITE) !== 0 });
    }
    return found;
  }

  async offsets(topic: string, partitions: readonly number[], at: OffsetAt, committed: boolean): Promise<Map<number, bigint>> {
    const time = typeof at === 'object' ? BigInt(Math.floor(at.timestamp)) : at === 'earliest' ? OLDEST : BEHIND_NEWEST;
    const found = await this.#offsets(topic, partitions, time, committed || at === 'stable');
    // There is no record of that time or later.
    const beyond = [...found].filter(([, offset]) => offset < 0n).map(([partition]) => partition);
    if (beyond.length > 0) for (const [partition, offset] of await this.#offsets(topic, beyond, BEHIND_NEWEST, committed)) found.set(partition, offset);
    return found;
  }

  async #offsets(topic: string, partitions: readonly number[], time: bigint, committed: boolean): Promise<Map<number, bigint>> {
    const found = new Map<number, bigint>();
    await this.#persistently(async () => {
      const byLeader = new Map<number, number[]>();
      for (const partition of partitions) {
        if (found.has(partition)) continue;
        const leader = await this.#directory.leader(topic, partition);
        const led = byLeader.get(leader);
        if (led === undefined) byLeader.set(leader, [partition]);
        else led.push(partition);
      }
      let failed: OffsetAnswer | undefined;
      await Promise.all(
        [...byLeader].map(async ([leader, led]) => {
          for (const answer of await this.#brokers.ask(leader, 'talk', listOffsetsCall(topic, led, time, committed))) {
            if (answer.error === 0) found.set(answer.partition, answer.offset);
            else failed = answer;
          }
        }),
      );
      if (failed !== undefined) throw answered(failed.error, `the question for offsets of '${topic}' ${failed.partition}`);
    });
    return found;
  }

  async fetch(leader: number, wanted: readonly WantedPartition[], options: FetchOptions): Promise<FetchedPartition[]> {
    if (wanted.length === 0) return [];
    // The first that has records may give more than its share: each is first in its turn.
    const first = this.#turn++ % wanted.length;
    const turned = first === 0 ? wanted : [...wanted.slice(first), ...wanted.slice(0, first)];
    const ids = new Map<string, string>();
    for (const { topic, id } of wanted) if (id !== undefined) ids.set(topic, id);
    const byId = wanted.every(({ topic }) => ids.has(topic));
    try {
      const answer = await this.#brokers.ask(leader, 'fetch', fetchCall(turned, byId ? ids : undefined, options), options.maxWaitMs);
      if (answer.error !== 0) throw answered(answer.error, 'a fetch');
      const parts = new Map(answer.partitions.map((part) => [`${part.partition} ${part.topic}`, part]));
      return wanted.map((one) => fetched(one, parts.get(`${one.partition} ${byId ? ids.get(one.topic) : one.topic}`)));
    } catch (error) {
      if (this.#brokers.closed || !(error instanceof KafkaError) || error.again === undefined) throw error;
      // Whether this broker comes back or another leads by then, metadata tells.
      const problem = { kind: error.again === 'metadata' ? ('moved' as const) : ('failed' as const), error };
      return wanted.map(({ topic, partition, offset }) => ({ topic, partition, records: [], next: offset, highWatermark: -1n, lastStable: -1n, problem }));
    }
  }

  async producer(options: ProducerOptions): Promise<Producer> {
    const delivery = new Delivery(this.#directory, { ...options, transactionalId: undefined });
    const { producerId, epoch } = await this.#persistently(async () => {
      const answer = await this.#brokers.ask('any', 'talk', initProducerCall(null, 0));
      if (answer.error !== 0) throw answered(answer.error, 'a new producer');
      return answer;
    });
    delivery.begin(producerId, epoch);
    return { send: (records) => delivery.send(records), close: async () => delivery.close() };
  }

  async transactionalProducer(options: ProducerOptions & { readonly transactionalId: string; readonly timeoutMs: number }): Promise<TransactionalProducer> {
    return new Transactions(this.#directory, options);
  }

  async groupOffsets(group: string, topic: string): Promise<Map<number, bigint>> {
    const answer = await this.#coordinated('group', group, groupOffsetsCall(group), ({ error }) => error, `the question for offsets of group '${group}'`);
    const found = new Map<number, bigint>();
    for (const one of answer.offsets) {
      if (one.topic !== topic || one.offset < 0n) continue;
      if (one.error !== 0) throw answered(one.error, `the question for the offset of group '${group}' in '${topic}' ${one.partition}`);
      found.set(one.partition, one.offset);
    }
    return found;
  }

  async commitGroupOffsets(group: string, topic: string, offsets: ReadonlyMap<number, bigint>): Promise<void> {
    if (offsets.size === 0) return;
    const call = commitOffsetsCall(group, topic, offsets);
    await this.#coordinated('group', group, call, (answers) => answers.find(({ error }) => error !== 0)?.error ?? 0, `offsets of group '${group}'`);
  }

  async createTopic(
    topic: string,
    options: { readonly partitions: number; readonly replicas?: number; readonly configs?: Readonly<Record<string, string>> },
  ): Promise<boolean> {
    const call = createTopicCall(topic, {
      partitions: options.partitions,
      replicas: options.replicas ?? -1,
      configs: options.configs ?? {},
      timeoutMs: this.#brokers.requestMs,
    });
    let asked = false;
    const created = await this.#persistently(async () => {
      const { controller } = this.#directory;
      const again = asked;
      asked = true;
      const { error, message } = await this.#brokers.ask(this.#brokers.knows(controller) ? controller : 'any', 'talk', call);
      // After an answer that was lost it may be ours: nobody can tell, and to the caller it is the same.
      if (error === TOPIC_EXISTS) return again;
      if (error !== 0) throw answered(error, `topic '${topic}' being created`, message);
      return true;
    });
    // Brokers hear of it one after the other.
    await this.#persistently(async () => {
      const found = (await this.metadata([topic])).get(topic);
      if (found === undefined || found.partitions.length === 0) throw answered(UNKNOWN_TOPIC, `the question for topic '${topic}'`);
      if (found.partitions.some(({ leader }) => leader < 0)) throw answered(LEADER_NOT_AVAILABLE, `the question who leads '${topic}'`);
    });
    return created;
  }

  async topicConfigs(topic: string): Promise<Map<string, string>> {
    return this.#configs('topic', topic, 'any');
  }

  async brokerConfigs(): Promise<Map<string, string>> {
    return this.#persistently(async () => {
      // A broker knows its own only.
      const [node] = this.#brokers.nodes;
      if (node === undefined) throw answered(LEADER_NOT_AVAILABLE, 'the question for brokers');
      return this.#configs('broker', String(node), node);
    });
  }

  async #configs(kind: 'topic' | 'broker', name: string, whom: number | 'any'): Promise<Map<string, string>> {
    return this.#persistently(async () => {
      const { error, message, configs } = await this.#brokers.ask(whom, 'talk', describeConfigsCall(kind, name));
      if (error !== 0) throw answered(error, `the question for configs of ${kind} '${name}'`, message);
      return new Map(configs.flatMap(({ name: config, value }) => (value === null ? [] : [[config, value] as const])));
    });
  }

  async close(): Promise<void> {
    this.#brokers.close();
  }

  #coordinated<T>(kind: CoordinatorKind, key: string, call: Call<T>, errorOf: (answer: T) => number, what: string): Promise<T> {
    return persistently(
      this.#brokers,
      this.#timeoutMs,
      async () => {
        const answer = await this.#brokers.ask(await this.#directory.coordinator(kind, key), 'talk', call);
        const error = errorOf(answer);
        if (error !== 0) throw answered(error, what);
        return answer;
      },
      (error) => this.#directory.renewCoordinator(kind, key, error),
    );
  }

  #persistently<T>(attempt: () => Promise<T>): Promise<T> {
    return persistently(this.#brokers, this.#timeoutMs, attempt, (error) => (error.again === 'later' ? undefined : this.#directory.refresh()));
  }
}

function inOrder({ partitions }: TopicAnswer): PartitionMetadata[] {
  return [...partitions].sort((a, b) => a.partition - b.partition);
}
