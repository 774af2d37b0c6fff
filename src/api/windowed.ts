// Windowed streams: settings of windows, then the node of what is made of them.

import { copy } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import type { AggregateFunction, AnyAggregate, WindowSpec } from '../graph/node.ts';
import type { EarlyTrigger, FixedWindows } from '../time/windows.ts';
import { aggregateOf, checked, nameOfOutput } from './arguments.ts';
import type { Output } from './process.ts';
import type { Windowed, WindowedStream, WindowResults } from './streams.ts';

/** Adds the node of a window operator and gives the stream of its results. */
export type PlaceWindow = (uid: string, spec: WindowSpec) => unknown;

export class WindowedStreamOf<K, T, M extends boolean> implements WindowedStream<K, T, M> {
  declare readonly merges?: M;
  readonly #place: PlaceWindow;
  readonly #window: FixedWindows;
  readonly #all: boolean;
  #lateness = 0;
  #lateOutput = 'late';
  #early: EarlyTrigger['early'] = { every: 0, count: 0 };

  constructor(place: PlaceWindow, window: FixedWindows, all: boolean) {
    this.#place = place;
    this.#window = window;
    this.#all = all;
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
  return { create: () => undefined, add: join, merge: join, result: (held) => held };
}
