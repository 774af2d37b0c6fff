// What all writers of a Kafka sink share in one attempt: the connection, what was found out before the first record, and a producer for each transactional id.
//
// Who: made by the first writer that opens, ended by the last that closes. An attempt has a session of its own, so that what an older one still waits for is ended with it.
//
// Invariants:
//  S1  Before anything is written: we have the rights that it takes, the topic exists, the marker topic is compacted, the transaction timeout is one that the broker
//      grants. Each failure has its own code; rights that are missing are told together.
//  S2  Two writers of an attempt that have one transactional id, as after a fork (the writer of the old lineage and the one of the new), share a producer: they would
//      fence each other. It is fenced once, before the first of them goes on, and commits for one at a time.
//  S3  After a commit that failed the producer is of no use to any of them.

import { codeOf, MillraceError, messageOf } from '../../errors.ts';
import type { Logger } from '../../graph/context.ts';
import type { Cluster, Compression, KafkaAdapter, OutgoingRecord, ProducerOptions, TransactionalProducer } from './client.ts';
import { connectTo, type KafkaConnection } from './connection.ts';
import { forbidden } from './errors.ts';
import { Topics } from './topics.ts';

/** As long as the Java client lets a transaction be open, ms. */
const TRANSACTION_TIMEOUT_MS = 60_000;
const MARKER_PARTITIONS = 8;
/** Of one request for a partition. */
const REQUEST_BYTES = 768 * 1024;
/** What a batch has beside its records, as `bytesOf` counts them. */
const BATCH_OVERHEAD = 64;

export interface SessionOptions {
  readonly adapter: KafkaAdapter;
  readonly connection: KafkaConnection;
  /** Undefined: each record has its own. */
  readonly topic: string | undefined;
  /** Topics that were met in other attempts. */
  readonly met: ReadonlySet<string>;
  /** Undefined: at least once, without markers. */
  readonly markerTopic: string | undefined;
  /** Ms; undefined: what the broker grants, up to a minute. */
  readonly transactionTimeout: number | undefined;
  readonly compression: Compression | undefined;
  readonly uid: string;
  readonly log: Logger;
}

export class SinkSession {
  readonly cluster: Cluster;
  readonly topics: Topics;
  readonly producerOptions: ProducerOptions;
  readonly #transactionTimeout: number;
  readonly #uid: string;
  readonly #producers = new Map<string, SharedProducer>();

  private constructor(cluster: Cluster, topics: Topics, producerOptions: ProducerOptions, transactionTimeout: number, uid: string) {
    this.#uid = uid;
    this.cluster = cluster;
    this.topics = topics;
    this.producerOptions = producerOptions;
    this.#transactionTimeout = transactionTimeout;
  }

  /** S1. */
  static async open(options: SessionOptions): Promise<SinkSession> {
    const { adapter, connection, topic, markerTopic, compression, uid, log } = options;
    const cluster = await connectTo(adapter, connection, log);
    try {
      const topics = new Topics(cluster, log);
      await checkRights(cluster, { topics: topic === undefined ? [] : [topic], markerTopic, uid });
      if (topic !== undefined) await topics.refresh([topic], uid);
      if (markerTopic !== undefined) await prepareMarkerTopic(cluster, markerTopic, uid, log);
      const timeout = markerTopic === undefined ? TRANSACTION_TIMEOUT_MS : await grantedTimeout(cluster, options);
      await topics.recall(options.met);
      const batchBytes = (name: string): number | undefined => {
        const limit = topics.get(name)?.maxBytes;
        // What cannot be compressed becomes a little larger by it.
        return limit === undefined ? undefined : limit - Math.max(BATCH_OVERHEAD, Math.min(1024, limit >> 3));
      };
      const producerOptions = { ...(compression === undefined ? {} : { compression }), requestBytes: REQUEST_BYTES, batchBytes };
      return new SinkSession(cluster, topics, producerOptions, timeout, uid);
    } catch (error) {
      await cluster.close();
      throw error;
    }
  }

  /** Of topics that records name for the first time: what S1 says of one that is known from the start. */
  async meet(topics: ReadonlySet<string>): Promise<void> {
    await Promise.all([checkRights(this.cluster, { topics: [...topics], markerTopic: undefined, uid: this.#uid }), this.topics.refresh(topics, this.#uid)]);
  }

  /** Fenced when it resolves. Whoever takes it gives it back. */
  async take(transactionalId: string): Promise<SharedProducer> {
    let shared = this.#producers.get(transactionalId);
    if (shared === undefined) {
      shared = new SharedProducer(this.cluster.transactionalProducer({ ...this.producerOptions, transactionalId, timeoutMs: this.#transactionTimeout }), () =>
        this.#producers.delete(transactionalId),
      );
      this.#producers.set(transactionalId, shared);
    }
    shared.users += 1;
    try {
      await shared.fenced;
      return shared;
    } catch (error) {
      await shared.release();
      if (codeOf(error) === 'KAFKA_FORBIDDEN')
        throw forbidden(`The sink '${this.#uid}'`, [`Write on the transactional id '${transactionalId}'`], this.#uid, error);
      throw error;
    }
  }

  close(): Promise<void> {
    return this.cluster.close();
  }
}

/** A transactional producer behind its fence, for all writers with its id (S2). */
export class SharedProducer {
  readonly fenced: Promise<void>;
  readonly #producer: Promise<TransactionalProducer>;
  readonly #forget: () => void;
  #turn: Promise<unknown> = Promise.resolve();
  #broken: unknown;
  users = 0;

  constructor(producer: Promise<TransactionalProducer>, forget: () => void) {
    this.#producer = producer;
    this.#forget = forget;
    this.fenced = producer.then((made) => made.fence());
    // Whoever waits for it hears of it; nobody may be left by then.
    this.fenced.catch(() => {});
  }

  /** S3: what comes after an error fails, too. */
  commit(records: readonly OutgoingRecord[], ending: () => Promise<void> | undefined): Promise<void> {
    const committing = this.#turn.then(async () => {
      if (this.#broken !== undefined) throw this.#broken;
      try {
        await (await this.#producer).commit(records, ending);
      } catch (error) {
        this.#broken = error;
        throw error;
      }
    });
    this.#turn = committing.catch(() => {});
    return committing;
  }

  async release(): Promise<void> {
    this.users -= 1;
    if (this.users > 0) return;
    this.#broken ??= new Error('the producer is closed');
    this.#forget();
    const made = await this.#producer.catch(() => undefined);
    await made?.close();
  }
}

/** Of topics that are not there it is said elsewhere. */
async function checkRights(cluster: Cluster, wanted: { topics: readonly string[]; markerTopic: string | undefined; uid: string }): Promise<void> {
  const { topics, markerTopic, uid } = wanted;
  const rights = await cluster.rights(markerTopic === undefined ? topics : [...topics, markerTopic]);
  const missing: string[] = [];
  for (const topic of topics) if (rights.get(topic)?.write === false) missing.push(`Write on the topic '${topic}'`);
  if (markerTopic !== undefined) {
    const marker = rights.get(markerTopic);
    if (marker?.read === false) missing.push(`Read on the marker topic '${markerTopic}'`);
    if (marker?.write === false) missing.push(`Write on the marker topic '${markerTopic}'`);
  }
  if (missing.length > 0) throw forbidden(`The sink '${uid}'`, missing, uid);
}

async function prepareMarkerTopic(cluster: Cluster, topic: string, uid: string, log: Logger): Promise<void> {
  if (!(await cluster.metadata([topic])).has(topic)) {
    try {
      const created = await cluster.createTopic(topic, {
        partitions: MARKER_PARTITIONS,
        // Small segments, so that old markers are compacted away: the newest segment of a partition never is.
        configs: { 'cleanup.policy': 'compact', 'segment.bytes': String(16 << 20), 'min.cleanable.dirty.ratio': '0.1' },
      });
      if (created) log.info({ uid, topic }, 'The marker topic was created.');
    } catch (error) {
      if (codeOf(error) !== 'KAFKA_FORBIDDEN') throw error;
      throw forbidden(`The sink '${uid}'`, [`Create on the marker topic '${topic}', which is not there,`], uid, error);
    }
  }
  let policy: string | undefined;
  try {
    policy = (await cluster.topicConfigs(topic)).get('cleanup.policy');
  } catch (error) {
    if (codeOf(error) !== 'KAFKA_FORBIDDEN') throw error;
    log.warn({ uid, topic, error: messageOf(error) }, 'Whether the marker topic is compacted cannot be looked up; it must be.');
    return;
  }
  if (policy === 'compact') return;
  throw new MillraceError(
    'KAFKA_MARKER_TOPIC',
    `The marker topic '${topic}' of the sink '${uid}' has the cleanup policy '${policy}': its markers would expire.`,
    {
      todo: 'Set cleanup.policy=compact for it, and nothing else, or name another one with markerTopic; one that does not exist is made as it must be.',
      uid,
    },
  );
}

async function grantedTimeout(cluster: Cluster, { transactionTimeout: asked, uid, log }: SessionOptions): Promise<number> {
  let max: number;
  try {
    max = Number((await cluster.brokerConfigs()).get('transaction.max.timeout.ms'));
  } catch (error) {
    if (codeOf(error) !== 'KAFKA_FORBIDDEN') throw error;
    log.warn({ uid, error: messageOf(error) }, 'How long the broker lets a transaction be open cannot be looked up.');
    return asked ?? TRANSACTION_TIMEOUT_MS;
  }
  if (!Number.isFinite(max)) return asked ?? TRANSACTION_TIMEOUT_MS;
  if (asked === undefined || asked <= max) return Math.min(asked ?? TRANSACTION_TIMEOUT_MS, max);
  throw new MillraceError('KAFKA_TRANSACTION_TIMEOUT', `The sink '${uid}' asks for transactions of ${asked} ms, and the broker grants ${max}.`, {
    todo: "Make transactionTimeout smaller, or raise the broker's transaction.max.timeout.ms.",
    uid,
  });
}
