// The logical graph that `job()` builds: one node an operator, in the order in which the program added them.
//
// What: data. A node names its inputs; keyBy, union and the exchanges are no nodes but properties of inputs. Settings (`parallelism`, `onError`, …) are the
// only fields that change after a node was added, and only while the program's build function runs.

import type { Backoff, ErrorPolicy, Key, PolicyFn } from './job.ts';
import type { Sink, TransactionalSink } from './sink.ts';
import type { Source } from './source.ts';

/**
 * How records go from the instances of one operator to those of the next: to the same one, by key, in turn, in turn within a share, at random, to all, or to
 * the one that a function names.
 */
export type Exchange = 'forward' | 'hash' | 'rebalance' | 'rescale' | 'shuffle' | 'broadcast' | 'custom';

/** Which input of an operator that has two: what `onLeft` sees, or `onRight`. */
export type Port = 'left' | 'right';

export interface Input {
  readonly node: Node;
  /** Which of the node's outputs; MAIN, or the name of a side output. */
  readonly output: string;
  readonly exchange: Exchange;
  /** Of a hash exchange. */
  readonly key: ((value: unknown) => Key) | undefined;
  /** Of a custom exchange. */
  readonly partition?: ((value: unknown, instances: number) => number) | undefined;
  /** 'left' by default. */
  readonly port?: Port | undefined;
}

/** The main output's name. A side output is named by the user, so never the empty string. */
export const MAIN = '';
/** The output of an operator's dead letters; no name that a user can give. */
export const DEAD_LETTERS = '\u0000dead-letters';

/** Gives watermarks of one split in epoch milliseconds, or undefined; they only rise. */
export interface WatermarkGenerator<T> {
  onRecord(value: T, timestamp: number): number | undefined;
  /** Now and then, `now` being processing time. */
  onPeriodic?(now: number): number | undefined;
}
/** When a record happened, and how late it may come. Without one, a source has the timestamps it assigns and no watermarks. */
export interface WatermarkStrategy<T> {
  /** Epoch milliseconds; what the source assigned by default, which is NaN where it assigns none. */
  timestamp?(value: T, assigned: number): number;
  /** Milliseconds by which a record may be behind the newest; 0 by default. */
  outOfOrderness?: number;
  /** Milliseconds without a record after which a split no longer holds event time back; never by default. */
  idleness?: number;
  /** Makes a generator for each split, instead of outOfOrderness. */
  generator?(): WatermarkGenerator<T>;
  /** Splits of all sources of the group wait where they are more than `maxDrift` milliseconds ahead of its slowest. */
  align?: { group: string; maxDrift: number };
}

/** How often, and how long apart, something is tried again. */
export interface RetryPolicy {
  /** Tries in all, the first included. */
  attempts: number;
  /** Milliseconds between them: { initial: 100, max: 10,000, factor: 2, jitter: 0.1 } by default. */
  backoff?: Backoff;
  /** Which errors are worth it; all by default. */
  retryable?(error: unknown): boolean;
}
/** How `asyncMap` asks. */
export interface AsyncMapOptions {
  /** Calls open at once in an instance, 100 by default; more records wait. */
  capacity?: number;
  /** Milliseconds of processing time for a record, retries included; none by default. Then its signal aborts and ASYNC_TIMEOUT goes to `onError`. */
  timeout?: number;
  /** True (default): results leave in the order of the records. False: as they come, but never past a watermark. */
  ordered?: boolean;
  retry?: RetryPolicy;
}

/** An aggregate of your own. Accumulators are plain data; all functions are synchronous. */
export interface AggregateFunction<in T, A, out R> {
  /** A new accumulator. */
  create(): A;
  /** May change and return the accumulator. */
  add(accumulator: A, value: T): A;
  /** May change and return `left`; never changes `right`. With it, a record in a sliding window is added once, however many windows overlap. */
  merge?(left: A, right: A): A;
  /** Called as often as results are wanted; leaves the accumulator as it is. */
  result(accumulator: A): R;
}

/** Of aggregates whose result depends on the order in which the records came: they are not put together from slices. */
export const IN_ORDER: unique symbol = Symbol.for('millrace.in-order');

export type AnyAggregate = AggregateFunction<unknown, unknown, unknown>;

/** A window: epoch milliseconds, `end` is exclusive. */
export interface WindowBounds {
  readonly start: number;
  readonly end: number;
}
/** How the windows of a key are told apart: by their start, not at all, or by rows that keep the bounds of each. */
export type WindowShape =
  | { readonly kind: 'fixed'; readonly size: number; readonly slide: number; readonly offset: number }
  | { readonly kind: 'global' }
  | { readonly kind: 'session' }
  | { readonly kind: 'assigned' };

type TimerOfWindow = (time: number, window: WindowBounds, context: unknown) => unknown;
/** A trigger as the runtime calls it; the typed form stands in `time`. */
export interface TriggerSpec {
  readonly state?: Record<string, unknown>;
  readonly onElement: (value: unknown, timestamp: number, window: WindowBounds, context: unknown) => unknown;
  readonly onEventTime?: TimerOfWindow;
  readonly onProcessingTime?: TimerOfWindow;
  readonly onMerge?: (window: WindowBounds, context: unknown) => unknown;
  readonly onClear?: (window: WindowBounds, context: unknown) => unknown;
}
type Evict = (
  elements: { readonly value: unknown; readonly timestamp: number }[],
  window: WindowBounds,
) => { readonly value: unknown; readonly timestamp: number }[];
/** An evictor as the runtime calls it. */
export interface EvictorSpec {
  readonly before?: Evict;
  readonly after?: Evict;
}

/** What is made of the records of a window. `join` and `coGroup` have two inputs. */
export type WindowFunction =
  | { readonly kind: 'aggregate'; readonly fn: AnyAggregate }
  | {
      readonly kind: 'process';
      readonly state: Record<string, unknown>;
      readonly windowState: Record<string, unknown>;
      readonly onFire: (context: unknown, values: Iterable<unknown>) => unknown;
      readonly onClear: ((context: unknown) => unknown) | undefined;
    }
  | { readonly kind: 'join'; readonly fn: (left: unknown, right: unknown, window: WindowBounds) => unknown }
  | { readonly kind: 'coGroup'; readonly fn: (key: unknown, left: unknown[], right: unknown[], window: WindowBounds) => unknown };

/** What a window operator is built from. */
export interface WindowSpec {
  readonly shape: WindowShape;
  readonly time: 'event' | 'processing';
  /** Windows of a key that touch become one. */
  readonly merges: boolean;
  readonly assign: (value: unknown, timestamp: number) => Iterable<WindowBounds>;
  readonly lateness: number;
  readonly trigger: TriggerSpec;
  /** The trigger does nothing but fire at the end of the window, and for each record that comes after it. */
  readonly plain: boolean;
  /** The trigger does that, and gives early results: each `every` milliseconds of processing time, each `count` records; 0: not so. */
  readonly early: { readonly every: number; readonly count: number } | undefined;
  readonly evictor: EvictorSpec | undefined;
  readonly makes: WindowFunction;
  readonly lateOutput: string;
  /** `windowAll`: one instance, and results have no key. */
  readonly all: boolean;
}

/** Joins right records whose timestamp is in [left + lower, left + upper], of the same key. */
export interface IntervalJoinSpec {
  readonly lower: number;
  readonly upper: number;
  /** Left records that met nobody are joined with undefined at their expiry. */
  readonly outer: boolean;
  readonly fn: (left: unknown, right: unknown) => unknown;
}

/** A process definition as the runtime calls it; the typed forms stand in `api`. */
export interface ProcessSpec {
  readonly state: Record<string, unknown>;
  /** Of a process with one input. */
  readonly onRecord?: (value: unknown, context: unknown) => unknown;
  /** Of a process with two. */
  readonly onLeft?: (value: unknown, context: unknown) => unknown;
  readonly onRight?: (value: unknown, context: unknown) => unknown;
  readonly onTimer?: (timer: { at: number; domain: 'event' | 'processing' }, context: unknown) => unknown;
  readonly onStart?: (context: unknown) => unknown;
  readonly onWatermark?: (time: number, context: unknown) => unknown;
  readonly onEnd?: (context: unknown) => unknown;
  readonly onStop?: () => void | Promise<void>;
}

export type Step =
  | { readonly kind: 'source'; readonly source: Source<unknown>; readonly strategy: WatermarkStrategy<unknown> | undefined }
  | { readonly kind: 'map'; readonly fn: (value: unknown) => unknown }
  | { readonly kind: 'filter'; readonly fn: (value: unknown) => unknown }
  | { readonly kind: 'flatMap'; readonly fn: (value: unknown) => Iterable<unknown> }
  | { readonly kind: 'reduce'; readonly fn: (left: unknown, right: unknown) => unknown }
  | { readonly kind: 'aggregate'; readonly fn: AnyAggregate }
  | { readonly kind: 'window'; readonly spec: WindowSpec }
  | { readonly kind: 'split'; readonly branches: readonly { readonly name: string; readonly fn: (value: unknown) => unknown }[] }
  /** `inputs`: one, two, or two of which the right one is broadcast. */
  | { readonly kind: 'process'; readonly keyed: boolean; readonly inputs: 'one' | 'two' | 'broadcast'; readonly spec: ProcessSpec }
  | { readonly kind: 'intervalJoin'; readonly spec: IntervalJoinSpec }
  | {
      readonly kind: 'asyncMap';
      readonly fn: (value: unknown, signal: AbortSignal) => Promise<unknown>;
      readonly options: AsyncMapOptions;
    }
  | { readonly kind: 'timestamps'; readonly strategy: WatermarkStrategy<unknown> }
  | { readonly kind: 'sink'; readonly sink: Sink<unknown> | TransactionalSink<unknown> }
  | { readonly kind: 'forEach'; readonly fn: (value: unknown) => void | Promise<void> };

export interface Node {
  readonly index: number;
  /** Of whatever holds state or touches the world. */
  readonly uid: string | undefined;
  readonly step: Step;
  readonly inputs: readonly Input[];
  tag: string | undefined;
  parallelism: number | undefined;
  chain: 'always' | 'never' | undefined;
  onError: ErrorPolicy | PolicyFn;
}

/** The name that errors, metrics, snapshots and the tree use for a node. The dot keeps the names of those without uid apart from all uids. */
export function nameOf(node: Node): string {
  return node.uid ?? `${node.step.kind}.${node.index}`;
}

/** Steps that keep state by key: they run at the head of a vertex, behind a hash exchange. */
export function isKeyed(step: Step): boolean {
  return (
    step.kind === 'reduce' || step.kind === 'aggregate' || step.kind === 'window' || step.kind === 'intervalJoin' || (step.kind === 'process' && step.keyed)
  );
}

/** Steps that begin a vertex: they keep state by key, have two inputs, or keep event time in their own hands. */
export function isHead(step: Step): boolean {
  return isKeyed(step) || step.kind === 'asyncMap' || step.kind === 'timestamps' || (step.kind === 'process' && step.inputs !== 'one');
}
