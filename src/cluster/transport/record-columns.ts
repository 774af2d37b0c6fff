// Records of one shape as columns, and back: functions compiled for each shape, so that reading a field and making an object cost what they cost in a program.
//
// Invariants:
//  Y1  Only plain objects with the same own keys in the same order have a shape; a key named __proto__ has none.
//  Y2  A writer compiles so many shapes, each when it is seen the second time; records of further ones go another way. A reader takes what several writers send,
//      and forgets the shape that it has had for longest.

import { BATCH_SIZE } from '../../runtime/batch.ts';
import { type Column, type ColumnMemo, ColumnPlace } from './column.ts';

const SHAPES_MAX = 256;
const FIELDS_MAX = 40;

type Split = (values: readonly unknown[], from: number, n: number, keys: readonly string[], plain: object, ...columns: unknown[][]) => boolean;
type Join = (values: unknown[], n: number, ...columns: Column[]) => void;

/** A shape as the writer knows it. */
export class SplitShape {
  readonly keys: readonly string[];
  readonly memos: readonly ColumnMemo[];
  /** What `split` filled last. */
  readonly columns: unknown[][];
  #seen = 0;
  #split: Split | undefined;

  constructor(keys: readonly string[]) {
    this.keys = keys;
    this.memos = keys.map(() => ({ plain: 0 }));
    this.columns = keys.map(() => new Array<unknown>(BATCH_SIZE).fill(undefined));
  }

  /** False where not all of them have this shape, or it is not worth it yet. */
  split(values: readonly unknown[], from: number, n: number): boolean {
    this.#seen += 1;
    if (this.#seen < 2) return false;
    this.#split ??= compileSplit(this.keys);
    return this.#split(values, from, n, this.keys, Object.prototype, ...this.columns);
  }

  /** Lets go of what was split. */
  clear(n: number): void {
    for (const column of this.columns) column.fill(undefined, 0, n);
  }
}

/** A shape as the reader knows it. */
export class JoinShape {
  readonly places: readonly ColumnPlace[];
  readonly columns: Column[];
  readonly #join: Join;

  constructor(keys: readonly string[]) {
    this.places = keys.map(() => new ColumnPlace());
    this.columns = keys.map(() => []);
    this.#join = compileJoin(keys);
  }

  join(values: unknown[], n: number): void {
    this.#join(values, n, ...this.columns);
  }

  clear(n: number): void {
    for (const place of this.places) place.clear(n);
    this.columns.fill([]);
  }
}

/** Shapes by their keys. */
export class Shapes<S> {
  readonly #known = new Map<string, S>();
  readonly #make: (keys: readonly string[]) => S;
  readonly #forgets: boolean;

  constructor(make: (keys: readonly string[]) => S, { forgets }: { readonly forgets: boolean }) {
    this.#make = make;
    this.#forgets = forgets;
  }

  /** Undefined: these keys have no shape, or there are too many. */
  of(keys: readonly string[]): S | undefined {
    const name = JSON.stringify(keys);
    let shape = this.#known.get(name);
    if (shape !== undefined) return shape;
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

function compileSplit(keys: readonly string[]): Split {
  const columns = keys.map((_, k) => `c${k}`);
  const fields = keys.map((key, k) => `c${k}[i] = v[${JSON.stringify(key)}];`).join('\n    ');
  return new Function(
    `return function split(values, from, n, keys, plain, ${columns.join(', ')}) {
  for (let i = 0; i < n; i++) {
    const v = values[from + i];
    if (typeof v !== 'object' || v === null || Object.getPrototypeOf(v) !== plain) return false;
    let k = 0;
    for (const key in v) if (keys[k++] !== key) return false;
    if (k !== ${keys.length}) return false;
    ${fields}
  }
  return true;
};`,
  )() as Split;
}

function compileJoin(keys: readonly string[]): Join {
  const columns = keys.map((_, k) => `c${k}`);
  const fields = keys.map((key, k) => `${JSON.stringify(key)}: c${k}[i]`).join(', ');
  return new Function(`return function join(values, n, ${columns.join(', ')}) {
  for (let i = 0; i < n; i++) values[i] = { ${fields} };
};`)() as Join;
}
