// What formats with a schema registry have in common: the bytes in front of a record, how ids become readers, and which subject a writer's schema stands under.
//
//   byte 0      0
//   bytes 1–4   id of the schema, big-endian
//   then        of Protobuf: the path of the message in the file (count and indexes, zigzag varints; [0] is a single 0)
//   then        the record
//
// Invariants:
//  W1  `decode` finds a reader by id, in a map; only `prepare` asks the registry, once an id.
//  W2  An id that the registry does not have, or whose schema cannot be read as wanted, makes each of its records undecodable: dead letters, no failure. A
//      registry that cannot be asked makes none: `prepare` rejects.

import { MillraceError, messageOf } from '../errors.ts';
import { undecodable } from './formats.ts';
import type { RegisteredSchema, SchemaRegistry } from './registry.ts';

/** How the subject of a schema is called: for its topic (`orders-value`), its record (`shop.Order`), or both (`orders-shop.Order`). */
export type SubjectStrategy = 'topic' | 'record' | 'topic-record';

/** Under which subject a format's schema stands. */
export interface SubjectOptions {
  /** The subject itself. */
  subject?: string;
  /** Else it is named for the topic, the record or both; by topic by default. */
  subjectStrategy?: SubjectStrategy;
  /** The topic, where the connector does not say it. */
  topic?: string;
  /** What of a message the format is for; 'value' by default. */
  part?: 'key' | 'value';
}

const STRATEGIES: readonly unknown[] = ['topic', 'record', 'topic-record'];

/** Pure. `record` is the full name of the record or message. */
export function subjectOf({ subject, subjectStrategy = 'topic', topic, part = 'value' }: SubjectOptions, record: string | undefined): string {
  if (subject !== undefined) return subject;
  if (!STRATEGIES.includes(subjectStrategy)) {
    throw new MillraceError('OPTION_INVALID', `'${subjectStrategy}' is no subjectStrategy.`, { todo: "Give 'topic', 'record' or 'topic-record'." });
  }
  if (subjectStrategy !== 'record' && topic === undefined) {
    throw new MillraceError('OPTION_INVALID', 'The format does not know the subject of its schema.', {
      todo: "Give it `subject`, `topic`, or subjectStrategy: 'record'.",
    });
  }
  if (subjectStrategy === 'topic') return `${topic}-${part}`;
  if (record === undefined) {
    throw new MillraceError('OPTION_INVALID', 'The schema has no name to call its subject by.', {
      todo: 'Give the format a `subject`, or the schema of a record.',
    });
  }
  return subjectStrategy === 'record' ? record : `${topic}-${record}`;
}

export const HEADER_BYTES = 5;

/** −1: these are no bytes of a registry's format. */
export function schemaIdIn(bytes: Uint8Array): number {
  if (bytes.length < HEADER_BYTES || bytes[0] !== 0) return -1;
  return ((bytes[1]! << 24) | (bytes[2]! << 16) | (bytes[3]! << 8) | bytes[4]!) >>> 0;
}

export function schemaHeader(id: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32BE(id, 1);
  return header;
}

/** The path of a message behind the header, and where the record begins. */
export function messagePathIn(bytes: Uint8Array): { readonly path: readonly number[]; readonly end: number } {
  let at = HEADER_BYTES;
  const next = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at];
      if (byte === undefined || shift > 28) throw undecodable('Protobuf', 'the path of its message is cut off');
      at += 1;
      value |= (byte & 127) << shift;
      if (byte < 128) return (value >>> 1) ^ -(value & 1);
    }
  };
  const count = next();
  if (count === 0) return { path: [0], end: at };
  if (count < 0 || count > bytes.length) throw undecodable('Protobuf', 'the path of its message means nothing');
  const path = Array.from({ length: count }, next);
  return { path, end: at };
}

export function messagePath(path: readonly number[]): Buffer {
  if (path.length === 1 && path[0] === 0) return Buffer.from([0]);
  const bytes: number[] = [];
  for (const number of [path.length, ...path]) {
    let rest = number << 1;
    for (; rest > 127; rest >>>= 7) bytes.push((rest & 127) | 128);
    bytes.push(rest);
  }
  return Buffer.from(bytes);
}

/** Reads the records of one writer's schema. */
export type RecordReader = (bytes: Buffer) => unknown;

/** The readers by id (W1). */
export class SchemaReaders {
  readonly #registry: SchemaRegistry;
  readonly #make: (schema: RegisteredSchema) => Promise<RecordReader>;
  readonly #readers = new Map<number, RecordReader>();
  readonly #fetching = new Map<number, Promise<void>>();
  /** Until when an id that the registry did not have is not asked for again. */
  readonly #absent = new Map<number, number>();
  #lastId = -1;
  #last: RecordReader | undefined;

  constructor(registry: SchemaRegistry, make: (schema: RegisteredSchema) => Promise<RecordReader>) {
    this.#registry = registry;
    this.#make = make;
  }

  /** As `Format.prepare`. */
  prepare(bytes: Uint8Array): Promise<void> | undefined {
    const id = schemaIdIn(bytes);
    if (id === this.#lastId || id === -1) return undefined;
    if (this.#readers.has(id)) {
      const until = this.#absent.get(id);
      if (until === undefined || until > Date.now()) return undefined;
    }
    let fetching = this.#fetching.get(id);
    if (fetching === undefined) {
      fetching = this.#fetch(id).finally(() => this.#fetching.delete(id));
      this.#fetching.set(id, fetching);
    }
    return fetching;
  }

  read(bytes: Uint8Array, format: string): unknown {
    const id = schemaIdIn(bytes);
    if (id === -1) throw undecodable(format, 'it does not begin with the id of a schema');
    if (id !== this.#lastId) {
      const found = this.#readers.get(id);
      if (found === undefined) {
        throw new MillraceError('FORMAT_NOT_READY', `Schema ${id} was not fetched before a record of it was decoded.`, {
          todo: 'A source awaits `format.prepare(bytes)` before it decodes; this one does not.',
        });
      }
      // One that is absent is looked at anew each time.
      if (this.#absent.has(id)) return found(bufferOf(bytes));
      this.#lastId = id;
      this.#last = found;
    }
    return this.#last!(bufferOf(bytes));
  }

  async #fetch(id: number): Promise<void> {
    const schema = await this.#registry.byId(id);
    if (schema === undefined) {
      this.#absent.set(id, Date.now() + 60_000);
      this.#readers.set(id, () => {
        throw undecodable('registry', `there is no schema ${id} at ${this.#registry.name}`);
      });
      return;
    }
    this.#absent.delete(id);
    let reader: RecordReader;
    try {
      reader = await this.#make(schema);
    } catch (error) {
      if (error instanceof MillraceError && error.retryable) throw error;
      reader = () => {
        throw undecodable('schema', `schema ${id} cannot be read: ${messageOf(error)}`, error);
      };
    }
    this.#readers.set(id, reader);
  }
}

export function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** For `encode` of a format whose `open` was not awaited. */
export function notOpen(what: string): MillraceError {
  return new MillraceError('FORMAT_NOT_READY', `${what} was asked to encode before it was opened.`, {
    todo: 'A sink awaits `format.open()` when it opens; this one does not.',
  });
}
