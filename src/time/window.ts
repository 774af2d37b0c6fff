// The contracts of windows: what assigners, triggers and evictors are. Types only; `windows.ts`, `triggers.ts` and `evictors.ts` have those that come with
// Millrace, and a program may give its own.

import type { Handles, StateKind } from '../../state-backends/index.ts';
import type { Timers } from './timers.ts';

/** A stretch of time, in epoch milliseconds. */
export interface Window {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

/** Says which windows a record belongs to: `tumbling()`, `sliding()`, `session()`, `global()`, `count(n)`, or one of your own. */
export interface WindowAssigner<in T, out M extends boolean = boolean> {
  /** Whether windows of a key that touch or overlap become one, as sessions do. */
  readonly merges: M;
  /** Which time `timestamp` is, and by which windows end. */
  readonly time: 'event' | 'processing';
  /** The windows of a record. None: it belongs to no window, and is not late. */
  assign(value: T, timestamp: number): Iterable<Window>;
  /** What decides when windows fire where the program does not say. */
  trigger(): Trigger<T>;
}

/** Declared state, as `process` takes it. */
export type TriggerState = Record<string, StateKind<unknown, 'keyed'>>;

/** What happens to a window: nothing; a result of what is in it; it is emptied; both. */
export type TriggerResult = 'continue' | 'fire' | 'purge' | 'fire-and-purge';

/** What a trigger may use while one of its functions runs. */
export interface TriggerContext<S = {}> {
  /** Event time in epoch milliseconds; −∞ before the first watermark. */
  readonly watermark: number;
  /** The declared state, of this key and window. */
  readonly state: Handles<S>;
  /** Timers of this key and window. */
  readonly timers: Timers;
  /** Processing time in epoch milliseconds. */
  now(): number;
}

/** Decides when a window fires. All functions are synchronous. */
export interface Trigger<in T, S extends TriggerState = {}> {
  /** Of each key and window. Where windows merge: reducing, aggregating, list and map are merged, of values the earliest window's that is set is kept. */
  state?: S;
  /** After the record was added to the window. */
  onElement(value: T, timestamp: number, window: Window, context: TriggerContext<S>): TriggerResult;
  /** A timer of this window that was set in `timers.event`. */
  onEventTime?(time: number, window: Window, context: TriggerContext<S>): TriggerResult;
  /** A timer of this window that was set in `timers.processing`. */
  onProcessingTime?(time: number, window: Window, context: TriggerContext<S>): TriggerResult;
  /** Windows have become this one: their state is merged, their timers are gone. Without it a trigger cannot be used where windows merge. */
  onMerge?(window: Window, context: TriggerContext<S>): void | undefined;
  /** The window ends for good; state and timers are removed after it. */
  onClear?(window: Window, context: TriggerContext<S>): void | undefined;
}

/** A trigger that windows which merge can use. */
export type MergingTrigger<T> = Trigger<T> & { onMerge: NonNullable<Trigger<T>['onMerge']> };

/** A record of a window and its timestamp. */
export interface Timed<T> {
  readonly value: T;
  /** Epoch milliseconds; NaN where it has none. */
  readonly timestamp: number;
}

/** Drops records of a window when it fires. Each function gives the records that are kept; what it drops is gone. */
export interface Evictor<in T> {
  /** Before the window's function sees them. */
  before?<E extends T>(elements: Timed<E>[], window: Window): Timed<E>[];
  /** After it has. */
  after?<E extends T>(elements: Timed<E>[], window: Window): Timed<E>[];
}
