// The aggregates that come with Millrace. Each is an AggregateFunction; accumulators are plain data; results are fresh, never the accumulator itself.
//
// `PURE` marks aggregates whose `merge` neither changes its right side nor keeps it: the window operator may then read closed slices without
// counting them as changed. `EXACT` marks those whose accumulators are primitives that `merge` joins without loss in any grouping.

import { copy } from '../../state-backends/index.ts';
import type { AggregateFunction } from '../graph/node.ts';

export const PURE: unique symbol = Symbol.for('millrace.pure');

export type Merging<T, A, R> = AggregateFunction<T, A, R> & { merge(left: A, right: A): A };
type Ordered = number | bigint | string;

function pure<T, A, R>(fn: Merging<T, A, R>): Merging<T, A, R> {
  return Object.assign(fn, { [PURE]: true });
}

export function isPure(fn: object): boolean {
  return PURE in fn;
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
 * The number of records.
 * @example
 * const out: Keyed<string, number>[] = [];
 * await job('clicks', (env) => {
 *   env.fromArray('users', ['ada', 'bob', 'ada']).keyBy((user) => user).aggregate('clicks', count()).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, [{ key: 'ada', value: 1 }, { key: 'bob', value: 1 }, { key: 'ada', value: 2 }]);
 */
export function count(): Merging<unknown, number, number> {
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
          return [name, result === part && typeof result === 'object' && result !== null ? copy(result) : result];
        }),
      ) as { [N in keyof S]: ResultOf<S[N]> },
  };
  if (!merging) return { ...all, merge: undefined } as unknown as Merging<T, unknown, { [N in keyof S]: ResultOf<S[N]> }>;
  return fns.every(isPure) ? pure(all) : all;
}
