// Windowed streams: settings of windows, then the node of what is made of them.

import { copy, declaredOf, type StateKind } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import {
  type AggregateFunction,
  type AnyAggregate,
  type EvictorSpec,
  IN_ORDER,
  type TriggerSpec,
  type WindowFunction,
  type WindowSpec,
} from '../graph/node.ts';
import { earlyOf, inTime, plainOf } from '../time/triggers.ts';
import type { Evictor, Trigger, WindowAssigner } from '../time/window.ts';
import { evictorOf, shapeOf } from '../time/windows.ts';
import { aggregateOf, checked, checkState, nameOfOutput } from './arguments.ts';
import type { KeyedStateSpec, Output } from './process.ts';
import type { OnSession, Windowed, WindowedStream, WindowResults } from './streams.ts';
import type { WindowContext, WindowProcess } from './window-process.ts';

/** Adds the node of a window operator and gives the stream of its results. */
export type PlaceWindow = (uid: string, spec: WindowSpec) => unknown;

export class WindowedStreamOf<K, T, M extends boolean> implements WindowedStream<K, T, M> {
  readonly #place: PlaceWindow;
  readonly #assigner: WindowAssigner<T, M>;
  readonly #all: boolean;
  #lateness = 0;
  #lateOutput = 'late';
  #trigger: Trigger<T> | undefined;
  #evictor: Evictor<T> | undefined;

  constructor(place: PlaceWindow, assigner: WindowAssigner<T, M>, all: boolean) {
    this.#place = place;
    this.#assigner = assigner;
    this.#all = all;
    this.#evictor = evictorOf(assigner);
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
  trigger<S extends KeyedStateSpec = {}>(trigger: Trigger<T, S> & OnSession<M, { onMerge: unknown }>): this {
    if (typeof (trigger as Partial<Trigger<T>> | undefined)?.onElement !== 'function')
      throw new MillraceError('PLAN_INVALID', 'trigger() needs a trigger with onElement.');
    this.#trigger = trigger as unknown as Trigger<T>;
    return this;
  }
  evictor(evictor: Evictor<T>): this {
    if (typeof evictor !== 'object' || evictor === null || (evictor.before === undefined && evictor.after === undefined))
      throw new MillraceError('PLAN_INVALID', 'evictor() needs an evictor with before or after.');
    this.#evictor = evictor;
    return this;
  }
  aggregate<A, R>(uid: string, fn: AggregateFunction<T, A, R> & OnSession<M, { merge: unknown }>): WindowResults<T, Windowed<K, R>> {
    const of = aggregateOf(uid, fn);
    if (this.#assigner.merges && of.merge === undefined)
      throw new MillraceError('PLAN_INVALID', `The aggregate of '${uid}' has no merge, and its windows merge.`, {
        uid,
        todo: 'Give it a merge, or use windows that do not merge.',
      });
    return this.#add<Windowed<K, R>>(uid, { kind: 'aggregate', fn: of });
  }
  reduce(uid: string, fn: (left: T, right: T) => T): WindowResults<T, Windowed<K, T>> {
    checked(fn, `reduce('${uid}')`, uid);
    return this.#add<Windowed<K, T>>(uid, { kind: 'aggregate', fn: reducing(fn as (left: unknown, right: unknown) => unknown) });
  }
  process<R, S extends KeyedStateSpec = {}, W extends KeyedStateSpec = {}>(uid: string, definition: WindowProcess<K, T, R, S, W>): WindowResults<T, R>;
  process<R>(uid: string, fn: (context: WindowContext<K>, values: Iterable<T>) => Iterable<R>): WindowResults<T, R>;
  process<R>(
    uid: string,
    definition: WindowProcess<K, T, R, KeyedStateSpec, KeyedStateSpec> | ((context: WindowContext<K>, values: Iterable<T>) => Iterable<R>),
  ): WindowResults<T, R> {
    const given = (typeof definition === 'function' ? { onFire: definition } : definition) as WindowProcess<
      unknown,
      unknown,
      R,
      KeyedStateSpec,
      KeyedStateSpec
    >;
    if (typeof given?.onFire !== 'function') throw new MillraceError('PLAN_INVALID', `process('${uid}') of a window needs a function, or onFire.`, { uid });
    checkState(uid, given.state ?? {}, 'keyed');
    this.#checkState(uid, given.windowState);
    return this.#add<R>(uid, {
      kind: 'process',
      state: given.state ?? {},
      windowState: given.windowState ?? {},
      // Called on the definition, so that handlers keep their `this`.
      onFire: (context, values) => given.onFire(context as WindowContext<unknown>, values),
      onClear: given.onClear === undefined ? undefined : (context) => given.onClear!(context as WindowContext<unknown>),
    });
  }

  /** For `join` and `coGroup`, which have no other settings. */
  apply<R>(uid: string, makes: WindowFunction): WindowResults<T, R> {
    return this.#add<R>(uid, makes);
  }

  /** State of each window: it ends with the window, and where windows merge it merges. */
  #checkState(uid: string, spec: Readonly<Record<string, StateKind<unknown, 'keyed'>>> | undefined): void {
    for (const [name, kind] of Object.entries(spec ?? {})) {
      const declared = declaredOf(kind);
      if (declared === undefined || kind.scope !== 'keyed')
        throw new MillraceError('PLAN_INVALID', `The state '${name}' of '${uid}' is no keyed state.`, { uid });
      if (declared.options.ttl !== undefined)
        throw new MillraceError('PLAN_INVALID', `The state '${name}' of '${uid}' has a ttl, and ends with its window.`, { uid, todo: 'Take the ttl away.' });
      if (this.#assigner.merges && declared.kind === 'aggregating' && declared.fn.merge === undefined)
        throw new MillraceError('PLAN_INVALID', `The state '${name}' of '${uid}' has no merge, and its windows merge.`, { uid });
    }
  }

  #add<R>(uid: string, makes: WindowFunction): WindowResults<T, R> {
    const assigner = this.#assigner;
    const { merges, time } = assigner;
    const known = shapeOf(assigner);
    const trigger = inTime(this.#trigger ?? assigner.trigger(), time);
    if (merges && trigger.onMerge === undefined)
      throw new MillraceError('PLAN_INVALID', `The trigger of '${uid}' has no onMerge, and its windows merge.`, {
        uid,
        todo: 'Give it an onMerge, or use windows that do not merge.',
      });
    this.#checkState(uid, trigger.state);
    const spec: WindowSpec = {
      shape: known ?? { kind: 'assigned' },
      time,
      merges,
      assign: (value, timestamp) => assigner.assign(value as T, timestamp),
      lateness: this.#lateness,
      trigger: trigger as TriggerSpec,
      plain: plainOf(trigger) === time && known?.kind !== 'global',
      early: earlyOf(trigger),
      evictor: this.#evictor as EvictorSpec | undefined,
      makes,
      lateOutput: this.#lateOutput,
      all: this.#all,
    };
    return this.#place(uid, spec) as WindowResults<T, R>;
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
  // In the order of arrival: nobody asked for a function that does not mind.
  return Object.assign({ create: () => undefined, add: join, merge: join, result: (held: unknown) => held }, { [IN_ORDER]: true });
}
