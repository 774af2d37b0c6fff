// Joins by window: two keyed streams meet in the windows of one operator.

import { MillraceError } from '../errors.ts';
import type { WindowFunction } from '../graph/node.ts';
import type { WindowAssigner } from '../time/window.ts';
import { checked } from './arguments.ts';
import type { CoGroupedStreams, JoinedStreams, Stream } from './streams.ts';
import { type PlaceWindow, WindowedStreamOf } from './windowed.ts';

type AnyFunction = (...args: never) => unknown;

/** Both `join` and `coGroup`: what differs is what is made of the two sides of a window. */
export class JoinedStreamsOf<K, T, U> implements JoinedStreams<T, U>, CoGroupedStreams<K, T, U> {
  readonly #kind: 'join' | 'coGroup';
  readonly #place: PlaceWindow;

  constructor(kind: 'join' | 'coGroup', place: PlaceWindow) {
    this.#kind = kind;
    this.#place = place;
  }

  window(window: WindowAssigner<T | U>): { apply<R>(uid: string, fn: AnyFunction): Stream<R> } {
    checkAssigner(window, `${this.#kind}()`);
    return {
      apply: <R>(uid: string, fn: AnyFunction): Stream<R> => {
        checked(fn, `apply('${uid}')`, uid);
        return new WindowedStreamOf<K, T | U, boolean>(this.#place, window, false).apply<R>(uid, { kind: this.#kind, fn } as WindowFunction);
      },
    };
  }
}

export function checkAssigner(window: unknown, what: string): void {
  const { assign, trigger, time } = (window ?? {}) as Partial<WindowAssigner<never>>;
  if (typeof assign !== 'function' || typeof trigger !== 'function' || (time !== 'event' && time !== 'processing'))
    throw new MillraceError('PLAN_INVALID', `${what} needs a window assigner with assign, trigger and a time.`, {
      todo: 'Use tumbling(), sliding(), session(), global() or count(n).',
    });
}
