// The contract of a source: splits, and for each split a stream of batches with the position where reading resumes.
//
// Who calls what: `splits` runs in one place for each source and attempt (instance 0); `read` in the instance that was given the split; a source
// object is shared by all instances of a host and must keep what belongs to one read inside that read.

import type { Logger, Metrics } from './context.ts';

/** What `splits` is given. */
export interface SourceContext {
  readonly uid: string;
  /** Aborted when the attempt ends: every wait inside a source listens to it. */
  readonly signal: AbortSignal;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Parallel instances of this source. */
  readonly parallelism: number;
  /** Ids of the splits that the restored snapshot knows, finished ones included. */
  readonly known: ReadonlySet<string>;
  /** By id: where reading ended in those of them that were read to their end. */
  readonly ended: ReadonlyMap<string, unknown>;
}

/** What `read` is given. */
export interface ReadContext extends Omit<SourceContext, 'known' | 'ended'> {
  /** Which of the parallel instances reads, from 0. */
  readonly subtask: number;
  /** Keeps an undecodable record (its bytes) and the error as a dead letter of this source; reading goes on. */
  deadLetter(record: unknown, error: unknown): void;
}

/** Records that go on together. */
export interface SourceBatch<T, Position> {
  values: T[];
  /** Epoch milliseconds, one a value; NaN: none. */
  timestamps?: number[];
  /** Where reading resumes *after all of* `values`; plain data. */
  position: Position;
}

/** Where records come from: splits that are read side by side, each from a position on. */
export interface Source<T, Split = unknown, Position = unknown> {
  /** True: its splits and their records end; the job then finishes by itself. */
  readonly bounded: boolean;
  /** An array: all there are. An iterable: more are found while it runs (a list may repeat known splits). */
  splits(context: SourceContext): Promise<Split[]> | AsyncIterable<Split[]>;
  /** Stable and unique: the name of the split in snapshots. */
  splitId(split: Split): string;
  /** From `position` on, or from the beginning where it is undefined. Never called twice at once for one split. */
  read(split: Split, from: Position | undefined, context: ReadContext): AsyncIterable<SourceBatch<T, Position>>;
  /**
   * After a checkpoint has completed: the positions that it holds, by split id of this instance. It may be skipped for a checkpoint, and what it does is not waited for.
   */
  onCheckpointComplete?(positions: Map<string, Position>): Promise<void>;
}

/** A source that the program feeds while the job runs: it is told of the job's end, which it cannot tell from a restart by itself. */
export interface EndsWithJob {
  jobEnded(): void;
}

export function endsWithJob(source: object): source is EndsWithJob {
  return typeof (source as Partial<EndsWithJob>).jobEnded === 'function';
}

/** A source whose records have no timestamps unless a strategy gives them some; of any other it is not known before it runs. */
export interface WithoutTimestamps {
  readonly assignsTimestamps: false;
}

export function assignsTimestamps(source: object): boolean {
  return (source as Partial<WithoutTimestamps>).assignsTimestamps !== false;
}
