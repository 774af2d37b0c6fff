// Handles of operator state: lists and broadcast maps of an instance, without a key.
//
// Who owns what: all of it is in memory here. At a barrier `snapshot` gives its items, encoded, to the engine, which deals them out anew after a restore
// (semantics 11) and gives each instance its share when it binds. The engine says when handlers run, which side of a broadcast it is, and when units begin.
//
// An item of a snapshot is the encoding of [kind, version, written, value], with the key of a map's entry behind it.
//
// Invariants:
//  O1  An item's bytes are made once, and again only after its value was changed or handed out: a barrier costs what has changed.
//  O2  What `snapshot` gave is never changed: it is bytes.
//  O3  Within a unit every change, and every value that is handed out, can be taken back, in reverse.
//  O4  Outside of handlers handles throw CONTEXT_USED_OUTSIDE_RECORD. What reads a broadcast map cannot change it: STATE_MISUSED.
//  O5  With a ttl an item is given back while now < written + ttl, and never after; by processing time or event time (expiry-clock.ts).

import { decode, encode } from './codec.ts';
import type { Key } from './contract.ts';
import { BEFORE_TIME, type EventClock, type ExpiryClock, isExpired, processingClock, type TtlClock } from './expiry-clock.ts';
import { ExpiryHeap } from './expiry-heap.ts';
import { mapKey } from './grouped-table.ts';
import { canonicalKey } from './keys.ts';
import { type AnyKind, type BroadcastMap, type Declared, declaredOf, type ListState, type ReadonlyBroadcastMap, type StateOptions } from './kinds.ts';
import { isShared } from './kinds-current.ts';
import { StateError } from './state-error.ts';
import { refuseVersion } from './versions.ts';

/** What of a state is in a snapshot, and who gets it. */
export interface OperatorPart {
  readonly mode: 'split' | 'union' | 'broadcast';
  readonly items: readonly Uint8Array[];
}

export interface BoundOperatorKinds {
  /** For who may change all of it: an unkeyed process. */
  readonly handles: Readonly<Record<string, unknown>>;
  /** For the side that only reads broadcast maps. */
  readonly reading: Readonly<Record<string, unknown>>;
  /** For the broadcast side: only broadcast maps are in it. */
  readonly broadcast: Readonly<Record<string, unknown>>;
  /** Handlers run, or do not. */
  open: boolean;
  snapshot(): Record<string, OperatorPart>;
  /** A unit begins; `rollback` takes back what it did. */
  mark(): void;
  rollback(): void;
  /** By processing time. */
  readonly nextExpiry: number;
  expire(now: number): void;
  /** By event time, once its clock has been moved. */
  expireEvent(): void;
}

type OperatorDeclared = Extract<Declared, { readonly kind: 'splitList' | 'unionList' | 'broadcastMap' }>;
const MODES = { splitList: 'split', unionList: 'union', broadcastMap: 'broadcast' } as const;

/** `written` of what has no ttl. */
const NEVER = -1;

class Cell {
  value: unknown;
  written: number;
  readonly key: Key;
  /** Of this value; undefined where it may have changed since. */
  bytes: Uint8Array | undefined = undefined;
  /** The unit that can take it back to what it was. */
  unit = 0;
  gone = false;

  constructor(value: unknown, written: number, key: Key) {
    this.value = value;
    this.written = written;
    this.key = key;
  }
}

/** What all states of an operator share. */
class Journal {
  open = false;
  /** Undefined before the first unit: then nothing is ever taken back. */
  steps: (() => void)[] | undefined = undefined;
  unit = 0;
  readonly uid: string;

  constructor(uid: string) {
    this.uid = uid;
  }

  demand(): void {
    if (this.open) return;
    throw new StateError('CONTEXT_USED_OUTSIDE_RECORD', `The state of '${this.uid}' was used while none of its handlers ran.`, {
      todo: 'Use state only within a handler, and do not keep `ctx` or `ctx.state` for later.',
    });
  }

  mark(): void {
    this.unit++;
    if (this.steps === undefined) this.steps = [];
    else this.steps.length = 0;
  }

  rollback(): void {
    const { steps } = this;
    if (steps === undefined) return;
    this.steps = [];
    for (let i = steps.length - 1; i >= 0; i--) steps[i]!();
    this.steps.length = 0;
  }
}

/** Cells of one declared state. */
abstract class Cells {
  protected readonly journal: Journal;
  protected readonly clock: TtlClock;
  protected readonly ttl: number;
  private readonly renews: boolean;
  private readonly heap: ExpiryHeap<Cell> | undefined;
  private readonly name: string;
  private readonly declared: OperatorDeclared;

  constructor(journal: Journal, clock: TtlClock, name: string, declared: OperatorDeclared) {
    this.journal = journal;
    this.clock = clock;
    this.name = name;
    this.declared = declared;
    const { ttl, ttlOn } = declared.options;
    this.ttl = ttl ?? Number.POSITIVE_INFINITY;
    this.renews = ttlOn === 'read';
    this.heap = ttl === undefined ? undefined : new ExpiryHeap();
  }

  protected abstract held(): Iterable<Cell>;
  /** Takes out what is `gone`. */
  protected abstract sweep(): void;

  /** From when on what is written now is counted, and never from before `since`. */
  protected stamp(since = Number.NEGATIVE_INFINITY): number {
    return this.heap === undefined ? NEVER : Math.max(since, this.clock.stamp());
  }

  get event(): boolean {
    return this.clock.event;
  }

  /** A new cell, to be put in. */
  protected make(value: unknown, key: Key): Cell {
    const cell = new Cell(value, this.stamp(), key);
    cell.unit = this.journal.unit;
    if (this.heap !== undefined) {
      const { next } = this.heap;
      this.heap.add(cell.written + this.ttl, cell);
      if (this.heap.next < next) this.clock.changed();
    }
    return cell;
  }

  protected isLive(cell: Cell): boolean {
    return this.heap === undefined || !isExpired(cell.written, this.ttl, this.clock.now());
  }

  /** What it has now can be taken back to. */
  protected keep(cell: Cell): void {
    const { journal } = this;
    if (journal.steps === undefined || cell.unit === journal.unit) return;
    cell.unit = journal.unit;
    const { value, written } = cell;
    if (isShared(value)) {
      const bytes = this.bytesOf(cell);
      journal.steps.push(() => {
        cell.value = valueIn(bytes);
        cell.written = written;
        cell.bytes = bytes;
      });
    } else {
      journal.steps.push(() => {
        cell.value = value;
        cell.written = written;
        cell.bytes = undefined;
      });
    }
  }

  /** The value, to be handed to somebody who may change it. */
  protected given(cell: Cell): unknown {
    if (!this.renews && !isShared(cell.value)) return cell.value;
    this.keep(cell);
    cell.bytes = undefined;
    if (this.renews) cell.written = this.stamp(cell.written);
    return cell.value;
  }

  /** The value, to be handed to somebody who only reads. */
  protected shown(cell: Cell): unknown {
    return this.renews ? this.given(cell) : cell.value;
  }

  // ── snapshots ──

  part(): OperatorPart {
    const items: Uint8Array[] = [];
    for (const cell of this.held()) if (this.isLive(cell)) items.push(this.bytesOf(cell));
    return { mode: MODES[this.declared.kind], items };
  }

  private bytesOf(cell: Cell): Uint8Array {
    if (cell.bytes === undefined) {
      const { kind, options } = this.declared;
      try {
        cell.bytes = encode([kind, options.version ?? 0, cell.written, cell.value, cell.key]);
      } catch (error) {
        if (!(error instanceof StateError)) throw error;
        throw new StateError(error.code, `State ${this.name} of ${this.journal.uid}: ${error.message}`, { cause: error });
      }
    }
    return cell.bytes;
  }

  /** A cell of an item of a snapshot. */
  protected restored(item: Uint8Array): Cell {
    const { kind, options } = this.declared;
    const [was, from, written, value, key] = decode(item) as [string, number, number, unknown, Key];
    const name = `${this.journal.uid}/${this.name}`;
    if (was !== kind)
      throw new StateError('SNAPSHOT_INCOMPATIBLE', `State ${name} was stored as ${was} and is declared as ${kind}.`, {
        todo: 'Give the new kind of state another name.',
      });
    // What had no ttl when it was stored begins its time now.
    const cell = new Cell(migrated(value, from, options, name), this.heap === undefined ? NEVER : written === NEVER ? this.clock.now() : written, key);
    this.heap?.add(cell.written + this.ttl, cell);
    return cell;
  }

  // ── expiry ──

  get next(): number {
    return this.heap === undefined ? Number.POSITIVE_INFINITY : this.heap.next;
  }

  expire(now: number): void {
    const { heap } = this;
    if (heap === undefined) return;
    let any = false;
    while (heap.next <= now) {
      const cell = heap.take();
      if (cell.gone) continue;
      if (cell.written === BEFORE_TIME && now !== BEFORE_TIME) {
        cell.written = now;
        cell.bytes = undefined;
      }
      const at = cell.written + this.ttl;
      if (at > now) heap.add(at, cell);
      else {
        cell.gone = true;
        any = true;
      }
    }
    if (any) this.sweep();
  }
}

function valueIn(bytes: Uint8Array): unknown {
  return (decode(bytes) as unknown[])[3];
}

function migrated(value: unknown, from: number, options: StateOptions<unknown>, name: string): unknown {
  const version = options.version ?? 0;
  if (from === version) return value;
  refuseVersion(name, from, version, options.migrate !== undefined);
  return options.migrate!(value, from);
}

class OperatorList extends Cells implements ListState<unknown> {
  private cells: Cell[] = [];

  restore(items: readonly Uint8Array[]): void {
    this.cells = items.map((item) => this.restored(item));
  }

  protected override held(): Iterable<Cell> {
    return this.cells;
  }

  protected override sweep(): void {
    this.cells = this.cells.filter((cell) => !cell.gone);
  }

  add(value: unknown): void {
    this.journal.demand();
    const { cells } = this;
    cells.push(this.make(value, 0));
    this.journal.steps?.push(() => {
      cells.pop()!.gone = true;
    });
  }

  all(): unknown[] {
    this.journal.demand();
    const out: unknown[] = [];
    for (const cell of this.cells) if (this.isLive(cell)) out.push(this.given(cell));
    return out;
  }

  set(values: Iterable<unknown>): void {
    this.journal.demand();
    const all = [...values];
    this.clear();
    for (const value of all) this.add(value);
  }

  clear(): void {
    this.journal.demand();
    const { cells } = this;
    for (const cell of cells) cell.gone = true;
    this.cells = [];
    this.journal.steps?.push(() => {
      this.cells = cells;
      for (const cell of cells) cell.gone = false;
    });
  }

  [Symbol.iterator](): Iterator<unknown> {
    return this.all()[Symbol.iterator]();
  }
}

class OperatorMap extends Cells implements BroadcastMap<Key, unknown> {
  /** By `mapKey`, under which keys are equal exactly where their canonical bytes are. */
  private readonly cells = new Map<unknown, Cell>();

  restore(items: readonly Uint8Array[]): void {
    for (const item of items) {
      const cell = this.restored(item);
      this.cells.set(mapKey(cell.key), cell);
    }
  }

  protected override held(): Iterable<Cell> {
    return this.cells.values();
  }

  protected override sweep(): void {
    for (const [key, cell] of this.cells) if (cell.gone) this.cells.delete(key);
  }

  private live(key: Key): Cell | undefined {
    this.journal.demand();
    const cell = this.cells.get(mapKey(canonicalKey(key)));
    return cell !== undefined && this.isLive(cell) ? cell : undefined;
  }

  get(key: Key): unknown {
    const cell = this.live(key);
    return cell === undefined ? undefined : this.given(cell);
  }

  peek(key: Key): unknown {
    const cell = this.live(key);
    return cell === undefined ? undefined : this.shown(cell);
  }

  set(key: Key, value: unknown): void {
    this.journal.demand();
    const canonical = canonicalKey(key);
    const place = mapKey(canonical);
    const cell = this.cells.get(place);
    if (cell === undefined) {
      const made = this.make(value, canonical);
      this.cells.set(place, made);
      this.journal.steps?.push(() => {
        made.gone = true;
        this.cells.delete(place);
      });
      return;
    }
    this.keep(cell);
    cell.value = value;
    cell.written = this.stamp(cell.written);
    cell.bytes = undefined;
  }

  has(key: Key): boolean {
    return this.live(key) !== undefined;
  }

  delete(key: Key): void {
    this.journal.demand();
    this.remove(mapKey(canonicalKey(key)));
  }

  private remove(place: unknown): void {
    const cell = this.cells.get(place);
    if (cell === undefined) return;
    cell.gone = true;
    this.cells.delete(place);
    this.journal.steps?.push(() => {
      cell.gone = false;
      this.cells.set(place, cell);
    });
  }

  clear(): void {
    this.journal.demand();
    for (const place of [...this.cells.keys()]) this.remove(place);
  }

  private lives(): Cell[] {
    this.journal.demand();
    const out: Cell[] = [];
    for (const cell of this.cells.values()) if (this.isLive(cell)) out.push(cell);
    return out;
  }

  /** Keys and values, handed out or only shown. */
  pairs(give: boolean): [Key, unknown][] {
    return this.lives().map((cell) => [cell.key, give ? this.given(cell) : this.shown(cell)]);
  }

  entries(): IterableIterator<[Key, unknown]> {
    return this.pairs(true).values();
  }

  keys(): IterableIterator<Key> {
    return this.lives()
      .map((cell) => cell.key)
      .values();
  }

  values(): IterableIterator<unknown> {
    return this.pairs(true)
      .map(([, value]) => value)
      .values();
  }

  [Symbol.iterator](): IterableIterator<[Key, unknown]> {
    return this.entries();
  }

  get size(): number {
    this.journal.demand();
    return this.next === Number.POSITIVE_INFINITY || this.next > this.clock.now() ? this.cells.size : this.lives().length;
  }

  /** As it is for the side that only reads (O4). */
  reading(name: string): ReadonlyBroadcastMap<Key, unknown> & Iterable<[Key, unknown]> {
    const map = this;
    const refuse = (): never => {
      throw new StateError('STATE_MISUSED', `State ${name} of ${map.journal.uid} is changed by the side that only reads it.`, {
        todo: 'Change a broadcast map in onRight only: every instance sees the same records there.',
      });
    };
    return {
      get: (key: Key) => map.peek(key),
      has: (key: Key) => map.has(key),
      entries: () => map.pairs(false).values(),
      keys: () => map.keys(),
      values: () =>
        map
          .pairs(false)
          .map(([, value]) => value)
          .values(),
      [Symbol.iterator]: () => map.pairs(false).values(),
      get size() {
        return map.size;
      },
      ...{ set: refuse, delete: refuse, clear: refuse },
    };
  }
}

/** Makes the handles of the state of an instance, with its share of what was restored. Keyed state of the spec is passed over. */
export function bindOperatorKinds(
  uid: string,
  spec: Readonly<Record<string, AnyKind>> | undefined,
  engine: { readonly clock: ExpiryClock; readonly eventClock: EventClock; readonly restored: (name: string) => readonly unknown[] | undefined },
): BoundOperatorKinds {
  const journal = new Journal(uid);
  const processing = processingClock(engine.clock);
  const states: [string, OperatorList | OperatorMap][] = [];
  const handles: Record<string, unknown> = {};
  const reading: Record<string, unknown> = {};
  const broadcast: Record<string, unknown> = {};
  for (const [name, kind] of Object.entries(spec ?? {})) {
    const declared = declaredOf(kind);
    if (declared?.kind !== 'splitList' && declared?.kind !== 'unionList' && declared?.kind !== 'broadcastMap') continue;
    const items = (engine.restored(name) ?? []) as readonly Uint8Array[];
    const clock = declared.options.ttlClock === 'event' ? engine.eventClock : processing;
    if (declared.kind === 'broadcastMap') {
      const map = new OperatorMap(journal, clock, name, declared);
      map.restore(items);
      states.push([name, map]);
      handles[name] = map;
      broadcast[name] = map;
      reading[name] = map.reading(name);
    } else {
      const list = new OperatorList(journal, clock, name, declared);
      list.restore(items);
      states.push([name, list]);
      handles[name] = list;
      reading[name] = list;
    }
  }
  return {
    handles: Object.freeze(handles),
    reading: Object.freeze(reading),
    broadcast: Object.freeze(broadcast),
    get open() {
      return journal.open;
    },
    set open(open: boolean) {
      journal.open = open;
    },
    snapshot: () => Object.fromEntries(states.map(([name, state]) => [name, state.part()])),
    mark: () => journal.mark(),
    rollback: () => journal.rollback(),
    get nextExpiry() {
      return states.reduce((next, [, state]) => (state.event ? next : Math.min(next, state.next)), Number.POSITIVE_INFINITY);
    },
    expire(now) {
      for (const [, state] of states) if (!state.event) state.expire(now);
    },
    expireEvent() {
      for (const [, state] of states) if (state.event) state.expire(engine.eventClock.now());
    },
  };
}
