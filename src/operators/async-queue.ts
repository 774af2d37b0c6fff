// The queue of an asyncMap: what was given to it and has not gone on yet, records and event time, in order of arrival. It decides what may leave next.
//
// What: pure, no promises and no clock; `async-map.ts` asks and emits.
//
// Invariants:
//  Q1  Event time leaves when every record that came before it has left, and before any that came after it leaves.
//  Q2  Ordered: records leave in order of arrival. Unordered: those between two events of time leave in the order in which they were settled.
//  Q3  Of watermarks with no record between them only the newest is kept.
//  Q4  What stands here in order of arrival is what a snapshot keeps; a dropped record is no part of it.

import type { TimeEvent } from '../runtime/operator.ts';

/** What leaves next: a record that is settled, or event time. */
export type Leaving<E> = { readonly entry: E } | { readonly event: TimeEvent };

export interface AsyncQueue<E extends object> {
  /** Records that stand here, settled or not; dropped ones only while they are in the way. */
  readonly size: number;
  /** True where neither a record nor event time stands here. */
  readonly empty: boolean;
  add(entry: E): void;
  time(event: TimeEvent): void;
  /** It has its result, and may leave when its turn comes. Once for each record. */
  settled(entry: E): void;
  /** It will never have one. Once for each record, instead of `settled`. */
  dropped(entry: E): void;
  /** Takes what may leave now; undefined: nothing. */
  next(): Leaving<E> | undefined;
  /** Records that have not left and were not dropped, in order of arrival. */
  standing(): E[];
}

export function asyncQueue<E extends object>(ordered: boolean): AsyncQueue<E> {
  return ordered ? new OrderedQueue<E>() : new UnorderedQueue<E>();
}

interface Place<E> {
  readonly entry: E;
  state: 'open' | 'settled' | 'dropped';
}

class OrderedQueue<E extends object> implements AsyncQueue<E> {
  #places: (Place<E> | TimeEvent)[] = [];
  #head = 0;
  readonly #placeOf = new Map<E, Place<E>>();

  get size(): number {
    return this.#placeOf.size;
  }
  get empty(): boolean {
    return this.#head === this.#places.length;
  }

  add(entry: E): void {
    const place: Place<E> = { entry, state: 'open' };
    this.#placeOf.set(entry, place);
    this.#places.push(place);
  }
  time(event: TimeEvent): void {
    if (replaces(event, this.#places.at(-1))) this.#places.pop();
    this.#places.push(event);
  }
  settled(entry: E): void {
    this.#placeOf.get(entry)!.state = 'settled';
  }
  dropped(entry: E): void {
    this.#placeOf.get(entry)!.state = 'dropped';
  }

  next(): Leaving<E> | undefined {
    while (this.#head < this.#places.length) {
      const place = this.#places[this.#head]!;
      if ('kind' in place) {
        this.#leave();
        return { event: place };
      }
      if (place.state === 'open') return undefined;
      this.#leave();
      this.#placeOf.delete(place.entry);
      if (place.state === 'settled') return { entry: place.entry };
    }
    return undefined;
  }

  #leave(): void {
    this.#head += 1;
    if (this.#head === this.#places.length) {
      this.#places = [];
      this.#head = 0;
    } else if (this.#head >= 1024 && this.#head * 2 >= this.#places.length) {
      this.#places = this.#places.slice(this.#head);
      this.#head = 0;
    }
  }

  standing(): E[] {
    return [...this.#placeOf.values()].filter((place) => place.state !== 'dropped').map((place) => place.entry);
  }
}

/** Records that came between two events of time, and the event behind them. */
interface Stretch<E> {
  readonly open: Set<E>;
  /** In the order in which they were settled. */
  readonly settled: E[];
  event: TimeEvent | undefined;
}

class UnorderedQueue<E extends object> implements AsyncQueue<E> {
  readonly #stretches: Stretch<E>[] = [stretch()];
  readonly #stretchOf = new Map<E, Stretch<E>>();

  get size(): number {
    return this.#stretchOf.size;
  }
  get empty(): boolean {
    return this.#stretchOf.size === 0 && this.#stretches.length === 1;
  }

  add(entry: E): void {
    const last = this.#stretches.at(-1)!;
    last.open.add(entry);
    this.#stretchOf.set(entry, last);
  }
  time(event: TimeEvent): void {
    const last = this.#stretches.at(-1)!;
    const before = this.#stretches.at(-2);
    if (before !== undefined && last.open.size === 0 && last.settled.length === 0 && replaces(event, before.event)) {
      before.event = event;
      return;
    }
    last.event = event;
    this.#stretches.push(stretch());
  }
  settled(entry: E): void {
    const of = this.#stretchOf.get(entry)!;
    of.open.delete(entry);
    of.settled.push(entry);
  }
  dropped(entry: E): void {
    this.#stretchOf.get(entry)!.open.delete(entry);
    this.#stretchOf.delete(entry);
  }

  next(): Leaving<E> | undefined {
    const first = this.#stretches[0]!;
    const entry = first.settled.shift();
    if (entry !== undefined) {
      this.#stretchOf.delete(entry);
      return { entry };
    }
    if (first.open.size > 0 || first.event === undefined) return undefined;
    this.#stretches.shift();
    return { event: first.event };
  }

  standing(): E[] {
    return [...this.#stretchOf.keys()];
  }
}

function replaces(event: TimeEvent, last: object | undefined): boolean {
  return event.kind === 'watermark' && last !== undefined && (last as Partial<TimeEvent>).kind === 'watermark';
}

function stretch<E>(): Stretch<E> {
  return { open: new Set(), settled: [], event: undefined };
}
