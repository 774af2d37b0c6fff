// What a sink knows of the topics it writes to: how many partitions they have, and how large a record may be.
//
// Asked when a sink opens and again before each commit, so that a topic that has grown is used. What stands here is read without waiting while records are encoded.

import { codeOf, MillraceError, messageOf } from '../../errors.ts';
import type { Logger } from '../../graph/context.ts';
import type { Cluster } from './client.ts';

export interface KnownTopic {
  readonly partitions: number;
  /** `max.message.bytes`; undefined where we may not ask. */
  readonly maxBytes: number | undefined;
}

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

  /** Asks again for those that are known, and for these. Throws KAFKA_TOPIC_MISSING. */
  async refresh(topics: Iterable<string>, uid: string): Promise<void> {
    const names = [...new Set([...topics, ...this.#known.keys()])];
    if (names.length === 0) return;
    const found = await this.#cluster.metadata(names);
    for (const name of names) {
      const metadata = found.get(name);
      if (metadata === undefined || metadata.partitions.length === 0) {
        this.#known.delete(name);
        throw new MillraceError('KAFKA_TOPIC_MISSING', `The sink '${uid}' writes to the topic '${name}', which does not exist.`, {
          todo: 'Create it, or correct its name; a sink never creates the topic of its records.',
          uid,
        });
      }
      const before = this.#known.get(name);
      this.#known.set(name, { partitions: metadata.partitions.length, maxBytes: before === undefined ? await this.#maxBytes(name) : before.maxBytes });
    }
  }

  async #maxBytes(topic: string): Promise<number | undefined> {
    try {
      const configs = await this.#cluster.topicConfigs(topic);
      const bytes = Number(configs.get('max.message.bytes'));
      return Number.isFinite(bytes) ? bytes : undefined;
    } catch (error) {
      if (codeOf(error) !== 'KAFKA_FORBIDDEN') throw error;
      this.#log.warn({ topic, error: messageOf(error) }, 'How large a record of the topic may be cannot be looked up: it is not compared before it is sent.');
      return undefined;
    }
  }
}
