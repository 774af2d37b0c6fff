// Watermark generators: one a split, and how a source instance merges those of its splits.
//
// Invariants:
//  G1  What a split and an instance emit only grows; both are part of the snapshot (protocols 13). A timestamp that is NaN moves nothing.
//  G2  Bounded out-of-orderness: watermark = largest timestamp − outOfOrderness − 1.
//  G3  An idle split does not hold the instance back, and neither does one that has ended; an instance all of whose splits are idle or have ended is idle,
//      and says the largest they have reached.

import type { WatermarkGenerator, WatermarkStrategy } from '../graph/node.ts';
import { IdleTimer } from './idle-timer.ts';

/** A generator that also says whether its split is idle, where no wait decides it. */
export interface CommandedGenerator extends WatermarkGenerator<unknown> {
  readonly idle: boolean;
}

/** What of a split's event time is stored in a snapshot. */
export interface SplitTime {
  readonly maxTimestamp: number;
  readonly watermark: number;
}

export class SplitClock {
  /** Largest timestamp seen. Written by the source's generated loop. */
  maxTimestamp: number;
  watermark: number;
  idle = false;
  readonly timer: IdleTimer;
  #ended = false;
  readonly #bound: number;
  readonly #custom: (WatermarkGenerator<unknown> & Partial<CommandedGenerator>) | undefined;

  constructor(strategy: WatermarkStrategy<unknown>, now: number, restored?: SplitTime) {
    this.#bound = strategy.outOfOrderness ?? 0;
    this.#custom = strategy.generator?.();
    this.timer = new IdleTimer(strategy.idleness ?? Number.POSITIVE_INFINITY, now);
    this.maxTimestamp = restored?.maxTimestamp ?? Number.NEGATIVE_INFINITY;
    this.watermark = restored?.watermark ?? Number.NEGATIVE_INFINITY;
  }

  /** True where each record must be shown to a custom generator. */
  get perRecord(): boolean {
    return this.#custom !== undefined;
  }

  onRecord(value: unknown, timestamp: number): void {
    this.#raise(this.#custom?.onRecord(value, timestamp));
  }

  /** Lets the generator speak, and looks whether the input is idle; `records`: it had some since the last look, or has some that wait. */
  look(now: number, records: boolean): void {
    if (this.#custom === undefined) this.#raise(this.maxTimestamp - this.#bound - 1);
    else this.#raise(this.#custom.onPeriodic?.(now));
    this.idle = this.#custom?.idle ?? (!records && this.timer.idle(now));
  }

  /** Its split has ended: the generator speaks for the last time, and nobody is held back any more. */
  end(now: number): void {
    if (this.#ended) return;
    this.#ended = true;
    this.look(now, true);
    this.idle = true;
  }

  #raise(to: number | undefined): void {
    if (to !== undefined && to > this.watermark) this.watermark = to;
  }

  store(): SplitTime {
    return { maxTimestamp: this.maxTimestamp, watermark: this.watermark };
  }
}

/** The minimum over splits that are not idle; where all are idle, the maximum. */
export function mergeSplits(clocks: Iterable<SplitClock>): { watermark: number; idle: boolean } {
  let least = Number.POSITIVE_INFINITY;
  let most = Number.NEGATIVE_INFINITY;
  let active = false;
  for (const clock of clocks) {
    most = Math.max(most, clock.watermark);
    if (clock.idle) continue;
    active = true;
    least = Math.min(least, clock.watermark);
  }
  return active ? { watermark: least, idle: false } : { watermark: most, idle: true };
}
