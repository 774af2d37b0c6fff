// Rows, groups and timers as they lie in memory. One class each, all fields set in one order, so that the hot path sees one shape.
//
// Who owns what: tables own `key … value` and `at`; the ledger owns `epoch`, `listed`, `unit`; residency (level) owns `flags` and `bytes`.

import type { Key } from './contract.ts';

/** `flags`, of a row in a single table and of a group: what LevelDB and the clock know of it. */
export const REFERENCED = 1;
/** Memory is newer than LevelDB, or LevelDB has nothing. */
export const DIRTY = 2;
/** LevelDB has some version of it, or will have one when the batch in flight has resolved. */
export const STORED = 4;
export const IN_FLIGHT = 8;
/** Deleted, and stays so that LevelDB's older version is not read, until its deletion has resolved (S5). */
export const DEAD = 16;

/** `epoch` of a row that is in no list of changes. */
export const UNLISTED = 0;

export class MemoryRow {
  key: Key;
  hash: number;
  ns: unknown;
  value: unknown;
  /** The interval in which it last changed, UNLISTED where that delta is written already. */
  epoch: number;
  /** Its place in the interval's list of changes. */
  listed: number;
  /** The last unit that kept an image of it. */
  unit: number;
  /** Its place in the table's dense array, or among the rows of its group. */
  at: number;
  flags: number;
  bytes: number;
  group: MemoryGroup | undefined;

  constructor(key: Key, hash: number, ns: unknown, value: unknown, group: MemoryGroup | undefined) {
    this.key = key;
    this.hash = hash;
    this.ns = ns;
    this.value = value;
    this.epoch = UNLISTED;
    this.listed = 0;
    this.unit = 0;
    this.at = -1;
    this.flags = 0;
    this.bytes = 0;
    this.group = group;
  }
}

export class MemoryGroup {
  key: Key;
  hash: number;
  rows: MemoryRow[];
  /** Its place in the table's dense array, −1 while it has had no row yet or lost its last. */
  at: number;
  flags: number;
  bytes: number;
  /** Namespace → row, once a group of a keyed table is large. */
  byNamespace: Map<unknown, MemoryRow> | undefined;
  derived: unknown;

  constructor(key: Key, hash: number) {
    this.key = key;
    this.hash = hash;
    this.rows = [];
    this.at = -1;
    this.flags = 0;
    this.bytes = 0;
    this.byNamespace = undefined;
    this.derived = undefined;
  }
}
