// Streams: what a program types between its sources and its sinks. They build nodes and run nothing.
//
// A stream is a list of origins (a node, one of its outputs, an exchange); `keyBy` and `union` only change that list, operators add a node to the graph.

import { MillraceError } from '../errors.ts';
import type { GraphBuilder } from '../graph/builder.ts';
import { INSTANCES_MAX } from '../graph/instances.ts';
import type { DeadLetter, ErrorPolicy, Key, PolicyFn } from '../graph/job.ts';
import {
  type AggregateFunction,
  type AsyncMapOptions,
  DEAD_LETTERS,
  type Input,
  type IntervalJoinSpec,
  MAIN,
  type Node,
  type Step,
  type WatermarkStrategy,
  type WindowSpec,
} from '../graph/node.ts';
import type { Sink, TransactionalSink } from '../graph/sink.ts';
import type { WindowAssigner } from '../time/window.ts';
import { aggregateOf, checkAsync, checked, checkStrategy, nameOfOutput, specOf } from './arguments.ts';
import { Broadcast, ConnectedStreamsOf } from './connected.ts';
import { checkAssigner, JoinedStreamsOf } from './joins.ts';
import { deduplication, ranking } from './keyed-processes.ts';
import type { KeyedProcess, KeyedStateSpec, OperatorStateSpec, Output, ProcessDefinition } from './process.ts';
import type {
  BroadcastConnectedStreams,
  BroadcastStream,
  CoGroupedStreams,
  ConnectedStreams,
  JoinedStreams,
  Keyed,
  KeyedBroadcastConnectedStreams,
  KeyedConnectedStreams,
  KeyedStream,
  OperatorSettings,
  ProcessedStream,
  RecordStream,
  Stream,
  WindowedStream,
  WindowResults,
} from './streams.ts';
import { WindowedStreamOf } from './windowed.ts';

class Settings implements OperatorSettings {
  protected readonly builder: GraphBuilder;
  /** The operator just added; undefined for a stream that is none, such as a union. */
  protected readonly node: Node | undefined;

  constructor(builder: GraphBuilder, node: Node | undefined) {
    this.builder = builder;
    this.node = node;
  }

  #operator(setting: string): Node {
    if (this.node === undefined)
      throw new MillraceError('PLAN_INVALID', `${setting} needs an operator, and a union or an exchange is none.`, {
        todo: 'Set it on the operator before or after.',
      });
    return this.node;
  }

  tag(label: string): this {
    this.#operator('tag()').tag = label;
    return this;
  }
  parallelism(n: number): this {
    const operator = this.#operator('parallelism()');
    if (!Number.isInteger(n) || n < 1)
      throw new MillraceError('OPTION_INVALID', `parallelism(${n})${of(operator)}: the number of instances must be a whole number above 0.`, named(operator));
    if (n > INSTANCES_MAX)
      throw new MillraceError('OPTION_INVALID', `parallelism(${n})${of(operator)}: an operator has at most 32,768 instances.`, named(operator));
    operator.parallelism = n;
    return this;
  }
  onError(policy: ErrorPolicy | PolicyFn): this {
    const operator = this.#operator('onError()');
    if (typeof policy !== 'function' && !['restart', 'skip', 'stop', 'escalate'].includes(policy))
      throw new MillraceError('OPTION_INVALID', `'${String(policy)}'${of(operator)} is no error policy.`, {
        ...named(operator),
        todo: 'Use restart, skip, stop or escalate.',
      });
    operator.onError = policy;
    return this;
  }
  chain(mode: 'never' | 'always'): this {
    this.#operator('chain()').chain = mode;
    return this;
  }
  deadLetters(): Stream<DeadLetter> {
    return stream<DeadLetter>(this.builder, undefined, [{ node: this.#operator('deadLetters()'), output: DEAD_LETTERS, exchange: 'forward', key: undefined }]);
  }
}

const of = ({ uid }: Node): string => (uid === undefined ? '' : ` of '${uid}'`);
const named = ({ uid }: Node): { uid?: string } => (uid === undefined ? {} : { uid });

/** What keyed and plain streams share: operators that see one record at a time. */
class Records<T> extends Settings implements RecordStream<T> {
  readonly inputs: readonly Input[];

  constructor(builder: GraphBuilder, node: Node | undefined, inputs: readonly Input[]) {
    super(builder, node);
    this.inputs = inputs;
  }

  protected follow(uid: string | undefined, step: Step): Node {
    return this.builder.add(uid, step, this.inputs);
  }
  /** The two inputs of one operator: this stream's, and those of a stream or a broadcast one. */
  protected connected(keyed: boolean, other: unknown): ConnectedStreamsOf {
    const broadcast = other instanceof Broadcast;
    const of = keyed ? 'keyed' : 'unkeyed';
    return new ConnectedStreamsOf(broadcast ? `${of} beside a broadcast stream` : of, (uid, spec) => {
      if (!broadcast && !(other instanceof (keyed ? KeyedStreamOf : StreamOf)))
        throw new MillraceError('PLAN_INVALID', `'${uid}' connects ${keyed ? 'a keyed stream with one that is not' : 'a stream with one that is keyed'}.`, {
          uid,
          todo: 'Key both, or neither; a broadcast stream goes with either.',
        });
      const inputs = bothInputs(this.inputs, (other as { readonly inputs: readonly Input[] }).inputs);
      return from(this.builder, this.builder.add(uid, { kind: 'process', keyed, inputs: broadcast ? 'broadcast' : 'two', spec }, inputs));
    });
  }

  map<R>(fn: (value: T) => R): Stream<R> {
    checked(fn, 'map()');
    return from<R>(this.builder, this.follow(undefined, { kind: 'map', fn: fn as (value: unknown) => unknown }));
  }
  filter<S extends T>(fn: ((value: T) => value is S) | ((value: T) => boolean)): Stream<S> {
    checked(fn, 'filter()');
    return from<S>(this.builder, this.follow(undefined, { kind: 'filter', fn: fn as (value: unknown) => unknown }));
  }
  flatMap<R>(fn: (value: T) => Iterable<R>): Stream<R> {
    checked(fn, 'flatMap()');
    return from<R>(this.builder, this.follow(undefined, { kind: 'flatMap', fn: fn as (value: unknown) => Iterable<unknown> }));
  }
  asyncMap<R>(uid: string, fn: (value: T, signal: AbortSignal) => Promise<R>, options: AsyncMapOptions = {}): Stream<R> {
    checked(fn, `asyncMap('${uid}')`, uid);
    checkAsync(uid, options);
    return from<R>(this.builder, this.follow(uid, { kind: 'asyncMap', fn: fn as (value: unknown, signal: AbortSignal) => Promise<unknown>, options }));
  }
  sink(uid: string, sink: Sink<T> | TransactionalSink<T>): OperatorSettings {
    if (typeof sink?.open !== 'function') throw new MillraceError('PLAN_INVALID', `sink('${uid}') needs a sink.`, { uid });
    return new Settings(this.builder, this.follow(uid, { kind: 'sink', sink: sink as Sink<unknown> }));
  }
  forEach(uid: string, fn: (value: T) => void | Promise<void>): OperatorSettings {
    checked(fn, `forEach('${uid}')`, uid);
    return new Settings(this.builder, this.follow(uid, { kind: 'forEach', fn: fn as (value: unknown) => void }));
  }
}

class StreamOf<T> extends Records<T> implements ProcessedStream<T>, WindowResults<unknown, T> {
  keyBy<const K extends Key>(fn: (value: T) => K): KeyedStream<K, T> {
    checked(fn, 'keyBy()');
    return new KeyedStreamOf<K, T>(this.builder, undefined, byKey(this.inputs, fn as (value: unknown) => Key));
  }
  union<U extends readonly unknown[]>(...others: { [I in keyof U]: Stream<U[I]> }): Stream<T | U[number]> {
    const all = [this, ...(others as unknown as StreamOf<unknown>[])];
    return stream<T | U[number]>(
      this.builder,
      undefined,
      all.flatMap((s) => s.inputs),
    );
  }
  split<S extends Record<string, (value: T) => boolean>>(branches: S): { [B in keyof S]: Stream<never> } {
    const list = Object.entries(branches).map(([name, fn]) => {
      checked(fn, `split(): the branch '${name}'`);
      return { name: nameOfOutput(name), fn: fn as (value: unknown) => unknown };
    });
    if (list.length === 0) throw new MillraceError('PLAN_INVALID', 'split() needs a branch.');
    const node = this.follow(undefined, { kind: 'split', branches: list });
    // The operator just added is the split itself: settings of any branch are its settings.
    const made = list.map(({ name }) => [name, stream<never>(this.builder, node, [{ node, output: name, exchange: 'forward', key: undefined }])] as const);
    return Object.fromEntries(made) as unknown as { [B in keyof S]: Stream<never> };
  }
  connect<U>(other: BroadcastStream<U>): BroadcastConnectedStreams<T, U>;
  connect<U>(other: Stream<U>): ConnectedStreams<T, U>;
  connect<U>(other: BroadcastStream<U> | Stream<U>): ConnectedStreams<T, U> & BroadcastConnectedStreams<T, U> {
    return this.connected(false, other as Stream<U>);
  }
  broadcast(): BroadcastStream<T> {
    return new Broadcast<T>(this.#by('broadcast').inputs);
  }
  rebalance(): Stream<T> {
    return this.#by('rebalance');
  }
  shuffle(): Stream<T> {
    return this.#by('shuffle');
  }
  rescale(): Stream<T> {
    return this.#by('rescale');
  }
  partition(fn: (value: T, instances: number) => number): Stream<T> {
    checked(fn, 'partition()');
    return this.#by('custom', fn as (value: unknown, instances: number) => number);
  }
  process<R = never, S extends OperatorStateSpec = {}>(uid: string, definition: ProcessDefinition<T, R, S>): ProcessedStream<R> {
    return from<R>(this.builder, this.follow(uid, { kind: 'process', keyed: false, inputs: 'one', spec: specOf(uid, definition, ['onRecord'], 'unkeyed') }));
  }
  windowAll<M extends boolean>(window: WindowAssigner<T, M>): WindowedStream<null, T, M> {
    return windowed<null, T, M>(
      this.builder,
      byKey(this.inputs, () => 0),
      window,
      true,
    );
  }
  timestamps(strategy: WatermarkStrategy<T>): Stream<T> {
    checkStrategy('timestamps()', undefined, strategy);
    if (strategy.align !== undefined)
      throw new MillraceError('OPTION_INVALID', 'timestamps(): align belongs to the strategy of a source, whose splits can wait.');
    return from<T>(this.builder, this.follow(undefined, { kind: 'timestamps', strategy: strategy as WatermarkStrategy<unknown> }));
  }
  side<X>(output: Output<X> | string): Stream<X> {
    return this.#output<X>(this.node!, nameOfOutput(output));
  }
  late(): Stream<never> {
    const { step } = this.node!;
    return this.side<never>(step.kind === 'window' ? step.spec.lateOutput : 'late');
  }

  #output<X>(node: Node, output: string): Stream<X> {
    return stream<X>(this.builder, undefined, [{ node, output, exchange: 'forward', key: undefined }]);
  }
  #by(exchange: Input['exchange'], partition?: Input['partition']): StreamOf<T> {
    return stream<T>(
      this.builder,
      undefined,
      this.inputs.map((input) => ({ ...input, exchange, partition })),
    );
  }
}

class KeyedStreamOf<K extends Key, T> extends Records<T> implements KeyedStream<K, T> {
  window<M extends boolean>(window: WindowAssigner<T, M>): WindowedStream<K, T, M> {
    return windowed<K, T, M>(this.builder, this.inputs, window, false);
  }
  reduce(uid: string, fn: (left: T, right: T) => T): Stream<T> {
    checked(fn, `reduce('${uid}')`, uid);
    return from<T>(this.builder, this.follow(uid, { kind: 'reduce', fn: fn as (left: unknown, right: unknown) => unknown }));
  }
  aggregate<A, R>(uid: string, fn: AggregateFunction<T, A, R>): Stream<Keyed<K, R>> {
    return from<Keyed<K, R>>(this.builder, this.follow(uid, { kind: 'aggregate', fn: aggregateOf(uid, fn) }));
  }
  process<R = never, S extends KeyedStateSpec = {}>(uid: string, definition: KeyedProcess<K, T, R, S>): ProcessedStream<R> {
    return from<R>(this.builder, this.follow(uid, { kind: 'process', keyed: true, inputs: 'one', spec: specOf(uid, definition, ['onRecord'], 'keyed') }));
  }
  intervalJoin<U, R>(uid: string, other: KeyedStream<K, U>, bounds: { lower: number; upper: number; outer?: 'left' }, fn: (left: T, right: U) => R): Stream<R> {
    checked(fn, `intervalJoin('${uid}')`, uid);
    const { lower, upper, outer } = bounds;
    if (!(Number.isFinite(lower) && Number.isFinite(upper) && lower <= upper))
      throw new MillraceError('OPTION_INVALID', `intervalJoin('${uid}'): lower and upper must be milliseconds, lower at most upper.`, { uid });
    if (outer !== undefined && outer !== 'left')
      throw new MillraceError('OPTION_INVALID', `intervalJoin('${uid}'): outer '${String(outer)}' is none.`, { uid, todo: "Use 'left', or leave it out." });
    if (!(other instanceof KeyedStreamOf)) throw new MillraceError('PLAN_INVALID', `intervalJoin('${uid}') needs a keyed stream.`, { uid });
    const spec: IntervalJoinSpec = { lower, upper, outer: outer === 'left', fn: fn as (left: unknown, right: unknown) => unknown };
    return from<R>(this.builder, this.builder.add(uid, { kind: 'intervalJoin', spec }, bothInputs(this.inputs, other.inputs)));
  }
  join<U>(other: KeyedStream<K, U>): JoinedStreams<T, U> {
    return this.#joined('join', other);
  }
  coGroup<U>(other: KeyedStream<K, U>): CoGroupedStreams<K, T, U> {
    return this.#joined('coGroup', other);
  }
  #joined<U>(kind: 'join' | 'coGroup', other: KeyedStream<K, U>): JoinedStreamsOf<K, T, U> {
    if (!(other instanceof KeyedStreamOf)) throw new MillraceError('PLAN_INVALID', `${kind}() needs a keyed stream.`);
    const inputs = bothInputs(this.inputs, other.inputs);
    return new JoinedStreamsOf<K, T, U>(kind, (uid, spec) => from(this.builder, this.builder.add(uid, { kind: 'window', spec }, inputs)));
  }
  deduplicate(uid: string, options: { ttl?: number } = {}): Stream<T> {
    return this.process<T>(uid, deduplication<K, T>(options) as never);
  }
  topN(uid: string, n: number, by: (value: T) => number): Stream<Keyed<K, T[]>> {
    checked(by, `topN('${uid}')`, uid);
    if (!Number.isInteger(n) || n < 1) throw new MillraceError('OPTION_INVALID', `topN('${uid}'): n must be a whole number above 0.`, { uid });
    return this.process<Keyed<K, T[]>>(uid, ranking<K, T>(n, by) as never);
  }
  connect<U>(other: BroadcastStream<U>): KeyedBroadcastConnectedStreams<K, T, U>;
  connect<U>(other: KeyedStream<K, U>): KeyedConnectedStreams<K, T, U>;
  connect<U>(other: BroadcastStream<U> | KeyedStream<K, U>): KeyedConnectedStreams<K, T, U> & KeyedBroadcastConnectedStreams<K, T, U> {
    return this.connected(true, other as KeyedStream<K, U>);
  }
}

function bothInputs(left: readonly Input[], right: readonly Input[]): Input[] {
  return [...left.map((input) => ({ ...input, port: 'left' as const })), ...right.map((input) => ({ ...input, port: 'right' as const }))];
}

function byKey(inputs: readonly Input[], key: (value: unknown) => Key): Input[] {
  return inputs.map((input) => ({ ...input, exchange: 'hash' as const, key }));
}

function windowed<K, T, M extends boolean>(
  builder: GraphBuilder,
  inputs: readonly Input[],
  window: WindowAssigner<T, M>,
  all: boolean,
): WindowedStream<K, T, M> {
  checkAssigner(window, all ? 'windowAll()' : 'window()');
  const place = (uid: string, spec: WindowSpec): unknown => {
    const node = builder.add(uid, { kind: 'window', spec }, inputs);
    if (all) node.parallelism = 1;
    return from(builder, node);
  };
  return new WindowedStreamOf<K, T, M>(place, window, all);
}

function stream<T>(builder: GraphBuilder, node: Node | undefined, inputs: readonly Input[]): StreamOf<T> {
  return new StreamOf<T>(builder, node, inputs);
}

/** The stream of a node's main output. */
export function from<T>(builder: GraphBuilder, node: Node): StreamOf<T> {
  return stream<T>(builder, node, [{ node, output: MAIN, exchange: 'forward', key: undefined }]);
}
