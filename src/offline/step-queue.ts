// What a replay has seen and nobody has taken yet.
//
// Invariant Q1: what comes in never waits; whoever makes more come asks for `room` first.

const ROOM = 256;

export class StepQueue<T> {
  #items: T[] = [];
  #ended = false;
  #error: unknown;
  #wakeTaker: (() => void) | undefined;
  #wakePushers: (() => void)[] = [];

  push(item: T): void {
    if (this.#ended) return;
    this.#items.push(item);
    this.#wakeTaker?.();
  }

  /** No more comes. What is there can still be taken; then `error` is thrown, where there is one. */
  end(error?: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.#wakeTaker?.();
    this.#wake();
  }

  /** Resolves when few enough wait, or nobody takes any more. */
  async room(): Promise<void> {
    while (this.#items.length >= ROOM && !this.#ended) await new Promise<void>((resolve) => void this.#wakePushers.push(resolve));
  }

  async *taken(): AsyncGenerator<T> {
    for (;;) {
      const items = this.#items.splice(0);
      this.#wake();
      yield* items;
      if (this.#items.length > 0) continue;
      if (this.#ended) break;
      await new Promise<void>((resolve) => {
        this.#wakeTaker = resolve;
      });
      this.#wakeTaker = undefined;
    }
    if (this.#error !== undefined) throw this.#error;
  }

  #wake(): void {
    const waiting = this.#wakePushers;
    this.#wakePushers = [];
    for (const wake of waiting) wake();
  }
}
