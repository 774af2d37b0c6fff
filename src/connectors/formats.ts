// Formats: how the bytes of one record become a value and back.
//
// What: `Format<T>` is the whole contract for users: `decode` throws where the bytes are no record, `encode` gives the bytes of one. Connectors that
// keep many records in one stream of bytes (files, tcp) also need to know where a record ends: a format made here that reads and writes text
// carries a `LineCodec`, is framed by line feed and spares a Buffer for each record; every other format is framed by its length (`framing.ts`).
//
// Invariants:
// F1  `decode` throws RECORD_UNDECODABLE (with the cause) for a record that is wrong, so that its source can keep it as a dead letter; it throws
//     SCHEMA_IS_ASYNC, which no source may keep as a dead letter, when the program is wrong.
// F2  a line that a `LineCodec` encodes has no line feed: what is written is read back as one record.
// F3  a format built from one of these (`{ ...json(), decode }`) keeps its framing; its own `decode` and `encode` are used.
// F4  `decode` and `encode` are synchronous. What has to be fetched first (a schema) is fetched by `prepare` and `open`, which connectors await
//     outside of the loop over records; a format without them costs nothing for it.

import { Packr } from 'msgpackr';
import { MillraceError, messageOf } from '../errors.ts';

/** How the bytes of one record become a value and back: `ndjson()`, `json()`, `csv()`, `text()`, `msgpack()`, or your own. */
export interface Format<T> {
  /** Throws where the bytes are no record: it then becomes a dead letter of its source. */
  decode(bytes: Uint8Array): T;
  encode(value: T): Uint8Array;
  /** The ending of files in this format, without a dot. */
  readonly extension?: string;
  /**
   * Called by sources with the bytes of each record before they decode it: undefined where `decode` can do it at once, which is so but for the first record of
   * each schema. The promise resolves when `decode` can; it rejects with a retryable error where what is needed cannot be had at present.
   */
  prepare?(bytes: Uint8Array): Promise<void> | undefined;
  /** Awaited by sinks when they open, before the first `encode`. */
  open?(): Promise<void>;
  /** The same for the records of one topic, where what it writes depends on that: sources and sinks of topics use what it gives. */
  ofTopic?(topic: string): Format<T>;
}

/** The part of Standard Schema (zod, valibot, arktype …) that a format uses. */
export interface Schema<T> {
  readonly '~standard': {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => unknown;
    readonly types?: { readonly input: unknown; readonly output: T } | undefined;
  };
}

/** A text format, a line at a time. */
export interface LineCodec<T> {
  /** The first line of a file names the columns and is no record. */
  readonly header: boolean;
  /** A blank line is no record. */
  readonly skipsBlank: boolean;
  /** Made once a file: takes the lines after `header`. */
  reader(header: string | undefined): (line: string) => T;
  encode(value: T): string;
  /** With `header`: the first line of a file that holds this value. */
  headerOf?(value: T): string;
}

const LINES = Symbol('lines');

interface Lined<T> {
  readonly codec: LineCodec<T>;
  readonly decode: Format<T>['decode'];
  readonly encode: Format<T>['encode'];
}

/** How the format frames and reads lines; undefined: it is framed by length. */
export function lineCodecOf<T>(format: Format<T>): LineCodec<T> | undefined {
  const lined = (format as { [LINES]?: Lined<T> })[LINES];
  if (lined === undefined) return undefined;
  const { codec } = lined;
  if (format.decode === lined.decode && format.encode === lined.encode) return codec;
  const encoder = new TextEncoder();
  const decoder = new TextDecoder();
  return {
    header: false,
    skipsBlank: codec.skipsBlank,
    reader: () => (line) => format.decode(encoder.encode(line)),
    encode: (value) => withoutLineFeed(decoder.decode(format.encode(value))),
  };
}

/** Whether the error says that the program is wrong rather than the record (F1): it must not become a dead letter. */
export function isFormatMisuse(error: unknown): boolean {
  return error instanceof MillraceError && (error.code === 'SCHEMA_IS_ASYNC' || error.code === 'FORMAT_NOT_READY');
}

/** Resolves when the format can decode all of them; undefined: at once. */
export function prepared<T>(format: Format<T>, records: readonly Uint8Array[]): Promise<void> | undefined {
  if (format.prepare === undefined) return undefined;
  for (let i = 0; i < records.length; i += 1) {
    const fetching = format.prepare(records[i]!);
    if (fetching !== undefined) return preparedFrom(format, records, i + 1, fetching);
  }
  return undefined;
}

async function preparedFrom<T>(format: Format<T>, records: readonly Uint8Array[], from: number, first: Promise<void>): Promise<void> {
  await first;
  for (let i = from; i < records.length; i += 1) await format.prepare!(records[i]!);
}

/**
 * One JSON document a record, a line each in files.
 *
 * @param schema checks each decoded record, and may convert it; synchronous.
 * @throws RECORD_UNDECODABLE where bytes are no JSON or the schema refuses them, RECORD_UNENCODABLE, SCHEMA_IS_ASYNC
 * @example
 * const format = json<{ n: number }>();
 * assert.deepEqual(format.decode(format.encode({ n: 1 })), { n: 1 });
 */
export function json<T>(schema?: Schema<T>): Format<T> {
  return ofLines('json', jsonLines(schema));
}

/**
 * JSON lines: as `json()`, with the ending `.ndjson`. The default of files.
 *
 * @param schema checks each decoded record, and may convert it; synchronous. Any Standard Schema: zod, valibot, arktype …
 * @throws RECORD_UNDECODABLE where bytes are no JSON or the schema refuses them, RECORD_UNENCODABLE, SCHEMA_IS_ASYNC
 * @example
 * const positive: Schema<number> = {
 *   '~standard': { version: 1, vendor: 'own', validate: (value) => (Number(value) > 0 ? { value } : { issues: [{ message: 'not above 0' }] }) },
 * };
 * const format = ndjson(positive);
 * assert.equal(format.decode(Buffer.from('12')), 12);
 * assert.throws(() => format.decode(Buffer.from('-12')), { code: 'RECORD_UNDECODABLE' });
 */
export function ndjson<T>(schema?: Schema<T>): Format<T> {
  return ofLines('ndjson', jsonLines(schema));
}

/**
 * A line of text a record, UTF-8, without its line feed.
 * @throws RECORD_UNENCODABLE where the text has a line feed.
 * @example
 * assert.equal(text().decode(Buffer.from('the mill turns')), 'the mill turns');
 */
export function text(): Format<string> {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  const encoder = new TextEncoder();
  return lined(
    'txt',
    { header: false, skipsBlank: false, reader: () => detached, encode: withoutLineFeed },
    (bytes) => decoder.decode(bytes),
    (value) => encoder.encode(value),
  );
}

/**
 * Comma-separated values (RFC 4180, without line breaks inside of quotes). With a header, the default, a record is an object of strings named by the
 * first line of its file; without, an array of strings.
 *
 * @param options `header`: true by default. `delimiter`: one character, `,` by default. `schema` checks each record, and makes more of it than strings.
 * @throws OPTION_INVALID; RECORD_UNDECODABLE, RECORD_UNENCODABLE, SCHEMA_IS_ASYNC for records.
 * @example
 * const format = csv<string[]>({ header: false, delimiter: ';' });
 * assert.deepEqual(format.decode(Buffer.from('mill;"a ""water"" mill"')), ['mill', 'a "water" mill']);
 */
export function csv<T>(options: { header?: boolean; delimiter?: string; schema?: Schema<T> } = {}): Format<T> {
  const { header = true, delimiter = ',', schema } = options;
  if (delimiter.length !== 1 || delimiter === '"' || delimiter === '\n' || delimiter === '\r') {
    throw new MillraceError('OPTION_INVALID', `'${delimiter}' cannot be the delimiter of csv().`, {
      todo: 'Give one character that is neither a quote nor a line break.',
    });
  }
  const check = checker(schema);
  return ofLines('csv', {
    header,
    skipsBlank: true,
    reader(first) {
      if (!header) return (line) => check(cells(detached(line), delimiter));
      if (first === undefined) throw undecodable('csv', 'there is no line with the names of the columns');
      const names = cells(first, delimiter);
      return (line) => {
        const values = cells(detached(line), delimiter);
        if (values.length !== names.length) throw undecodable('csv', `the line has ${values.length} fields, the header ${names.length}`);
        const record: Record<string, string> = {};
        for (let i = 0; i < names.length; i += 1) record[names[i]!] = values[i]!;
        return check(record);
      };
    },
    encode(value) {
      const fields = Array.isArray(value) ? (value as unknown[]) : Object.values(value as object);
      return fields.map((field) => cell(field, delimiter)).join(delimiter);
    },
    ...(header
      ? {
          headerOf: (value: T) =>
            Object.keys(value as object)
              .map((name) => cell(name, delimiter))
              .join(delimiter),
        }
      : {}),
  });
}

/**
 * MessagePack, as other languages write it: objects are maps. Files frame each record by its length.
 *
 * @param schema checks each decoded record, and may convert it; synchronous.
 * @throws RECORD_UNDECODABLE, SCHEMA_IS_ASYNC
 * @example
 * const format = msgpack<{ n: number; at: Date }>();
 * assert.deepEqual(format.decode(format.encode({ n: 1, at: new Date(0) })), { n: 1, at: new Date(0) });
 */
export function msgpack<T>(schema?: Schema<T>): Format<T> {
  const packr = new Packr({ useRecords: false });
  const check = checker(schema);
  return {
    extension: 'msgpack',
    encode: (value) => packr.pack(value),
    decode(bytes) {
      let value: unknown;
      try {
        value = packr.unpack(bytes);
      } catch (error) {
        throw undecodable('MessagePack', messageOf(error), error);
      }
      return check(value);
    },
  };
}

function jsonLines<T>(schema: Schema<T> | undefined): LineCodec<T> {
  const check = checker(schema);
  const read = (line: string): T => {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (error) {
      throw undecodable('JSON', messageOf(error), error);
    }
    return check(value);
  };
  return {
    header: false,
    skipsBlank: true,
    reader: () => read,
    encode(value) {
      const line = JSON.stringify(value) as string | undefined;
      if (line === undefined) throw unencodable(`${typeof value} is nothing that JSON can hold.`);
      return line;
    },
  };
}

function ofLines<T>(extension: string, codec: LineCodec<T>): Format<T> {
  const decoder = new TextDecoder();
  const encoder = new TextEncoder();
  if (!codec.header) {
    const read = codec.reader(undefined);
    return lined(
      extension,
      codec,
      (bytes) => read(withoutEnd(decoder.decode(bytes))),
      (value) => encoder.encode(codec.encode(value)),
    );
  }
  // Standing alone, a record brings its header.
  return lined(
    extension,
    codec,
    (bytes) => {
      const both = withoutEnd(decoder.decode(bytes));
      const end = both.indexOf('\n');
      if (end < 0) throw undecodable(extension, 'a record with its header is two lines');
      return codec.reader(withoutEnd(both.slice(0, end)))(both.slice(end + 1));
    },
    (value) => encoder.encode(`${codec.headerOf?.(value)}\n${codec.encode(value)}`),
  );
}

function lined<T>(extension: string, codec: LineCodec<T>, decode: Format<T>['decode'], encode: Format<T>['encode']): Format<T> {
  const format: Format<T> & { [LINES]: Lined<T> } = { extension, decode, encode, [LINES]: { codec, decode, encode } };
  return format;
}

function checker<T>(schema: Schema<T> | undefined): (value: unknown) => T {
  if (schema === undefined) return (value) => value as T;
  const { validate, vendor } = schema['~standard'];
  return (value) => {
    const result = validate(value) as { value?: unknown; issues?: readonly { message: string; path?: readonly unknown[] }[]; then?: unknown };
    if (typeof result.then === 'function') {
      void Promise.resolve(result).catch(() => {});
      throw new MillraceError('SCHEMA_IS_ASYNC', `The schema of a format (${vendor}) validates asynchronously.`, {
        todo: 'Records are decoded synchronously: give a schema without asynchronous checks, and check the rest in an operator.',
      });
    }
    if (result.issues !== undefined) throw undecodable('schema', result.issues.map(sentence).join('; '), result.issues);
    return result.value as T;
  };
}

function sentence(issue: { message: string; path?: readonly unknown[] }): string {
  if (issue.path === undefined || issue.path.length === 0) return issue.message;
  const path = issue.path.map((step) => String(typeof step === 'object' && step !== null && 'key' in step ? step.key : step)).join('.');
  return `${path}: ${issue.message}`;
}

export function undecodable(format: string, reason: string, cause?: unknown): MillraceError {
  return new MillraceError('RECORD_UNDECODABLE', `The record does not decode (${format}): ${reason}.`, { cause });
}

export function unencodable(reason: string, cause?: unknown): MillraceError {
  return new MillraceError('RECORD_UNENCODABLE', reason, { cause });
}

function withoutLineFeed(line: string): string {
  if (line.includes('\n')) throw unencodable('A record with a line feed cannot be one line of text.');
  return line;
}

/** A copy: a line cut out of a larger text would keep all of it in memory for as long as the record lives. */
function detached(line: string): string {
  return ` ${line}`.slice(1);
}

function withoutEnd(line: string): string {
  if (!line.endsWith('\n')) return line.endsWith('\r') ? line.slice(0, -1) : line;
  return line.slice(0, line.endsWith('\r\n') ? -2 : -1);
}

function cells(line: string, delimiter: string): string[] {
  if (!line.includes('"')) return line.split(delimiter);
  const fields: string[] = [];
  let at = 0;
  for (;;) {
    if (line[at] !== '"') {
      const end = line.indexOf(delimiter, at);
      if (end < 0) {
        fields.push(line.slice(at));
        return fields;
      }
      fields.push(line.slice(at, end));
      at = end + 1;
      continue;
    }
    let field = '';
    at += 1;
    for (;;) {
      const quote = line.indexOf('"', at);
      if (quote < 0) throw undecodable('csv', 'a quote is not closed');
      field += line.slice(at, quote);
      at = quote + 1;
      if (line[at] !== '"') break;
      field += '"';
      at += 1;
    }
    fields.push(field);
    if (at === line.length) return fields;
    if (line[at] !== delimiter) throw undecodable('csv', 'there is more after a closing quote');
    at += 1;
  }
}

function cell(value: unknown, delimiter: string): string {
  const plain = value === null || value === undefined ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value);
  if (plain.includes('\n') || plain.includes('\r')) throw unencodable('A field with a line break cannot stand in one line of csv.');
  return plain.includes(delimiter) || plain.includes('"') ? `"${plain.replaceAll('"', '""')}"` : plain;
}
