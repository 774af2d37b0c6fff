// Whether and when a region restarts after a failure: pure (OTP's intensity, exponential backoff).

import type { Backoff } from '../graph/job.ts';
import { DEFAULT_WAITS, waitBefore } from '../time/backoff.ts';

export interface RestartPolicy {
  readonly max: number;
  readonly within: number;
  readonly backoff: Required<Backoff>;
}

export const DEFAULT_RESTARTS: RestartPolicy = { max: 5, within: 600_000, backoff: DEFAULT_WAITS };

export type RestartDecision = { readonly kind: 'restart'; readonly stamps: readonly number[]; readonly afterMs: number } | { readonly kind: 'give up' };

/** `stamps` are the times of earlier restarts; one counts while it is not older than `within`. `random` is in [0, 1). */
export function decideRestart(
  policy: RestartPolicy | false,
  facts: { now: number; stamps: readonly number[]; retryable: boolean; random: number },
): RestartDecision {
  if (policy === false || !facts.retryable) return { kind: 'give up' };
  const stamps = [...facts.stamps.filter((stamp) => stamp >= facts.now - policy.within), facts.now];
  if (stamps.length > policy.max) return { kind: 'give up' };
  return { kind: 'restart', stamps, afterMs: waitBefore(stamps.length, policy.backoff, facts.random) };
}
