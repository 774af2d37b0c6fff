// Rows on their way into a table: as plain data, and in batches of one statement each.
//
// A batch travels as one parameter, a JSON array that the server takes apart by the types of the table's columns (json_populate_recordset): any type has a text form
// there, and there is no limit to parameters.
//
// Invariants:
//  R1  Rows of a batch have the same columns. A column that a row does not name is left to its default, or as it was.
//  R2  With a key, a batch has one row a key: of several the last, since a statement cannot write a row twice. Batches keep their order.

import { MillraceError } from '../../errors.ts';
import { quoted } from './connection.ts';

/** As JSON holds it. */
export type Plain = string | number | boolean | null | readonly Plain[] | { readonly [name: string]: Plain };
export type PlainRow = { readonly [column: string]: Plain };

export interface Batch {
  readonly columns: readonly string[];
  /** A JSON array. */
  readonly json: string;
  readonly rows: number;
}

const ROWS = 2000;

/** @throws RECORD_UNENCODABLE */
export function plainRow(row: unknown, key: readonly string[], uid: string): PlainRow {
  if (typeof row !== 'object' || row === null || Array.isArray(row)) throw unencodable('it is no object', uid, 'Give the sink a `row` function.');
  const plain: Record<string, Plain> = {};
  for (const name in row) {
    const value = (row as Record<string, unknown>)[name];
    if (value !== undefined) plain[name] = plainOf(value, name, uid);
  }
  for (const name of key) if ((plain[name] ?? null) === null) throw unencodable(`its key column '${name}' is empty`, uid, 'Filter it out, or give it a key.');
  if (Object.keys(plain).length === 0) throw unencodable('it has no columns', uid, 'Give the sink a `row` function.');
  return plain;
}

function plainOf(value: unknown, name: string, uid: string): Plain {
  switch (typeof value) {
    case 'string':
      return value;
    case 'boolean':
      return value;
    case 'number':
      // JSON has none of these, PostgreSQL has.
      return Number.isFinite(value) ? value : String(value);
    case 'bigint':
      return String(value);
    case 'object': {
      if (value === null) return null;
      if (value instanceof Date) {
        if (Number.isNaN(value.getTime())) throw unencodable(`'${name}' is no date`, uid);
        return value.toISOString();
      }
      if (value instanceof Uint8Array) return `\\x${Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('hex')}`;
      if (Array.isArray(value)) return value.map((item) => (item === undefined ? null : plainOf(item, name, uid)));
      const prototype = Object.getPrototypeOf(value);
      if (prototype !== Object.prototype && prototype !== null) break;
      const plain: Record<string, Plain> = {};
      for (const [inner, item] of Object.entries(value)) if (item !== undefined) plain[inner] = plainOf(item, `${name}.${inner}`, uid);
      return plain;
    }
  }
  throw unencodable(`'${name}' is ${typeof value === 'object' ? `a ${(value as object).constructor.name}` : `a ${typeof value}`}`, uid);
}

function unencodable(why: string, uid: string, todo = 'Let `row` give plain data, dates and bytes.'): MillraceError {
  return new MillraceError('RECORD_UNENCODABLE', `A record cannot become a row: ${why}.`, { todo, uid });
}

export function* batchesOf(rows: Iterable<PlainRow>, key: readonly string[]): Generator<Batch> {
  let columns: string[] = [];
  let signature: string | undefined;
  let held: PlainRow[] = [];
  const places = new Map<string, number>();
  const take = (): Batch => {
    const batch = { columns, json: JSON.stringify(held), rows: held.length };
    held = [];
    places.clear();
    return batch;
  };
  for (const row of rows) {
    const names = Object.keys(row).sort();
    const own = names.join('\0');
    if (held.length > 0 && (own !== signature || held.length >= ROWS)) yield take();
    signature = own;
    columns = names;
    if (key.length === 0) {
      held.push(row);
      continue;
    }
    const of = key.map((name) => keyText(row[name]!)).join('\0');
    const place = places.get(of);
    if (place === undefined) {
      places.set(of, held.length);
      held.push(row);
    } else {
      held[place] = row;
    }
  }
  if (held.length > 0) yield take();
}

/** 1 and '1' are one key to the server. */
function keyText(value: Plain): string {
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

/** With a key: the row of that key is replaced, as far as the columns go. */
export function statementOf(table: string, columns: readonly string[], key: readonly string[]): string {
  const names = columns.map(quoted1).join(', ');
  const insert = `INSERT INTO ${quoted(table)} (${names}) SELECT ${names} FROM json_populate_recordset(NULL::${quoted(table)}, $1::json)`;
  if (key.length === 0) return insert;
  const others = columns.filter((name) => !key.includes(name));
  const update = others.length === 0 ? 'NOTHING' : `UPDATE SET ${others.map((name) => `${quoted1(name)} = excluded.${quoted1(name)}`).join(', ')}`;
  return `${insert} ON CONFLICT (${key.map(quoted1).join(', ')}) DO ${update}`;
}

/** A column's name may have a dot. */
function quoted1(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
