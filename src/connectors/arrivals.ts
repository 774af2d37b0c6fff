// A bounded queue between something that pushes records when it likes and a source's `read`, which takes what has come, in batches.
//
// Invariants:
// Q1  `take` never waits for a second record: what is there goes. It lets the event loop turn once first, so that a producer that has more ready
//     fills a batch instead of handing over records one by one.
// Q2  `push` says whether there is room for more; `room` resolves when there is again.

export class Arrivals<T> {
  readonly #capacity: number;
  #items: T[] = [];
  #wakeTaker: (() => void) | undefined;
  #wakePushers: (() => void)[] = [];
  #ended = false;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get full(): boolean {
    return this.#items.length >= this.#capacity;
  }

  push(item: T): void {
    this.#items.push(item);
    this.#wakeTaker?.();
  }

  /** Resolves when there is room, or at once when nobody takes any more. Several may wait: the first come finds room first. */
  async room(): Promise<void> {
    while (this.full && !this.#ended) await new Promise<void>((resolve) => void this.#wakePushers.push(resolve));
  }

  /** No more comes, and nobody waits any longer; what is there can still be taken. */
  end(): void {
    this.#ended = true;
    this.#wakeTaker?.();
    this.#wakeAll();
  }

  /** What has come; empty: it has ended. */
  async take(): Promise<T[]> {
    while (this.#items.length === 0 && !this.#ended) {
      await new Promise<void>((resolve) => {
        this.#wakeTaker = resolve;
      });
    }
    if (!this.full && !this.#ended) await new Promise((resolve) => setImmediate(resolve));
    const taken = this.#items;
    this.#items = [];
    this.#wakeAll();
    return taken;
  }

  #wakeAll(): void {
    const woken = this.#wakePushers;
    this.#wakePushers = [];
    for (const wake of woken) wake();
  }
}
