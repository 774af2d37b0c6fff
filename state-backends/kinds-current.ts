// What handles of keyed state share: the current key, and the row or the rows that it has in a table, looked up once a record.

import type { Group, GroupedTable, Key, Row, SingleTable } from './contract.ts';
import { StateError } from './state-error.ts';

/** The current key of a task's operator; `serial` tells handles that their cached row is of another record. The engine may write the fields itself. */
export class Current {
  key: Key = 0;
  hash = 0;
  serial = 0;
  present = false;

  demand(): void {
    if (!this.present) {
      throw new StateError('CONTEXT_USED_OUTSIDE_RECORD', 'Keyed state was used while no record or timer of its operator was processed.', {
        todo: 'Use state only within a handler, and do not keep `ctx` or `ctx.state` for later.',
      });
    }
  }
}

/** Elements in a row of a list. */
export const CHUNK = 64;

export function isShared(value: unknown): boolean {
  return typeof value === 'object' && value !== null;
}

/** The row of the current key, looked up once a record. */
export class CurrentRow {
  readonly table: SingleTable;
  protected readonly current: Current;
  private seen = -1;
  private found: Row | undefined = undefined;

  constructor(table: SingleTable, current: Current) {
    this.table = table;
    this.current = current;
  }

  protected row(): Row | undefined {
    const { current } = this;
    if (!current.present) current.demand();
    if (this.seen !== current.serial) {
      this.found = this.table.find(current.key, current.hash);
      this.seen = current.serial;
    }
    return this.found;
  }

  protected write(value: unknown): void {
    const row = this.row();
    if (row === undefined) this.found = this.table.insert(this.current.key, this.current.hash, value);
    else this.table.put(row, value);
  }

  clear(): void {
    const row = this.row();
    if (row === undefined) return;
    this.found = undefined;
    this.table.delete(row);
  }
}

/** The group of the current key, looked up once a record. */
export class CurrentGroup {
  protected readonly table: GroupedTable;
  protected readonly current: Current;
  private seen = -1;
  private found: Group | undefined = undefined;

  constructor(table: GroupedTable, current: Current) {
    this.table = table;
    this.current = current;
  }

  protected group(): Group | undefined {
    const { current } = this;
    if (!current.present) current.demand();
    if (this.seen !== current.serial) {
      this.found = this.table.find(current.key, current.hash);
      this.seen = current.serial;
    }
    // The last row takes its group with it; what is found next is a new one.
    if (this.found !== undefined && this.found.rows.length === 0) this.found = undefined;
    return this.found;
  }

  protected insert(ns: unknown, value: unknown): void {
    const group = this.group() ?? this.table.insert(this.current.key, this.current.hash);
    this.table.insertRow(group, ns, value);
    this.found = group;
  }

  clear(): void {
    const group = this.group();
    if (group === undefined) return;
    for (const row of [...group.rows].reverse()) this.table.deleteRow(group, row);
    this.found = undefined;
  }
}
