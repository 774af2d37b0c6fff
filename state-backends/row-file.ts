// Row files: the one format of deltas and bases. Every byte is written down in docs/formats-state.md.
//
// A file is magic, header frame, block frames, index frame, footer frame. A frame is CRC32 (over all that follows it), length, type, content; the footer counts
// what went before and ends the file. So every flipped bit is in some frame's checksum or in the magic, and every truncation loses the footer.
//
// A block has rows of a few neighbouring key groups only, and the index says of which: whoever needs a part of the groups reads a part of the file.
//
// Invariants:
//  F1  Later rows win over earlier ones, in a file and across files; a tombstone deletes. All rows of a key lie in blocks of the same groups, in their order.
//  F2  A reader gives no row of a block whose checksum it has not compared.

import { crc32 } from 'node:zlib';
import { ByteReader, ByteWriter } from './byte-writer.ts';
import { decodeFrom } from './codec.ts';
import type { Key, KeyGroupRange, LoadedParts } from './contract.ts';
import { groupOf, readKey, writeKey } from './keys.ts';
import { StateError } from './state-error.ts';

export const LAYOUTS = ['single', 'ordered', 'keyed', 'timers'] as const;
export type Layout = (typeof LAYOUTS)[number];

export interface TableHeader {
  readonly uid: string;
  readonly name: string;
  readonly layout: Layout;
  readonly version: number;
}

const MAGIC = Buffer.from('MLRSTATE', 'latin1');
export const FORMAT_VERSION = 2;
const FRAME = 9;
const HEADER = 1;
/** Of format 1: rows of any groups. */
const BLOCK = 2;
const FOOTER = 3;
const GROUPED = 4;
const INDEX = 5;
/** In front of the rows of a block: how many there are, and of which groups. */
const BLOCK_HEAD = 8;
const FOOTER_1 = 12;
const FOOTER_2 = 16;
/** A block is closed when it has this many bytes. */
const BLOCK_BYTES = 1 << 16;
/** Into so many shares the key groups of a file are cut; each has a block of its own. */
const SHARES = 8;
/** Parts of a file that lie so near to each other are read at once. */
const GAP = 1 << 16;
const PART_BYTES = 1 << 22;
const CONTENT_MAX = 0x7fffffff;

function frame(type: number, content: Uint8Array): Buffer {
  const out = Buffer.allocUnsafe(FRAME + content.length);
  out.set(content, FRAME);
  return sealed(out, type);
}

function sealed(out: Buffer, type: number): Buffer {
  out.writeUInt32BE(out.length - FRAME, 4);
  out[8] = type;
  out.writeUInt32BE(crc32(out.subarray(4)), 0);
  return out;
}

/** Which key groups a file may have rows of. */
export interface Grouping {
  readonly maxParallelism: number;
  readonly range: KeyGroupRange;
}

export function fileStart(tables: readonly TableHeader[], maxParallelism: number): Buffer {
  const out = new ByteWriter();
  out.varint(FORMAT_VERSION);
  out.varint(tables.length);
  for (const table of tables) {
    for (const text of [table.uid, table.name]) {
      const bytes = Buffer.from(text, 'utf8');
      out.varint(bytes.length);
      out.raw(bytes);
    }
    out.u8(LAYOUTS.indexOf(table.layout));
    out.varint(table.version);
  }
  out.varint(maxParallelism);
  return Buffer.concat([MAGIC, frame(HEADER, out.take())]);
}

/** Of the blocks of a file, in their order: what its end says of them. */
export class FileEnd {
  private readonly entries = new ByteWriter(1 << 10);
  private rows = 0;
  private blocks = 0;

  /** Gives the blocks back. */
  note(blocks: readonly Buffer[]): readonly Buffer[] {
    const { entries } = this;
    for (const block of blocks) {
      const rows = block.readUInt32BE(FRAME);
      for (const value of [block.length, rows, block.readUInt16BE(FRAME + 4), block.readUInt16BE(FRAME + 6)]) entries.varint(value);
      this.rows += rows;
      this.blocks++;
    }
    return blocks;
  }

  /** The last bytes of the file: index and footer. */
  end(): Buffer {
    const count = new ByteWriter(16);
    count.varint(this.blocks);
    const index = frame(INDEX, Buffer.concat([count.take(), this.entries.take()]));
    const out = Buffer.allocUnsafe(FOOTER_2);
    out.writeUIntBE(this.rows, 0, 6);
    out.writeUIntBE(this.blocks, 6, 6);
    out.writeUInt32BE(index.length, 12);
    return Buffer.concat([index, frame(FOOTER, out)]);
  }
}

/** What a row of a file says: a value, that the row is gone, that all rows of the key are gone (grouped tables only). */
export type RowKind = 0 | 1 | 2;
export const VALUE: RowKind = 0;
export const TOMBSTONE: RowKind = 1;
export const KEY_TOMBSTONE: RowKind = 2;

/** Room for a block's last row. */
const POOLED_BYTES = BLOCK_BYTES + (1 << 13);
const POOL_MAX = 512;
const pool: ArrayBuffer[] = [];

/**
 * A place for a block. Blocks are alike, and many are made at once in the middle of a checkpoint: memory that V8 is told of while it marks makes it mark on for five
 * to ten milliseconds there and then.
 */
function placeFor(bytes: number): Buffer {
  if (bytes > POOLED_BYTES || bytes < BLOCK_BYTES) return Buffer.allocUnsafeSlow(bytes);
  return Buffer.from(pool.pop() ?? new ArrayBuffer(POOLED_BYTES), 0, bytes);
}

/** Blocks that nobody reads any more: their memory is used for others. */
export function releaseBlocks(blocks: readonly Uint8Array[]): void {
  for (const { buffer } of blocks) if (buffer.byteLength === POOLED_BYTES && pool.length < POOL_MAX) pool.push(buffer as ArrayBuffer);
}

/** Rows, encoded straight into blocks, one of each share of the groups at a time. */
export class BlockWriter {
  /** Of the row that was begun. */
  out: ByteWriter;
  private share = 0;
  private readonly grouping: Grouping;
  private readonly groups: number;
  private readonly shares: number;
  private readonly outs: (ByteWriter | undefined)[];
  private readonly rowsIn: number[];
  private finished: Buffer[] = [];
  rows = 0;
  blocks = 0;
  bytes = 0;

  constructor(grouping: Grouping) {
    this.grouping = grouping;
    this.groups = grouping.range.to - grouping.range.from + 1;
    this.shares = Math.max(1, Math.min(SHARES, this.groups));
    this.outs = new Array<undefined>(this.shares).fill(undefined);
    this.rowsIn = new Array<number>(this.shares).fill(0);
    this.out = new ByteWriter(16);
  }

  /** Begins a row: table and kind, key. The namespace and the value follow, then `end`. Gives the place in `out` where it begins. */
  begin(table: number, kind: RowKind, key: Key, hash: number): number {
    const start = this.head(table, kind, groupOf(hash, this.grouping.maxParallelism));
    writeKey(this.out, key);
    return start;
  }

  /** The same with a key in canonical bytes. */
  beginRaw(table: number, kind: RowKind, key: Uint8Array, group: number): number {
    const start = this.head(table, kind, group);
    this.out.raw(key);
    return start;
  }

  private head(table: number, kind: RowKind, group: number): number {
    const share = Math.floor(((group - this.grouping.range.from) * this.shares) / this.groups);
    let out = this.outs[share];
    if (out === undefined) {
      out = new ByteWriter(1 << 10);
      this.outs[share] = out;
    }
    this.share = share;
    this.out = out;
    if (out.at === 0) {
      out.need(FRAME + BLOCK_HEAD);
      out.at = FRAME + BLOCK_HEAD;
    }
    const start = out.at;
    out.varint(table * 4 + kind);
    return start;
  }

  end(): void {
    this.rows++;
    this.rowsIn[this.share]!++;
    if (this.out.at >= BLOCK_BYTES) this.close(this.share);
  }

  private close(share: number): void {
    const rows = this.rowsIn[share]!;
    if (rows === 0) return;
    const { grouping, groups, shares } = this;
    const out = this.outs[share]!;
    const first = (of: number): number => grouping.range.from + Math.ceil((of * groups) / shares);
    out.bytes.writeUInt32BE(rows, FRAME);
    out.bytes.writeUInt16BE(first(share), FRAME + 4);
    out.bytes.writeUInt16BE(first(share + 1) - 1, FRAME + 6);
    const place = placeFor(out.at);
    out.moveTo(place);
    const block = sealed(place, GROUPED);
    this.finished.push(block);
    this.bytes += block.length;
    this.blocks++;
    this.rowsIn[share] = 0;
  }

  /** The blocks finished and not yet taken. */
  take(): Buffer[] {
    const blocks = this.finished;
    this.finished = [];
    return blocks;
  }

  /** Closes the last blocks, gives all that are left. */
  finish(): Buffer[] {
    for (let share = 0; share < this.shares; share++) this.close(share);
    return this.take();
  }

  /** For another file, after `finish`. */
  restart(): void {
    this.rows = 0;
    this.blocks = 0;
    this.bytes = 0;
  }
}

export function writeNamespace(out: ByteWriter, layout: Layout, ns: unknown): void {
  if (layout === 'ordered' || layout === 'timers') out.f64(ns as number);
  else if (layout === 'keyed') writeKey(out, ns as Key);
}

export function readNamespace(from: ByteReader, layout: Layout): unknown {
  if (layout === 'ordered' || layout === 'timers') return from.f64();
  return layout === 'keyed' ? readKey(from) : undefined;
}

/** What a reader gives for each row. For timers `value` is the time. */
export type RowVisitor = (table: number, kind: RowKind, key: Key, ns: unknown, value: unknown) => void;

/** Whether rows of these groups are asked for. */
export type Wanted = (from: number, to: number) => boolean;

/** Reads a file as it comes in, in chunks of any size. */
export class RowFileReader {
  private waiting: Buffer = Buffer.alloc(0);
  private began = false;
  private format = 0;
  private indexed = -1;
  private ended = false;
  private blocks = 0;
  private blockBytes = 0;
  /** Of all blocks seen; of those left out too. */
  rows = 0;
  /** Bytes of the blocks whose rows were looked at. */
  readBytes = 0;
  tables: readonly TableHeader[] = [];
  /** By which the rows were laid in blocks; 0 in files of format 1, whose blocks have rows of any groups. */
  maxParallelism = 0;
  private readonly onHeader: (tables: readonly TableHeader[]) => void;
  private readonly onRow: RowVisitor;
  private readonly wanted: ((maxParallelism: number) => Wanted | undefined) | undefined;
  private wants: Wanted | undefined;

  /** `wanted` is asked once, for the number of groups that the file is laid out by; blocks without anything wanted are left out. */
  constructor(onHeader: (tables: readonly TableHeader[]) => void, onRow: RowVisitor, wanted?: (maxParallelism: number) => Wanted | undefined) {
    this.onHeader = onHeader;
    this.onRow = onRow;
    this.wanted = wanted;
  }

  push(chunk: Uint8Array): void {
    this.waiting = this.waiting.length === 0 ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length) : Buffer.concat([this.waiting, chunk]);
    if (!this.began) {
      if (this.waiting.length < MAGIC.length) return;
      if (!this.waiting.subarray(0, MAGIC.length).equals(MAGIC)) throw corrupt('it does not begin as a row file does');
      this.waiting = this.waiting.subarray(MAGIC.length);
      this.began = true;
    }
    for (;;) {
      if (this.ended) {
        if (this.waiting.length > 0) throw corrupt('bytes follow its footer');
        return;
      }
      if (this.waiting.length < FRAME) return;
      const length = this.waiting.readUInt32BE(4);
      if (length > CONTENT_MAX) throw corrupt('a frame claims an impossible length');
      const end = FRAME + length;
      if (this.waiting.length < end) return;
      const here = this.waiting.subarray(0, end);
      this.waiting = this.waiting.subarray(end);
      this.frame(here);
    }
  }

  private frame(bytes: Buffer): void {
    const { type, content } = opened(bytes);
    if (this.format === 0 && type === HEADER) this.header(content);
    else if (this.format === 1 && type === BLOCK) this.block(content, 4);
    else if (this.format === 2 && type === GROUPED && this.indexed === -1) this.groupedBlock(bytes, content);
    else if (this.format === 2 && type === INDEX && this.indexed === -1) this.index(bytes, content);
    else if (this.format > 0 && type === FOOTER) this.footer(content);
    else throw corrupt('a frame is out of place');
  }

  private header(content: Buffer): void {
    const from = new ByteReader(content);
    const tables: TableHeader[] = [];
    reading(() => {
      const version = from.varint();
      if (version !== 1 && version !== FORMAT_VERSION) {
        throw new StateError('SNAPSHOT_INCOMPATIBLE', `A row file has format ${version}, this release reads 1 and ${FORMAT_VERSION}.`, {
          todo: 'Restore it with the release that wrote it.',
        });
      }
      for (let i = from.varint(); i > 0; i--) {
        const uid = from.text(from.varint());
        const name = from.text(from.varint());
        const layout = LAYOUTS[from.u8()];
        if (layout === undefined) throw new RangeError('unknown layout');
        tables.push({ uid, name, layout, version: from.varint() });
      }
      if (version > 1) this.maxParallelism = from.varint();
      this.format = version;
    });
    this.tables = tables;
    if (this.maxParallelism > 0) this.wants = this.wanted?.(this.maxParallelism);
    this.onHeader(tables);
  }

  private groupedBlock(bytes: Buffer, content: Buffer): void {
    this.blockBytes += bytes.length;
    if (content.length < BLOCK_HEAD) throw corrupt('a block has no head');
    if (this.wants === undefined || this.wants(content.readUInt16BE(4), content.readUInt16BE(6))) {
      this.readBytes += bytes.length;
      this.block(content, BLOCK_HEAD);
    } else {
      this.blocks++;
      this.rows += content.readUInt32BE(0);
    }
  }

  private block(content: Buffer, head: number): void {
    this.blocks++;
    const from = new ByteReader(content);
    const { tables, onRow } = this;
    let left = reading(() => {
      from.at = head;
      return content.readUInt32BE(0);
    });
    this.rows += left;
    let table = 0;
    let kind: RowKind = VALUE;
    let key: Key = 0;
    let ns: unknown;
    let value: unknown;
    const next = (): void => {
      const head = from.varint();
      table = Math.floor(head / 4);
      const kindHere = head % 4;
      if (kindHere === 3) throw new RangeError('a row of no kind');
      kind = kindHere as RowKind;
      const layout = tables[table]?.layout;
      if (layout === undefined) throw new RangeError('a row of no table');
      key = readKey(from);
      ns = kind === KEY_TOMBSTONE ? undefined : readNamespace(from, layout);
      value = layout === 'timers' ? from.f64() : kind === VALUE ? decodeFrom(from) : undefined;
    };
    for (; left > 0; left--) {
      reading(next);
      onRow(table, kind, key, ns, value);
    }
    if (from.at !== content.length) throw corrupt('a block holds more than its rows');
  }

  private index(bytes: Buffer, content: Buffer): void {
    this.indexed = bytes.length;
    const entries = indexOf(content);
    if (entries.length !== this.blocks || entries.reduce((sum, { length }) => sum + length, 0) !== this.blockBytes) throw corrupt('its index does not match');
  }

  private footer(content: Buffer): void {
    if (this.format === 2 && (content.length !== FOOTER_2 || content.readUInt32BE(12) !== this.indexed)) throw corrupt('its footer does not match');
    if (this.format === 1 && content.length !== FOOTER_1) throw corrupt('its footer does not match');
    if (content.readUIntBE(0, 6) !== this.rows || content.readUIntBE(6, 6) !== this.blocks) throw corrupt('its counts do not match');
    this.ended = true;
  }

  /** After the last chunk. */
  end(): void {
    if (!this.ended) throw corrupt('it is cut off');
  }

  /**
   * Reads what is wanted of a file whose parts can be had one by one: footer, index, header, and the blocks that have something wanted. False where the file has
   * no index, or is damaged at its end: it is to be read whole then. `pause` is awaited after each part whose rows were given.
   */
  async parts(file: LoadedParts, pause?: () => Promise<void>): Promise<boolean> {
    const part = (offset: number, length: number): Promise<Buffer> => bytesOf(file, offset, length);
    const footerAt = file.bytes - FRAME - FOOTER_2;
    if (footerAt <= MAGIC.length) return false;
    const footer = await part(footerAt, FRAME + FOOTER_2);
    if (footer.readUInt32BE(4) !== FOOTER_2 || footer[8] !== FOOTER || crc32(footer.subarray(4)) !== footer.readUInt32BE(0)) return false;
    const indexBytes = footer.readUInt32BE(FRAME + 12);
    const index = opened(await part(footerAt - indexBytes, indexBytes));
    if (index.type !== INDEX) throw corrupt('a frame is out of place');
    const entries = indexOf(index.content);
    const blocksAt = footerAt - indexBytes - entries.reduce((sum, { length }) => sum + length, 0);
    if (blocksAt <= MAGIC.length) throw corrupt('its index does not match');
    this.push(await part(0, blocksAt));
    if (this.format !== 2 || this.waiting.length > 0) throw corrupt('its index does not match');
    for (const run of runsOf(entries, blocksAt, this.wants ?? (() => true))) {
      const bytes = await part(run.at, run.bytes);
      for (const { at, length } of run.blocks) {
        const block = bytes.subarray(at - run.at, at - run.at + length);
        const { type, content } = opened(block);
        if (type !== GROUPED) throw corrupt('a frame is out of place');
        this.groupedBlock(block, content);
      }
      await pause?.();
    }
    this.ended = true;
    return true;
  }
}

async function bytesOf(file: LoadedParts, from: number, length: number): Promise<Buffer> {
  if (from < 0) throw corrupt('its index does not match');
  const parts: Uint8Array[] = [];
  for await (const part of file.read({ from, to: from + length })) parts.push(part);
  const bytes = Buffer.concat(parts);
  if (bytes.length !== length) throw corrupt('it is cut off');
  return bytes;
}

interface Indexed {
  readonly length: number;
  readonly rows: number;
  readonly from: number;
  readonly to: number;
}

function indexOf(content: Buffer): Indexed[] {
  const from = new ByteReader(content);
  return reading(() => {
    const entries = Array.from({ length: from.varint() }, () => ({ length: from.varint(), rows: from.varint(), from: from.varint(), to: from.varint() }));
    if (from.at !== content.length) throw new RangeError('an index holds more than it says');
    return entries;
  });
}

/** What is wanted, neighbours together. */
function runsOf(entries: readonly Indexed[], start: number, wanted: Wanted) {
  const runs: { readonly at: number; bytes: number; readonly blocks: { readonly at: number; readonly length: number }[] }[] = [];
  let at = start;
  for (const { length, from, to } of entries) {
    if (wanted(from, to)) {
      const last = runs.at(-1);
      if (last !== undefined && at - last.at - last.bytes <= GAP && at + length - last.at <= PART_BYTES) {
        last.bytes = at + length - last.at;
        last.blocks.push({ at, length });
      } else runs.push({ at, bytes: length, blocks: [{ at, length }] });
    }
    at += length;
  }
  return runs;
}

/** F2. */
function opened(bytes: Buffer): { readonly type: number; readonly content: Buffer } {
  if (bytes.length < FRAME || bytes.readUInt32BE(4) !== bytes.length - FRAME) throw corrupt('a frame is cut off');
  if (crc32(bytes.subarray(4)) !== bytes.readUInt32BE(0)) throw corrupt('a checksum does not match');
  return { type: bytes[8]!, content: bytes.subarray(FRAME) };
}

function reading<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof StateError) throw error;
    throw corrupt('a frame cannot be read', error);
  }
}

function corrupt(what: string, cause?: unknown): StateError {
  return new StateError('SNAPSHOT_CORRUPT', `A file of keyed state is damaged: ${what}.`, { todo: 'Restore an earlier checkpoint.', cause });
}
