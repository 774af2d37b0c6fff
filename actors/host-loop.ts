// The loop of a host: every actor of a system that has something to do stands in one ready queue, drained in turns.
//
// Who owns what: the loop owns the order of actors and the time; an actor's `run` does one bounded turn of its own and says
// whether it has more. A turn of the loop ends after `turnMs`; then the event loop goes first.
// Invariants:
//  H1  An actor stands in the queue at most once (`queued`), so a self-mailing actor waits behind every other ready one.
//  H2  Microtasks run turns only within `turnMs` of the first in a pass of the event loop; after that an immediate does. So neither
//      a full queue nor a chain of awaited answers starves I/O and timers.
//  H3  An idle loop holds nothing that keeps the process alive.

import { Ring } from './ring.ts';

export interface Runnable {
  queued: boolean;
  run(loop: Loop): boolean;
}

export interface Loop {
  /** Messages one actor serves before the next is run. */
  readonly batch: number;
  /** Puts an actor into the ready queue; the caller has set `queued`. */
  enqueue(actor: Runnable): void;
  /** Counts one message; true when the turn is over. */
  tick(): boolean;
  /** The deadline of a slice of work that starts now. */
  slice(): number;
}

const BATCH = 64;
const SLICE_MS = 2;
/** A turn with less left than this is over: the actor next in line would get a sliver of it in every turn. */
const SLIVER_MS = 0.25;
/** While messages are quick the clock is read for every 32nd of them only. */
const STRIDE_MAX = 32;
const QUICK_MS = 0.05;

export class HostLoop implements Loop {
  readonly batch = BATCH;
  readonly #turnMs: number;
  readonly #ready = new Ring<Runnable>();
  #turnEnd = 0;
  #over = false;
  #running = false;
  #microtask = false;
  /** Marks the end of the current pass of the event loop; it keeps the process alive only while it has actors to run. */
  #immediate: NodeJS.Immediate | undefined;
  #checked = 0;
  #stride = 1;
  #untilCheck = 1;

  constructor(turnMs: number) {
    this.#turnMs = turnMs;
  }

  enqueue(actor: Runnable): void {
    this.#ready.push(actor);
    if (!this.#running && !this.#microtask) this.#wake();
  }

  tick(): boolean {
    if (--this.#untilCheck > 0) return false;
    const now = performance.now();
    if (now >= this.#turnEnd - SLIVER_MS) {
      this.#over = true;
      this.#untilCheck = 1;
      return true;
    }
    this.#stride = now - this.#checked < QUICK_MS ? Math.min(this.#stride * 2, STRIDE_MAX) : 1;
    this.#untilCheck = this.#stride;
    this.#checked = now;
    return false;
  }

  slice(): number {
    const now = performance.now();
    // A slice is long: the clock is read again right after it.
    this.#untilCheck = 1;
    return Math.min(now + SLICE_MS, this.#turnEnd);
  }

  #wake(): void {
    const now = performance.now();
    if (this.#immediate === undefined) {
      this.#turnEnd = now + this.#turnMs;
      this.#immediate = setImmediate(this.#onImmediate);
      this.#immediate.unref();
    } else if (now >= this.#turnEnd) {
      this.#immediate.ref();
      return;
    }
    this.#microtask = true;
    queueMicrotask(this.#onMicrotask);
  }

  readonly #onMicrotask = (): void => {
    this.#microtask = false;
    this.#turn();
  };

  readonly #onImmediate = (): void => {
    this.#immediate = undefined;
    if (this.#ready.size === 0 || this.#microtask) return;
    this.#turnEnd = performance.now() + this.#turnMs;
    this.#turn();
  };

  #turn(): void {
    const ready = this.#ready;
    this.#running = true;
    this.#over = false;
    this.#stride = 1;
    this.#untilCheck = 1;
    try {
      for (let actor = ready.shift(); actor !== undefined; actor = ready.shift()) {
        if (actor.run(this)) ready.push(actor);
        else actor.queued = false;
        if (this.#over || this.tick()) break;
      }
    } finally {
      this.#running = false;
      if (ready.size > 0) {
        this.#immediate ??= setImmediate(this.#onImmediate);
        this.#immediate.ref();
      }
    }
  }
}
