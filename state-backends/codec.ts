// The codec of values: state rows, undo images, batches between threads, segments of sinks. The format is docs/formats-state.md.
//
// What: a value ⇄ self-delimiting bytes. Everything that plain data can be round-trips exactly: undefined, −0, NaN, lone surrogates, bigint,
// Date, Map, Set, typed arrays, Buffer, ArrayBuffer, RegExp, Error. What cannot (functions, symbols, instances of classes, cycles) is refused
// with STATE_NOT_SERIALIZABLE and the path to it: nothing is ever changed silently.
//
// Invariants:
//  V1  decode(encode(v)) equals v, apart from identity: two references to one object become two objects.
//  V2  An object's keys are written once for each `encode` (a *shape*), and not at all for further objects of that shape in it; readers compile a
//      constructor for shapes that recur, so that decoded objects share one hidden class.
//  V3  Encoding has no effect on the value, and a refused value leaves the writer as it was.

import { ByteReader, ByteWriter } from './byte-writer.ts';
import { StateError } from './state-error.ts';

// One byte says what follows. 0x00–0x7f: the integers 0 … 127 themselves; 0x80–0xbf: a string of 0 … 63 bytes.
const STRING_SHORT = 0x80;
const UNDEFINED = 0xc0;
const NULL = 0xc1;
const FALSE = 0xc2;
const TRUE = 0xc3;
const INT = 0xc4; // varint
const INT_NEGATIVE = 0xc5; // varint of −1 − n
const FLOAT = 0xc6; // 8 bytes
const STRING = 0xc7; // varint length, WTF-8
const BIGINT = 0xc8; // varint length, hexadecimal magnitude's bytes
const BIGINT_NEGATIVE = 0xc9;
const ARRAY = 0xca; // varint length, values
const OBJECT = 0xcb; // varint count, keys (varint length + WTF-8 each), values; the shape gets the next number
const OBJECT_AGAIN = 0xcc; // varint number of the shape, values
const OBJECT_BARE = 0xcd; // as OBJECT, without a prototype and without a number
const DATE = 0xce; // 8 bytes
const MAP = 0xcf;
const SET = 0xd0;
const BYTES = 0xd1; // kind, varint bytes, content
const ERROR = 0xd2; // name, message, stack, cause (undefined where there is none), own further keys as an object
const REGEXP = 0xd3; // source, flags
const EXTENSION = 0xd4; // name, value
const HOLE = 0xd5; // an element that a sparse array does not have

const DEPTH_MAX = 1000;
const SHAPES_MAX = 256;

const BUFFERS = [
  Uint8Array,
  Int8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
] as const;
const BUFFER_NODE = 20;
const BUFFER_ARRAY = 21;
const BUFFER_VIEW = 22;
const ERRORS: Readonly<Record<string, new (message?: string) => Error>> = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };

interface Extension {
  readonly name: string;
  write(value: object): unknown;
  read(data: unknown): unknown;
}
const byClass = new Map<unknown, Extension>();
const byName = new Map<string, Extension>();

/** Lets instances of a class of our own be values: `write` makes plain data of one, `read` an instance of that. Same name, same class, for ever. */
export function extendCodec<C extends object>(
  name: string,
  type: new (...args: never[]) => C,
  how: { write(value: C): unknown; read(data: unknown): C },
): void {
  const extension: Extension = { name, write: (value) => how.write(value as C), read: how.read };
  byClass.set(type.prototype, extension);
  byName.set(name, extension);
}

// ── writing ──

class Refused extends Error {
  readonly what: string;
  readonly path: (string | number)[] = [];
  constructor(what: string) {
    super(what);
    this.what = what;
  }
}

type Shape = readonly string[];

let shapes: Shape[] = [];
let shapeCount = 0;

/** Appends a value. Throws STATE_NOT_SERIALIZABLE, and then nothing was appended. */
export function encodeInto(out: ByteWriter, value: unknown): void {
  switch (typeof value) {
    case 'number':
      writeNumber(out, value);
      return;
    case 'string':
      writeString(out, value);
      return;
    case 'boolean':
      out.u8(value ? TRUE : FALSE);
      return;
    case 'undefined':
      out.u8(UNDEFINED);
      return;
  }
  if (value === null) {
    out.u8(NULL);
    return;
  }
  const start = out.at;
  const outer = shapes;
  const outerCount = shapeCount;
  if (outerCount > 0) shapes = [];
  shapeCount = 0;
  try {
    writeValue(out, value, 0);
  } catch (error) {
    out.at = start;
    if (!(error instanceof Refused)) throw error;
    const path = error.path.reverse().reduce<string>((text, step) => text + (typeof step === 'number' ? `[${step}]` : `.${step}`), 'value');
    throw new StateError('STATE_NOT_SERIALIZABLE', `${path} is ${error.what}, which cannot be stored.`, {
      todo: 'Keep plain data: objects, arrays, Map, Set, Date, typed arrays, strings, numbers.',
    });
  } finally {
    shapes = outer;
    shapeCount = outerCount;
  }
}

function writeValue(out: ByteWriter, value: unknown, depth: number): void {
  switch (typeof value) {
    case 'number':
      writeNumber(out, value);
      return;
    case 'string':
      writeString(out, value);
      return;
    case 'boolean':
      out.u8(value ? TRUE : FALSE);
      return;
    case 'undefined':
      out.u8(UNDEFINED);
      return;
    case 'bigint':
      writeBigint(out, value);
      return;
    case 'function':
      throw new Refused('a function');
    case 'symbol':
      throw new Refused('a symbol');
  }
  if (value === null) {
    out.u8(NULL);
    return;
  }
  if (depth > DEPTH_MAX) throw new Refused('nested too deeply, or contains itself');
  const prototype = Object.getPrototypeOf(value);
  if (prototype === Object.prototype) writeObject(out, value as Record<string, unknown>, depth);
  else if (prototype === Array.prototype) writeArray(out, value as unknown[], depth);
  else writeRare(out, value as object, prototype, depth);
}

function writeNumber(out: ByteWriter, value: number): void {
  if (out.at + 9 > out.bytes.length) out.need(9);
  if (value >= 0 && value <= 127 && (value | 0) === value && (value !== 0 || 1 / value > 0)) {
    out.bytes[out.at++] = value;
  } else if (Number.isSafeInteger(value) && (value !== 0 || 1 / value > 0) && value < 0x1000000000000 && value > -0x1000000000000) {
    out.bytes[out.at++] = value < 0 ? INT_NEGATIVE : INT;
    out.varint(value < 0 ? -1 - value : value);
  } else {
    out.bytes[out.at++] = FLOAT;
    out.view.setFloat64(out.at, value);
    out.at += 8;
  }
}

function writeString(out: ByteWriter, value: string): void {
  const { length } = value;
  if (length <= 63) {
    out.need(length * 3 + 3);
    const start = out.at;
    const { bytes } = out;
    let at = start + 1;
    let i = 0;
    for (; i < length; i++) {
      const code = value.charCodeAt(i);
      if (code >= 0x80) break;
      bytes[at++] = code;
    }
    if (i === length) {
      bytes[start] = STRING_SHORT | length;
      out.at = at;
      return;
    }
  }
  out.u8(STRING);
  writeText(out, value);
}

/** varint length, WTF-8. */
function writeText(out: ByteWriter, value: string): void {
  // The length is known only afterwards: room for the longest one that it can need, and a move where it needs less. `varint` asks for 8 bytes, and a writer
  // that grows keeps what is in front of its place only: the room for those is taken before the text is behind it.
  const room = value.length * 3 < 0x80 ? 1 : value.length * 3 < 0x4000 ? 2 : 5;
  out.need(8 + value.length * 3);
  const start = out.at;
  out.at += room;
  const length = out.text(value);
  const end = start + room + length;
  out.at = start;
  out.varint(length);
  const from = out.at;
  if (from !== start + room) out.bytes.copyWithin(from, start + room, end);
  out.at = from + length;
}

function writeBigint(out: ByteWriter, value: bigint): void {
  const digits = value === 0n ? '' : (value < 0n ? -value : value).toString(16);
  const magnitude = Buffer.from(digits.length % 2 === 1 ? `0${digits}` : digits, 'hex');
  out.u8(value < 0n ? BIGINT_NEGATIVE : BIGINT);
  out.varint(magnitude.length);
  out.raw(magnitude);
}

function writeArray(out: ByteWriter, value: readonly unknown[], depth: number): void {
  const { length } = value;
  out.u8(ARRAY);
  out.varint(length);
  let i = 0;
  try {
    for (; i < length; i++) {
      const element = value[i];
      if (element === undefined && !(i in value)) out.u8(HOLE);
      else writeValue(out, element, depth + 1);
    }
  } catch (error) {
    throw within(error, i);
  }
}

function within(error: unknown, step: string | number): unknown {
  if (error instanceof Refused) error.path.push(step);
  return error instanceof RangeError && /call stack/i.test(error.message) ? new Refused('nested too deeply, or contains itself') : error;
}

function writeObject(out: ByteWriter, value: Record<string, unknown>, depth: number): void {
  const count = shapeCount;
  let known = -1;
  let keys: readonly string[] | undefined;
  if (count > 0) {
    // Most values that follow one another have one shape: try the newest first, and give up after a few.
    for (let s = count - 1; s >= 0 && s >= count - 4; s--) {
      if (hasShape(value, shapes[s]!)) {
        known = s;
        keys = shapes[s]!;
        break;
      }
    }
  }
  if (keys === undefined) {
    keys = Object.keys(value);
    out.u8(OBJECT);
    writeShape(out, keys);
    if (count < SHAPES_MAX) {
      shapes[count] = keys;
      shapeCount = count + 1;
    }
  } else {
    out.u8(OBJECT_AGAIN);
    out.varint(known);
  }
  let i = 0;
  try {
    for (; i < keys.length; i++) writeValue(out, value[keys[i]!], depth + 1);
  } catch (error) {
    throw within(error, keys[i]!);
  }
}

function hasShape(value: object, shape: Shape): boolean {
  let i = 0;
  for (const key in value) if (shape[i++] !== key) return false;
  return i === shape.length;
}

function writeShape(out: ByteWriter, keys: Shape): void {
  out.varint(keys.length);
  for (let i = 0; i < keys.length; i++) writeText(out, keys[i]!);
}

function writeRare(out: ByteWriter, value: object, prototype: unknown, depth: number): void {
  if (prototype === Map.prototype) {
    out.u8(MAP);
    out.varint((value as Map<unknown, unknown>).size);
    let i = 0;
    try {
      for (const [key, item] of value as Map<unknown, unknown>) {
        writeValue(out, key, depth + 1);
        writeValue(out, item, depth + 1);
        i++;
      }
    } catch (error) {
      throw within(error, i);
    }
  } else if (prototype === Set.prototype) {
    out.u8(SET);
    out.varint((value as Set<unknown>).size);
    let i = 0;
    try {
      for (const item of value as Set<unknown>) {
        writeValue(out, item, depth + 1);
        i++;
      }
    } catch (error) {
      throw within(error, i);
    }
  } else if (prototype === Date.prototype) {
    out.u8(DATE);
    out.f64((value as Date).getTime());
  } else if (prototype === null) {
    const keys = Object.keys(value);
    out.u8(OBJECT_BARE);
    writeShape(out, keys);
    for (const key of keys) {
      try {
        writeValue(out, (value as Record<string, unknown>)[key], depth + 1);
      } catch (error) {
        throw within(error, key);
      }
    }
  } else if (prototype === Buffer.prototype) {
    writeBytes(out, BUFFER_NODE, value as Buffer);
  } else if (prototype === ArrayBuffer.prototype) {
    writeBytes(out, BUFFER_ARRAY, new Uint8Array(value as ArrayBuffer));
  } else if (prototype === RegExp.prototype) {
    out.u8(REGEXP);
    writeText(out, (value as RegExp).source);
    writeText(out, (value as RegExp).flags);
  } else if (ArrayBuffer.isView(value)) {
    const kind = prototype === DataView.prototype ? BUFFER_VIEW : BUFFERS.findIndex((type) => type.prototype === prototype);
    if (kind === -1) throw new Refused(`an instance of ${className(value)}`);
    writeBytes(out, kind, new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  } else if (value instanceof Error && ERRORS[value.name]?.prototype === prototype) {
    out.u8(ERROR);
    writeText(out, value.name);
    writeText(out, value.message);
    try {
      writeValue(out, value.stack, depth + 1);
      writeValue(out, value.cause, depth + 1);
    } catch (error) {
      throw within(error, 'cause');
    }
    const { cause: _, ...more } = value as Error & Record<string, unknown>;
    writeObject(out, more, depth);
  } else {
    const extension = byClass.get(prototype);
    if (extension === undefined) throw new Refused(`an instance of ${className(value)}`);
    out.u8(EXTENSION);
    writeText(out, extension.name);
    writeValue(out, extension.write(value), depth + 1);
  }
}

function className(value: object): string {
  const name: unknown = value.constructor?.name;
  return typeof name === 'string' && name !== '' ? name : 'a class';
}

function writeBytes(out: ByteWriter, kind: number, content: Uint8Array): void {
  out.u8(BYTES);
  out.u8(kind);
  out.varint(content.length);
  out.raw(content);
}

// ── reading ──

type MakeObject = (from: ByteReader, read: (from: ByteReader) => unknown) => object;

/** A shape that was seen while reading; compiled when it has been seen often enough to be worth it. */
class ReadShape {
  readonly keys: Shape;
  private seen = 0;
  private make: MakeObject | undefined;

  constructor(keys: Shape) {
    this.keys = keys;
  }

  read(from: ByteReader): object {
    if (this.make !== undefined) return this.make(from, readValue);
    if (++this.seen > 16 && this.keys.length <= 64 && this.keys.length > 0) {
      const fields = this.keys.map((key) => `[${JSON.stringify(key)}]: read(from)`).join(', ');
      const make = new Function('from', 'read', `return { ${fields} };`) as MakeObject;
      this.make = make;
      return make(from, readValue);
    }
    const value: Record<string, unknown> = {};
    for (const key of this.keys) set(value, key, readValue(from));
    return value;
  }
}

function set(value: object, key: string, item: unknown): void {
  if (key === '__proto__') Object.defineProperty(value, key, { value: item, writable: true, enumerable: true, configurable: true });
  else (value as Record<string, unknown>)[key] = item;
}

/** Shapes by their written form, over all calls: reading one again costs a comparison of bytes. */
const SHAPE_SLOTS = 512;
const shapeCache: ({ bytes: Buffer; shape: ReadShape } | undefined)[] = new Array(SHAPE_SLOTS).fill(undefined);
let reading: ReadShape[] = [];
let readingCount = 0;

function readShape(from: ByteReader): ReadShape {
  const start = from.at;
  const count = from.varint();
  let hash = count;
  const { bytes } = from;
  for (let i = 0; i < count; i++) {
    const length = from.varint();
    if (length > 0 && from.at + length <= from.end) hash = Math.imul(hash, 31) + Math.imul(bytes[from.at]!, 7) + bytes[from.at + length - 1]! + length;
    from.at += length;
  }
  if (from.at > from.end) throw new RangeError('The bytes end within the keys of an object.');
  const end = from.at;
  const slot = (hash ^ (hash >>> 9)) & (SHAPE_SLOTS - 1);
  const cached = shapeCache[slot];
  if (cached !== undefined && cached.bytes.length === end - start && sameBytes(cached.bytes, bytes, start)) return cached.shape;
  from.at = start;
  const keys: string[] = [];
  for (let i = from.varint(); i > 0; i--) keys.push(from.text(from.varint()));
  const shape = new ReadShape(keys);
  if (end - start < 2048) shapeCache[slot] = { bytes: Buffer.from(bytes.subarray(start, end)), shape };
  return shape;
}

function sameBytes(a: Buffer, b: Buffer, from: number): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[from + i]) return false;
  return true;
}

/** Reads the value at the cursor. Throws a RangeError where the bytes are none. */
export function decodeFrom(from: ByteReader): unknown {
  const first = from.bytes[from.at]!;
  if (first < OBJECT && first !== ARRAY) return readValue(from);
  const outer = reading;
  const outerCount = readingCount;
  if (outerCount > 0) reading = [];
  readingCount = 0;
  try {
    return readValue(from);
  } finally {
    reading = outer;
    readingCount = outerCount;
  }
}

function readValue(from: ByteReader): unknown {
  const tag = from.u8();
  if (tag < 0x80) return tag;
  if (tag < 0xc0) return from.text(tag & 0x3f);
  switch (tag) {
    case UNDEFINED:
      return undefined;
    case NULL:
      return null;
    case FALSE:
      return false;
    case TRUE:
      return true;
    case INT:
      return from.varint();
    case INT_NEGATIVE:
      return -1 - from.varint();
    case FLOAT:
      return from.f64();
    case STRING:
      return from.text(from.varint());
    case ARRAY:
      return readArray(from);
    case OBJECT: {
      const shape = readShape(from);
      if (readingCount < SHAPES_MAX) reading[readingCount++] = shape;
      return shape.read(from);
    }
    case OBJECT_AGAIN: {
      const at = from.varint();
      if (at >= readingCount) throw new RangeError(`There is no shape ${at}.`);
      return reading[at]!.read(from);
    }
    default:
      return readRare(from, tag);
  }
}

function readArray(from: ByteReader): unknown[] {
  const length = from.varint();
  if (length > from.end - from.at) throw new RangeError('An array is longer than its bytes.');
  const out: unknown[] = [];
  for (let i = 0; i < length; i++) {
    if (from.bytes[from.at] === HOLE) {
      from.u8();
      out.length = i + 1;
    } else {
      out[i] = readValue(from);
    }
  }
  return out;
}

function readRare(from: ByteReader, tag: number): unknown {
  switch (tag) {
    case BIGINT:
    case BIGINT_NEGATIVE: {
      const length = from.varint();
      const magnitude = length === 0 ? 0n : BigInt(`0x${from.raw(length).toString('hex')}`);
      return tag === BIGINT ? magnitude : -magnitude;
    }
    case OBJECT_BARE: {
      const value: object = Object.create(null);
      const { keys } = readShape(from);
      for (const key of keys) set(value, key, readValue(from));
      return value;
    }
    case DATE:
      return new Date(from.f64());
    case MAP: {
      const map = new Map<unknown, unknown>();
      for (let i = from.varint(); i > 0; i--) {
        const key = readValue(from);
        map.set(key, readValue(from));
      }
      return map;
    }
    case SET: {
      const out = new Set<unknown>();
      for (let i = from.varint(); i > 0; i--) out.add(readValue(from));
      return out;
    }
    case BYTES:
      return readBytes(from);
    case ERROR:
      return readError(from);
    case REGEXP: {
      const source = from.text(from.varint());
      return new RegExp(source, from.text(from.varint()));
    }
    case EXTENSION: {
      const name = from.text(from.varint());
      const extension = byName.get(name);
      if (extension === undefined) throw new RangeError(`No class is known by the name ${name}.`);
      return extension.read(readValue(from));
    }
    default:
      throw new RangeError(`No kind of value has the tag ${tag}.`);
  }
}

function readBytes(from: ByteReader): unknown {
  const kind = from.u8();
  const content = from.raw(from.varint());
  if (kind === BUFFER_NODE) return Buffer.from(content);
  const copied = new Uint8Array(content).buffer;
  if (kind === BUFFER_ARRAY) return copied;
  if (kind === BUFFER_VIEW) return new DataView(copied);
  const type = BUFFERS[kind];
  if (type === undefined) throw new RangeError(`No kind of bytes has the number ${kind}.`);
  return new (type as new (content: ArrayBuffer) => ArrayBufferView)(copied);
}

function readError(from: ByteReader): Error {
  const type = ERRORS[from.text(from.varint())] ?? Error;
  const error = new type(from.text(from.varint()));
  const stack = readValue(from);
  const cause = readValue(from);
  Object.defineProperty(error, 'stack', { value: stack, writable: true, enumerable: false, configurable: true });
  if (cause !== undefined) Object.defineProperty(error, 'cause', { value: cause, writable: true, enumerable: false, configurable: true });
  const more = readValue(from) as Record<string, unknown>;
  for (const key of Object.keys(more)) set(error, key, more[key]);
  return error;
}

// ── whole values ──

const own = new ByteWriter(1 << 16);
let busy = false;

/** A value's bytes. Throws STATE_NOT_SERIALIZABLE. */
export function encode(value: unknown): Uint8Array {
  const out = busy ? new ByteWriter(256) : own;
  const outermost = !busy;
  busy = true;
  try {
    out.reset();
    encodeInto(out, value);
    return out.take();
  } finally {
    if (outermost) busy = false;
  }
}

/** The value of bytes that `encode` made. Throws SNAPSHOT_CORRUPT where they are no value. */
export function decode(bytes: Uint8Array): unknown {
  try {
    const from = new ByteReader(bytes);
    const value = decodeFrom(from);
    if (from.at !== bytes.length) throw new RangeError(`${bytes.length - from.at} bytes are left over.`);
    return value;
  } catch (error) {
    if (error instanceof StateError) throw error;
    throw new StateError('SNAPSHOT_CORRUPT', 'Stored bytes are no value.', { cause: error });
  }
}

/** A value that shares nothing with the original; primitives are themselves. Throws STATE_NOT_SERIALIZABLE. */
export function copy<T>(value: T): T {
  return (typeof value === 'object' && value !== null) || typeof value === 'function' || typeof value === 'symbol' ? (decode(encode(value)) as T) : value;
}
