// Looking at keyed state from outside of its operator: the rows of one key, all keys of a table, how large tables are.
//
// What: reads that change nothing. Whoever looks owns what he is given: values are copies, made of the row in memory, or of what the database has.
//
// Invariants:
//  K1  Looking neither marks a row as changed nor as used, counts as no hit or miss, and makes no row resident: it moves nothing in or out of memory.
//  K2  A walk gives every key that is in the table from its start to its end at least once, and no key that never was. Between two steps the table may
//      change, so it is no snapshot; a key that has moved between memory and database can come twice.
//  K3  One step of a walk is bounded: at most WALK_PLACES places of memory, or a page of the database.

import { ByteReader } from './byte-writer.ts';
import { copy, decodeFrom } from './codec.ts';
import type { HeldRow, Key, KeyWalk, Looking, TableFigures } from './contract.ts';
import { MemoryGroupedTable } from './grouped-table.ts';
import { DEAD, type MemoryGroup, type MemoryRow } from './row.ts';
import { readNamespace } from './row-file.ts';
import { MemorySingleTable } from './single-table.ts';
import type { AnyTable } from './sweep.ts';
import { GROUP_BYTES, ROW_BYTES, sizeOf, sizeOfKey } from './value-size.ts';

const WALK_PLACES = 2048;
/** Rows of a table that are weighed for its size; the rest are taken to be alike. */
const WEIGHED = 64;
const TIMER_BYTES = 120;
const NO_ROWS: readonly HeldRow[] = [];

export class TaskLooking implements Looking {
  private readonly all: readonly AnyTable[];

  constructor(tables: readonly AnyTable[]) {
    this.all = tables;
  }

  tables(): TableFigures[] {
    return this.all.map((table) => ({ ...table.header, rows: table.size, bytes: bytesOf(table) }));
  }

  rows(uid: string, name: string, key: Key, hash: number): readonly HeldRow[] {
    const table = this.table(uid, name);
    if (table instanceof MemorySingleTable) return singleRow(table, key, hash);
    if (table instanceof MemoryGroupedTable) return groupRows(table, key, hash);
    return NO_ROWS;
  }

  keys(uid: string, name: string): KeyWalk {
    const table = this.table(uid, name);
    return table instanceof MemorySingleTable || table instanceof MemoryGroupedTable ? new TableWalk(table) : { next: () => undefined };
  }

  private table(uid: string, name: string): AnyTable | undefined {
    return this.all.find(({ header }) => header.uid === uid && header.name === name);
  }
}

function singleRow(table: MemorySingleTable, key: Key, hash: number): readonly HeldRow[] {
  const row = table.resident(key, hash);
  if (row !== undefined) return (row.flags & DEAD) === 0 ? [{ ns: undefined, value: copy(row.value) }] : NO_ROWS;
  const stored = table.store?.peek(key, hash);
  return stored === undefined ? NO_ROWS : [{ ns: undefined, value: decodeFrom(new ByteReader(stored)) }];
}

function groupRows(table: MemoryGroupedTable, key: Key, hash: number): readonly HeldRow[] {
  const group = table.resident(key, hash);
  if (group !== undefined) return group.rows.map(({ ns, value }) => ({ ns, value: copy(value) }));
  const stored = table.store?.peek(key, hash);
  if (stored === undefined) return NO_ROWS;
  const from = new ByteReader(stored);
  return Array.from({ length: from.varint() }, () => {
    const ns = readNamespace(from, table.header.layout);
    from.varint();
    return { ns, value: decodeFrom(from) };
  });
}

/** Memory by position, then the database. */
class TableWalk implements KeyWalk {
  private readonly table: MemorySingleTable | MemoryGroupedTable;
  private at = 0;
  private stored: AsyncIterator<readonly Key[]> | undefined = undefined;
  private state: 'memory' | 'database' | 'ended' = 'memory';

  constructor(table: MemorySingleTable | MemoryGroupedTable) {
    this.table = table;
  }

  next(): readonly Key[] | Promise<readonly Key[]> | undefined {
    if (this.state === 'memory') {
      const places: readonly (MemoryRow | MemoryGroup | undefined)[] = this.table instanceof MemorySingleTable ? this.table.rows : this.table.groups;
      if (this.at < places.length) {
        const here = places.slice(this.at, this.at + WALK_PLACES);
        this.at += WALK_PLACES;
        return here.flatMap((place) => (place === undefined || isGone(place) ? [] : [place.key]));
      }
      // Opened now, not at the start: what memory has let go meanwhile is there by now.
      this.stored = this.table.store?.storedKeys();
      this.state = this.stored === undefined ? 'ended' : 'database';
    }
    if (this.state === 'ended') return undefined;
    return this.stored!.next().then(({ done, value }) => {
      if (done !== true) return value;
      this.state = 'ended';
      return [];
    });
  }

  async close(): Promise<void> {
    this.state = 'ended';
    await this.stored?.return?.();
  }
}

function isGone(place: MemoryRow | MemoryGroup): boolean {
  return 'rows' in place ? place.rows.length === 0 : (place.flags & DEAD) !== 0;
}

/** An estimate, in V8's heap; of what is not in memory, as large as it would be there. */
function bytesOf(table: AnyTable): number {
  if (!(table instanceof MemorySingleTable || table instanceof MemoryGroupedTable)) return table.size * TIMER_BYTES;
  const places: readonly (MemoryRow | MemoryGroup | undefined)[] = table instanceof MemorySingleTable ? table.rows : table.groups;
  const stride = Math.max(1, Math.floor(places.length / WEIGHED));
  let bytes = 0;
  let rows = 0;
  for (let i = 0; i < places.length; i += stride) {
    const place = places[i];
    if (place === undefined || isGone(place)) continue;
    if ('rows' in place) {
      // The first rows of a large group stand for the others.
      const seen = place.rows.slice(0, WEIGHED);
      const each = seen.reduce((sum, row) => sum + ROW_BYTES + sizeOfKey(row.ns) + sizeOf(row.value), 0) / seen.length;
      bytes += GROUP_BYTES + sizeOfKey(place.key) + each * place.rows.length;
      rows += place.rows.length;
    } else {
      bytes += ROW_BYTES + sizeOfKey(place.key) + sizeOf(place.value);
      rows += 1;
    }
  }
  return rows === 0 ? table.size * ROW_BYTES : Math.round((bytes / rows) * table.size);
}
