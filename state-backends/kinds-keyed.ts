// Handles of keyed state: they act on the current key.
//
// Who owns what: `bindKinds` declares the tables of an operator and makes the handles. The engine says which key is current, and that none is whenever
// it gives control back (protocols 10); it calls `expire` when `nextExpiry` has come.
//
// Layout: value, reducing, aggregating are one row a key; a list is rows of up to 64 elements, a map is one row an entry (protocols 22). With a ttl rows
// say besides when they were written: kinds-expiring.ts.
//
// Invariants:
//  H1  A handle without a current key throws CONTEXT_USED_OUTSIDE_RECORD.
//  H2  Whatever is not a primitive is touched before it is handed out (protocols 3).
//  H3  What is handed out of an accumulator is never what the next `add` changes (protocols 16).
//  H4  Iteration sees the state at its start.
//  H5  The version of a table is the declared one, + EXPIRING where its rows say when they were written by processing time, + 2 EXPIRING by event time; so a
//      ttl can be added and taken away. That of `.armed.<name>` stands for the ttl and its clock.

import { copy } from './codec.ts';
import type { Key, Row, SingleTable, TableOptions, TaskState } from './contract.ts';
import { type EventClock, type ExpiryClock, isExpired, processingClock, type TtlClock } from './expiry-clock.ts';
import { canonicalKey } from './keys.ts';
import type { AccumulatorState, Aggregating, Handles, KeyedDeclared, ListState, MapState, StateOptions, StateSpec, ValueState } from './kinds.ts';
import { declaredOf } from './kinds.ts';
import { CHUNK, Current, CurrentGroup, CurrentRow, isShared } from './kinds-current.ts';
import {
  type Adopted,
  type Expiring,
  ExpiringAggregating,
  ExpiringList,
  ExpiringMap,
  type ExpiringParts,
  ExpiringReducing,
  ExpiringValue,
} from './kinds-expiring.ts';
import { StateError } from './state-error.ts';
import { EXPIRING, refuseVersion } from './versions.ts';

export interface BoundKinds<S extends StateSpec = StateSpec> {
  readonly handles: Handles<S>;
  readonly current: Current;
  /** Called for every record and timer. The key is canonical, the hash is its hash. */
  setCurrent(key: Key, hash: number): void;
  /** Called when control is given back. */
  clearCurrent(): void;
  /** A hint: records with these hashes come next. */
  ahead(hashes: Int32Array, from: number, to: number): void;
  /** Processing time from which on `expire` has something to remove; Infinity where nothing has a ttl. */
  readonly nextExpiry: number;
  /** Removes what has expired by processing time; 'more' where `deadline` (performance.now()) came first, a promise where it must be read from disk. */
  expire(now: number, deadline: number): 'done' | 'more' | Promise<void>;
  /** The same for event time, once the clock has been moved. */
  expireEvent(deadline: number): 'done' | 'more' | Promise<void>;
}

/** Without a clock of the engine, for state that nothing has a ttl in. */
const NO_CLOCK: ExpiryClock = {
  now() {
    throw noClock();
  },
  changed() {},
};

function noClock(): StateError {
  return new StateError('STATE_MISUSED', 'State with a ttl was bound without a clock.');
}

/** Declares the tables of an operator's keyed state; the handles act on the current key. */
export function bindKinds<S extends StateSpec>(
  task: TaskState,
  uid: string,
  spec: S | undefined,
  clock: ExpiryClock = NO_CLOCK,
  eventClock?: EventClock,
): BoundKinds<S> {
  const current = new Current();
  const processing = processingClock(clock);
  const handles: Record<string, unknown> = {};
  const expiring: Expiring[] = [];
  const tables: SingleTable[] = [];
  for (const [name, kind] of Object.entries(spec ?? {})) {
    const declared = declaredOf(kind);
    if (declared === undefined || declared.kind === 'splitList' || declared.kind === 'unionList' || declared.kind === 'broadcastMap') {
      throw new StateError('STATE_MISUSED', `State ${name} of ${uid} is no keyed state.`, {
        todo: 'Declare it with value, list, map, reducing or aggregating.',
      });
    }
    if (declared.options.ttl === undefined) {
      const handle = bind(task, uid, name, declared, current);
      handles[name] = handle;
      if (handle instanceof CurrentRow) tables.push(handle.table);
    } else {
      const by = declared.options.ttlClock === 'event' ? eventClock : processing;
      if (by === undefined) throw noClock();
      const handle = bindExpiring(task, uid, name, declared, current, by);
      handles[name] = handle;
      expiring.push(handle.expiring);
    }
  }
  return {
    handles: Object.freeze(handles) as Handles<S>,
    current,
    setCurrent(key, hash) {
      current.key = key;
      current.hash = hash;
      current.serial++;
      current.present = true;
    },
    clearCurrent() {
      current.present = false;
    },
    ahead(hashes, from, to) {
      for (const table of tables) table.ahead(hashes, from, to);
    },
    get nextExpiry() {
      let next = Number.POSITIVE_INFINITY;
      for (const each of expiring) {
        if (each.adopting) return 0;
        if (!each.event && each.next < next) next = each.next;
      }
      return next;
    },
    expire(now, deadline) {
      for (const each of expiring) {
        let outcome: 'done' | 'more' | Promise<void> = each.adopt(deadline);
        if (outcome === 'done' && !each.event) outcome = each.fire(now, deadline);
        if (outcome !== 'done') return outcome;
      }
      return 'done';
    },
    expireEvent(deadline) {
      const now = eventClock?.now() ?? Number.NEGATIVE_INFINITY;
      for (const each of expiring) {
        const outcome = each.event && each.next <= now ? each.fire(now, deadline) : 'done';
        if (outcome !== 'done') return outcome;
      }
      return 'done';
    },
  };
}

function bind(task: TaskState, uid: string, name: string, declared: KeyedDeclared, current: Current): unknown {
  const { options } = declared;
  switch (declared.kind) {
    case 'value':
      return new BoundValue(task.single(uid, name, stored(uid, name, options, false, ONE)), current, declared);
    case 'list':
      return new BoundList(task.ordered(uid, name, stored(uid, name, options, false, CHUNKS)), current);
    case 'map':
      return new BoundMap(task.keyed(uid, name, stored(uid, name, options, false, ONE)), current);
    case 'reducing':
      return new BoundReducing(task.single(uid, name, stored(uid, name, options, false, ONE)), current, declared.fn);
    case 'aggregating':
      return new BoundAggregating(task.single(uid, name, stored(uid, name, options, false, ONE)), current, declared.fn);
  }
}

function bindExpiring(task: TaskState, uid: string, name: string, declared: KeyedDeclared, current: Current, clock: TtlClock) {
  const { options } = declared;
  const adopted: Adopted[] = [];
  const parts: ExpiringParts = {
    current,
    clock,
    adopted,
    ttl: options.ttl!,
    renews: options.ttlOn === 'read',
    timers: task.timers(uid, `.expiry.${name}`),
    armed: task.single(uid, `.armed.${name}`, {
      version: 2 * Math.ceil(options.ttl!) + (clock.event ? 1 : 0),
      migrate(at, _, key, hash) {
        adopted.push({ key, hash, anew: false });
        return at;
      },
      unsettled: () => adopted.length > 0,
    }),
  };
  switch (declared.kind) {
    case 'value':
      return new ExpiringValue(task.single(uid, name, stored(uid, name, options, parts, ONE)), parts, declared);
    case 'list':
      return new ExpiringList(task.ordered(uid, name, stored(uid, name, options, parts, CHUNKS)), parts);
    case 'map':
      return new ExpiringMap(task.keyed(uid, name, stored(uid, name, options, parts, ONE)), parts);
    case 'reducing':
      return new ExpiringReducing(task.single(uid, name, stored(uid, name, options, parts, ONE)), parts, declared.fn);
    case 'aggregating':
      return new ExpiringAggregating(task.single(uid, name, stored(uid, name, options, parts, ONE)), parts, declared.fn);
  }
}

// ── what is stored, and of which version it is ──

/** How values lie in a row, with and without the time at which they were written. */
interface RowShape {
  readonly plain: { values(row: unknown): unknown[]; row(values: unknown[]): unknown };
  readonly timed: { values(row: unknown): unknown[]; times(row: unknown): number[]; row(values: unknown[], times: number[]): unknown };
  /** Whether all of a row has expired, so that a base need not have it. */
  gone(ttl: number, clock: TtlClock): (row: unknown) => boolean;
}
const ONE: RowShape = {
  plain: { values: (row) => [row], row: ([value]) => value },
  timed: { values: (row) => [(row as [number, unknown])[1]], times: (row) => [(row as [number, unknown])[0]], row: ([value], [time]) => [time, value] },
  gone: (ttl, clock) => (row) => isExpired((row as [number, unknown])[0], ttl, clock.now()),
};
/** With times, an element is two places of its chunk: when, what. */
const CHUNKS: RowShape = {
  plain: { values: (row) => row as unknown[], row: (values) => values },
  timed: {
    values: (row) => (row as unknown[]).filter((_, i) => i % 2 === 1),
    times: (row) => (row as number[]).filter((_, i) => i % 2 === 0),
    row: (values, times) => values.flatMap((value, i) => [times[i], value]),
  },
  gone: (ttl, clock) => (row) => (row as unknown[]).every((at, i) => i % 2 === 1 || isExpired(at as number, ttl, clock.now())),
};

/** `expiring`: the clock where rows are to say when they were written. */
function stored(
  uid: string,
  name: string,
  options: StateOptions<unknown>,
  expiring: Pick<ExpiringParts, 'clock' | 'adopted'> | false,
  shape: RowShape,
): TableOptions {
  const version = options.version ?? 0;
  const times = expiring === false ? 0 : expiring.clock.event ? 2 : 1;
  return {
    version: version + times * EXPIRING,
    ...(expiring === false ? {} : { gone: shape.gone(options.ttl!, expiring.clock) }),
    migrate(row, from, key, hash) {
      const had = Math.floor(from / EXPIRING);
      const timed = had > 0;
      const was = from % EXPIRING;
      refuseVersion(`${uid}/${name}`, was, version, options.migrate !== undefined);
      const old = timed ? shape.timed.values(row) : shape.plain.values(row);
      const values = was === version ? old : old.map((value) => options.migrate!(value, was));
      if (expiring === false) return shape.plain.row(values);
      if (had === times) return shape.timed.row(values, shape.timed.times(row));
      const { adopted, clock } = expiring;
      const last = adopted.at(-1);
      if (last?.key !== key || !last.anew) adopted.push({ key, hash, anew: true });
      const now = clock.now();
      return shape.timed.row(
        values,
        values.map(() => now),
      );
    },
  };
}

// ── handles ──

class BoundValue extends CurrentRow implements ValueState<unknown> {
  private readonly hasDefault: boolean;
  private readonly initial: unknown;

  constructor(table: SingleTable, current: Current, declared: { readonly default: unknown; readonly hasDefault: boolean }) {
    super(table, current);
    this.hasDefault = declared.hasDefault;
    this.initial = declared.default;
  }

  get(): unknown {
    const row = this.row();
    if (row === undefined) return this.hasDefault ? copy(this.initial) : undefined;
    const { value } = row;
    if (isShared(value)) this.table.touch(row);
    return row.value;
  }

  set(value: unknown): void {
    this.write(value);
  }

  update(fn: (current: unknown) => unknown): void {
    this.write(fn(this.get()));
  }
}

class BoundReducing extends CurrentRow implements AccumulatorState<unknown, unknown> {
  private readonly fn: (left: unknown, right: unknown) => unknown;
  /** Whether the function returns its left argument, changed; undefined before it was called with values that can be. */
  private mutates: boolean | undefined = undefined;

  constructor(table: SingleTable, current: Current, fn: (left: unknown, right: unknown) => unknown) {
    super(table, current);
    this.fn = fn;
  }

  add(value: unknown): void {
    const row = this.row();
    if (row === undefined) {
      // The record's own value must not be changed by the next `add`.
      this.write(this.mutates === false ? value : copy(value));
      return;
    }
    if (isShared(row.value)) this.table.touch(row);
    const left = row.value;
    const next = this.fn(left, value);
    if (isShared(left) && this.mutates !== true) this.mutates = next === left;
    // A reducer that changes its left argument would change the record that it gave back here.
    this.table.put(row, next === value && this.mutates === true ? copy(next) : next);
  }

  get(): unknown {
    const row = this.row();
    if (row === undefined) return undefined;
    return this.mutates === false ? row.value : copy(row.value);
  }
}

class BoundAggregating extends CurrentRow implements AccumulatorState<unknown, unknown> {
  private readonly fn: Aggregating<unknown, unknown, unknown>;

  constructor(table: SingleTable, current: Current, fn: Aggregating<unknown, unknown, unknown>) {
    super(table, current);
    this.fn = fn;
  }

  add(value: unknown): void {
    const row = this.row();
    if (row === undefined) {
      this.write(this.fn.add(this.fn.create(), value));
      return;
    }
    if (isShared(row.value)) this.table.touch(row);
    this.table.put(row, this.fn.add(row.value, value));
  }

  get(): unknown {
    const row = this.row();
    if (row === undefined) return undefined;
    if (isShared(row.value)) this.table.touch(row);
    const accumulator = row.value;
    const result = this.fn.result(accumulator);
    return result === accumulator ? copy(result) : result;
  }
}

class BoundList extends CurrentGroup implements ListState<unknown> {
  add(value: unknown): void {
    const group = this.group();
    const last = group?.rows[group.rows.length - 1];
    if (last === undefined) {
      this.insert(0, [value]);
      return;
    }
    const chunk = last.value as unknown[];
    if (chunk.length >= CHUNK) {
      this.insert((last.ns as number) + 1, [value]);
      return;
    }
    this.table.touch(last);
    (last.value as unknown[]).push(value);
    this.table.put(last, last.value);
  }

  all(): unknown[] {
    const out: unknown[] = [];
    const group = this.group();
    if (group === undefined) return out;
    for (const row of group.rows) {
      const chunk = row.value as unknown[];
      let shared = false;
      for (let i = 0; i < chunk.length && !shared; i++) shared = isShared(chunk[i]);
      if (shared) this.table.touch(row);
      const items = row.value as unknown[];
      for (let i = 0; i < items.length; i++) out.push(items[i]);
    }
    return out;
  }

  set(values: Iterable<unknown>): void {
    const all = [...values];
    this.clear();
    for (let i = 0; i < all.length; i += CHUNK) this.insert(i / CHUNK, all.slice(i, i + CHUNK));
  }

  [Symbol.iterator](): Iterator<unknown> {
    return this.all()[Symbol.iterator]();
  }
}

class BoundMap extends CurrentGroup implements MapState<Key, unknown> {
  private entry(key: Key): Row | undefined {
    const group = this.group();
    return group === undefined ? undefined : this.table.row(group, key);
  }

  get(key: Key): unknown {
    const row = this.entry(canonicalKey(key));
    if (row === undefined) return undefined;
    if (isShared(row.value)) this.table.touch(row);
    return row.value;
  }

  set(key: Key, value: unknown): void {
    const ns = canonicalKey(key);
    const row = this.entry(ns);
    if (row === undefined) this.insert(ns, value);
    else this.table.put(row, value);
  }

  has(key: Key): boolean {
    return this.entry(canonicalKey(key)) !== undefined;
  }

  delete(key: Key): void {
    const row = this.entry(canonicalKey(key));
    if (row !== undefined) this.table.deleteRow(this.group()!, row);
  }

  private rows(): Row[] {
    return [...(this.group()?.rows ?? [])];
  }

  private pairs(): [Key, unknown][] {
    return this.rows().map((row) => {
      if (isShared(row.value)) this.table.touch(row);
      return [row.ns as Key, row.value];
    });
  }

  entries(): IterableIterator<[Key, unknown]> {
    return this.pairs().values();
  }

  keys(): IterableIterator<Key> {
    return this.rows()
      .map((row) => row.ns as Key)
      .values();
  }

  values(): IterableIterator<unknown> {
    return this.pairs()
      .map((pair) => pair[1])
      .values();
  }

  [Symbol.iterator](): IterableIterator<[Key, unknown]> {
    return this.entries();
  }

  get size(): number {
    return this.group()?.rows.length ?? 0;
  }
}
