import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { csv, type Format, json, lineCodecOf, msgpack, ndjson, type Schema, text } from '../../src/connectors/formats.ts';

const bytes = (value: string): Uint8Array => new TextEncoder().encode(value);
const string = (value: Uint8Array): string => new TextDecoder().decode(value);

function schema<T>(validate: (value: unknown) => unknown): Schema<T> {
  return { '~standard': { version: 1, vendor: 'test', validate } };
}

const positive = schema<{ n: number }>((value) => {
  const n = Number((value as { n: unknown }).n);
  return n > 0 ? { value: { n } } : { issues: [{ message: 'must be positive', path: ['n'] }] };
});

describe('every format', () => {
  it.each<[string, Format<unknown>, unknown]>([
    ['json', json(), { a: [1, 'ö', null], b: { c: true } }],
    ['ndjson', ndjson(), 'a\nb'],
    ['csv', csv(), { name: 'O"Neil, Ann', empty: '', city: 'Zürich' }],
    ['csv without header', csv({ header: false, delimiter: ';' }), ['a;b', '', '"']],
    ['text', text() as Format<unknown>, 'two\nlines\r\n'],
    ['msgpack', msgpack(), { a: [1, 'ö', null], b: { c: 1.5 } }],
  ])('gives back what it encoded: %s', (_, format, value) => {
    expect(format.decode(format.encode(value))).toEqual(value);
  });

  it('names the ending of its files', () => {
    expect([json(), ndjson(), csv(), text(), msgpack()].map((format) => format.extension)).toEqual(['json', 'ndjson', 'csv', 'txt', 'msgpack']);
  });

  it.each<[string, Format<unknown>, Uint8Array]>([
    ['json', json(), bytes('{"a":')],
    ['ndjson', ndjson(), bytes('nothing')],
    ['csv', csv(), bytes('a,b\n1')],
    ['csv with an open quote', csv({ header: false }), bytes('a,"b')],
    ['csv without its header', csv(), bytes('1,2')],
    ['msgpack', msgpack(), Uint8Array.of(0x92, 1)],
  ])('throws RECORD_UNDECODABLE for bytes that are no record: %s', (_, format, wrong) => {
    expect(() => format.decode(wrong)).toThrow(expect.objectContaining({ code: 'RECORD_UNDECODABLE' }));
  });
});

describe('a format with a schema', () => {
  it('gives what the schema made of the record', () => {
    expect(json(positive).decode(bytes('{"n":"4"}'))).toEqual({ n: 4 });
    expect(csv({ schema: positive }).decode(bytes('n\n4'))).toEqual({ n: 4 });
    expect(msgpack(positive).decode(msgpack().encode({ n: 4 }))).toEqual({ n: 4 });
  });

  it('refuses a record that the schema refuses, with the path and the reason', () => {
    expect(() => ndjson(positive).decode(bytes('{"n":-4}'))).toThrow(/n: must be positive/);
  });

  it('says that a schema must not be asynchronous', () => {
    const later = schema<{ n: number }>(() => Promise.reject(new Error('never looked at')));
    expect(() => json(later).decode(bytes('{}'))).toThrow(expect.objectContaining({ code: 'SCHEMA_IS_ASYNC' }));
  });
});

describe('a line codec', () => {
  it('belongs to the text formats alone', () => {
    expect(lineCodecOf(msgpack())).toBeUndefined();
    expect(lineCodecOf({ decode: () => 0, encode: () => bytes('') })).toBeUndefined();
    expect(lineCodecOf(json())?.encode({ a: '\n' })).toBe('{"a":"\\n"}');
  });

  it('uses the own functions of a format that was built from one', () => {
    const upper: Format<string> = { ...text(), decode: (line) => string(line).toUpperCase() };
    expect(lineCodecOf(upper)?.reader(undefined)('abc')).toBe('ABC');
  });

  it('refuses a record that would be two lines', () => {
    expect(() => lineCodecOf(text())?.encode('a\nb')).toThrow(expect.objectContaining({ code: 'RECORD_UNENCODABLE' }));
    expect(() => lineCodecOf(csv())?.encode({ a: 'x\ny' })).toThrow(expect.objectContaining({ code: 'RECORD_UNENCODABLE' }));
    expect(() => lineCodecOf(json())?.encode(undefined)).toThrow(expect.objectContaining({ code: 'RECORD_UNENCODABLE' }));
  });

  it('reads any row of csv that it wrote', () => {
    const codec = lineCodecOf(csv<string[]>({ header: false }));
    const field = fc.string({ unit: 'binary' }).filter((part) => !/[\r\n]/.test(part));
    fc.assert(
      fc.property(fc.array(field, { minLength: 1 }), (row) => {
        expect(codec?.reader(undefined)(codec.encode(row))).toEqual(row);
      }),
      { seed: 7 },
    );
  });
});
