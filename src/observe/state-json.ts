// State as JSON, and keys as they are typed: pure.
//
// What JSON has is itself. What it has not is an object with one key that begins with `$`: { "$bigint": "12" }, { "$number": "NaN" }, { "$date": "2026-…" },
// { "$map": [[key, value], …] }, { "$set": […] }, { "$bytes": "<base64>" }, { "$undefined": true }, { "$error": "TypeError: …" }. An object of the program's
// whose only key begins with `$` is { "$object": [[key, value]] }, so that nothing is mistaken for another.

import { MillraceError } from '../errors.ts';
import type { Key } from '../graph/job.ts';

/** What JSON.stringify keeps all of. */
export function shown(value: unknown): unknown {
  switch (typeof value) {
    case 'bigint':
      return { $bigint: String(value) };
    case 'number':
      return Number.isFinite(value) && !Object.is(value, -0) ? value : { $number: Object.is(value, -0) ? '-0' : String(value) };
    case 'undefined':
      return { $undefined: true };
    case 'object':
      return value === null ? null : shownObject(value);
    default:
      return value;
  }
}

function shownObject(value: object): unknown {
  if (Array.isArray(value)) return Array.from(value, shown);
  if (value instanceof Map) return { $map: [...value].map(([key, held]) => [shown(key), shown(held)]) };
  if (value instanceof Set) return { $set: [...value].map(shown) };
  if (value instanceof Date) return { $date: Number.isNaN(value.getTime()) ? 'invalid' : value.toISOString() };
  if (value instanceof ArrayBuffer) return { $bytes: Buffer.from(value).toString('base64') };
  if (ArrayBuffer.isView(value)) return { $bytes: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64') };
  if (value instanceof Error) return { $error: String(value) };
  if (value instanceof RegExp) return { $regexp: String(value) };
  const entries = Object.entries(value);
  if (entries.length === 1 && entries[0]![0].startsWith('$')) return { $object: entries.map(([name, held]) => [name, shown(held)]) };
  return Object.fromEntries(entries.map(([name, held]) => [name, shown(held)]));
}

/** A key as people write it: JSON, `12n` for a bigint, NaN; any other word is a string. In arrays a bigint is { "$bigint": "12" }. */
export function keyOf(text: string): Key {
  if (/^-?\d+n$/.test(text)) return BigInt(text.slice(0, -1));
  if (text === 'NaN' || text === 'Infinity' || text === '-Infinity') return Number(text);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // A word.
    return text;
  }
  return unshown(value, text);
}

function unshown(value: unknown, text: string): Key {
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return value;
  if (Array.isArray(value)) return value.map((part) => unshown(part, text));
  if (typeof value === 'object' && value !== null) {
    const [[name, held] = [], ...more] = Object.entries(value);
    if (more.length === 0 && name === '$bigint' && typeof held === 'string' && /^-?\d+$/.test(held)) return BigInt(held);
    if (more.length === 0 && name === '$number' && typeof held === 'string') return Number(held);
  }
  throw new MillraceError('KEY_UNSUPPORTED', `${text} is no key.`, {
    todo: `Write a word, or JSON: strings, numbers, true, false, arrays of these; 12n is a bigint, and {"$bigint":"12"} within an array. Quote a word that is to be a string and looks like something else: '"12"'.`,
  });
}

/** A key as `keyOf` reads it. */
export function keyText(key: Key): string {
  if (typeof key === 'bigint') return `${key}n`;
  if (typeof key === 'number' && !Number.isFinite(key)) return String(key);
  if (typeof key === 'string' && /^[^\s"'\\]+$/.test(key) && keepsItself(key)) return key;
  return JSON.stringify(shown(key));
}

function keepsItself(text: string): boolean {
  try {
    return keyOf(text) === text;
  } catch {
    return false;
  }
}
