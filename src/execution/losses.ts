// Worker processes that a job has lost one after the other: pure. A record, or a state, that ends every process that meets it is told from machines that die by that: no
// checkpoint completes between.
//
// Invariants:
//  X1  A process is lost once, however many hosts, regions and links go with it, and whoever led when.
//  X2  A completed checkpoint breaks the row: the job has got somewhere. Where none is taken by itself, time without a loss does.
//  X3  Every worker may be lost once, as when all machines of a service are restarted hard, and beyond that as many as `restarts.max` says.

import { MillraceError } from '../errors.ts';
import type { RunOptions } from '../graph/job.ts';
import { DEFAULT_RESTARTS, policyOf } from './restarts.ts';

/** Plain data: it outlives the leader that counts. */
export interface LossRow {
  /** Ids of the processes, oldest first. */
  readonly workers: readonly string[];
  /** The newest completed checkpoint when the last one was lost, 0 without one; and when that was, by the clock. */
  readonly checkpoint: number;
  readonly at: number;
}

export interface LossFacts {
  /** The newest completed one; 0: none. */
  readonly checkpoint: number;
  /** Milliseconds, by the clock. */
  readonly now: number;
  /** X2: milliseconds without a loss that break the row; undefined: only a checkpoint does. */
  readonly breaksAfter: number | undefined;
}

export interface LossLimits {
  /** X3: losses beyond one of each worker. */
  readonly max: number;
  /** As of LossFacts. */
  readonly breaksAfter: number | undefined;
}

export function lossLimits({ restarts, checkpoints }: Pick<RunOptions, 'restarts' | 'checkpoints'>): LossLimits {
  const { max, within } = policyOf(restarts) || DEFAULT_RESTARTS;
  const periodic = typeof checkpoints === 'object' && checkpoints.every !== Number.POSITIVE_INFINITY;
  return { max, breaksAfter: periodic ? undefined : within };
}

export const NO_LOSSES: LossRow = { workers: [], checkpoint: 0, at: 0 };

/** X2: what of a row still counts. */
export function rowNow(row: LossRow, { checkpoint, now, breaksAfter }: LossFacts): LossRow {
  const broken = checkpoint > row.checkpoint || (breaksAfter !== undefined && now - row.at > breaksAfter);
  return broken && row.workers.length > 0 ? NO_LOSSES : row;
}

/** X1. The same row where that process has been counted. */
export function withLoss(row: LossRow, worker: string, facts: LossFacts): LossRow {
  const { workers } = rowNow(row, facts);
  if (workers.includes(worker)) return row;
  // Where the newest could not be read, and an older one was gone back to, that one is none that has completed since.
  return { workers: [...workers, worker], checkpoint: Math.max(row.checkpoint, facts.checkpoint), at: facts.now };
}

/** X3. Undefined: it goes on. `workers`: how many there are now. */
export function hopeless(job: string, { workers: lost }: LossRow, max: number, workers: number): MillraceError | undefined {
  if (lost.length <= max + workers) return undefined;
  return new MillraceError('HOST_LOST', `${lost.length} workers of the job '${job}' died one after the other, and no checkpoint completed between.`, {
    retryable: false,
    todo: 'Look at what the last of them have logged: a record, or a state that is too large, ends every process that meets it. Take it out of the way or mend the function, and start the job again; it goes on from its newest checkpoint. In `threads` it costs a thread, and the error names the operator.',
  });
}
