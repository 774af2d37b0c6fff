// What a window holds: an accumulator, or its records; and what is made of it when it fires.
//
// Who owns what: one of the two classes here owns the table of the contents; it finds the contents of a window by key and id. What the program makes of
// records is a `WindowCall` (window-function.ts).
//
// Invariants:
//  E1  What leaves is never what stays: a result that is the accumulator goes out as a copy (protocols 16). Records stay as they came: nobody changes them.
//  E2  Records are in the order in which they came, also after windows have merged: then each has a number that says so.
//  E3  A window without contents gives nothing.

import { ChunkedLists, copy, type GroupedTable, type Key } from '../../state-backends/index.ts';
import type { AnyAggregate, EvictorSpec, WindowBounds, WindowSpec } from '../graph/node.ts';
import { rejectThenable } from '../runtime/handlers.ts';
import type { Emit, OperatorEnvironment } from '../runtime/operator.ts';
import { isKept, isPure } from './aggregates.ts';

export interface Contents {
  /** For the definition in snapshots. */
  readonly layout: string;
  /** True where the window had no contents. `right`: the record is of the right input. */
  add(value: unknown, timestamp: number, right: boolean, key: Key, hash: number, id: number): boolean;
  /** Gives what the window makes of its contents. */
  fire(key: Key, hash: number, id: number, window: WindowBounds): void;
  clear(key: Key, hash: number, id: number): void;
  /** The contents of the windows `from`, in this order behind those of `into`, become its own. */
  merge(key: Key, hash: number, into: number, from: readonly number[]): void;
}

/** What the program makes of the records of a window that fires. */
export type WindowCall = (values: readonly unknown[], right: readonly unknown[], key: Key, hash: number, id: number, window: WindowBounds) => void;

export class Accumulators implements Contents {
  readonly layout = 'aggregated';
  readonly #table: GroupedTable;
  readonly #fn: AnyAggregate;
  readonly #emit: Emit;
  readonly #uid: string;
  readonly #all: boolean;

  constructor(environment: OperatorEnvironment, fn: AnyAggregate, emit: Emit, all: boolean) {
    this.#table = environment.state().ordered(environment.uid, '.contents');
    this.#fn = fn;
    this.#emit = emit;
    this.#uid = environment.uid;
    this.#all = all;
  }

  add(value: unknown, _timestamp: number, _right: boolean, key: Key, hash: number, id: number): boolean {
    const table = this.#table;
    const group = table.find(key, hash) ?? table.insert(key, hash);
    let row = table.row(group, id);
    const opened = row === undefined;
    if (row === undefined) row = table.insertRow(group, id, this.#fn.create());
    else table.touch(row);
    const held = this.#fn.add(row.value, value);
    if (typeof held === 'object' && held !== null && 'then' in held) rejectThenable(held, this.#uid);
    // What may have grown is weighed again.
    if (typeof held === 'number') row.value = held;
    else table.put(row, held);
    return opened;
  }

  fire(key: Key, hash: number, id: number, { start, end }: WindowBounds): void {
    const table = this.#table;
    const group = table.find(key, hash);
    const row = group === undefined ? undefined : table.row(group, id);
    if (row === undefined) return;
    if (typeof row.value === 'object' && !isPure(this.#fn)) table.touch(row);
    const result = this.#fn.result(row.value);
    rejectThenable(result, this.#uid);
    const value = result === row.value && typeof result === 'object' && result !== null && !isKept(this.#fn) ? copy(result) : result;
    this.#emit({ key: this.#all ? null : key, start, end, value }, end - 1);
  }

  clear(key: Key, hash: number, id: number): void {
    const group = this.#table.find(key, hash);
    const row = group === undefined ? undefined : this.#table.row(group, id);
    if (row !== undefined) this.#table.deleteRow(group!, row);
  }

  merge(key: Key, hash: number, into: number, from: readonly number[]): void {
    const table = this.#table;
    const group = table.find(key, hash);
    if (group === undefined) return;
    const fn = this.#fn;
    for (const id of from) {
      const right = table.row(group, id);
      if (right === undefined) continue;
      const left = table.row(group, into);
      const { value } = right;
      if (left === undefined) {
        table.insertRow(group, into, value);
      } else {
        table.touch(left);
        if (!isPure(fn)) table.touch(right);
        const held = fn.merge!(left.value, right.value);
        rejectThenable(held, this.#uid);
        table.put(left, held);
      }
      table.deleteRow(group, right);
    }
  }
}

/** The records themselves: a value, then what else is kept of it. */
export class Elements implements Contents {
  readonly layout: string;
  readonly #lists: ChunkedLists;
  readonly #call: WindowCall;
  readonly #evictor: EvictorSpec | undefined;
  readonly #stride: number;
  /** Places of a record's timestamp, input and number; 0: not kept. */
  readonly #timed: number;
  readonly #sided: number;
  readonly #numbered: number;

  constructor(environment: OperatorEnvironment, { evictor, makes, merges }: WindowSpec, call: WindowCall) {
    let stride = 1;
    this.#timed = evictor === undefined ? 0 : stride++;
    this.#sided = makes.kind === 'join' || makes.kind === 'coGroup' ? stride++ : 0;
    this.#numbered = merges ? stride++ : 0;
    this.#stride = stride;
    this.#evictor = evictor;
    this.#call = call;
    this.#lists = new ChunkedLists(environment.state(), environment.uid, '.contents', stride);
    this.layout = `records${evictor === undefined ? '' : ' with timestamps'}`;
  }

  add(value: unknown, timestamp: number, right: boolean, key: Key, hash: number, id: number): boolean {
    const first = this.#timed > 0 ? timestamp : right ? 1 : 0;
    if (this.#numbered === 0) return this.#lists.add(key, hash, id, value, first, right ? 1 : 0);
    const number = this.#lists.newest(key, hash, 0) + 1;
    return this.#stride === 2 ? this.#lists.add(key, hash, id, value, number) : this.#lists.add(key, hash, id, value, first, number);
  }

  fire(key: Key, hash: number, id: number, window: WindowBounds): void {
    const places = this.#lists.all(key, hash, id);
    if (places === undefined) return;
    const stride = this.#stride;
    if (this.#evictor !== undefined) {
      this.#fireEvicting(this.#evictor, places, key, hash, id, window);
      return;
    }
    if (this.#sided === 0) {
      this.#call(stride === 1 ? places : places.filter((_, i) => i % stride === 0), NONE, key, hash, id, window);
      return;
    }
    const left: unknown[] = [];
    const right: unknown[] = [];
    for (let i = 0; i < places.length; i += stride) (places[i + 1] === 1 ? right : left).push(places[i]);
    this.#call(left, right, key, hash, id, window);
  }

  /** A record is a value, its timestamp, and a third place where there are more. */
  #fireEvicting(evictor: EvictorSpec, places: readonly unknown[], key: Key, hash: number, id: number, window: WindowBounds): void {
    const stride = this.#stride;
    interface Held {
      readonly value: unknown;
      readonly timestamp: number;
    }
    const all: Held[] = [];
    /** Its input, or its number: windows of two inputs that drop records do not merge. */
    const third = new Map<Held, unknown>();
    for (let i = 0; i < places.length; i += stride) {
      const held: Held = { value: places[i], timestamp: places[i + 1] as number };
      all.push(held);
      if (stride > 2) third.set(held, places[i + 2]);
    }
    // The program may change the arrays it is given, and gives back what is kept.
    const before = evictor.before === undefined ? all : evictor.before([...all], window);
    const valuesOf = (side: number): unknown[] => before.filter((held) => this.#sided === 0 || (third.get(held) ?? 0) === side).map((held) => held.value);
    if (before.length > 0) this.#call(valuesOf(0), this.#sided === 0 ? NONE : valuesOf(1), key, hash, id, window);
    const kept = evictor.after === undefined ? before : evictor.after([...before], window);
    if (kept.length === all.length && kept.every((held, i) => held === all[i])) return;
    // What an evictor makes anew stands behind what it found before it.
    let number = 0;
    const rows: unknown[] = [];
    for (const held of kept) {
      rows.push(held.value, held.timestamp);
      if (this.#numbered > 0) {
        number = Math.max(number, (third.get(held) as number | undefined) ?? number);
        rows.push(number);
      } else if (stride > 2) rows.push(third.get(held) ?? 0);
    }
    this.#lists.set(key, hash, id, rows);
  }

  clear(key: Key, hash: number, id: number): void {
    this.#lists.clear(key, hash, id);
  }

  merge(key: Key, hash: number, into: number, from: readonly number[]): void {
    const stride = this.#stride;
    const lists = [into, ...from].map((id) => this.#lists.all(key, hash, id)).filter((places) => places !== undefined);
    for (const id of from) this.#lists.clear(key, hash, id);
    const items: unknown[][] = [];
    for (const places of lists) for (let i = 0; i < places.length; i += stride) items.push(places.slice(i, i + stride));
    items.sort((one, other) => (one[stride - 1] as number) - (other[stride - 1] as number));
    this.#lists.set(key, hash, into, items.flat(1));
  }
}

const NONE: readonly unknown[] = [];
