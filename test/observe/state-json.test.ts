import type { Key } from 'millrace';
import { describe, expect, it } from 'vitest';
import { keyOf, keyText, shown } from '../../src/observe/state-json.ts';

describe('a key on the command line', () => {
  it.each<[text: string, key: Key]>([
    ['word', 'word'],
    ['two words', 'two words'],
    ['', ''],
    ['12', 12],
    ['"12"', '12'],
    ['-1.5e3', -1500],
    ['12n', 12n],
    ['-7n', -7n],
    ['"12n"', '12n'],
    ['true', true],
    ['"true"', 'true'],
    ['NaN', Number.NaN],
    ['-Infinity', Number.NEGATIVE_INFINITY],
    ['["a", 1, true, ["b"]]', ['a', 1, true, ['b']]],
    ['["a", {"$bigint": "1"}, {"$number": "NaN"}]', ['a', 1n, Number.NaN]],
    ['[half', '[half'],
  ])('%s is what it looks like', (text, key) => {
    expect(keyOf(text)).toEqual(key);
    expect(keyOf(keyText(key))).toEqual(key);
  });

  it.each(['null', '{"a":1}', '["a",null]', '[{"$bigint":"x"}]'])('%s is none, and the error says how keys are written', (text) => {
    expect(() => keyOf(text)).toThrow(expect.objectContaining({ code: 'KEY_UNSUPPORTED', todo: expect.stringContaining('12n') }));
  });

  it('is printed as a bare word where that means the same', () => {
    expect([keyText('word'), keyText('12'), keyText(12), keyText(12n), keyText('null'), keyText(['a', 1n])]).toEqual([
      'word',
      '"12"',
      '12',
      '12n',
      '"null"',
      '["a",{"$bigint":"1"}]',
    ]);
  });
});

describe('a value as JSON', () => {
  it('keeps what JSON has as it is, and says of everything else what it is', () => {
    const plain = { a: [1, 'two', null, true, { b: 2.5 }] };
    expect(shown(plain)).toEqual(plain);
    const values = [
      1n,
      Number.NaN,
      -0,
      undefined,
      new Date(0),
      new Map<unknown, unknown>([['k', new Set([1n])]]),
      new Uint8Array([1, 2]),
      new TypeError('no'),
      { $map: 'mine' },
    ];
    expect(JSON.parse(JSON.stringify(shown(values)))).toEqual([
      { $bigint: '1' },
      { $number: 'NaN' },
      { $number: '-0' },
      { $undefined: true },
      { $date: '1970-01-01T00:00:00.000Z' },
      { $map: [['k', { $set: [{ $bigint: '1' }] }]] },
      { $bytes: 'AQI=' },
      { $error: 'TypeError: no' },
      { $object: [['$map', 'mine']] },
    ]);
  });
});
