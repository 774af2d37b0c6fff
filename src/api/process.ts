// Processes: an operator as a definition with declared state, handlers and a typed context.
//
// Types only, and the small values that carry them: `output`, `type`, `process`. The runtime calls definitions through `ProcessSpec` (graph/node.ts).

import type { Handles, StateKind } from '../../state-backends/index.ts';
import type { Logger, Metrics } from '../graph/context.ts';

/** A named, typed output beside the main one. */
export interface Output<out X> {
  readonly name: string;
  readonly type?: Type<X>;
}

/**
 * Names a side output and gives it a type.
 * @example const slow = output<Slow>('slow'); // ctx.side(slow, value); alerts.side(slow)
 */
export function output<X>(name: string): Output<X> {
  return { name };
}

export interface Type<out X> {
  readonly of?: X;
}

/**
 * Says what a process emits: TypeScript infers no type from calls of `emit`.
 * @example { emits: type<Alert>(), onRecord(click, ctx) { ctx.emit({ … }) } }
 */
export function type<X>(): Type<X> {
  return {};
}

export type KeyedStateSpec = Record<string, StateKind<unknown, 'keyed'>>;
export type OperatorStateSpec = Record<string, StateKind<unknown, 'operator' | 'broadcast'>>;

export interface OperatorContext {
  readonly uid: string;
  readonly subtask: number;
  readonly parallelism: number;
  readonly metrics: Metrics;
  readonly log: Logger;
  /** Processing time; never goes back, also over restarts. */
  now(): number;
  random(): number;
}

export interface Emitting<R> extends OperatorContext {
  /** Event time of this instance; −∞ before the first watermark. */
  readonly watermark: number;
  /** With the current timestamp unless one is given. */
  emit(value: R, timestamp?: number): void;
  side<X>(output: Output<X>, value: NoInfer<X>, timestamp?: number): void;
  side(output: string, value: unknown, timestamp?: number): void;
}

export interface Timers {
  readonly event: TimerDomain;
  readonly processing: TimerDomain;
}
export interface TimerDomain {
  /** Unique by key and time: setting it twice fires it once. */
  set(at: number): void;
  delete(at: number): void;
}
export interface Timer {
  readonly at: number;
  readonly domain: 'event' | 'processing';
}

export interface RecordContext<R, H> extends Emitting<R> {
  /** NaN where the record has none. */
  readonly timestamp: number;
  readonly state: H;
}
export interface KeyedContext<K, R, H> extends RecordContext<R, H> {
  readonly key: K;
  readonly timers: Timers;
}

interface Lifecycle<R> {
  emits?: Type<R>;
  onStart?(context: Emitting<R>): void | undefined;
  onWatermark?(time: number, context: Emitting<R>): void | undefined;
  onEnd?(context: Emitting<R>): void | undefined;
  onStop?(): void | Promise<void>;
}

export interface ProcessDefinition<T, R, S extends OperatorStateSpec = {}> extends Omit<Lifecycle<R>, 'onStart' | 'onEnd' | 'onWatermark'> {
  state?: S;
  onRecord(value: T, context: RecordContext<R, Handles<S>>): void | undefined;
  onStart?(context: Emitting<R> & { readonly state: Handles<S> }): void | undefined;
  onWatermark?(time: number, context: Emitting<R> & { readonly state: Handles<S> }): void | undefined;
  onEnd?(context: Emitting<R> & { readonly state: Handles<S> }): void | undefined;
}

export interface KeyedProcess<K, T, R, S extends KeyedStateSpec = {}> extends Lifecycle<R> {
  state?: S;
  onRecord(value: T, context: KeyedContext<K, R, Handles<S>>): void | undefined;
  onTimer?(timer: Timer, context: KeyedContext<K, R, Handles<S>>): void | undefined;
}

/**
 * A keyed process standing alone; curried, so that its state is inferred.
 * @example const idle = process<string, Click, Alert>()({ state: { last: value({ default: 0 }) }, onRecord(click, ctx) { … } });
 */
export function process<K, T, R>(): <S extends KeyedStateSpec = {}>(definition: KeyedProcess<K, T, R, S>) => KeyedProcess<K, T, R, S> {
  return (definition) => definition;
}
