// The contract of keyed state: what the engine may ask of a backend, and what it must do in return.
//
// What: a `Backend` is opened once for each host and region attempt and gives a `RegionState`; that gives one `TaskState` for each task. A task
// declares tables and timer tables, restores row files into them, and then runs: find / touch / put a row, freeze at a barrier, encode in
// slices, sweep a base now and then.
//
// Who owns what: the backend owns rows, their residency and their bytes. The engine owns barriers, files' names and places, and the decision when
// to work. This folder knows nothing of actors or streams and starts no timer: everything asynchronous is a promise that the engine awaits.
//
// Invariants (cited as S1 … below and in the implementations):
//  S1  A row is encoded into delta n with exactly the value that it had when `freeze(n)` was called, whatever is done to it afterwards,
//      also in place: `touch` encodes a frozen row that waits before anybody is handed its value (protocols 3).
//  S2  Every row changed between two freezes, and every row whose non-primitive value was handed out, is in that interval's delta; a row deleted
//      in it leaves a tombstone, also when it was created in the same interval (protocols 1).
//  S3  At most one frozen interval is being encoded. `freeze` while one is pending first encodes the rest of it (hurried).
//  S4  A base swept from barrier b (last frozen when it began) to barrier n (last frozen when it ended) has every row that existed from begin to
//      end, with any value it had meanwhile; it serves checkpoints m > n, together with all deltas b+1 … m.
//  S5  level(): one batch in flight a database; a row stays readable from memory until its batch has resolved; a deleted row stays as a tombstone
//      until its deletion has resolved.
//  S6  A group is `(hash >>> 0) % maxParallelism`; hash is murmur3 over the key's canonical bytes. A task holds the groups of its range only.
//  S8  What S4 says of a base holds of one that is linked, with b the lowest of the tasks' newest barriers and n the highest; nothing of what it is made of is
//      in memory only (protocols 1.3).
//  S7  Nothing of a unit (beginUnit … commitUnit) is evicted or written down before it ends; rollbackUnit restores every row and timer exactly.

/** Keys of records: compared by value, −0 = 0, NaN = NaN; bigint differs from number. */
export type Key = string | number | bigint | boolean | readonly Key[];

/** Groups `from` … `to`, both included. */
export interface KeyGroupRange {
  readonly from: number;
  readonly to: number;
}

/** What users see: `memory()` or `level({ directory })`. */
export interface StateBackend {
  readonly kind: string;
  /** Plain data from which another thread or process makes the same; undefined: none can. */
  readonly settings?: unknown;
}

/** What the engine sees of it. */
export interface Backend extends StateBackend {
  open(options: RegionOptions): Promise<RegionState>;
}

export interface RegionOptions {
  /** Unique for ever: `<host>/<region>-<attempt>-<random>`. level() makes its directory of that name and deletes it after close. */
  readonly name: string;
  /** False where nothing is ever frozen: then no delta is kept and touching costs nothing. */
  readonly tracked: boolean;
}

export interface RegionState {
  task(options: TaskOptions): TaskState;
  /**
   * Begins a base of these tasks together, made of the region's database as it lies on disk; one at a time, each of its tasks frozen at least once. Undefined where
   * there is no such database: each task sweeps its own.
   */
  link?(tasks: readonly TaskState[]): Link;
  /** A folder for large files that are worth nothing once the region is closed; undefined: the system's for temporary ones. */
  readonly scratch?: string;
  /** Waits for the batch in flight, closes, deletes what is local to this attempt. Idempotent. */
  close(): Promise<void>;
}

export interface TaskOptions {
  readonly maxParallelism: number;
  readonly range: KeyGroupRange;
  /** True where some operator of the task's chain has a policy other than `restart`: units keep an undo log. */
  readonly undo: boolean;
}

/**
 * One row in memory. `value` may be read at will by code that neither changes it in place nor hands it to users; anyone else calls
 * `touch(row)` first. `value` is written only through `put`, or directly after `touch` where its size does not change much.
 */
export interface Row {
  readonly key: Key;
  readonly hash: number;
  /** The namespace: a number in tables of layout `ordered` and `timers`, a key in layout `keyed`, undefined in `single`. */
  readonly ns: unknown;
  value: unknown;
}

/** All rows of one key in a table with namespaces. Resident as a whole: either all rows of a key are in memory or none is. */
export interface Group {
  readonly key: Key;
  readonly hash: number;
  /** `ordered`: ascending by `ns`, live rows only. Do not change the array. */
  readonly rows: readonly Row[];
  /** What an operator has computed from the rows, for itself: stored nowhere, and gone when the rows leave memory. Undefined at first. */
  derived: unknown;
}

/** One row a key. */
export interface SingleTable {
  /** The row of the key, from memory or (level) read synchronously; undefined where there is none. */
  find(key: Key, hash: number): Row | undefined;
  /** Only after `find` said undefined. */
  insert(key: Key, hash: number, value: unknown): Row;
  /** Before user code is handed a non-primitive value, or before `row.value` is assigned. Cheap when called again in the interval. */
  touch(row: Row): void;
  /** touch, assign. */
  put(row: Row, value: unknown): void;
  delete(row: Row): void;
  /** A hint: the rows of hashes[from] … hashes[to − 1] will be asked for next. */
  ahead(hashes: Int32Array, from: number, to: number): void;
  readonly size: number;
}

/** Rows by (key, namespace). `ordered`: ns are finite numbers, kept ascending. `keyed`: ns are Keys, found by canonical equality. */
export interface GroupedTable {
  find(key: Key, hash: number): Group | undefined;
  /** True where `find` would give this group, which `find` or `insert` gave before; it counts as `find`. */
  holds(group: Group): boolean;
  /** Only after `find` said undefined. An empty group does not survive the unit. */
  insert(key: Key, hash: number): Group;
  /** Searches from the newest (`ordered`) or by canonical key (`keyed`). */
  row(group: Group, ns: unknown): Row | undefined;
  insertRow(group: Group, ns: unknown, value: unknown): Row;
  touch(row: Row): void;
  put(row: Row, value: unknown): void;
  /** Removes the row from its group; the last one takes the group with it. */
  deleteRow(group: Group, row: Row): void;
  readonly size: number;
}

/** Timers of one operator and domain: unique per (key, ns, time). `ns` separates users of one key (a window's start, say). */
export interface TimerTable {
  /** False where it was set already. */
  set(time: number, key: Key, hash: number, ns?: number): boolean;
  /** False where it was not set. */
  delete(time: number, key: Key, hash: number, ns?: number): boolean;
  /** Time of the earliest timer, Infinity where there is none. O(1). */
  readonly next: number;
  /** Takes the earliest timer with time <= until out of the table; undefined where there is none. */
  pop(until: number): TimerRow | undefined;
  /** The same, left where it is: whoever asks then calls `take` or `move`. */
  first(until: number): TimerRow | undefined;
  /** Takes a timer that is in the table out of it. */
  take(timer: TimerRow): void;
  /** `take`, and `set` at another time. */
  move(timer: TimerRow, time: number): void;
  /** True where all timers <= until are in memory; else `await load(until)` first. */
  ready(until: number): boolean;
  load(until: number): Promise<void>;
  /** A view for inspection, in no order. */
  all(): Iterable<TimerRow>;
  readonly size: number;
}

export interface TimerRow {
  readonly time: number;
  readonly key: Key;
  readonly hash: number;
  readonly ns: number;
}

/** How the values of a table are stored and migrated; goes into the header of every row file. */
export interface TableOptions {
  readonly version?: number;
  /** Makes a value of this version of one that a file has in another; without it such a file is refused with SNAPSHOT_INCOMPATIBLE. */
  migrate?(old: unknown, fromVersion: number, key: Key, hash: number): unknown;
  /** True: the value of a row is given to nobody any more, now and later; bases leave it out. Asked while a base is swept. */
  gone?(value: unknown): boolean;
  /** True while rows that were loaded are not yet what this version says of them. */
  unsettled?(): boolean;
}

export interface TaskState {
  // ── declaring, before load ──
  /** Names are unique in an operator. */
  single(uid: string, name: string, options?: TableOptions): SingleTable;
  ordered(uid: string, name: string, options?: TableOptions): GroupedTable;
  keyed(uid: string, name: string, options?: TableOptions): GroupedTable;
  /** `few`: a key has few timers of one `ns` at a time, mostly one; found without looking at the time, so that to `move` one costs little. */
  timers(uid: string, name: string, few?: boolean): TimerTable;

  // ── restoring, before the first unit: bases first, then deltas in order of their ids ──
  /** Applies the rows of this task's range, and of `ranges` where they are given (chain C4: pass the ref's); later rows win, tombstones delete. Rejects with SNAPSHOT_CORRUPT. Rows of tables not declared are counted by `uid/name` in the result. */
  load(file: AsyncIterable<Uint8Array> | LoadedParts, ranges?: readonly KeyGroupRange[]): Promise<Loaded>;
  /** The same of a database that was linked, whose tables these are: none of their rows may be there already (chain C5). */
  loadLinked(base: LinkedRows, tables: readonly NumberedTable[], ranges?: readonly KeyGroupRange[]): Promise<Loaded>;

  // ── units; only where `undo` was asked for. An error of the database that was thrown within one is thrown again at its end, and by `freeze` (protocols 15) ──
  beginUnit(): void;
  commitUnit(): void;
  rollbackUnit(): void;

  // ── residency, called between batches ──
  /** True where memory is over its budget by so much that the task must take no more input until `relieve()` has resolved. Always false for memory(). */
  readonly pressed: boolean;
  /** Starts or goes on with write-back; returns at once. Errors of the database are thrown here or by the next call, with code STATE_IO. */
  maintain(): void;
  relieve(): Promise<void>;

  // ── snapshots ──
  /** Closes the delta of the interval before barrier `id` and opens the next. O(1) unless an earlier one is still being encoded (S3). */
  freeze(id: number): void;
  /** Encodes frozen rows until done or until `performance.now()` reaches `deadline`. True when nothing waits any more. */
  encode(deadline: number): boolean;
  /** The finished deltas since the last call, in order; each is one row file's content. Empty deltas have no blocks. */
  takeDeltas(): Delta[];
  /** True while what was loaded is made into what the program declares, in slices: a base would be taken for that. Deltas may be taken. */
  readonly unsettled: boolean;
  /** Begins to sweep a base; only one at a time, only after at least one freeze, and not while `unsettled`. */
  sweep(): Sweep;

  // ── looking ──
  stats(): StateStats;
  /** Reads from outside, which change nothing: neither what is in the next delta nor what stays in memory. */
  look(): Looking;
}

export interface StateStats {
  readonly rows: number;
  readonly residentRows: number;
  /** Of the region. */
  readonly residentBytes: number;
  /** Keys found in memory, and those that were read from the database; 0 for memory(). */
  readonly hits: number;
  readonly misses: number;
  /** Time in which the region's batches were written. */
  readonly writeMs: number;
  /** Time in which the task took no input, because memory was beyond its budget. */
  readonly stallMs: number;
}

/** See looking.ts. */
export interface Looking {
  tables(): TableFigures[];
  /** Copies of the rows of a key, in the order of the table; none where there is no such table. */
  rows(uid: string, name: string, key: Key, hash: number): readonly HeldRow[];
  /** Every key of a table with rows by key; timers are not walked. */
  keys(uid: string, name: string): KeyWalk;
}

export interface TableFigures {
  readonly uid: string;
  readonly name: string;
  readonly layout: 'single' | 'ordered' | 'keyed' | 'timers';
  readonly version: number;
  readonly rows: number;
  /** An estimate, as in memory. */
  readonly bytes: number;
}

/** How a database knows a table of state: its keys begin with this number. */
export interface NumberedTable extends Pick<TableFigures, 'uid' | 'name' | 'layout' | 'version'> {
  readonly number: number;
}

export interface HeldRow {
  readonly ns: unknown;
  readonly value: unknown;
}

export interface KeyWalk {
  /** The keys of the next step; undefined behind the last. A promise where they come from disk. */
  next(): readonly Key[] | Promise<readonly Key[]> | undefined;
  /** Where the walk is given up before its end. */
  close?(): Promise<void>;
}

export interface Loaded {
  readonly rows: number;
  /** By `uid/name`: rows of tables that are not declared. */
  readonly unknown: ReadonlyMap<string, number>;
  /** Bytes of blocks, keys and values that were looked at. */
  readonly bytes: number;
}

/** A row file of which parts can be had: bytes `from` … `to` − 1, all of it where none are named. */
export interface LoadedParts {
  readonly bytes: number;
  read(range?: { readonly from: number; readonly to: number }): AsyncIterable<Uint8Array>;
}

/** The rows of a base that was linked. See linked-rows.ts. */
export interface LinkedRows {
  /** Keys and values of a table in these groups, page by page. */
  pages(table: number, range: KeyGroupRange): AsyncIterable<readonly (readonly [key: Buffer, value: Buffer])[]>;
}

/** What a base is made of: the MANIFEST, or a table of the database with its number. */
export interface LinkedFile {
  readonly number: number | undefined;
  readonly bytes: number;
  read(): AsyncIterable<Uint8Array>;
}

/**
 * A base that is made by hard links (protocols 1.3): first what changed and is in memory alone is written down, then LevelDB's memory is flushed, then its tables
 * are linked into a folder beside it.
 */
export interface Link {
  /** The lowest of the newest barriers that its tasks had frozen when it began. */
  readonly b: number;
  /** Works until `deadline` (performance.now()). 'again': more to do; a promise: nothing to do before it settles; 'done': `files` can be read. */
  step(deadline: number): 'again' | 'done' | Promise<void>;
  /** The highest of the newest barriers that its tasks had frozen when the links were verified; only after 'done', as are the others. */
  readonly n: number;
  readonly files: readonly LinkedFile[];
  /** The tables of an operator, as the database knows them. */
  tables(uid: string): readonly NumberedTable[];
  /** Lets the files go. Before 'done' it gives the base up. */
  close(): Promise<void>;
}

export interface Delta {
  readonly id: number;
  readonly rows: number;
  readonly bytes: number;
  readonly blocks: readonly Uint8Array[];
}

export interface Sweep {
  /** The newest barrier frozen when the sweep began. */
  readonly b: number;
  /** Works until `deadline` (performance.now()). 'again': more to do; a promise: nothing to do before it settles; 'done'. */
  step(deadline: number): 'again' | 'done' | Promise<void>;
  /** Content finished so far and not yet taken, to be appended to the base's file. After 'done' the rest with the footer. */
  take(): Uint8Array[];
  /** The newest barrier frozen when the sweep ended; only after 'done'. */
  readonly n: number;
  readonly rows: number;
  cancel(): void;
}
