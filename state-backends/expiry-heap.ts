// What expires next: a heap of things by time.
//
// Invariant: lazy. What is renewed stays where it is; whoever takes it out looks at its time again and puts it back.

export class ExpiryHeap<T> {
  readonly #times: number[] = [];
  readonly #things: T[] = [];

  /** Infinity where there is nothing. */
  get next(): number {
    return this.#times.length === 0 ? Number.POSITIVE_INFINITY : this.#times[0]!;
  }

  add(time: number, thing: T): void {
    const times = this.#times;
    const things = this.#things;
    let i = times.length;
    times.push(time);
    things.push(thing);
    while (i > 0) {
      const up = (i - 1) >> 1;
      if (times[up]! <= time) break;
      times[i] = times[up]!;
      things[i] = things[up]!;
      i = up;
    }
    times[i] = time;
    things[i] = thing;
  }

  /** Only where `next` is finite. */
  take(): T {
    const times = this.#times;
    const things = this.#things;
    const first = things[0]!;
    const time = times.pop()!;
    const thing = things.pop()!;
    const { length } = times;
    if (length === 0) return first;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= length) break;
      if (child + 1 < length && times[child + 1]! < times[child]!) child++;
      if (times[child]! >= time) break;
      times[i] = times[child]!;
      things[i] = things[child]!;
      i = child;
    }
    times[i] = time;
    things[i] = thing;
    return first;
  }
}
