// How long an input has been without records: a clock that stands still while it could not have had any (back-pressure, a pause by alignment).
//
// Invariant I1: time during which the timer is held does not count, time before it does.

export class IdleTimer {
  readonly #idleness: number;
  #counted = 0;
  #since: number;
  #held = false;

  /** `idleness` in milliseconds; Infinity: never. */
  constructor(idleness: number, now: number) {
    this.#idleness = idleness;
    this.#since = now;
  }

  /** A record came. */
  record(now: number): void {
    this.#counted = 0;
    this.#since = now;
  }

  hold(held: boolean, now: number): void {
    if (held === this.#held) return;
    this.#held = held;
    if (held) this.#counted += now - this.#since;
    else this.#since = now;
  }

  idle(now: number): boolean {
    return this.#counted + (this.#held ? 0 : now - this.#since) >= this.#idleness;
  }
}
