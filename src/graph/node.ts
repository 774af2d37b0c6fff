// The logical graph that `job()` builds: one node an operator, in the order in which the program added them.
//
// What: data. A node names its inputs; keyBy, union and the exchanges are no nodes but properties of inputs. Settings (`parallelism`, `onError`, …) are the
// only fields that change after a node was added, and only while the program's build function runs.

import type { ErrorPolicy, Key, PolicyFn } from './job.ts';
import type { Sink, TransactionalSink } from './sink.ts';
import type { Source } from './source.ts';

export type Exchange = 'forward' | 'hash' | 'rebalance';

export interface Input {
  readonly node: Node;
  /** Which of the node's outputs; MAIN, or the name of a side output. */
  readonly output: string;
  readonly exchange: Exchange;
  /** Of a hash exchange. */
  readonly key: ((value: unknown) => Key) | undefined;
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

export type AnyAggregate = AggregateFunction<unknown, unknown, unknown>;

/** What a window operator is built from: event-time windows of fixed size. */
export interface WindowSpec {
  readonly size: number;
  readonly slide: number;
  readonly offset: number;
  readonly lateness: number;
  /** Milliseconds of processing time between early results; 0: none. */
  readonly earlyEvery: number;
  /** Early results each `earlyCount` elements; 0: none. */
  readonly earlyCount: number;
  readonly fn: AnyAggregate;
  /** True for `reduce`: the accumulator is undefined or a value. */
  readonly lateOutput: string;
}

/** A process definition as the runtime calls it; the typed forms stand in `api`. */
export interface ProcessSpec {
  readonly state: Record<string, unknown>;
  readonly onRecord: (value: unknown, context: unknown) => unknown;
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
  | { readonly kind: 'process'; readonly keyed: boolean; readonly spec: ProcessSpec }
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
  return step.kind === 'reduce' || step.kind === 'aggregate' || step.kind === 'window' || (step.kind === 'process' && step.keyed);
}
