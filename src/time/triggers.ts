// Triggers: when windows fire.
//
// What: each is a Trigger as a program could write it. Some depend on the time by which the windows end, which a trigger is not told: for those `inTime` gives
// the one that is meant, once it is known what they are used with.
//
// Who owns what: the window operator runs the end of a window itself where the trigger is the plain one (`plainOf`), and `early()` on slices (`earlyOf`);
// everything else it runs by the functions.
//
// Invariant G1: a window fires by its end once: a timer for the end is set only where that is to come, and records that come later fire it at once.

import { type AccumulatorState, reducing, type ValueState, value } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import type { MergingTrigger, Trigger, TriggerContext, TriggerResult, TriggerState, Window } from './window.ts';

type Time = 'event' | 'processing';

/** What is known of a trigger beside its functions. A copy of one that a program changes is not it. */
interface Known {
  /** Fires at the end of windows that end by this time, and for each record that comes after it; does nothing else. */
  readonly plain?: Time;
  readonly early?: { readonly every: number; readonly count: number };
  readonly inTime?: (time: Time) => Trigger<never>;
}

const known = new WeakMap<object, Known>();

function knownAs<S extends TriggerState>(facts: Known, trigger: Trigger<unknown, S>): MergingTrigger<unknown> {
  known.set(trigger, facts);
  // State is the trigger's own affair: whoever uses it does not see its type.
  return trigger as unknown as MergingTrigger<unknown>;
}

/** The time at whose end the windows fire, where that is all the trigger does. */
export function plainOf(trigger: object): Time | undefined {
  return known.get(trigger)?.plain;
}

/** What `early()` was given. */
export function earlyOf(trigger: object): { readonly every: number; readonly count: number } | undefined {
  return known.get(trigger)?.early;
}

/** The trigger as it is meant for windows that end by that time. */
export function inTime<T>(trigger: Trigger<T>, time: Time): Trigger<T> {
  return (known.get(trigger)?.inTime?.(time) as Trigger<T> | undefined) ?? trigger;
}

// ── the end of a window ──

interface End {
  /** False: the end has come. Else there is a timer for it. */
  toCome(window: Window, context: TriggerContext): boolean;
  /** Whether a timer of that time and domain is the end. */
  is(time: number, domain: Time, window: Window): boolean;
}

const ENDS: Readonly<Record<Time, End>> = {
  event: {
    toCome(window, { watermark, timers }) {
      if (window.end - 1 <= watermark) return false;
      timers.event.set(window.end - 1);
      return true;
    },
    is: (time, domain, window) => domain === 'event' && time === window.end - 1,
  },
  processing: {
    // A clock is never late: the timer of an end that has come is due at once.
    toCome(window, { timers }) {
      timers.processing.set(window.end - 1);
      return true;
    },
    is: (time, domain, window) => domain === 'processing' && time === window.end - 1,
  },
};

function atEnd(time: Time): MergingTrigger<unknown> {
  const end = ENDS[time];
  const due = (at: number, domain: Time, window: Window): TriggerResult => (end.is(at, domain, window) ? 'fire' : 'continue');
  return knownAs(
    { plain: time },
    {
      onElement: (_value, _timestamp, window, context) => (end.toCome(window, context) ? 'continue' : 'fire'),
      onEventTime: (at, window) => due(at, 'event', window),
      onProcessingTime: (at, window) => due(at, 'processing', window),
      onMerge(window, context) {
        end.toCome(window, context);
      },
      onClear(window, { timers }) {
        timers[time].delete(window.end - 1);
      },
    },
  );
}

/**
 * Fires when event time reaches the end of the window, and for each record that comes after it within the allowed lateness: what windows of event time do.
 *
 * @example
 * const out: number[] = [];
 * await job('ends', (env) => {
 *   env.fromArray('times', [1, 2, 12], { timestamp: (at) => at }).keyBy(() => 'all').window(tumbling(10)).trigger(onEventTime())
 *     .aggregate('ends', count()).map((result) => result.value).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, [2, 1]);
 */
export function onEventTime(): MergingTrigger<unknown> {
  return atEnd('event');
}

/**
 * Fires when the clock reaches the end of the window: what windows of processing time do.
 *
 * @example
 * const out: number[] = [];
 * await job('by-the-clock', (env) => {
 *   env.fromArray('times', [1, 2], { timestamp: (at) => at }).keyBy(() => 'all').window(global()).trigger(onProcessingTime())
 *     .aggregate('never', count()).map((result) => result.value).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, []); // a global window has no end that a clock could reach
 */
export function onProcessingTime(): MergingTrigger<unknown> {
  return atEnd('processing');
}

// ── other occasions ──

/**
 * Fires with each `n` records of a window. The records stay in it; see `purging`.
 *
 * @param n a whole number above 0.
 * @throws OPTION_INVALID
 * @example
 * const out: number[] = [];
 * await job('pairs', (env) => {
 *   env.fromArray('numbers', [1, 2, 3, 4]).keyBy(() => 'all').window(global()).trigger(onCount(2))
 *     .aggregate('pairs', sum((n) => n)).map((result) => result.value).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, [3, 10]);
 */
export function onCount(n: number): MergingTrigger<unknown> {
  wholeNumber(n, `onCount(${n})`);
  return knownAs(
    {},
    {
      state: { count: reducing<number>((left, right) => left + right) },
      onElement(_value, _timestamp, _window, { state }) {
        if ((state.count.get() ?? 0) + 1 < n) {
          state.count.add(1);
          return 'continue';
        }
        state.count.clear();
        return 'fire';
      },
      onMerge() {},
    },
  );
}

/**
 * Fires again and again: at the first multiple of `ms` after a record of the window, then each `ms`, and at the end of the window; a record that comes after
 * the end fires it at once.
 *
 * @param ms milliseconds, above 0.
 * @param time the time that passes between two firings. The end is the window's own.
 * @throws OPTION_INVALID
 * @example
 * const out: Windowed<string, number>[] = [];
 * await job('every', (env) => {
 *   env.fromArray('times', [1_000, 12_000, 31_000], { timestamp: (at) => at }).keyBy(() => 'all').window(tumbling(seconds(30)))
 *     .trigger(every(seconds(10), 'event')).aggregate('every', count()).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out.map((result) => result.value), [2, 2, 2, 1, 1, 1]); // all records came before the first watermark
 */
export function every(ms: number, time: 'event' | 'processing'): MergingTrigger<unknown> {
  if (!(ms > 0 && Number.isFinite(ms))) throw new MillraceError('OPTION_INVALID', `every(${ms}): milliseconds above 0.`);
  if (time !== 'event' && time !== 'processing') throw new MillraceError('OPTION_INVALID', `every(${ms}, ${String(time)}): the time is event or processing.`);
  const repeating = (windowTime: Time): MergingTrigger<unknown> => {
    const end = ENDS[windowTime];
    interface State {
      next: AccumulatorState<number, number>;
    }
    const schedule = (at: number, window: Window, { state, timers }: { readonly state: State; readonly timers: TriggerContext['timers'] }): void => {
      state.next.clear();
      state.next.add(at);
      // Behind the end by the same time nothing is left to show.
      if (time !== windowTime || at < window.end - 1) timers[time].set(at);
    };
    const fired = (at: number, domain: Time, window: Window, context: TriggerContext & { readonly state: State }): TriggerResult => {
      if (end.is(at, domain, window)) return 'fire';
      if (domain !== time || context.state.next.get() !== at) return 'continue';
      context.state.next.clear();
      // The end of event time: a window that does not end by it would fire for ever.
      const ends = windowTime === 'event' && window.end !== Number.POSITIVE_INFINITY;
      if (domain === 'processing' || context.watermark !== Number.POSITIVE_INFINITY || ends) schedule(at + ms, window, context);
      return 'fire';
    };
    return knownAs(
      { inTime: repeating },
      {
        // The earliest firing is the one that is kept where windows merge.
        state: { next: reducing<number>((left, right) => Math.min(left, right)) },
        onElement(_value, timestamp, window, context) {
          if (!end.toCome(window, context)) return 'fire';
          if (context.state.next.get() === undefined) {
            const now = time === 'event' ? timestamp : context.now();
            // A record without a timestamp has no next multiple.
            if (!Number.isNaN(now)) schedule((Math.floor(now / ms) + 1) * ms, window, context);
          }
          return 'continue';
        },
        onEventTime: (at, window, context) => fired(at, 'event', window, context),
        onProcessingTime: (at, window, context) => fired(at, 'processing', window, context),
        onMerge(window, context) {
          end.toCome(window, context);
          const next = context.state.next.get();
          if (next !== undefined) schedule(next, window, context);
        },
        onClear(window, { state, timers }) {
          const next = state.next.get();
          if (next !== undefined) timers[time].delete(next);
          timers[windowTime].delete(window.end - 1);
        },
      },
    );
  };
  return repeating('event');
}

/**
 * The same trigger, but each firing empties the window: every record is in one result.
 *
 * @example
 * const out: number[] = [];
 * await job('pairs', (env) => {
 *   env.fromArray('numbers', [1, 2, 3, 4]).keyBy(() => 'all').window(global()).trigger(purging(onCount(2)))
 *     .aggregate('pairs', sum((n) => n)).map((result) => result.value).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, [3, 7]);
 */
export function purging<G extends Trigger<never>>(trigger: G): G {
  const purged = (result: TriggerResult): TriggerResult => (result === 'fire' ? 'fire-and-purge' : result);
  const inner = trigger as unknown as Trigger<unknown>;
  const { onEventTime, onProcessingTime, onMerge, onClear } = inner;
  const outer: Trigger<unknown> = {
    ...(inner.state === undefined ? {} : { state: inner.state }),
    onElement: (element, timestamp, window, context) => purged(inner.onElement(element, timestamp, window, context)),
    ...(onEventTime === undefined ? {} : { onEventTime: (time, window, context) => purged(onEventTime.call(inner, time, window, context)) }),
    ...(onProcessingTime === undefined ? {} : { onProcessingTime: (time, window, context) => purged(onProcessingTime.call(inner, time, window, context)) }),
    ...(onMerge === undefined ? {} : { onMerge: (window, context) => onMerge.call(inner, window, context) }),
    ...(onClear === undefined ? {} : { onClear: (window, context) => onClear.call(inner, window, context) }),
  };
  return knownAs({ inTime: (time) => purging(inTime(inner, time)) as Trigger<never> }, outer) as unknown as G;
}

/**
 * Never fires: what global windows do.
 *
 * @example
 * const out: unknown[] = [];
 * await job('never', (env) => {
 *   env.fromArray('numbers', [1, 2]).keyBy(() => 'all').window(global()).trigger(never()).aggregate('all', count()).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, []);
 */
export function never(): MergingTrigger<unknown> {
  return knownAs({}, { onElement: () => 'continue', onMerge() {} });
}

/**
 * Shows what a window is so far: besides its end, the whole window fires each `every` in which it changed, and each `count` records.
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
export function early(options: { every?: number; count?: number }): MergingTrigger<unknown> {
  const { every: ms = 0, count = 0 } = options;
  if (!(ms >= 0 && count >= 0) || (ms === 0 && count === 0))
    throw new MillraceError('OPTION_INVALID', 'early() needs `every` in milliseconds or `count` in elements, above 0.');
  const showing = (time: Time): MergingTrigger<unknown> => {
    const end = ENDS[time];
    interface State {
      count: AccumulatorState<number, number>;
      /** The processing time at which it shows what has changed. */
      due: ValueState<number>;
    }
    const show = (window: Window, { state, timers, now }: { readonly state: State; readonly timers: TriggerContext['timers']; now(): number }): void => {
      if (ms === 0 || state.due.get() !== undefined) return;
      // Rounded up, so that keys that change together are shown together.
      const due = (Math.floor(now() / ms) + 1) * ms;
      if (time === 'processing' && due >= window.end - 1) return;
      state.due.set(due);
      timers.processing.set(due);
    };
    return knownAs(
      { early: { every: ms, count }, inTime: showing },
      {
        state: { count: reducing<number>((left, right) => left + right), due: value<number>() },
        onElement(_value, _timestamp, window, context) {
          if (!end.toCome(window, context)) return 'fire';
          show(window, context);
          if (count === 0) return 'continue';
          if ((context.state.count.get() ?? 0) + 1 < count) {
            context.state.count.add(1);
            return 'continue';
          }
          context.state.count.clear();
          return 'fire';
        },
        onEventTime: (at, window) => (end.is(at, 'event', window) ? 'fire' : 'continue'),
        onProcessingTime(at, window, { state, watermark }) {
          if (end.is(at, 'processing', window)) return 'fire';
          if (state.due.get() !== at) return 'continue';
          state.due.clear();
          // What comes after the end fires by itself.
          return time === 'event' && window.end - 1 <= watermark ? 'continue' : 'fire';
        },
        onMerge(window, context) {
          const open = end.toCome(window, context);
          const due = context.state.due.get();
          if (open && due !== undefined) context.timers.processing.set(due);
        },
        onClear(_window, { state, timers }) {
          const due = state.due.get();
          if (due !== undefined) timers.processing.delete(due);
        },
      },
    );
  };
  return showing('event');
}

function wholeNumber(n: number, what: string): void {
  if (!(Number.isInteger(n) && n > 0)) throw new MillraceError('OPTION_INVALID', `${what}: a whole number above 0.`);
}
