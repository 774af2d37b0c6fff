// The decisions of the checkpoint coordinator, pure: from facts to what to do (semantics 3).

import { MillraceError } from '../errors.ts';
import type { CheckpointOptions } from '../graph/job.ts';
import type { CheckpointStorage } from '../graph/storage.ts';

export interface Timing {
  readonly every: number;
  readonly minPause: number;
}

/**
 * When the next periodic checkpoint is due, given when the last one was triggered and the last one or savepoint completed (undefined: never), all of one clock
 * that never goes back. The first one is due an interval after the start: a process runs one job, and none has to make room for others by chance.
 */
export function nextTrigger(timing: Timing, facts: { startedAt: number; lastTrigger: number | undefined; lastCompletion: number | undefined }): number {
  const byInterval = (facts.lastTrigger ?? facts.startedAt) + timing.every;
  const byPause = facts.lastCompletion === undefined ? byInterval : facts.lastCompletion + timing.minPause;
  return Math.max(byInterval, byPause);
}

export interface TaskFacts {
  readonly name: string;
  readonly finished: boolean;
  /** Names of the tasks that send to it. */
  readonly upstream: readonly string[];
}

/** Barriers start at every running task without a running upstream task (protocols 20). */
export function triggerTargets(tasks: readonly TaskFacts[]): string[] {
  const running = new Set(tasks.filter((t) => !t.finished).map((t) => t.name));
  return tasks.filter((t) => !t.finished && !t.upstream.some((u) => running.has(u))).map((t) => t.name);
}

/** What may begin now. `nothing`: all wait, for the end of what is pending or of what prevents it. */
export type Choice = 'savepoint' | 'requests' | 'last' | 'nothing';

/**
 * What goes first of all that asks for a checkpoint: savepoints, oldest first; what users ask for, all of it together in one checkpoint; the one that follows
 * the end of all input. A periodic one comes behind them: it begins when its time has come and nothing else does. While a drain is asked for there is nothing
 * but that, once all input has ended.
 */
export function chooseRequest(facts: {
  /** One is pending or about to be, or the last one of a stop is complete. */
  readonly occupied: boolean;
  readonly savepoints: number;
  readonly requests: number;
  readonly draining: boolean;
  /** Every task that runs has seen its last record. */
  readonly allEnded: boolean;
}): Choice {
  if (facts.occupied) return 'nothing';
  if (facts.draining) return facts.allEnded ? 'requests' : 'nothing';
  if (facts.savepoints > 0) return 'savepoint';
  if (facts.requests > 0) return 'requests';
  return facts.allEnded ? 'last' : 'nothing';
}

/** How a checkpoint failed: it could not begin, a task declined it, not all acknowledged in time, it could not be written, a region restarts. */
export type FailureKind = 'not begun' | 'declined' | 'expired' | 'not written' | 'region lost';

/**
 * Whether a failure counts against `tolerate`. A restart says itself that something failed. Of a savepoint what tasks decline counts; that its time ran out, or
 * that the folder it was to go to cannot be written, does not: checkpoints are not worse off.
 */
export function failureCounts(kind: FailureKind, savepoint: boolean): boolean {
  if (kind === 'region lost') return false;
  return kind === 'declined' || !savepoint;
}

/** Ids of checkpoints that failed and count, since the last success: each once. */
export function withFailure(failed: ReadonlySet<number>, id: number): ReadonlySet<number> {
  return new Set([...failed, id]);
}

/** A success makes good what failed before it, not what failed since it began. */
export function withSuccess(failed: ReadonlySet<number>, id: number): ReadonlySet<number> {
  return new Set([...failed].filter((each) => each > id));
}

export function isIntolerable(failed: ReadonlySet<number>, tolerate: number): boolean {
  return failed.size > tolerate;
}

/** Ids that are remembered after they have ended. */
const REMEMBERED = 64;

/** Ids of checkpoints that have ended, newest last, with this one. */
export function remembered(ended: readonly number[], id: number): readonly number[] {
  return [...ended, id].slice(-REMEMBERED);
}

/** `late`: for one that has expired, was given up, or is complete; `unknown`: for one that this coordinator knows nothing of. */
export type AckOutcome = 'complete' | 'waiting' | 'duplicate' | 'late' | 'unknown';

/** What an acknowledgement of `task` for checkpoint `id` means. */
export function judgeAck(
  pending: { id: number; waiting: ReadonlySet<string>; acked: ReadonlySet<string> } | undefined,
  id: number,
  task: string,
  ended: readonly number[] = [],
): AckOutcome {
  if (pending === undefined || pending.id !== id) return ended.includes(id) ? 'late' : 'unknown';
  if (pending.acked.has(task)) return 'duplicate';
  if (!pending.waiting.has(task)) return 'unknown';
  return pending.waiting.size === 1 ? 'complete' : 'waiting';
}

/** Which registered checkpoints (ids, oldest first) go when only `retain` are kept. The newest always stays: what comes next is made of its files. */
export function superseded(ids: readonly number[], retain: number): number[] {
  return ids.slice(0, Math.max(0, ids.length - Math.max(1, retain)));
}

/** The next id: used once in the life of a lineage (protocols 7). */
export function nextId(facts: { counter: number; registered: number; restored: number; markers: readonly number[]; last: number }): number {
  return 1 + Math.max(facts.counter, facts.registered, facts.restored, facts.last, 0, ...facts.markers);
}

/** Refuses options that mean nothing. An interval or a timeout of Infinity is none. */
export function checkOptions({ directory, storage, every, timeout, minPause, retain, tolerate }: CheckpointOptions): void {
  const refuse = (name: string, value: unknown, todo: string): never => {
    throw new MillraceError('OPTION_INVALID', `checkpoints: { ${name}: ${String(value)} } has no meaning.`, { todo });
  };
  if (typeof directory !== 'string' || directory === '' || /^[a-z][a-z0-9+.-]+:\/\//i.test(directory))
    refuse(
      'directory',
      directory,
      'Write the path of a folder on a local disk; the bytes of checkpoints may go elsewhere with `storage`, s3() of millrace/storage for one.',
    );
  if (storage !== undefined && typeof (storage as Partial<CheckpointStorage> | null)?.create !== 'function')
    refuse('storage', storage, 'Write s3({ … }) or directory(…) of millrace/storage, or a storage of your own.');
  for (const [name, value] of [
    ['every', every],
    ['timeout', timeout],
  ] as const)
    if (value !== undefined && !(typeof value === 'number' && value > 0)) refuse(name, value, 'Write milliseconds above 0, such as seconds(10).');
  if (minPause !== undefined && !(typeof minPause === 'number' && minPause >= 0 && minPause < Number.POSITIVE_INFINITY))
    refuse('minPause', minPause, 'Write milliseconds from 0.');
  if (retain !== undefined && !(Number.isInteger(retain) && retain >= 1)) refuse('retain', retain, 'Write a whole number from 1: the newest is always kept.');
  if (tolerate !== undefined && !(tolerate === Number.POSITIVE_INFINITY || (Number.isInteger(tolerate) && tolerate >= 0)))
    refuse('tolerate', tolerate, 'Write a whole number from 0, or Infinity.');
}

/** Milliseconds after its trigger from which a checkpoint waits for no slow input any more; undefined: it always does (semantics 2). */
export function patienceOf({ unaligned = false, mode }: Pick<CheckpointOptions, 'unaligned' | 'mode'>): number | undefined {
  if (unaligned === false) return undefined;
  if (mode === 'at-least-once')
    throw new MillraceError('OPTION_INVALID', 'checkpoints: { unaligned } has no meaning with mode at-least-once, which waits for no input anyway.', {
      todo: 'Leave one of them out.',
    });
  if (unaligned === true) return 0;
  const after: unknown = unaligned?.after;
  if (typeof after !== 'number' || !(after >= 0))
    throw new MillraceError('OPTION_INVALID', `checkpoints: { unaligned: ${JSON.stringify(unaligned)} } says no time.`, {
      todo: 'Write true, false, or { after } with milliseconds from 0.',
    });
  return after === Number.POSITIVE_INFINITY ? undefined : after;
}
