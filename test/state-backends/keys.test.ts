import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  ByteReader,
  canonicalKey,
  defaultMaxParallelism,
  groupOf,
  hashKey,
  instanceOf,
  type Key,
  keyBytes,
  murmur3,
  rangeOf,
  readKey,
  sameKey,
} from '../../state-backends/index.ts';

const text = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string(),
  fc.array(fc.integer({ min: 0, max: 0xffff })).map((units) => String.fromCharCode(...units)),
);
const leaf = fc.oneof(text, fc.double(), fc.integer(), fc.bigInt(), fc.boolean());
const { key } = fc.letrec<{ key: Key }>((tie) => ({
  key: fc.oneof({ depthSize: 'small' }, leaf, fc.array(tie('key'), { maxLength: 4 })) as fc.Arbitrary<Key>,
}));

describe('the hash', () => {
  test('is murmur3 x86 32 bit: the published vectors', () => {
    const of = (text: string): number => murmur3(Buffer.from(text)) >>> 0;
    expect(of('')).toBe(0);
    expect(of('hello')).toBe(0x248bfa47);
    expect(of('hello, world')).toBe(0x149bbb7f);
    expect(of('The quick brown fox jumps over the lazy dog')).toBe(0x2e4ff723);
  });

  test('is, on every fast path, that of the canonical bytes', () => {
    fc.assert(
      fc.property(key, (k) => {
        expect(hashKey(k)).toBe(murmur3(keyBytes(k)));
      }),
      { numRuns: 2000 },
    );
  });

  test('of 0 and −0, and of every NaN, is one', () => {
    expect(hashKey(-0)).toBe(hashKey(0));
    const other = new Float64Array(new BigUint64Array([0x7ff8000000000123n]).buffer)[0]!;
    expect(hashKey(other)).toBe(hashKey(Number.NaN));
    expect(keyBytes(other)).toEqual(keyBytes(Number.NaN));
  });
});

describe('canonical bytes', () => {
  test('protocols 23: are equal exactly where the keys are the same', () => {
    fc.assert(
      fc.property(key, key, (a, b) => {
        expect(keyBytes(a).equals(keyBytes(b))).toBe(sameKey(a, b));
      }),
      { numRuns: 3000 },
    );
  });

  test('protocols 23: lone surrogates, joined parts and kinds that look alike stay apart', () => {
    const different: Key[] = [
      'a\uD800',
      'a\uDBFF',
      'a\uFFFD',
      ['a', 'bc'],
      ['ab', 'c'],
      ['abc'],
      'abc',
      1,
      1n,
      true,
      '1',
      [1],
      [[1]],
      [],
      [[]],
      '',
      0,
      0n,
      false,
      -1n,
    ];
    expect(new Set(different.map((k) => keyBytes(k).toString('hex'))).size).toBe(different.length);
    for (const [i, a] of different.entries()) for (const [j, b] of different.entries()) expect(sameKey(a, b)).toBe(i === j);
  });

  test('are read back as the same key', () => {
    fc.assert(
      fc.property(key, (k) => {
        const from = new ByteReader(keyBytes(k));
        const back = readKey(from);
        expect(sameKey(back, k)).toBe(true);
        expect(from.at).toBe(from.end);
      }),
      { numRuns: 2000 },
    );
  });

  test('are these, with these hashes (docs/formats-keys.md)', () => {
    const keys: Key[] = [
      '',
      'a',
      'user-1234',
      'é',
      'a\uD800',
      0,
      1,
      -1.5,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      0n,
      255n,
      -256n,
      true,
      false,
      [],
      ['a', 1],
      [[1n], true],
    ];
    const rows = readFileSync(new URL('../../docs/formats-keys.md', import.meta.url), 'utf8')
      .split('\n')
      .filter((line) => /^\| `.*` \| `[0-9a-f]+` \| `[0-9a-f]{8}` \|/.test(line))
      .map((line) => line.split('|').map((cell) => cell.trim().replaceAll('`', '')));
    expect(rows.map(([, , bytes, hash, group]) => [bytes, hash, Number(group)])).toEqual(
      keys.map((k) => [keyBytes(k).toString('hex'), (hashKey(k) >>> 0).toString(16).padStart(8, '0'), groupOf(hashKey(k), 128)]),
    );
  });
});

describe('a stored key', () => {
  test('is a frozen copy, all the way down', () => {
    const inner: Key[] = ['x', -0];
    const given: Key[] = [1, inner];
    const stored = canonicalKey(given) as readonly Key[];
    inner.push('later');
    expect(stored).toEqual([1, ['x', 0]]);
    expect(Object.isFrozen(stored) && Object.isFrozen(stored[1])).toBe(true);
  });

  test.each([undefined, null, {}, Symbol('s'), () => 1, new Date(), [1, undefined], [[null]], Object.assign([1], { length: 3 })])(
    'is refused with KEY_UNSUPPORTED where it is %s',
    (bad) => {
      expect(() => canonicalKey(bad)).toThrow(expect.objectContaining({ code: 'KEY_UNSUPPORTED', retryable: false }));
      expect(() => hashKey(bad as Key)).toThrow(expect.objectContaining({ code: 'KEY_UNSUPPORTED' }));
    },
  );

  test('is refused where it contains itself', () => {
    const loop: unknown[] = [];
    loop.push(loop);
    expect(() => canonicalKey(loop)).toThrow(expect.objectContaining({ code: 'KEY_UNSUPPORTED' }));
  });
});

describe('key groups', () => {
  test('are dealt out without gap or overlap, and instanceOf agrees with rangeOf', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 600 }), fc.integer({ min: 1, max: 600 }), (p, extra) => {
        const maxP = p + extra - 1;
        let next = 0;
        for (let i = 0; i < p; i++) {
          const { from, to } = rangeOf(i, p, maxP);
          expect(from).toBe(next);
          for (let g = from; g <= to; g++) expect(instanceOf(g, p, maxP)).toBe(i);
          next = to + 1;
        }
        expect(next).toBe(maxP);
      }),
    );
  });

  test('are the unsigned hash modulo the maximum parallelism', () => {
    expect(groupOf(-1, 128)).toBe(0xffffffff % 128);
  });

  test('number 128 at least and 32768 at most by default', () => {
    expect([1, 85, 86, 128, 1000, 32768].map(defaultMaxParallelism)).toEqual([128, 128, 256, 256, 2048, 32768]);
  });
});
