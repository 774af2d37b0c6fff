// Evictors: which records of a window are dropped when it fires. Those here run before the window's function.

import { MillraceError } from '../errors.ts';
import type { Evictor, Timed } from './window.ts';

/**
 * Keeps the newest `n` records, in the order in which they came.
 *
 * @param n a whole number above 0.
 * @throws OPTION_INVALID
 * @example
 * const out: string[] = [];
 * await job('recent', (env) => {
 *   env.fromArray('pages', ['a', 'b', 'c']).keyBy(() => 'all').window(global()).trigger(onCount(1)).evictor(evictCount(2))
 *     .process('recent', (ctx, pages) => [[...pages].join('')]).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, ['a', 'ab', 'bc']);
 */
export function evictCount(n: number): Evictor<unknown> {
  if (!(Number.isInteger(n) && n > 0)) throw new MillraceError('OPTION_INVALID', `evictCount(${n}): a whole number above 0.`);
  return { before: (elements) => (elements.length <= n ? elements : elements.slice(elements.length - n)) };
}

/**
 * Keeps the records that are less than `ms` older than the newest; a record without a timestamp is kept.
 *
 * @param ms milliseconds, above 0.
 * @throws OPTION_INVALID
 * @example
 * const out: number[] = [];
 * await job('recent', (env) => {
 *   env.fromArray('times', [1_000, 5_000, 6_000], { timestamp: (at) => at }).keyBy(() => 'all')
 *     .window(global()).trigger(onCount(3)).evictor(evictTime(seconds(5))).aggregate('recent', count())
 *     .map((result) => result.value).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, [2]);
 */
export function evictTime(ms: number): Evictor<unknown> {
  if (!(ms > 0)) throw new MillraceError('OPTION_INVALID', `evictTime(${ms}): milliseconds above 0.`);
  return {
    before<E>(elements: Timed<E>[]): Timed<E>[] {
      let newest = Number.NEGATIVE_INFINITY;
      for (const { timestamp } of elements) if (timestamp > newest) newest = timestamp;
      return elements.filter(({ timestamp }) => !(timestamp <= newest - ms));
    },
  };
}

/**
 * Keeps the records whose distance to the one that came last is below `threshold`.
 *
 * @param fn the distance of an older record to the last one; it is asked of the last one itself too.
 * @throws OPTION_INVALID
 * @example
 * const out: number[][] = [];
 * await job('near', (env) => {
 *   env.fromArray('prices', [10, 12, 20, 21]).keyBy(() => 'all').window(global()).trigger(onCount(4))
 *     .evictor(evictDelta<number>(5, (older, newest) => newest - older)).process('near', (ctx, prices) => [[...prices]]).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, [[20, 21]]);
 */
export function evictDelta<T>(threshold: number, fn: (older: T, newest: T) => number): Evictor<T> {
  if (Number.isNaN(threshold) || typeof threshold !== 'number') throw new MillraceError('OPTION_INVALID', `evictDelta(${threshold}): a number.`);
  return {
    before<E extends T>(elements: Timed<E>[]): Timed<E>[] {
      const last = elements[elements.length - 1];
      return last === undefined ? elements : elements.filter(({ value }) => !(fn(value, last.value) >= threshold));
    },
  };
}
