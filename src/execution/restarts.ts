// Whether and when a region restarts after a failure: pure (OTP's intensity, exponential backoff).
//
// Invariants:
//  R1  What a program does wrong counts against its budget. A machine or a network that is lost is no fault of the program's: such a restart never uses up the budget,
//      and is not held up by restarts that do. How many in a row may be is another question (losses.ts).
//  R2  Losses wait too, by how many there were of late, so that a worker that comes and goes does not keep all others busy with opening.

import type { Backoff, RunOptions } from '../graph/job.ts';
import { DEFAULT_WAITS, waitBefore } from '../time/backoff.ts';

export interface RestartPolicy {
  readonly max: number;
  readonly within: number;
  readonly backoff: Required<Backoff>;
}

/** What is said of restarts, with what is meant where nothing is. */
export function policyOf(restarts: RunOptions['restarts']): RestartPolicy | false {
  if (restarts === false) return false;
  return { ...DEFAULT_RESTARTS, ...restarts, backoff: { ...DEFAULT_RESTARTS.backoff, ...restarts?.backoff } };
}

export const DEFAULT_RESTARTS: RestartPolicy = { max: 5, within: 600_000, backoff: DEFAULT_WAITS };

/** Losses count for their wait for so long. */
const OF_LATE_MS = 60_000;

export interface RestartFacts {
  readonly now: number;
  /** When it was restarted before, of what counts; one counts while it is not older than `within`. */
  readonly stamps: readonly number[];
  /** When it was restarted before because a machine or a network was lost; none by default. */
  readonly losses?: readonly number[];
  readonly retryable: boolean;
  /** R1. */
  readonly lost?: boolean;
  /** In [0, 1). */
  readonly random: number;
}

export type RestartDecision =
  | { readonly kind: 'restart'; readonly stamps: readonly number[]; readonly losses: readonly number[]; readonly afterMs: number }
  | { readonly kind: 'give up' };

export function decideRestart(policy: RestartPolicy | false, facts: RestartFacts): RestartDecision {
  if (policy === false || !facts.retryable) return { kind: 'give up' };
  const { losses: lostBefore = [], lost = false } = facts;
  if (lost) {
    const losses = [...lostBefore.filter((at) => at >= facts.now - OF_LATE_MS), facts.now];
    return { kind: 'restart', stamps: facts.stamps, losses, afterMs: waitBefore(losses.length, policy.backoff, facts.random) };
  }
  const stamps = [...facts.stamps.filter((stamp) => stamp >= facts.now - policy.within), facts.now];
  if (stamps.length > policy.max) return { kind: 'give up' };
  return { kind: 'restart', stamps, losses: lostBefore, afterMs: waitBefore(stamps.length, policy.backoff, facts.random) };
}
