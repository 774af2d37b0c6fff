// Restart decisions, as pure functions from facts to answers.
//
// Stamps are milliseconds of the system's clock; a stamp counts while `stamp >= now − within` (OTP's period is inclusive).

import { type ExitReason, isAbnormal } from './exit-reason.ts';

export type RestartType = 'permanent' | 'transient' | 'temporary';
export type Strategy = 'one-for-one' | 'one-for-all' | 'rest-for-one';

export interface Intensity {
  max: number;
  within: number;
}

export interface Backoff {
  initial: number;
  max: number;
  factor: number;
  jitter: number;
}

/** OTP's default: one restart in five seconds. */
export const DEFAULT_INTENSITY: Intensity = { max: 1, within: 5000 };

export function callsForRestart(restart: RestartType, reason: ExitReason): boolean {
  if (restart === 'permanent') return true;
  return restart === 'transient' && isAbnormal(reason);
}

/** The stamps that count after one more try at `now`, and whether they are too many. */
export function countRestart(stamps: readonly number[], now: number, intensity: Intensity): { stamps: number[]; exceeded: boolean } {
  const counted = [...stamps.filter((stamp) => stamp >= now - intensity.within), now];
  return { stamps: counted, exceeded: counted.length > intensity.max };
}

/** How many restarts in a row this one is: 1 again once the child has run for `max` ms. */
export function restartsInRow(previous: number, ranMs: number | undefined, backoff: Backoff): number {
  return ranMs !== undefined && ranMs >= backoff.max ? 1 : previous + 1;
}

export function backoffDelay(backoff: Backoff, inRow: number, random: () => number): number {
  const wait = Math.min(backoff.max, backoff.initial * backoff.factor ** (inRow - 1));
  return wait * (1 - backoff.jitter + 2 * backoff.jitter * random());
}

/** The places of the children that one restart takes with it, the failed one included, in start order. */
export function restartGroup(strategy: Strategy, failed: number, count: number): number[] {
  const all = Array.from({ length: count }, (_, place) => place);
  if (strategy === 'one-for-all') return all;
  return strategy === 'rest-for-one' ? all.slice(failed) : [failed];
}

/** Whether the end of a significant child, by itself and without a restart, ends its supervisor. */
export function endsSupervisor(autoShutdown: 'never' | 'any-significant' | 'all-significant', otherSignificantAlive: boolean): boolean {
  if (autoShutdown === 'any-significant') return true;
  return autoShutdown === 'all-significant' && !otherSignificantAlive;
}
