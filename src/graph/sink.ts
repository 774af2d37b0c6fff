// The contracts of sinks: the plain one (at-least-once) and the transactional one (exactly-once).
//
// A transactional writer has an identity { uid, lineage, writer } that survives restarts and rescaling (protocols 5). The order on restore, for
// each identity: `open` fences older attempts, `lastCommitted` is read, pending segments above it are committed in order, then records flow.

import type { Logger, Metrics } from './context.ts';

/** What `open` is given. */
export interface SinkContext {
  readonly uid: string;
  /** The job's name. */
  readonly job: string;
  /** The writer's name, stable across restarts; with `uid` and `lineage` its identity. */
  readonly writer: string;
  /** Random, drawn when a job begins without a snapshot; kept by `restore: 'latest'`. `[a-z0-9]+`. */
  readonly lineage: string;
  /** Rises with every start and every restart of a region; what an older attempt does late must not count. */
  readonly attempt: number;
  /** What `snapshot?()` gave, from the restored checkpoint. */
  readonly restored: unknown;
  /** Aborted when the attempt ends. */
  readonly signal: AbortSignal;
  readonly log: Logger;
  readonly metrics: Metrics;
}

/** Where records go, at least once: after a restart, those since the last checkpoint come again. */
export interface Sink<T> {
  /** Once for each parallel instance and attempt. */
  open(context: SinkContext): Promise<SinkWriter<T>>;
}
/** One open instance of a sink. */
export interface SinkWriter<T> {
  /** Timestamps are epoch milliseconds, NaN where a record has none. Called in order, never twice at once; a promise holds the next call back. */
  write(values: readonly T[], timestamps: readonly number[]): void | Promise<void>;
  /** Before each checkpoint and at the end: resolves when all that was written is safe. */
  flush(): Promise<void>;
  /** Once, also after a failure. */
  close(): Promise<void>;
}

/** Where records go, exactly once: the runtime keeps what was encoded in its checkpoints and commits it when they are complete. */
export interface TransactionalSink<T, E = unknown> {
  readonly transactional: true;
  /** Bytes of uncommitted segments beyond which, with more than two of them, a writer is given no more records until it has committed; 256 MiB by default. */
  readonly pendingBytes?: number | undefined;
  /** Once for each writer and attempt. From then on, writers of older attempts must fail. */
  open(context: SinkContext): Promise<TransactionalWriter<T, E>>;
}
/** One open writer of a transactional sink. */
export interface TransactionalWriter<T, E = T> {
  /** When the record arrives; plain data and bytes. Default: the value itself. */
  encode?(value: T, timestamp: number): E;
  /** Before what was encoded goes into a checkpoint, from which it must be committed whatever comes: rejects where it never can be. */
  checked?(): Promise<void>;
  /**
   * Stores the records and the id atomically. Never called for a checkpoint without records, never twice at once, ids rising.
   */
  commit(checkpointId: number, records: Iterable<E>): Promise<void>;
  /**
   * The end of a drained or finished job, after the last commit has resolved, also where the last checkpoint had no records for this writer:
   * whatever it still holds back (an open file) is published. Idempotent.
   */
  finish?(): Promise<void>;
  /** Plain data kept with the writer's pending records, given back as `context.restored`. */
  snapshot?(): unknown;
  /** The newest id whose commit is known to have happened; 0: none yet. */
  lastCommitted(): Promise<number>;
  /**
   * The newest id of which anything is stored, where a commit is several transactions of the writer's own: of two checkpoints, one that is stored in part cannot be
   * passed over any more than one that is stored as a whole. By default that of `lastCommitted`.
   */
  lastBegun?(): Promise<number>;
  close(): Promise<void>;
}

export function isTransactional<T>(sink: Sink<T> | TransactionalSink<T>): sink is TransactionalSink<T> {
  return (sink as Partial<TransactionalSink<T>>).transactional === true;
}
