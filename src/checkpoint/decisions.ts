// The decisions of the checkpoint coordinator, pure: from facts to what to do (semantics 3).

export interface Timing {
  readonly every: number;
  readonly minPause: number;
}

/** When the next periodic checkpoint is due, given when the last one was triggered and completed (epoch milliseconds; undefined: never). */
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

export type AckOutcome = 'complete' | 'waiting' | 'duplicate' | 'unknown';

/** What an acknowledgement of `task` for checkpoint `id` means. */
export function judgeAck(pending: { id: number; waiting: ReadonlySet<string>; acked: ReadonlySet<string> } | undefined, id: number, task: string): AckOutcome {
  if (pending === undefined || pending.id !== id) return 'unknown';
  if (pending.acked.has(task)) return 'duplicate';
  if (!pending.waiting.has(task)) return 'unknown';
  return pending.waiting.size === 1 ? 'complete' : 'waiting';
}

/** Which registered checkpoints (ids, oldest first) go when only `retain` are kept. The newest always stays. */
export function superseded(ids: readonly number[], retain: number): number[] {
  return ids.slice(0, Math.max(0, ids.length - Math.max(1, retain)));
}

/** The next id: used once in the life of a lineage (protocols 7). */
export function nextId(facts: { counter: number; registered: number; restored: number; markers: readonly number[]; last: number }): number {
  return 1 + Math.max(facts.counter, facts.registered, facts.restored, facts.last, 0, ...facts.markers);
}
