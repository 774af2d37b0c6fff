// Offsets of completed checkpoints, committed to a consumer group so that monitoring can see how far the source is. Nothing reads them but `from: 'group'`.
//
// Invariants:
//  G1  One commit is under way at a time; of those asked for meanwhile only the newest of each partition is made. So a group's offsets never go back by a race.
//  G2  An error is the caller's, who logs it: nothing else depends on it.

import { SILENT } from '../../graph/context.ts';
import { ofSplitId } from './discovery.ts';
import type { SharedConnection, Tenant } from './lease.ts';
import type { KafkaPosition } from './reader.ts';

export class GroupOffsets {
  readonly #group: string;
  readonly #connection: SharedConnection;
  #tenant: Tenant = { uid: '', log: SILENT, signal: new AbortController().signal };
  #waiting = new Map<string, string>();
  #running: Promise<void> | undefined;

  constructor(group: string, connection: SharedConnection) {
    this.#group = group;
    this.#connection = connection;
  }

  /** The calls of completed checkpoints bring no logger. The last commits come when the read, and its signal, are over. */
  speaksWith({ uid, log }: Tenant): void {
    this.#tenant = { ...this.#tenant, uid, log };
  }

  commit(positions: ReadonlyMap<string, KafkaPosition>): Promise<void> {
    for (const [id, { offset }] of positions) this.#waiting.set(id, offset);
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #run(): Promise<void> {
    const lease = await this.#connection.acquire(this.#tenant);
    try {
      while (this.#waiting.size > 0) {
        const offsets = this.#waiting;
        this.#waiting = new Map();
        const byTopic = new Map<string, Map<number, bigint>>();
        for (const [id, offset] of offsets) {
          const { topic, partition } = ofSplitId(id);
          if (!byTopic.has(topic)) byTopic.set(topic, new Map());
          byTopic.get(topic)!.set(partition, BigInt(offset));
        }
        for (const [topic, of] of byTopic) await lease!.cluster.commitGroupOffsets(this.#group, topic, of);
      }
    } finally {
      lease?.release();
    }
  }
}
