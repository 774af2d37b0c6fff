// The types of windows' functions: what a program makes of the records of a window.

import type { Handles } from '../../state-backends/index.ts';
import type { Window } from '../time/window.ts';
import type { KeyedStateSpec, OperatorContext, Output } from './process.ts';

/** What the function of a window is given. Use it inside of the function only: CONTEXT_USED_OUTSIDE_RECORD. */
export interface WindowContext<K, S = {}, W = {}> extends Window, OperatorContext {
  /** Null where the windows are of all records. */
  readonly key: K;
  /** Event time of this instance in epoch milliseconds; −∞ before the first watermark. */
  readonly watermark: number;
  /** State of the key, of all its windows. */
  readonly state: Handles<S>;
  /** State of this window; it ends with it. Windows that merge: reducing, aggregating, list and map are merged, the earliest window's value that is set stays. */
  readonly windowState: Handles<W>;
  /** To a side output, with the timestamp of the window's results: end − 1. */
  side<X>(output: Output<X>, value: NoInfer<X>): void;
  side(output: string, value: unknown): void;
}

/** A function of windows with state. All functions are synchronous: HANDLER_IS_ASYNC. */
export interface WindowProcess<K, T, R, S extends KeyedStateSpec = {}, W extends KeyedStateSpec = {}> {
  state?: S;
  windowState?: W;
  /** At each firing, with the records of the window in the order in which they came. */
  onFire(context: WindowContext<K, S, W>, values: Iterable<T>): Iterable<R>;
  /** The window ends for good; its state is removed after it. */
  onClear?(context: WindowContext<K, S, W>): void | undefined;
}
