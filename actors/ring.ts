// A growing ring: the queue under both lanes of a mailbox and under the ready queue of a host.
//
// What: push at the tail, shift at the head, in constant time and without an allocation a value.
// Invariants:
//  R1  `size` values stand from `head` on; every other slot holds undefined, so that nothing delivered is kept alive.
//  R2  The capacity is a power of two, so that wrapping is a mask. A ring that grew in a burst falls back once it is empty.

const INITIAL = 8;
const KEPT = 4096;

export class Ring<T> {
  size = 0;
  #slots: (T | undefined)[] = new Array<T | undefined>(INITIAL).fill(undefined);
  #head = 0;
  #mask = INITIAL - 1;

  push(value: T): void {
    if (this.size > this.#mask) this.#grow();
    this.#slots[(this.#head + this.size) & this.#mask] = value;
    this.size++;
  }

  /** The value at the head; undefined when empty (ask `size`: undefined may also be a value). */
  shift(): T | undefined {
    if (this.size === 0) return undefined;
    const value = this.#slots[this.#head];
    this.#slots[this.#head] = undefined;
    this.#head = (this.#head + 1) & this.#mask;
    this.size--;
    if (this.size === 0 && this.#mask >= KEPT) this.#reset();
    return value;
  }

  /** Takes the value at a position out and puts the tail in its place: for a caller that wants any, not the next. */
  take(index: number): T | undefined {
    const last = (this.#head + this.size - 1) & this.#mask;
    const at = (this.#head + index) & this.#mask;
    const value = this.#slots[at];
    this.#slots[at] = this.#slots[last];
    this.#slots[last] = undefined;
    this.size--;
    return value;
  }

  /** Removes the first occurrence, keeping order. Linear: for cancellations, not for delivery. */
  remove(value: T): boolean {
    for (let i = 0; i < this.size; i++) {
      if (this.#slots[(this.#head + i) & this.#mask] !== value) continue;
      for (let j = i; j < this.size - 1; j++) this.#slots[(this.#head + j) & this.#mask] = this.#slots[(this.#head + j + 1) & this.#mask];
      this.size--;
      this.#slots[(this.#head + this.size) & this.#mask] = undefined;
      return true;
    }
    return false;
  }

  /** Keeps what the predicate wants, in order. */
  retain(keep: (value: T) => boolean): void {
    for (let left = this.size; left > 0; left--) {
      const value = this.shift() as T;
      if (keep(value)) this.push(value);
    }
  }

  #grow(): void {
    const slots = this.#slots;
    const next = new Array<T | undefined>(slots.length * 2).fill(undefined);
    for (let i = 0; i < this.size; i++) next[i] = slots[(this.#head + i) & this.#mask];
    this.#slots = next;
    this.#head = 0;
    this.#mask = next.length - 1;
  }

  #reset(): void {
    this.#slots = new Array<T | undefined>(INITIAL).fill(undefined);
    this.#head = 0;
    this.#mask = INITIAL - 1;
  }
}
