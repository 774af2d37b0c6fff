// Window assigners: tumbling and sliding windows of event time.
//
// What: an assigner says which windows a timestamp belongs to. Windows are [start, end), aligned to the epoch plus an offset; negative timestamps work.
// The window operator does not call `assign` for these: it keeps slices (`operators/window.ts`) and reads `size`, `slide` and `offset`.

import { MillraceError } from '../errors.ts';

export interface Window {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

export interface WindowAssigner<in T, out M extends boolean = boolean> {
  readonly merges: M;
  readonly time: 'event' | 'processing';
  assign(value: T, timestamp: number): Iterable<Window>;
}

/** A sliding window as data; tumbling is slide = size. */
export interface FixedWindows extends WindowAssigner<unknown, false> {
  readonly size: number;
  readonly slide: number;
  readonly offset: number;
}

export interface AssignerOptions {
  /** Milliseconds by which windows are shifted from the epoch; |offset| < size, or < slide. */
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
 * Windows of `size` milliseconds side by side.
 * @example `stream.keyBy((s) => s.host).window(tumbling(minutes(5)))`
 */
export function tumbling(size: number, options: AssignerOptions = {}): WindowAssigner<unknown, false> {
  return fixed('tumbling', size, size, options);
}

/**
 * Windows of `size` milliseconds, a new one each `slide` milliseconds. A slide longer than the size leaves gaps, whose records belong to no window.
 * @example `stream.keyBy((s) => s.host).window(sliding(minutes(60), minutes(1)))`
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
 * Like the default trigger, plus firings of the whole window each `every` milliseconds of processing time in which it changed, and each `count` elements.
 * @example `stream.keyBy(host).window(tumbling(minutes(5))).trigger(early({ every: seconds(2) }))`
 */
export function early(options: { every?: number; count?: number }): EarlyTrigger {
  const { every = 0, count = 0 } = options;
  if (every < 0 || count < 0 || (every === 0 && count === 0))
    throw new MillraceError('OPTION_INVALID', 'early() needs `every` in milliseconds or `count` in elements, above 0.');
  return { early: { every, count } };
}
