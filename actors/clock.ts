// Time, passed in: XState's Clock with now(), and the machine's own clock.
//
// Who owns what: a clock owns its open timers. The default clock of a system keeps the process alive for them until the
// system has stopped; then it lets go of all of them, those that user code set through `ctx.clock` included.

/** Time, as a system is given it. */
export interface Clock {
  /** Milliseconds; epoch time on the default clock, from 0 on a simulated one. */
  now(): number;
  /** Calls once after so many milliseconds; gives what `clearTimeout` takes. */
  setTimeout(fn: () => void, ms: number): unknown;
  clearTimeout(id: unknown): void;
}

/** A clock whose timers stop keeping the process alive at `release()`. */
export interface ReleasableClock extends Clock {
  release(): void;
}

/** Node fires a timer beyond this at once instead of later. */
const LONGEST_TIMEOUT_MS = 0x7fffffff;

class Timer {
  handle: NodeJS.Timeout | undefined;
}

/** The machine's clock, one a system, since it is released with its system. */
export class RealClock implements ReleasableClock {
  readonly #open = new Set<Timer>();
  #released = false;

  now(): number {
    return Date.now();
  }

  setTimeout(fn: () => void, ms: number): Timer {
    const timer = new Timer();
    this.#open.add(timer);
    this.#arm(timer, fn, ms);
    return timer;
  }

  clearTimeout(id: unknown): void {
    if (!(id instanceof Timer)) return;
    clearTimeout(id.handle);
    this.#open.delete(id);
  }

  release(): void {
    this.#released = true;
    for (const timer of this.#open) timer.handle?.unref();
  }

  /** A delay longer than Node can count is waited for in pieces. */
  #arm(timer: Timer, fn: () => void, ms: number): void {
    const piece = Math.min(ms, LONGEST_TIMEOUT_MS);
    timer.handle = setTimeout(() => {
      if (ms > piece) return this.#arm(timer, fn, ms - piece);
      this.#open.delete(timer);
      fn();
    }, piece);
    if (this.#released) timer.handle.unref();
  }
}
