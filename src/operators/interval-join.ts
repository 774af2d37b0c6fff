// The interval join: records of two keyed streams whose timestamps are at most so far apart.
//
// What: left and right meet where right.ts is in [left.ts + lower, left.ts + upper], both ends included. Whichever comes second finds the first; the result
// has the larger timestamp. With `outer`, a left record that met nobody is joined with undefined once nobody can come any more.
//
// Layout: for each side, rows by key and timestamp → [chunks, item, item, …]; beyond CHUNK items of one timestamp, these become rows (key, [timestamp, n]) of a
// second table, so that no row is encoded again and again as it grows. An item is a record; with `outer`, on the left, a record and whether it met anybody.
//
// Invariants:
//  J1  A record with ts < watermark joins nothing and is counted. So a side keeps a record while the other may bring one for it: a left one until the watermark
//      is beyond ts + upper, a right one until it is beyond ts − lower. Where that has come already, it is not kept at all.
//  J2  A key that has records on a side has one timer that counts for it: when the oldest of them is to go.
//  J3  Rows with records that are not primitives are touched before these are handed to the function (protocols 3).

import type { Group, GroupedTable, Row, TaskState, TimerTable } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import type { Key } from '../graph/job.ts';
import { type IntervalJoinSpec, MAIN } from '../graph/node.ts';
import { fresh } from '../runtime/fresh.ts';
import { rejectThenable } from '../runtime/handlers.ts';
import type { Emit, Operator, OperatorEnvironment } from '../runtime/operator.ts';
import { fireTimers } from '../runtime/timers.ts';

/** Items in a row. */
const CHUNK = 64;
const LEFT = 0;
const RIGHT = 1;

/** The records that one side keeps. */
class JoinSide {
  readonly open: GroupedTable;
  readonly #full: GroupedTable;
  /** Places of an item. */
  readonly stride: number;
  /** Milliseconds after its timestamp from which on nobody comes for a record. */
  readonly #stays: number;
  readonly #ns: number;
  readonly #timers: TimerTable;

  constructor(state: TaskState, timers: TimerTable, uid: string, options: { name: string; stride: number; stays: number; ns: number }) {
    this.open = state.ordered(uid, options.name);
    this.#full = state.keyed(uid, `${options.name}.full`);
    this.stride = options.stride;
    this.#stays = options.stays;
    this.#ns = options.ns;
    this.#timers = timers;
  }

  /** When records of that timestamp go: at the first watermark beyond which none comes for them (J1). */
  expiry(timestamp: number): number {
    return timestamp + this.#stays + 1;
  }

  wanted(timestamp: number, watermark: number): boolean {
    return timestamp + this.#stays >= watermark;
  }

  add(key: Key, hash: number, timestamp: number, value: unknown, met: boolean): void {
    const { open, stride } = this;
    const group = open.find(key, hash) ?? open.insert(key, hash);
    const row = open.row(group, timestamp);
    if (row === undefined) {
      open.insertRow(group, timestamp, stride === 1 ? [0, value] : [0, value, met]);
      if (group.rows[0]!.ns === timestamp) this.#timers.set(this.expiry(timestamp), key, hash, this.#ns);
      return;
    }
    open.touch(row);
    let items = row.value as unknown[];
    if (items.length > CHUNK * stride) {
      const [n, ...whole] = items as [number, ...unknown[]];
      const full = this.#full.find(key, hash) ?? this.#full.insert(key, hash);
      this.#full.insertRow(full, [timestamp, n], whole);
      items = [n + 1];
    }
    items.push(value);
    if (stride === 2) items.push(met);
    open.put(row, items);
  }

  /** The rows with the items of a row of `open`, oldest first. Items begin at place 0 of full ones, at 1 of the open one. */
  chunk(group: Group, row: Row, n: number): Row {
    return this.#full.row(this.#full.find(group.key, group.hash)!, [row.ns as number, n])!;
  }

  /** Before items are read to be handed out, or changed. */
  touch(row: Row, full: boolean): void {
    (full ? this.#full : this.open).touch(row);
  }

  /** Takes out the records of a row, as places in order. */
  take(group: Group, row: Row): unknown[] {
    this.open.touch(row);
    const [n, ...newest] = row.value as [number, ...unknown[]];
    const places: unknown[] = [];
    for (let i = 0; i < n; i++) {
      const chunk = this.chunk(group, row, i);
      this.#full.touch(chunk);
      for (const place of chunk.value as unknown[]) places.push(place);
      this.#full.deleteRow(this.#full.find(group.key, group.hash)!, chunk);
    }
    for (const place of newest) places.push(place);
    this.open.deleteRow(group, row);
    return places;
  }
}

interface MeetDependencies {
  readonly mine: JoinSide;
  readonly other: JoinSide;
  /** The timestamps of the other side, relative to the record's own. */
  readonly from: number;
  readonly to: number;
  readonly left: boolean;
  readonly outer: boolean;
  readonly fn: (left: unknown, right: unknown) => unknown;
  readonly emit: Emit;
  readonly watermark: () => number;
  readonly reject: (result: object) => void;
  readonly noTimestamp: () => Error;
  readonly late: () => void;
}

/** A record of one side comes. Free of outside names: see fresh.ts. */
const meeting = ({ mine, other, from, to, left, outer, fn, emit, watermark, reject, noTimestamp, late }: MeetDependencies): Operator['process'] => {
  const theirs = other.open;
  const { stride } = other;
  const join = (value: unknown, timestamp: number, found: unknown, at: number): void => {
    const result = left ? fn(value, found) : fn(found, value);
    if (typeof result === 'object' && result !== null && 'then' in result) reject(result);
    emit(result, Math.max(at, timestamp));
  };
  /** All items of a row, which begin at `first`. */
  const joinRow = (row: Row, full: boolean, first: number, value: unknown, timestamp: number, at: number): void => {
    let items = row.value as unknown[];
    // Touched before anything is handed out or marked; what is only read and primitive needs none.
    let touched = stride === 2;
    for (let i = first; !touched && i < items.length; i++) touched = typeof items[i] === 'object' && items[i] !== null;
    if (touched) {
      other.touch(row, full);
      items = row.value as unknown[];
    }
    for (let i = first; i < items.length; i += stride) {
      if (stride === 2) items[i + 1] = true;
      join(value, timestamp, items[i], at);
    }
  };
  return (value, timestamp, key, hash) => {
    // biome-ignore lint/suspicious/noSelfCompare: NaN is a record without a timestamp
    if (timestamp !== timestamp) throw noTimestamp();
    const now = watermark();
    if (timestamp < now) {
      late();
      return;
    }
    let met = false;
    const group = theirs.find(key, hash);
    if (group !== undefined) {
      const { rows } = group;
      const [low, high] = [timestamp + from, timestamp + to];
      // The first row in reach, from the newest in steps where it is near, which it mostly is, else in halves.
      let i = rows.length;
      while (i > 0 && rows.length - i < 8 && (rows[i - 1]!.ns as number) >= low) i--;
      if (rows.length - i === 8) {
        let below = 0;
        while (below < i) {
          const middle = (below + i) >>> 1;
          if ((rows[middle]!.ns as number) < low) below = middle + 1;
          else i = middle;
        }
      }
      for (; i < rows.length; i++) {
        const row = rows[i]!;
        const at = row.ns as number;
        if (at > high) break;
        met = true;
        const chunks = (row.value as unknown[])[0] as number;
        for (let n = 0; n < chunks; n++) joinRow(other.chunk(group, row, n), true, 0, value, timestamp, at);
        joinRow(row, false, 1, value, timestamp, at);
      }
    }
    if (mine.wanted(timestamp, now)) mine.add(key, hash, timestamp, value, met);
    else if (left && outer && !met) {
      const result = fn(value, undefined);
      if (typeof result === 'object' && result !== null && 'then' in result) reject(result);
      emit(result, timestamp);
    }
  };
};

export function intervalJoinOperator(environment: OperatorEnvironment, { lower, upper, outer, fn }: IntervalJoinSpec): Operator {
  const { uid } = environment;
  const state = environment.state();
  const timers = state.timers(uid, '.timers');
  const left = new JoinSide(state, timers, uid, { name: 'left', stride: outer ? 2 : 1, stays: upper, ns: LEFT });
  const right = new JoinSide(state, timers, uid, { name: 'right', stride: 1, stays: -lower, ns: RIGHT });
  const emit = environment.output(MAIN)!;
  const counts = { lateDropped: 0 };
  const reject = (result: unknown): void => rejectThenable(result, uid);
  const common = {
    outer,
    fn,
    emit,
    reject,
    watermark: environment.watermark,
    noTimestamp: () =>
      new MillraceError('TIMESTAMP_MISSING', `The interval join '${uid}' met a record without a timestamp.`, {
        uid,
        todo: 'Give the sources of both sides a timestamp function.',
      }),
    late: () => {
      counts.lateDropped += 1;
    },
  };
  const unmet = (value: unknown, timestamp: number, key: Key): void => {
    environment.unit(
      () => {
        const result = fn(value, undefined);
        reject(result);
        emit(result, timestamp);
      },
      () => value,
      key,
      timestamp,
    );
  };
  return {
    counts,
    process: fresh<MeetDependencies, Operator['process']>(
      meeting,
      `join-${uid}-left`,
    )({ ...common, mine: left, other: right, from: lower, to: upper, left: true }),
    processRight: fresh<MeetDependencies, Operator['process']>(
      meeting,
      `join-${uid}-right`,
    )({ ...common, mine: right, other: left, from: -upper, to: -lower, left: false }),
    advance: (watermark, deadline) =>
      fireTimers(timers, watermark, deadline, ({ time, key, hash, ns }) => {
        const side = ns === LEFT ? left : right;
        for (;;) {
          const group = side.open.find(key, hash);
          const row = group?.rows[0];
          if (row === undefined) return;
          const at = row.ns as number;
          const expiry = side.expiry(at);
          if (expiry > time) {
            timers.set(expiry, key, hash, ns);
            return;
          }
          const places = side.take(group!, row);
          if (side.stride === 2) for (let i = 0; i < places.length; i += 2) if (places[i + 1] === false) unmet(places[i], at, key);
        }
      }),
  };
}
