// The rows of one base or delta of a snapshot, whatever kind of file it is, for those who look at snapshots without a task.
//
// What: a row file is read as it is, or the blocks of the wanted groups where less than all of it is asked for; of a base that was linked the tables that overlap
// are copied and opened (state-backends/linked-rows.ts).

import {
  type BaseRef,
  type DeltaRef,
  groupOf,
  hashKey,
  type Key,
  type KeyGroupRange,
  type LevelBaseRef,
  openLinked,
  RowFileReader,
  rowsOfLinked,
  type TableHeader,
} from '../../state-backends/index.ts';
import { MillraceError, messageOf } from '../errors.ts';
import type { SnapshotStorage } from '../runtime/snapshot.ts';
import { corrupt } from './storage.ts';

export type StoredFiles = Pick<SnapshotStorage, 'read'>;

export interface RowsAsked {
  readonly maxParallelism: number;
  /** Of the groups that the ref counts for, only these; all by default. */
  readonly only?: readonly KeyGroupRange[] | undefined;
  /** Before any row, with the tables that there are; rows name them by their place. */
  readonly onTables: (tables: readonly TableHeader[]) => void;
  readonly onRow: (table: number, kind: number, key: Key, hash: number, ns: unknown, value: unknown) => void;
}

/** Rejects with SNAPSHOT_CORRUPT, which names the file. */
export async function visitRows(ref: BaseRef | DeltaRef, files: StoredFiles, { maxParallelism, only, onTables, onRow }: RowsAsked): Promise<void> {
  const ranges = only === undefined ? ref.ranges : cut(ref.ranges ?? [{ from: 0, to: maxParallelism - 1 }], only);
  const row = (table: number, kind: number, key: Key, ns: unknown, value: unknown): void => {
    const hash = hashKey(key);
    if (ranges === undefined || within(ranges, groupOf(hash, maxParallelism))) onRow(table, kind, key, hash, ns, value);
  };
  try {
    if ('tables' in ref) {
      await visitLinked(ref, ranges, files, onTables, row);
      return;
    }
    const reader = new RowFileReader(onTables, row, (of) =>
      of !== maxParallelism || ranges === undefined ? undefined : (from, to) => ranges.some((range) => from <= range.to && range.from <= to),
    );
    const { bytes } = ref.file;
    if (only !== undefined && (await reader.parts({ bytes, read: (range) => files.read(ref.file, range) }))) return;
    for await (const chunk of files.read(ref.file)) reader.push(chunk);
    reader.end();
  } catch (error) {
    if (error instanceof MillraceError || (error as { code?: unknown }).code !== 'SNAPSHOT_CORRUPT') throw error;
    throw corrupt(`files/${ref.file.name}`, messageOf(error), error);
  }
}

async function visitLinked(
  ref: LevelBaseRef,
  ranges: readonly KeyGroupRange[] | undefined,
  files: StoredFiles,
  onTables: RowsAsked['onTables'],
  onRow: (table: number, kind: number, key: Key, ns: unknown, value: unknown) => void,
): Promise<void> {
  const extent = { tables: ref.tables, ranges };
  onTables(ref.tables);
  const base = await openLinked(ref, files, extent);
  try {
    const places = new Map(ref.tables.map(({ number }, index) => [number, index]));
    await base.visit(extent, (number, kind, key, ns, value) => onRow(places.get(number)!, kind, key, ns, value));
  } finally {
    await base.close();
  }
}

/** The rows of a linked base as a row file. `keep`: of which hashes. */
export async function* linkedAsRows(ref: LevelBaseRef, files: StoredFiles, maxParallelism: number, keep: (hash: number) => boolean): AsyncIterable<Uint8Array> {
  const base = await openLinked(ref, files, { tables: ref.tables, ranges: ref.ranges });
  try {
    yield* rowsOfLinked(base, { tables: ref.tables, ranges: ref.ranges }, maxParallelism, keep);
  } finally {
    await base.close();
  }
}

function cut(ranges: readonly KeyGroupRange[], only: readonly KeyGroupRange[]): KeyGroupRange[] {
  return ranges
    .flatMap((range) => only.map(({ from, to }) => ({ from: Math.max(from, range.from), to: Math.min(to, range.to) })))
    .filter(({ from, to }) => from <= to);
}

function within(ranges: readonly KeyGroupRange[], group: number): boolean {
  return ranges.some(({ from, to }) => group >= from && group <= to);
}
