// Avro, with a schema registry or with one schema for all records. The work is done by `avsc`, an optional peer.
//
// With a registry, records are read in the schema of their writer, which stands in front of each as an id; with `schema` they are resolved to that one
// (Avro's schema resolution: fields are matched by name and alias, missing ones take their defaults, numbers widen). Without a registry the bytes are the
// record alone, read and written in `schema`: what files need.
//
// Invariants:
//  A1  A record is a plain object: state and exchanges refuse instances of classes, which avsc makes.
//  A2  A long beyond 2^53 is never rounded: undecodable, or a bigint with `longs: 'bigint'`.
//  A3  What does not resolve to `schema` is a dead letter, all records of that writer's schema alike.

import { MillraceError, messageOf } from '../errors.ts';
import { type Io, systemIo } from '../runtime/io.ts';
import { type Format, undecodable, unencodable } from './formats.ts';
import { peerNow } from './peers.ts';
import { type RegisteredSchema, type RegistryOptions, SchemaRegistry } from './registry.ts';
import { bufferOf, HEADER_BYTES, notOpen, type RecordReader, SchemaReaders, type SubjectOptions, schemaHeader, subjectOf } from './registry-format.ts';

/** How `avro()` reads and writes. */
export interface AvroOptions extends SubjectOptions {
  /** Address of a schema registry. Without one `schema` is needed, and records have no id in front. */
  registry?: string | RegistryOptions;
  /** As an object or as JSON. Records are resolved to it when they are read, and written in it; by default they are read as they were written, and written in the newest schema of the subject. */
  schema?: object | string;
  /** Registers `schema` when a sink opens, where the subject does not have it; false by default: it must be there. */
  register?: boolean;
  /** How longs are read and taken: numbers, by default (undecodable beyond 2^53), or bigints. */
  longs?: 'number' | 'bigint';
}

/** What of avsc is used. */
interface AvroType {
  readonly typeName: string;
  readonly name?: string;
  readonly fields?: readonly { readonly type: AvroType }[];
  readonly types?: readonly AvroType[];
  readonly itemsType?: AvroType;
  readonly valuesType?: AvroType;
  readonly underlyingType?: AvroType;
  readonly recordConstructor?: { prototype: object };
  createResolver(writer: AvroType): unknown;
  fromBuffer(bytes: Buffer, resolver?: unknown): unknown;
  toBuffer(value: unknown): Buffer;
  isValid(value: unknown, options: { errorHook(path: readonly string[], value: unknown, type: { toString(): string }): void }): boolean;
}
interface Avsc {
  readonly Type: { forSchema(schema: unknown, options?: { registry?: Record<string, unknown>; wrapUnions?: unknown }): AvroType };
  readonly types: { readonly LongType: { __with(methods: object): unknown } };
}

/**
 * Avro records, with the id of their schema in front where a registry is given. Needs the package `avsc`.
 *
 * @param options `registry`, `schema` or both; `subject`, or how it is named; `register`; `longs`.
 * @throws OPTION_INVALID, SCHEMA_INVALID, PACKAGE_MISSING; REGISTRY_UNREACHABLE, REGISTRY_REFUSED in the job; RECORD_UNDECODABLE, RECORD_UNENCODABLE for records.
 * @example
 * const reading = { type: 'record', name: 'Reading', fields: [{ name: 'host', type: 'string' }, { name: 'cpu', type: 'double' }] };
 * const format = avro<{ host: string; cpu: number }>({ schema: reading });
 * assert.deepEqual(format.decode(format.encode({ host: 'mill', cpu: 0.5 })), { host: 'mill', cpu: 0.5 });
 */
export function avro<T>(options: AvroOptions): Format<T> {
  return avroFormat(options, systemIo());
}

export function avroFormat<T>(options: AvroOptions, io: Io): Format<T> {
  const { registry: address, schema, longs = 'number' } = options;
  if (address === undefined && schema === undefined) {
    throw new MillraceError('OPTION_INVALID', 'avro() needs a registry or a schema.', {
      todo: 'Give the address of the registry, or the schema of the records.',
    });
  }
  if (longs !== 'number' && longs !== 'bigint')
    throw new MillraceError('OPTION_INVALID', `'${String(longs)}' is no way to read longs.`, { todo: "Give 'number' or 'bigint'." });
  const types = new AvroTypes(longs === 'bigint');
  const own = schema === undefined ? undefined : types.read(schema);
  if (address === undefined) return plainAvro(own!);
  const registry = new SchemaRegistry(address, io);
  const readers = new SchemaReaders(registry, async (writer) => readerOf(writer, registry, types, own));
  return registryAvro(options, { registry, readers, types, own });
}

function plainAvro<T>(type: AvroType): Format<T> {
  const read = recordReader(type, undefined, 0);
  return { extension: 'avrobin', decode: (bytes) => read(bufferOf(bytes)) as T, encode: (value) => written(type, value) };
}

interface Shared {
  readonly registry: SchemaRegistry;
  readonly readers: SchemaReaders;
  readonly types: AvroTypes;
  readonly own: AvroType | undefined;
}

function registryAvro<T>(options: AvroOptions, shared: Shared): Format<T> {
  const { registry, readers, types, own } = shared;
  let writer: { readonly type: AvroType; readonly header: Buffer } | undefined;
  return {
    extension: 'avro',
    decode: (bytes) => readers.read(bytes, 'Avro') as T,
    prepare: (bytes) => readers.prepare(bytes),
    encode(value) {
      if (writer === undefined) throw notOpen('avro()');
      return Buffer.concat([writer.header, written(writer.type, value)]);
    },
    async open() {
      if (writer !== undefined) return;
      const subject = subjectOf(options, own?.name);
      if (own === undefined) {
        const latest = await registry.latest(subject);
        if (latest === undefined) throw noSchema(registry, subject);
        writer = { type: await typeOf(latest, registry, types), header: schemaHeader(latest.id) };
        return;
      }
      const { schema } = options;
      const described = { schema: typeof schema === 'string' ? schema : JSON.stringify(schema), type: 'AVRO', references: [] } as const;
      const id = options.register === true ? await registry.register(subject, described) : await registry.idOf(subject, described);
      if (id === undefined) throw noSchema(registry, subject);
      writer = { type: own, header: schemaHeader(id) };
    },
    ofTopic: (topic) => registryAvro<T>({ ...options, topic: options.topic ?? topic }, shared),
  };
}

async function typeOf(schema: RegisteredSchema, registry: SchemaRegistry, types: AvroTypes): Promise<AvroType> {
  if (schema.type !== 'AVRO') throw new MillraceError('SCHEMA_INVALID', `Schema ${schema.id} is one of ${schema.type}.`);
  return types.read(
    schema.schema,
    (await registry.referencesOf(schema)).map((each) => each.schema),
  );
}

async function readerOf(writer: RegisteredSchema, registry: SchemaRegistry, types: AvroTypes, own: AvroType | undefined): Promise<RecordReader> {
  const type = await typeOf(writer, registry, types);
  if (own === undefined) return recordReader(type, undefined, HEADER_BYTES);
  return recordReader(own, own.createResolver(type), HEADER_BYTES);
}

function recordReader(type: AvroType, resolver: unknown, skipped: number): RecordReader {
  const wrapped = hasWrappedUnion(type, new Set());
  return (bytes) => {
    let value: unknown;
    try {
      value = type.fromBuffer(skipped === 0 ? bytes : bytes.subarray(skipped), resolver);
    } catch (error) {
      throw undecodable('Avro', messageOf(error), error);
    }
    return wrapped ? plain(value) : value;
  };
}

function written(type: AvroType, value: unknown): Buffer {
  try {
    return type.toBuffer(value);
  } catch (error) {
    let reason = messageOf(error);
    type.isValid(value, {
      errorHook(path, found, wanted) {
        reason = `${path.length === 0 ? 'the record' : path.join('.')} is ${String(found)}, and no ${wanted.toString()}`;
      },
    });
    throw unencodable(`The record cannot be written in its Avro schema: ${reason}.`, error);
  }
}

/** Reads schemas. */
class AvroTypes {
  readonly #avsc: Avsc;
  readonly #bigints: boolean;

  constructor(bigints: boolean) {
    this.#avsc = peerNow<Avsc>('avsc', 'avro');
    this.#bigints = bigints;
  }

  read(schema: object | string, references: readonly string[] = []): AvroType {
    const named: Record<string, unknown> = this.#bigints ? { long: this.#avsc.types.LongType.__with(BIGINTS) } : {};
    try {
      for (const each of references) this.#avsc.Type.forSchema(parsed(each), { registry: named });
      const type = this.#avsc.Type.forSchema(parsed(schema), { registry: named });
      // A1: what is constructed has the prototype of any object.
      for (const each of Object.values(named) as AvroType[])
        if (each.typeName === 'record' && each.recordConstructor !== undefined) each.recordConstructor.prototype = Object.prototype;
      return type;
    } catch (error) {
      throw new MillraceError('SCHEMA_INVALID', `The Avro schema cannot be read: ${messageOf(error)}.`, { cause: error });
    }
  }
}

/** How avsc is told to read longs as bigints. */
const BIGINTS = {
  fromBuffer: (bytes: Buffer) => bytes.readBigInt64LE(),
  toBuffer(value: bigint) {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(value);
    return bytes;
  },
  fromJSON: BigInt,
  toJSON: Number,
  isValid: (value: unknown) => typeof value === 'bigint',
  compare: (left: bigint, right: bigint) => (left === right ? 0 : left < right ? -1 : 1),
};

/** JSON, or the name of a primitive type. */
function parsed(schema: object | string): unknown {
  if (typeof schema !== 'string') return schema;
  return /^\s*[[{"]/.test(schema) ? JSON.parse(schema) : schema;
}

/** Unions whose branches avsc cannot tell apart by their values come as an instance of a class of their own. */
function hasWrappedUnion(type: AvroType, seen: Set<AvroType>): boolean {
  if (seen.has(type)) return false;
  seen.add(type);
  if (type.typeName === 'union:wrapped') return true;
  const inside = [...(type.fields ?? []).map((field) => field.type), ...(type.types ?? []), type.itemsType, type.valuesType, type.underlyingType];
  return inside.some((each) => each !== undefined && hasWrappedUnion(each, seen));
}

function plain(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array || value instanceof Date) return value;
  if (Array.isArray(value)) return value.map(plain);
  return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, plain(part)]));
}

function noSchema(registry: SchemaRegistry, subject: string): MillraceError {
  return new MillraceError('REGISTRY_REFUSED', `The schema registry ${registry.name} has no such schema under the subject '${subject}'.`, {
    todo: 'Register it, or let the format do so with `register: true`.',
  });
}
