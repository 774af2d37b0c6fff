// The loop of a test system: one message or one slice of work of one actor a step, and the seed chooses the actor.

import type { Loop, Runnable } from './host-loop.ts';
import { Ring } from './ring.ts';

export class SeededLoop implements Loop {
  readonly batch = 1;
  readonly #ready = new Ring<Runnable>();
  readonly #random: () => number;

  constructor(random: () => number) {
    this.#random = random;
  }

  get idle(): boolean {
    return this.#ready.size === 0;
  }

  enqueue(actor: Runnable): void {
    this.#ready.push(actor);
  }

  tick(): boolean {
    return false;
  }

  /** Over already: a slice does one unit, so a trace depends on the seed alone and not on the speed of a machine. */
  slice(): number {
    return 0;
  }

  /** Runs one ready actor; false when none is. */
  step(): boolean {
    if (this.#ready.size === 0) return false;
    const actor = this.#ready.take(Math.floor(this.#random() * this.#ready.size)) as Runnable;
    if (actor.run(this)) this.#ready.push(actor);
    else actor.queued = false;
    return true;
  }
}
