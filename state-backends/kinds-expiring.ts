// Handles of keyed state with a ttl.
//
// What: each value, element and entry says when it was last written; from then + ttl on it is given to nobody. It is removed by a timer: one a key and
// declared state, set to the earliest time at which something may expire, and set anew when it has fired and something is left. These timers are rows of
// tables of their own, so they are restored, and no user sees them.
//
// Layout: rows are [written, value]; those of a list [written, value, written, value, …]; `.armed.<name>` says for each key for when its timer is set.
//
// Invariants:
//  X1  What was written at t is given back while now < t + ttl, and never after, whether or not its timer has fired.
//  X2  A key that has rows has one timer, no later than the first of them expires. It stays when rows are deleted, and goes when it finds none.
//  X3  The elements of a list were written in their order: reading renews all of them or none.
//  X4  Rows that were stored without a ttl begin their time when they are restored. They get their timers, and count as changed so that the next checkpoint
//      stores them with it, in slices after the start.

import { copy } from './codec.ts';
import type { Group, GroupedTable, Key, Row, SingleTable, TimerTable } from './contract.ts';
import { ExpiryHeap } from './expiry-heap.ts';
import { canonicalKey } from './keys.ts';
import type { AccumulatorState, Aggregating, ListState, MapState, ValueState } from './kinds.ts';
import { CHUNK, type Current, CurrentGroup, CurrentRow, type ExpiryClock, isShared } from './kinds-current.ts';

export interface ExpiringParts {
  readonly current: Current;
  readonly clock: ExpiryClock;
  readonly ttl: number;
  /** `ttlOn: 'read'`. */
  readonly renews: boolean;
  readonly timers: TimerTable;
  /** Key → the time its timer is set for. */
  readonly armed: SingleTable;
  /** Keys whose rows were stored without a ttl: they have no timer yet (X4). */
  readonly adopted: { readonly key: Key; readonly hash: number }[];
}

/** Timers that are fired between two looks at the clock. */
const STRIDE = 32;

/** The timers of one declared state. */
export class Expiring {
  readonly #parts: ExpiringParts;
  /** Removes what of the key has expired; gives the time at which the next of it will, Infinity where nothing is left. */
  readonly #clean: (key: Key, hash: number, now: number) => number;
  readonly #touch: (key: Key, hash: number) => void;

  constructor(parts: ExpiringParts, rows: { clean(key: Key, hash: number, now: number): number; touch(key: Key, hash: number): void }) {
    this.#parts = parts;
    this.#clean = rows.clean;
    this.#touch = rows.touch;
  }

  /** Something of the current key expires at `at`, and its key had nothing so far. */
  arm(at: number): void {
    const { armed, timers, current, clock } = this.#parts;
    const { key, hash } = current;
    const row = armed.find(key, hash);
    if (row === undefined) armed.insert(key, hash, at);
    else {
      // Set for later only where the ttl was longer once.
      if ((row.value as number) <= at) return;
      timers.delete(row.value as number, key, hash);
      armed.put(row, at);
    }
    timers.set(at, key, hash);
    clock.changed();
  }

  /** No row of the current key expires before that; −Infinity where it is not known. */
  get earliest(): number {
    const { armed, current } = this.#parts;
    return (armed.find(current.key, current.hash)?.value as number | undefined) ?? Number.NEGATIVE_INFINITY;
  }

  get next(): number {
    return this.#parts.adopted.length > 0 ? 0 : this.#parts.timers.next;
  }

  fire(now: number, deadline: number): 'done' | 'more' | Promise<void> {
    const { timers, adopted, armed } = this.#parts;
    for (let fired = 1; ; fired++) {
      const adoptee = adopted.pop();
      if (adoptee !== undefined) {
        const { key, hash } = adoptee;
        this.#touch(key, hash);
        if (armed.find(key, hash) === undefined) this.#settle(key, hash, now);
      } else {
        if (!timers.ready(now)) return timers.load(now);
        const timer = timers.pop(now);
        if (timer === undefined) return 'done';
        this.#settle(timer.key, timer.hash, now);
      }
      if (fired % STRIDE === 0 && performance.now() >= deadline) return 'more';
    }
  }

  /** Removes what of the key has expired, and sets its timer for the next that will. */
  #settle(key: Key, hash: number, now: number): void {
    const { armed, timers } = this.#parts;
    const next = this.#clean(key, hash, now);
    const row = armed.find(key, hash);
    if (next === Number.POSITIVE_INFINITY) {
      if (row !== undefined) armed.delete(row);
      return;
    }
    if (row === undefined) armed.insert(key, hash, next);
    else armed.put(row, next);
    timers.set(next, key, hash);
  }
}

type Timed = [written: number, value: unknown];

/** One row a key that says when it was written. */
class ExpiringRow extends CurrentRow {
  readonly expiring: Expiring;
  protected readonly parts: ExpiringParts;

  constructor(table: SingleTable, parts: ExpiringParts) {
    super(table, parts.current);
    this.parts = parts;
    this.expiring = new Expiring(parts, {
      clean(key, hash, now) {
        const row = table.find(key, hash);
        if (row === undefined) return Number.POSITIVE_INFINITY;
        const at = (row.value as Timed)[0] + parts.ttl;
        if (at > now) return at;
        table.delete(row);
        return Number.POSITIVE_INFINITY;
      },
      touch(key, hash) {
        const row = table.find(key, hash);
        if (row !== undefined) table.touch(row);
      },
    });
  }

  /** The row, where it has not expired. */
  protected live(): Row | undefined {
    const row = this.row();
    if (row === undefined) return undefined;
    if ((row.value as Timed)[0] + this.parts.ttl > this.parts.clock.now()) return row;
    this.clear();
    return undefined;
  }

  /** Its value, to be handed out. */
  protected given(row: Row): unknown {
    if (this.parts.renews) {
      this.table.touch(row);
      (row.value as Timed)[0] = this.parts.clock.now();
    } else if (isShared((row.value as Timed)[1])) this.table.touch(row);
    return (row.value as Timed)[1];
  }

  protected override write(value: unknown): void {
    const now = this.parts.clock.now();
    const row = this.row();
    if (row === undefined) {
      super.write([now, value]);
      this.expiring.arm(now + this.parts.ttl);
      return;
    }
    this.table.touch(row);
    const held = row.value as Timed;
    held[0] = now;
    held[1] = value;
    this.table.put(row, held);
  }
}

export class ExpiringValue extends ExpiringRow implements ValueState<unknown> {
  private readonly hasDefault: boolean;
  private readonly initial: unknown;

  constructor(table: SingleTable, parts: ExpiringParts, declared: { readonly default: unknown; readonly hasDefault: boolean }) {
    super(table, parts);
    this.hasDefault = declared.hasDefault;
    this.initial = declared.default;
  }

  get(): unknown {
    const row = this.live();
    if (row === undefined) return this.hasDefault ? copy(this.initial) : undefined;
    return this.given(row);
  }

  set(value: unknown): void {
    this.write(value);
  }

  update(fn: (current: unknown) => unknown): void {
    this.write(fn(this.get()));
  }
}

export class ExpiringReducing extends ExpiringRow implements AccumulatorState<unknown, unknown> {
  private readonly fn: (left: unknown, right: unknown) => unknown;
  private mutates: boolean | undefined = undefined;

  constructor(table: SingleTable, parts: ExpiringParts, fn: (left: unknown, right: unknown) => unknown) {
    super(table, parts);
    this.fn = fn;
  }

  add(value: unknown): void {
    const row = this.live();
    if (row === undefined) {
      this.write(this.mutates === false ? value : copy(value));
      return;
    }
    this.table.touch(row);
    const left = (row.value as Timed)[1];
    const next = this.fn(left, value);
    if (isShared(left) && this.mutates !== true) this.mutates = next === left;
    this.write(next === value && this.mutates === true ? copy(next) : next);
  }

  get(): unknown {
    const row = this.live();
    if (row === undefined) return undefined;
    const value = this.given(row);
    return this.mutates === false ? value : copy(value);
  }
}

export class ExpiringAggregating extends ExpiringRow implements AccumulatorState<unknown, unknown> {
  private readonly fn: Aggregating<unknown, unknown, unknown>;

  constructor(table: SingleTable, parts: ExpiringParts, fn: Aggregating<unknown, unknown, unknown>) {
    super(table, parts);
    this.fn = fn;
  }

  add(value: unknown): void {
    const row = this.live();
    if (row !== undefined) this.table.touch(row);
    this.write(this.fn.add(row === undefined ? this.fn.create() : (row.value as Timed)[1], value));
  }

  get(): unknown {
    const row = this.live();
    if (row === undefined) return undefined;
    const accumulator = this.given(row);
    const result = this.fn.result(accumulator);
    return result === accumulator ? copy(result) : result;
  }
}

/** Rows by namespace that say when they were written. */
class ExpiringGroup extends CurrentGroup {
  readonly expiring: Expiring;
  protected readonly parts: ExpiringParts;

  constructor(table: GroupedTable, parts: ExpiringParts, clean: (group: Group, now: number) => number) {
    super(table, parts.current);
    this.parts = parts;
    this.expiring = new Expiring(parts, {
      clean(key, hash, now) {
        const group = table.find(key, hash);
        return group === undefined || group.rows.length === 0 ? Number.POSITIVE_INFINITY : clean(group, now);
      },
      touch(key, hash) {
        for (const row of table.find(key, hash)?.rows ?? []) table.touch(row);
      },
    });
  }

  protected override insert(ns: unknown, value: unknown): void {
    const first = this.group() === undefined;
    super.insert(ns, value);
    if (first) this.expiring.arm(this.parts.clock.now() + this.parts.ttl);
  }
}

export class ExpiringList extends ExpiringGroup implements ListState<unknown> {
  constructor(table: GroupedTable, parts: ExpiringParts) {
    super(table, parts, (group, now) => {
      for (;;) {
        const row = group.rows[0];
        if (row === undefined) return Number.POSITIVE_INFINITY;
        const chunk = row.value as unknown[];
        const gone = expired(chunk, parts.ttl, now);
        if (gone === chunk.length) {
          table.deleteRow(group, row);
          continue;
        }
        if (gone > 0) {
          table.touch(row);
          table.put(row, (row.value as unknown[]).slice(gone));
        }
        return ((row.value as unknown[])[0] as number) + parts.ttl;
      }
    });
  }

  add(value: unknown): void {
    const now = this.parts.clock.now();
    const group = this.group();
    const last = group?.rows[group.rows.length - 1];
    if (last === undefined) {
      this.insert(0, [now, value]);
      return;
    }
    if ((last.value as unknown[]).length >= 2 * CHUNK) {
      this.insert((last.ns as number) + 1, [now, value]);
      return;
    }
    this.table.touch(last);
    (last.value as unknown[]).push(now, value);
    this.table.put(last, last.value);
  }

  all(): unknown[] {
    const out: unknown[] = [];
    const group = this.group();
    if (group === undefined) return out;
    const { renews, ttl, clock } = this.parts;
    const now = clock.now();
    for (const row of group.rows) {
      const from = expired(row.value as unknown[], ttl, now);
      const { length } = row.value as unknown[];
      if (from === length) continue;
      let touched = renews;
      for (let i = from + 1; i < length && !touched; i += 2) touched = isShared((row.value as unknown[])[i]);
      if (touched) this.table.touch(row);
      const chunk = row.value as unknown[];
      for (let i = from; i < length; i += 2) {
        if (renews) chunk[i] = now;
        out.push(chunk[i + 1]);
      }
    }
    return out;
  }

  set(values: Iterable<unknown>): void {
    const now = this.parts.clock.now();
    const all = [...values].flatMap((value) => [now, value]);
    this.clear();
    for (let i = 0; i < all.length; i += 2 * CHUNK) this.insert(i / (2 * CHUNK), all.slice(i, i + 2 * CHUNK));
  }

  [Symbol.iterator](): Iterator<unknown> {
    return this.all()[Symbol.iterator]();
  }
}

/** How many places of the chunk hold what has expired (X3). */
function expired(chunk: readonly unknown[], ttl: number, now: number): number {
  let i = 0;
  while (i < chunk.length && (chunk[i] as number) + ttl <= now) i += 2;
  return i;
}

export class ExpiringMap extends ExpiringGroup implements MapState<Key, unknown> {
  constructor(table: GroupedTable, parts: ExpiringParts) {
    super(table, parts, (group, now) => {
      const { ttl } = parts;
      // In memory only, made when the first timer of a key fires: what of it expires next.
      if (group.derived === undefined) group.derived = heapOf(group, ttl);
      const heap = group.derived as ExpiryHeap<Row>;
      while (heap.next <= now) {
        const row = heap.take();
        if (table.row(group, row.ns) !== row) continue;
        const at = (row.value as Timed)[0] + ttl;
        if (at > now) heap.add(at, row);
        else table.deleteRow(group, row);
      }
      return heap.next;
    });
  }

  /** The entry, where it has not expired. */
  private entry(key: Key): Row | undefined {
    const group = this.group();
    const row = group === undefined ? undefined : this.table.row(group, key);
    return row !== undefined && this.isLive(row) ? row : undefined;
  }

  private isLive(row: Row): boolean {
    return (row.value as Timed)[0] + this.parts.ttl > this.parts.clock.now();
  }

  private given(row: Row): unknown {
    if (this.parts.renews) {
      this.table.touch(row);
      (row.value as Timed)[0] = this.parts.clock.now();
    } else if (isShared((row.value as Timed)[1])) this.table.touch(row);
    return (row.value as Timed)[1];
  }

  get(key: Key): unknown {
    const row = this.entry(canonicalKey(key));
    return row === undefined ? undefined : this.given(row);
  }

  set(key: Key, value: unknown): void {
    const ns = canonicalKey(key);
    const now = this.parts.clock.now();
    const group = this.group();
    const row = group === undefined ? undefined : this.table.row(group, ns);
    if (row === undefined) {
      this.insert(ns, [now, value]);
      const entered = this.group()!;
      const heap = entered.derived as ExpiryHeap<Row> | undefined;
      heap?.add(now + this.parts.ttl, this.table.row(entered, ns)!);
      return;
    }
    this.table.touch(row);
    const held = row.value as Timed;
    held[0] = now;
    held[1] = value;
    this.table.put(row, held);
  }

  has(key: Key): boolean {
    return this.entry(canonicalKey(key)) !== undefined;
  }

  delete(key: Key): void {
    const group = this.group();
    const row = group === undefined ? undefined : this.table.row(group, canonicalKey(key));
    if (row !== undefined) this.table.deleteRow(group!, row);
  }

  private rows(): Row[] {
    return (this.group()?.rows ?? []).filter((row) => this.isLive(row));
  }

  entries(): IterableIterator<[Key, unknown]> {
    return this.rows()
      .map((row): [Key, unknown] => [row.ns as Key, this.given(row)])
      .values();
  }

  keys(): IterableIterator<Key> {
    const rows = this.rows();
    if (this.parts.renews) for (const row of rows) this.given(row);
    return rows.map((row) => row.ns as Key).values();
  }

  values(): IterableIterator<unknown> {
    return this.rows()
      .map((row) => this.given(row))
      .values();
  }

  [Symbol.iterator](): IterableIterator<[Key, unknown]> {
    return this.entries();
  }

  get size(): number {
    const group = this.group();
    if (group === undefined) return 0;
    return this.expiring.earliest > this.parts.clock.now() ? group.rows.length : this.rows().length;
  }
}

function heapOf(group: Group, ttl: number): ExpiryHeap<Row> {
  const heap = new ExpiryHeap<Row>();
  for (const row of group.rows) heap.add((row.value as Timed)[0] + ttl, row);
  return heap;
}
