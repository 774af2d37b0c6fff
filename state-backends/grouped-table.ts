// A table with rows by key and namespace. The rows of a key are one group; groups lie and are found as rows do in a single table.
//
// `ordered`: rows ascending by a number. `keyed`: rows by a Key, in the order in which they came (a deletion moves the last into the gap); beyond a
// few rows they are found by a Map whose keys are equal exactly where canonical keys are.

import { encodeInto } from './codec.ts';
import type { Group, GroupedTable, Key, Row } from './contract.ts';
import { HashIndex } from './hash-index.ts';
import { keyBytes, sameKey } from './keys.ts';
import { type Ledger, SLICE_ROWS, type ValueTable, writeRowFailed } from './ledger.ts';
import type { GroupedStore } from './residency.ts';
import { MemoryGroup, MemoryRow, REFERENCED } from './row.ts';
import { type BlockWriter, KEY_TOMBSTONE, type TableHeader, TOMBSTONE, VALUE, writeNamespace } from './row-file.ts';

const SMALL = 8;

/** A namespace as the key of a Map: equal for the Map exactly where the canonical keys are equal. */
export function mapKey(ns: unknown): unknown {
  return Array.isArray(ns) ? `\u0000[${keyBytes(ns as Key).toString('latin1')}` : typeof ns === 'string' && ns.startsWith('\u0000') ? `\u0000"${ns}` : ns;
}

export class MemoryGroupedTable implements GroupedTable, ValueTable {
  readonly number: number;
  readonly header: TableHeader;
  /** The dense array; a group without rows in it is a tombstone (level). */
  readonly groups: (MemoryGroup | undefined)[] = [];
  changed: MemoryRow[] = [];
  size = 0;
  store: GroupedStore | undefined = undefined;
  /** Set once, at declaration: see TableOptions. A base has a tombstone of the key in front, where an older version may stand. */
  gone: ((value: unknown) => boolean) | undefined = undefined;
  /** Found in memory; counted by level() only. */
  hits = 0;
  readonly ordered: boolean;
  private readonly ledger: Ledger;
  private readonly index = new HashIndex();
  private readonly holes: number[] = [];
  /** Inserted and without a row so far: not in the table yet. */
  private fresh: MemoryGroup | undefined = undefined;
  private frozen: MemoryRow[] = [];
  private cursor = 0;

  constructor(ledger: Ledger, number: number, header: TableHeader) {
    this.ledger = ledger;
    this.number = number;
    this.header = header;
    this.ordered = header.layout === 'ordered';
  }

  // ── groups ──

  find(key: Key, hash: number): MemoryGroup | undefined {
    const group = this.resident(key, hash);
    if (group !== undefined) {
      if (this.store !== undefined) {
        if (group.rows.length === 0) return undefined;
        group.flags |= REFERENCED;
        this.hits++;
      }
      return group;
    }
    const { fresh } = this;
    if (fresh !== undefined && fresh.at === -1 && sameKey(fresh.key, key)) return fresh;
    return this.store === undefined ? undefined : this.store.fetch(key, hash);
  }

  holds(group: Group): boolean {
    if ((group as MemoryGroup).at === -1) return false;
    if (this.store === undefined) return true;
    if (group.rows.length === 0) return false;
    (group as MemoryGroup).flags |= REFERENCED;
    this.hits++;
    return true;
  }

  /** The group or its tombstone; looked at, not used. */
  resident(key: Key, hash: number): MemoryGroup | undefined {
    const { groups, index } = this;
    for (let position = index.first(hash); position !== -1; position = index.next(hash)) {
      const group = groups[position]!;
      if (group.key === key || sameKey(group.key, key)) return group;
    }
    return undefined;
  }

  insert(key: Key, hash: number): MemoryGroup {
    const tombstone = this.store === undefined ? undefined : this.resident(key, hash);
    if (tombstone !== undefined) return tombstone;
    this.fresh = new MemoryGroup(key, hash);
    return this.fresh;
  }

  place(group: MemoryGroup): void {
    const at = this.holes.length > 0 ? this.holes.pop()! : this.groups.length;
    group.at = at;
    if (at === this.groups.length) this.groups.push(group);
    else this.groups[at] = group;
    this.index.add(group.hash, at);
    if (this.fresh === group) this.fresh = undefined;
  }

  displace(group: MemoryGroup): void {
    this.index.remove(group.hash, group.at);
    this.groups[group.at] = undefined;
    this.holes.push(group.at);
    group.at = -1;
  }

  // ── rows ──

  row(group: Group, ns: unknown): MemoryRow | undefined {
    const { rows, byNamespace } = group as MemoryGroup;
    if (this.ordered) {
      // Newest first, since that is what is asked for most; a search in halves where there are many.
      if (rows.length === 0) return undefined;
      const newest = rows[rows.length - 1]!;
      if (newest.ns === ns) return newest;
      if ((newest.ns as number) < (ns as number)) return undefined;
      if (rows.length <= SMALL) {
        for (let i = rows.length - 1; i >= 0; i--) {
          const row = rows[i]!;
          if (row.ns === ns) return row;
          if ((row.ns as number) < (ns as number)) return undefined;
        }
        return undefined;
      }
      const at = lowerBound(rows, ns as number);
      return at < rows.length && rows[at]!.ns === ns ? rows[at] : undefined;
    }
    if (byNamespace !== undefined) return byNamespace.get(mapKey(ns));
    for (let i = 0; i < rows.length; i++) {
      const row = rows[i]!;
      if (row.ns === ns || sameKey(row.ns, ns)) return row;
    }
    return undefined;
  }

  insertRow(group: Group, ns: unknown, value: unknown): MemoryRow {
    const row = new MemoryRow(group.key, group.hash, ns === 0 ? 0 : ns, value, group as MemoryGroup);
    this.bring(group as MemoryGroup, row);
    return row;
  }

  private bring(group: MemoryGroup, row: MemoryRow): void {
    const { ledger } = this;
    if (group.at === -1) this.place(group);
    this.enter(group, row);
    row.unit = ledger.unit;
    ledger.list(this, row);
    if (this.store !== undefined) this.store.arrived(group, row);
    if (ledger.undoing) ledger.remember(() => this.remove(group, row));
  }

  /** Puts the row into its group; counts it. */
  enter(group: MemoryGroup, row: MemoryRow): void {
    const { rows } = group;
    this.size++;
    if (this.ordered) {
      if (rows.length === 0 || (rows[rows.length - 1]!.ns as number) < (row.ns as number)) rows.push(row);
      else rows.splice(lowerBound(rows, row.ns as number), 0, row);
      return;
    }
    row.at = rows.length;
    rows.push(row);
    if (group.byNamespace !== undefined) {
      group.byNamespace.set(mapKey(row.ns), row);
    } else if (rows.length > SMALL) {
      group.byNamespace = new Map(rows.map((each) => [mapKey(each.ns), each]));
    }
  }

  touch(row: Row): void {
    const { ledger } = this;
    if ((row as MemoryRow).epoch !== ledger.epoch || ledger.undoing) ledger.change(this, row as MemoryRow);
  }

  put(row: Row, value: unknown): void {
    const { ledger } = this;
    if ((row as MemoryRow).epoch !== ledger.epoch || ledger.undoing) ledger.change(this, row as MemoryRow);
    row.value = value;
    if (this.store !== undefined && typeof value !== 'number' && typeof value !== 'boolean') this.store.resized((row as MemoryRow).group!, row as MemoryRow);
  }

  deleteRow(group: Group, row: Row): void {
    this.remove(group as MemoryGroup, row as MemoryRow);
  }

  private remove(group: MemoryGroup, row: MemoryRow): void {
    const { ledger } = this;
    if (row.epoch === ledger.waiting) ledger.encodeWaiting(this, row);
    ledger.unlist(this, row);
    if (ledger.tracked) {
      ledger.log.begin(this.number, TOMBSTONE, row.key, row.hash);
      writeNamespace(ledger.log.out, this.header.layout, row.ns);
      ledger.log.end();
    }
    const gap = this.drop(group, row);
    if (ledger.undoing) {
      const { value } = row;
      ledger.remember(() => {
        row.value = value;
        this.bringBack(group, row, gap);
      });
    }
  }

  /** Takes the row out of its group; gives the gap that the last row was moved into. */
  leave(group: MemoryGroup, row: MemoryRow): number {
    const { rows } = group;
    this.size--;
    if (this.ordered) {
      const at = rows[rows.length - 1] === row ? rows.length - 1 : rows.indexOf(row);
      if (at === 0) rows.shift();
      else rows.splice(at, 1);
      return at;
    }
    const gap = row.at;
    const last = rows.pop()!;
    if (last !== row) {
      rows[gap] = last;
      last.at = gap;
    }
    group.byNamespace?.delete(mapKey(row.ns));
    return gap;
  }

  /** The reverse of `remove`. */
  private bringBack(group: MemoryGroup, row: MemoryRow, gap: number): void {
    // Meanwhile another group object may stand for this key only if this one is detached; both are empty then, and this one is the elder.
    const there = this.resident(group.key, group.hash);
    if (there !== undefined && there !== group) {
      group.flags = there.flags;
      this.displace(there);
    }
    this.bring(group, row);
    const { rows } = group;
    if (!this.ordered && gap < rows.length - 1) {
      const moved = rows[gap]!;
      rows[rows.length - 1] = moved;
      moved.at = rows.length - 1;
      rows[gap] = row;
      row.at = gap;
    }
  }

  // ── restoring: neither counted as changes nor undone ──

  restore(key: Key, hash: number, ns: unknown, value: unknown): void {
    const group = this.find(key, hash) ?? this.insert(key, hash);
    const there = this.row(group, ns);
    if (there === undefined) {
      const row = new MemoryRow(group.key, hash, ns, value, group);
      if (group.at === -1) this.place(group);
      this.enter(group, row);
      if (this.store !== undefined) this.store.arrived(group, row);
    } else {
      there.value = value;
      if (this.store !== undefined) this.store.resized(group, there);
    }
    if (this.store !== undefined) this.store.dirtied(group);
  }

  restoreTombstone(key: Key, hash: number, ns: unknown): void {
    const group = this.find(key, hash);
    if (group === undefined) return;
    const row = this.row(group, ns);
    if (row !== undefined) this.drop(group, row);
  }

  restoreKeyTombstone(key: Key, hash: number): void {
    const group = this.find(key, hash);
    if (group === undefined) return;
    for (let i = group.rows.length - 1; i >= 0; i--) this.drop(group, group.rows[i]!);
  }

  /** For a base: says that what came before of this key is void. */
  writeKeyTombstone(out: BlockWriter, group: MemoryGroup): void {
    out.begin(this.number, KEY_TOMBSTONE, group.key, group.hash);
    out.end();
  }

  /** The row is gone; with its last row the group, unless its tombstone stays until LevelDB has forgotten it. */
  private drop(group: MemoryGroup, row: MemoryRow): number {
    const gap = this.leave(group, row);
    if (group.rows.length > 0) {
      if (this.store !== undefined) this.store.shrunk(group, row);
    } else if (this.store === undefined || this.store.leaves(group, row)) {
      this.displace(group);
    }
    return gap;
  }

  dirtied(row: MemoryRow): void {
    if (this.store !== undefined) this.store.dirtied(row.group!);
  }

  resized(row: MemoryRow): void {
    if (this.store !== undefined) this.store.resized(row.group!, row);
  }

  // ── snapshots ──

  freeze(): void {
    this.frozen = this.changed;
    this.changed = [];
    this.cursor = 0;
  }

  encodeFrozen(out: BlockWriter, waiting: number, deadline: number): boolean {
    const { frozen } = this;
    for (let i = this.cursor; i < frozen.length; i++) {
      const row = frozen[i]!;
      if (row.epoch === waiting) {
        this.writeFrozen(out, row);
        row.epoch = 0;
      }
      // Also where it was written when it was touched: a million such are a long look.
      if (i % SLICE_ROWS === 0 && performance.now() >= deadline) {
        this.cursor = i + 1;
        return false;
      }
    }
    this.frozen = [];
    this.cursor = 0;
    return true;
  }

  /** A value that was changed in place has not been weighed since: what is written of it says where it has outgrown its weight. */
  writeFrozen(out: BlockWriter, row: MemoryRow): void {
    const bytes = this.write(out, row);
    if (this.store !== undefined && bytes > row.bytes) this.store.resized(row.group!, row);
  }

  /** Gives how many bytes were written. */
  write(out: BlockWriter, row: MemoryRow): number {
    const start = out.begin(this.number, VALUE, row.key, row.hash);
    try {
      writeNamespace(out.out, this.header.layout, row.ns);
      encodeInto(out.out, row.value);
    } catch (error) {
      out.out.at = start;
      throw writeRowFailed(this.header, error);
    }
    const bytes = out.out.at - start;
    out.end();
    return bytes;
  }
}

/** The first place whose namespace is not smaller. */
function lowerBound(rows: readonly MemoryRow[], ns: number): number {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((rows[middle]!.ns as number) < ns) low = middle + 1;
    else high = middle;
  }
  return low;
}
