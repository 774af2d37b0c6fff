// Snappy, as Kafka's Java client writes it: raw snappy blocks, each with its length before it, behind a header of 16 bytes. Bare raw snappy, which some
// clients write, is read, too.

import { findMatches, Unpacked } from './matches.ts';

const MAGIC = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00]);
const HEADER_BYTES = 16;
/** Of one raw block, before compression. */
const BLOCK_BYTES = 32 * 1024;

export function snappyCompressed(bytes: Buffer): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  MAGIC.copy(header);
  header.writeInt32BE(1, 8);
  header.writeInt32BE(1, 12);
  const parts: Buffer[] = [header];
  for (let start = 0; start < bytes.length; start += BLOCK_BYTES) {
    const block = rawCompressed(bytes, start, Math.min(bytes.length, start + BLOCK_BYTES));
    const length = Buffer.allocUnsafe(4);
    length.writeInt32BE(block.length);
    parts.push(length, block);
  }
  return Buffer.concat(parts);
}

export function snappyDecompressed(bytes: Buffer, limit: number): Buffer {
  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) {
    const unpacked = new Unpacked(0, limit);
    rawDecompressed(bytes, 0, bytes.length, unpacked);
    return unpacked.done();
  }
  const unpacked = new Unpacked(Math.min(limit, bytes.length * 4), limit);
  for (let at = HEADER_BYTES; at < bytes.length; ) {
    const length = bytes.readInt32BE(at);
    at += 4;
    if (length < 0 || at + length > bytes.length) throw new RangeError('it ends too soon');
    rawDecompressed(bytes, at, at + length, unpacked);
    at += length;
  }
  return unpacked.done();
}

function rawCompressed(bytes: Buffer, start: number, end: number): Buffer {
  // Literals cost five bytes at most for each stretch, and no match is shorter than what it is written with.
  const packed = Buffer.allocUnsafe(32 + (end - start) + Math.ceil((end - start) / 6));
  let at = 0;
  let left = end - start;
  for (; left > 127; left >>>= 7) packed[at++] = (left & 127) | 128;
  packed[at++] = left;
  findMatches(bytes, start, end, 0, (literal, until, distance, length) => {
    const plain = until - literal;
    if (plain > 0) {
      if (plain <= 60) packed[at++] = (plain - 1) << 2;
      else {
        // 61 << 2: the length stands in the two bytes that follow.
        packed[at++] = 61 << 2;
        at = packed.writeUInt16LE(plain - 1, at);
      }
      bytes.copy(packed, at, literal, until);
      at += plain;
    }
    for (let more = length; more > 0; ) {
      // None shorter than four is left over.
      const now = more > 68 ? 64 : more > 64 ? 60 : more;
      packed[at++] = ((now - 1) << 2) | 2;
      at = packed.writeUInt16LE(distance, at);
      more -= now;
    }
  });
  return packed.subarray(0, at);
}

function rawDecompressed(bytes: Buffer, start: number, end: number, into: Unpacked): void {
  let at = start;
  let total = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = bytes.readUInt8(at++);
    total += (byte & 127) * 2 ** shift;
    if (byte < 128) break;
    if (shift > 28) throw new RangeError('its length is damaged');
  }
  const before = into.length;
  while (at < end) {
    const tag = bytes[at++]!;
    let length = (tag >>> 2) + 1;
    switch (tag & 3) {
      case 0:
        if (length > 60) {
          const lengthBytes = length - 60;
          length = bytes.readUIntLE(at, lengthBytes) + 1;
          at += lengthBytes;
        }
        into.literal(bytes, at, length);
        at += length;
        break;
      case 1:
        into.match(((tag >>> 5) << 8) | bytes.readUInt8(at++), 4 + ((tag >>> 2) & 7));
        break;
      case 2:
        into.match(bytes.readUInt16LE(at), length);
        at += 2;
        break;
      default:
        into.match(bytes.readUInt32LE(at), length);
        at += 4;
    }
  }
  if (into.length - before !== total) throw new RangeError(`it unpacks to ${into.length - before} bytes, not to ${total}`);
}
