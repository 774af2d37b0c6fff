// What stands in for every sink of a job that runs under test: a transactional sink in memory, which holds what was committed.
//
// What: a record's own value is what comes out, not a copy that went through the codec: a segment holds numbers of records, and the records stay here. So values
// without a codec can be asserted on too.
//
// Invariant K1: the records of a checkpoint and its id are kept in one step; a commit that is made again under the same id changes nothing.

import type { SinkContext, TransactionalSink } from '../graph/sink.ts';

interface Writer {
  checkpoint: number;
}

export class CommittedSinks {
  /** By uid, in the order of commits. */
  readonly values: Record<string, unknown[]> = {};
  readonly #writers = new Map<string, Writer>();
  readonly #records: unknown[] = [];

  sink(uid: string): TransactionalSink<unknown, number> {
    this.values[uid] ??= [];
    return {
      transactional: true,
      open: async ({ writer: name, lineage }: SinkContext) => {
        const identity = `${uid}/${lineage}/${name}`;
        const writer = this.#writers.get(identity) ?? { checkpoint: 0 };
        this.#writers.set(identity, writer);
        return {
          encode: (value) => this.#records.push(value) - 1,
          commit: async (checkpoint, records) => {
            if (checkpoint <= writer.checkpoint) return;
            for (const record of records) this.values[uid]!.push(this.#records[record]);
            writer.checkpoint = checkpoint;
          },
          lastCommitted: async () => writer.checkpoint,
          close: async () => {},
        };
      },
    };
  }
}
