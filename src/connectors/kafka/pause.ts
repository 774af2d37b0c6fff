// A wait that somebody may cut short: by the end of the attempt, or because there is something to do.

import type { Clock } from '../../runtime/io.ts';

export class Pause {
  readonly #clock: Clock;
  readonly #signal: AbortSignal | undefined;
  #timer: unknown;
  #resolve: (() => void) | undefined;
  /** Woken while nobody waited: the next wait is none. */
  #woken = false;

  constructor(clock: Clock, signal?: AbortSignal) {
    this.#clock = clock;
    this.#signal = signal;
    signal?.addEventListener('abort', this.#wake);
  }

  /** One waits at a time. */
  wait(ms: number): Promise<void> {
    if (this.#woken || this.#signal?.aborted === true) {
      this.#woken = false;
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      this.#resolve = resolve;
      this.#timer = this.#clock.setTimeout(this.#done, ms);
    });
  }

  wake(): void {
    if (this.#resolve === undefined) this.#woken = true;
    else this.#done();
  }

  /** Nobody waits any more. */
  end(): void {
    this.#signal?.removeEventListener('abort', this.#wake);
    this.#done();
  }

  readonly #wake = (): void => this.wake();

  readonly #done = (): void => {
    if (this.#timer !== undefined) this.#clock.clearTimeout(this.#timer);
    this.#timer = undefined;
    const resolve = this.#resolve;
    this.#resolve = undefined;
    resolve?.();
  };
}
