// A batch ⇄ bytes: what crosses between hosts is encoded once, as columns, and self-contained.
//
//   flags (1: keyed), count (varint), count × f64 timestamps, of keyed ones count × i32 hashes (both little-endian, as they stand in memory), the keys, the values
//
// Values are written by the codec of state, so that what cannot be stored cannot be sent either, and everything else arrives as it was: see state-backends/codec.ts.
//
// Invariants:
//  W1  readBatch(writeBatch(b)) equals b, apart from the identity of values: timestamps and hashes bit by bit, NaN and −0 included.
//  W2  A batch that holds what cannot be sent writes nothing, and names the first such record.
//  W3  What is read shares no memory with the bytes: they may be overwritten at once.

import { endianness } from 'node:os';
import { type ByteReader, type ByteWriter, decodeFrom, encodeInto, readKey, writeKey } from '../../../state-backends/index.ts';
import { asError } from '../../errors.ts';
import { BATCH_SIZE, Batch, takeBatch } from '../../runtime/batch.ts';

const KEYED = 1;
/** How the values are written: as one array of the codec, or each by itself. */
const TOGETHER = 0;
const APART = 1;
const SWAPPED = endianness() === 'BE';

/** The first record of a batch that cannot be encoded. */
export class Unsendable extends Error {
  readonly index: number;
  constructor(index: number, cause: unknown) {
    super(asError(cause).message, { cause });
    this.index = index;
  }
}

/** Appends the records from `from` up to `to`. Throws Unsendable, and then nothing was appended. */
export function writeBatch(out: ByteWriter, batch: Batch, from = 0, to = batch.size): void {
  const start = out.at;
  const count = to - from;
  out.u8(batch.keyed ? KEYED : 0);
  out.varint(count);
  writeColumn(out, batch.timestamps, from, to, 8);
  if (batch.keyed) {
    writeColumn(out, batch.hashes, from, to, 4);
    for (let i = from; i < to; i++) writeKey(out, batch.keys[i]!);
  }
  const { values } = batch;
  const at = out.at;
  try {
    out.u8(TOGETHER);
    encodeInto(out, count === values.length ? values : values.slice(from, to));
  } catch {
    out.at = at;
    // One that is nested as deeply as can be stored is too deep inside of an array.
    out.u8(APART);
    for (let i = from; i < to; i++) {
      try {
        encodeInto(out, values[i]);
      } catch (cause) {
        out.at = start;
        throw new Unsendable(i, cause);
      }
    }
  }
}

/** Reads the batch at the cursor, into one of the pool where it fits. Throws where the bytes are none. */
export function readBatch(from: ByteReader): Batch {
  const flags = from.u8();
  const count = from.varint();
  if (flags > KEYED || count * 8 > from.end - from.at) throw new RangeError('A batch is longer than its bytes.');
  const keyed = flags === KEYED;
  const batch = count > BATCH_SIZE ? new Batch(keyed, count) : takeBatch(keyed);
  readColumn(from, batch.timestamps, count, 8);
  if (keyed) {
    readColumn(from, batch.hashes, count, 4);
    const { keys } = batch;
    for (let i = 0; i < count; i++) keys[i] = readKey(from);
  }
  const { values } = batch;
  const how = from.u8();
  if (how === TOGETHER) {
    const read = decodeFrom(from);
    if (!Array.isArray(read) || read.length !== count) throw new RangeError('A batch has another number of values than it says.');
    for (let i = 0; i < count; i++) values[i] = read[i];
  } else if (how === APART) for (let i = 0; i < count; i++) values[i] = decodeFrom(from);
  else throw new RangeError(`Values are not written in a way ${how}.`);
  batch.size = count;
  return batch;
}

function writeColumn(out: ByteWriter, column: Float64Array | Int32Array, from: number, to: number, width: 4 | 8): void {
  const at = out.at;
  out.raw(new Uint8Array(column.buffer, column.byteOffset + from * width, (to - from) * width));
  if (SWAPPED) swap(out.bytes.subarray(at, out.at), width);
}

function readColumn(from: ByteReader, column: Float64Array | Int32Array, count: number, width: 4 | 8): void {
  const bytes = Buffer.from(column.buffer, column.byteOffset, count * width);
  bytes.set(from.raw(count * width));
  if (SWAPPED) swap(bytes, width);
}

function swap(bytes: Buffer, width: 4 | 8): void {
  if (width === 8) bytes.swap64();
  else bytes.swap32();
}
