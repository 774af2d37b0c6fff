// The aggregates that come with Millrace. Each is an AggregateFunction; accumulators are plain data; results are fresh, never the accumulator itself.
//
// `PURE` marks aggregates whose `merge` neither changes its right side nor keeps it: the window operator may then read closed slices without
// counting them as changed. `EXACT` marks those whose accumulators are primitives that `merge` joins without loss in any grouping.

import { copy, keyBytes } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import type { Key } from '../graph/job.ts';
import { type AggregateFunction, IN_ORDER } from '../graph/node.ts';
import type { WindowAssigner } from '../time/window.ts';
import { countWindow } from '../time/windows.ts';
import { Histogram, type Samples } from './histogram.ts';

export const PURE: unique symbol = Symbol.for('millrace.pure');

export type Merging<T, A, R> = AggregateFunction<T, A, R> & { merge(left: A, right: A): A };
type Ordered = number | bigint | string;

function pure<T, A, R>(fn: Merging<T, A, R>): Merging<T, A, R> {
  return Object.assign(fn, { [PURE]: true });
}

export function isPure(fn: object): boolean {
  return PURE in fn;
}

/** Of aggregates whose accumulators are records, which nobody changes: they go out as they are. */
export const KEPT: unique symbol = Symbol.for('millrace.kept');

export function isKept(fn: object): boolean {
  return KEPT in fn;
}

export function isInOrder(fn: object): boolean {
  return IN_ORDER in fn;
}

export const EXACT: unique symbol = Symbol.for('millrace.exact');

/** Says of an accumulator whether merging it is exact; undefined where the aggregate does not promise it for any. */
export function exactOf(fn: object): ((accumulator: unknown) => boolean) | undefined {
  return (fn as { [EXACT]?: (accumulator: unknown) => boolean })[EXACT];
}

function exact<F extends object>(fn: F, of: (accumulator: unknown) => boolean): F {
  return Object.assign(fn, { [EXACT]: of });
}

// biome-ignore lint/suspicious/noSelfCompare: NaN is neither smaller nor larger, so its place decides
const comparable = (accumulator: unknown): boolean => accumulator === accumulator && typeof accumulator !== 'object';

const add = (left: number, right: number): number => left + right;

/**
 * The aggregate: the number of records. With a number, windows of that many records of a key; with a slide too, of the newest `n` each `slide` records.
 *
 * @param n records in a window, a whole number above 0; each record is in one window.
 * @param slide records between two results, a whole number above 0; the first come with fewer than `n` records.
 * @throws OPTION_INVALID
 * @example
 * const out: Keyed<string, number>[] = [];
 * await job('clicks', (env) => {
 *   env.fromArray('users', ['ada', 'bob', 'ada']).keyBy((user) => user).aggregate('clicks', count()).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, [{ key: 'ada', value: 1 }, { key: 'bob', value: 1 }, { key: 'ada', value: 2 }]);
 *
 * const sums: number[] = [];
 * await job('by-three', (env) => {
 *   env.fromArray('numbers', [1, 2, 3, 4, 5, 6]).keyBy(() => 'all').window(count(3)).aggregate('sums', sum((n) => n))
 *     .map((result) => result.value).sink('out', collect(sums));
 * }).run();
 * assert.deepEqual(sums, [6, 15]);
 */
export function count(): Merging<unknown, number, number>;
export function count(n: number, slide?: number): WindowAssigner<unknown, false>;
export function count(n?: number, slide?: number): Merging<unknown, number, number> | WindowAssigner<unknown, false> {
  if (n !== undefined) return countWindow(n, slide);
  return exact(pure({ create: () => 0, add: (n: number) => n + 1, merge: add, result: (n: number) => n }), Number.isSafeInteger);
}

/**
 * The sum of `fn(value)`.
 * @example
 * const out: Keyed<string, number>[] = [];
 * await job('revenue', (env) => {
 *   env.fromArray('orders', [{ shop: 'a', total: 12 }, { shop: 'a', total: 30 }])
 *     .keyBy((order) => order.shop).aggregate('revenue', sum((order) => order.total)).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out.at(-1), { key: 'a', value: 42 });
 */
export function sum<T>(fn: (value: T) => number): Merging<T, number, number> {
  return exact(
    pure({ create: () => 0, add: (total: number, value: T) => total + fn(value), merge: add, result: (total: number) => total }),
    Number.isSafeInteger,
  );
}

/**
 * The arithmetic mean of `fn(value)`.
 * @example
 * const out: Keyed<string, number>[] = [];
 * await job('cpu', (env) => {
 *   env.fromArray('samples', [{ host: 'a', cpu: 20 }, { host: 'a', cpu: 60 }])
 *     .keyBy((sample) => sample.host).aggregate('cpu', avg((sample) => sample.cpu)).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out.at(-1), { key: 'a', value: 40 });
 */
export function avg<T>(fn: (value: T) => number): Merging<T, { sum: number; count: number }, number> {
  return pure({
    create: () => ({ sum: 0, count: 0 }),
    add(mean: { sum: number; count: number }, value: T) {
      mean.sum += fn(value);
      mean.count += 1;
      return mean;
    },
    merge(left: { sum: number; count: number }, right: { sum: number; count: number }) {
      left.sum += right.sum;
      left.count += right.count;
      return left;
    },
    result: (mean: { sum: number; count: number }) => mean.sum / mean.count,
  });
}

/**
 * The smallest of `fn(value)`.
 * @example
 * const out: Keyed<string, number>[] = [];
 * await job('coldest', (env) => {
 *   env.fromArray('readings', [{ city: 'oslo', celsius: -4 }, { city: 'oslo', celsius: -9 }, { city: 'oslo', celsius: 2 }])
 *     .keyBy((reading) => reading.city).aggregate('coldest', min((reading) => reading.celsius)).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out.at(-1), { key: 'oslo', value: -9 });
 */
export function min<T, V extends Ordered>(fn: (value: T) => V): Merging<T, V | undefined, V> {
  const least = (left: V | undefined, right: V | undefined): V | undefined => (left === undefined || (right !== undefined && right < left) ? right : left);
  return exact(
    pure({
      create: () => undefined as V | undefined,
      add: (held: V | undefined, value: T) => least(held, fn(value)),
      merge: least,
      result: (held: V | undefined) => held as V,
    }),
    comparable,
  );
}

/**
 * The largest of `fn(value)`.
 * @example
 * const out: Keyed<string, string>[] = [];
 * await job('latest', (env) => {
 *   env.fromArray('logins', [{ user: 'ada', day: '2030-01-31' }, { user: 'ada', day: '2030-01-02' }])
 *     .keyBy((login) => login.user).aggregate('latest', max((login) => login.day)).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out.at(-1), { key: 'ada', value: '2030-01-31' });
 */
export function max<T, V extends Ordered>(fn: (value: T) => V): Merging<T, V | undefined, V> {
  const most = (left: V | undefined, right: V | undefined): V | undefined => (left === undefined || (right !== undefined && right > left) ? right : left);
  return exact(
    pure({
      create: () => undefined as V | undefined,
      add: (held: V | undefined, value: T) => most(held, fn(value)),
      merge: most,
      result: (held: V | undefined) => held as V,
    }),
    comparable,
  );
}

// ── records as results ──

/** Marks an aggregate whose accumulator is a record, or undefined before the first. */
function kept<F extends object>(fn: F): F {
  return Object.assign(fn, { [KEPT]: true });
}

function inOrder<F extends object>(fn: F): F {
  return Object.assign(fn, { [IN_ORDER]: true });
}

/** Keeps one record: `better` says whether the newer one takes the place of the older. */
function oneRecord<T>(better: (held: T, value: T) => boolean): Merging<T, T | undefined, T> {
  const chosen = (held: T | undefined, value: T | undefined): T | undefined =>
    held === undefined || (value !== undefined && better(held, value)) ? value : held;
  return kept(pure({ create: () => undefined as T | undefined, add: chosen, merge: chosen, result: (held: T | undefined) => held as T }));
}

/**
 * The record with the smallest `fn(value)`; of several, one of them.
 * @example
 * const out: Keyed<string, { city: string; celsius: number }>[] = [];
 * await job('coldest', (env) => {
 *   env.fromArray('readings', [{ city: 'oslo', celsius: -4 }, { city: 'rome', celsius: 12 }])
 *     .keyBy(() => 'all').aggregate('coldest', minBy((reading) => reading.celsius)).sink('out', collect(out));
 * }).run();
 * assert.equal(out.at(-1)?.value.city, 'oslo');
 */
export function minBy<T>(fn: (value: T) => Ordered): Merging<T, T | undefined, T> {
  return oneRecord((held, value) => fn(value) < fn(held));
}

/**
 * The record with the largest `fn(value)`; of several, one of them.
 * @example
 * const out: Keyed<string, { city: string; celsius: number }>[] = [];
 * await job('warmest', (env) => {
 *   env.fromArray('readings', [{ city: 'oslo', celsius: -4 }, { city: 'rome', celsius: 12 }])
 *     .keyBy(() => 'all').aggregate('warmest', maxBy((reading) => reading.celsius)).sink('out', collect(out));
 * }).run();
 * assert.equal(out.at(-1)?.value.city, 'rome');
 */
export function maxBy<T>(fn: (value: T) => Ordered): Merging<T, T | undefined, T> {
  return oneRecord((held, value) => fn(value) > fn(held));
}

/**
 * The record that came first. Of sessions that grow together it is that of the earlier one.
 * @example
 * const out: Keyed<string, string>[] = [];
 * await job('entry', (env) => {
 *   env.fromArray('pages', ['/', '/a', '/b']).keyBy(() => 'ada').aggregate('entry', first()).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out.at(-1), { key: 'ada', value: '/' });
 */
export function first<T>(): Merging<T, T | undefined, T> {
  return inOrder(oneRecord<T>(() => false));
}

/**
 * The record that came last. Of sessions that grow together it is that of the later one.
 * @example
 * const out: Keyed<string, string>[] = [];
 * await job('exit', (env) => {
 *   env.fromArray('pages', ['/', '/a', '/b']).keyBy(() => 'ada').aggregate('exit', last()).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out.at(-1), { key: 'ada', value: '/b' });
 */
export function last<T>(): Merging<T, T | undefined, T> {
  return inOrder(oneRecord<T>(() => true));
}

/**
 * All records, in the order in which they came; those of sessions that grow together session by session.
 * @example
 * import { collect as into } from 'millrace/connectors';
 *
 * const out: Windowed<string, string[]>[] = [];
 * await job('visits', (env) => {
 *   env.fromArray('pages', [{ page: '/', at: 1 }, { page: '/a', at: 2 }], { timestamp: (visit) => visit.at }).keyBy(() => 'ada')
 *     .map((visit) => visit.page).keyBy(() => 'ada').window(tumbling(10)).aggregate('visits', collect<string>()).sink('out', into(out));
 * }).run();
 * assert.deepEqual(out, [{ key: 'ada', start: 0, end: 10, value: ['/', '/a'] }]);
 */
export function collect<T>(): Merging<T, T[], T[]> {
  return inOrder(
    pure({
      create: (): T[] => [],
      add(all: T[], value: T) {
        all.push(value);
        return all;
      },
      merge(left: T[], right: T[]) {
        for (const value of right) left.push(value);
        return left;
      },
      result: (all: T[]) => all.slice(),
    }),
  );
}

/**
 * How many different keys `fn` gives. Every key is kept.
 * @example
 * const out: Keyed<string, number>[] = [];
 * await job('visitors', (env) => {
 *   env.fromArray('visits', [{ page: '/', user: 'ada' }, { page: '/', user: 'bob' }, { page: '/', user: 'ada' }])
 *     .keyBy((visit) => visit.page).aggregate('visitors', distinct((visit) => visit.user)).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out.at(-1), { key: '/', value: 2 });
 */
export function distinct<T>(fn: (value: T) => Key): Merging<T, unknown, number> {
  // A Set tells primitive keys apart as keys are (−0 = 0, NaN = NaN); of other keys it has the canonical bytes.
  const member = (key: Key): unknown => {
    if (typeof key === 'string') return key.startsWith('\u0000') ? `\u0000"${key}` : key;
    return typeof key === 'object' ? `\u0000[${keyBytes(key).toString('latin1')}` : key;
  };
  const fns: Merging<T, Set<unknown>, number> = {
    create: () => new Set<unknown>(),
    add: (keys, value) => keys.add(member(fn(value))),
    merge(left, right) {
      for (const key of right) left.add(key);
      return left;
    },
    result: (keys) => keys.size,
  };
  return pure(fns) as unknown as Merging<T, unknown, number>;
}

/**
 * The `n` records with the largest `by(value)`, the largest first.
 *
 * @param n a whole number above 0.
 * @throws OPTION_INVALID
 * @example
 * const out: Keyed<string, number[]>[] = [];
 * await job('best', (env) => {
 *   env.fromArray('scores', [7, 3, 9]).keyBy(() => 'all').aggregate('best', topN(2, (score) => score)).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out.at(-1), { key: 'all', value: [9, 7] });
 */
export function topN<T>(n: number, by: (value: T) => number): Merging<T, T[], T[]> {
  if (!(Number.isInteger(n) && n > 0)) throw new MillraceError('OPTION_INVALID', `topN(${n}): a whole number above 0.`);
  const put = (best: T[], value: T): void => {
    const rank = by(value);
    // Behind those that are as large; what has no rank stands behind all.
    let at = best.length;
    while (at > 0 && !Number.isNaN(rank) && !(by(best[at - 1]!) >= rank)) at -= 1;
    if (at < n) best.splice(at, 0, value);
    if (best.length > n) best.pop();
  };
  return pure({
    create: (): T[] => [],
    add(best: T[], value: T) {
      put(best, value);
      return best;
    },
    merge(left: T[], right: T[]) {
      for (const value of right) put(left, value);
      return left;
    },
    result: (best: T[]) => best.slice(),
  });
}

/**
 * How `fn(value)` is distributed: its count, its sum, and any quantile of it. Values that are no numbers are left out.
 *
 * @param options `buckets`: upper bounds, rising; a quantile is then interpolated within its bucket. Without them a quantile is right to 1 %.
 * @throws OPTION_INVALID
 * @example
 * const out: { p50: number; n: number }[] = [];
 * await job('latency', (env) => {
 *   env.fromArray('calls', Array.from({ length: 100 }, (_, i) => ({ ms: i + 1 }))).keyBy(() => 'all')
 *     .window(count(100)).aggregate('latency', histogram((call) => call.ms))
 *     .map(({ value }) => ({ p50: value.quantile(0.5), n: value.count })).sink('out', collect(out));
 * }).run();
 * assert.equal(out[0]?.n, 100);
 * assert.ok(Math.abs(out[0].p50 - 50) <= 0.5);
 */
export function histogram<T>(
  fn: (value: T) => number,
  options: { buckets?: readonly number[] } = {},
): Merging<T, unknown, { quantile(q: number): number; count: number; sum: number }> {
  const { buckets } = options;
  if (buckets !== undefined && (buckets.length === 0 || buckets.some((bound, i) => Number.isNaN(bound) || (i > 0 && !(bound > buckets[i - 1]!)))))
    throw new MillraceError('OPTION_INVALID', 'histogram(): buckets are numbers that rise.');
  const bounds = buckets === undefined ? undefined : [...buckets];
  const fns: Merging<T, Samples, Histogram> = {
    create: () => Histogram.create(),
    add: (samples, value) => Histogram.add(samples, fn(value), bounds),
    merge: (left, right) => Histogram.merge(left, right),
    result: (samples) => new Histogram(Histogram.merge(Histogram.create(), samples), bounds),
  };
  return pure(fns) as unknown as Merging<T, unknown, { quantile(q: number): number; count: number; sum: number }>;
}

type ResultOf<F> = F extends { result(accumulator: never): infer R } ? R : never;

/**
 * Several aggregates over the same records, as one object with the result of each.
 * @example
 * const out: Keyed<string, { mean: number; peak: number }>[] = [];
 * await job('cpu', (env) => {
 *   env.fromArray('samples', [{ host: 'a', cpu: 20 }, { host: 'a', cpu: 60 }]).keyBy((sample) => sample.host)
 *     .aggregate('cpu', combine({ mean: avg((sample) => sample.cpu), peak: max((sample) => sample.cpu) })).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out.at(-1), { key: 'a', value: { mean: 40, peak: 60 } });
 */
export function combine<T, S extends Record<string, AggregateFunction<T, unknown, unknown>>>(
  parts: S,
): Merging<T, unknown, { [N in keyof S]: ResultOf<S[N]> }> {
  const names = Object.keys(parts);
  const fns = names.map((name) => parts[name] as AggregateFunction<T, unknown, unknown>);
  const merging = fns.every((fn) => fn.merge !== undefined);
  const all = {
    create: (): unknown => fns.map((fn) => fn.create()),
    add(held: unknown, value: T): unknown {
      const parts = held as unknown[];
      for (let i = 0; i < fns.length; i++) parts[i] = fns[i]!.add(parts[i], value);
      return parts;
    },
    merge(left: unknown, right: unknown): unknown {
      const [l, r] = [left as unknown[], right as unknown[]];
      for (let i = 0; i < fns.length; i++) l[i] = fns[i]!.merge!(l[i], r[i]);
      return l;
    },
    // A part whose result is its accumulator goes out as a copy: the accumulator goes on changing.
    result: (held: unknown) =>
      Object.fromEntries(
        names.map((name, i) => {
          const part = (held as unknown[])[i];
          const result = fns[i]!.result(part);
          return [name, result === part && typeof result === 'object' && result !== null && !isKept(fns[i]!) ? copy(result) : result];
        }),
      ) as { [N in keyof S]: ResultOf<S[N]> },
  };
  if (!merging) return { ...all, merge: undefined } as unknown as Merging<T, unknown, { [N in keyof S]: ResultOf<S[N]> }>;
  const ordered = fns.some(isInOrder) ? inOrder(all) : all;
  return fns.every(isPure) ? pure(ordered) : ordered;
}
