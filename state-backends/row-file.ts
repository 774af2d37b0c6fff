// Row files: the one format of deltas and bases. Every byte is written down in docs/formats-state.md.
//
// A file is magic, header frame, block frames, footer frame. A frame is CRC32 (over all that follows it), length, type, content; the footer counts
// what went before and ends the file. So every flipped bit is in some frame's checksum or in the magic, and every truncation loses the footer.
//
// Invariants:
//  F1  Later rows win over earlier ones, in a file and across files; a tombstone deletes.
//  F2  A reader gives no row of a block whose checksum it has not compared.

import { crc32 } from 'node:zlib';
import { ByteReader, ByteWriter } from './byte-writer.ts';
import { decodeFrom } from './codec.ts';
import type { Key } from './contract.ts';
import { readKey, writeKey } from './keys.ts';
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
export const FORMAT_VERSION = 1;
const FRAME = 9;
const HEADER = 1;
const BLOCK = 2;
const FOOTER = 3;
/** A block is closed when it has this many bytes. */
const BLOCK_BYTES = 1 << 16;
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

export function fileStart(tables: readonly TableHeader[]): Buffer {
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
  return Buffer.concat([MAGIC, frame(HEADER, out.take())]);
}

export function fileEnd(rows: number, blocks: number): Buffer {
  const out = Buffer.allocUnsafe(12);
  out.writeUIntBE(rows, 0, 6);
  out.writeUIntBE(blocks, 6, 6);
  return frame(FOOTER, out);
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

/** Rows, encoded straight into blocks. */
export class BlockWriter {
  readonly out = new ByteWriter(1 << 12);
  private rowsHere = 0;
  private finished: Buffer[] = [];
  rows = 0;
  blocks = 0;
  bytes = 0;

  /** Begins a row: table and kind, key. The namespace and the value follow, then `end`. */
  begin(table: number, kind: RowKind, key: Key): void {
    this.head(table, kind);
    writeKey(this.out, key);
  }

  /** The same with a key in canonical bytes. */
  beginRaw(table: number, kind: RowKind, key: Uint8Array): void {
    this.head(table, kind);
    this.out.raw(key);
  }

  private head(table: number, kind: RowKind): void {
    const { out } = this;
    if (out.at === 0) {
      out.need(FRAME + 4);
      out.at = FRAME + 4;
    }
    out.varint(table * 4 + kind);
  }

  end(): void {
    this.rows++;
    this.rowsHere++;
    if (this.out.at >= BLOCK_BYTES) this.close();
  }

  private close(): void {
    if (this.rowsHere === 0) return;
    this.out.bytes.writeUInt32BE(this.rowsHere, FRAME);
    const place = placeFor(this.out.at);
    this.out.moveTo(place);
    const block = sealed(place, BLOCK);
    this.finished.push(block);
    this.bytes += block.length;
    this.blocks++;
    this.rowsHere = 0;
  }

  /** The blocks finished and not yet taken. */
  take(): Buffer[] {
    const blocks = this.finished;
    this.finished = [];
    return blocks;
  }

  /** Closes the last block, gives all that are left. */
  finish(): Buffer[] {
    this.close();
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

/** Reads a file as it comes in, in chunks of any size. */
export class RowFileReader {
  private waiting: Buffer = Buffer.alloc(0);
  private began = false;
  private headed = false;
  private ended = false;
  private blocks = 0;
  rows = 0;
  tables: readonly TableHeader[] = [];
  private readonly onHeader: (tables: readonly TableHeader[]) => void;
  private readonly onRow: RowVisitor;

  constructor(onHeader: (tables: readonly TableHeader[]) => void, onRow: RowVisitor) {
    this.onHeader = onHeader;
    this.onRow = onRow;
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
      if (crc32(this.waiting.subarray(4, end)) !== this.waiting.readUInt32BE(0)) throw corrupt('a checksum does not match');
      const content = this.waiting.subarray(FRAME, end);
      const type = this.waiting[8]!;
      this.waiting = this.waiting.subarray(end);
      this.content(type, content);
    }
  }

  private content(type: number, content: Buffer): void {
    if (!this.headed && type === HEADER) this.header(content);
    else if (this.headed && type === BLOCK) this.block(content);
    else if (this.headed && type === FOOTER) this.footer(content);
    else throw corrupt('a frame is out of place');
  }

  private header(content: Buffer): void {
    const from = new ByteReader(content);
    const tables: TableHeader[] = [];
    reading(() => {
      const version = from.varint();
      if (version !== FORMAT_VERSION) {
        throw new StateError('SNAPSHOT_INCOMPATIBLE', `A row file has format ${version}, this release reads ${FORMAT_VERSION}.`, {
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
    });
    this.tables = tables;
    this.headed = true;
    this.onHeader(tables);
  }

  private block(content: Buffer): void {
    this.blocks++;
    const from = new ByteReader(content);
    const { tables, onRow } = this;
    let left = reading(() => {
      from.at = 4;
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

  private footer(content: Buffer): void {
    if (content.length !== 12 || content.readUIntBE(0, 6) !== this.rows || content.readUIntBE(6, 6) !== this.blocks) throw corrupt('its counts do not match');
    this.ended = true;
  }

  /** After the last chunk. */
  end(): void {
    if (!this.ended) throw corrupt('it is cut off');
  }
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
