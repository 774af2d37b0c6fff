// A column: some values of anything, written as what they have in common. What is common is seen while writing; the first byte says how the rest is to be read.
//
//   ANY        one array of the codec of state
//   INTEGERS   the least (f64), bytes of each (0, 1, 2 or 4), how much each is above the least (LE)
//   FLOATS     8 bytes each (LE)
//   BOOLEANS   1 byte each
//   TEXTS      texts
//   WORDS      how many there are (varint), texts, bytes of each number (0, 1, 2 or 4), of each value the number of its word
//   texts      1 where all is ASCII, how many bytes (u32 LE), all of them, the bytes of each (varint)
//
// Invariants:
//  X1  What is read equals what was written: −0 and NaN are no integers, lone surrogates keep their bytes.
//  X2  A text that is read holds nothing but itself: V8 lets longer parts of a string keep the whole, so those are read one by one.

import { Buffer } from 'node:buffer';
import { endianness } from 'node:os';
import { type ByteReader, type ByteWriter, decodeFrom, encodeInto } from '../../../state-backends/index.ts';
import { BATCH_SIZE } from '../../runtime/batch.ts';

const ANY = 0;
const INTEGERS = 1;
const FLOATS = 2;
const BOOLEANS = 3;
const TEXTS = 4;
const WORDS = 5;

/** Parts of a string from this length on keep the whole. */
const SLICE_MIN = 13;
/** After columns of which most words differ none are looked for in so many. */
const PLAIN = 31;
const SWAPPED = endianness() === 'BE';

/** What was seen of a column in earlier batches. */
export interface ColumnMemo {
  plain: number;
}

/** What is read: valid until the same place is read into again, where it is typed. */
export type Column = readonly unknown[] | Float64Array | Int32Array;

let floats = new Float64Array(BATCH_SIZE);
let numbers = new Uint32Array(BATCH_SIZE);
const words = new Map<string, number>();

/** Appends the first `n`. Throws STATE_NOT_SERIALIZABLE. */
export function writeColumn(out: ByteWriter, column: readonly unknown[], n: number, memo: ColumnMemo): void {
  if (n > floats.length) floats = new Float64Array(n);
  if (n > numbers.length) numbers = new Uint32Array(n);
  const start = out.at;
  switch (typeof column[0]) {
    case 'number':
      if (writeNumbers(out, column, n)) return;
      break;
    case 'string':
      if (memo.plain > 0) memo.plain -= 1;
      else if (writeWords(out, column, n)) return;
      else memo.plain = PLAIN;
      out.at = start;
      out.u8(TEXTS);
      if (areTexts(column, n)) {
        writeTexts(out, n === column.length ? column : column.slice(0, n));
        return;
      }
      break;
    case 'boolean':
      if (writeBooleans(out, column, n)) return;
  }
  out.at = start;
  out.u8(ANY);
  encodeInto(out, n === column.length ? column : column.slice(0, n));
}

function writeNumbers(out: ByteWriter, column: readonly unknown[], n: number): boolean {
  let whole = true;
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < n; i++) {
    const x = column[i];
    if (typeof x !== 'number') return false;
    floats[i] = x;
    if (!whole) continue;
    if (!Number.isSafeInteger(x) || (x === 0 && 1 / x < 0)) whole = false;
    else {
      if (x < min) min = x;
      if (x > max) max = x;
    }
  }
  writeFloats(out, floats, 0, n, whole, min, max);
  return true;
}

/** Numbers, as they are and no copies of them. */
export function writeDoubles(out: ByteWriter, times: Float64Array, from: number, to: number): void {
  let whole = true;
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  for (let i = from; whole && i < to; i++) {
    const x = times[i]!;
    if (!Number.isSafeInteger(x) || (x === 0 && 1 / x < 0)) whole = false;
    else {
      if (x < min) min = x;
      if (x > max) max = x;
    }
  }
  writeFloats(out, times, from, to - from, whole, min, max);
}

function writeFloats(out: ByteWriter, from: Float64Array, offset: number, n: number, whole: boolean, min: number, max: number): void {
  if (!whole || !(max - min <= 0xffffffff)) {
    out.u8(FLOATS);
    writeRaw(out, from, offset, n, 8);
    return;
  }
  out.u8(INTEGERS);
  out.f64(min);
  const width = widthOf(max - min);
  out.u8(width);
  out.need(n * width);
  const { bytes } = out;
  let { at } = out;
  const end = offset + n;
  if (width === 1) for (let i = offset; i < end; i++) bytes[at++] = from[i]! - min;
  else if (width === 2) {
    for (let i = offset; i < end; i++) {
      const x = from[i]! - min;
      bytes[at++] = x;
      bytes[at++] = x >>> 8;
    }
  } else if (width === 4) {
    if (n > numbers.length) numbers = new Uint32Array(n);
    for (let i = 0; i < n; i++) numbers[i] = from[offset + i]! - min;
    writeRaw(out, numbers, 0, n, 4);
    return;
  }
  out.at = at;
}

/** Bytes that hold whole numbers of up to `max`. */
function widthOf(max: number): 0 | 1 | 2 | 4 {
  return max === 0 ? 0 : max < 0x100 ? 1 : max < 0x10000 ? 2 : 4;
}

/** What stands in `numbers`, none of them above `max`. */
function writeNumbered(out: ByteWriter, n: number, max: number): void {
  const width = widthOf(max);
  out.u8(width);
  out.need(n * width);
  const { bytes } = out;
  let { at } = out;
  if (width === 1) for (let i = 0; i < n; i++) bytes[at++] = numbers[i]!;
  else if (width === 2) {
    for (let i = 0; i < n; i++) {
      const x = numbers[i]!;
      bytes[at++] = x;
      bytes[at++] = x >>> 8;
    }
  } else if (width === 4) {
    writeRaw(out, numbers, 0, n, 4);
    return;
  }
  out.at = at;
}

/** A stretch of a typed array, little-endian. */
export function writeRaw(out: ByteWriter, from: Float64Array | Int32Array | Uint32Array, offset: number, n: number, width: 4 | 8): void {
  const start = out.at;
  out.raw(new Uint8Array(from.buffer, from.byteOffset + offset * width, n * width));
  if (SWAPPED) swap(out.bytes.subarray(start, out.at), width);
}

export function readRaw(from: ByteReader, into: Float64Array | Int32Array | Uint32Array, n: number, width: 4 | 8): void {
  const bytes = Buffer.from(into.buffer, into.byteOffset, n * width);
  bytes.set(from.raw(n * width));
  if (SWAPPED) swap(bytes, width);
}

function swap(bytes: Buffer, width: 4 | 8): void {
  if (width === 8) bytes.swap64();
  else bytes.swap32();
}

function writeBooleans(out: ByteWriter, column: readonly unknown[], n: number): boolean {
  out.u8(BOOLEANS);
  out.need(n);
  const { bytes } = out;
  let { at } = out;
  for (let i = 0; i < n; i++) {
    const x = column[i];
    if (typeof x !== 'boolean') return false;
    bytes[at++] = x ? 1 : 0;
  }
  out.at = at;
  return true;
}

/** False where there are other values than strings, or where most of them differ. */
function writeWords(out: ByteWriter, column: readonly unknown[], n: number): boolean {
  words.clear();
  const most = n >> 1;
  let before: unknown;
  let number: number | undefined;
  for (let i = 0; i < n; i++) {
    const x = column[i];
    // What comes several times in a row is mostly one string.
    if (x !== before || number === undefined) {
      if (typeof x !== 'string') return false;
      number = words.get(x);
      if (number === undefined) {
        number = words.size;
        if (number >= most) return false;
        words.set(x, number);
      }
      before = x;
    }
    numbers[i] = number;
  }
  const distinct = [...words.keys()];
  out.u8(WORDS);
  out.varint(distinct.length);
  writeTexts(out, distinct);
  writeNumbered(out, n, distinct.length - 1);
  return true;
}

function areTexts(column: readonly unknown[], n: number): column is readonly string[] {
  for (let i = 0; i < n; i++) if (typeof column[i] !== 'string') return false;
  return true;
}

function writeTexts(out: ByteWriter, texts: readonly string[]): void {
  const all = texts.join('');
  const ascii = Buffer.byteLength(all) === all.length;
  out.u8(ascii ? 1 : 0);
  out.need(4);
  const size = out.at;
  out.at += 4;
  if (ascii) {
    out.need(all.length);
    out.at += out.bytes.write(all, out.at, 'latin1');
    out.bytes.writeUInt32LE(all.length, size);
    out.need(texts.length * 5);
    const { bytes } = out;
    let { at } = out;
    for (let i = 0; i < texts.length; i++) {
      let length = texts[i]!.length;
      for (; length > 0x7f; length >>>= 7) bytes[at++] = (length & 0x7f) | 0x80;
      bytes[at++] = length;
    }
    out.at = at;
    return;
  }
  const lengths: number[] = [];
  for (const text of texts) lengths.push(out.text(text));
  out.bytes.writeUInt32LE(out.at - size - 4, size);
  for (const length of lengths) out.varint(length);
}

// ── reading ──

/** Where columns are read into, used again for each batch. */
export class ColumnPlace {
  any: unknown[] = new Array(BATCH_SIZE).fill(undefined);
  floats = new Float64Array(BATCH_SIZE);
  integers = new Int32Array(BATCH_SIZE);

  /** Lets go of what was read. */
  clear(n: number): void {
    this.any.fill(undefined, 0, n);
  }
}

/** Reads `n` values. Throws where the bytes are none. */
export function readColumn(from: ByteReader, n: number, place: ColumnPlace): Column {
  const kind = from.u8();
  switch (kind) {
    case ANY: {
      const read = decodeFrom(from);
      if (!Array.isArray(read) || read.length !== n) throw new RangeError('A column has another number of values than it says.');
      return read;
    }
    case INTEGERS: {
      const least = from.f64();
      const most = readNumbered(from, n);
      if (least >= -0x80000000 && least + most <= 0x7fffffff) {
        if (n > place.integers.length) place.integers = new Int32Array(n);
        const { integers } = place;
        for (let i = 0; i < n; i++) integers[i] = numbers[i]! + least;
        return integers;
      }
      if (n > place.floats.length) place.floats = new Float64Array(n);
      const { floats } = place;
      for (let i = 0; i < n; i++) floats[i] = numbers[i]! + least;
      return floats;
    }
    case FLOATS:
      room(from, n, 8);
      if (n > place.floats.length) place.floats = new Float64Array(n);
      readRaw(from, place.floats, n, 8);
      return place.floats;
    case BOOLEANS: {
      const bytes = from.raw(n);
      const { any } = place;
      for (let i = 0; i < n; i++) any[i] = bytes[i] === 1;
      return any;
    }
    case TEXTS:
      readTexts(from, n, place.any);
      return place.any;
    case WORDS: {
      const count = from.varint();
      const distinct: unknown[] = [];
      readTexts(from, count, distinct);
      if (readNumbered(from, n) >= count && n > 0) throw new RangeError('A column has a word that is none.');
      const { any } = place;
      if (count === 1) any.fill(distinct[0], 0, n);
      else for (let i = 0; i < n; i++) any[i] = distinct[numbers[i]!];
      return any;
    }
    default:
      throw new RangeError(`No column is of kind ${kind}.`);
  }
}

/** Timestamps; `into` has room for them. */
export function readTimes(from: ByteReader, n: number, into: Float64Array): void {
  const kind = from.u8();
  if (kind === FLOATS) readRaw(from, into, n, 8);
  else if (kind === INTEGERS) {
    const least = from.f64();
    readNumbered(from, n);
    for (let i = 0; i < n; i++) into[i] = numbers[i]! + least;
  } else throw new RangeError(`No column of times is of kind ${kind}.`);
}

/** Into `numbers`; returns the largest. */
function readNumbered(from: ByteReader, n: number): number {
  const width = from.u8();
  if (n > numbers.length) {
    room(from, n, width);
    numbers = new Uint32Array(n);
  }
  let most = 0;
  if (width === 0) numbers.fill(0, 0, n);
  else if (width === 4) {
    readRaw(from, numbers, n, 4);
    for (let i = 0; i < n; i++) if (numbers[i]! > most) most = numbers[i]!;
  } else if (width === 1 || width === 2) {
    let { at } = from;
    from.raw(n * width);
    const { bytes } = from;
    if (width === 1) {
      for (let i = 0; i < n; i++) {
        const x = bytes[at++]!;
        numbers[i] = x;
        if (x > most) most = x;
      }
    } else {
      for (let i = 0; i < n; i++, at += 2) {
        const x = bytes[at]! | (bytes[at + 1]! << 8);
        numbers[i] = x;
        if (x > most) most = x;
      }
    }
  } else throw new RangeError(`Numbers do not have ${width} bytes.`);
  return most;
}

/** Into the first `n` of `into`. */
function readTexts(from: ByteReader, n: number, into: unknown[]): void {
  const ascii = from.u8() === 1;
  const size = from.raw(4).readUInt32LE(0);
  const start = from.at;
  from.raw(size);
  // A length has a byte at least.
  room(from, n, 1);
  let at = start;
  const end = start + size;
  let all: string | undefined;
  for (let i = 0; i < n; i++) {
    const length = from.varint();
    const next = at + length;
    if (next > end) throw new RangeError('A text is longer than its bytes.');
    if (!ascii) {
      const after = from.at;
      from.at = at;
      into[i] = from.text(length);
      from.at = after;
    } else if (length >= SLICE_MIN) into[i] = from.bytes.toString('latin1', at, next);
    else {
      all ??= from.bytes.toString('latin1', start, end);
      into[i] = all.substring(at - start, next - start);
    }
    at = next;
  }
  if (at !== end) throw new RangeError('Texts have more bytes than they say.');
}

/** So many values may follow: nothing is made for ones that cannot. */
function room(from: ByteReader, n: number, width: number): void {
  if (n * width > from.end - from.at) throw new RangeError('A column is longer than its bytes.');
}
