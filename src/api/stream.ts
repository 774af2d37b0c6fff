// Streams: what a program types between its sources and its sinks. They build nodes and run nothing.
//
// A stream is a list of origins (a node, one of its outputs, an exchange); `keyBy` and `union` only change that list, operators add a node to the graph.

import { copy } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import type { DeadLetter, ErrorPolicy, Key, PolicyFn } from '../graph/job.ts';
import {
  type AggregateFunction,
  type AnyAggregate,
  DEAD_LETTERS,
  type Input,
  MAIN,
  type Node,
  type ProcessSpec,
  type Step,
  type WindowSpec,
} from '../graph/node.ts';
import type { Sink, TransactionalSink } from '../graph/sink.ts';
import { type EarlyTrigger, type FixedWindows, isFixed, type WindowAssigner } from '../time/windows.ts';
import type { KeyedProcess, KeyedStateSpec, OperatorStateSpec, Output, ProcessDefinition } from './process.ts';

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

/** What plain and keyed streams share. Values are passed by reference: do not change what you are given. */
export interface RecordStream<T> {
  /** One value for each. */
  map<R>(fn: (value: T) => R): Stream<R>;
  /** Those for which `fn` is true. */
  filter<S extends T>(fn: (value: T) => value is S): Stream<S>;
  filter(fn: (value: T) => boolean): Stream<T>;
  /** Any number of values for each. */
  flatMap<R>(fn: (value: T) => Iterable<R>): Stream<R>;
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
  /** Deals records out in turn. */
  rebalance(): Stream<T>;
  /** An operator of your own. */
  process<R = never, S extends OperatorStateSpec = {}>(uid: string, definition: ProcessDefinition<T, R, S>): ProcessedStream<R>;
}

/** A stream from an operator that has side outputs. */
export interface ProcessedStream<R> extends Stream<R> {
  /** The records of that output. */
  side<X>(output: Output<X> | string): Stream<X>;
}

/** Records by key: what keeps state keeps it for each key. */
export interface KeyedStream<K extends Key, T> extends RecordStream<T> {
  /** Windows of each key: `tumbling()`, `sliding()`. */
  window<M extends boolean>(window: WindowAssigner<T, M>): WindowedStream<K, T>;
  /** Running: emits every new value of a key. */
  reduce(uid: string, fn: (left: T, right: T) => T): Stream<T>;
  /** Running: emits every new result of a key. */
  aggregate<A, R>(uid: string, fn: AggregateFunction<T, A, R>): Stream<Keyed<K, R>>;
  /** An operator of your own, with state and timers for each key. */
  process<R = never, S extends KeyedStateSpec = {}>(uid: string, definition: KeyedProcess<K, T, R, S>): ProcessedStream<R>;
}

/** Windows of a keyed stream: settings, then what is made of the records of each. A window fires when event time passes its end. */
export interface WindowedStream<K, T> {
  /** Milliseconds of event time for which a window that has fired still takes late records, 0 by default; each makes it fire again. */
  allowedLateness(ms: number): this;
  /** Names the output of late records, `late` otherwise. */
  lateTo(output: Output<T> | string): this;
  /** Results before the end too: `early()`. */
  trigger(trigger: EarlyTrigger): this;
  /** One result for each window and key. */
  aggregate<A, R>(uid: string, fn: AggregateFunction<T, A, R>): WindowResults<T, Windowed<K, R>>;
  /** The records of each window and key, reduced to one. */
  reduce(uid: string, fn: (left: T, right: T) => T): WindowResults<T, Windowed<K, T>>;
}

/** What windows give, and what came too late for them. */
export interface WindowResults<T, R> extends ProcessedStream<R> {
  /** Records that came too late for their windows. Where nobody reads the late records they are counted and dropped. */
  late(): Stream<T>;
}

/** Steps without state that touch nothing outside: they have no uid. */
const ANONYMOUS: ReadonlySet<Step['kind']> = new Set(['map', 'filter', 'flatMap']);

/** The nodes of the program that is being built. */
export class GraphBuilder {
  readonly nodes: Node[] = [];
  readonly #uids = new Set<string>();

  add(uid: string | undefined, step: Step, inputs: readonly Input[]): Node {
    if (uid !== undefined || !ANONYMOUS.has(step.kind)) {
      if (typeof uid !== 'string' || !/^[a-z0-9-]+$/.test(uid))
        throw new MillraceError('UID_INVALID', `'${String(uid)}' is no uid.`, { todo: 'A uid is made of lower-case letters, digits and hyphens.' });
      if (this.#uids.has(uid))
        throw new MillraceError('UID_DUPLICATE', `The uid '${uid}' is used twice.`, {
          uid,
          todo: 'Every source, sink and stateful operator of a job has a uid of its own.',
        });
      this.#uids.add(uid);
    }
    const node: Node = { index: this.nodes.length, uid, step, inputs, tag: undefined, parallelism: undefined, chain: undefined, onError: 'restart' };
    this.nodes.push(node);
    return node;
  }
}

function checked(fn: unknown, what: string): void {
  if (typeof fn !== 'function') throw new MillraceError('PLAN_INVALID', `${what} needs a function.`);
}

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
    if (!Number.isInteger(n) || n < 1) throw new MillraceError('OPTION_INVALID', `parallelism(${n}): the number of instances must be a whole number above 0.`);
    this.#operator('parallelism()').parallelism = n;
    return this;
  }
  onError(policy: ErrorPolicy | PolicyFn): this {
    if (typeof policy !== 'function' && !['restart', 'skip', 'stop', 'escalate'].includes(policy))
      throw new MillraceError('OPTION_INVALID', `'${String(policy)}' is no error policy.`, { todo: 'Use restart, skip, stop or escalate.' });
    this.#operator('onError()').onError = policy;
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
  sink(uid: string, sink: Sink<T> | TransactionalSink<T>): OperatorSettings {
    return new Settings(this.builder, this.follow(uid, { kind: 'sink', sink: sink as Sink<unknown> }));
  }
  forEach(uid: string, fn: (value: T) => void | Promise<void>): OperatorSettings {
    checked(fn, `forEach('${uid}')`);
    return new Settings(this.builder, this.follow(uid, { kind: 'forEach', fn: fn as (value: unknown) => void }));
  }
}

class StreamOf<T> extends Records<T> implements ProcessedStream<T>, WindowResults<unknown, T> {
  keyBy<const K extends Key>(fn: (value: T) => K): KeyedStream<K, T> {
    checked(fn, 'keyBy()');
    const inputs = this.inputs.map((input) => ({ ...input, exchange: 'hash' as const, key: fn as (value: unknown) => Key }));
    return new KeyedStreamOf<K, T>(this.builder, undefined, inputs);
  }
  union<U extends readonly unknown[]>(...others: { [I in keyof U]: Stream<U[I]> }): Stream<T | U[number]> {
    const all = [this, ...(others as unknown as StreamOf<unknown>[])];
    return stream<T | U[number]>(
      this.builder,
      undefined,
      all.flatMap((s) => s.inputs),
    );
  }
  rebalance(): Stream<T> {
    return stream<T>(
      this.builder,
      undefined,
      this.inputs.map((input) => ({ ...input, exchange: 'rebalance' as const })),
    );
  }
  process<R = never, S extends OperatorStateSpec = {}>(uid: string, definition: ProcessDefinition<T, R, S>): ProcessedStream<R> {
    return from<R>(this.builder, this.follow(uid, { kind: 'process', keyed: false, spec: specOf(uid, definition) }));
  }
  side<X>(output: Output<X> | string): Stream<X> {
    return stream<X>(this.builder, undefined, [{ node: this.node!, output: nameOfOutput(output), exchange: 'forward', key: undefined }]);
  }
  late(): Stream<never> {
    const { step } = this.node!;
    return this.side<never>(step.kind === 'window' ? step.spec.lateOutput : 'late');
  }
}

class KeyedStreamOf<K extends Key, T> extends Records<T> implements KeyedStream<K, T> {
  window<M extends boolean>(window: WindowAssigner<T, M>): WindowedStream<K, T> {
    if (!isFixed(window as WindowAssigner<never, boolean>))
      throw new MillraceError('PLAN_INVALID', 'This window assigner is not supported.', { todo: 'Use tumbling() or sliding().' });
    return new WindowedStreamOf<K, T>(this.builder, this.inputs, window as unknown as FixedWindows);
  }
  reduce(uid: string, fn: (left: T, right: T) => T): Stream<T> {
    checked(fn, `reduce('${uid}')`);
    return from<T>(this.builder, this.follow(uid, { kind: 'reduce', fn: fn as (left: unknown, right: unknown) => unknown }));
  }
  aggregate<A, R>(uid: string, fn: AggregateFunction<T, A, R>): Stream<Keyed<K, R>> {
    return from<Keyed<K, R>>(this.builder, this.follow(uid, { kind: 'aggregate', fn: aggregateOf(uid, fn) }));
  }
  process<R = never, S extends KeyedStateSpec = {}>(uid: string, definition: KeyedProcess<K, T, R, S>): ProcessedStream<R> {
    return from<R>(this.builder, this.follow(uid, { kind: 'process', keyed: true, spec: specOf(uid, definition) }));
  }
}

class WindowedStreamOf<K, T> implements WindowedStream<K, T> {
  readonly #builder: GraphBuilder;
  readonly #inputs: readonly Input[];
  readonly #window: FixedWindows;
  #lateness = 0;
  #lateOutput = 'late';
  #early: EarlyTrigger['early'] = { every: 0, count: 0 };

  constructor(builder: GraphBuilder, inputs: readonly Input[], window: FixedWindows) {
    this.#builder = builder;
    this.#inputs = inputs;
    this.#window = window;
  }

  allowedLateness(ms: number): this {
    if (!(ms >= 0)) throw new MillraceError('OPTION_INVALID', `allowedLateness(${ms}): milliseconds of 0 or more.`);
    this.#lateness = ms;
    return this;
  }
  lateTo(output: Output<T> | string): this {
    this.#lateOutput = nameOfOutput(output);
    return this;
  }
  trigger(trigger: EarlyTrigger): this {
    this.#early = trigger.early;
    return this;
  }
  aggregate<A, R>(uid: string, fn: AggregateFunction<T, A, R>): WindowResults<T, Windowed<K, R>> {
    return this.#add<Windowed<K, R>>(uid, aggregateOf(uid, fn));
  }
  reduce(uid: string, fn: (left: T, right: T) => T): WindowResults<T, Windowed<K, T>> {
    checked(fn, `reduce('${uid}')`);
    return this.#add<Windowed<K, T>>(uid, reducing(fn as (left: unknown, right: unknown) => unknown));
  }

  #add<R>(uid: string, fn: AnyAggregate): WindowResults<T, R> {
    const { size, slide, offset } = this.#window;
    const spec: WindowSpec = {
      size,
      slide,
      offset,
      lateness: this.#lateness,
      earlyEvery: this.#early.every,
      earlyCount: this.#early.count,
      fn,
      lateOutput: this.#lateOutput,
    };
    const node = this.#builder.add(uid, { kind: 'window', spec }, this.#inputs);
    return from<R>(this.#builder, node) as unknown as WindowResults<T, R>;
  }
}

/**
 * `reduce` in a window: the accumulator is undefined before the first value. The first value is kept as a copy until the reducer has been seen to leave its
 * left argument alone: the record may be on its way elsewhere too (protocols 16).
 */
function reducing(fn: (left: unknown, right: unknown) => unknown): AnyAggregate {
  let trusted = false;
  let keepsLeft = false;
  const join = (left: unknown, right: unknown): unknown => {
    if (left === undefined) return trusted || typeof right !== 'object' || right === null ? right : copy(right);
    const next = fn(left, right);
    if (next === left && typeof next === 'object' && next !== null) keepsLeft = true;
    trusted = !keepsLeft;
    return keepsLeft && next === right && typeof next === 'object' && next !== null ? copy(next) : next;
  };
  return { create: () => undefined, add: join, merge: join, result: (held) => held };
}

function aggregateOf(uid: string, fn: unknown): AnyAggregate {
  const { create, add, result } = (fn ?? {}) as Partial<AnyAggregate>;
  if (typeof create !== 'function' || typeof add !== 'function' || typeof result !== 'function')
    throw new MillraceError('PLAN_INVALID', `aggregate('${uid}') needs an aggregate function with create, add and result.`, { uid });
  return fn as AnyAggregate;
}

function specOf(uid: string, definition: object): ProcessSpec {
  const { onRecord, state } = definition as { onRecord?: unknown; state?: unknown };
  if (typeof onRecord !== 'function') throw new MillraceError('PLAN_INVALID', `The process '${uid}' needs onRecord.`, { uid });
  // The definition itself is called, so that handlers keep their `this`.
  return Object.assign(Object.create(definition) as ProcessSpec, { state: state ?? {} });
}

function nameOfOutput(output: { readonly name: string } | string): string {
  const name = typeof output === 'string' ? output : output.name;
  if (name === MAIN) throw new MillraceError('PLAN_INVALID', 'An output needs a name.');
  return name;
}

function stream<T>(builder: GraphBuilder, node: Node | undefined, inputs: readonly Input[]): StreamOf<T> {
  return new StreamOf<T>(builder, node, inputs);
}

/** The stream of a node's main output. */
export function from<T>(builder: GraphBuilder, node: Node): StreamOf<T> {
  return stream<T>(builder, node, [{ node, output: MAIN, exchange: 'forward', key: undefined }]);
}
