// Protobuf, with a schema registry or with a .proto file. The work is done by `protobufjs`, an optional peer.
//
// With a registry, a record names its writer's schema and the message in it; it is read by that schema, or by `file` where one is given (fields go by their
// numbers, so both understand each other). A record of another message than `type` is a dead letter. Without a registry the bytes are the message alone.
//
// Invariants:
//  P1  A record is a plain object with every field of its message: what was not sent has its default; messages and members of a oneof that were not sent are null
//      or missing. Enumerations are names, maps objects, bytes copies.
//  P2  A 64-bit number beyond 2^53 is never rounded: undecodable, or as `longs` says.
//  P3  What is written is checked field by field: protobufjs would take a string for the number 0.

import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { MillraceError, messageOf } from '../errors.ts';
import { type Io, systemIo } from '../runtime/io.ts';
import { type Format, undecodable, unencodable } from './formats.ts';
import { peerNow } from './peers.ts';
import { type RegisteredSchema, type RegistryOptions, SchemaRegistry } from './registry.ts';
import {
  bufferOf,
  messagePath,
  messagePathIn,
  notOpen,
  type RecordReader,
  SchemaReaders,
  type SubjectOptions,
  schemaHeader,
  subjectOf,
} from './registry-format.ts';

/** How `protobuf()` reads and writes. */
export interface ProtobufOptions extends SubjectOptions {
  /** The message, with its package: `shop.Order`. */
  type: string;
  /** The .proto file that has it; what it imports is looked for beside it. Without one a registry is needed. */
  file?: string;
  /** Address of a schema registry. Without one records have no id in front. */
  registry?: string | RegistryOptions;
  /** Registers `file` when a sink opens, where the subject does not have it; false by default: it must be there. Files that import others must be registered by hand. */
  register?: boolean;
  /** How 64-bit numbers are read: numbers, by default (undecodable beyond 2^53), bigints or strings. All three can be written. */
  longs?: 'number' | 'bigint' | 'string';
  /** Names of fields as they stand in the file; false by default: `host_name` is `hostName`. */
  keepCase?: boolean;
}

/** What of protobufjs is used. */
interface MessageType {
  readonly fullName: string;
  readonly fieldsArray: readonly Field[];
  readonly nestedArray: readonly unknown[];
  decode(bytes: Uint8Array): object;
  encode(message: object): { finish(): Uint8Array };
  fromObject(value: object): object;
  toObject(message: object, options: object): Record<string, unknown>;
}
interface Field {
  readonly name: string;
  readonly type: string;
  readonly repeated: boolean;
  readonly map: boolean;
  readonly resolvedType: MessageType | Enumeration | null;
  resolve(): Field;
}
interface Enumeration {
  readonly values: Readonly<Record<string, number>>;
}
interface Namespace {
  readonly nestedArray?: readonly unknown[];
}
interface Root extends Namespace {
  lookupType(name: string): MessageType;
  resolveAll(): Root;
}
interface Protobufjs {
  readonly Root: new () => Root;
  readonly Type: new (...given: never[]) => MessageType;
  readonly common: { get(file: string): { nested?: unknown } | null };
  parse(
    source: string,
    root: Root,
    options: object,
  ): { readonly package?: string; readonly imports?: readonly string[]; readonly weakImports?: readonly string[] };
}

/** A file with all that it imports, resolved. */
interface Parsed {
  readonly root: Root;
  /** The messages of the file itself, as records name them: [0] is the first, [0, 1] the second inside of it. */
  readonly messages: ReadonlyMap<string, string>;
}

/**
 * Protobuf messages, with the id of their schema in front where a registry is given. Needs the package `protobufjs`.
 *
 * @param options `type`, and `file`, `registry` or both; `subject`, or how it is named; `register`; `longs`; `keepCase`.
 * @throws OPTION_INVALID, SCHEMA_INVALID, FILE_NOT_FOUND, PACKAGE_MISSING; REGISTRY_UNREACHABLE, REGISTRY_REFUSED in the job; RECORD_UNDECODABLE, RECORD_UNENCODABLE for records.
 * @example
 * import { writeFileSync } from 'node:fs';
 *
 * writeFileSync('reading.proto', 'syntax = "proto3"; package mill; message Reading { string host = 1; double cpu = 2; }');
 * const format = protobuf<{ host: string; cpu: number }>({ type: 'mill.Reading', file: 'reading.proto' });
 * assert.deepEqual(format.decode(format.encode({ host: 'mill', cpu: 0.5 })), { host: 'mill', cpu: 0.5 });
 */
export function protobuf<T>(options: ProtobufOptions): Format<T> {
  return protobufFormat(options, systemIo());
}

export function protobufFormat<T>(options: ProtobufOptions, io: Io): Format<T> {
  const { type: name, file, registry: address, longs = 'number' } = options;
  if (typeof name !== 'string' || name === '')
    throw new MillraceError('OPTION_INVALID', 'protobuf() needs a type.', { todo: 'Give the message with its package: shop.Order.' });
  if (file === undefined && address === undefined)
    throw new MillraceError('OPTION_INVALID', 'protobuf() needs a file or a registry.', {
      todo: 'Give the .proto file that has the message, or the address of the registry.',
    });
  if (!['number', 'bigint', 'string'].includes(longs))
    throw new MillraceError('OPTION_INVALID', `'${String(longs)}' is no way to read 64-bit numbers.`, { todo: "Give 'number', 'bigint' or 'string'." });
  const files = new ProtoFiles(options.keepCase === true);
  const source = file === undefined ? undefined : textOf(file);
  const own = file === undefined ? undefined : files.parse(source!, (imported) => textOf(imported, dirname(file)));
  const ownType = own === undefined ? undefined : messageIn(own, name);
  const read = (type: MessageType, bytes: Uint8Array): T => recordOf(type, bytes, longs) as T;
  if (address === undefined) {
    return { extension: 'pb', decode: (bytes) => read(ownType!, bytes), encode: (value) => written(ownType!, value) };
  }
  const registry = new SchemaRegistry(address, io);
  const readers = new SchemaReaders(registry, async (writer): Promise<RecordReader> => {
    const parsed = await registered(writer, registry, files);
    const wanted = withoutDot((ownType ?? messageIn(parsed, name)).fullName);
    return (bytes) => {
      const { path, end } = messagePathIn(bytes);
      const found = parsed.messages.get(path.join('.'));
      if (found !== wanted)
        throw undecodable('Protobuf', `it is a message ${found ?? `at [${path.join()}], which schema ${writer.id} does not have`}, and no ${wanted}`);
      return read(ownType ?? parsed.root.lookupType(found), bytes.subarray(end));
    };
  });
  return registryProtobuf(options, { registry, readers, files, own, source, name });
}

interface Shared {
  readonly registry: SchemaRegistry;
  readonly readers: SchemaReaders;
  readonly files: ProtoFiles;
  readonly own: Parsed | undefined;
  readonly source: string | undefined;
  readonly name: string;
}

function registryProtobuf<T>(options: ProtobufOptions, shared: Shared): Format<T> {
  const { registry, readers, files, own, source, name } = shared;
  let writer: { readonly type: MessageType; readonly header: Buffer } | undefined;
  return {
    extension: 'pb',
    decode: (bytes) => readers.read(bytes, 'Protobuf') as T,
    prepare: (bytes) => readers.prepare(bytes),
    encode(value) {
      if (writer === undefined) throw notOpen('protobuf()');
      return Buffer.concat([writer.header, written(writer.type, value)]);
    },
    async open() {
      if (writer !== undefined) return;
      const subject = subjectOf(options, name);
      const described = own === undefined ? undefined : ({ schema: source!, type: 'PROTOBUF', references: [] } as const);
      let parsed = own;
      let id: number | undefined;
      if (described === undefined) {
        const latest = await registry.latest(subject);
        if (latest !== undefined) parsed = await registered(latest, registry, files);
        id = latest?.id;
      } else {
        id = options.register === true ? await registry.register(subject, described) : await registry.idOf(subject, described);
      }
      if (id === undefined || parsed === undefined) {
        throw new MillraceError('REGISTRY_REFUSED', `The schema registry ${registry.name} has no such schema under the subject '${subject}'.`, {
          todo: 'Register it, or let the format do so with `register: true`.',
        });
      }
      const type = messageIn(parsed, name);
      const path = [...parsed.messages].find(([, each]) => each === withoutDot(type.fullName))?.[0];
      if (path === undefined)
        throw new MillraceError('SCHEMA_INVALID', `The message '${name}' is imported by the schema of '${subject}', and not in it.`, {
          todo: 'Register the file that has it.',
        });
      writer = { type, header: Buffer.concat([schemaHeader(id), messagePath(path.split('.').map(Number))]) };
    },
    ofTopic: (topic) => registryProtobuf<T>({ ...options, topic: options.topic ?? topic }, shared),
  };
}

async function registered(schema: RegisteredSchema, registry: SchemaRegistry, files: ProtoFiles): Promise<Parsed> {
  if (schema.type !== 'PROTOBUF') throw new MillraceError('SCHEMA_INVALID', `Schema ${schema.id} is one of ${schema.type}.`);
  const references = new Map((await registry.referencesOf(schema)).map((each) => [each.name, each.schema]));
  return files.parse(schema.schema, (imported) => references.get(imported));
}

/** Parses .proto files. */
class ProtoFiles {
  readonly #protobufjs: Protobufjs;
  readonly #keepCase: boolean;

  constructor(keepCase: boolean) {
    this.#protobufjs = peerNow<Protobufjs>('protobufjs', 'protobuf');
    this.#keepCase = keepCase;
  }

  parse(source: string, importOf: (path: string) => string | undefined): Parsed {
    const { Root, common, parse } = this.#protobufjs;
    const options = { keepCase: this.#keepCase };
    try {
      const root = new Root();
      const parsed = parse(source, root, options);
      // Before imports bring messages of the same package.
      const messages = new Map<string, string>();
      let namespace: Namespace = root;
      for (const part of parsed.package?.split('.') ?? []) namespace = this.#inside(namespace, part);
      this.#number(namespace, [], messages);
      const seen = new Set<string>();
      const follow = (imports: readonly string[]): void => {
        for (const path of imports) {
          if (seen.has(path)) continue;
          seen.add(path);
          const text = importOf(path);
          if (text !== undefined) {
            const found = parse(text, root, options);
            follow([...(found.imports ?? []), ...(found.weakImports ?? [])]);
            continue;
          }
          const known = common.get(path);
          if (known === null) throw new Error(`'${path}', which it imports, is not there`);
          (root as unknown as { addJSON(nested: unknown): void }).addJSON(known.nested);
        }
      };
      follow([...(parsed.imports ?? []), ...(parsed.weakImports ?? [])]);
      return { root: root.resolveAll(), messages };
    } catch (error) {
      throw new MillraceError('SCHEMA_INVALID', `The Protobuf schema cannot be read: ${messageOf(error)}.`, { cause: error });
    }
  }

  #inside(namespace: Namespace, name: string): Namespace {
    return (namespace.nestedArray ?? []).find((each) => (each as { name?: string }).name === name) as Namespace;
  }

  #number(namespace: Namespace, path: readonly number[], into: Map<string, string>): void {
    let index = 0;
    for (const each of namespace.nestedArray ?? []) {
      if (!(each instanceof this.#protobufjs.Type)) continue;
      const type = each as unknown as MessageType & { readonly group?: boolean };
      const at = [...path, index];
      index += 1;
      into.set(at.join('.'), withoutDot(type.fullName));
      this.#number(type, at, into);
    }
  }
}

function messageIn({ root }: Parsed, name: string): MessageType {
  try {
    return root.lookupType(name);
  } catch (error) {
    throw new MillraceError('SCHEMA_INVALID', `The Protobuf schema has no message '${name}'.`, {
      todo: 'Write it with its package: shop.Order.',
      cause: error,
    });
  }
}

function withoutDot(name: string): string {
  return name.startsWith('.') ? name.slice(1) : name;
}

function textOf(path: string, beside?: string): string;
function textOf(path: string, beside: string): string | undefined;
function textOf(path: string, beside?: string): string | undefined {
  try {
    return readFileSync(beside === undefined ? path : join(beside, path), 'utf8');
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    // One that is imported may be one of those that every program has.
    if (missing && beside !== undefined) return undefined;
    throw missing
      ? new MillraceError('FILE_NOT_FOUND', `There is no file '${path}'.`, { todo: 'Correct the `file` of protobuf().', cause: error })
      : new MillraceError('FILE_UNREADABLE', `'${path}' cannot be read: ${messageOf(error)}.`, { cause: error });
  }
}

// ── reading ──

const READING = { enums: String, defaults: true, arrays: true, objects: true };

function recordOf(type: MessageType, bytes: Uint8Array, longs: NonNullable<ProtobufOptions['longs']>): unknown {
  let value: Record<string, unknown>;
  try {
    value = type.toObject(type.decode(bufferOf(bytes)), READING);
  } catch (error) {
    throw undecodable('Protobuf', messageOf(error), error);
  }
  return cleaned(value, longs);
}

interface Long {
  readonly low: number;
  readonly high: number;
  readonly unsigned: boolean;
  toNumber(): number;
  toString(): string;
}

function isLong(value: object): value is Long {
  const { low, high, unsigned } = value as Partial<Long>;
  return typeof low === 'number' && typeof high === 'number' && typeof unsigned === 'boolean' && typeof (value as Partial<Long>).toNumber === 'function';
}

/** In place: 64-bit numbers as they are wanted, bytes of their own. */
function cleaned(value: unknown, longs: NonNullable<ProtobufOptions['longs']>): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (value instanceof Uint8Array) return new Uint8Array(value);
  if (isLong(value)) {
    if (longs === 'string') return value.toString();
    if (longs === 'bigint') return BigInt(value.toString());
    const number = value.toNumber();
    if (!Number.isSafeInteger(number)) throw undecodable('Protobuf', `${value.toString()} is beyond what a number holds; set longs`);
    return number;
  }
  const parts = value as Record<string, unknown>;
  for (const name of Object.keys(parts)) {
    const part = parts[name];
    if (typeof part === 'object' && part !== null) parts[name] = cleaned(part, longs);
  }
  return value;
}

// ── writing ──

function written(type: MessageType, value: unknown): Uint8Array {
  const checked = messageOfValue(type, value, 'the record');
  try {
    return type.encode(type.fromObject(checked)).finish();
  } catch (error) {
    throw unencodable(`The record cannot be written as ${withoutDot(type.fullName)}: ${messageOf(error)}.`, error);
  }
}

/** P3: a copy that protobufjs takes as it is meant. */
function messageOfValue(type: MessageType, value: unknown, path: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(path, `no ${withoutDot(type.fullName)}`);
  const fields = new Map(type.fieldsArray.map((field) => [field.name, field.resolve()]));
  const message: Record<string, unknown> = {};
  for (const [name, part] of Object.entries(value)) {
    if (part === undefined || part === null) continue;
    const field = fields.get(name);
    const at = path === 'the record' ? name : `${path}.${name}`;
    if (field === undefined) throw wrong(at, `no field of ${withoutDot(type.fullName)}`);
    if (field.map) {
      if (typeof part !== 'object') throw wrong(at, 'no map');
      message[name] = Object.fromEntries(Object.entries(part).map(([key, each]) => [key, fieldValue(field, each, `${at}.${key}`)]));
    } else if (field.repeated) {
      if (!Array.isArray(part)) throw wrong(at, 'no array');
      message[name] = part.map((each, i) => fieldValue(field, each, `${at}.${i}`));
    } else message[name] = fieldValue(field, part, at);
  }
  return message;
}

const WHOLE = new Set(['int32', 'uint32', 'sint32', 'fixed32', 'sfixed32']);
const LONG = new Set(['int64', 'uint64', 'sint64', 'fixed64', 'sfixed64']);

function fieldValue({ type, resolvedType }: Field, value: unknown, path: string): unknown {
  if (resolvedType !== null) {
    if (!('values' in resolvedType)) return messageOfValue(resolvedType, value, path);
    if (typeof value === 'number' ? Number.isInteger(value) : typeof value === 'string' && Object.hasOwn(resolvedType.values, value)) return value;
    throw wrong(path, 'none of its enumeration');
  }
  if (WHOLE.has(type)) {
    if (typeof value !== 'number' || !Number.isInteger(value)) throw wrong(path, `no ${type}`);
    const unsigned = type === 'uint32' || type === 'fixed32';
    if (unsigned ? value < 0 || value > 0xffffffff : value < -0x80000000 || value > 0x7fffffff) throw wrong(path, `beyond ${type}`);
    return value;
  }
  if (LONG.has(type)) {
    const right =
      typeof value === 'bigint' || (typeof value === 'number' && Number.isSafeInteger(value)) || (typeof value === 'string' && /^-?\d{1,20}$/.test(value));
    if (!right) throw wrong(path, `no ${type}`);
    const whole = BigInt(value as bigint | number | string);
    const fits = type === 'uint64' || type === 'fixed64' ? BigInt.asUintN(64, whole) : BigInt.asIntN(64, whole);
    if (fits !== whole) throw wrong(path, `beyond ${type}`);
    return String(whole);
  }
  if (
    type === 'string'
      ? typeof value === 'string'
      : type === 'bool'
        ? typeof value === 'boolean'
        : type === 'bytes'
          ? value instanceof Uint8Array
          : typeof value === 'number'
  ) {
    return value;
  }
  throw wrong(path, `no ${type}`);
}

function wrong(path: string, what: string): MillraceError {
  return unencodable(`The record cannot be written as Protobuf: ${path} is ${what}.`);
}
