// Handles of state that a key has many of, one for each of its windows: they act on the current key and number.
//
// Who owns what: `bindWindowKinds` declares the tables and makes the handles; the engine says which key and number are current, and when the state of one
// is over, or that of several becomes one.
//
// Layout: value, reducing, aggregating are one row a key and number; a list is chunks (chunked-lists.ts); a map is one row an entry.
//
// Invariants: H1 to H4 of kinds-keyed.ts.

import { ChunkedLists } from './chunked-lists.ts';
import { copy } from './codec.ts';
import type { GroupedTable, Key, Row, TableOptions, TaskState } from './contract.ts';
import { canonicalKey } from './keys.ts';
import {
  type AccumulatorState,
  type Aggregating,
  declaredOf,
  type Handles,
  type KeyedDeclared,
  type ListState,
  type MapState,
  type StateSpec,
  type ValueState,
} from './kinds.ts';
import { Current, isShared } from './kinds-current.ts';
import { StateError } from './state-error.ts';

class CurrentOfWindow extends Current {
  ns = 0;
}

/** What the state of a window can do besides what its handle does. */
interface OfWindow {
  /** Removes it for that number of the current key. */
  drop(ns: number): void;
  /** Takes what number `from` has into number `into`, as what came later. */
  merge(into: number, from: number): void;
}

export interface BoundWindowKinds {
  readonly handles: Handles<StateSpec>;
  /** The key is canonical, the hash is its hash. */
  setCurrent(key: Key, hash: number, ns: number): void;
  /** Called when control is given back. */
  clearCurrent(): void;
  /** The state of that key and number is over. */
  drop(key: Key, hash: number, ns: number): void;
  /** The state of the numbers `from`, in this order behind that of `into`, becomes its own. */
  merge(key: Key, hash: number, into: number, from: readonly number[]): void;
}

/** `prefix` keeps the names of the tables apart from those of other state of the operator. */
export function bindWindowKinds(task: TaskState, uid: string, prefix: string, spec: StateSpec | undefined): BoundWindowKinds {
  const current = new CurrentOfWindow();
  const handles: Record<string, unknown> = {};
  const all: OfWindow[] = [];
  for (const [name, kind] of Object.entries(spec ?? {})) {
    const declared = declaredOf(kind);
    if (declared === undefined || kind.scope !== 'keyed')
      throw new StateError('STATE_MISUSED', `State ${name} of ${uid} is no keyed state.`, {
        todo: 'Declare it with value, list, map, reducing or aggregating.',
      });
    if (declared.options.ttl !== undefined)
      throw new StateError('STATE_MISUSED', `State ${name} of ${uid} has a ttl, and lives as long as its window.`, { todo: 'Take the ttl away.' });
    const bound = bind(task, uid, `${prefix}${name}`, declared as KeyedDeclared, current);
    handles[name] = bound;
    all.push(bound);
  }
  const set = (key: Key, hash: number, ns: number): void => {
    current.key = key;
    current.hash = hash;
    current.ns = ns;
    current.serial++;
    current.present = true;
  };
  return {
    handles: Object.freeze(handles) as Handles<StateSpec>,
    setCurrent: set,
    clearCurrent() {
      current.present = false;
    },
    drop(key, hash, ns) {
      if (all.length === 0) return;
      set(key, hash, ns);
      for (const each of all) each.drop(ns);
      current.present = false;
    },
    merge(key, hash, into, from) {
      if (all.length === 0) return;
      set(key, hash, into);
      for (const each of all) {
        for (const ns of from) {
          each.merge(into, ns);
          each.drop(ns);
        }
      }
      current.present = false;
    },
  };
}

function bind(task: TaskState, uid: string, name: string, declared: KeyedDeclared, current: CurrentOfWindow): OfWindow {
  const { version, migrate } = declared.options;
  const options: TableOptions = { ...(version === undefined ? {} : { version }), ...(migrate === undefined ? {} : { migrate }) };
  switch (declared.kind) {
    case 'value':
      return new WindowValue(task.ordered(uid, name, options), current, declared);
    case 'list':
      return new WindowList(new ChunkedLists(task, uid, name, 1, options), current);
    case 'map':
      return new WindowMap(task.keyed(uid, name, options), current);
    case 'reducing':
      return new WindowReducing(task.ordered(uid, name, options), current, declared.fn);
    case 'aggregating':
      return new WindowAggregating(task.ordered(uid, name, options), current, declared.fn);
  }
}

/** One row a key and number. */
class RowOfWindow implements OfWindow {
  protected readonly table: GroupedTable;
  protected readonly current: CurrentOfWindow;

  constructor(table: GroupedTable, current: CurrentOfWindow) {
    this.table = table;
    this.current = current;
  }

  protected row(ns: number = this.current.ns): Row | undefined {
    const { current, table } = this;
    if (!current.present) current.demand();
    const group = table.find(current.key, current.hash);
    return group === undefined ? undefined : table.row(group, ns);
  }

  protected write(value: unknown): void {
    const row = this.row();
    const { current, table } = this;
    if (row !== undefined) table.put(row, value);
    else table.insertRow(table.find(current.key, current.hash) ?? table.insert(current.key, current.hash), current.ns, value);
  }

  clear(): void {
    this.drop(this.current.ns);
  }

  drop(ns: number): void {
    const row = this.row(ns);
    if (row !== undefined) this.table.deleteRow(this.table.find(this.current.key, this.current.hash)!, row);
  }

  merge(_into: number, from: number): void {
    const other = this.row(from);
    if (other === undefined) return;
    const mine = this.row();
    if (mine === undefined) {
      this.write(other.value);
      return;
    }
    const merged = this.merged(mine, other);
    if (merged !== mine.value) this.table.put(mine, merged);
  }

  /** Of two that are there. The earlier value stays. */
  protected merged(mine: Row, _other: Row): unknown {
    return mine.value;
  }
}

class WindowValue extends RowOfWindow implements ValueState<unknown> {
  readonly #hasDefault: boolean;
  readonly #initial: unknown;

  constructor(table: GroupedTable, current: CurrentOfWindow, declared: { readonly default: unknown; readonly hasDefault: boolean }) {
    super(table, current);
    this.#hasDefault = declared.hasDefault;
    this.#initial = declared.default;
  }

  get(): unknown {
    const row = this.row();
    if (row === undefined) return this.#hasDefault ? copy(this.#initial) : undefined;
    if (isShared(row.value)) this.table.touch(row);
    return row.value;
  }
  set(value: unknown): void {
    this.write(value);
  }
  update(fn: (current: unknown) => unknown): void {
    this.write(fn(this.get()));
  }
}

class WindowReducing extends RowOfWindow implements AccumulatorState<unknown, unknown> {
  readonly #fn: (left: unknown, right: unknown) => unknown;

  constructor(table: GroupedTable, current: CurrentOfWindow, fn: (left: unknown, right: unknown) => unknown) {
    super(table, current);
    this.#fn = fn;
  }

  add(value: unknown): void {
    const row = this.row();
    // Of a value that a reducer may change, or gives back as it is, the state keeps a copy: the record may be on its way elsewhere.
    if (row === undefined) {
      this.write(copy(value));
      return;
    }
    if (isShared(row.value)) this.table.touch(row);
    const next = this.#fn(row.value, value);
    this.table.put(row, next === value ? copy(next) : next);
  }
  get(): unknown {
    const row = this.row();
    return row === undefined ? undefined : copy(row.value);
  }
  protected override merged(mine: Row, other: Row): unknown {
    if (isShared(mine.value)) this.table.touch(mine);
    if (isShared(other.value)) this.table.touch(other);
    return this.#fn(mine.value, other.value);
  }
}

class WindowAggregating extends RowOfWindow implements AccumulatorState<unknown, unknown> {
  readonly #fn: Aggregating<unknown, unknown, unknown>;

  constructor(table: GroupedTable, current: CurrentOfWindow, fn: Aggregating<unknown, unknown, unknown>) {
    super(table, current);
    this.#fn = fn;
  }

  add(value: unknown): void {
    const row = this.row();
    if (row === undefined) {
      this.write(this.#fn.add(this.#fn.create(), value));
      return;
    }
    if (isShared(row.value)) this.table.touch(row);
    this.table.put(row, this.#fn.add(row.value, value));
  }
  get(): unknown {
    const row = this.row();
    if (row === undefined) return undefined;
    if (isShared(row.value)) this.table.touch(row);
    const result = this.#fn.result(row.value);
    return result === row.value ? copy(result) : result;
  }
  protected override merged(mine: Row, other: Row): unknown {
    if (isShared(mine.value)) this.table.touch(mine);
    if (isShared(other.value)) this.table.touch(other);
    return this.#fn.merge!(mine.value, other.value);
  }
}

class WindowList implements ListState<unknown>, OfWindow {
  readonly #lists: ChunkedLists;
  readonly #current: CurrentOfWindow;

  constructor(lists: ChunkedLists, current: CurrentOfWindow) {
    this.#lists = lists;
    this.#current = current;
  }

  #present(): CurrentOfWindow {
    const current = this.#current;
    if (!current.present) current.demand();
    return current;
  }

  add(value: unknown): void {
    const { key, hash, ns } = this.#present();
    this.#lists.add(key, hash, ns, value);
  }
  all(): unknown[] {
    const { key, hash, ns } = this.#present();
    return this.#lists.all(key, hash, ns) ?? [];
  }
  set(values: Iterable<unknown>): void {
    const { key, hash, ns } = this.#present();
    this.#lists.set(key, hash, ns, [...values]);
  }
  clear(): void {
    this.drop(this.#present().ns);
  }
  [Symbol.iterator](): Iterator<unknown> {
    return this.all()[Symbol.iterator]();
  }
  drop(ns: number): void {
    const { key, hash } = this.#present();
    this.#lists.clear(key, hash, ns);
  }
  merge(into: number, from: number): void {
    const { key, hash } = this.#present();
    const more = this.#lists.all(key, hash, from);
    if (more !== undefined) this.#lists.set(key, hash, into, [...(this.#lists.all(key, hash, into) ?? []), ...more]);
  }
}

/** An entry's namespace is [number, key of the entry]. */
class WindowMap implements MapState<Key, unknown>, OfWindow {
  readonly #table: GroupedTable;
  readonly #current: CurrentOfWindow;

  constructor(table: GroupedTable, current: CurrentOfWindow) {
    this.#table = table;
    this.#current = current;
  }

  #group() {
    const current = this.#current;
    if (!current.present) current.demand();
    return this.#table.find(current.key, current.hash);
  }
  #entry(key: Key, ns = this.#current.ns): Row | undefined {
    const group = this.#group();
    return group === undefined ? undefined : this.#table.row(group, [ns, key]);
  }
  #rows(ns = this.#current.ns): Row[] {
    return (this.#group()?.rows ?? []).filter((row) => (row.ns as readonly unknown[])[0] === ns);
  }
  #pairs(ns = this.#current.ns): [Key, unknown][] {
    return this.#rows(ns).map((row) => {
      if (isShared(row.value)) this.#table.touch(row);
      return [(row.ns as readonly Key[])[1]!, row.value];
    });
  }

  get(key: Key): unknown {
    const row = this.#entry(canonicalKey(key));
    if (row === undefined) return undefined;
    if (isShared(row.value)) this.#table.touch(row);
    return row.value;
  }
  set(key: Key, value: unknown): void {
    const name = canonicalKey(key);
    const row = this.#entry(name);
    const { key: of, hash, ns } = this.#current;
    if (row !== undefined) this.#table.put(row, value);
    else this.#table.insertRow(this.#group() ?? this.#table.insert(of, hash), [ns, name], value);
  }
  has(key: Key): boolean {
    return this.#entry(canonicalKey(key)) !== undefined;
  }
  delete(key: Key): void {
    const row = this.#entry(canonicalKey(key));
    if (row !== undefined) this.#table.deleteRow(this.#group()!, row);
  }
  entries(): IterableIterator<[Key, unknown]> {
    return this.#pairs().values();
  }
  keys(): IterableIterator<Key> {
    return this.#rows()
      .map((row) => (row.ns as readonly Key[])[1]!)
      .values();
  }
  values(): IterableIterator<unknown> {
    return this.#pairs()
      .map((pair) => pair[1])
      .values();
  }
  [Symbol.iterator](): IterableIterator<[Key, unknown]> {
    return this.entries();
  }
  get size(): number {
    return this.#rows().length;
  }
  clear(): void {
    this.drop(this.#current.ns);
  }
  drop(ns: number): void {
    const rows = this.#rows(ns);
    for (const row of rows.reverse()) this.#table.deleteRow(this.#group()!, row);
  }
  merge(_into: number, from: number): void {
    for (const [key, value] of this.#pairs(from)) if (!this.has(key)) this.set(key, value);
  }
}
