// Processes: an operator as a definition with declared state, handlers and a typed context.
//
// Types only, and the small values that carry them: `output`, `type`, `process`. The runtime calls definitions through `ProcessSpec` (graph/node.ts).

import type { BroadcastMap, Handles, ReadonlyBroadcastMap, StateKind } from '../../state-backends/index.ts';
import type { Logger, Metrics } from '../graph/context.ts';
import type { Timers } from '../time/timers.ts';

/** A named, typed output beside the main one; made by `output()`. */
export interface Output<out X> {
  readonly name: string;
  /** Carries the type; never there. */
  readonly type?: Type<X>;
}

/**
 * Names a side output and gives it a type: `ctx.side(slow, value)` puts records there, `stream.side(slow)` takes them out.
 *
 * @param name unique among the outputs of an operator.
 * @example
 * const odd = output<number>('odd');
 * const odds: number[] = [];
 * await job('parity', (env) => {
 *   env.fromArray('numbers', [1, 2, 3]).process('parity', {
 *     onRecord(n, ctx) {
 *       if (n % 2 === 1) ctx.side(odd, n);
 *     },
 *   }).side(odd).sink('odds', collect(odds));
 * }).run();
 * assert.deepEqual(odds, [1, 3]);
 */
export function output<X>(name: string): Output<X> {
  return { name };
}

/** A type as a value; see `type()`. */
export interface Type<out X> {
  readonly of?: X;
}

/**
 * Says what a process emits, since TypeScript infers nothing from calls of `emit`.
 * @example
 * const lengths: { word: string; length: number }[] = [];
 * await job('lengths', (env) => {
 *   env.fromArray('words', ['mill']).process('lengths', {
 *     emits: type<{ word: string; length: number }>(),
 *     onRecord: (word, ctx) => ctx.emit({ word, length: word.length }),
 *   }).sink('out', collect(lengths));
 * }).run();
 * assert.deepEqual(lengths, [{ word: 'mill', length: 4 }]);
 */
export function type<X>(): Type<X> {
  return {};
}

export type KeyedStateSpec = Record<string, StateKind<unknown, 'keyed'>>;
export type OperatorStateSpec = Record<string, StateKind<unknown, 'operator' | 'broadcast'>>;
export type BroadcastStateSpec = Record<string, StateKind<unknown, 'keyed' | 'broadcast'>>;
/** What the broadcast side of a connected process may use: nothing that is kept by key. */
type BroadcastHandles<S> = Handles<{ readonly [N in keyof S as S[N] extends StateKind<unknown, 'broadcast'> ? N : never]: S[N] }>;
/** What the other side may use: broadcast state to be read only. */
type ReadingHandles<S> = {
  readonly [N in keyof S]: S[N] extends StateKind<BroadcastMap<infer K, infer V>, 'broadcast'> ? ReadonlyBroadcastMap<K, V> : Handles<S>[N];
};

/** Where an operator's code runs. */
export interface OperatorContext {
  readonly uid: string;
  /** Which of the parallel instances this is, from 0. */
  readonly subtask: number;
  /** How many there are. */
  readonly parallelism: number;
  readonly metrics: Metrics;
  readonly log: Logger;
  /** Processing time in epoch milliseconds; never goes back, also over restarts. */
  now(): number;
  /** From 0, below 1. */
  random(): number;
}

/** What handlers may do that see no record. */
export interface Emitting<R> extends OperatorContext {
  /** Event time of this instance in epoch milliseconds; −∞ before the first watermark. */
  readonly watermark: number;
  /** With the timestamp of the record or timer unless one is given. */
  emit(value: R, timestamp?: number): void;
  /** As `emit`, to a side output. */
  side<X>(output: Output<X>, value: NoInfer<X>, timestamp?: number): void;
  side(output: string, value: unknown, timestamp?: number): void;
}

/** The timer that fired. */
export interface Timer {
  /** The time it was set for, in epoch milliseconds. */
  readonly at: number;
  readonly domain: 'event' | 'processing';
}

/** What a handler may do with a record. Use it inside of the handler only: CONTEXT_USED_OUTSIDE_RECORD. */
export interface RecordContext<R, H> extends Emitting<R> {
  /** Of the record or the event-time timer, in epoch milliseconds; NaN where there is none. */
  readonly timestamp: number;
  /** The declared state, by name. */
  readonly state: H;
}
/** A record context with a key; state and timers are those of this key. */
export interface KeyedContext<K, R, H> extends RecordContext<R, H> {
  readonly key: K;
  readonly timers: Timers;
}

interface Lifecycle<R> {
  /** What `emit` takes: `type<R>()`. */
  emits?: Type<R>;
  /** At each start of an instance, before its first record. */
  onStart?(context: Emitting<R>): void | undefined;
  /** Event time has moved to `time`; timers up to it have fired. */
  onWatermark?(time: number, context: Emitting<R>): void | undefined;
  /** After the last record of a job that finishes or is drained. */
  onEnd?(context: Emitting<R>): void | undefined;
  /** When the instance stops, however that comes; to let go of what `onStart` took. */
  onStop?(): void | Promise<void>;
}

/** An operator of your own. Handlers are synchronous: HANDLER_IS_ASYNC. */
export interface ProcessDefinition<T, R, S extends OperatorStateSpec = {}> extends Omit<Lifecycle<R>, 'onStart' | 'onEnd' | 'onWatermark'> {
  state?: S;
  onRecord(value: T, context: RecordContext<R, Handles<S>>): void | undefined;
  onStart?(context: Emitting<R> & { readonly state: Handles<S> }): void | undefined;
  onWatermark?(time: number, context: Emitting<R> & { readonly state: Handles<S> }): void | undefined;
  onEnd?(context: Emitting<R> & { readonly state: Handles<S> }): void | undefined;
}

/** An operator of your own with state and timers for each key. Handlers are synchronous: HANDLER_IS_ASYNC. */
export interface KeyedProcess<K, T, R, S extends KeyedStateSpec = {}> extends Lifecycle<R> {
  /** Of each key, by name: `{ last: value<number>() }`. */
  state?: S;
  onRecord(value: T, context: KeyedContext<K, R, Handles<S>>): void | undefined;
  /** Once for each key and time that was set. */
  onTimer?(timer: Timer, context: KeyedContext<K, R, Handles<S>>): void | undefined;
}

/** A keyed process with two inputs that share state and timers by key. Handlers are synchronous: HANDLER_IS_ASYNC. */
export interface KeyedConnectedProcess<K, T, U, R, S extends KeyedStateSpec = {}> extends Lifecycle<R> {
  state?: S;
  onLeft(value: T, context: KeyedContext<K, R, Handles<S>>): void | undefined;
  onRight(value: U, context: KeyedContext<K, R, Handles<S>>): void | undefined;
  onTimer?(timer: Timer, context: KeyedContext<K, R, Handles<S>>): void | undefined;
}
/** A process with two inputs. Handlers are synchronous: HANDLER_IS_ASYNC. */
export interface ConnectedProcess<T, U, R, S extends OperatorStateSpec = {}> extends Lifecycle<R> {
  state?: S;
  onLeft(value: T, context: RecordContext<R, Handles<S>>): void | undefined;
  onRight(value: U, context: RecordContext<R, Handles<S>>): void | undefined;
}
/** A process beside a broadcast stream: `onRight` sees every record of that in every instance, and alone may change broadcast state, the same way in each. */
export interface BroadcastProcess<T, U, R, S extends OperatorStateSpec = {}> extends Lifecycle<R> {
  state?: S;
  onLeft(value: T, context: RecordContext<R, ReadingHandles<S>>): void | undefined;
  onRight(value: U, context: RecordContext<R, BroadcastHandles<S>>): void | undefined;
}
/** A keyed process beside a broadcast stream; `onRight` has no key, no keyed state and no timers. */
export interface KeyedBroadcastProcess<K, T, U, R, S extends BroadcastStateSpec = {}> extends Lifecycle<R> {
  state?: S;
  onLeft(value: T, context: KeyedContext<K, R, ReadingHandles<S>>): void | undefined;
  onRight(value: U, context: RecordContext<R, BroadcastHandles<S>>): void | undefined;
  onTimer?(timer: Timer, context: KeyedContext<K, R, ReadingHandles<S>>): void | undefined;
}

/**
 * A keyed process that stands alone: key, record and emitted type are given, its state is inferred (hence the two calls).
 * @example
 * interface Click { user: string; at: number }
 * const idle = process<string, Click, string>()({
 *   state: { last: value({ default: 0 }) },
 *   onRecord(click, ctx) {
 *     ctx.state.last.set(click.at);
 *     ctx.timers.event.set(click.at + minutes(30));
 *   },
 *   onTimer(timer, ctx) {
 *     if (timer.at === ctx.state.last.get() + minutes(30)) ctx.emit(ctx.key);
 *   },
 * });
 * const out: string[] = [];
 * const clicks = [{ user: 'ada', at: 0 }, { user: 'ada', at: minutes(10) }];
 * await job('idle', (env) => {
 *   env.fromArray('clicks', clicks, { timestamp: (click) => click.at }).keyBy((click) => click.user).process('idle', idle).sink('out', collect(out));
 * }).run();
 * assert.deepEqual(out, ['ada']);
 */
export function process<K, T, R>(): <S extends KeyedStateSpec = {}>(definition: KeyedProcess<K, T, R, S>) => KeyedProcess<K, T, R, S>;
export function process<K, T, U, R>(): <S extends KeyedStateSpec = {}>(
  definition: KeyedConnectedProcess<K, T, U, R, S>,
) => KeyedConnectedProcess<K, T, U, R, S>;
export function process(): <D>(definition: D) => D {
  return (definition) => definition;
}
