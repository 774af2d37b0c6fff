// The types of streams: what a program types between its sources and its sinks. Types only; `stream.ts` and its neighbours build nodes behind them.

import type { DeadLetter, ErrorPolicy, Key, PolicyFn } from '../graph/job.ts';
import type { AggregateFunction, AsyncMapOptions, WatermarkStrategy } from '../graph/node.ts';
import type { Sink, TransactionalSink } from '../graph/sink.ts';
import type { Evictor, Trigger, Window, WindowAssigner } from '../time/window.ts';
import type {
  BroadcastProcess,
  BroadcastStateSpec,
  ConnectedProcess,
  KeyedBroadcastProcess,
  KeyedConnectedProcess,
  KeyedProcess,
  KeyedStateSpec,
  OperatorStateSpec,
  Output,
  ProcessDefinition,
  Type,
} from './process.ts';
import type { WindowContext, WindowProcess } from './window-process.ts';

/** A result and the key it belongs to. */
export interface Keyed<K, R> {
  key: K;
  value: R;
}
/** The result of a window. Times are epoch milliseconds; its record's timestamp is end − 1. */
export interface Windowed<K, R> {
  key: K;
  start: number;
  /** Exclusive. */
  end: number;
  value: R;
}

/** Settings of the operator just added; each returns `this`. */
export interface OperatorSettings {
  /** A label for people, shown in the plan. */
  tag(label: string): this;
  /** Instances of it; those of the job by default. */
  parallelism(n: number): this;
  /** What becomes of a record whose function throws; `restart` by default. */
  onError(policy: ErrorPolicy | PolicyFn): this;
  /** `never`: runs in a task of its own; `always`: refuse to build where it could not be chained. */
  chain(mode: 'never' | 'always'): this;
  /** Its failed records under `skip`; also of a source: its records that do not decode. */
  deadLetters(): Stream<DeadLetter>;
}

// biome-ignore lint/suspicious/noExplicitAny: a guard's parameter type does not matter here, and only `any` stands for all of them
type Guarded<F, T> = F extends (value: any) => value is infer X ? Extract<X, T> : T;

/** What plain and keyed streams share. Values are passed by reference: do not change what you are given. */
export interface RecordStream<T> {
  /** One value for each. */
  map<R>(fn: (value: T) => R): Stream<R>;
  /** Those for which `fn` is true. */
  filter<S extends T>(fn: (value: T) => value is S): Stream<S>;
  filter(fn: (value: T) => boolean): Stream<T>;
  /** Any number of values for each. */
  flatMap<R>(fn: (value: T) => Iterable<R>): Stream<R>;
  /** One value for each, later: `fn` asks somebody outside. Open calls are part of checkpoints and are made again after a restore. */
  asyncMap<R>(uid: string, fn: (value: T, signal: AbortSignal) => Promise<R>, options?: AsyncMapOptions): Stream<R>;
  /** To the outside: at least once, or exactly once where the sink is transactional. */
  sink(uid: string, sink: Sink<T> | TransactionalSink<T>): OperatorSettings;
  /** At-least-once. A promise holds the next record back. */
  forEach(uid: string, fn: (value: T) => void | Promise<void>): OperatorSettings;
}

/** Records on their way. Each method adds to the program and runs nothing. */
export interface Stream<T> extends RecordStream<T>, OperatorSettings {
  /** Brings all records of a key to one instance, in order. */
  keyBy<const K extends Key>(fn: (value: T) => K): KeyedStream<K, T>;
  /** The records of all of them, in no order between them. */
  union<U extends readonly unknown[]>(...others: { [I in keyof U]: Stream<U[I]> }): Stream<T | U[number]>;
  /** Each record goes to the first branch whose function is true; one that no branch takes is dropped. */
  split<S extends Record<string, (value: T) => boolean>>(branches: S): { [B in keyof S]: Stream<Guarded<S[B], T>> };
  /** Two inputs of one operator. */
  connect<U>(other: BroadcastStream<U>): BroadcastConnectedStreams<T, U>;
  connect<U>(other: Stream<U>): ConnectedStreams<T, U>;
  /** Every instance of what comes next is given every record. */
  broadcast(): BroadcastStream<T>;
  /** Deals records out in turn. */
  rebalance(): Stream<T>;
  /** To an instance drawn at random for each record. */
  shuffle(): Stream<T>;
  /** Deals out in turn, each instance to its share of the next ones only. */
  rescale(): Stream<T>;
  /** To the instance that `fn` names, from 0 to instances − 1. */
  partition(fn: (value: T, instances: number) => number): Stream<T>;
  /** An operator of your own. */
  process<R = never, S extends OperatorStateSpec = {}>(uid: string, definition: ProcessDefinition<T, R, S>): ProcessedStream<R>;
  /** Windows over all records, in one instance. */
  windowAll<M extends boolean>(window: WindowAssigner<T, M>): WindowedStream<null, T, M>;
  /** Gives records other timestamps, and the stream watermarks of its own, in place of those from upstream. */
  timestamps(strategy: WatermarkStrategy<T>): Stream<T>;
}

/** Goes to every instance; for `connect`. */
export interface BroadcastStream<T> {
  readonly broadcasts: Type<T>;
}

/** A stream from an operator that has side outputs. */
export interface ProcessedStream<R> extends Stream<R> {
  /** The records of that output. */
  side<X>(output: Output<X> | string): Stream<X>;
}

/** Records by key: what keeps state keeps it for each key. */
export interface KeyedStream<K extends Key, T> extends RecordStream<T> {
  /** Windows of each key: `tumbling()`, `sliding()`, `session()`, `global()`, `count(n)`. */
  window<M extends boolean>(window: WindowAssigner<T, M>): WindowedStream<K, T, M>;
  /** Running: emits every new value of a key. */
  reduce(uid: string, fn: (left: T, right: T) => T): Stream<T>;
  /** Running: emits every new result of a key. */
  aggregate<A, R>(uid: string, fn: AggregateFunction<T, A, R>): Stream<Keyed<K, R>>;
  /** An operator of your own, with state and timers for each key. */
  process<R = never, S extends KeyedStateSpec = {}>(uid: string, definition: KeyedProcess<K, T, R, S>): ProcessedStream<R>;
  /**
   * Joins each record with those of `other` of the same key whose timestamp is between its own + lower and its own + upper, both included. With `outer: 'left'`
   * a left record that met nobody comes with undefined once nobody can come any more.
   */
  intervalJoin<U, R>(
    uid: string,
    other: KeyedStream<K, U>,
    bounds: { lower: number; upper: number; outer: 'left' },
    fn: (left: T, right: U | undefined) => R,
  ): Stream<R>;
  intervalJoin<U, R>(uid: string, other: KeyedStream<K, U>, bounds: { lower: number; upper: number }, fn: (left: T, right: U) => R): Stream<R>;
  /** Records of both streams that have the same key and are in the same window, in pairs. */
  join<U>(other: KeyedStream<K, U>): JoinedStreams<T, U>;
  /** The records of both streams that have the same key and are in the same window, together. */
  coGroup<U>(other: KeyedStream<K, U>): CoGroupedStreams<K, T, U>;
  /** The first record of each key; those that come within `ttl` milliseconds of processing time after it are dropped, and all of them without a ttl. */
  deduplicate(uid: string, options?: { ttl?: number }): Stream<T>;
  /** Running: the n records of a key with the largest `by`, largest first, ties in order of arrival; emitted whenever they have changed. */
  topN(uid: string, n: number, by: (value: T) => number): Stream<Keyed<K, T[]>>;
  /** Two inputs of one operator that share their state by key. */
  connect<U>(other: BroadcastStream<U>): KeyedBroadcastConnectedStreams<K, T, U>;
  connect<U>(other: KeyedStream<K, U>): KeyedConnectedStreams<K, T, U>;
}

/** Two inputs, `onLeft` and `onRight`. */
export interface ConnectedStreams<T, U> {
  process<R = never, S extends OperatorStateSpec = {}>(uid: string, definition: ConnectedProcess<T, U, R, S>): ProcessedStream<R>;
}
/** Two inputs of the same key. */
export interface KeyedConnectedStreams<K, T, U> {
  process<R = never, S extends KeyedStateSpec = {}>(uid: string, definition: KeyedConnectedProcess<K, T, U, R, S>): ProcessedStream<R>;
}
/** A stream beside one that goes to every instance. */
export interface BroadcastConnectedStreams<T, U> {
  process<R = never, S extends OperatorStateSpec = {}>(uid: string, definition: BroadcastProcess<T, U, R, S>): ProcessedStream<R>;
}
/** A keyed stream beside one that goes to every instance. */
export interface KeyedBroadcastConnectedStreams<K, T, U> {
  process<R = never, S extends BroadcastStateSpec = {}>(uid: string, definition: KeyedBroadcastProcess<K, T, U, R, S>): ProcessedStream<R>;
}

/** Windows: settings, then what is made of the records of each. */
export interface WindowedStream<K, T, M extends boolean = boolean> {
  /** Milliseconds of event time for which a window that has fired still takes late records, 0 by default; each makes it fire again. */
  allowedLateness(ms: number): this;
  /** Names the output of late records, `late` otherwise. */
  lateTo(output: Output<T> | string): this;
  /** When windows fire, in place of their end: `early()`, `onCount(n)`, `every(ms, time)`, `purging(…)` and others, or one of your own. */
  trigger<S extends KeyedStateSpec = {}>(trigger: Trigger<T, S> & OnSession<M, { onMerge: unknown }>): this;
  /** Drops records of a window when it fires. Windows then keep all their records, also for `aggregate` and `reduce`. */
  evictor(evictor: Evictor<T>): this;
  /** One result for each firing of a window and key. */
  aggregate<A, R>(uid: string, fn: AggregateFunction<T, A, R> & OnSession<M, { merge: unknown }>): WindowResults<T, Windowed<K, R>>;
  /** The records of each window and key, reduced to one. */
  reduce(uid: string, fn: (left: T, right: T) => T): WindowResults<T, Windowed<K, T>>;
  /** A function of your own over the records of each window and key, with state of the key and of the window. */
  process<R, S extends KeyedStateSpec = {}, W extends KeyedStateSpec = {}>(uid: string, definition: WindowProcess<K, T, R, S, W>): WindowResults<T, R>;
  process<R>(uid: string, fn: (context: WindowContext<K>, values: Iterable<T>) => Iterable<R>): WindowResults<T, R>;
}
/** What is needed where windows merge. */
export type OnSession<M extends boolean, Needs> = M extends true ? Needs : unknown;

/** Two keyed streams that meet in windows. */
export interface JoinedStreams<T, U> {
  /** Any windows; sessions are of the records of both. */
  window(window: WindowAssigner<T | U>): {
    /** Each record of the left stream with each of the right one that is in the same window and has the same key. */
    apply<R>(uid: string, fn: (left: T, right: U, window: Window) => R): Stream<R>;
  };
}
/** Two keyed streams whose records are grouped by windows. */
export interface CoGroupedStreams<K, T, U> {
  /** Any windows; sessions are of the records of both. */
  window(window: WindowAssigner<T | U>): {
    /** The records of a window and key, of either stream in the order in which they came; one of the sides may have none. */
    apply<R>(uid: string, fn: (key: K, left: T[], right: U[], window: Window) => Iterable<R>): Stream<R>;
  };
}

/** What windows give, and what came too late for them. */
export interface WindowResults<T, R> extends ProcessedStream<R> {
  /** Records that came too late for their windows. Where nobody reads the late records they are counted and dropped. */
  late(): Stream<T>;
}
