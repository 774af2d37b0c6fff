// Topics of a test on a real broker, made, written and spoiled by plain kafkajs: nothing of what is tested takes part.

import { randomUUID } from 'node:crypto';
import {
  AclOperationTypes,
  AclPermissionTypes,
  AclResourceTypes,
  type Admin,
  CompressionTypes,
  Kafka,
  logLevel,
  type Message,
  type Producer,
  ResourcePatternTypes,
  type Transaction,
} from 'kafkajs';
import { afterAll } from 'vitest';

export interface Written {
  readonly value: string | Buffer | null;
  readonly key?: string;
  readonly partition?: number;
  /** Epoch ms. */
  readonly timestamp?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

export class Topics {
  readonly brokers: string[];
  readonly kafka: Kafka;
  readonly admin: Admin;
  #producer: Producer;

  private constructor(brokers: string[]) {
    this.brokers = brokers;
    this.kafka = new Kafka({ brokers, clientId: 'test', logLevel: logLevel.NOTHING, retry: { initialRetryTime: 30, retries: 12 } });
    this.admin = this.kafka.admin();
    this.#producer = this.#newProducer();
  }

  #newProducer(): Producer {
    return this.kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  }

  static async at(brokers: string[]): Promise<Topics> {
    const topics = new Topics(brokers);
    await Promise.all([topics.admin.connect(), topics.#producer.connect()]);
    return topics;
  }

  async close(): Promise<void> {
    await Promise.all([this.admin.disconnect(), this.#producer.disconnect()]);
  }

  /** With a name of its own unless it is given one. */
  async create(partitions: number, options: { name?: string; configs?: Readonly<Record<string, string>> } = {}): Promise<string> {
    const topic = options.name ?? `t-${randomUUID()}`;
    const configEntries = Object.entries(options.configs ?? {}).map(([name, value]) => ({ name, value }));
    await this.admin.createTopics({ topics: [{ topic, numPartitions: partitions, configEntries }], waitForLeaders: false });
    await this.#known(topic, partitions);
    return topic;
  }

  async grow(topic: string, count: number): Promise<void> {
    await this.admin.createPartitions({ topicPartitions: [{ topic, count }] });
    await this.#known(topic, count);
    // The old one drops what goes to partitions that it has not heard of, without a word.
    await this.#producer.disconnect();
    this.#producer = this.#newProducer();
    await this.#producer.connect();
  }

  /** Brokers learn of it a little after it was made. */
  async #known(topic: string, partitions: number): Promise<void> {
    for (;;) {
      const { topics } = await this.admin.fetchTopicMetadata({ topics: [topic] }).catch(() => ({ topics: [] }));
      if (topics[0] !== undefined && topics[0].partitions.length >= partitions && topics[0].partitions.every(({ leader }) => leader >= 0)) return;
    }
  }

  /** Where it says nothing: partition 0. */
  async write(topic: string, records: readonly (Written | string)[], options: { gzip?: boolean } = {}): Promise<void> {
    for (let at = 0; at < records.length; at += 5_000) {
      await this.#producer.send({
        topic,
        messages: records.slice(at, at + 5_000).map(messageOf),
        ...(options.gzip === true ? { compression: CompressionTypes.GZIP } : {}),
      });
    }
  }

  /** In a transaction of its own, which stays open until its result is ended. */
  async transaction(topic: string, records: readonly (Written | string)[]): Promise<Transaction> {
    const producer = this.kafka.producer({ transactionalId: randomUUID(), idempotent: true, maxInFlightRequests: 1 });
    await producer.connect();
    const transaction = await producer.transaction();
    await transaction.send({ topic, messages: records.map(messageOf) });
    const end = (how: 'commit' | 'abort') => async (): Promise<void> => {
      await transaction[how].call(transaction);
      await producer.disconnect();
    };
    return { ...transaction, commit: end('commit'), abort: end('abort') };
  }

  /** As retention does. */
  async deleteBefore(topic: string, partition: number, offset: number): Promise<void> {
    // It knows the leaders of what it was asked about last.
    await this.admin.fetchTopicMetadata({ topics: [topic] });
    await this.admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: String(offset) }] });
  }

  /** Deletes it, and creates another with that name. */
  async recreate(topic: string, partitions: number): Promise<void> {
    await this.admin.deleteTopics({ topics: [topic] });
    for (;;) {
      try {
        await this.create(partitions, { name: topic });
        return;
      } catch (error) {
        // The name is taken until the brokers have heard of its end.
        if (!/already exists/.test(String(error))) throw error;
      }
    }
  }

  /** Gives a user these rights, or takes them away; in force when it resolves. */
  async rights(
    user: string,
    how: 'allowed' | 'withdrawn',
    on: { topic: string } | { transactionalId: string },
    ...operations: ('Read' | 'Write')[]
  ): Promise<void> {
    const acls = operations.map((operation) => ({
      resourceType: 'topic' in on ? AclResourceTypes.TOPIC : AclResourceTypes.TRANSACTIONAL_ID,
      resourceName: 'topic' in on ? on.topic : on.transactionalId,
      resourcePatternType: ResourcePatternTypes.LITERAL,
      principal: `User:${user}`,
      host: '*',
      operation: operation === 'Read' ? AclOperationTypes.READ : AclOperationTypes.WRITE,
      permissionType: AclPermissionTypes.ALLOW,
    }));
    if (how === 'allowed') await this.admin.createAcls({ acl: acls });
    else await this.admin.deleteAcls({ filters: acls });
    for (const acl of acls) {
      for (;;) {
        const { resources } = await this.admin.describeAcls(acl);
        if (resources.length === (how === 'allowed' ? 1 : 0)) break;
      }
    }
  }

  async committed(group: string, topic: string): Promise<Map<number, string>> {
    const [of] = await this.admin.fetchOffsets({ groupId: group, topics: [topic] });
    return new Map(of!.partitions.map(({ partition, offset }) => [partition, offset]));
  }
}

/** The topics of a test file, closed behind it. */
export function topicsOf(brokers: () => Promise<string[]>): () => Promise<Topics> {
  let opened: Promise<Topics> | undefined;
  afterAll(async () => (await opened?.catch(() => undefined))?.close());
  return () => {
    opened ??= brokers().then((at) => Topics.at(at));
    return opened;
  };
}

function messageOf(given: Written | string): Message {
  if (typeof given === 'string') return { value: given, partition: 0 };
  const { value, key, partition = 0, timestamp, headers } = given;
  return {
    value,
    partition,
    ...(key === undefined ? {} : { key }),
    ...(timestamp === undefined ? {} : { timestamp: String(timestamp) }),
    ...(headers === undefined ? {} : { headers: { ...headers } }),
  };
}
