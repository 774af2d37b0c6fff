// Keys: their canonical bytes, their hash, and which task holds them. The format, with test vectors, is docs/formats-keys.md.
//
// Invariants:
//  K1  Canonical bytes are injective: canonical(a) = canonical(b) exactly where sameKey(a, b) (protocols 23). Type tag, length, content;
//      −0 is 0, there is one NaN, bigint differs from number, lone surrogates keep their three bytes.
//  K2  hashKey(k) is murmur3 (x86, 32 bit, seed 0) over the canonical bytes, on every path; the fast ones never write the bytes down.
//  K3  A key that is stored is a frozen copy where it is an array, so that nobody changes it from outside.

import { type ByteReader, ByteWriter } from './byte-writer.ts';
import type { Key, KeyGroupRange } from './contract.ts';
import { StateError } from './state-error.ts';

const FALSE = 1;
const TRUE = 2;
const NUMBER = 3;
const BIGINT = 4;
const BIGINT_NEGATIVE = 5;
const STRING = 6;
const ARRAY = 7;
/** Lengths are three bytes: beyond that a key is refused. */
const LENGTH_MAX = 0xffffff;
const DEPTH_MAX = 32;

// ── hashing ──

function mixed(h: number, k: number): number {
  let x = Math.imul(k, 0xcc9e2d51);
  x = (x << 15) | (x >>> 17);
  const y = h ^ Math.imul(x, 0x1b873593);
  return (Math.imul((y << 13) | (y >>> 19), 5) + 0xe6546b64) | 0;
}

function tail(h: number, k: number): number {
  const x = Math.imul(k, 0xcc9e2d51);
  return h ^ Math.imul((x << 15) | (x >>> 17), 0x1b873593);
}

function finished(h: number, length: number): number {
  let x = h ^ length;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}

/** murmur3 x86 32 bit, seed 0; a signed 32-bit integer. */
export function murmur3(bytes: Uint8Array, length = bytes.length): number {
  let h = 0;
  let i = 0;
  for (; i + 4 <= length; i += 4) h = mixed(h, bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24));
  if (i < length) {
    let k = 0;
    for (let j = length - 1; j >= i; j--) k = (k << 8) | bytes[j]!;
    h = tail(h, k);
  }
  return finished(h, length);
}

const scratch = new ByteWriter(256);
const number = new DataView(new ArrayBuffer(8));

/** The hash of a key, a signed 32-bit integer. Throws KEY_UNSUPPORTED. */
export function hashKey(key: Key): number {
  if (typeof key === 'string') {
    const { length } = key;
    if (length <= LENGTH_MAX) {
      // The first block is tag and length, so that blocks of ASCII text start at a character.
      let h = mixed(0, STRING | ((length >>> 16) << 8) | (((length >>> 8) & 0xff) << 16) | (length << 24));
      let bits = 0;
      let i = 0;
      for (; i + 4 <= length; i += 4) {
        const a = key.charCodeAt(i);
        const b = key.charCodeAt(i + 1);
        const c = key.charCodeAt(i + 2);
        const d = key.charCodeAt(i + 3);
        bits |= a | b | c | d;
        h = mixed(h, a | (b << 8) | (c << 16) | (d << 24));
      }
      if (i < length) {
        let k = key.charCodeAt(i);
        bits |= k;
        if (i + 1 < length) {
          const b = key.charCodeAt(i + 1);
          bits |= b;
          k |= b << 8;
          if (i + 2 < length) {
            const c = key.charCodeAt(i + 2);
            bits |= c;
            k |= c << 16;
          }
        }
        h = tail(h, k);
      }
      if (bits < 0x80) return finished(h, length + 4);
    }
  } else if (typeof key === 'number') {
    // Read back as it was written and shifted by the tag here: a read that begins before the write it overlaps waits for memory.
    number.setFloat64(0, key === 0 ? 0 : Number.isNaN(key) ? Number.NaN : key);
    const x = number.getInt32(0, true);
    const y = number.getInt32(4, true);
    return finished(tail(mixed(mixed(0, NUMBER | (x << 8)), (x >>> 24) | (y << 8)), y >>> 24), 9);
  }
  scratch.reset();
  writeKey(scratch, key);
  return murmur3(scratch.bytes, scratch.at);
}

// ── equality and normal form ──

/** Equality of canonical bytes, without writing them down. */
export function sameKey(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a === 'object') {
    if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false;
    for (let i = 0; i < a.length; i++) if (!sameKey(a[i], b[i])) return false;
    return true;
  }
  return Number.isNaN(a) && Number.isNaN(b);
}

/** The key as it is stored: frozen copies of arrays, 0 for −0. Throws KEY_UNSUPPORTED for anything that is no key. */
export function canonicalKey(key: unknown): Key {
  return canonicalAt(key, 0);
}

function canonicalAt(key: unknown, depth: number): Key {
  switch (typeof key) {
    case 'string':
      if (key.length > LENGTH_MAX / 3) throw tooLong();
      return key;
    case 'number':
      return key === 0 ? 0 : key;
    case 'boolean':
    case 'bigint':
      return key;
    default:
      if (!Array.isArray(key)) throw unsupported(key, depth);
      if (depth >= DEPTH_MAX) throw unsupported(key, depth);
      return Object.freeze(Array.from(key, (part) => canonicalAt(part, depth + 1)));
  }
}

function unsupported(key: unknown, depth: number): StateError {
  const what =
    depth >= DEPTH_MAX
      ? 'an array nested too deeply'
      : key === null
        ? 'null'
        : typeof key === 'object'
          ? 'an object'
          : typeof key === 'undefined'
            ? 'undefined'
            : `a ${typeof key}`;
  return new StateError('KEY_UNSUPPORTED', `A key ${depth > 0 ? 'contains' : 'is'} ${what}.`, {
    todo: 'Use strings, numbers, bigints, booleans, or arrays of these.',
  });
}

function tooLong(): StateError {
  return new StateError('KEY_UNSUPPORTED', 'A key is longer than 16 MiB.', { todo: 'Use a digest of it as the key.' });
}

// ── canonical bytes ──

function header(out: ByteWriter, at: number, tag: number, length: number): void {
  if (length > LENGTH_MAX) throw tooLong();
  const { bytes } = out;
  bytes[at] = tag;
  bytes[at + 1] = length >>> 16;
  bytes[at + 2] = length >>> 8;
  bytes[at + 3] = length;
}

/** Appends the canonical bytes. */
export function writeKey(out: ByteWriter, key: Key): void {
  writeAt(out, key, 0);
}

function writeAt(out: ByteWriter, key: Key, depth: number): void {
  if (typeof key === 'string') {
    out.need(4);
    const at = out.at;
    out.at += 4;
    const length = out.text(key);
    header(out, at, STRING, length);
  } else if (typeof key === 'number') {
    out.need(9);
    out.bytes[out.at++] = NUMBER;
    out.view.setFloat64(out.at, key === 0 ? 0 : Number.isNaN(key) ? Number.NaN : key);
    out.at += 8;
  } else if (typeof key === 'boolean') {
    out.u8(key ? TRUE : FALSE);
  } else if (typeof key === 'bigint') {
    const digits = key === 0n ? '' : (key < 0n ? -key : key).toString(16);
    const magnitude = Buffer.from(digits.length % 2 === 1 ? `0${digits}` : digits, 'hex');
    out.need(4);
    const at = out.at;
    out.at += 4;
    out.raw(magnitude);
    header(out, at, key < 0n ? BIGINT_NEGATIVE : BIGINT, magnitude.length);
  } else if (Array.isArray(key)) {
    if (depth >= DEPTH_MAX) throw unsupported(key, depth);
    out.need(4);
    header(out, out.at, ARRAY, key.length);
    out.at += 4;
    for (let i = 0; i < key.length; i++) writeAt(out, key[i], depth + 1);
  } else {
    throw unsupported(key, depth);
  }
}

/** Reads the canonical bytes at the cursor. Throws where they are none. */
export function readKey(from: ByteReader): Key {
  const tag = from.u8();
  if (tag === NUMBER) return from.f64();
  if (tag === FALSE) return false;
  if (tag === TRUE) return true;
  if (tag < BIGINT || tag > ARRAY) throw new RangeError(`No kind of key has the tag ${tag}.`);
  const length = (from.u8() << 16) | (from.u8() << 8) | from.u8();
  if (tag === STRING) return from.text(length);
  if (tag === ARRAY) {
    const parts: Key[] = [];
    for (let i = 0; i < length; i++) parts.push(readKey(from));
    return Object.freeze(parts);
  }
  const magnitude = length === 0 ? 0n : BigInt(`0x${from.raw(length).toString('hex')}`);
  return tag === BIGINT ? magnitude : -magnitude;
}

/** The canonical bytes on their own. */
export function keyBytes(key: Key): Buffer {
  scratch.reset();
  writeKey(scratch, key);
  return scratch.take();
}

// ── key groups (S6) ──

export function groupOf(hash: number, maxParallelism: number): number {
  return (hash >>> 0) % maxParallelism;
}

/** The groups of an instance: [ceil(i·maxP/p), floor(((i+1)·maxP − 1)/p)]. */
export function rangeOf(instance: number, parallelism: number, maxParallelism: number): KeyGroupRange {
  return {
    from: Math.ceil((instance * maxParallelism) / parallelism),
    to: Math.floor(((instance + 1) * maxParallelism - 1) / parallelism),
  };
}

export function instanceOf(group: number, parallelism: number, maxParallelism: number): number {
  return Math.floor((group * parallelism) / maxParallelism);
}

/** clamp(nextPow2(1.5 p), 128, 32768). */
export function defaultMaxParallelism(parallelism: number): number {
  const wanted = Math.ceil(parallelism * 1.5);
  return Math.min(32768, Math.max(128, 2 ** Math.ceil(Math.log2(wanted))));
}
