// What a base that was linked holds: its tables are copied into a folder of its own, opened there as a database, and read by table and key group.
//
// Invariants:
//  L1  What is stored is never opened itself: LevelDB writes into the folder that it opens. The copy goes when it is closed.
//  L2  Only tables that overlap what is asked for are copied: the copy has a MANIFEST of its own, which names just these.

import { promises as fs, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Level } from 'level';
import { ByteReader } from './byte-writer.ts';
import type { FileRef, LevelBaseRef } from './chain.ts';
import { decodeFrom } from './codec.ts';
import type { KeyGroupRange, LinkedRows, NumberedTable } from './contract.ts';
import { groupOf, hashKey, readKey } from './keys.ts';
import type { Database } from './level-batch.ts';
import { type LiveTable, readManifest, tableName, writeManifest } from './manifest.ts';
import { BlockWriter, FileEnd, fileStart, type Layout, type RowVisitor, readNamespace, VALUE, writeNamespace } from './row-file.ts';
import { StateError } from './state-error.ts';

/** In front of a canonical key: table and group, two bytes each. */
export const LINKED_HEAD = 4;
const PAGE = 1000;
const ALL_GROUPS: readonly KeyGroupRange[] = [{ from: 0, to: 0x7fff }];
/** Of LevelDB, behind a key of its own. */
const SEQUENCE_BYTES = 8;

/** The keys of a table from one group to another, both included. */
export function keysOf(table: number, { from, to }: KeyGroupRange): { readonly gte: Buffer; readonly lt: Buffer } {
  const gte = Buffer.alloc(LINKED_HEAD);
  gte.writeUInt16BE(table, 0);
  gte.writeUInt16BE(from, 2);
  const lt = Buffer.alloc(LINKED_HEAD);
  lt.writeUInt32BE(table * 65_536 + to + 1, 0);
  return { gte, lt };
}

/** The rows that one entry of a database stands for; the first argument of `onRow` is the table's number. */
export function linkedRows({ number, layout }: { readonly number: number; readonly layout: Layout }, key: Buffer, stored: Buffer, onRow: RowVisitor): void {
  const from = new ByteReader(key);
  from.at = LINKED_HEAD;
  if (layout === 'timers') {
    const [time, ns] = [from.f64(), from.f64()];
    onRow(number, VALUE, readKey(from), ns, time);
    return;
  }
  const canonical = readKey(from);
  const rows = new ByteReader(stored);
  if (layout === 'single') {
    onRow(number, VALUE, canonical, undefined, decodeFrom(rows));
    return;
  }
  for (let left = rows.varint(); left > 0; left--) {
    const ns = readNamespace(rows, layout);
    rows.varint();
    onRow(number, VALUE, canonical, ns, decodeFrom(rows));
  }
}

/** What reads stored files. */
export interface LinkedSource {
  read(file: FileRef): AsyncIterable<Uint8Array>;
}

/** What is wanted of a base; all that counts of it by default. */
export interface Extent {
  readonly tables: readonly NumberedTable[];
  readonly ranges: readonly KeyGroupRange[] | undefined;
}

/** Of a base what overlaps these tables and groups. Pure. */
export function overlapping(live: readonly LiveTable[], { tables, ranges = ALL_GROUPS }: Extent): LiveTable[] {
  const wanted = tables.flatMap(({ number }) => ranges.map((range) => keysOf(number, range)));
  return live.filter(({ smallest, largest }) => {
    const [first, last] = [smallest, largest].map((key) => key.subarray(0, key.length - SEQUENCE_BYTES));
    return wanted.some(({ gte, lt }) => Buffer.compare(first!, lt) < 0 && Buffer.compare(last!, gte) >= 0);
  });
}

/**
 * Copies what is asked for of a base into a new folder within `scratch` (the system's for temporary files by default) and opens it there. `close` removes the
 * folder. Rejects as the source does, and with SNAPSHOT_CORRUPT where the files are no database.
 */
export async function openLinked(base: LevelBaseRef, source: LinkedSource, extent: Extent, scratch?: string): Promise<OpenedBase> {
  const folder = scratch === undefined ? temporaryFolder() : await fs.mkdtemp(join(scratch, 'base-'));
  try {
    const parts: Uint8Array[] = [];
    for await (const part of source.read(base.file)) parts.push(part);
    const manifest = readWhole(Buffer.concat(parts));
    const tables = overlapping(manifest.tables, extent);
    let bytes = 0;
    for (const { number } of tables) {
      const file = base.files.find((each) => each.number === number);
      if (file === undefined) throw corrupt(`its MANIFEST names the table ${number}, which it does not have`);
      bytes += file.bytes;
      await copy(source.read(file), join(folder, tableName(number)));
    }
    await fs.writeFile(join(folder, 'MANIFEST-000001'), writeManifest({ ...manifest, tables }));
    await fs.writeFile(join(folder, 'CURRENT'), 'MANIFEST-000001\n');
    const db: Database = new Level<Buffer, Buffer>(folder, { keyEncoding: 'buffer', valueEncoding: 'buffer', compression: false, createIfMissing: false });
    try {
      await db.open();
    } catch (error) {
      throw corrupt('it cannot be opened as a database', error);
    }
    return new OpenedBase(db, folder, bytes);
  } catch (error) {
    await fs.rm(folder, { recursive: true, force: true });
    throw error;
  }
}

function readWhole(bytes: Buffer) {
  try {
    const manifest = readManifest(bytes);
    if (manifest !== undefined) return manifest;
  } catch (error) {
    throw corrupt('its MANIFEST cannot be read', error);
  }
  throw corrupt('its MANIFEST is cut off');
}

async function copy(from: AsyncIterable<Uint8Array>, path: string): Promise<void> {
  const handle = await fs.open(path, 'wx');
  try {
    for await (const part of from) await handle.writeFile(part);
  } finally {
    await handle.close();
  }
}

export class OpenedBase implements LinkedRows {
  private readonly db: Database;
  private readonly folder: string;
  private closing: Promise<void> | undefined = undefined;
  /** Of the tables that were copied. */
  readonly bytes: number;

  constructor(db: Database, folder: string, bytes: number) {
    this.db = db;
    this.folder = folder;
    this.bytes = bytes;
  }

  async *pages(table: number, range: KeyGroupRange): AsyncGenerator<readonly (readonly [Buffer, Buffer])[], void> {
    const rows = this.db.iterator({ ...keysOf(table, range), keyEncoding: 'buffer', valueEncoding: 'buffer', fillCache: false });
    // The next page is read while this one is looked at.
    let coming = rows.nextv(PAGE) as Promise<[Buffer, Buffer][]>;
    try {
      for (;;) {
        const page = await coming;
        if (page.length === 0) return;
        coming = rows.nextv(PAGE) as Promise<[Buffer, Buffer][]>;
        coming.catch(() => undefined); // heard of at the next turn, or nobody asks any more
        yield page;
      }
    } catch (error) {
      throw error instanceof StateError ? error : corrupt('it cannot be read', error);
    } finally {
      await coming.catch(() => undefined);
      await rows.close();
    }
  }

  /** All rows of these tables in these groups. */
  async visit({ tables, ranges = ALL_GROUPS }: Extent, onRow: RowVisitor, between?: () => Promise<void>): Promise<void> {
    for (const table of tables) {
      for (const range of ranges) {
        for await (const page of this.pages(table.number, range)) {
          for (const [key, value] of page) linkedRows(table, key, value, onRow);
          await between?.();
        }
      }
    }
  }

  close(): Promise<void> {
    this.closing ??= this.db.close().then(() => fs.rm(this.folder, { recursive: true, force: true }));
    return this.closing;
  }
}

/** The same rows as a row file, for savepoints: laid out by that many key groups; `keep` leaves some out. */
export async function* rowsOfLinked(base: OpenedBase, extent: Extent, maxParallelism: number, keep: (hash: number) => boolean): AsyncIterable<Uint8Array> {
  const out = new BlockWriter({ maxParallelism, range: { from: 0, to: maxParallelism - 1 } });
  const end = new FileEnd();
  yield fileStart(extent.tables, maxParallelism);
  for (const [index, table] of extent.tables.entries()) {
    for (const range of extent.ranges ?? ALL_GROUPS) {
      for await (const page of base.pages(table.number, range)) {
        for (const [key, value] of page) writeRows(out, index, table, key, value, maxParallelism, keep);
        yield* end.note(out.take());
      }
    }
  }
  yield* end.note(out.finish());
  yield end.end();
}

function writeRows(
  out: BlockWriter,
  index: number,
  { layout }: NumberedTable,
  key: Buffer,
  stored: Buffer,
  maxParallelism: number,
  keep: (hash: number) => boolean,
): void {
  const from = new ByteReader(key);
  from.at = LINKED_HEAD;
  const timer = layout === 'timers' ? [from.f64(), from.f64()] : undefined;
  const canonical = readKey(from);
  const hash = hashKey(canonical);
  if (!keep(hash)) return;
  const begin = (): void => void out.beginRaw(index, VALUE, key.subarray(timer === undefined ? LINKED_HEAD : LINKED_HEAD + 16), groupOf(hash, maxParallelism));
  if (timer !== undefined) {
    begin();
    out.out.f64(timer[1]!);
    out.out.f64(timer[0]!);
    out.end();
  } else if (layout === 'single') {
    begin();
    out.out.raw(stored);
    out.end();
  } else {
    const rows = new ByteReader(stored);
    for (let left = rows.varint(); left > 0; left--) {
      begin();
      writeNamespace(out.out, layout, readNamespace(rows, layout));
      out.out.raw(rows.raw(rows.varint()));
      out.end();
    }
  }
}

/** `millrace-base-<pid>-<random>`; those of processes that are gone go too. */
function temporaryFolder(): string {
  for (const name of readdirSync(tmpdir())) {
    const pid = Number(/^millrace-base-(\d+)-/.exec(name)?.[1] ?? Number.NaN);
    if (Number.isNaN(pid) || pid === process.pid || lives(pid)) continue;
    rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
  return mkdtempSync(join(tmpdir(), `millrace-base-${process.pid}-`));
}

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // Somebody else's.
    return (error as { code?: unknown }).code === 'EPERM';
  }
}

function corrupt(what: string, cause?: unknown): StateError {
  return new StateError('SNAPSHOT_CORRUPT', `A base of keyed state is damaged: ${what}.`, { todo: 'Restore an earlier checkpoint.', cause });
}
