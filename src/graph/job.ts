// What a job is told and what it tells: options, status, results, events. Data only; the executor gives them meaning.

import type { StateBackend } from '../../state-backends/index.ts';
import type { Logger } from './context.ts';

export type Key = string | number | bigint | boolean | readonly Key[];

export interface Backoff {
  /** Milliseconds before the first restart. */
  initial: number;
  max: number;
  factor?: number;
  jitter?: number;
}

export interface CheckpointOptions {
  /** Everything of a job lies in `<directory>/<job>/`. */
  directory: string;
  /** Milliseconds between two triggers, 10,000 by default. */
  every?: number;
  /** A checkpoint that is not complete by then is aborted; 10 minutes by default. */
  timeout?: number;
  /** Least milliseconds between the completion of one and the trigger of the next, 0 by default. */
  minPause?: number;
  /** How many completed checkpoints are kept, 3 by default. */
  retain?: number;
  mode?: 'exactly-once' | 'at-least-once';
  /** Read back and checksum every file before the checkpoint is registered; true by default. */
  verify?: boolean;
  /** How many failed checkpoints in a row are tolerated before the job fails, 0 by default. */
  tolerate?: number;
}

export interface RunOptions {
  /** Parallel instances of each operator that does not say otherwise; 1 by default. */
  parallelism?: number | { min: number; max: number };
  /** Number of key groups: the power of two at or above 1.5 × parallelism, at least 128; fixed by the first snapshot. */
  maxParallelism?: number;
  /** Of the program; part of the plan's hash. */
  version?: string;
  state?: StateBackend;
  /** False by default. */
  checkpoints?: CheckpointOptions | false;
  /** Default `latest`: where a run that failed, was killed or stopped left off. */
  restore?: 'latest' | 'none' | { from: string | number; allowNonRestoredState?: boolean; claim?: boolean };
  restarts?: { max: number; within: number; backoff?: Backoff } | false;
  control?: { host?: string; port?: number; token?: string } | false;
  onEvent?: (event: JobEvent) => void;
  /** Silent by default. */
  logger?: Logger;
  signal?: AbortSignal;
  /** Wait for another process that runs the job to end, instead of failing with JOB_ALREADY_RUNNING. */
  wait?: boolean;
}

export type JobStatus = 'starting' | 'running' | 'restarting' | 'stopping' | 'finished' | 'stopped' | 'cancelled' | 'failed';

export interface CheckpointInfo {
  id: number;
  /** The metadata file. */
  path: string;
  /** Of all files that the checkpoint names. */
  bytes: number;
  startedAt: number;
  durationMs: number;
}
export interface SavepointInfo extends CheckpointInfo {}

export interface JobResult {
  readonly status: 'finished' | 'stopped' | 'cancelled';
  /** The error that ended a job whose policy is `stop`. */
  readonly cause?: unknown;
  readonly checkpoint?: CheckpointInfo;
  readonly savepoint?: SavepointInfo;
  readonly restarts: number;
}

/** What `run()` and `finished` of a failed job reject with. */
export interface JobError extends Error {
  readonly code: string;
  readonly uid?: string;
  readonly retryable: boolean;
}

export type JobEvent =
  | {
      type: 'status';
      status: JobStatus;
      /** The checkpoint that this run started from, once that is known; none where it began anew. */
      restoredFrom?: CheckpointInfo;
    }
  | { type: 'checkpoint'; checkpoint: CheckpointInfo }
  | { type: 'checkpoint-failed'; id: number; error: JobError }
  | { type: 'restart'; uid: string; error: JobError; count: number }
  | { type: 'dead-letter'; deadLetter: DeadLetter };

export type ErrorPolicy = 'restart' | 'skip' | 'stop' | 'escalate';
export type PolicyFn = (error: unknown, context: { uid: string; record: unknown; key?: Key; attempt: number }) => ErrorPolicy;

export interface DeadLetter {
  readonly uid: string;
  readonly record: unknown;
  readonly key: Key | undefined;
  readonly timestamp: number;
  readonly at: number;
  readonly error: { readonly name: string; readonly message: string; readonly code?: string; readonly stack?: string };
  readonly checkpoint: number | undefined;
}

export interface MetricSample {
  name: string;
  labels: Record<string, string>;
  value: number;
}
