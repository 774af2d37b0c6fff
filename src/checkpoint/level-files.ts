// Whether the files of a LevelDB are whole: it compares hardly any of the checksums that it writes, and drops what it cannot read of a log without a word.
//
// What: read before the database is opened, and nothing is written. Of a log (the manifest is one, too) every record must be what was written; of a table every
// block. What is accepted is a last record that ends with the file: a process died while it wrote it, and nobody was told that it is there.
//
//   log     blocks of 32 KiB; record = crc32c:u32 length:u16 type:u8 payload, in which crc32c is masked and of type and payload; fewer than 7 bytes left: zeros
//   table   block* footer; each block is followed by its compression:u8 and crc32c:u32, masked, of both; the footer has places of the last two blocks
//   all numbers little-endian; varint as in docs/formats-state.md
//
// Invariant B1: only what CURRENT and its manifest name is looked at. Other files are leftovers, which LevelDB removes.

import { join } from 'node:path';
import type { Io } from '../runtime/io.ts';

const LOG_BLOCK = 32_768;
const RECORD = 7;
const FOOTER = 48;
const TABLE_MAGIC = Buffer.from('57fb808b247547db', 'hex');

/** Names the first file in that folder that is damaged, and says how; undefined: all are whole, or there is no database. */
export async function damageOf(folder: string, io: Io): Promise<{ readonly file: string; readonly why: string } | undefined> {
  const read = async (name: string): Promise<Buffer | undefined> => {
    try {
      return await io.fs.readFile(join(folder, name));
    } catch (error) {
      if ((error as { code?: string }).code === 'ENOENT') return undefined;
      throw error;
    }
  };
  const current = (await read('CURRENT'))?.toString('latin1');
  if (current === undefined) return undefined;
  if (!/^MANIFEST-\d+\n$/.test(current)) return { file: 'CURRENT', why: 'it names no manifest' };
  const manifest = current.trimEnd();
  const edits = await read(manifest);
  if (edits === undefined) return { file: manifest, why: 'it is gone' };
  const { records, damage } = readLog(edits);
  if (damage !== undefined) return { file: manifest, why: damage };
  const files = filesOf(records);
  if (files === undefined) return { file: manifest, why: 'it cannot be read' };
  const names = await io.fs.readdir(folder);
  for (const [number, size] of files.tables) {
    const name = names.find((each) => Number(/^(\d+)\.(?:ldb|sst)$/.exec(each)?.[1] ?? -1) === number);
    const table = name === undefined ? undefined : await read(name);
    if (table === undefined) return { file: `${String(number).padStart(6, '0')}.ldb`, why: 'it is gone' };
    if (table.length !== size) return { file: name!, why: `it has ${table.length} bytes instead of ${size}` };
    const wrong = tableDamage(table);
    if (wrong !== undefined) return { file: name!, why: wrong };
  }
  for (const name of names) {
    const number = /^(\d+)\.log$/.exec(name)?.[1];
    if (number === undefined || Number(number) < files.log) continue;
    const log = await read(name);
    const wrong = log === undefined ? undefined : readLog(log).damage;
    if (wrong !== undefined) return { file: name, why: wrong };
  }
  return undefined;
}

// ── logs ──

/** Pure. The records that are whole, up to the first damage. */
export function readLog(log: Buffer): { readonly records: readonly Buffer[]; readonly damage: string | undefined } {
  const records: Buffer[] = [];
  let parts: Buffer[] = [];
  for (let at = 0; at < log.length; ) {
    const left = LOG_BLOCK - (at % LOG_BLOCK);
    if (left < RECORD) {
      at += left;
      continue;
    }
    if (log.length - at < RECORD) break;
    const length = log.readUInt16LE(at + 4);
    const end = at + RECORD + length;
    if (length === 0 && log[at + 6] === 0) {
      // Room that a file system had made for what was never written.
      if (log.subarray(at).every((byte) => byte === 0)) break;
      return { records, damage: `at ${at} there is no record` };
    }
    if (end > log.length || RECORD + length > left) {
      const reach = Math.min(log.length, at + left);
      const complete = reach < log.length || recordsWithin(log, at, reach);
      if (complete) return { records, damage: `the length of the record at ${at} is wrong` };
      break;
    }
    if (masked(crc32c(log, at + 6, end)) !== log.readUInt32LE(at)) return { records, damage: `the checksum of the record at ${at} is wrong` };
    const type = log[at + 6]!;
    parts = type === 1 || type === 2 ? [log.subarray(at + RECORD, end)] : [...parts, log.subarray(at + RECORD, end)];
    if (type === 1 || type === 4) {
      records.push(Buffer.concat(parts));
      parts = [];
    }
    at = end;
  }
  return { records, damage: undefined };
}

/** Whether the record at that place is complete under another length than it says. */
function recordsWithin(log: Buffer, at: number, to: number): boolean {
  const wanted = log.readUInt32LE(at);
  let crc = 0xffffffff;
  for (let i = at + 6; i < to; i++) {
    crc = stepped(crc, log[i]!);
    if (masked((crc ^ 0xffffffff) >>> 0) === wanted) return true;
  }
  return false;
}

// ── the manifest ──

interface Live {
  /** Logs from this number on. */
  readonly log: number;
  /** Number → size. */
  readonly tables: ReadonlyMap<number, number>;
}

/** Pure. Which files there must be after these edits; undefined: they are none. */
function filesOf(edits: readonly Buffer[]): Live | undefined {
  const tables = new Map<number, number>();
  let log = 0;
  for (const edit of edits) {
    let at = 0;
    const varint = (): number => {
      let value = 0;
      for (let scale = 1; ; scale *= 128) {
        const byte = edit[at++];
        if (byte === undefined) throw new RangeError('cut off');
        value += (byte & 127) * scale;
        if (byte < 128) return value;
      }
    };
    const skip = (): void => {
      const length = varint();
      at += length;
    };
    try {
      while (at < edit.length) {
        const tag = varint();
        if (tag === 1) skip();
        else if (tag === 2) log = varint();
        else if (tag === 3 || tag === 4 || tag === 9) varint();
        else if (tag === 5) {
          varint();
          skip();
        } else if (tag === 6) {
          varint();
          tables.delete(varint());
        } else if (tag === 7) {
          varint();
          tables.set(varint(), varint());
          skip();
          skip();
        } else return undefined;
      }
    } catch {
      return undefined;
    }
  }
  return { log, tables };
}

// ── tables ──

/** Pure. Blocks lie one behind the other, so their checksums say where each ends. */
export function tableDamage(table: Buffer): string | undefined {
  const footer = table.length - FOOTER;
  if (footer < 0 || !table.subarray(-8).equals(TABLE_MAGIC)) return 'it is no table';
  const starts: number[] = [];
  let begun = 0;
  let crc = 0xffffffff;
  for (let at = 0; at + 5 <= footer; at++) {
    crc = stepped(crc, table[at]!);
    if (masked((crc ^ 0xffffffff) >>> 0) !== table.readUInt32LE(at + 1)) continue;
    starts.push(begun);
    begun = at + 5;
    at += 4;
    crc = 0xffffffff;
  }
  if (begun !== footer) return `the checksum of the block at ${begun} is wrong`;
  const [metaindex, index] = starts.slice(-2);
  let place = footer;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; place < table.length - 8; scale *= 128) {
      const byte = table[place++]!;
      value += (byte & 127) * scale;
      if (byte < 128) break;
    }
    return value;
  };
  const ends = [index, footer];
  for (const [at, start] of [metaindex, index].entries()) {
    if (varint() !== start || start + varint() + 5 !== ends[at]) return 'its footer is wrong';
  }
  return undefined;
}

// ── checksums ──

const TABLE = new Uint32Array(256).map((_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

function stepped(crc: number, byte: number): number {
  return (crc >>> 8) ^ TABLE[(crc ^ byte) & 255]!;
}

/** CRC-32C (Castagnoli) of the bytes `from` … `to` − 1. */
function crc32c(bytes: Buffer, from: number, to: number): number {
  let crc = 0xffffffff;
  for (let at = from; at < to; at++) crc = stepped(crc, bytes[at]!);
  return (crc ^ 0xffffffff) >>> 0;
}

/** As LevelDB stores it. */
function masked(crc: number): number {
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}
