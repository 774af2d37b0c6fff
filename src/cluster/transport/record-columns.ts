// Records as columns, and back, shape by shape: functions compiled for each shape, so that reading a field and making an object cost what they cost in a program.
//
// A field that has only held numbers is split straight into a Float64Array: no number is boxed on its way, and nothing is there for the garbage collector to look at.
//
// Invariants:
//  Y1  Only plain objects with the same own keys in the same order have a shape; a key named __proto__ has none.
//  Y2  A writer compiles so many shapes, each when it is seen the second time; records of further ones go another way. A reader takes what several writers send,
//      and forgets the shape that it has had for longest.
//  Y3  A field that once held something else than a number is no longer taken for one: so a shape is compiled again once a field at most.

import { ByteReader, ByteWriter, decodeFrom, encodeInto } from '../../../state-backends/index.ts';
import { BATCH_SIZE } from '../../runtime/batch.ts';
import { type Column, type ColumnMemo, ColumnPlace } from './column.ts';

const SHAPES_MAX = 256;
const FIELDS_MAX = 40;

/**
 * Splits the records from `from` on into the rows from `at` on. Gives the index of the first that is not of the shape, or `to`; or, of one that has something else in a
 * field of numbers, −1 − its index.
 */
type Split = (values: readonly unknown[], from: number, to: number, at: number, columns: readonly (unknown[] | Float64Array)[]) => number;
type Join = (values: unknown[], at: number, from: number, to: number, columns: readonly Column[]) => void;

/** A shape as the writer knows it. */
export class SplitShape {
  readonly keys: readonly string[];
  /** As they are sent. */
  readonly names: Uint8Array;
  readonly memos: readonly ColumnMemo[];
  /** What was split last, by field: the first `rows` are filled. */
  readonly columns: (unknown[] | Float64Array)[];
  rows = 0;
  /** The field that the keys were found in last. */
  keyField = 0;
  #seen = 0;
  #room = BATCH_SIZE;
  #split: Split | undefined;

  constructor(keys: readonly string[]) {
    this.keys = keys;
    this.names = writeNames(keys);
    this.memos = keys.map(() => ({ plain: 0 }));
    this.columns = keys.map(() => []);
  }

  /** To be asked once a batch: false where it is not worth it yet. */
  get worth(): boolean {
    this.#seen += 1;
    return this.#seen > 1;
  }

  /** Appends the records from `from` on as rows, `to` − `from` more than there are at most. Gives the index of the first that is not of this shape, or `to`. */
  take(values: readonly unknown[], from: number, to: number): number {
    this.#split ??= this.#compiled(values[from]);
    const rows = this.rows + to - from;
    if (rows > this.#room) this.#grow(rows);
    let at = from;
    for (;;) {
      const next = this.#split(values, at, to, this.rows, this.columns);
      if (next >= 0) {
        this.rows += next - at;
        return next;
      }
      this.rows += -1 - next - at;
      at = -1 - next;
      this.#widen(values[at] as Record<string, unknown>);
    }
  }

  /** Lets go of what was split. */
  clear(): void {
    for (let k = 0; k < this.columns.length; k++) {
      const column = this.columns[k]!;
      if (column instanceof Float64Array) continue;
      if (column.length > BATCH_SIZE) column.length = BATCH_SIZE;
      column.fill(undefined, 0, this.rows);
    }
    this.rows = 0;
  }

  #compiled(first: unknown): Split {
    for (const [k, key] of this.keys.entries()) {
      if (this.columns[k]!.length > 0) continue;
      const isNumber = typeof (first as Record<string, unknown> | null | undefined)?.[key] === 'number';
      this.columns[k] = isNumber ? new Float64Array(BATCH_SIZE) : new Array<unknown>(BATCH_SIZE).fill(undefined);
    }
    return compileSplit(this.keys, this.columns);
  }

  /** Of numbers; other columns grow where they are written. */
  #grow(rows: number): void {
    this.#room = rows;
    for (const [k, column] of this.columns.entries()) {
      if (!(column instanceof Float64Array)) continue;
      const grown = new Float64Array(rows);
      grown.set(column);
      this.columns[k] = grown;
    }
  }

  /** Y3. */
  #widen(record: Record<string, unknown>): void {
    let others = this.keys.map((key) => typeof record[key] !== 'number');
    // A field that is read by a function may say something else each time.
    if (!others.some((other, k) => other && this.columns[k] instanceof Float64Array)) others = others.fill(true);
    for (const [k, column] of this.columns.entries()) {
      if (!(column instanceof Float64Array) || !others[k]) continue;
      const any = new Array<unknown>(BATCH_SIZE).fill(undefined);
      for (let i = 0; i < this.rows; i++) any[i] = column[i];
      this.columns[k] = any;
    }
    this.#split = compileSplit(this.keys, this.columns);
  }
}

/** A shape as the reader knows it. */
export class JoinShape {
  readonly places: readonly ColumnPlace[];
  readonly columns: Column[];
  /** How many rows there are, and how many of them have been joined. */
  rows = 0;
  joined = 0;
  readonly #join: Join;

  constructor(keys: readonly string[]) {
    this.places = keys.map(() => new ColumnPlace());
    this.columns = keys.map(() => []);
    this.#join = compileJoin(keys);
  }

  /** Makes records of the next `n` rows, into `values` from `at` on. */
  join(values: unknown[], at: number, n: number): void {
    this.#join(values, at, this.joined, this.joined + n, this.columns);
    this.joined += n;
  }

  clear(): void {
    for (const place of this.places) place.clear(this.rows);
    this.columns.fill([]);
    this.rows = 0;
    this.joined = 0;
  }
}

/** How many there are, and each by the codec of state. */
function writeNames(keys: readonly string[]): Uint8Array {
  const out = new ByteWriter(256);
  out.varint(keys.length);
  for (const key of keys) encodeInto(out, key);
  return out.take();
}

/** Throws where the bytes are none. */
export function readNames(names: Uint8Array): readonly string[] {
  const from = new ByteReader(names);
  const keys: string[] = [];
  for (let left = from.varint(); left > 0; left--) {
    const key = decodeFrom(from);
    if (typeof key !== 'string') throw new RangeError('A field has no name.');
    keys.push(key);
  }
  if (from.at !== from.end) throw new RangeError('Names take more bytes than they have.');
  return keys;
}

/** Shapes by a text that stands for their keys. */
export class Shapes<S> {
  readonly #known = new Map<string, S>();
  readonly #make: (keys: readonly string[]) => S;
  readonly #forgets: boolean;

  constructor(make: (keys: readonly string[]) => S, { forgets }: { readonly forgets: boolean }) {
    this.#make = make;
    this.#forgets = forgets;
  }

  /** Undefined: these keys have no shape, or there are too many. */
  of(name: string, read: () => readonly string[]): S | undefined {
    let shape = this.#known.get(name);
    if (shape !== undefined) return shape;
    const keys = read();
    if (keys.length === 0 || keys.length > FIELDS_MAX || keys.includes('__proto__')) return undefined;
    if (this.#known.size >= SHAPES_MAX) {
      if (!this.#forgets) return undefined;
      this.#known.delete(this.#known.keys().next().value!);
    }
    shape = this.#make([...keys]);
    this.#known.set(name, shape);
    return shape;
  }
}

/** The keys of a record that may have a shape. */
export function keysOf(value: unknown): readonly string[] | undefined {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype ? Object.keys(value) : undefined;
}

function compileSplit(keys: readonly string[], columns: readonly (unknown[] | Float64Array)[]): Split {
  const names = keys.map((_, k) => `c${k} = columns[${k}]`);
  const reads = keys.map((key, k) => `const f${k} = v[${JSON.stringify(key)}];`).join('\n    ');
  const others = keys.flatMap((_, k) => (columns[k] instanceof Float64Array ? [`typeof f${k} !== 'number'`] : []));
  const guard = others.length === 0 ? '' : `if (${others.join(' || ')}) return -1 - i;`;
  const writes = keys.map((_, k) => `c${k}[at] = f${k};`).join('\n    ');
  return new Function(
    'keys',
    'plain',
    `return function split(values, from, to, at, columns) {
  const ${names.join(', ')};
  for (let i = from; i < to; i++) {
    const v = values[i];
    if (typeof v !== 'object' || v === null || Object.getPrototypeOf(v) !== plain) return i;
    let k = 0;
    for (const key in v) if (keys[k++] !== key) return i;
    if (k !== ${keys.length}) return i;
    ${reads}
    ${guard}
    ${writes}
    at++;
  }
  return to;
};`,
  )(keys, Object.prototype) as Split;
}

function compileJoin(keys: readonly string[]): Join {
  const columns = keys.map((_, k) => `c${k} = columns[${k}]`);
  const fields = keys.map((key, k) => `${JSON.stringify(key)}: c${k}[i]`).join(', ');
  return new Function(`return function join(values, at, from, to, columns) {
  const ${columns.join(', ')};
  for (let i = from; i < to; i++) values[at++] = { ${fields} };
};`)() as Join;
}
