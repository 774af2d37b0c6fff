// The newest idempotency keys of a source, as a part of its position: what was accepted is not accepted again, also after a restore.
//
// Keys stand in two generations, and the older is forgotten when the younger is full. A position refers to both as they were: `older` does not change any more, and of
// `younger`, to which keys are only ever added, it takes the first `count`. So a position costs nothing to make, however many keys there are.

/** Plain data. */
export interface KeyMarks {
  readonly older: readonly string[];
  readonly younger: readonly string[];
  /** How many of `younger` belong to this position. */
  readonly count: number;
}

export class SeenKeys {
  readonly #generation: number;
  #older: readonly string[];
  #younger: string[];
  #known: Set<string>;

  /** Remembers at least `remembered` of the newest. */
  constructor(remembered: number, marks?: KeyMarks) {
    this.#generation = remembered;
    this.#older = marks?.older ?? [];
    this.#younger = marks === undefined ? [] : marks.younger.slice(0, marks.count);
    this.#known = new Set([...this.#older, ...this.#younger]);
  }

  has(key: string): boolean {
    return this.#known.has(key);
  }

  add(key: string): void {
    if (this.#younger.length >= this.#generation) {
      this.#older = this.#younger;
      this.#younger = [];
      this.#known = new Set(this.#older);
    }
    this.#younger.push(key);
    this.#known.add(key);
  }

  get marks(): KeyMarks {
    return { older: this.#older, younger: this.#younger, count: this.#younger.length };
  }
}
