// A batch ⇄ bytes: what crosses between hosts is encoded once, as columns, and self-contained.
//
//   flags (1: keyed), count (varint), timestamps (a column of numbers)
//   how the values are written, and the values:
//     TOGETHER  one array of the codec of state
//     APART     each by itself
//     COLUMN    primitives: one column
//     RECORDS   objects of few shapes: how many shapes (varint); of each, the bytes of its names (varint), how many fields (varint), their names (codec), how many
//               records where there are several shapes (varint), a column for each field; where there are several, runs until all records are in one: which shape (u8), how many (varint)
//   of keyed ones count × i32 hashes (LE), and the keys:
//     0                each as its canonical bytes
//     1                a column
//     2 + f            those that stand in field f, where there is one shape
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
import { ColumnPlace, readColumn, readRaw, readTimes, writeColumn, writeDoubles, writeRaw } from './column.ts';
import { JoinShape, keysOf, readNames, Shapes, SplitShape } from './record-columns.ts';

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

/** More are not told apart in one batch. */
const SHAPES_IN_BATCH = 16;

const splits = new Shapes((keys) => new SplitShape(keys), { forgets: false });
const joins = new Shapes((keys) => new JoinShape(keys), { forgets: true });
const keyMemo = { plain: 0 };
const valueMemo = { plain: 0 };
const keyPlace = new ColumnPlace();
const valuePlace = new ColumnPlace();
/** The shapes of the batch that is written, in the order in which they were met, and which of them comes how often in a row. */
const shapes: SplitShape[] = [];
const runs: number[] = [];
/** The shapes of the batch that is read. */
const joined: JoinShape[] = [];

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
  writeDoubles(out, batch.timestamps, from, to);
  const at = out.at;
  try {
    try {
      writeValues(out, batch.values, from, n);
    } catch {
      letGo();
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
      writeKeys(out, batch.keys, from, n, shapes.length === 1 ? shapes[0] : undefined);
    }
  } finally {
    letGo();
  }
}

function letGo(): void {
  for (const shape of shapes) shape.clear();
  shapes.length = 0;
  runs.length = 0;
}

function writeValues(out: ByteWriter, values: readonly unknown[], from: number, n: number): void {
  const start = out.at;
  if (n >= COLUMNS_MIN) {
    const first = values[from];
    const kind = typeof first;
    if (kind === 'number' || kind === 'string' || kind === 'boolean') {
      out.u8(COLUMN);
      writeColumn(out, from === 0 ? values : values.slice(from, from + n), n, valueMemo);
      return;
    }
    if (splitAll(values, from, n)) {
      writeRecords(out);
      return;
    }
    letGo();
  }
  out.at = start;
  out.u8(TOGETHER);
  encodeInto(out, n === values.length ? values : values.slice(from, from + n));
}

/** Fills `shapes` and `runs`. False where there is a record that has no shape, or one that is not worth it. */
function splitAll(values: readonly unknown[], from: number, n: number): boolean {
  const to = from + n;
  for (let at = from; at < to; ) {
    let next = at;
    let which = 0;
    for (; which < shapes.length; which++) {
      next = shapes[which]!.take(values, at, to);
      if (next > at) break;
    }
    if (next === at) {
      const shape = otherShape(values[at]);
      if (shape === undefined) return false;
      shapes.push(shape);
      next = shape.take(values, at, to);
      // What it inherits can be listed too.
      if (next === at) return false;
    }
    runs.push(which, next - at);
    at = next;
  }
  return true;
}

/** That of a record that has none of those met so far. */
function otherShape(value: unknown): SplitShape | undefined {
  if (shapes.length === SHAPES_IN_BATCH) return undefined;
  const keys = keysOf(value);
  const shape = keys === undefined ? undefined : splits.of(JSON.stringify(keys), () => keys);
  return shape === undefined || shapes.includes(shape) || !shape.worth ? undefined : shape;
}

function writeRecords(out: ByteWriter): void {
  out.u8(RECORDS);
  out.varint(shapes.length);
  for (const { names, columns, memos, rows } of shapes) {
    out.varint(names.length);
    out.raw(names);
    if (shapes.length > 1) out.varint(rows);
    for (let k = 0; k < columns.length; k++) {
      const column = columns[k]!;
      if (column instanceof Float64Array) writeDoubles(out, column, 0, rows);
      else writeColumn(out, column, rows, memos[k]!);
    }
  }
  if (shapes.length === 1) return;
  for (let i = 0; i < runs.length; i += 2) {
    out.u8(runs[i]!);
    out.varint(runs[i + 1]!);
  }
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
  const field = shape === undefined ? -1 : fieldOf(keys, from, n, shape);
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

/** The field that the keys were taken from, or −1. */
function fieldOf(keys: readonly Key[], from: number, n: number, shape: SplitShape): number {
  const { columns, keyField } = shape;
  if (isKeys(columns[keyField]!, keys, from, n)) return keyField;
  for (let k = 0; k < columns.length; k++) {
    if (k === keyField || !isKeys(columns[k]!, keys, from, n)) continue;
    shape.keyField = k;
    return k;
  }
  return -1;
}

/** −0 is no key, so numbers are looked at twice. */
function isKeys(column: readonly unknown[] | Float64Array, keys: readonly Key[], from: number, n: number): boolean {
  for (let i = 0; i < n; i++) {
    const x = column[i];
    if (x !== keys[from + i] || (x === 0 && 1 / (x as number) < 0) || (typeof x !== 'string' && typeof x !== 'number')) return false;
  }
  return true;
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
  joined.length = 0;
  readValues(from, n, batch.values);
  if (keyed) {
    readRaw(from, batch.hashes, n, 4);
    readKeys(from, n, batch.keys, joined.length === 1 ? joined[0] : undefined);
  }
  for (const shape of joined) shape.clear();
  batch.size = n;
  return batch;
}

function readValues(from: ByteReader, n: number, values: unknown[]): void {
  const how = from.u8();
  switch (how) {
    case TOGETHER: {
      const read = decodeFrom(from);
      if (!Array.isArray(read) || read.length !== n) throw new RangeError('A batch has another number of values than it says.');
      for (let i = 0; i < n; i++) values[i] = read[i];
      return;
    }
    case APART:
      for (let i = 0; i < n; i++) values[i] = decodeFrom(from);
      return;
    case COLUMN: {
      const column = readColumn(from, n, valuePlace);
      for (let i = 0; i < n; i++) values[i] = column[i];
      valuePlace.clear(n);
      return;
    }
    case RECORDS:
      readRecords(from, n, values);
      return;
    default:
      throw new RangeError(`Values are not written in a way ${how}.`);
  }
}

function readRecords(from: ByteReader, n: number, values: unknown[]): void {
  const count = from.varint();
  if (count === 0 || count > SHAPES_IN_BATCH) throw new RangeError('Records have more shapes than a batch can have, or none.');
  let left = n;
  for (let s = 0; s < count; s++) {
    const shape = readShape(from);
    const rows = count === 1 ? n : from.varint();
    if (rows > left) throw new RangeError('Shapes have more records than there are.');
    left -= rows;
    shape.rows = rows;
    shape.joined = 0;
    joined.push(shape);
    for (let k = 0; k < shape.columns.length; k++) shape.columns[k] = readColumn(from, rows, shape.places[k]!);
  }
  if (left > 0) throw new RangeError('Shapes have fewer records than there are.');
  if (count === 1) joined[0]!.join(values, 0, n);
  for (let at = count === 1 ? n : 0; at < n; ) {
    const shape = joined[from.u8()];
    const run = from.varint();
    if (shape === undefined || run === 0 || run > shape.rows - shape.joined) throw new RangeError('Records are of a shape that has no more of them.');
    shape.join(values, at, run);
    at += run;
  }
}

function readShape(from: ByteReader): JoinShape {
  const names = from.raw(from.varint());
  // Its columns would be read over each other where one came twice.
  const shape = joins.of(names.toString('latin1'), () => readNames(names));
  if (shape === undefined || joined.includes(shape)) throw new RangeError('Records have a shape that none can have, or one that comes twice.');
  return shape;
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
