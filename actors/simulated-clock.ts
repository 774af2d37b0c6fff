// A clock that stands still until it is moved.
//
// Invariant: timers fire in the order of their instants, those of one instant in the order they were set.

import type { Clock } from './clock.ts';

interface Timer {
  readonly at: number;
  readonly order: number;
  readonly fn: () => void;
}

export class SimulatedClock implements Clock {
  #now = 0;
  #orders = 0;
  /** Sorted by (at, order), the next one last. */
  readonly #timers: Timer[] = [];

  now(): number {
    return this.#now;
  }

  setTimeout(fn: () => void, ms: number): unknown {
    const timer = { at: this.#now + Math.max(0, ms || 0), order: this.#orders++, fn };
    let low = 0;
    let high = this.#timers.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      // A new timer has the highest order: among equal instants it stands before all, which is fired after all.
      if ((this.#timers[middle] as Timer).at > timer.at) low = middle + 1;
      else high = middle;
    }
    this.#timers.splice(low, 0, timer);
    return timer;
  }

  clearTimeout(id: unknown): void {
    const index = this.#timers.indexOf(id as Timer);
    if (index >= 0) this.#timers.splice(index, 1);
  }

  /** The next instant at which a timer is due. */
  next(): number | undefined {
    return this.#timers.at(-1)?.at;
  }

  /** Sets the clock. */
  set(now: number): void {
    this.#now = now;
  }

  /** Fires the timers that are due, those they set for the same instant excepted. */
  fire(): void {
    const upTo = this.#orders;
    for (let timer = this.#timers.at(-1); timer !== undefined && timer.at <= this.#now && timer.order < upTo; timer = this.#timers.at(-1)) {
      this.#timers.pop();
      timer.fn();
    }
  }
}
