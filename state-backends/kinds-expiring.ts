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
//  X3  By processing time the elements of a list were written in their order: reading renews all of them or none. By event time they may stand in any.
//  X4  Rows that were stored without a ttl begin their time when they are restored. They get their timers, and count as changed so that the next checkpoint
//      stores them with it, in slices after the start.
//  X5  What is written again, or renewed, never counts from earlier than before. So only what is new can expire before the timer of its key, and arms it.
//  X6  Where the ttl or its clock is another one than when the timers were stored, they are set anew, in slices after the start.

import { copy } from './codec.ts';
import type { Group, GroupedTable, Key, Row, SingleTable, TimerTable } from './contract.ts';
import { BEFORE_TIME, isExpired, type TtlClock } from './expiry-clock.ts';
import { ExpiryHeap } from './expiry-heap.ts';
import { canonicalKey } from './keys.ts';
import type { AccumulatorState, Aggregating, ListState, MapState, ValueState } from './kinds.ts';
import { CHUNK, type Current, CurrentGroup, CurrentRow, isShared } from './kinds-current.ts';

export interface ExpiringParts {
  readonly current: Current;
  readonly clock: TtlClock;
  readonly ttl: number;
  /** `ttlOn: 'read'`. */
  readonly renews: boolean;
  readonly timers: TimerTable;
  /** Key → the time its timer is set for. */
  readonly armed: SingleTable;
  /** Keys whose rows were stored without a ttl or by another clock (X4), or, not `anew`, only their timers with another ttl (X6). */
  readonly adopted: Adopted[];
}

export interface Adopted {
  readonly key: Key;
  readonly hash: number;
  /** Its rows have begun their time. */
  readonly anew: boolean;
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
      // Set for later where the ttl was longer once, or the record of what is new is older.
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

  /** By which clock it expires. */
  get event(): boolean {
    return this.#parts.clock.event;
  }

  /** When something is to be removed, by its clock. */
  get next(): number {
    return this.#parts.timers.next;
  }

  /** Keys wait for their timers: whatever the time (X4, X6). */
  get adopting(): boolean {
    return this.#parts.adopted.length > 0;
  }

  adopt(deadline: number): 'done' | 'more' {
    const { adopted, armed, timers, clock } = this.#parts;
    for (let done = 1; adopted.length > 0; done++) {
      const { key, hash, anew } = adopted.pop()!;
      const row = armed.find(key, hash);
      if (row !== undefined) timers.delete(row.value as number, key, hash);
      if (anew) this.#touch(key, hash);
      this.#settle(key, hash, clock.now());
      if (done % STRIDE === 0 && performance.now() >= deadline) return 'more';
    }
    return 'done';
  }

  /** Removes what has expired at `now`, by its clock. */
  fire(now: number, deadline: number): 'done' | 'more' | Promise<void> {
    const { timers } = this.#parts;
    for (let fired = 1; ; fired++) {
      if (!timers.ready(now)) return timers.load(now);
      const timer = timers.pop(now);
      if (timer === undefined) return 'done';
      this.#settle(timer.key, timer.hash, now);
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

/** X5. */
function restamp(held: Timed, clock: TtlClock): void {
  const at = clock.stamp();
  if (at > held[0]) held[0] = at;
}

/** Event time has begun since the row was written. */
function begin(table: SingleTable | GroupedTable, row: Row, now: number): void {
  if ((row.value as Timed)[0] !== BEFORE_TIME || now === BEFORE_TIME) return;
  table.touch(row);
  (row.value as Timed)[0] = now;
}

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
        begin(table, row, now);
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
    if (!isExpired((row.value as Timed)[0], this.parts.ttl, this.parts.clock.now())) return row;
    this.clear();
    return undefined;
  }

  /** Its value, to be handed out. */
  protected given(row: Row): unknown {
    if (this.parts.renews) {
      this.table.touch(row);
      restamp(row.value as Timed, this.parts.clock);
    } else if (isShared((row.value as Timed)[1])) this.table.touch(row);
    return (row.value as Timed)[1];
  }

  protected override write(value: unknown): void {
    const { clock } = this.parts;
    const row = this.row();
    if (row === undefined) {
      const at = clock.stamp();
      super.write([at, value]);
      this.expiring.arm(at + this.parts.ttl);
      return;
    }
    this.table.touch(row);
    const held = row.value as Timed;
    restamp(held, clock);
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

  /** `at`: when the earliest of it was written. */
  protected enter(ns: unknown, value: unknown, at: number): void {
    const first = this.group() === undefined;
    this.insert(ns, value);
    if (first || this.parts.clock.event) this.expiring.arm(at + this.parts.ttl);
  }
}

export class ExpiringList extends ExpiringGroup implements ListState<unknown> {
  constructor(table: GroupedTable, parts: ExpiringParts) {
    const clean = parts.clock.event ? cleanAny : cleanOldest;
    super(table, parts, (group, now) => clean(table, group, parts.ttl, now));
  }

  add(value: unknown): void {
    const { clock, ttl } = this.parts;
    const at = clock.stamp();
    const group = this.group();
    const last = group?.rows[group.rows.length - 1];
    if (last === undefined) {
      this.enter(0, [at, value], at);
      return;
    }
    if ((last.value as unknown[]).length >= 2 * CHUNK) {
      this.enter((last.ns as number) + 1, [at, value], at);
      return;
    }
    this.table.touch(last);
    (last.value as unknown[]).push(at, value);
    this.table.put(last, last.value);
    if (clock.event) this.expiring.arm(at + ttl);
  }

  all(): unknown[] {
    const out: unknown[] = [];
    const group = this.group();
    if (group === undefined) return out;
    const { renews, ttl, clock } = this.parts;
    const { event } = clock;
    const now = clock.now();
    const stamp = renews ? clock.stamp() : 0;
    for (const row of group.rows) {
      const from = event ? 0 : expired(row.value as unknown[], ttl, now);
      const { length } = row.value as unknown[];
      if (from === length) continue;
      let touched = renews;
      for (let i = from + 1; i < length && !touched; i += 2) touched = isShared((row.value as unknown[])[i]);
      if (touched) this.table.touch(row);
      const chunk = row.value as unknown[];
      for (let i = from; i < length; i += 2) {
        if (event && isExpired(chunk[i] as number, ttl, now)) continue;
        if (renews && stamp > (chunk[i] as number)) chunk[i] = stamp;
        out.push(chunk[i + 1]);
      }
    }
    return out;
  }

  set(values: Iterable<unknown>): void {
    const at = this.parts.clock.stamp();
    const all = [...values].flatMap((value) => [at, value]);
    this.clear();
    for (let i = 0; i < all.length; i += 2 * CHUNK) this.enter(i / (2 * CHUNK), all.slice(i, i + 2 * CHUNK), at);
  }

  [Symbol.iterator](): Iterator<unknown> {
    return this.all()[Symbol.iterator]();
  }
}

/** The oldest stand first. */
function cleanOldest(table: GroupedTable, group: Group, ttl: number, now: number): number {
  for (;;) {
    const row = group.rows[0];
    if (row === undefined) return Number.POSITIVE_INFINITY;
    const chunk = row.value as unknown[];
    const gone = expired(chunk, ttl, now);
    if (gone === chunk.length) {
      table.deleteRow(group, row);
      continue;
    }
    if (gone > 0) {
      table.touch(row);
      table.put(row, (row.value as unknown[]).slice(gone));
    }
    return ((row.value as unknown[])[0] as number) + ttl;
  }
}

function cleanAny(table: GroupedTable, group: Group, ttl: number, now: number): number {
  let next = Number.POSITIVE_INFINITY;
  for (const row of [...group.rows]) {
    let chunk = row.value as unknown[];
    if (changes(chunk, ttl, now)) {
      table.touch(row);
      chunk = keptOf(row.value as unknown[], ttl, now);
      if (chunk.length === 0) {
        table.deleteRow(group, row);
        continue;
      }
      table.put(row, chunk);
    }
    next = Math.min(next, earliestIn(chunk) + ttl);
  }
  return next;
}

/** How many places of the chunk hold what has expired (X3). */
function expired(chunk: readonly unknown[], ttl: number, now: number): number {
  let i = 0;
  while (i < chunk.length && (chunk[i] as number) + ttl <= now) i += 2;
  return i;
}

/** Whether something of it has expired at `now`, or begins its time with that. */
function changes(chunk: readonly unknown[], ttl: number, now: number): boolean {
  for (let i = 0; i < chunk.length; i += 2) if ((chunk[i] as number) + ttl <= now) return true;
  return false;
}

function keptOf(chunk: readonly unknown[], ttl: number, now: number): unknown[] {
  const kept: unknown[] = [];
  for (let i = 0; i < chunk.length; i += 2) {
    const at = chunk[i] as number;
    if (!isExpired(at, ttl, now)) kept.push(at === BEFORE_TIME ? now : at, chunk[i + 1]);
  }
  return kept;
}

function earliestIn(chunk: readonly unknown[]): number {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < chunk.length; i += 2) least = Math.min(least, chunk[i] as number);
  return least;
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
        begin(table, row, now);
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
    return !isExpired((row.value as Timed)[0], this.parts.ttl, this.parts.clock.now());
  }

  private given(row: Row): unknown {
    if (this.parts.renews) {
      this.table.touch(row);
      restamp(row.value as Timed, this.parts.clock);
    } else if (isShared((row.value as Timed)[1])) this.table.touch(row);
    return (row.value as Timed)[1];
  }

  get(key: Key): unknown {
    const row = this.entry(canonicalKey(key));
    return row === undefined ? undefined : this.given(row);
  }

  set(key: Key, value: unknown): void {
    const ns = canonicalKey(key);
    const { clock, ttl } = this.parts;
    const group = this.group();
    const row = group === undefined ? undefined : this.table.row(group, ns);
    if (row === undefined) {
      const at = clock.stamp();
      this.enter(ns, [at, value], at);
      const entered = this.group()!;
      const heap = entered.derived as ExpiryHeap<Row> | undefined;
      heap?.add(at + ttl, this.table.row(entered, ns)!);
      return;
    }
    this.table.touch(row);
    const held = row.value as Timed;
    restamp(held, clock);
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
    const known = !this.expiring.adopting && this.expiring.earliest > this.parts.clock.now();
    return known ? group.rows.length : this.rows().length;
  }
}

function heapOf(group: Group, ttl: number): ExpiryHeap<Row> {
  const heap = new ExpiryHeap<Row>();
  for (const row of group.rows) heap.add((row.value as Timed)[0] + ttl, row);
  return heap;
}
