// Up to which value of a rising column a table may be read: a pure decision over what was seen of it (source.ts asks the server).
//
// A value is drawn before its row is committed, and rows are not committed in the order of their values. So the largest value seen is a bound only once every transaction
// that had written something when it was seen is over (the server's numbers of transactions tell), and `settle` has passed: within that time a transaction that drew
// a value must have begun to write.

/** What one look at the table gave. */
export interface Look {
  /** The largest value, as text; undefined while there is none. */
  readonly max: string | undefined;
  /** The first number not given to a transaction yet. */
  readonly next: bigint;
  /** Every transaction below it is over. */
  readonly over: bigint;
  /** Ms, of any clock that does not go back. */
  readonly at: number;
}

export class Bounds {
  readonly #settleMs: number;
  /** Oldest first; all with a largest value. */
  #waiting: Look[] = [];
  /** The largest value that waits or has waited. */
  #newest: string | undefined;

  constructor(settleMs: number) {
    this.#settleMs = settleMs;
  }

  /** How far rows may be read now; undefined: no further than before. */
  seen(look: Look): string | undefined {
    const ready = this.#waiting.filter((earlier) => earlier.next <= look.over && earlier.at + this.#settleMs <= look.at);
    this.#waiting = this.#waiting.slice(ready.length);
    if (look.max !== undefined && look.max !== this.#newest) {
      this.#newest = look.max;
      this.#waiting.push(look);
    }
    return ready.at(-1)?.max;
  }

  /** Rows were seen that may not be read yet. */
  get pending(): boolean {
    return this.#waiting.length > 0;
  }
}
