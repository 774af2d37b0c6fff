// What a leader and its hosts say to each other, as data: it crosses threads and processes by the codec of state.
//
// A part is what one host runs of a region's attempt. Its life: open → opened or refused → start → reports … → stop → stopped → close → closed. One whose leader is gone, and that
// another one goes on with: resume → reports ….

import type { CheckpointMetadata } from '../checkpoint/metadata.ts';
import { CODES, type ErrorCode, MillraceError, messageOf } from '../errors.ts';
import type { AnswerTo, StateQuestion } from '../execution/state-questions.ts';
import type { DeadLetter, ErrorPolicy, MetricSample, TreeNode } from '../graph/job.ts';
import type { TaskMail } from '../runtime/task-contract.ts';
import { TaskFailure } from '../runtime/units.ts';

export interface PartRequest {
  readonly region: number;
  readonly attempt: number;
  readonly lineage: string;
  readonly parallelism: number;
  readonly version: string | undefined;
  /** Of the leader's plan: a host that makes another of the module refuses. */
  readonly planHash: string;
  readonly maxParallelism: number;
  readonly blocking: boolean;
  readonly watermarkEachBatch: boolean;
  readonly metadata: CheckpointMetadata | undefined;
  readonly usedIds: { readonly after: number | undefined; readonly to: number };
  readonly lastCheckpoint: number | undefined;
  /** By task: the number of its host. */
  readonly placement: ReadonlyMap<string, number>;
}

/** `part` names a part at both ends. */
export type LeaderMail =
  | { readonly kind: 'open'; readonly part: string; readonly request: PartRequest }
  | { readonly kind: 'start' | 'resume' | 'stop' | 'close'; readonly part: string }
  | { readonly kind: 'mail'; readonly part: string; readonly task: string; readonly mail: TaskMail }
  | { readonly kind: 'ask'; readonly ask: number; readonly what: 'metrics' | 'tree' | 'beat' }
  /** About the state of a task; answered by `shown`, behind what was asked later where the task takes its time. */
  | { readonly kind: 'look'; readonly ask: number; readonly part: string; readonly task: string; readonly question: StateQuestion };

export type ReportName = 'opened' | 'ack' | 'declined' | 'committed' | 'ended' | 'finished' | 'failed' | 'stopped';

export type HostMail =
  | { readonly kind: 'opened' | 'stopped'; readonly part: string }
  | { readonly kind: 'refused'; readonly part: string; readonly error: ErrorData }
  | { readonly kind: 'closed'; readonly part: string; readonly error?: ErrorData }
  | { readonly kind: 'report'; readonly part: string; readonly task: string; readonly report: ReportName; readonly args: readonly unknown[] }
  /** The link to that host of the same number of times joined is gone: what goes over it cannot go on. */
  | { readonly kind: 'unlinked'; readonly peer: number; readonly by: number; readonly error: ErrorData }
  | { readonly kind: 'letter'; readonly part: string; readonly letter: DeadLetter }
  | { readonly kind: 'answer'; readonly ask: number; readonly value: readonly MetricSample[] | readonly TreeNode[] }
  /** No answer: the part is over, or the task. */
  | { readonly kind: 'shown'; readonly ask: number; readonly answer?: AnswerTo<StateQuestion> | undefined; readonly error?: ErrorData }
  | { readonly kind: 'log'; readonly level: 'debug' | 'info' | 'warn' | 'error'; readonly fields: object; readonly text: string };

/** From a host to another one that it is linked with: to a task there. */
export interface PeerMail {
  readonly part: string;
  readonly task: string;
  readonly mail: TaskMail;
}

/** An error as it crosses: what it says and what it was caused by stay, its class does not. */
export interface ErrorData {
  readonly name: string;
  readonly message: string;
  readonly stack: string | undefined;
  readonly code: string | undefined;
  readonly uid: string | undefined;
  readonly todo: string | undefined;
  readonly retryable: boolean | undefined;
  /** Of a task's failure. */
  readonly policy: Exclude<ErrorPolicy, 'skip'> | undefined;
  readonly cause: ErrorData | undefined;
}

const CAUSES_MAX = 10;

export function errorData(error: unknown, depth = 0): ErrorData {
  const { name, stack, code, uid, todo, retryable, sentence, policy, cause } = (error instanceof Error ? error : {}) as Partial<MillraceError & TaskFailure>;
  const inner = error instanceof TaskFailure ? error.error : cause;
  return {
    name: name ?? 'Error',
    message: sentence ?? messageOf(error),
    stack,
    code,
    uid,
    todo,
    retryable,
    policy,
    cause: inner === undefined || depth === CAUSES_MAX ? undefined : errorData(inner, depth + 1),
  };
}

export function errorOf(data: ErrorData): Error {
  const cause = data.cause === undefined ? undefined : errorOf(data.cause);
  if (data.policy !== undefined) return new TaskFailure(data.policy, cause as MillraceError);
  const { code, uid, todo, retryable } = data;
  if (code !== undefined && Object.hasOwn(CODES, code)) {
    return new MillraceError(code as ErrorCode, data.message, { uid, todo, ...(retryable === undefined ? {} : { retryable }), cause });
  }
  const error = new Error(data.message, cause === undefined ? undefined : { cause });
  error.name = data.name;
  if (data.stack !== undefined) error.stack = data.stack;
  return Object.assign(error, code === undefined ? {} : { code }, retryable === undefined ? {} : { retryable });
}
