// Window assigners: tumbling and sliding windows of event time.
//
// What: an assigner says which windows a timestamp belongs to. Windows are [start, end), aligned to the epoch plus an offset; negative timestamps work.
// The window operator does not call `assign` for these: it keeps slices (`operators/window.ts`) and reads `size`, `slide` and `offset`.

import { MillraceError } from '../errors.ts';

/** A stretch of time, in epoch milliseconds. */
export interface Window {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

/** Says which windows a record belongs to: `tumbling()` or `sliding()`. */
export interface WindowAssigner<in T, out M extends boolean = boolean> {
  /** Whether its windows can grow together. */
  readonly merges: M;
  /** Which time `timestamp` is. */
  readonly time: 'event' | 'processing';
  /** The windows that hold the timestamp, newest first. */
  assign(value: T, timestamp: number): Iterable<Window>;
}

/** A sliding window as data; tumbling is slide = size. */
export interface FixedWindows extends WindowAssigner<unknown, false> {
  readonly size: number;
  readonly slide: number;
  readonly offset: number;
}

/** Where windows begin. */
export interface AssignerOptions {
  /** Milliseconds by which windows are shifted from the epoch, 0 by default; |offset| < size, or < slide. Days of another time zone need one. */
  offset?: number;
}

/** Start of the last window or slice of that width at or before `timestamp`; right for negative ones too. */
export function startOf(timestamp: number, width: number, offset: number): number {
  // A division is several times faster than a remainder of doubles; where it was rounded up the check fails.
  const start = Math.floor((timestamp - offset) / width) * width + offset;
  if (start <= timestamp && timestamp < start + width && Number.isSafeInteger(start)) return start;
  const remainder = (timestamp - offset) % width;
  return remainder < 0 ? timestamp - remainder - width : timestamp - remainder;
}

/**
 * Windows of event time side by side: each record is in one. They begin at whole multiples of their size since the epoch.
 *
 * @param size milliseconds, above 0.
 * @throws OPTION_INVALID
 * @example
 * const clicks = [{ user: 'ada', at: 0 }, { user: 'ada', at: 4_000 }, { user: 'ada', at: 6_000 }];
 * const out: Windowed<string, number>[] = [];
 * await job('clicks', (env) => {
 *   env.fromArray('clicks', clicks, { timestamp: (click) => click.at }).keyBy((click) => click.user)
 *     .window(tumbling(seconds(5))).aggregate('clicks-5s', count()).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, [{ key: 'ada', start: 0, end: 5_000, value: 2 }, { key: 'ada', start: 5_000, end: 10_000, value: 1 }]);
 */
export function tumbling(size: number, options: AssignerOptions = {}): WindowAssigner<unknown, false> {
  return fixed('tumbling', size, size, options);
}

/**
 * Windows of event time that overlap: a new one of `size` begins each `slide`. A slide longer than the size leaves gaps, whose records are in no window.
 *
 * @param size milliseconds, above 0.
 * @param slide milliseconds, above 0.
 * @throws OPTION_INVALID
 * @example
 * const windows = [...sliding(minutes(60), minutes(30)).assign(undefined, minutes(70))];
 * assert.deepEqual(windows, [{ start: minutes(60), end: minutes(120) }, { start: minutes(30), end: minutes(90) }]);
 */
export function sliding(size: number, slide: number, options: AssignerOptions = {}): WindowAssigner<unknown, false> {
  return fixed('sliding', size, slide, options);
}

function fixed(name: string, size: number, slide: number, options: AssignerOptions): FixedWindows {
  const offset = options.offset ?? 0;
  if (!(size > 0 && Number.isFinite(size)) || !(slide > 0 && Number.isFinite(slide))) {
    throw new MillraceError('OPTION_INVALID', `${name}(${size}, ${slide}): size and slide must be milliseconds above 0.`);
  }
  if (!(Math.abs(offset) < slide)) throw new MillraceError('OPTION_INVALID', `${name}: the offset ${offset} must be smaller than ${slide}.`);
  return {
    merges: false,
    time: 'event',
    size,
    slide,
    offset,
    *assign(_value: unknown, timestamp: number): Iterable<Window> {
      for (let start = startOf(timestamp, slide, offset); start > timestamp - size; start -= slide) yield { start, end: start + size };
    },
  };
}

export function isFixed(assigner: WindowAssigner<never, boolean>): assigner is FixedWindows {
  return 'size' in assigner && 'slide' in assigner;
}

/** Early results of a window that is still open; see `early()`. */
export interface EarlyTrigger {
  readonly early: { readonly every: number; readonly count: number };
}

/**
 * A trigger that shows what a window is so far: besides its end, the whole window fires each `every` in which it changed, and each `count` records.
 *
 * @param options `every` in milliseconds of processing time, `count` in records of a window and key; at least one of them.
 * @throws OPTION_INVALID
 * @example
 * const sales = [{ shop: 'a', at: 1 }, { shop: 'a', at: 2 }, { shop: 'a', at: 3 }];
 * const out: number[] = [];
 * await job('sales', (env) => {
 *   env.fromArray('sales', sales, { timestamp: (sale) => sale.at }).keyBy((sale) => sale.shop)
 *     .window(tumbling(hours(1))).trigger(early({ count: 2 })).aggregate('sales-1h', count())
 *     .map((result) => result.value).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, [2, 3]);
 */
export function early(options: { every?: number; count?: number }): EarlyTrigger {
  const { every = 0, count = 0 } = options;
  if (every < 0 || count < 0 || (every === 0 && count === 0))
    throw new MillraceError('OPTION_INVALID', 'early() needs `every` in milliseconds or `count` in elements, above 0.');
  return { early: { every, count } };
}
