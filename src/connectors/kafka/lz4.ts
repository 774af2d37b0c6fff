// LZ4 frames, as Kafka's clients write them: independent blocks, no checksums but that of the header, which the Java client looks at.

import { findMatches, Unpacked } from './matches.ts';

const MAGIC = 0x184d2204;
/** Version 1, independent blocks. */
const FLAGS = 0x60;
/** Blocks of at most 64 KiB: code 4. */
const BLOCK_SIZE = 0x40;
const BLOCK_BYTES = 64 * 1024;
const STORED = 0x80000000;
/** The format wants the last five bytes to be literals, and no match to begin in the last twelve: one bound serves both. */
const TAIL = 12;

export function lz4Compressed(bytes: Buffer): Buffer {
  const header = Buffer.allocUnsafe(7);
  header.writeUInt32LE(MAGIC, 0);
  header[4] = FLAGS;
  header[5] = BLOCK_SIZE;
  header[6] = headerSum(header.subarray(4, 6));
  const parts: Buffer[] = [header];
  for (let start = 0; start < bytes.length; start += BLOCK_BYTES) {
    const end = Math.min(bytes.length, start + BLOCK_BYTES);
    const block = compressedBlock(bytes, start, end);
    const length = Buffer.allocUnsafe(4);
    if (block.length < end - start) {
      length.writeUInt32LE(block.length);
      parts.push(length, block);
    } else {
      length.writeUInt32LE((STORED | (end - start)) >>> 0);
      parts.push(length, bytes.subarray(start, end));
    }
  }
  parts.push(Buffer.alloc(4));
  return Buffer.concat(parts);
}

export function lz4Decompressed(bytes: Buffer, limit: number): Buffer {
  if (bytes.readUInt32LE(0) !== MAGIC) throw new RangeError('it is no LZ4 frame');
  const flags = bytes.readUInt8(4);
  const hasBlockSums = (flags & 0x10) !== 0;
  const headerEnd = 6 + ((flags & 0x08) !== 0 ? 8 : 0) + ((flags & 0x01) !== 0 ? 4 : 0);
  // Kafka's first LZ4 clients computed another sum, and the broker's batch has its own: it is not looked at.
  let at = headerEnd + 1;
  const unpacked = new Unpacked(Math.min(limit, bytes.length * 4), limit);
  for (;;) {
    const size = bytes.readUInt32LE(at);
    at += 4;
    if (size === 0) return unpacked.done();
    const length = size & 0x7fffffff;
    if (at + length > bytes.length) throw new RangeError('it ends too soon');
    if (size >= STORED) unpacked.literal(bytes, at, length);
    else decompressBlock(bytes, at, at + length, unpacked);
    at += length + (hasBlockSums ? 4 : 0);
  }
}

function compressedBlock(bytes: Buffer, start: number, end: number): Buffer {
  const packed = Buffer.allocUnsafe(32 + (end - start) + Math.ceil((end - start) / 4));
  let at = 0;
  const extend = (left: number): void => {
    let rest = left;
    for (; rest >= 255; rest -= 255) packed[at++] = 255;
    packed[at++] = rest;
  };
  findMatches(bytes, start, end, TAIL, (literal, until, distance, length) => {
    const plain = until - literal;
    const more = length === 0 ? 0 : length - 4;
    packed[at++] = (Math.min(plain, 15) << 4) | Math.min(more, 15);
    if (plain >= 15) extend(plain - 15);
    bytes.copy(packed, at, literal, until);
    at += plain;
    if (length === 0) return;
    at = packed.writeUInt16LE(distance, at);
    if (more >= 15) extend(more - 15);
  });
  return packed.subarray(0, at);
}

function decompressBlock(bytes: Buffer, start: number, end: number, into: Unpacked): void {
  let at = start;
  const extended = (short: number): number => {
    let length = short;
    if (short < 15) return length;
    for (;;) {
      const more = bytes.readUInt8(at++);
      length += more;
      if (more < 255) return length;
    }
  };
  while (at < end) {
    const token = bytes[at++]!;
    const plain = extended(token >>> 4);
    into.literal(bytes, at, plain);
    at += plain;
    // The last stretch has no match.
    if (at >= end) return;
    const distance = bytes.readUInt16LE(at);
    at += 2;
    into.match(distance, extended(token & 15) + 4);
  }
}

/** The second byte of xxHash32 of fewer than 16 bytes, seed 0. */
function headerSum(bytes: Buffer): number {
  let hash = (0x165667b1 + bytes.length) | 0;
  let at = 0;
  for (; at + 4 <= bytes.length; at += 4) {
    hash = (hash + Math.imul(bytes.readInt32LE(at), 0xc2b2ae3d)) | 0;
    hash = Math.imul(rotated(hash, 17), 0x27d4eb2f);
  }
  for (; at < bytes.length; at++) {
    hash = (hash + Math.imul(bytes[at]!, 0x165667b1)) | 0;
    hash = Math.imul(rotated(hash, 11), 0x9e3779b1);
  }
  hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca77);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae3d);
  return ((hash ^ (hash >>> 16)) >>> 8) & 0xff;
}

function rotated(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}
