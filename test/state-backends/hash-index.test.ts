import fc from 'fast-check';
import { expect, test } from 'vitest';
import { HashIndex } from '../../state-backends/hash-index.ts';

/** All positions under a hash. */
function positions(index: HashIndex, hash: number): number[] {
  const out: number[] = [];
  for (let position = index.first(hash); position !== -1; position = index.next(hash)) out.push(position);
  return out.sort((a, b) => a - b);
}

test('agrees with a Map under random additions and removals, with hashes that collide', () => {
  const hash = fc.oneof(fc.integer({ min: -20, max: 20 }), fc.integer());
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), hash), { maxLength: 400, size: 'max' }), (steps) => {
      const index = new HashIndex();
      const model = new Map<number, number[]>();
      let next = 0;
      for (const [add, h] of steps) {
        const there = model.get(h) ?? [];
        if (add) {
          index.add(h, next);
          model.set(h, [...there, next++]);
        } else if (there.length > 0) {
          index.remove(h, there[0]!);
          model.set(h, there.slice(1));
        }
      }
      for (const [h, expected] of model) expect(positions(index, h)).toEqual(expected);
      expect(index.size).toBe([...model.values()].reduce((sum, each) => sum + each.length, 0));
    }),
  );
});

test('finds everything after growing past one segment, also with the biased hashes of one task among many', () => {
  const index = new HashIndex();
  const hashes = Array.from({ length: 60_000 }, (_, i) => (i * 128 + 3) | 0);
  for (const [i, h] of hashes.entries()) index.add(h, i);
  for (let i = 0; i < hashes.length; i += 2) index.remove(hashes[i]!, i);
  for (const [i, h] of hashes.entries()) expect(index.first(h)).toBe(i % 2 === 0 ? -1 : i);
  expect(index.size).toBe(30_000);
});
