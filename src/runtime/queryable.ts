// State that can be asked for from outside: what an operator lets be seen of the rows of a key.

import type { HeldRow, Key } from '../../state-backends/index.ts';

/** What one view is made of. */
export interface KeyRows {
  readonly key: Key;
  /** Of a table of the operator; copies. */
  rows(table: string): readonly HeldRow[];
  /** Event time of the task. */
  readonly watermark: number;
  /** Processing time of the task. */
  readonly now: number;
}

export interface QueryableState {
  readonly name: string;
  /** As it was declared: value, list, map, reducing, aggregating; or what the operator is: reduce, aggregate, windows, join. */
  readonly kind: string;
  /** The table that has a row of each key of this state. */
  readonly table: string;
  /** All tables that hold it, timers included. */
  readonly tables: readonly string[];
  /** Undefined: the key has nothing there. */
  view(rows: KeyRows): unknown;
}

/** State of an instance, without a key. */
export interface UnkeyedState {
  readonly name: string;
  /** splitList, unionList or broadcastMap. */
  readonly kind: string;
}

/** What of an operator can be asked for: `states` by key, `without` as a whole. */
export interface Queryable {
  readonly states: readonly QueryableState[];
  readonly without: readonly UnkeyedState[];
}
