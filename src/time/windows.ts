// Window assigners: which windows a record belongs to.
//
// What: windows are [start, end). Tumbling and sliding ones are aligned to the epoch plus an offset; negative timestamps work. A session reaches from a record
// to the gap behind it, and grows together with those that it touches. There is one global window a key; `count(n)` is that with a trigger and an evictor.
//
// Who owns what: `shapeOf` tells the window operator how to find a window again without asking `assign`; of any other assigner, also a changed copy of one of
// these, it asks `assign` and keeps the bounds of each window in state.

import { MillraceError } from '../errors.ts';
import { evictCount } from './evictors.ts';
import { never, onCount, onEventTime, onProcessingTime, purging } from './triggers.ts';
import type { Evictor, MergingTrigger, Trigger, Window, WindowAssigner } from './window.ts';

/** What is known of the windows of an assigner. */
export type WindowShape =
  /** A new window of `size` each `slide`; tumbling is slide = size. */
  | { readonly kind: 'fixed'; readonly size: number; readonly slide: number; readonly offset: number }
  | { readonly kind: 'global' }
  | { readonly kind: 'session' };

interface Known {
  readonly shape: WindowShape;
  readonly evictor?: Evictor<unknown>;
}
const known = new WeakMap<object, Known>();

/** Undefined: it is not one of those here. */
export function shapeOf(assigner: object): WindowShape | undefined {
  return known.get(assigner)?.shape;
}

/** The evictor that belongs to the assigner, where one does. */
export function evictorOf(assigner: object): Evictor<unknown> | undefined {
  return known.get(assigner)?.evictor;
}

function knownAs<T, M extends boolean>(facts: Known, assigner: WindowAssigner<T, M>): WindowAssigner<T, M> {
  known.set(assigner, facts);
  return assigner;
}

/** Where windows begin, and which time they are of. */
export interface AssignerOptions {
  /** Milliseconds by which windows are shifted from the epoch, 0 by default; |offset| < size, or < slide. Days of another time zone need one. */
  offset?: number;
  /** `event` (default): the records' timestamps, and watermarks. `processing`: the clock, when a record comes; no record is late. */
  time?: 'event' | 'processing';
}

/** Start of the last window or slice of that width at or before `timestamp`; right for negative ones too. */
export function startOf(timestamp: number, width: number, offset: number): number {
  // A division is several times faster than a remainder of doubles; where it was rounded up the check fails.
  const index = Math.floor((timestamp - offset) / width);
  const start = index * width + offset;
  if (start <= timestamp && timestamp < start + width && Number.isSafeInteger(start)) return start;
  if (!isWhole(width, offset)) {
    if (start > timestamp) return (index - 1) * width + offset;
    const next = (index + 1) * width + offset;
    return next <= timestamp ? next : start;
  }
  const remainder = (timestamp - offset) % width;
  return remainder < 0 ? timestamp - remainder - width : timestamp - remainder;
}

/** Whether sums of these are exact. A sum of fractions is not the same on each way to it; a multiple is. */
export function isWhole(width: number, offset: number): boolean {
  return Number.isInteger(width) && Number.isInteger(offset);
}

/** Start of the window in front of the one that begins there. */
export function startBefore(start: number, slide: number, offset: number): number {
  return isWhole(slide, offset) ? start - slide : (Math.round((start - offset) / slide) - 1) * slide + offset;
}

/**
 * Windows side by side: each record is in one. They begin at whole multiples of their size since the epoch.
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
 * Windows that overlap: a new one of `size` begins each `slide`. A slide longer than the size leaves gaps, whose records are in no window.
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

function fixed(name: string, size: number, slide: number, options: AssignerOptions): WindowAssigner<unknown, false> {
  const { offset = 0, time = 'event' } = options;
  if (!(size > 0 && Number.isFinite(size)) || !(slide > 0 && Number.isFinite(slide))) {
    throw new MillraceError('OPTION_INVALID', `${name}(${size}, ${slide}): size and slide must be milliseconds above 0.`);
  }
  if (!(Math.abs(offset) < slide)) throw new MillraceError('OPTION_INVALID', `${name}: the offset ${offset} must be smaller than ${slide}.`);
  return knownAs(
    { shape: { kind: 'fixed', size, slide, offset } },
    {
      merges: false,
      time: checkedTime(name, time),
      *assign(_value: unknown, timestamp: number): Iterable<Window> {
        for (let start = startOf(timestamp, slide, offset); timestamp < start + size; start = startBefore(start, slide, offset))
          yield { start, end: start + size };
      },
      trigger: () => endOf(time),
    },
  );
}

/**
 * Sessions: records of a key that follow one another by no more than the gap are in one window, which ends a gap after the last of them.
 *
 * @param gap milliseconds, above 0, or a function that gives those of a record; one that gives anything else fails that record.
 * @throws OPTION_INVALID
 * @example
 * const clicks = [{ user: 'ada', at: 0 }, { user: 'ada', at: 4_000 }, { user: 'ada', at: 60_000 }];
 * const out: Windowed<string, number>[] = [];
 * await job('sessions', (env) => {
 *   env.fromArray('clicks', clicks, { timestamp: (click) => click.at }).keyBy((click) => click.user)
 *     .window(session(seconds(30))).aggregate('sessions', count()).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, [{ key: 'ada', start: 0, end: 34_000, value: 2 }, { key: 'ada', start: 60_000, end: 90_000, value: 1 }]);
 */
export function session<T = unknown>(gap: number | ((value: T) => number), options: { time?: 'event' | 'processing' } = {}): WindowAssigner<T, true> {
  const { time = 'event' } = options;
  if (typeof gap !== 'function' && !(gap > 0 && Number.isFinite(gap)))
    throw new MillraceError('OPTION_INVALID', `session(${String(gap)}): the gap must be milliseconds above 0.`);
  return knownAs(
    { shape: { kind: 'session' } },
    {
      merges: true,
      time: checkedTime('session', time),
      assign(value: T, timestamp: number): Iterable<Window> {
        const wide = typeof gap === 'function' ? gap(value) : gap;
        if (!(wide > 0 && Number.isFinite(wide)))
          throw new MillraceError('USER_FUNCTION_FAILED', `The gap of a session is ${String(wide)} for a record.`, {
            todo: 'A gap is milliseconds above 0.',
          });
        return [{ start: timestamp, end: timestamp + wide }];
      },
      trigger: () => endOf(time),
    },
  );
}

/**
 * One window a key, from −∞ to +∞. It never fires by itself: give it a trigger.
 *
 * @example
 * const out: number[] = [];
 * await job('all', (env) => {
 *   env.fromArray('numbers', [3, 4, 5]).keyBy(() => 'all').window(global()).trigger(onCount(3))
 *     .aggregate('all', sum((n) => n)).map((result) => result.value).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, [12]);
 */
export function global(): WindowAssigner<unknown, false> {
  return whole(never, undefined);
}

/** Windows of `n` records of a key, or of the newest `n` each `slide` records. */
export function countWindow(n: number, slide: number | undefined): WindowAssigner<unknown, false> {
  const above0 = (value: number): boolean => Number.isInteger(value) && value > 0;
  if (!above0(n) || (slide !== undefined && !above0(slide)))
    throw new MillraceError('OPTION_INVALID', `count(${n}${slide === undefined ? '' : `, ${slide}`}): whole numbers above 0.`);
  return slide === undefined ? whole(() => purging(onCount(n)), undefined) : whole(() => onCount(slide), evictCount(n));
}

const ALL_TIME: Window = Object.freeze({ start: Number.NEGATIVE_INFINITY, end: Number.POSITIVE_INFINITY });

function whole(trigger: () => Trigger<unknown>, evictor: Evictor<unknown> | undefined): WindowAssigner<unknown, false> {
  return knownAs(
    { shape: { kind: 'global' }, ...(evictor === undefined ? {} : { evictor }) },
    { merges: false, time: 'event', assign: () => [ALL_TIME], trigger },
  );
}

function endOf(time: 'event' | 'processing'): MergingTrigger<unknown> {
  return time === 'event' ? onEventTime() : onProcessingTime();
}

function checkedTime(name: string, time: unknown): 'event' | 'processing' {
  if (time !== 'event' && time !== 'processing')
    throw new MillraceError('OPTION_INVALID', `${name}: the time ${String(time)} is neither event nor processing.`);
  return time;
}
