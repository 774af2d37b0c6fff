// The Kafka client port: the few calls of a client library that our source and sink need.
//
// Who: `source.ts`, `fetcher.ts` and `sink.ts` speak to a `Cluster` only; `kafkajs-client.ts` and `platformatic-client.ts` make one of a library, and one suite of
// contract tests (test/connectors/kafka/client-contract.ts) holds both to this page, against real brokers of both versions.
//
// Invariants:
//  C1  A call gives its result or throws a MillraceError of the table in `errors.ts` (KAFKA_…), with the library's error as its cause. What may succeed later is
//      `retryable`. Brief leader changes and lost connections are retried inside, with fresh metadata, until `timeoutMs` of the settings is over; `fetch` never
//      waits for that: it gives a partition's error instead, since the others have records.
//  C2  Offsets are bigint. An offset given is where the next record is read or was written; nothing is ever reset silently.
//  C3  `fetch` gives records in order, none below the offset asked for, no control records, with `committed` none of open or aborted transactions; `next` is the offset
//      behind everything that was looked at, so that gaps of control and aborted records are passed.
//  C4  `fence()` has initialised the transactional id when it resolves: whoever held it before can commit nothing more. It comes before every marker that is read.
//  C5  An error out of a transaction's `commit` has an unknown outcome: the producer is of no use any more and is closed.
//  C6  Keys, values and headers are bytes. A codec that this Node version lacks is KAFKA_COMPRESSION.
//  C7  `close()` ends every socket and timer of the cluster, also with calls under way, which then throw KAFKA_CLOSED; it waits for nothing.

import type { Logger } from '../../graph/context.ts';

/** A client library for Kafka: `kafkajs()`, which is the default, or `platformatic()`. */
export interface KafkaClient {
  readonly kind: string;
}

/** How a library is made to serve. */
export interface KafkaAdapter extends KafkaClient {
  /** Resolves once a broker has answered (and accepted who we are). */
  connect(settings: ClientSettings): Promise<Cluster>;
}

/** Whether the client that the user gave is one of ours. */
export function isAdapter(client: KafkaClient): client is KafkaAdapter {
  return typeof (client as Partial<KafkaAdapter>).connect === 'function';
}

export interface ClientSettings {
  readonly brokers: readonly string[];
  readonly clientId: string;
  /** true, or the options of `tls.connect`. */
  readonly ssl?: boolean | object | undefined;
  /** `{ mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512', username, password }`, as users of kafkajs know it. */
  readonly sasl?: { readonly mechanism: string; readonly [option: string]: unknown } | undefined;
  /** How long a call goes on trying, ms. */
  readonly timeoutMs: number;
  readonly log: Logger;
}

export interface PartitionMetadata {
  readonly partition: number;
  /** Broker id; −1: none at present. */
  readonly leader: number;
}

export interface TopicMetadata {
  readonly topic: string;
  /** Drawn when the topic was created: another id, another topic of that name. Undefined where the brokers know no ids. */
  readonly id: string | undefined;
  readonly partitions: readonly PartitionMetadata[];
}

/** What of it we may do; who may do nothing may not even know that it is there. */
export interface TopicRights {
  readonly read: boolean;
  readonly write: boolean;
}

/** Where in a partition: its oldest record, behind its newest, behind the newest whose transactions are all decided, or the first record of a time (epoch ms). */
export type OffsetAt = 'earliest' | 'latest' | 'stable' | { readonly timestamp: number };

export interface WantedPartition {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  /** Of the topic that the offset belongs to, where it is known: of another one under that name nothing is given, the partition is `gone`. */
  readonly id?: string | undefined;
}

export interface FetchOptions {
  /** How long the broker may wait for `minBytes`. */
  readonly maxWaitMs: number;
  readonly minBytes: number;
  /** Of one partition. */
  readonly maxBytes: number;
  /** read_committed. */
  readonly committed: boolean;
}

/** As it lies in the log. */
export interface FetchedRecord {
  readonly offset: bigint;
  /** Epoch ms; −1: none. */
  readonly timestamp: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: Readonly<Record<string, Buffer>>;
}

export interface FetchedPartition {
  readonly topic: string;
  readonly partition: number;
  readonly records: readonly FetchedRecord[];
  /** Where to go on (C3). */
  readonly next: bigint;
  readonly highWatermark: bigint;
  readonly lastStable: bigint;
  /**
   * Instead of records. `moved`: another broker leads, ask for metadata. `out of range`: the offset is no longer there, or not yet. `gone`: no such topic or partition.
   * `failed`: an error that may pass.
   */
  readonly problem: { readonly kind: 'moved' | 'out of range' | 'gone' | 'failed'; readonly error: unknown } | undefined;
}

export interface OutgoingRecord {
  readonly topic: string;
  readonly partition: number;
  readonly key: Uint8Array | null;
  readonly value: Uint8Array | null;
  readonly headers?: Readonly<Record<string, Uint8Array>> | undefined;
  /** Epoch ms. */
  readonly timestamp: number;
}

export type Compression = 'gzip' | 'snappy' | 'lz4' | 'zstd';

/** Idempotent, acks of all in-sync replicas. */
export interface Producer {
  /** Resolves when all are stored; in the order given, in each partition. */
  send(records: readonly OutgoingRecord[]): Promise<void>;
  close(): Promise<void>;
}

export interface TransactionalProducer {
  /** C4: before anything else, and again after an error. */
  fence(): Promise<void>;
  /**
   * All of them in one transaction, or none (C5). `ending` is called when all are stored and the transaction has not been ended yet: it may wait, and what it throws
   * fails the commit.
   */
  commit(records: readonly OutgoingRecord[], ending?: () => Promise<void> | undefined): Promise<void>;
  close(): Promise<void>;
}

export interface ProducerOptions {
  readonly compression?: Compression | undefined;
  /** Bytes of one request. */
  readonly requestBytes?: number;
  /** Bytes of one batch for this topic, where it takes less than that. */
  readonly batchBytes?: (topic: string) => number | undefined;
}

/** Connected; shared by all readers or writers of one source or sink in a process. */
export interface Cluster {
  /** Every topic's name, internal ones left out. */
  topics(): Promise<string[]>;
  /** Those that do not exist are missing from the result. Never creates one. */
  metadata(topics: readonly string[]): Promise<Map<string, TopicMetadata>>;
  /** What we may do with each. Those that do not exist are missing from the result, as far as we may know of that. */
  rights(topics: readonly string[]): Promise<Map<string, TopicRights>>;
  /** By partition. For a time behind the newest record: as 'latest'. */
  offsets(topic: string, partitions: readonly number[], at: OffsetAt, committed: boolean): Promise<Map<number, bigint>>;
  /** One request to one broker for partitions that it leads. */
  fetch(leader: number, wanted: readonly WantedPartition[], options: FetchOptions): Promise<FetchedPartition[]>;
  producer(options: ProducerOptions): Promise<Producer>;
  transactionalProducer(options: ProducerOptions & { readonly transactionalId: string; readonly timeoutMs: number }): Promise<TransactionalProducer>;
  /** What a group has committed, by partition; none where it has not. */
  groupOffsets(group: string, topic: string): Promise<Map<number, bigint>>;
  commitGroupOffsets(group: string, topic: string, offsets: ReadonlyMap<number, bigint>): Promise<void>;
  /** False where it was there already. */
  createTopic(
    topic: string,
    options: { readonly partitions: number; readonly replicas?: number; readonly configs?: Readonly<Record<string, string>> },
  ): Promise<boolean>;
  topicConfigs(topic: string): Promise<Map<string, string>>;
  /** Of the brokers, such as `transaction.max.timeout.ms`. */
  brokerConfigs(): Promise<Map<string, string>>;
  close(): Promise<void>;
}
