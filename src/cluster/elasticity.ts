// When a job is rescaled because workers come and go: pure.
//
// Invariants:
//  E1  As many instances as there are slots, within the range. With fewer slots than `min` nothing is decided: the job waits for workers.
//  E2  What there is room for must have stayed the same for the stabilisation time, and so long must the last rescale lie back: workers that flap cause none while they do.

import type { Range } from '../graph/parallelism.ts';

/** Milliseconds. */
export const STABILISATION_MS = 10_000;

export interface Room {
  /** How many instances there is room for; undefined: for fewer than `min`. */
  readonly target: number | undefined;
  /** Since when, by a clock that never goes back. */
  readonly since: number;
}

export function targetOf({ min, max }: Range, slots: number): number | undefined {
  return slots < min ? undefined : Math.min(max, slots);
}

/** What is known behind a change of the slots. */
export function seen(before: Room | undefined, range: Range, slots: number, now: number): Room {
  const target = targetOf(range, slots);
  return before !== undefined && before.target === target ? before : { target, since: now };
}

export type Scaling = { readonly kind: 'stay' } | { readonly kind: 'wait'; readonly ms: number } | { readonly kind: 'rescale'; readonly to: number };

/** `rescaledAt`: when the job was rescaled, or restarted with another parallelism, last; its start counts. */
export function decideScaling(
  room: Room,
  { current, rescaledAt, now, stabilisationMs = STABILISATION_MS }: { current: number; rescaledAt: number; now: number; stabilisationMs?: number },
): Scaling {
  if (room.target === undefined || room.target === current) return { kind: 'stay' };
  const due = Math.max(room.since, rescaledAt) + stabilisationMs;
  return now < due ? { kind: 'wait', ms: due - now } : { kind: 'rescale', to: room.target };
}
