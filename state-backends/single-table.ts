// A table with one row a key: dense rows, an index by hash, holes that are used again. Rows never move while they live, so a sweep by position
// sees every row that exists from its start to its end (S4).

import { encodeInto } from './codec.ts';
import type { Key, Row, SingleTable } from './contract.ts';
import { HashIndex } from './hash-index.ts';
import { sameKey } from './keys.ts';
import { type Ledger, SLICE_ROWS, type ValueTable, writeRowFailed } from './ledger.ts';
import type { SingleStore } from './residency.ts';
import { DEAD, MemoryRow, REFERENCED } from './row.ts';
import { type BlockWriter, type TableHeader, TOMBSTONE, VALUE } from './row-file.ts';

/** Hashes that `ahead` looks at together. */
const AHEAD = 256;
/** Smaller tables are in the processor's caches. */
const AHEAD_ROWS = 1 << 14;

export class MemorySingleTable implements SingleTable, ValueTable {
  readonly number: number;
  readonly header: TableHeader;
  readonly rows: (MemoryRow | undefined)[] = [];
  changed: MemoryRow[] = [];
  /** Rows in memory that are alive; level() adds those that are not resident. */
  size = 0;
  /** Set once, at declaration, by level(). */
  store: SingleStore | undefined = undefined;
  /** Set once, at declaration: see TableOptions. */
  gone: ((value: unknown) => boolean) | undefined = undefined;
  /** Found in memory; counted by level() only. */
  hits = 0;
  private readonly ledger: Ledger;
  private readonly index = new HashIndex();
  private readonly holes: number[] = [];
  private frozen: MemoryRow[] = [];
  private cursor = 0;
  /** Tombstones among the rows. */
  private dead = 0;
  private readonly places = new Int32Array(AHEAD);
  seen = 0;

  constructor(ledger: Ledger, number: number, header: TableHeader) {
    this.ledger = ledger;
    this.number = number;
    this.header = header;
  }

  // ── rows ──

  find(key: Key, hash: number): MemoryRow | undefined {
    const { rows, index } = this;
    for (let position = index.first(hash); position !== -1; position = index.next(hash)) {
      const row = rows[position]!;
      if (row.key === key || sameKey(row.key, key)) {
        if (this.store !== undefined) {
          if ((row.flags & DEAD) !== 0) return undefined;
          row.flags |= REFERENCED;
          this.hits++;
        }
        return row;
      }
    }
    return this.store === undefined ? undefined : this.store.fetch(key, hash);
  }

  /**
   * Brings the rows into the processor's caches. One record after the other waits for memory several times (index, row, key, value); here these waits
   * overlap, since no step of a loop needs the one before. Worth nothing where the table is in the caches anyway.
   */
  ahead(hashes: Int32Array, from: number, to: number): void {
    const { rows, index, places } = this;
    if (rows.length < AHEAD_ROWS) return;
    for (let at = from; at < to; at += AHEAD) {
      const count = Math.min(AHEAD, to - at);
      for (let i = 0; i < count; i++) places[i] = index.first(hashes[at + i]!);
      let seen = 0;
      for (let i = 0; i < count; i++) if (places[i] !== -1) seen += rows[places[i]!]!.epoch;
      for (let i = 0; i < count; i++) {
        if (places[i] === -1) continue;
        const row = rows[places[i]!]!;
        if (typeof row.key === 'string') seen++;
        if (typeof row.value === 'object') seen++;
      }
      // Kept, so that no compiler finds that the reading is for nothing.
      this.seen = seen;
    }
  }

  insert(key: Key, hash: number, value: unknown): MemoryRow {
    const row = new MemoryRow(key, hash, undefined, value, undefined);
    this.bring(row);
    return row;
  }

  /** The row is alive and changed from now on; in the place of its tombstone where there is one. */
  private bring(row: MemoryRow): void {
    const { ledger } = this;
    this.take(row);
    row.unit = ledger.unit;
    ledger.list(this, row);
    if (ledger.undoing) ledger.remember(() => this.remove(row));
  }

  /** Places and counts the row. */
  private take(row: MemoryRow): void {
    const tombstone = this.dead > 0 ? this.resident(row.key, row.hash) : undefined;
    if (tombstone === undefined) {
      this.place(row);
    } else {
      this.dead--;
      row.flags = tombstone.flags & ~DEAD;
      row.at = tombstone.at;
      row.bytes = tombstone.bytes;
      if (row !== tombstone) tombstone.at = -1;
      this.rows[row.at] = row;
    }
    this.size++;
    if (this.store !== undefined) this.store.arrived(row);
  }

  /** The row in memory, or its tombstone; looked at, not used. */
  resident(key: Key, hash: number): MemoryRow | undefined {
    for (let position = this.index.first(hash); position !== -1; position = this.index.next(hash)) {
      const row = this.rows[position]!;
      if (sameKey(row.key, key)) return row;
    }
    return undefined;
  }

  /** Gives the row a place, without counting it. */
  place(row: MemoryRow): void {
    const at = this.holes.length > 0 ? this.holes.pop()! : this.rows.length;
    row.at = at;
    if (at === this.rows.length) this.rows.push(row);
    else this.rows[at] = row;
    this.index.add(row.hash, at);
  }

  /** Takes the row's place away, without counting. */
  displace(row: MemoryRow): void {
    this.index.remove(row.hash, row.at);
    this.rows[row.at] = undefined;
    this.holes.push(row.at);
    row.at = -1;
    if ((row.flags & DEAD) !== 0) this.dead--;
  }

  touch(row: Row): void {
    const { ledger } = this;
    if ((row as MemoryRow).epoch !== ledger.epoch || ledger.undoing) ledger.change(this, row as MemoryRow);
  }

  put(row: Row, value: unknown): void {
    const { ledger } = this;
    if ((row as MemoryRow).epoch !== ledger.epoch || ledger.undoing) ledger.change(this, row as MemoryRow);
    row.value = value;
    if (this.store !== undefined && typeof value !== 'number' && typeof value !== 'boolean') this.store.resized(row as MemoryRow);
  }

  delete(row: Row): void {
    this.remove(row as MemoryRow);
  }

  private remove(row: MemoryRow): void {
    const { ledger } = this;
    if (row.epoch === ledger.waiting) ledger.encodeWaiting(this, row);
    ledger.unlist(this, row);
    if (ledger.tracked) {
      ledger.log.begin(this.number, TOMBSTONE, row.key, row.hash);
      ledger.log.end();
    }
    if (ledger.undoing) {
      const { value } = row;
      ledger.remember(() => {
        row.value = value;
        this.bring(row);
      });
    }
    this.drop(row);
  }

  // ── restoring: neither counted as changes nor undone ──

  restore(key: Key, hash: number, _ns: unknown, value: unknown): void {
    let row = this.find(key, hash);
    if (row === undefined) {
      row = new MemoryRow(key, hash, undefined, value, undefined);
      this.take(row);
    } else {
      row.value = value;
      if (this.store !== undefined) this.store.resized(row);
    }
    this.dirtied(row);
  }

  restoreTombstone(key: Key, hash: number): void {
    const row = this.find(key, hash);
    if (row !== undefined) this.drop(row);
  }

  /** The row is gone, or its tombstone stays until LevelDB has forgotten it. */
  private drop(row: MemoryRow): void {
    this.size--;
    if (this.store === undefined || this.store.leaves(row)) {
      this.displace(row);
    } else {
      row.flags |= DEAD;
      this.dead++;
    }
  }

  dirtied(row: MemoryRow): void {
    if (this.store !== undefined) this.store.dirtied(row);
  }

  resized(row: MemoryRow): void {
    if (this.store !== undefined) this.store.resized(row);
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

  /** For a base: the row, or its tombstone; that also where an older version of what has expired may stand in front of it. */
  writeAny(out: BlockWriter, row: MemoryRow): void {
    const gone = this.gone?.(row.value) === true;
    if (gone && this.store === undefined) return;
    if ((row.flags & DEAD) === 0 && !gone) {
      this.write(out, row);
    } else {
      out.begin(this.number, TOMBSTONE, row.key, row.hash);
      out.end();
    }
  }

  /** A value that was changed in place has not been weighed since: what is written of it says where it has outgrown its weight. */
  writeFrozen(out: BlockWriter, row: MemoryRow): void {
    const bytes = this.write(out, row);
    if (this.store !== undefined && bytes > row.bytes) this.store.resized(row);
  }

  /** Gives how many bytes were written. */
  write(out: BlockWriter, row: MemoryRow): number {
    const start = out.begin(this.number, VALUE, row.key, row.hash);
    try {
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
