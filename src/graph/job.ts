// What a job is told and what it tells: options, status, results, events. Data only; the executor gives them meaning.

import type { StateBackend } from '../../state-backends/index.ts';
import type { Logger } from './context.ts';
import type { CheckpointStorage } from './storage.ts';

/** What `keyBy` may return; keys are compared by value. */
export type Key = string | number | bigint | boolean | readonly Key[];

/** The wait before the n-th restart that counts: `min(max, initial × factor^(n − 1))`, spread by the jitter. */
export interface Backoff {
  /** Milliseconds before the first restart. */
  initial: number;
  /** Milliseconds, the longest wait. */
  max: number;
  /** 2 by default. */
  factor?: number;
  /** The share by which a wait is shortened or lengthened at random, 0.1 by default. */
  jitter?: number;
}

/** Where and how often a job is made durable. */
export interface CheckpointOptions {
  /** Everything of a job lies in `<directory>/<job>/`; with `storage` only its registry does, which needs a local disk. */
  directory: string;
  /** Where the bytes of checkpoints go: `s3()` or `directory()` of `millrace/storage`, or one of your own. In `directory` by default. */
  storage?: CheckpointStorage;
  /** Milliseconds from the trigger of one to that of the next, and from the start to the first, 10,000 by default; Infinity: only those that are asked for. */
  every?: number;
  /** Milliseconds after which a checkpoint that is not complete is aborted, 600,000 by default. */
  timeout?: number;
  /** Least milliseconds between the completion of one and the trigger of the next, 0 by default. */
  minPause?: number;
  /** How many completed checkpoints are kept, 3 by default; the newest always is. */
  retain?: number;
  /** `at-least-once` waits for no slow input: state then counts some records twice after a restart. `exactly-once` by default. */
  mode?: 'exactly-once' | 'at-least-once';
  /** Read back and checksum every file before the checkpoint is registered; by default true in a directory, false where the storage compares checksums itself. */
  verify?: boolean;
  /**
   * What a checkpoint does about records that stand in front of its barrier where a job is held up. False, the default: it waits until they are processed. True: it
   * takes them along and waits for none. `{ after }`: it waits for so many milliseconds from its trigger, then as true. Savepoints and the last checkpoint of a
   * `stop` always wait; so does every checkpoint on edges without an exchange, and on broadcast ones. Only with `exactly-once`, else OPTION_INVALID.
   */
  unaligned?: boolean | { after: number };
  /** So many checkpoints may fail after the last that did not; one more, and the regions restart from that. 0 by default. docs/checkpoints.md says which count. */
  tolerate?: number;
}

/** What requests to the control door must have: one token for everything, or one for each role. */
export interface ControlTokens {
  /** Looks: jobs, tree, metrics, checkpoints, state. Where there is none, looking needs that of `operate`. */
  read?: string;
  /** Looks and acts: checkpoint, savepoint, rescale, stop, cancel. Where there is none, nobody acts through the door. */
  operate?: string;
}

/** Processes that know of each other: `zookeeper({ connect })` of `millrace/zookeeper`. */
export interface Cluster {
  readonly kind: string;
}

/** Mutual TLS between workers: each side shows a certificate that the cluster's authority has signed. Host names are not looked at. */
export interface TlsOptions {
  /** Path of the certificate, PEM. */
  readonly cert: string;
  /** Path of its private key, PEM. */
  readonly key: string;
  /** Path of the authority's certificates, PEM: whoever has one of theirs is a worker. */
  readonly ca: string;
  /** Of the private key. */
  readonly passphrase?: string | undefined;
  /** Milliseconds between two looks at the files; default a minute. */
  readonly reload?: number | undefined;
}

/** This process in a cluster. */
export interface WorkerOptions {
  /** How many instances of one operator it takes; 1 by default. */
  slots?: number;
  /** Where it listens for other workers; 127.0.0.1 by default. Beyond this machine a `secret` or `tls` is needed. */
  host?: string;
  /** A free one by default. */
  port?: number;
  /** The name or address by which other workers reach it; `host` by default. */
  advertise?: string;
  /** A folder of this machine, in which `millrace worker --state level` keeps state. In a program `level({ directory })` says where. */
  data?: string;
  /** Of the cluster: the same for all workers. It does not hide what they send. */
  secret?: string;
  /** What workers show each other, and how they encrypt; none by default. */
  tls?: TlsOptions;
}

/** How a job runs; each overrides the job's default of the same name. */
export interface RunOptions {
  /**
   * Parallel instances of each operator that does not say otherwise; 1 by default. A range is for a cluster: as many as its workers have slots for, within it, and
   * rescaled when workers come and go. In one process it is its `min`.
   */
  parallelism?: number | { min: number; max: number };
  /** Number of key groups: the power of two at or above 1.5 × parallelism, at least 128; fixed by the first snapshot. */
  maxParallelism?: number;
  /** Of the program; part of the plan's hash. In a cluster replicas with another one stand by; default there: a hash of the module's code. */
  version?: string;
  /** Run in so many threads of this process beside this one, which then only supervises; 0 by default: in this thread. Needs `module`. */
  threads?: number;
  /** The address of the module whose default export the job is (`import.meta.url`), for threads, which build the job from it. */
  module?: string | URL;
  /**
   * The replicas that run the job together, once: `zookeeper({ connect })` of `millrace/zookeeper`. Each that starts the job with it is a worker, and one of them leads.
   * Needs `module`, and `checkpoints` where all of them reach the same folder or storage. The guide is docs/cluster.md.
   */
  cluster?: Cluster;
  /** This process in that cluster. The first start of a process counts. */
  worker?: WorkerOptions;
  /** Where keyed state is kept while the job runs; `memory()` by default. */
  state?: StateBackend;
  /** False by default. */
  checkpoints?: CheckpointOptions | false;
  /** `latest`, the default: where a run that failed, was killed or stopped left off. */
  restore?:
    | 'latest'
    | 'none'
    | {
        /** The id of a retained checkpoint, the path of one, or that of a savepoint: its folder, or the metadata in it. */
        from: string | number;
        /** Drop the state of operators that the program does not have any more; false by default: then the start is refused. */
        allowNonRestoredState?: boolean;
        /** The savepoint becomes the job's, which removes it once it has a checkpoint of its own; false by default: nothing in it is changed. */
        claim?: boolean;
      };
  /** At most `max` restarts `within` so many milliseconds. With checkpoints 5 within 600,000, waiting 100 to 10,000; without them none. */
  restarts?: { max: number; within: number; backoff?: Backoff } | false;
  /**
   * Listens for the command and for probes: on 127.0.0.1 and a free port unless said otherwise. A string as `token` is for everything; see ControlTokens for roles. Without
   * one whoever reaches the port may do everything, and only hosts of this machine are taken (OPTION_INVALID). False by default.
   */
  control?: { host?: string; port?: number; token?: string | ControlTokens } | false;
  /** Told of changes of the status, checkpoints, restarts and dead letters; in a cluster of all but the status only where the leader is. */
  onEvent?: (event: JobEvent) => void;
  /** Silent by default. */
  logger?: Logger;
  /** Its abort is `cancel()`; in a cluster this process only leaves, and the job goes on elsewhere. */
  signal?: AbortSignal;
  /** Wait for another process that runs the job to end, instead of failing with JOB_ALREADY_RUNNING; false by default. */
  wait?: boolean;
}

/** The last four are ends. */
export type JobStatus = 'starting' | 'running' | 'restarting' | 'stopping' | 'finished' | 'stopped' | 'cancelled' | 'failed';

/** A completed checkpoint. */
export interface CheckpointInfo {
  /** Rises within a job. */
  id: number;
  /** The metadata file; `restore: { from }` takes it. */
  path: string;
  /** Of all files that the checkpoint names. */
  bytes: number;
  /** Epoch milliseconds. */
  startedAt: number;
  durationMs: number;
}

/** A completed savepoint. Its `path` is the folder. */
export interface SavepointInfo extends CheckpointInfo {}

/** How a job ended that did not fail. */
export interface JobResult {
  readonly status: 'finished' | 'stopped' | 'cancelled';
  /** The error that ended a job whose policy is `stop`. */
  readonly cause?: unknown;
  /** The last one. */
  readonly checkpoint?: CheckpointInfo;
  /** The one that `stop({ savepoint })` asked for. */
  readonly savepoint?: SavepointInfo;
  /** How often a part of it was restarted. */
  readonly restarts: number;
}

/** What `run()` and `finished` of a failed job reject with; an error of user code is its `cause`. */
export interface JobError extends Error {
  readonly code: string;
  /** The operator that failed. */
  readonly uid?: string;
  /** Whether starting the job again can help. */
  readonly retryable: boolean;
}

/** What `onEvent` is told. */
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

/** What becomes of a record whose function throws: back to the last checkpoint, a dead letter, a stop before the record, or the job fails at once. */
export type ErrorPolicy = 'restart' | 'skip' | 'stop' | 'escalate';
/** Chooses by the error; `attempt` counts the job's starts and restarts, from 1. */
export type PolicyFn = (error: unknown, context: { uid: string; record: unknown; key?: Key; attempt: number }) => ErrorPolicy;

/** A record that failed under `skip`, or that did not decode. */
export interface DeadLetter {
  /** The operator that refused it. */
  readonly uid: string;
  /** Of a source: the bytes. */
  readonly record: unknown;
  readonly key: Key | undefined;
  /** The record's, in epoch milliseconds; NaN: none. */
  readonly timestamp: number;
  /** When it failed, in epoch milliseconds. */
  readonly at: number;
  readonly error: { readonly name: string; readonly message: string; readonly code?: string; readonly stack?: string };
  /** The newest completed one at that time. */
  readonly checkpoint: number | undefined;
}

/** One figure of a running job. */
export interface MetricSample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

/** An actor of the job. */
export interface TreeNode {
  name: string;
  path: string;
  kind: string;
  state: string;
  restarts: number;
  /** Messages that wait. */
  mailbox: number;
  metrics?: Record<string, number | null>;
  snapshot?: unknown;
  children: TreeNode[];
}
