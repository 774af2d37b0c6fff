// The kinds of state that users declare: data that says what, with which options and functions.
//
// The handles that act on them stand in `kinds-keyed.ts` (for the current key), `kinds-expiring.ts` (the same with a ttl) and `kinds-operator.ts` (of an
// instance, without a key).

import type { Key } from './contract.ts';

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
  /**
   * Milliseconds after which what was written is gone; never by default. It is not given back from then on, and is removed soon after. Elements of a list and
   * entries of a map have each their own.
   */
  ttl?: number;
  /** `read`: what is read, by `get` or by iterating, begins anew; `write` by default. */
  ttlOn?: 'write' | 'read';
  /**
   * What counts: processing time (default), over an outage too; or event time, which stands still while the job does. Then a write counts from its record's
   * timestamp, or from the watermark where that is ahead, and is gone once the watermark has come `ttl` further.
   */
  ttlClock?: 'processing' | 'event';
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
  | { readonly kind: 'aggregating'; readonly options: StateOptions<unknown>; readonly fn: Aggregating<unknown, unknown, unknown> }
  | { readonly kind: 'splitList'; readonly options: StateOptions<unknown> }
  | { readonly kind: 'unionList'; readonly options: StateOptions<unknown> }
  | { readonly kind: 'broadcastMap'; readonly options: StateOptions<unknown> };
/** Those of the state of a key. */
export type KeyedDeclared = Exclude<Declared, { readonly kind: 'splitList' | 'unionList' | 'broadcastMap' }>;

/** Any declared state; the scope says which processes may have it. */
export type AnyKind = StateKind<unknown, 'keyed' | 'operator' | 'broadcast'>;

export type StateSpec = Readonly<Record<string, StateKind<unknown, 'keyed'>>>;

const DECLARED = Symbol('declared');

function kindOf<H, Scope extends AnyKind['scope']>(scope: Scope, declared: Declared): StateKind<H, Scope> {
  return Object.freeze({ scope, [DECLARED]: Object.freeze(declared) }) as StateKind<H, Scope>;
}
function keyed<H>(declared: KeyedDeclared): StateKind<H, 'keyed'> {
  return kindOf<H, 'keyed'>('keyed', declared);
}

/** What a kind declares; undefined for what none of the functions here has made. */
export function declaredOf(kind: AnyKind): Declared | undefined {
  return (kind as { [DECLARED]?: Declared } | undefined)?.[DECLARED];
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

/**
 * State of an unkeyed process: a list of this instance. Restored at another parallelism, the items of all instances are dealt out anew.
 *
 * @param options ttl, version and migrate are those of one item.
 * @example
 * const out: number[][] = [];
 * await job('pairs', (env) => {
 *   env.fromArray('numbers', [1, 2, 3]).process('pairs', {
 *     emits: type<number[]>(),
 *     state: { waiting: splitList<number>() },
 *     onRecord(n, ctx) {
 *       ctx.state.waiting.add(n);
 *       const waiting = ctx.state.waiting.all();
 *       if (waiting.length < 2) return;
 *       ctx.emit(waiting);
 *       ctx.state.waiting.clear();
 *     },
 *     onEnd(ctx) {
 *       ctx.emit(ctx.state.waiting.all());
 *     },
 *   }).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, [[1, 2], [3]]);
 */
export function splitList<T>(options: StateOptions<T> = {}): StateKind<ListState<T>, 'operator'> {
  return kindOf('operator', { kind: 'splitList', options });
}

/**
 * State of an unkeyed process: a list of this instance. After a restore every instance has the items of all of them, at the same parallelism too; each keeps
 * of it what is its own.
 *
 * @param options ttl, version and migrate are those of one item.
 * @example
 * const out: string[] = [];
 * await job('names', (env) => {
 *   env.fromArray('names', ['ada', 'bob', 'ada']).process('known', {
 *     emits: type<string>(),
 *     state: { known: unionList<string>() },
 *     onRecord(name, ctx) {
 *       if (ctx.state.known.all().includes(name)) return;
 *       ctx.state.known.add(name);
 *       ctx.emit(name);
 *     },
 *   }).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, ['ada', 'bob']);
 */
export function unionList<T>(options: StateOptions<T> = {}): StateKind<ListState<T>, 'operator'> {
  return kindOf('operator', { kind: 'unionList', options });
}

/**
 * State beside a broadcast stream: a map of which every instance has the same copy. `onRight` changes it, in the same way in each instance; `onLeft` reads it.
 *
 * @param options ttl, version and migrate are those of one entry.
 * @example
 * const out: string[] = [];
 * await job('tags', (env) => {
 *   const rules = env.fromArray('rules', [{ id: 'big', limit: 100 }]);
 *   env.fromArray('amounts', [50, 500]).connect(rules.broadcast()).process('tags', {
 *     emits: type<string>(),
 *     state: { rules: broadcastMap<string, { id: string; limit: number }>() },
 *     onLeft(amount, ctx) {
 *       for (const rule of ctx.state.rules.values()) if (amount > rule.limit) ctx.emit(rule.id);
 *     },
 *     onRight(rule, ctx) {
 *       ctx.state.rules.set(rule.id, rule);
 *     },
 *   }).sink('out', collect(out));
 * }).run();
 * assert.ok(out.length <= 1, 'whether the rule came before the amount is not said');
 */
export function broadcastMap<K extends Key, V>(options: StateOptions<V> = {}): StateKind<BroadcastMap<K, V>, 'broadcast'> {
  return kindOf('broadcast', { kind: 'broadcastMap', options });
}
