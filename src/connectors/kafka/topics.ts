// What a sink knows of the topics it writes to: how many partitions they have, and which records they take.
//
// Asked when a sink opens and again before each commit, so that a topic that has grown is used. What stands here is read without waiting while records are encoded.

import { codeOf, MillraceError, messageOf } from '../../errors.ts';
import type { Logger } from '../../graph/context.ts';
import type { Cluster } from './client.ts';

/** Undefined: it has no limit, or we may not ask. */
export interface TopicLimits {
  /** `max.message.bytes`. */
  readonly maxBytes: number | undefined;
  /** How long before the time at which a record arrives its timestamp may lie, and how long after it, ms. */
  readonly beforeMs: number | undefined;
  readonly afterMs: number | undefined;
}

export interface KnownTopic extends TopicLimits {
  readonly partitions: number;
}

/** By job and uid. */
const MET = new Map<string, Set<string>>();

/**
 * Topics that the function of a sink has named in this process, in any attempt: a sink is made anew for each of them, and one that failed for a record of a topic that
 * it did not know is not to meet it as unprepared again.
 */
export function metBy({ job, uid }: { readonly job: string; readonly uid: string }): Set<string> {
  const name = JSON.stringify([job, uid]);
  const met = MET.get(name) ?? new Set<string>();
  MET.set(name, met);
  return met;
}

const NOT_KNOWN: TopicLimits = { maxBytes: undefined, beforeMs: undefined, afterMs: undefined };

export class Topics {
  readonly #cluster: Cluster;
  readonly #log: Logger;
  readonly #known = new Map<string, KnownTopic>();

  constructor(cluster: Cluster, log: Logger) {
    this.#cluster = cluster;
    this.#log = log;
  }

  get(topic: string): KnownTopic | undefined {
    return this.#known.get(topic);
  }

  get names(): string[] {
    return [...this.#known.keys()];
  }

  /** Asks for these, of which some may not be there any more. */
  async recall(topics: Iterable<string>): Promise<void> {
    const names = [...topics];
    if (names.length === 0) return;
    for (const [name, { partitions }] of await this.#cluster.metadata(names)) {
      if (partitions.length > 0) this.#known.set(name, { partitions: partitions.length, ...(await this.#limits(name)) });
    }
  }

  /** Asks again for those that are known, and for these, which must be there: throws KAFKA_TOPIC_MISSING. Of the others one may be gone that nobody writes to any more. */
  async refresh(topics: Iterable<string>, uid: string): Promise<void> {
    const wanted = new Set(topics);
    const names = [...new Set([...wanted, ...this.#known.keys()])];
    if (names.length === 0) return;
    const found = await this.#cluster.metadata(names);
    for (const name of names) {
      const metadata = found.get(name);
      if (metadata === undefined || metadata.partitions.length === 0) {
        this.#known.delete(name);
        if (!wanted.has(name)) continue;
        throw new MillraceError('KAFKA_TOPIC_MISSING', `The sink '${uid}' writes to the topic '${name}', which does not exist.`, {
          todo: 'Create it, or correct its name; a sink never creates the topic of its records.',
          uid,
        });
      }
      const before = this.#known.get(name);
      this.#known.set(name, { ...(before ?? (await this.#limits(name))), partitions: metadata.partitions.length });
    }
  }

  async #limits(topic: string): Promise<TopicLimits> {
    try {
      return limitsOf(await this.#cluster.topicConfigs(topic));
    } catch (error) {
      if (codeOf(error) !== 'KAFKA_FORBIDDEN') throw error;
      this.#log.warn({ topic, error: messageOf(error) }, 'Which records the topic takes cannot be looked up: they are not compared before they are sent.');
      return NOT_KNOWN;
    }
  }
}

/** Pure. */
export function limitsOf(configs: ReadonlyMap<string, string>): TopicLimits {
  const limit = (name: string): number | undefined => {
    const value = Number(configs.get(name));
    // The largest number that brokers know stands for none.
    return value <= Number.MAX_SAFE_INTEGER ? value : undefined;
  };
  const maxBytes = limit('max.message.bytes');
  if (configs.get('message.timestamp.type') === 'LogAppendTime') return { ...NOT_KNOWN, maxBytes };
  // Before Kafka 3.6 there was one for both.
  const both = configs.has('message.timestamp.after.max.ms') ? undefined : limit('message.timestamp.difference.max.ms');
  return { maxBytes, beforeMs: limit('message.timestamp.before.max.ms') ?? both, afterMs: limit('message.timestamp.after.max.ms') ?? both };
}
