// The sources of a job that is replayed: they read what they would, up to a number of records, and only as fast as somebody looks.
//
// Invariants:
//  S1  A source is told of nothing: no checkpoint completes, and the job does not end for it.
//  S2  Behind the limit a split does not end: event time stays where it is.
//  S3  Records that a snapshot has of a batch that was half emitted come first, and count.
//  S4  A batch has gone into the job when the next one is asked for: then a barrier of its source stands behind it.

import type { CheckpointMetadata } from '../checkpoint/metadata.ts';
import { MillraceError } from '../errors.ts';
import { type Node, nameOf } from '../graph/node.ts';
import { endsWithJob, type Source } from '../graph/source.ts';
import type { SplitSnapshot, TaskSnapshot } from '../runtime/snapshot.ts';

export class Allowance {
  #left: number;
  /** Resolves when all that may be read has been read, and has gone into the job (S4). */
  readonly exhausted: Promise<void>;
  #lastAt: number;
  /** Batches on their way from a source into the job. */
  #held = 0;
  readonly #rests = new Set<string>();
  readonly #now: () => number;
  readonly #room: () => Promise<void>;
  #exhaust!: () => void;

  /** `room`: asked before each batch. */
  constructor(records: number, now: () => number, room: () => Promise<void>) {
    this.#left = records;
    this.#now = now;
    this.#room = room;
    this.#lastAt = now();
    this.exhausted = new Promise((resolve) => {
      this.#exhaust = resolve;
    });
  }

  /** Milliseconds since the last record came; 0 while one is on its way. */
  get idleMs(): number {
    return this.#held + this.#rests.size > 0 ? 0 : this.#now() - this.#lastAt;
  }

  get isExhausted(): boolean {
    return this.#left <= 0;
  }

  /** How many of so many may go. */
  take(records: number): number {
    const taken = Math.min(records, this.#left);
    this.#left -= taken;
    return taken;
  }

  /** Reading begins now. */
  begin(): void {
    this.#lastAt = this.#now();
    this.#look();
  }

  /** Of a split that a snapshot has records of. */
  rest(split: string): void {
    this.#rests.add(split);
  }

  /** The split is read from its position on: what the snapshot had of it has gone. */
  begun(split: string): void {
    this.#rests.delete(split);
    this.#look();
  }

  async hold(): Promise<void> {
    this.#held += 1;
    await this.#room();
  }

  release(): void {
    this.#held -= 1;
    this.#lastAt = this.#now();
    this.#look();
  }

  #look(): void {
    if (this.isExhausted && this.#held + this.#rests.size === 0) this.#exhaust();
  }
}

export function refuseUnreplayable(node: Node): void {
  if (node.step.kind !== 'source' || !endsWithJob(node.step.source)) return;
  throw new MillraceError('REPLAY_REFUSED', `The source '${nameOf(node)}' is fed by the program around the job: its records do not come again.`, {
    uid: nameOf(node),
    todo: 'Only sources that read from a position on can be replayed; look at the state with millrace state instead.',
  });
}

export function replayedSource(source: Source<unknown>, allowance: Allowance): Source<unknown> {
  return {
    ...('assignsTimestamps' in source ? { assignsTimestamps: source.assignsTimestamps } : {}),
    bounded: source.bounded,
    splits: (context) => source.splits(context),
    splitId: (split) => source.splitId(split),
    async *read(split, from, context) {
      const { signal } = context;
      allowance.begun(`${context.uid}/${source.splitId(split)}`);
      const hang = (): Promise<void> => new Promise((resolve) => void signal.addEventListener('abort', () => resolve()));
      if (allowance.isExhausted) return await hang();
      for await (const batch of source.read(split, from, context)) {
        await allowance.hold();
        try {
          if (signal.aborted) return;
          const { values, timestamps, position } = batch;
          const n = allowance.take(values.length);
          if (n === values.length) yield batch;
          else if (n > 0) yield { values: values.slice(0, n), ...(timestamps === undefined ? {} : { timestamps: timestamps.slice(0, n) }), position };
        } finally {
          allowance.release();
        }
        if (allowance.isExhausted) return await hang();
      }
    },
  };
}

/** S3. */
export function withAllowedRest(metadata: CheckpointMetadata, uids: ReadonlySet<string>, allowance: Allowance): CheckpointMetadata {
  const cut = (uid: string, split: SplitSnapshot): SplitSnapshot => {
    const { rest } = split;
    if (rest === undefined) return split;
    allowance.rest(`${uid}/${split.id}`);
    const n = allowance.take(rest.values.length);
    return { ...split, rest: { values: rest.values.slice(0, n), timestamps: rest.timestamps?.slice(0, n) } };
  };
  const tasks = metadata.tasks.map((task): TaskSnapshot => {
    const operators = Object.entries(task.operators).map(([uid, own]) =>
      own.splits === undefined || !uids.has(uid) ? [uid, own] : [uid, { ...own, splits: own.splits.map((split) => cut(uid, split)) }],
    );
    return { ...task, operators: Object.fromEntries(operators) };
  });
  return { ...metadata, tasks };
}
