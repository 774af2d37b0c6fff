import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ByteReader, ByteWriter } from '../../state-backends/byte-writer.ts';
import { decodeFrom, encodeInto } from '../../state-backends/codec.ts';
import { copy, decode, encode, extendCodec } from '../../state-backends/index.ts';

const leaf = fc.oneof(
  fc.double(),
  fc.integer(),
  fc.maxSafeInteger(),
  fc.string({ unit: 'binary' }),
  fc.array(fc.integer({ min: 0, max: 0xffff })).map((units) => String.fromCharCode(...units)),
  fc.boolean(),
  fc.bigInt(),
  fc.constantFrom(null, undefined, -0, Number.NaN, Number.POSITIVE_INFINITY),
  fc.date(),
  fc.uint8Array(),
  fc.float64Array(),
  fc.int32Array(),
  fc.bigInt64Array(),
);
const { value } = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3 },
    leaf,
    fc.array(tie('value'), { maxLength: 5 }),
    fc.dictionary(fc.string(), tie('value'), { noNullPrototype: false, maxKeys: 5 }),
    fc.record({ a: tie('value'), b: tie('value'), 7: tie('value') }),
    fc.array(fc.tuple(tie('value'), tie('value')), { maxLength: 3 }).map((entries) => new Map(entries)),
    fc.array(tie('value'), { maxLength: 3 }).map((items) => new Set(items)),
    fc.array(fc.record({ id: fc.integer(), name: fc.string(), more: tie('value') }), { maxLength: 4 }),
  ),
}));

const sparse: number[] = [1];
sparse[2] = 3;

describe('the codec', () => {
  test('keeps texts that are written where the writer has just enough room for them', () => {
    const values = [{ n: 8 }, { é: 'ü' }, 'ä'.repeat(30), 'x'.repeat(70), /n/g];
    for (const written of values) {
      for (let before = 0; before < 300; before++) {
        const out = new ByteWriter(300);
        out.at = before;
        encodeInto(out, written);
        expect(decodeFrom(new ByteReader(out.bytes, before, out.at)), `${before} bytes in front`).toEqual(written);
      }
    }
  });

  test('gives back what it was given', () => {
    fc.assert(
      fc.property(value, (v) => {
        expect(decode(encode(v))).toStrictEqual(v);
      }),
      { numRuns: 500 },
    );
  });

  test.each([
    ['−0', -0],
    ['−0 within', { a: [-0] }],
    ['a hole', sparse],
    ['holes at the end', Object.assign([1], { length: 3 })],
    ['a key named __proto__', JSON.parse('{"__proto__":1,"a":2}')],
    ['an ArrayBuffer', new Uint8Array([1, 2]).buffer],
    ['a Buffer', Buffer.from('abc')],
    ['an invalid date', new Date(Number.NaN)],
    ['a RegExp', /a+b/giu],
    ['a key without prototype', Object.assign(Object.create(null), { a: 1 })],
    ['undefined under a key', { a: undefined }],
    ['a long string with a lone surrogate', `${'x'.repeat(100)}\uD800`],
    ['integers near the edges', [127, 128, -1, -128, 2 ** 31, -(2 ** 31), 2 ** 32, 2 ** 48, -(2 ** 48), 2 ** 53, 2 ** 53 - 1, 5e-324]],
    ['typed arrays', [new Float32Array([1.5]), new Uint16Array([65535]), new BigUint64Array([2n ** 63n]), new Uint8ClampedArray([3])]],
  ])('keeps %s', (_, v) => {
    expect(decode(encode(v))).toStrictEqual(v);
  });

  test('keeps −0 apart from 0', () => {
    expect(Object.is(decode(encode(-0)), -0)).toBe(true);
    expect(Object.is((decode(encode({ a: -0 })) as { a: number }).a, -0)).toBe(true);
  });

  test('keeps errors with message, stack, cause and further properties', () => {
    const error = Object.assign(new TypeError('bad', { cause: new RangeError('inner') }), { code: 'E1', at: 3 });
    const back = decode(encode({ error })) as { error: TypeError & { code: string; at: number } };
    expect(back.error).toBeInstanceOf(TypeError);
    expect(back.error.message).toBe('bad');
    expect(back.error.stack).toBe(error.stack);
    expect(back.error.cause).toBeInstanceOf(RangeError);
    expect([back.error.code, back.error.at]).toEqual(['E1', 3]);
  });

  test('decodes objects that share a shape to objects of one shape, also compiled', () => {
    const many = Array.from({ length: 100 }, (_, i) => ({ id: i, name: `n${i}`, at: { x: i } }));
    expect(decode(encode(many))).toStrictEqual(many);
    for (let i = 0; i < 50; i++) expect(decode(encode(many[i]))).toStrictEqual(many[i]);
  });

  class Point {
    x = 1;
  }
  test.each([
    ['a function', { a: { b: [1, () => 1] } }, 'value.a.b[1]'],
    ['a symbol', [Symbol('s')], 'value[0]'],
    ['an instance of a class', { p: new Point() }, 'value.p'],
    ['an instance in a Map', new Map([['k', new Point()]]), 'value[0]'],
    ['a promise', { p: Promise.resolve() }, 'value.p'],
    ['a subclass of Map', { m: new (class extends Map {})() }, 'value.m'],
  ])('refuses %s and names the path', (_, v, path) => {
    const refused = expect.objectContaining({ code: 'STATE_NOT_SERIALIZABLE', message: expect.stringContaining(path) });
    expect(() => encode(v)).toThrow(refused);
    expect(() => copy(v)).toThrow(refused);
  });

  test('refuses what contains itself', () => {
    const loop: { self?: unknown } = {};
    loop.self = loop;
    expect(() => encode(loop)).toThrow(expect.objectContaining({ code: 'STATE_NOT_SERIALIZABLE' }));
  });

  test('works after a refusal as before', () => {
    expect(() => encode([{ a: 1 }, { a: () => 1 }])).toThrow();
    expect(decode(encode([{ a: 1 }, { a: 2 }]))).toEqual([{ a: 1 }, { a: 2 }]);
  });

  test('takes classes that were made known to it', () => {
    class Histogram {
      readonly counts: number[];
      constructor(counts: number[]) {
        this.counts = counts;
      }
    }
    extendCodec('test/histogram', Histogram, { write: (h) => h.counts, read: (counts) => new Histogram(counts as number[]) });
    const back = decode(encode({ h: new Histogram([1, 2]) })) as { h: Histogram };
    expect(back.h).toBeInstanceOf(Histogram);
    expect(back.h.counts).toEqual([1, 2]);
  });

  test('copies share nothing with the original', () => {
    const original = { a: [1, { b: 2 }] };
    const copied = copy(original);
    (copied.a[1] as { b: number }).b = 3;
    expect(original).toEqual({ a: [1, { b: 2 }] });
  });

  test('says SNAPSHOT_CORRUPT of bytes that are cut off', () => {
    const bytes = encode({ name: 'x'.repeat(10), list: [1, 2, 3], map: new Map([[1, 2]]) });
    for (let n = 0; n < bytes.length; n++) expect(() => decode(bytes.subarray(0, n))).toThrow(expect.objectContaining({ code: 'SNAPSHOT_CORRUPT' }));
  });
});
