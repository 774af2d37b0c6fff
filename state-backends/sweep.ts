// The sweep of a base: every row that exists from its start to its end, with any value it had meanwhile (S4, protocols 1).
//
// What: first what LevelDB holds that is not in memory (nothing, for memory()), then memory by position. A row that leaves memory while the
// sweep goes on is appended by residency (`left`), so that none slips from the part not yet visited into the part already read.

import type { Sweep } from './contract.ts';
import type { MemoryGroupedTable } from './grouped-table.ts';
import type { Ledger } from './ledger.ts';
import type { MemoryRow } from './row.ts';
import { BlockWriter, FileEnd, fileStart } from './row-file.ts';
import type { MemorySingleTable } from './single-table.ts';
import type { MemoryTimerTable } from './timer-table.ts';

export type AnyTable = MemorySingleTable | MemoryGroupedTable | MemoryTimerTable;

/** The part of a sweep that reads LevelDB. Rows go to `out`. */
export interface StoredRows {
  step(out: BlockWriter, deadline: number): 'again' | 'done' | Promise<void>;
  cancel(): void;
}

export class TableSweep implements Sweep {
  readonly b: number;
  private end = -1;
  private readonly ledger: Ledger;
  private readonly tables: readonly AnyTable[];
  private stored: StoredRows | undefined;
  private readonly out: BlockWriter;
  private readonly fileEnd = new FileEnd();
  /** What left memory while LevelDB was read: newer than what is read there, so it comes after it. */
  private readonly leavers: BlockWriter;
  private ready: Buffer[] = [];
  private table = 0;
  private position = 0;
  /** The rest of a large group; a copy, since rows of it come and go between slices. */
  private group: readonly MemoryRow[] | undefined;
  private inGroup = 0;
  private state: 'sweeping' | 'done' | 'cancelled' = 'sweeping';
  private readonly onEnd: () => void;
  /** Nothing of the task was in LevelDB alone when the sweep began: whatever leaves memory is to be appended. */
  readonly memoryOnly: boolean;

  constructor(ledger: Ledger, tables: readonly AnyTable[], stored: StoredRows | undefined, onEnd: () => void) {
    this.b = ledger.lastFrozen;
    this.ledger = ledger;
    this.tables = tables;
    this.stored = stored;
    this.memoryOnly = stored === undefined;
    this.onEnd = onEnd;
    this.out = new BlockWriter(ledger.grouping);
    this.leavers = new BlockWriter(ledger.grouping);
    this.ready.push(fileStart(ledger.headers, ledger.grouping.maxParallelism));
  }

  /** Where rows that leave memory now are appended. */
  get left(): BlockWriter {
    return this.stored === undefined ? this.out : this.leavers;
  }

  step(deadline: number): 'again' | 'done' | Promise<void> {
    if (this.state !== 'sweeping') return 'done';
    if (this.stored !== undefined) {
      const how = this.stored.step(this.out, deadline);
      if (how !== 'done') return how;
      this.stored = undefined;
      this.ready.push(...this.fileEnd.note(this.out.finish()), ...this.fileEnd.note(this.leavers.finish()));
      if (performance.now() >= deadline) return 'again';
    }
    for (; this.table < this.tables.length; this.table++, this.position = 0) {
      if (!this.visit(this.tables[this.table]!, deadline)) return 'again';
    }
    this.end = this.ledger.lastFrozen;
    this.ready.push(...this.fileEnd.note(this.out.finish()), this.fileEnd.end());
    this.state = 'done';
    this.onEnd();
    return 'done';
  }

  private visit(table: AnyTable, deadline: number): boolean {
    // The places are counted anew in each slice: rows that came meanwhile may lie behind.
    if ('timers' in table) {
      const { timers } = table;
      for (let i = this.position; i < timers.length; i++) {
        const timer = timers[i];
        if (timer !== undefined) table.write(this.out, timer);
        if ((i & 63) === 63 && performance.now() >= deadline) {
          this.position = i + 1;
          return false;
        }
      }
      return true;
    }
    if ('groups' in table) return this.visitGroups(table, deadline);
    const { rows } = table;
    for (let i = this.position; i < rows.length; i++) {
      const row = rows[i];
      if (row !== undefined) table.writeAny(this.out, row);
      if ((i & 63) === 63 && performance.now() >= deadline) {
        this.position = i + 1;
        return false;
      }
    }
    return true;
  }

  private visitGroups(table: MemoryGroupedTable, deadline: number): boolean {
    const { groups } = table;
    let written = 0;
    for (;;) {
      if (this.group === undefined) {
        if (this.position >= groups.length) return true;
        const group = groups[this.position++];
        if (group === undefined) continue;
        if (!this.memoryOnly) table.writeKeyTombstone(this.out, group);
        this.group = group.rows.length > 256 ? group.rows.slice() : group.rows;
        this.inGroup = 0;
      }
      const rows = this.group;
      for (let i = this.inGroup; i < rows.length; i++) {
        // A row of the copy that was deleted meanwhile has its tombstone in a later delta.
        if (table.gone?.(rows[i]!.value) !== true) table.write(this.out, rows[i]!);
        if ((++written & 63) === 0 && rows.length > 256 && performance.now() >= deadline) {
          this.inGroup = i + 1;
          return false;
        }
      }
      this.group = undefined;
      if ((++written & 63) === 0 && performance.now() >= deadline) return false;
    }
  }

  take(): Uint8Array[] {
    const ready = this.ready;
    this.ready = [];
    if (this.state === 'sweeping') ready.push(...this.fileEnd.note(this.out.take()));
    return ready;
  }

  get n(): number {
    return this.end;
  }

  get rows(): number {
    return this.out.rows + this.leavers.rows;
  }

  cancel(): void {
    if (this.state !== 'sweeping') return;
    this.state = 'cancelled';
    this.stored?.cancel();
    this.stored = undefined;
    this.ready = [];
    this.onEnd();
  }
}
