// The kinds of state that users declare, and the handles that act on them for the current key.
//
// Who owns what: a kind is data (what, options, functions); `bindKinds` declares the tables of a task for them and makes the handles. The engine says
// which key is current, and that none is whenever it gives control back (protocols 10).
//
// Layout: value, reducing, aggregating are one row a key; a list is rows of up to 64 elements, a map is one row an entry (protocols 22).
//
// Invariants:
//  H1  A handle without a current key throws CONTEXT_USED_OUTSIDE_RECORD.
//  H2  Whatever is not a primitive is touched before it is handed out (protocols 3).
//  H3  What is handed out of an accumulator is never what the next `add` changes (protocols 16).
//  H4  Iteration sees the state at its start.

import { copy } from './codec.ts';
import type { Group, GroupedTable, Key, Row, SingleTable, TaskState } from './contract.ts';
import { canonicalKey } from './keys.ts';
import { StateError } from './state-error.ts';

// ── what users declare ──

/** State as it is declared: what `value()`, `list()`, `map()`, `reducing()` and `aggregating()` give. */
export interface StateKind<H, Scope extends 'keyed' | 'operator' | 'broadcast'> {
  readonly scope: Scope;
  /** Carries the type of the handle; never there. */
  readonly handle?: H;
}
type Handle<D> = D extends StateKind<infer H, infer _> ? H : never;
/** Declared state as handlers see it: `ctx.state`. */
export type Handles<S> = { readonly [N in keyof S]: Handle<S[N]> };

/** Options of all kinds of state. */
export interface StateOptions<T> {
  /** Of the shape of what is stored, 0 by default. */
  version?: number;
  /** Makes a value of this version of one that a snapshot has in another; without it such a snapshot is refused with SNAPSHOT_INCOMPATIBLE. */
  migrate?(old: unknown, fromVersion: number): T;
}

/** One value of the current key. `Empty` is what `get` gives where none is set: undefined, or nothing where there is a default. */
export interface ValueState<T, Empty = undefined> {
  /** What it gives may be changed in place; the change is kept. A default is a fresh copy. */
  get(): T | Empty;
  set(value: T): void;
  /** Sets what `fn` makes of the current value. */
  update(fn: (current: T | Empty) => T): void;
  clear(): void;
}

/** The list of the current key. */
export interface ListState<T> extends Iterable<T> {
  /** At the end. */
  add(value: T): void;
  /** A new array. */
  all(): T[];
  /** In place of all there was. */
  set(values: Iterable<T>): void;
  clear(): void;
}

/** The map of the current key. Iterating sees the entries there were at its start, in no order that counts. */
export interface MapState<K, V> {
  get(key: K): V | undefined;
  set(key: K, value: V): void;
  has(key: K): boolean;
  delete(key: K): void;
  entries(): IterableIterator<[K, V]>;
  keys(): IterableIterator<K>;
  values(): IterableIterator<V>;
  readonly size: number;
  clear(): void;
}

/** What `reducing` and `aggregating` keep for the current key. */
export interface AccumulatorState<T, R> {
  add(value: T): void;
  /** The result so far; undefined before the first `add`. */
  get(): R | undefined;
  clear(): void;
}

/** A map that every instance has the same copy of; only the broadcast side of its operator changes it. */
export interface BroadcastMap<K, V> extends MapState<K, V> {}
/** The same, to be read. */
export interface ReadonlyBroadcastMap<K, V> extends Pick<MapState<K, V>, 'get' | 'has' | 'entries' | 'keys' | 'values' | 'size'> {}

/** As the engine's aggregates. */
export interface Aggregating<in T, A, out R> {
  create(): A;
  add(accumulator: A, value: T): A;
  merge?(left: A, right: A): A;
  result(accumulator: A): R;
}

/** What a declaration says; for planning, inspection and verification. */
export type Declared =
  | { readonly kind: 'value'; readonly options: StateOptions<unknown>; readonly default: unknown; readonly hasDefault: boolean }
  | { readonly kind: 'list'; readonly options: StateOptions<unknown> }
  | { readonly kind: 'map'; readonly options: StateOptions<unknown> }
  | { readonly kind: 'reducing'; readonly options: StateOptions<unknown>; readonly fn: (left: unknown, right: unknown) => unknown }
  | { readonly kind: 'aggregating'; readonly options: StateOptions<unknown>; readonly fn: Aggregating<unknown, unknown, unknown> };

export type StateSpec = Readonly<Record<string, StateKind<unknown, 'keyed'>>>;

const DECLARED = Symbol('declared');

function keyed<H>(declared: Declared): StateKind<H, 'keyed'> {
  return Object.freeze({ scope: 'keyed', [DECLARED]: Object.freeze(declared) }) as StateKind<H, 'keyed'>;
}

/** What a kind declares; undefined for kinds that are not keyed. */
export function declaredOf(kind: StateKind<unknown, 'keyed' | 'operator' | 'broadcast'>): Declared | undefined {
  return (kind as { [DECLARED]?: Declared })[DECLARED];
}

/**
 * State: one value a key.
 *
 * @param options `default`: what `get` gives, as a copy, where none is set; undefined otherwise.
 * @example
 * const out: number[] = [];
 * await job('steps', (env) => {
 *   env.fromArray('totals', [5, 7, 12]).keyBy(() => 'all').process('steps', {
 *     emits: type<number>(),
 *     state: { last: value({ default: 0 }) },
 *     onRecord(total, ctx) {
 *       ctx.emit(total - ctx.state.last.get());
 *       ctx.state.last.set(total);
 *     },
 *   }).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, [5, 2, 5]);
 */
export function value<T>(options: StateOptions<T> & { default: T }): StateKind<ValueState<T, never>, 'keyed'>;
export function value<T>(options?: StateOptions<T>): StateKind<ValueState<T>, 'keyed'>;
export function value<T>(options: StateOptions<T> & { default?: T } = {}): StateKind<ValueState<T, never>, 'keyed'> {
  const { default: initial, ...rest } = options;
  return keyed({ kind: 'value', options: rest, default: initial, hasDefault: 'default' in options });
}

/**
 * State: a list a key.
 *
 * @example
 * const out: string[] = [];
 * await job('pairs', (env) => {
 *   env.fromArray('words', ['the', 'mill', 'turns', 'on']).keyBy(() => 'all').process('pairs', {
 *     emits: type<string>(),
 *     state: { words: list<string>() },
 *     onRecord(word, ctx) {
 *       ctx.state.words.add(word);
 *       if (ctx.state.words.all().length < 2) return;
 *       ctx.emit(ctx.state.words.all().join(' '));
 *       ctx.state.words.clear();
 *     },
 *   }).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, ['the mill', 'turns on']);
 */
export function list<T>(options: StateOptions<T> = {}): StateKind<ListState<T>, 'keyed'> {
  return keyed({ kind: 'list', options });
}

/**
 * State: a map a key. Entries are rows of their own: reading or changing one does not cost more when there are many.
 *
 * @example
 * const out: number[] = [];
 * await job('visits', (env) => {
 *   env.fromArray('visits', [['ada', '/'], ['ada', '/a'], ['ada', '/']] as const).keyBy(([user]) => user).process('pages', {
 *     emits: type<number>(),
 *     state: { pages: map<string, number>() },
 *     onRecord([, page], ctx) {
 *       ctx.state.pages.set(page, (ctx.state.pages.get(page) ?? 0) + 1);
 *       ctx.emit(ctx.state.pages.get(page)!);
 *     },
 *   }).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, [1, 1, 2]);
 */
export function map<K extends Key, V>(options: StateOptions<V> = {}): StateKind<MapState<K, V>, 'keyed'> {
  return keyed({ kind: 'map', options });
}

/**
 * State: a value a key that every `add` is reduced into; the first one is taken as it is.
 *
 * @param fn may change and return `left`, and leaves `right` alone.
 * @example
 * const out: (number | undefined)[] = [];
 * await job('largest', (env) => {
 *   env.fromArray('numbers', [3, 8, 5]).keyBy(() => 'all').process('largest', {
 *     emits: type<number | undefined>(),
 *     state: { largest: reducing<number>((left, right) => Math.max(left, right)) },
 *     onRecord(n, ctx) {
 *       ctx.state.largest.add(n);
 *       ctx.emit(ctx.state.largest.get());
 *     },
 *   }).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, [3, 8, 8]);
 */
export function reducing<T>(fn: (left: T, right: T) => T, options: StateOptions<T> = {}): StateKind<AccumulatorState<T, T>, 'keyed'> {
  return keyed({ kind: 'reducing', options, fn: fn as (left: unknown, right: unknown) => unknown });
}

/**
 * State: an accumulator a key, with a result of another type; takes what `stream.aggregate` takes.
 *
 * @example
 * const out: (number | undefined)[] = [];
 * await job('means', (env) => {
 *   env.fromArray('numbers', [2, 4, 9]).keyBy(() => 'all').process('means', {
 *     emits: type<number | undefined>(),
 *     state: { mean: aggregating(avg((n: number) => n)) },
 *     onRecord(n, ctx) {
 *       ctx.state.mean.add(n);
 *       ctx.emit(ctx.state.mean.get());
 *     },
 *   }).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, [2, 3, 5]);
 */
export function aggregating<T, A, R>(fn: Aggregating<T, A, R>, options: StateOptions<A> = {}): StateKind<AccumulatorState<T, R>, 'keyed'> {
  return keyed({ kind: 'aggregating', options, fn: fn as Aggregating<unknown, unknown, unknown> });
}

// ── binding ──

/** The current key of a task's operator; `serial` tells handles that their cached row is of another record. */
class Current {
  key: Key = 0;
  hash = 0;
  serial = 0;
  present = false;

  demand(): void {
    if (!this.present) {
      throw new StateError('CONTEXT_USED_OUTSIDE_RECORD', 'Keyed state was used while no record or timer of its operator was processed.', {
        todo: 'Use state only within a handler, and do not keep `ctx` or `ctx.state` for later.',
      });
    }
  }
}

export interface BoundKinds<S extends StateSpec = StateSpec> {
  readonly handles: Handles<S>;
  /** Called for every record and timer. The key is canonical, the hash is its hash. */
  setCurrent(key: Key, hash: number): void;
  /** Called when control is given back. */
  clearCurrent(): void;
}

/** Declares the tables of an operator's keyed state; the handles act on the current key. */
export function bindKinds<S extends StateSpec>(task: TaskState, uid: string, spec: S | undefined): BoundKinds<S> {
  const current = new Current();
  const handles: Record<string, unknown> = {};
  for (const [name, kind] of Object.entries(spec ?? {})) {
    const declared = declaredOf(kind);
    if (declared === undefined) {
      throw new StateError('STATE_MISUSED', `State ${name} of ${uid} is no keyed state.`, {
        todo: 'Declare it with value, list, map, reducing or aggregating.',
      });
    }
    handles[name] = bind(task, uid, name, declared, current);
  }
  return {
    handles: Object.freeze(handles) as Handles<S>,
    setCurrent(key, hash) {
      current.key = key;
      current.hash = hash;
      current.serial++;
      current.present = true;
    },
    clearCurrent() {
      current.present = false;
    },
  };
}

function bind(task: TaskState, uid: string, name: string, declared: Declared, current: Current): unknown {
  const { version, migrate } = declared.options;
  switch (declared.kind) {
    case 'value':
      return new BoundValue(task.single(uid, name, { version, migrate }), current, declared);
    case 'list': {
      const each = migrate === undefined ? undefined : (old: unknown, from: number): unknown => (old as unknown[]).map((item) => migrate(item, from));
      return new BoundList(task.ordered(uid, name, { version, migrate: each }), current);
    }
    case 'map':
      return new BoundMap(task.keyed(uid, name, { version, migrate }), current);
    case 'reducing':
      return new BoundReducing(task.single(uid, name, { version, migrate }), current, declared.fn);
    case 'aggregating':
      return new BoundAggregating(task.single(uid, name, { version, migrate }), current, declared.fn);
  }
}

function isShared(value: unknown): boolean {
  return typeof value === 'object' && value !== null;
}

/** The row of the current key, looked up once a record. */
class CurrentRow {
  protected readonly table: SingleTable;
  protected readonly current: Current;
  private seen = -1;
  private found: Row | undefined = undefined;

  constructor(table: SingleTable, current: Current) {
    this.table = table;
    this.current = current;
  }

  protected row(): Row | undefined {
    const { current } = this;
    if (!current.present) current.demand();
    if (this.seen !== current.serial) {
      this.found = this.table.find(current.key, current.hash);
      this.seen = current.serial;
    }
    return this.found;
  }

  protected write(value: unknown): void {
    const row = this.row();
    if (row === undefined) this.found = this.table.insert(this.current.key, this.current.hash, value);
    else this.table.put(row, value);
  }

  clear(): void {
    const row = this.row();
    if (row === undefined) return;
    this.found = undefined;
    this.table.delete(row);
  }
}

class BoundValue extends CurrentRow implements ValueState<unknown> {
  private readonly hasDefault: boolean;
  private readonly initial: unknown;

  constructor(table: SingleTable, current: Current, declared: { readonly default: unknown; readonly hasDefault: boolean }) {
    super(table, current);
    this.hasDefault = declared.hasDefault;
    this.initial = declared.default;
  }

  get(): unknown {
    const row = this.row();
    if (row === undefined) return this.hasDefault ? copy(this.initial) : undefined;
    const { value } = row;
    if (isShared(value)) this.table.touch(row);
    return row.value;
  }

  set(value: unknown): void {
    this.write(value);
  }

  update(fn: (current: unknown) => unknown): void {
    this.write(fn(this.get()));
  }
}

class BoundReducing extends CurrentRow implements AccumulatorState<unknown, unknown> {
  private readonly fn: (left: unknown, right: unknown) => unknown;
  /** Whether the function returns its left argument, changed; undefined before it was called with values that can be. */
  private mutates: boolean | undefined = undefined;

  constructor(table: SingleTable, current: Current, fn: (left: unknown, right: unknown) => unknown) {
    super(table, current);
    this.fn = fn;
  }

  add(value: unknown): void {
    const row = this.row();
    if (row === undefined) {
      // The record's own value must not be changed by the next `add`.
      this.write(this.mutates === false ? value : copy(value));
      return;
    }
    if (isShared(row.value)) this.table.touch(row);
    const left = row.value;
    const next = this.fn(left, value);
    if (isShared(left) && this.mutates !== true) this.mutates = next === left;
    // A reducer that changes its left argument would change the record that it gave back here.
    this.table.put(row, next === value && this.mutates === true ? copy(next) : next);
  }

  get(): unknown {
    const row = this.row();
    if (row === undefined) return undefined;
    return this.mutates === false ? row.value : copy(row.value);
  }
}

class BoundAggregating extends CurrentRow implements AccumulatorState<unknown, unknown> {
  private readonly fn: Aggregating<unknown, unknown, unknown>;

  constructor(table: SingleTable, current: Current, fn: Aggregating<unknown, unknown, unknown>) {
    super(table, current);
    this.fn = fn;
  }

  add(value: unknown): void {
    const row = this.row();
    if (row === undefined) {
      this.write(this.fn.add(this.fn.create(), value));
      return;
    }
    if (isShared(row.value)) this.table.touch(row);
    this.table.put(row, this.fn.add(row.value, value));
  }

  get(): unknown {
    const row = this.row();
    if (row === undefined) return undefined;
    if (isShared(row.value)) this.table.touch(row);
    const accumulator = row.value;
    const result = this.fn.result(accumulator);
    return result === accumulator ? copy(result) : result;
  }
}

/** The group of the current key, looked up once a record. */
class CurrentGroup {
  protected readonly table: GroupedTable;
  protected readonly current: Current;
  private seen = -1;
  private found: Group | undefined = undefined;

  constructor(table: GroupedTable, current: Current) {
    this.table = table;
    this.current = current;
  }

  protected group(): Group | undefined {
    const { current } = this;
    if (!current.present) current.demand();
    if (this.seen !== current.serial) {
      this.found = this.table.find(current.key, current.hash);
      this.seen = current.serial;
    }
    // The last row takes its group with it; what is found next is a new one.
    if (this.found !== undefined && this.found.rows.length === 0) this.found = undefined;
    return this.found;
  }

  protected insert(ns: unknown, value: unknown): void {
    const group = this.group() ?? this.table.insert(this.current.key, this.current.hash);
    this.table.insertRow(group, ns, value);
    this.found = group;
  }

  clear(): void {
    const group = this.group();
    if (group === undefined) return;
    for (const row of [...group.rows].reverse()) this.table.deleteRow(group, row);
    this.found = undefined;
  }
}

/** Elements in a row of a list. */
const CHUNK = 64;

class BoundList extends CurrentGroup implements ListState<unknown> {
  add(value: unknown): void {
    const group = this.group();
    const last = group?.rows[group.rows.length - 1];
    if (last === undefined) {
      this.insert(0, [value]);
      return;
    }
    const chunk = last.value as unknown[];
    if (chunk.length >= CHUNK) {
      this.insert((last.ns as number) + 1, [value]);
      return;
    }
    this.table.touch(last);
    (last.value as unknown[]).push(value);
    this.table.put(last, last.value);
  }

  all(): unknown[] {
    const out: unknown[] = [];
    const group = this.group();
    if (group === undefined) return out;
    for (const row of group.rows) {
      const chunk = row.value as unknown[];
      if (chunk.some(isShared)) this.table.touch(row);
      for (const item of row.value as unknown[]) out.push(item);
    }
    return out;
  }

  set(values: Iterable<unknown>): void {
    const all = [...values];
    this.clear();
    for (let i = 0; i < all.length; i += CHUNK) this.insert(i / CHUNK, all.slice(i, i + CHUNK));
  }

  [Symbol.iterator](): Iterator<unknown> {
    return this.all()[Symbol.iterator]();
  }
}

class BoundMap extends CurrentGroup implements MapState<Key, unknown> {
  private entry(key: Key): Row | undefined {
    const group = this.group();
    return group === undefined ? undefined : this.table.row(group, key);
  }

  get(key: Key): unknown {
    const row = this.entry(canonicalKey(key));
    if (row === undefined) return undefined;
    if (isShared(row.value)) this.table.touch(row);
    return row.value;
  }

  set(key: Key, value: unknown): void {
    const ns = canonicalKey(key);
    const row = this.entry(ns);
    if (row === undefined) this.insert(ns, value);
    else this.table.put(row, value);
  }

  has(key: Key): boolean {
    return this.entry(canonicalKey(key)) !== undefined;
  }

  delete(key: Key): void {
    const row = this.entry(canonicalKey(key));
    if (row !== undefined) this.table.deleteRow(this.group()!, row);
  }

  private rows(): Row[] {
    return [...(this.group()?.rows ?? [])];
  }

  private pairs(): [Key, unknown][] {
    return this.rows().map((row) => {
      if (isShared(row.value)) this.table.touch(row);
      return [row.ns as Key, row.value];
    });
  }

  entries(): IterableIterator<[Key, unknown]> {
    return this.pairs().values();
  }

  keys(): IterableIterator<Key> {
    return this.rows()
      .map((row) => row.ns as Key)
      .values();
  }

  values(): IterableIterator<unknown> {
    return this.pairs()
      .map((pair) => pair[1])
      .values();
  }

  [Symbol.iterator](): IterableIterator<[Key, unknown]> {
    return this.entries();
  }

  get size(): number {
    return this.group()?.rows.length ?? 0;
  }
}
