// level(): keyed state that may be larger than memory. Tables and files are those of memory(); rows that were not used for a while live in LevelDB.
//
// Who owns what: a region has one database, in a directory of its own name, never reopened and deleted on close (protocols 8); its tasks share it and
// the budget of memory. Checkpoints neither write nor read it: a snapshot is files of the ledger and of sweeps (protocols 1).
//
// A database key is table (u16) ‖ key group (u16) ‖ canonical key; the value is a row's value, or all rows of a group. Rows of one key
// are in memory together or not at all, so one read answers for the key. A table has one number in a region, whatever task: tasks of an operator have
// other groups of it (protocols 8). Timers are in memory always; the database has them too as soon as a base was made: table ‖ group ‖ time ‖ ns ‖ key.
//
// Invariants:
//  E1  One batch in flight (S5). What it writes stays in memory, and is dropped only if nothing touched it until the batch has resolved.
//  E2  A row that is not in memory is in LevelDB, newest version. What is in LevelDB and was deleted stays as a tombstone until that has resolved.
//  E3  A changed row that is written down is first in its interval's delta, and no longer in the list of changes (protocols 1).
//  E5  What a base needs is put down without leaving memory, and as it is: a row that the open interval has changed is in a delta anyway (protocols 1.3).
//  E4  `evicted` has the hash of every key that is in LevelDB and not in memory: a key whose hash is not there is asked of nobody.

import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Level } from 'level';
import { ByteReader, ByteWriter } from './byte-writer.ts';
import { decodeFrom, encodeInto } from './codec.ts';
import type { Backend, Key, KeyGroupRange, Link, RegionOptions, RegionState, StateStats, TaskOptions, TaskState, TimerRow } from './contract.ts';
import { MemoryGroupedTable } from './grouped-table.ts';
import { groupOf, readKey, writeKey } from './keys.ts';
import { Batch, type Database } from './level-batch.ts';
import { LevelLink, type Settling } from './level-link.ts';
import { SecondNames } from './level-names.ts';
import { LINKED_HEAD as HEAD, keysOf } from './linked-rows.ts';
import type { Adopting, GroupedStore, SingleStore, TimerStore } from './residency.ts';
import { DEAD, DIRTY, IN_FLIGHT, MemoryGroup, MemoryRow, REFERENCED, STORED, UNLISTED } from './row.ts';
import { type BlockWriter, readNamespace, VALUE, writeNamespace } from './row-file.ts';
import type { MemorySingleTable } from './single-table.ts';
import { StateError } from './state-error.ts';
import { StoredHashes } from './stored-hashes.ts';
import type { AnyTable, StoredRows } from './sweep.ts';
import { type Residency, Task } from './task.ts';
import { MemoryTimerTable } from './timer-table.ts';
import { GROUP_BYTES, ROW_BYTES, sizeOf, sizeOfKey } from './value-size.ts';

/** Where `level()` keeps state, and how much of it in memory. */
export interface LevelOptions {
  /** A directory on a local disk; what is in it belongs to running attempts only and is worth nothing afterwards. */
  readonly directory: string;
  /** Bytes of state that a region keeps in memory; 64 MiB by default. */
  readonly cacheBytes?: number;
}

/** There in every build of `level` for Node, and not among its types. */
interface Compacting {
  compactRange(from: Buffer, to: Buffer): Promise<void>;
}

/** Deletes a database unless somebody has it open; there in every build of `level` for Node, and not among its types. */
const { destroy } = Level as unknown as { destroy(path: string): Promise<void> };

/** `<region>-<attempt>-<random>`, and SHARED_ATTEMPT where other hosts have databases of the same attempt beside it. */
const ATTEMPT = /^(.+)-(\d+)-[0-9a-z]+(\.shared)?$/;
export const SHARED_ATTEMPT = '.shared';
/** Places that the clock's hand looks at before it gives control back. */
const SCAN_MAX = 1 << 15;

/**
 * Keeps keyed state on disk, with the part in use in memory: for state larger than memory. Checkpoints make it durable; the directory is worth nothing after
 * a run.
 *
 * @throws STATE_IO, as the cause of the job's error, where the directory cannot be used.
 * @example
 * const seen: number[] = [];
 * await job('sums', (env) => {
 *   env.fromArray('in', [1, 2]).keyBy(() => 'all').reduce('sum', (left, right) => left + right).sink('seen', collect(seen));
 * }).run({ state: level({ directory: 'state', cacheBytes: 16 << 20 }) });
 * assert.deepEqual(seen, [1, 3]);
 */
export function level(options: LevelOptions): Backend {
  const budget = options.cacheBytes ?? 64 << 20;
  return {
    kind: 'level',
    settings: options,
    async open({ name, tracked }: RegionOptions): Promise<RegionState> {
      const directory = join(options.directory, name);
      try {
        mkdirSync(directory, { recursive: true });
        const db: Database = new Level<Buffer, Buffer>(directory, {
          keyEncoding: 'buffer',
          valueEncoding: 'buffer',
          compression: false,
          errorIfExists: true,
          cacheSize: 64 << 20,
          writeBufferSize: 16 << 20,
          maxFileSize: 32 << 20,
        });
        await db.open();
        await removeLeftovers(options.directory, name);
        return new LevelRegion(db, directory, budget, tracked);
      } catch (error) {
        throw failed('could not be opened', error);
      }
    },
  };
}

/**
 * Removes what processes that were killed have left of the same region: directories of its name with an attempt up to this one, which others may be about to open
 * where an attempt is shared. A database that somebody has open is locked and stays; whoever has it deletes it himself.
 */
async function removeLeftovers(directory: string, name: string): Promise<void> {
  const [, region, attempt, shared] = ATTEMPT.exec(name) ?? [];
  if (region === undefined) return;
  const newest = shared === undefined ? Number(attempt) : Number(attempt) - 1;
  for (const other of readdirSync(directory)) {
    const match = ATTEMPT.exec(other);
    if (match === null || other === name || match[1] !== region || Number(match[2]) > newest) continue;
    const path = join(directory, other);
    try {
      await destroy(path);
    } catch {
      continue; // locked, or not a database: not ours to delete
    }
    rmSync(path, { recursive: true, force: true });
  }
}

function failed(what: string, cause: unknown): StateError {
  return new StateError('STATE_IO', `The database of keyed state ${what}: ${cause instanceof Error ? cause.message : String(cause)}.`, {
    todo: 'Look at the disk that holds the state directory.',
    cause,
  });
}

class LevelRegion implements RegionState {
  readonly db: Database;
  readonly budget: number;
  readonly tracked: boolean;
  residentBytes = 0;
  /** What could not be brought down by evicting does not hold tasks back. */
  private tolerated = 0;
  writeMs = 0;
  inFlight: Promise<void> | undefined = undefined;
  error: StateError | undefined = undefined;
  private readonly directory: string;
  private readonly names: SecondNames;
  private readonly stores: Store[] = [];
  private readonly tasks: Task[] = [];
  private readonly numbers = new Map<string, number>();
  private turn = 0;
  /** Whoever waits for the batch in flight, to write the next one. */
  private readonly turns: (() => void)[] = [];
  private linking: LevelLink | undefined = undefined;
  private links = 0;
  private flushing: Promise<void> | undefined = undefined;
  private closing: Promise<void> | undefined = undefined;

  constructor(db: Database, directory: string, budget: number, tracked: boolean) {
    this.db = db;
    this.directory = directory;
    this.names = new SecondNames(directory);
    this.budget = budget;
    this.tracked = tracked;
  }

  task(options: TaskOptions): TaskState {
    const task = new Task({ ...options, tracked: this.tracked });
    task.residency = new LevelResidency(this, task, options);
    this.tasks.push(task);
    return task;
  }

  /** The number of a table, the same for all tasks of its operator. */
  numberOf(uid: string, name: string): number {
    const id = JSON.stringify([uid, name]);
    const number = this.numbers.get(id) ?? this.numbers.size;
    this.numbers.set(id, number);
    return number;
  }

  get scratch(): string {
    return this.directory;
  }

  link(states: readonly TaskState[]): Link {
    if (this.linking !== undefined) throw new StateError('STATE_MISUSED', 'A second base was begun while one is made.');
    const tasks = this.tasks.filter((task) => states.includes(task));
    const settling = tasks.flatMap((task) => (task.residency as LevelResidency).settling);
    const link = new LevelLink(this, tasks, settling, this.directory, join(this.directory, `link-${++this.links}`), () => {
      this.linking = undefined;
    });
    this.linking = link;
    return link;
  }

  /** Runs `fill` with an empty batch when no other is in flight, and writes what it has put there; resolves when that is in the database. */
  async put(fill: (batch: Batch) => void): Promise<void> {
    if (this.inFlight === undefined) this.begin(fill);
    else
      await new Promise<void>((resolve, reject) => {
        this.turns.push(() => {
          try {
            this.begin(fill);
            resolve();
          } catch (error) {
            reject(error);
          }
        });
      });
    await this.inFlight;
    this.check();
  }

  private begin(fill: (batch: Batch) => void): void {
    this.check();
    const batch = new Batch(this.db);
    try {
      fill(batch);
    } finally {
      // Also where it threw: of what is in it the tables hold that it is on its way.
      if (batch.rows > 0) this.write(batch);
    }
  }

  /** What LevelDB holds in memory goes into a table, and its log with it. */
  async flush(): Promise<void> {
    this.check();
    // Over an empty range there is nothing else to compact.
    const nothing = Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff]);
    this.flushing = (this.db as unknown as Compacting).compactRange(nothing, nothing).then(
      () => undefined,
      (error: unknown) => {
        throw failed('could not be flushed', error);
      },
    );
    await this.flushing;
  }

  add(store: Store): void {
    this.stores.push(store);
  }

  get pressed(): boolean {
    return this.residentBytes > Math.max(this.budget * 1.5, this.tolerated);
  }

  check(): void {
    if (this.error !== undefined) throw this.error;
  }

  maintain(): void {
    this.check();
    if (this.residentBytes <= this.budget || this.inFlight !== undefined || this.closing !== undefined) return;
    this.evict();
  }

  /** Turns the clock: drops what is clean, begins a batch of what is not. Says whether anything came of it, and at how many places it looked. */
  private evict(): { gained: boolean; scanned: number } {
    const { stores } = this;
    const batch = new Batch(this.db);
    let scanned = 0;
    let dropped = 0;
    for (let idle = 0; idle < stores.length && scanned < SCAN_MAX && this.wants(batch); ) {
      const store = stores[this.turn % stores.length]!;
      const before = dropped + batch.rows;
      const looked = store.turn(batch, SCAN_MAX - scanned, (bytes) => {
        dropped++;
        this.residentBytes -= bytes;
      });
      scanned += looked;
      this.turn++;
      idle = looked === 0 || dropped + batch.rows === before ? idle + 1 : 0;
    }
    if (batch.rows > 0) this.write(batch);
    return { gained: batch.rows > 0 || dropped > 0, scanned };
  }

  /** Whether the batch should take more, or more be dropped. */
  wants(batch: Batch): boolean {
    return !batch.full && this.residentBytes - batch.frees > this.budget;
  }

  private write(batch: Batch): void {
    const begun = performance.now();
    this.inFlight = batch.write().then(
      () => {
        this.writeMs += performance.now() - begun;
        this.names.written();
        this.inFlight = undefined;
        this.residentBytes -= batch.resolved();
        this.nextTurn();
      },
      (error: unknown) => {
        this.inFlight = undefined;
        this.error = failed('could not be written', error);
        this.nextTurn();
      },
    );
  }

  /** At once, so that nobody who evicts can come in between for ever. One that puts nothing down leaves its turn to the next. */
  private nextTurn(): void {
    while (this.inFlight === undefined && this.turns.length > 0) this.turns.shift()!();
  }

  async relieve(): Promise<void> {
    // Twice around the clock without a gain means that there is nothing to gain.
    let fruitless = 0;
    while (this.closing === undefined) {
      this.check();
      // Between two turns of the clock the event loop goes first, so that a clock that finds nothing stops nobody.
      if (this.inFlight === undefined && fruitless > 0) await new Promise(setImmediate);
      while (this.inFlight !== undefined) await this.inFlight;
      this.check();
      if (this.residentBytes <= this.budget) return;
      const { gained, scanned } = this.evict();
      fruitless = gained ? 0 : fruitless + Math.max(1, scanned);
      if (fruitless > 3 * this.stores.reduce((places, store) => places + store.places, 0)) {
        // Nothing can leave: tasks go on, or nothing ever would.
        this.tolerated = this.residentBytes + this.budget / 2;
        return;
      }
    }
  }

  close(): Promise<void> {
    this.closing ??= this.shut();
    return this.closing;
  }

  private async shut(): Promise<void> {
    for (const task of this.tasks) task.sweeping?.cancel();
    await this.linking?.close();
    while (this.inFlight !== undefined) await this.inFlight;
    // Whoever asked for it has been told.
    await this.flushing?.catch(() => undefined);
    await this.names.close();
    await this.db.close();
    await rm(this.directory, { recursive: true, force: true });
  }
}

class LevelResidency implements Residency {
  private readonly region: LevelRegion;
  private readonly task: Task;
  private readonly options: TaskOptions;
  private readonly stores: Store[] = [];
  private readonly timers: LevelTimers[] = [];

  constructor(region: LevelRegion, task: Task, options: TaskOptions) {
    this.region = region;
    this.task = task;
    this.options = options;
  }

  attach(table: AnyTable): void {
    const { uid, name } = table.header;
    const number = this.region.numberOf(uid, name);
    const head = Buffer.alloc(2);
    head.writeUInt16BE(number, 0);
    const where = { region: this.region, task: this.task, number, head, maxParallelism: this.options.maxParallelism, range: this.options.range };
    if (table instanceof MemoryTimerTable) {
      const timers = new LevelTimers(where, table);
      table.store = timers;
      this.timers.push(timers);
      return;
    }
    let store: Store;
    if (table instanceof MemoryGroupedTable) {
      const grouped = new LevelGroupedStore(where, table);
      table.store = grouped;
      store = grouped;
    } else {
      const single = new LevelSingleStore(where, table);
      table.store = single;
      store = single;
    }
    this.stores.push(store);
    this.region.add(store);
  }

  get pressed(): boolean {
    return this.region.pressed;
  }

  check(): void {
    this.region.check();
  }

  maintain(): void {
    this.region.maintain();
  }

  relieve(): Promise<void> {
    return this.region.relieve();
  }

  sweep(): StoredRows | undefined {
    if (this.stores.length === 0 || (this.region.inFlight === undefined && this.stores.every((store) => store.evicted.size === 0))) return undefined;
    return new LevelRows(this.region, this.stores);
  }

  get settling(): readonly Settling[] {
    return [...this.stores, ...this.timers];
  }

  adopting(table: MemorySingleTable | MemoryGroupedTable): Adopting {
    const store = this.stores.find((each) => each.table === table)!;
    return {
      put: async (rows) => {
        const { region } = this;
        for (let at = 0; at < rows.length; ) {
          await region.put((batch) => {
            for (; at < rows.length && !batch.full; at++) store.adopt(batch, ...rows[at]!);
          });
        }
      },
    };
  }

  stats(): Omit<StateStats, 'stallMs'> {
    const { tables } = this.task;
    const rows = tables.reduce((sum, table) => sum + table.size, 0);
    const sum = (of: (store: Store) => number): number => this.stores.reduce((total, store) => total + of(store), 0);
    return {
      rows,
      residentRows: rows - sum((store) => store.evictedRows),
      residentBytes: this.region.residentBytes,
      hits: sum((store) => store.table.hits),
      misses: sum((store) => store.misses),
      writeMs: this.region.writeMs,
    };
  }
}

interface Where {
  readonly region: LevelRegion;
  readonly task: Task;
  /** Of the table in the region, and the same as the first bytes of its keys. */
  readonly number: number;
  readonly head: Buffer;
  readonly maxParallelism: number;
  readonly range: KeyGroupRange;
}

/** What the two kinds of tables have in common: keys, reading, the clock's hand. */
abstract class Store implements Settling {
  abstract readonly table: MemorySingleTable | MemoryGroupedTable;
  readonly evicted = new StoredHashes();
  evictedRows = 0;
  misses = 0;
  protected hand = 0;
  protected readonly where: Where;
  private readonly key = new ByteWriter(256);

  constructor(where: Where) {
    this.where = where;
    this.key.raw(where.head);
  }

  get keys(): { readonly gte: Buffer; readonly lt: Buffer } {
    return keysOf(this.where.number, this.where.range);
  }

  /** How many places the table has, holes included. */
  abstract get places(): number;

  /** Looks at up to `places` places of the table; gives how many it looked at. */
  abstract turn(batch: Batch, places: number, dropped: (bytes: number) => void): number;

  /**
   * For a base, while no batch is in flight: what changed before the open interval and is newer than LevelDB goes into the batch, from a place on. Gives the place
   * it came to, −1 behind the last (E5).
   */
  abstract settle(batch: Batch, from: number, deadline: number): number;

  /** A row of another database that has this key and value too: it goes into LevelDB as it is. */
  adopt(batch: Batch, key: Buffer, hash: number, value: Buffer): void {
    const out = Buffer.allocUnsafe(HEAD + key.length);
    const group = groupOf(hash, this.where.maxParallelism);
    out.set(this.where.head, 0);
    out.writeUInt16BE(group, 2);
    out.set(key, HEAD);
    batch.put(out, value, 0, () => {
      this.evicted.add(hash);
      return 0;
    });
    const rows = this.rowsIn(value);
    this.evictedRows += rows;
    this.table.size += rows;
  }

  /** How many rows a stored value has. */
  protected abstract rowsIn(value: Buffer): number;

  /** A view that is good until the next call. */
  protected storeKey(key: Key, hash: number): Buffer {
    const out = this.key;
    out.at = 2;
    const group = groupOf(hash, this.where.maxParallelism);
    out.u8(group >>> 8);
    out.u8(group & 0xff);
    writeKey(out, key);
    return out.bytes.subarray(0, out.at);
  }

  protected read(key: Key, hash: number): Buffer | undefined {
    if (!this.evicted.has(hash)) return undefined;
    this.misses++;
    try {
      return this.where.region.db.getSync(this.storeKey(key, hash));
    } catch (error) {
      const failure = failed('could not be read', error);
      this.where.region.error = failure;
      throw failure;
    }
  }

  // ── looking: neither counted nor made resident ──

  peek(key: Key, hash: number): Buffer | undefined {
    if (!this.evicted.has(hash)) return undefined;
    try {
      return this.where.region.db.getSync(this.storeKey(key, hash));
    } catch (error) {
      throw failed('could not be read', error);
    }
  }

  storedKeys(): AsyncIterator<readonly Key[]> | undefined {
    return this.evicted.size === 0 ? undefined : this.pagesOfKeys();
  }

  private async *pagesOfKeys(): AsyncGenerator<readonly Key[], void> {
    const { region } = this.where;
    const keys = region.db.keys({ ...this.keys, keyEncoding: 'buffer', fillCache: false });
    try {
      for (;;) {
        const page = (await keys.nextv(1000)) as Buffer[];
        if (page.length === 0) return;
        yield page.map((key) => readKey(new ByteReader(key.subarray(HEAD))));
      }
    } catch (error) {
      throw failed('could not be read', error);
    } finally {
      await keys.close();
    }
  }

  /** What leaves memory must be in what a running sweep writes, where the sweep would not meet it otherwise. */
  protected get sweepLeft(): BlockWriter | undefined {
    return this.where.task.sweeping?.left;
  }

  /** For clean rows: they are in LevelDB, and a sweep that reads it meets them there. */
  protected get sweepLeftClean(): BlockWriter | undefined {
    const { sweeping } = this.where.task;
    return sweeping?.memoryOnly === true ? sweeping.left : undefined;
  }
}

const content = new ByteWriter(1 << 16);
const rowValue = new ByteWriter(1 << 10);

class LevelSingleStore extends Store implements SingleStore {
  readonly table: MemorySingleTable;

  constructor(where: Where, table: MemorySingleTable) {
    super(where);
    this.table = table;
  }

  fetch(key: Key, hash: number): MemoryRow | undefined {
    const bytes = this.read(key, hash);
    if (bytes === undefined) return undefined;
    const row = new MemoryRow(key, hash, undefined, decodeFrom(new ByteReader(bytes)), undefined);
    row.flags = STORED | REFERENCED;
    this.table.place(row);
    this.evicted.delete(hash);
    this.evictedRows--;
    this.resized(row);
    return row;
  }

  arrived(row: MemoryRow): void {
    row.flags |= REFERENCED;
    this.resized(row);
  }

  dirtied(row: MemoryRow): void {
    row.flags |= DIRTY;
  }

  resized(row: MemoryRow): void {
    const bytes = ROW_BYTES + sizeOfKey(row.key) + sizeOf(row.value);
    this.where.region.residentBytes += bytes - row.bytes;
    row.bytes = bytes;
  }

  leaves(row: MemoryRow): boolean {
    if ((row.flags & (STORED | IN_FLIGHT)) === 0) {
      this.where.region.residentBytes -= row.bytes;
      row.bytes = 0;
      return true;
    }
    row.flags |= DIRTY;
    return false;
  }

  get places(): number {
    return this.table.rows.length;
  }

  turn(batch: Batch, places: number, dropped: (bytes: number) => void): number {
    const { rows } = this.table;
    const least = Math.min(places, rows.length);
    let looked = 0;
    for (; looked < least && this.where.region.wants(batch); looked++) {
      if (this.hand >= rows.length) this.hand = 0;
      const row = rows[this.hand++];
      if (row === undefined || (row.flags & IN_FLIGHT) !== 0) continue;
      if ((row.flags & DEAD) !== 0) this.bury(batch, row);
      else if ((row.flags & REFERENCED) !== 0) row.flags &= ~REFERENCED;
      else if ((row.flags & DIRTY) !== 0) this.save(batch, row);
      else this.drop(row, dropped);
    }
    return looked;
  }

  private drop(row: MemoryRow, dropped: (bytes: number) => void): void {
    const { ledger } = this.where.task;
    if (row.epoch === ledger.waiting) ledger.encodeWaiting(this.table, row);
    const left = this.sweepLeftClean;
    if (left !== undefined) this.table.write(left, row);
    dropped(this.release(row));
  }

  /** The row is in LevelDB alone from now on. */
  private release(row: MemoryRow): number {
    const { bytes } = row;
    this.table.displace(row);
    this.evicted.add(row.hash);
    this.evictedRows++;
    row.bytes = 0;
    return bytes;
  }

  private save(batch: Batch, row: MemoryRow): void {
    const { ledger } = this.where.task;
    if (row.epoch === ledger.waiting) ledger.encodeWaiting(this.table, row);
    if (row.epoch === ledger.epoch) {
      if (ledger.tracked) this.table.write(ledger.log, row);
      ledger.unlist(this.table, row);
    }
    const left = this.sweepLeft;
    if (left !== undefined) this.table.write(left, row);
    content.reset();
    encodeInto(content, row.value);
    const value = content.takeBriefly();
    row.flags = (row.flags | IN_FLIGHT) & ~DIRTY;
    const { at } = row;
    batch.put(Buffer.from(this.storeKey(row.key, row.hash)), value, row.bytes, () => this.saved(at));
  }

  /** Another row may stand in the place by now: one that was inserted over the tombstone of the first. */
  private saved(at: number): number {
    const row = this.table.rows[at]!;
    row.flags = (row.flags | STORED) & ~IN_FLIGHT;
    return (row.flags & (DIRTY | DEAD | REFERENCED)) === 0 ? this.release(row) : 0;
  }

  settle(batch: Batch, from: number, deadline: number): number {
    const { rows } = this.table;
    const { ledger } = this.where.task;
    let at = from;
    for (; at < rows.length && !batch.full; at++) {
      const row = rows[at];
      if (row !== undefined && (row.flags & DEAD) !== 0) this.bury(batch, row);
      else if (row !== undefined && (row.flags & DIRTY) !== 0 && row.epoch !== ledger.epoch) this.keep(batch, row);
      if ((at & 63) === 63 && performance.now() >= deadline) return at + 1;
    }
    return at < rows.length ? at : -1;
  }

  /** As `save` does, but that the row stays in memory and in the delta that it waits for. */
  private keep(batch: Batch, row: MemoryRow): void {
    content.reset();
    encodeInto(content, row.value);
    const value = content.takeBriefly();
    row.flags = (row.flags | IN_FLIGHT) & ~DIRTY;
    const { at } = row;
    batch.put(Buffer.from(this.storeKey(row.key, row.hash)), value, 0, () => {
      const now = this.table.rows[at]!;
      now.flags = (now.flags | STORED) & ~IN_FLIGHT;
      return 0;
    });
  }

  protected rowsIn(): number {
    return 1;
  }

  private bury(batch: Batch, row: MemoryRow): void {
    const left = this.sweepLeft;
    if (left !== undefined) this.table.writeAny(left, row);
    row.flags = (row.flags | IN_FLIGHT) & ~DIRTY;
    const { at } = row;
    batch.delete(Buffer.from(this.storeKey(row.key, row.hash)), row.bytes, () => this.buried(at));
  }

  private buried(at: number): number {
    const row = this.table.rows[at]!;
    row.flags &= ~(IN_FLIGHT | STORED);
    if ((row.flags & DEAD) === 0) return 0;
    const { bytes } = row;
    this.table.displace(row);
    row.bytes = 0;
    return bytes;
  }
}

class LevelGroupedStore extends Store implements GroupedStore {
  readonly table: MemoryGroupedTable;

  constructor(where: Where, table: MemoryGroupedTable) {
    super(where);
    this.table = table;
  }

  fetch(key: Key, hash: number): MemoryGroup | undefined {
    const bytes = this.read(key, hash);
    if (bytes === undefined) return undefined;
    const group = new MemoryGroup(key, hash);
    group.flags = STORED | REFERENCED;
    const from = new ByteReader(bytes);
    const count = from.varint();
    const { layout } = this.table.header;
    this.table.place(group);
    this.evicted.delete(hash);
    this.evictedRows -= count;
    this.grow(group, GROUP_BYTES + sizeOfKey(key));
    for (let i = 0; i < count; i++) {
      const ns = readNamespace(from, layout);
      from.varint();
      const row = new MemoryRow(key, hash, ns, decodeFrom(from), group);
      this.table.enter(group, row);
      this.table.size--;
      this.resized(group, row);
    }
    return group;
  }

  private grow(group: MemoryGroup, bytes: number): void {
    group.bytes += bytes;
    this.where.region.residentBytes += bytes;
  }

  arrived(group: MemoryGroup, row: MemoryRow): void {
    group.flags |= REFERENCED;
    if (group.bytes === 0) this.grow(group, GROUP_BYTES + sizeOfKey(group.key));
    row.bytes = 0;
    this.resized(group, row);
  }

  dirtied(group: MemoryGroup): void {
    group.flags |= DIRTY;
  }

  resized(group: MemoryGroup, row: MemoryRow): void {
    const bytes = ROW_BYTES + sizeOfKey(row.ns) + sizeOf(row.value);
    this.grow(group, bytes - row.bytes);
    row.bytes = bytes;
  }

  shrunk(group: MemoryGroup, row: MemoryRow): void {
    group.flags |= DIRTY;
    this.grow(group, -row.bytes);
    row.bytes = 0;
  }

  leaves(group: MemoryGroup, row: MemoryRow): boolean {
    this.shrunk(group, row);
    if ((group.flags & (STORED | IN_FLIGHT)) !== 0) return false;
    this.grow(group, -group.bytes);
    return true;
  }

  get places(): number {
    return this.table.groups.length;
  }

  turn(batch: Batch, places: number, dropped: (bytes: number) => void): number {
    const { groups } = this.table;
    const least = Math.min(places, groups.length);
    let looked = 0;
    for (; looked < least && this.where.region.wants(batch); looked++) {
      if (this.hand >= groups.length) this.hand = 0;
      const group = groups[this.hand++];
      if (group === undefined || (group.flags & IN_FLIGHT) !== 0) continue;
      if (group.rows.length === 0) this.bury(batch, group);
      else if ((group.flags & REFERENCED) !== 0) group.flags &= ~REFERENCED;
      else if ((group.flags & DIRTY) !== 0) this.save(batch, group);
      else this.drop(group, dropped);
    }
    return looked;
  }

  /** Every change of the group so far is in a delta. */
  private settleRows(group: MemoryGroup): void {
    const { ledger } = this.where.task;
    for (const row of group.rows) {
      if (row.epoch === ledger.waiting) ledger.encodeWaiting(this.table, row);
      if (row.epoch === ledger.epoch) {
        if (ledger.tracked) this.table.write(ledger.log, row);
        ledger.unlist(this.table, row);
      }
      row.epoch = UNLISTED;
    }
  }

  private append(left: BlockWriter | undefined, group: MemoryGroup): void {
    if (left === undefined) return;
    this.table.writeKeyTombstone(left, group);
    for (const row of group.rows) this.table.write(left, row);
  }

  private drop(group: MemoryGroup, dropped: (bytes: number) => void): void {
    this.settleRows(group);
    this.append(this.sweepLeftClean, group);
    dropped(this.release(group));
  }

  private release(group: MemoryGroup): number {
    const { bytes } = group;
    this.table.displace(group);
    this.evicted.add(group.hash);
    this.evictedRows += group.rows.length;
    group.bytes = 0;
    return bytes;
  }

  private save(batch: Batch, group: MemoryGroup): void {
    this.settleRows(group);
    this.append(this.sweepLeft, group);
    const value = this.stored(group);
    group.flags = (group.flags | IN_FLIGHT) & ~DIRTY;
    batch.put(Buffer.from(this.storeKey(group.key, group.hash)), value, group.bytes, () => this.saved(group));
  }

  private stored(group: MemoryGroup): Buffer {
    const { layout } = this.table.header;
    content.reset();
    content.varint(group.rows.length);
    for (const row of group.rows) {
      writeNamespace(content, layout, row.ns);
      rowValue.reset();
      encodeInto(rowValue, row.value);
      content.varint(rowValue.at);
      content.raw(rowValue.bytes.subarray(0, rowValue.at));
    }
    return content.takeBriefly();
  }

  settle(batch: Batch, from: number, deadline: number): number {
    const { groups } = this.table;
    let at = from;
    for (; at < groups.length && !batch.full; at++) {
      const group = groups[at];
      if (group !== undefined && group.rows.length === 0) this.bury(batch, group);
      else if (group !== undefined && (group.flags & DIRTY) !== 0) this.keep(batch, group);
      if ((at & 15) === 15 && performance.now() >= deadline) return at + 1;
    }
    return at < groups.length ? at : -1;
  }

  /** As `save` does, but that its rows stay in memory and in the deltas that they wait for: where the open interval has changed one, it will be newer again. */
  private keep(batch: Batch, group: MemoryGroup): void {
    const { ledger } = this.where.task;
    const value = this.stored(group);
    const again = group.rows.some((row) => row.epoch === ledger.epoch);
    group.flags = (group.flags | IN_FLIGHT) & (again ? -1 : ~DIRTY);
    batch.put(Buffer.from(this.storeKey(group.key, group.hash)), value, 0, () => {
      group.flags = (group.flags | STORED) & ~IN_FLIGHT;
      return 0;
    });
  }

  protected rowsIn(value: Buffer): number {
    return new ByteReader(value).varint();
  }

  private saved(group: MemoryGroup): number {
    group.flags = (group.flags | STORED) & ~IN_FLIGHT;
    return (group.flags & (DIRTY | REFERENCED)) === 0 && group.rows.length > 0 ? this.release(group) : 0;
  }

  private bury(batch: Batch, group: MemoryGroup): void {
    this.append(this.sweepLeft, group);
    group.flags = (group.flags | IN_FLIGHT) & ~DIRTY;
    batch.delete(Buffer.from(this.storeKey(group.key, group.hash)), group.bytes, () => this.buried(group));
  }

  private buried(group: MemoryGroup): number {
    group.flags &= ~(IN_FLIGHT | STORED);
    if (group.rows.length > 0) return 0;
    const { bytes } = group;
    this.table.displace(group);
    group.bytes = 0;
    return bytes;
  }
}

/** Timers are in memory; LevelDB has those that were there when a base was made, and only bases read them (protocols 22). */
class LevelTimers implements TimerStore, Settling {
  private readonly where: Where;
  private readonly table: MemoryTimerTable;
  /** In LevelDB, and not in memory any more. */
  private gone: Buffer[] = [];

  constructor(where: Where, table: MemoryTimerTable) {
    this.where = where;
    this.table = table;
  }

  left(timer: TimerRow): void {
    this.gone.push(this.keyOf(timer));
  }

  private keyOf({ time, ns, key, hash }: TimerRow): Buffer {
    const out = content;
    out.reset();
    out.raw(this.where.head);
    const group = groupOf(hash, this.where.maxParallelism);
    out.u8(group >>> 8);
    out.u8(group & 0xff);
    out.f64(time);
    out.f64(ns);
    writeKey(out, key);
    return out.takeBriefly();
  }

  settle(batch: Batch, from: number, deadline: number): number {
    // First of all, since one of the same name may have come back.
    while (this.gone.length > 0 && !batch.full) batch.delete(this.gone.pop()!, 0, nothingFreed);
    const { timers } = this.table;
    const { ledger } = this.where.task;
    let at = from;
    for (; at < timers.length && !batch.full; at++) {
      const timer = timers[at];
      if (timer !== undefined && !timer.stored && timer.epoch !== ledger.epoch) {
        timer.stored = true;
        batch.put(this.keyOf(timer), NO_VALUE, 0, nothingFreed);
      }
      if ((at & 63) === 63 && performance.now() >= deadline) return at + 1;
    }
    return at < timers.length || this.gone.length > 0 ? at : -1;
  }
}

const NO_VALUE = Buffer.alloc(0);
const nothingFreed = (): number => 0;

/** The rows of a task in LevelDB, as they are when the batch in flight at the start of the sweep has resolved. */
class LevelRows implements StoredRows {
  private readonly region: LevelRegion;
  private readonly stores: readonly Store[];
  private store = 0;
  private readonly before: Promise<void> | undefined;
  private waited = false;
  private rows: ReturnType<Database['iterator']>[] | undefined = undefined;
  private page: [Buffer, Buffer][] = [];
  private at = 0;
  private ended = false;

  constructor(region: LevelRegion, stores: readonly Store[]) {
    this.region = region;
    this.stores = stores;
    this.before = region.inFlight;
  }

  step(out: BlockWriter, deadline: number): 'again' | 'done' | Promise<void> {
    this.region.check();
    if (!this.waited) {
      this.waited = true;
      if (this.before !== undefined) return this.before;
    }
    for (; this.at < this.page.length; this.at++) {
      if ((this.at & 63) === 63 && performance.now() >= deadline) {
        this.write(out, ...this.page[this.at++]!);
        return 'again';
      }
      this.write(out, ...this.page[this.at]!);
    }
    if (this.ended) {
      this.cancel();
      return 'done';
    }
    return this.more();
  }

  private async more(): Promise<void> {
    try {
      // All of them at once, so that all see the same moment: rows leave memory meanwhile.
      this.rows ??= this.stores.map((store) => this.region.db.iterator({ ...store.keys, keyEncoding: 'buffer', valueEncoding: 'buffer', fillCache: false }));
      this.page = (await this.rows[this.store]!.nextv(1000)) as [Buffer, Buffer][];
      this.at = 0;
      if (this.page.length === 0) this.ended = ++this.store === this.stores.length;
    } catch (error) {
      throw failed('could not be read', error);
    }
  }

  private write(out: BlockWriter, key: Buffer, stored: Buffer): void {
    const { table } = this.stores[this.store]!;
    const { number } = table;
    const group = key.readUInt16BE(2);
    const canonical = key.subarray(HEAD);
    const gone = 'gone' in table ? table.gone : undefined;
    if (!('groups' in table)) {
      if (gone?.(decodeFrom(new ByteReader(stored))) === true) return;
      out.beginRaw(number, VALUE, canonical, group);
      out.out.raw(stored);
      out.end();
      return;
    }
    const from = new ByteReader(stored);
    for (let i = from.varint(); i > 0; i--) {
      const ns = readNamespace(from, table.header.layout);
      const value = from.raw(from.varint());
      if (gone?.(decodeFrom(new ByteReader(value))) === true) continue;
      out.beginRaw(number, VALUE, canonical, group);
      writeNamespace(out.out, table.header.layout, ns);
      out.out.raw(value);
      out.end();
    }
  }

  cancel(): void {
    const { rows } = this;
    this.rows = undefined;
    this.ended = true;
    this.page = [];
    // A failure to close it is none of the sweep's: the database closes its iterators itself.
    for (const each of rows ?? []) each.close().catch(() => undefined);
  }
}
