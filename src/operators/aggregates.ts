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

/** The number of records. @example `window.aggregate('clicks', count())` */
export function count(): Merging<unknown, number, number> {
  return exact(pure({ create: () => 0, add: (n: number) => n + 1, merge: add, result: (n: number) => n }), Number.isSafeInteger);
}

/** @example `window.aggregate('revenue', sum((o) => o.total))` */
export function sum<T>(fn: (value: T) => number): Merging<T, number, number> {
  return exact(
    pure({ create: () => 0, add: (total: number, value: T) => total + fn(value), merge: add, result: (total: number) => total }),
    Number.isSafeInteger,
  );
}

/** The arithmetic mean. @example `window.aggregate('cpu-5m', avg((s) => s.cpu))` */
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

/** The smallest of `fn(value)`. @example `window.aggregate('coldest', min((s) => s.celsius))` */
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

/** The largest of `fn(value)`. @example `window.aggregate('mem-60m', max((s) => s.mem))` */
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
 * Several aggregates over the same records, as one object.
 * @example `window.aggregate('cpu', combine({ mean: avg((s) => s.cpu), peak: max((s) => s.cpu) }))`
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
