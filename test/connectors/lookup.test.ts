import { describe, expect, it } from 'vitest';
import { lookupOf } from '../../src/connectors/lookup.ts';
import { rejection } from '../protocols/lab.ts';

/** Asks of a table in memory, at a time that the test sets. */
function table(rows: Record<string, string>, cache = {}) {
  const asked: (readonly (string | number)[])[] = [];
  const clock = { now: 0 };
  let failure: Error | undefined;
  const lookup = lookupOf<string | number, string>({
    cache,
    now: () => clock.now,
    async load(keys) {
      asked.push(keys);
      if (failure !== undefined) throw failure;
      return new Map(keys.flatMap((key) => (rows[key] === undefined ? [] : [[String(key), rows[key]] as const])));
    },
  });
  return { lookup, asked, clock, rows, fail: (error: Error | undefined) => (failure = error) };
}

describe('a lookup', () => {
  it('asks for keys of one moment together, for each once', async () => {
    const { lookup, asked } = table({ a: 'A', 1: 'one' });
    expect(await Promise.all([lookup.get('a'), lookup.get(1), lookup.get('a'), lookup.get('b')])).toEqual(['A', 'one', 'A', undefined]);
    expect(asked).toEqual([['a', 1, 'b']]);
    expect([lookup.hits, lookup.misses]).toEqual([1, 3]);
  });

  it('remembers an answer for its time, that there is none for another, a failure not at all', async () => {
    const { lookup, asked, clock, rows, fail } = table({ a: 'A' }, { ttl: 100, missingTtl: 10 });
    await Promise.all([lookup.get('a'), lookup.get('b')]);
    rows['a'] = 'new';
    rows['b'] = 'B';
    clock.now = 9;
    expect([await lookup.get('a'), await lookup.get('b')]).toEqual(['A', undefined]);
    clock.now = 10;
    expect([await lookup.get('a'), await lookup.get('b')]).toEqual(['A', 'B']);
    clock.now = 100;
    expect(await lookup.get('a')).toBe('new');
    fail(new Error('away'));
    expect((await rejection(lookup.get('c'))).message).toBe('away');
    fail(undefined);
    expect(await lookup.get('c')).toBeUndefined();
    expect(asked).toEqual([['a', 'b'], ['b'], ['a'], ['c'], ['c']]);
  });

  it('keeps so many keys, those that were wanted last', async () => {
    const { lookup, asked } = table({ a: 'A', b: 'B', c: 'C' }, { size: 2 });
    for (const key of ['a', 'b', 'a', 'c', 'a', 'b']) await lookup.get(key);
    expect(asked.flat()).toEqual(['a', 'b', 'c', 'b']);
  });

  it('does not remember an answer that was asked for before it was told to forget', async () => {
    const { lookup, asked } = table({ a: 'A' });
    const before = lookup.get('a');
    lookup.forget('a');
    expect([await before, await lookup.get('a')]).toEqual(['A', 'A']);
    expect(asked.flat()).toEqual(['a', 'a']);
    await lookup.get('a');
    expect(asked.flat()).toEqual(['a', 'a']);
    lookup.forget();
    await lookup.get('a');
    expect(asked.flat()).toEqual(['a', 'a', 'a']);
  });
});
