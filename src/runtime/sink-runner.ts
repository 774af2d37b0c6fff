// What a task asks of the sinks in its chain, whatever their kind. Implemented by `PlainSink` and `TransactionalSinkRunner`.
//
// Invariant: nothing reaches a writer inside a unit; `rollback` forgets what the unit added.

import { MillraceError, messageOf } from '../errors.ts';
import type { DeadLetter } from '../graph/job.ts';
import type { SinkContext } from '../graph/sink.ts';
import type { Io } from './io.ts';
import type { Participant } from './operator.ts';
import type { WriterSnapshot } from './snapshot.ts';

/** What of a sink belongs into the snapshot of its operator. */
export interface SinkSnapshot {
  readonly writers?: readonly WriterSnapshot[];
  /** Of records in front of the barrier, known only since. */
  readonly letters?: readonly DeadLetter[];
}

export interface SinkRunner extends Participant {
  add(value: unknown, timestamp: number): void;
  open(): Promise<void>;
  /** Between units: hands over what waits. */
  drain(): void;
  /** True where the task must take no more records for now. */
  readonly behind: boolean;
  /** The synchronous part of a barrier. Gives what belongs into the snapshot once what it returns has been uploaded. */
  barrier(id: number): () => Promise<SinkSnapshot>;
  /** Commits up to and including `id`; resolves when that is done. */
  complete(id: number): Promise<void>;
  /** The end of a finished or drained job, after the last commit. */
  finish(): Promise<void>;
  close(): Promise<void>;
  /** Resolves when no call to a writer runs, whatever became of it. */
  settled(): Promise<unknown>;
  /** Records added, for metrics. */
  readonly records: number;
  /** Newest id any of its writers reported as committed when opened. */
  readonly marker: number;
}

export interface SinkOptions {
  readonly uid: string;
  readonly lineage: string;
  readonly context: (writer: string, lineage: string, restored: unknown) => SinkContext;
  readonly io: Io;
  /** The task must look again: a write has resolved. */
  readonly wake: () => void;
  readonly failed: (error: unknown) => void;
}

export function sinkFailed(uid: string, error: unknown): MillraceError {
  if (error instanceof MillraceError && error.code !== 'FAULT_INJECTED') return error;
  return new MillraceError('SINK_FAILED', `The sink '${uid}' failed: ${messageOf(error)}.`, { uid, cause: error });
}
