// A batch ⇄ bytes: what crosses between hosts is encoded once, as columns, and self-contained.
//
//   flags (1: keyed), count (varint), timestamps (a column of numbers)
//   how the values are written, and the values:
//     TOGETHER  one array of the codec of state
//     APART     each by itself
//     COLUMN    primitives: one column
//     RECORDS   objects of one shape: how many fields (varint), their names (codec), a column for each
//   of keyed ones count × i32 hashes (LE), and the keys:
//     0                each as its canonical bytes
//     1                a column
//     2 + f            those that stand in field f
//
// Values are written by the codec of state, or as it would have them back: what cannot be stored cannot be sent either, and everything else arrives as it was.
//
// Invariants:
//  W1  readBatch(writeBatch(b)) equals b, apart from the identity of values: timestamps and hashes bit by bit, NaN and −0 included.
//  W2  A batch that holds what cannot be sent writes nothing, and names the first such record.
//  W3  What is read shares no memory with the bytes: they may be overwritten at once.

import { type ByteReader, type ByteWriter, decodeFrom, encodeInto, readKey, writeKey } from '../../../state-backends/index.ts';
import { asError } from '../../errors.ts';
import type { Key } from '../../graph/job.ts';
import { BATCH_SIZE, Batch, takeBatch } from '../../runtime/batch.ts';
import { ColumnPlace, readColumn, readRaw, readTimes, writeColumn, writeRaw, writeTimes } from './column.ts';
import { JoinShape, keysOf, Shapes, SplitShape } from './record-columns.ts';

const KEYED = 1;
const TOGETHER = 0;
const APART = 1;
const COLUMN = 2;
const RECORDS = 3;
const KEYS_APART = 0;
const KEYS_COLUMN = 1;
const KEYS_FIELD = 2;

/** No frame holds more records. */
export const RECORDS_MAX = 1 << 16;
/** Fewer are not worth columns. */
const COLUMNS_MIN = 8;

const splits = new Shapes((keys) => new SplitShape(keys), { forgets: false });
const joins = new Shapes((keys) => new JoinShape(keys), { forgets: true });
const keyMemo = { plain: 0 };
const valueMemo = { plain: 0 };
const keyPlace = new ColumnPlace();
const valuePlace = new ColumnPlace();

/** The first record of a batch that cannot be encoded. */
export class Unsendable extends Error {
  readonly index: number;
  constructor(index: number, cause: unknown) {
    super(asError(cause).message, { cause });
    this.index = index;
  }
}

/** Appends the records from `from` up to `to`, RECORDS_MAX at most. Throws Unsendable, and then nothing was appended. */
export function writeBatch(out: ByteWriter, batch: Batch, from = 0, to = batch.size): void {
  const start = out.at;
  const n = to - from;
  out.u8(batch.keyed ? KEYED : 0);
  out.varint(n);
  writeTimes(out, batch.timestamps, from, to);
  let shape: SplitShape | undefined;
  const at = out.at;
  try {
    shape = writeValues(out, batch.values, from, n);
  } catch {
    out.at = at;
    try {
      writeApart(out, batch.values, from, n);
    } catch (error) {
      out.at = start;
      throw error;
    }
  }
  if (batch.keyed) {
    writeRaw(out, batch.hashes, from, n, 4);
    writeKeys(out, batch.keys, from, n, shape);
  }
  shape?.clear(n);
}

/** The shape that they have, where they were written as records. */
function writeValues(out: ByteWriter, values: readonly unknown[], from: number, n: number): SplitShape | undefined {
  const start = out.at;
  if (n >= COLUMNS_MIN) {
    const first = values[from];
    const kind = typeof first;
    if (kind === 'number' || kind === 'string' || kind === 'boolean') {
      out.u8(COLUMN);
      writeColumn(out, from === 0 ? values : values.slice(from, from + n), n, valueMemo);
      return undefined;
    }
    const keys = keysOf(first);
    const shape = keys === undefined ? undefined : splits.of(keys);
    if (shape !== undefined) {
      let written = false;
      try {
        written = shape.split(values, from, n);
        if (written) writeRecords(out, shape, n);
      } catch (error) {
        shape.clear(n);
        throw error;
      }
      if (written) return shape;
      shape.clear(n);
    }
  }
  out.at = start;
  out.u8(TOGETHER);
  encodeInto(out, n === values.length ? values : values.slice(from, from + n));
  return undefined;
}

function writeRecords(out: ByteWriter, { keys, columns, memos }: SplitShape, n: number): void {
  out.u8(RECORDS);
  out.varint(keys.length);
  for (const key of keys) encodeInto(out, key);
  for (let k = 0; k < keys.length; k++) writeColumn(out, columns[k]!, n, memos[k]!);
}

/** One that is nested as deeply as can be stored is too deep inside of an array; and one that cannot be stored is found so. */
function writeApart(out: ByteWriter, values: readonly unknown[], from: number, n: number): void {
  out.u8(APART);
  for (let i = from; i < from + n; i++) {
    try {
      encodeInto(out, values[i]);
    } catch (error) {
      throw new Unsendable(i, error);
    }
  }
}

function writeKeys(out: ByteWriter, keys: readonly Key[], from: number, n: number, shape: SplitShape | undefined): void {
  const field = shape === undefined ? -1 : fieldOf(keys, from, n, shape.columns);
  const kind = typeof keys[from];
  if (field >= 0) out.u8(KEYS_FIELD + field);
  else if (kind === 'string' || kind === 'number') {
    out.u8(KEYS_COLUMN);
    writeColumn(out, from === 0 ? keys : keys.slice(from, from + n), n, keyMemo);
  } else {
    out.u8(KEYS_APART);
    for (let i = from; i < from + n; i++) writeKey(out, keys[i]!);
  }
}

/** The field that the keys were taken from: −0 is no key, so numbers are looked at twice. */
function fieldOf(keys: readonly Key[], from: number, n: number, columns: readonly (readonly unknown[])[]): number {
  search: for (let k = 0; k < columns.length; k++) {
    const column = columns[k]!;
    if (column[0] !== keys[from]) continue;
    for (let i = 0; i < n; i++) {
      const x = column[i];
      if (x !== keys[from + i] || (x === 0 && 1 / (x as number) < 0) || (typeof x !== 'string' && typeof x !== 'number')) continue search;
    }
    return k;
  }
  return -1;
}

/** Reads the batch at the cursor, into one of the pool where it fits. Throws where the bytes are none. */
export function readBatch(from: ByteReader): Batch {
  const flags = from.u8();
  const n = from.varint();
  // Columns of equal values take no bytes: what is made is bounded by this alone.
  if (flags > KEYED || n > RECORDS_MAX) throw new RangeError('A batch has more records than there can be.');
  const keyed = flags === KEYED;
  const batch = n > BATCH_SIZE ? new Batch(keyed, n) : takeBatch(keyed);
  readTimes(from, n, batch.timestamps);
  const shape = readValues(from, n, batch.values);
  if (keyed) {
    readRaw(from, batch.hashes, n, 4);
    readKeys(from, n, batch.keys, shape);
  }
  shape?.clear(n);
  batch.size = n;
  return batch;
}

function readValues(from: ByteReader, n: number, values: unknown[]): JoinShape | undefined {
  const how = from.u8();
  switch (how) {
    case TOGETHER: {
      const read = decodeFrom(from);
      if (!Array.isArray(read) || read.length !== n) throw new RangeError('A batch has another number of values than it says.');
      for (let i = 0; i < n; i++) values[i] = read[i];
      return undefined;
    }
    case APART:
      for (let i = 0; i < n; i++) values[i] = decodeFrom(from);
      return undefined;
    case COLUMN: {
      const column = readColumn(from, n, valuePlace);
      for (let i = 0; i < n; i++) values[i] = column[i];
      valuePlace.clear(n);
      return undefined;
    }
    case RECORDS: {
      const keys: string[] = [];
      for (let left = from.varint(); left > 0; left--) {
        const key = decodeFrom(from);
        if (typeof key !== 'string') throw new RangeError('A field has no name.');
        keys.push(key);
      }
      const shape = joins.of(keys);
      if (shape === undefined) throw new RangeError('Records have a shape that none can have.');
      for (let k = 0; k < keys.length; k++) shape.columns[k] = readColumn(from, n, shape.places[k]!);
      shape.join(values, n);
      return shape;
    }
    default:
      throw new RangeError(`Values are not written in a way ${how}.`);
  }
}

function readKeys(from: ByteReader, n: number, keys: Key[], shape: JoinShape | undefined): void {
  const how = from.u8();
  if (how === KEYS_APART) for (let i = 0; i < n; i++) keys[i] = readKey(from);
  else {
    const column = how === KEYS_COLUMN ? readColumn(from, n, keyPlace) : shape?.columns[how - KEYS_FIELD];
    if (column === undefined) throw new RangeError('The keys stand in a field that there is not.');
    for (let i = 0; i < n; i++) keys[i] = column[i] as Key;
    if (how === KEYS_COLUMN) keyPlace.clear(n);
  }
}
