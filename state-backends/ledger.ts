// The ledger of a task: which rows changed in which interval, what of it is encoded already, and how a unit is undone.
//
// Why the files are right: a delta is `log` ⊕ `values`. Tombstones are written into the log at the moment of the deletion, and so is a changed row
// that leaves memory: the log is in the order in which things happened. Every other changed row is listed, and written into `values` after the
// freeze; whatever is still listed is alive, in memory, and newer than anything the log says of it. So a reader that applies log, then values,
// in order, has each row as it was at the freeze.
//
// Invariants:
//  L1  row.epoch = epoch exactly where the row is in its table's list of changes of the open interval.
//  L2  row.epoch = waiting exactly where the row is frozen and not encoded; it is encoded before anything about it changes (S1).
//  L3  At most one frozen interval is pending (S3).
//  L4  Within a unit the first change of a row keeps its image; going back runs the images in reverse (S7).

import { ByteReader } from './byte-writer.ts';
import { decodeFrom, encode } from './codec.ts';
import type { Delta } from './contract.ts';
import { type MemoryRow, UNLISTED } from './row.ts';
import { BlockWriter, FileEnd, fileStart, type Grouping, type TableHeader } from './row-file.ts';
import { StateError } from './state-error.ts';

/** What the ledger needs of a table that has values. */
export interface ValueTable extends FreezingTable {
  changed: MemoryRow[];
  writeFrozen(out: BlockWriter, row: MemoryRow): void;
  /** level(): the row is newer than its stored version. */
  dirtied(row: MemoryRow): void;
  /** level(): the row's value was replaced by one of another size. */
  resized(row: MemoryRow): void;
}

/** What the ledger needs of every table. */
export interface FreezingTable {
  /** The list of changes becomes the frozen one; a new one begins. */
  freeze(): void;
  /** Writes frozen rows until done or past the deadline; true when done. */
  encodeFrozen(out: BlockWriter, waiting: number, deadline: number): boolean;
}

class Image {
  readonly bytes: Uint8Array;
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }
}

export class Ledger {
  readonly tracked: boolean;
  readonly undo: boolean;
  readonly tables: FreezingTable[] = [];
  readonly headers: TableHeader[] = [];
  /** The open interval; rows begin with UNLISTED, so 0 is none. */
  epoch = 1;
  /** The frozen interval that is being encoded, −1 where none is. */
  waiting = -1;
  /** Within a unit that can be undone. */
  undoing = false;
  unit = 0;
  /** Id of the last barrier that was frozen, −1 before the first. */
  lastFrozen = -1;
  readonly grouping: Grouping;
  log: BlockWriter;
  /** Of the intervals before and after the open one, taken again and again. */
  private spare: BlockWriter;
  private readonly values: BlockWriter;
  private pending: { readonly id: number; readonly log: BlockWriter; readonly values: BlockWriter; table: number } | undefined;
  private finished: Delta[] = [];
  private steps: (() => void)[] = [];

  constructor(options: { readonly tracked: boolean; readonly undo: boolean } & Grouping) {
    this.tracked = options.tracked;
    this.undo = options.undo;
    this.grouping = { maxParallelism: options.maxParallelism, range: options.range };
    this.log = new BlockWriter(this.grouping);
    this.spare = new BlockWriter(this.grouping);
    this.values = new BlockWriter(this.grouping);
  }

  // ── changes ──

  /** The row is about to change, or to be handed out. Called where `row.epoch !== epoch || undoing`. */
  change(table: ValueTable, row: MemoryRow): void {
    if (row.epoch === this.waiting) this.encodeWaiting(table, row);
    if (this.undoing && row.unit !== this.unit) this.keepImage(table, row);
    if (row.epoch !== this.epoch) this.list(table, row);
  }

  /** The row is in the open interval's changes from now on. */
  list(table: ValueTable, row: MemoryRow): void {
    row.epoch = this.epoch;
    if (this.tracked) {
      row.listed = table.changed.length;
      table.changed.push(row);
    }
    table.dirtied(row);
  }

  /** Takes a row out of the open interval's list; the last one takes its place. */
  unlist(table: ValueTable, row: MemoryRow): void {
    if (row.epoch === this.epoch && this.tracked) {
      const last = table.changed.pop()!;
      if (last !== row) {
        table.changed[row.listed] = last;
        last.listed = row.listed;
      }
    }
    row.epoch = UNLISTED;
  }

  encodeWaiting(table: ValueTable, row: MemoryRow): void {
    table.writeFrozen(this.pending!.values, row);
    row.epoch = UNLISTED;
  }

  /** Something frozen, not a row of a table with values, is written before it changes. */
  writeWaiting(write: (out: BlockWriter) => void): void {
    write(this.pending!.values);
  }

  // ── units ──

  beginUnit(): void {
    if (!this.undo) return;
    this.unit++;
    this.undoing = true;
  }

  commitUnit(): void {
    this.undoing = false;
    this.steps.length = 0;
  }

  rollbackUnit(): void {
    this.undoing = false;
    const { steps } = this;
    this.steps = [];
    for (let i = steps.length - 1; i >= 0; i--) steps[i]!();
  }

  /** What takes back the last change; only within a unit. */
  remember(step: () => void): void {
    this.steps.push(step);
  }

  private keepImage(table: ValueTable, row: MemoryRow): void {
    row.unit = this.unit;
    const { value } = row;
    const image = typeof value === 'object' && value !== null ? new Image(encode(value)) : value;
    this.steps.push(() => {
      this.change(table, row);
      row.value = image instanceof Image ? decodeFrom(new ByteReader(image.bytes)) : image;
      table.resized(row);
    });
  }

  // ── intervals ──

  freeze(id: number): void {
    if (!this.tracked) throw new StateError('STATE_MISUSED', 'A state that is not tracked was frozen.', { todo: 'Open the region with tracked: true.' });
    if (id <= this.lastFrozen) throw new StateError('STATE_MISUSED', `Barrier ${id} was frozen after barrier ${this.lastFrozen}.`);
    this.encode(Number.POSITIVE_INFINITY);
    const { log, values } = this;
    this.pending = { id, log, values, table: 0 };
    this.log = this.spare;
    this.spare = log;
    this.waiting = this.epoch++;
    this.lastFrozen = id;
    for (const table of this.tables) table.freeze();
  }

  encode(deadline: number): boolean {
    const { pending } = this;
    if (pending === undefined) return true;
    for (; pending.table < this.tables.length; pending.table++) {
      if (!this.tables[pending.table]!.encodeFrozen(pending.values, this.waiting, deadline)) return false;
    }
    this.pending = undefined;
    this.waiting = -1;
    this.finished.push(this.delta(pending.id, pending.log, pending.values));
    pending.log.restart();
    pending.values.restart();
    return true;
  }

  private delta(id: number, log: BlockWriter, values: BlockWriter): Delta {
    const end = new FileEnd();
    const content = [...end.note(log.finish()), ...end.note(values.finish())];
    const rows = log.rows + values.rows;
    if (rows === 0) return { id, rows: 0, bytes: 0, blocks: [] };
    const blocks = [fileStart(this.headers, this.grouping.maxParallelism), ...content, end.end()];
    return { id, rows, bytes: blocks.reduce((sum, block) => sum + block.length, 0), blocks };
  }

  takeDeltas(): Delta[] {
    const deltas = this.finished;
    this.finished = [];
    return deltas;
  }
}

/** Rows between two looks at the clock. */
export const SLICE_ROWS = 64;

export function writeRowFailed(header: TableHeader, error: unknown): unknown {
  if (!(error instanceof StateError)) return error;
  return new StateError(error.code, `State ${header.name} of ${header.uid}: ${error.message}`, { cause: error });
}
