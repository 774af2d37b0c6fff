import { describe, expect, it } from 'vitest';
import { HotKeys, hottest } from '../../src/runtime/hot-keys.ts';
import { hashKey, type Key } from '../../state-backends/index.ts';
import { Random } from '../random.ts';

/** Chunks of records as a task processes them. */
function processed(keys: readonly Key[], chunk = 256): HotKeys {
  const hot = new HotKeys();
  const hashes = Int32Array.from(keys, (key) => hashKey(key));
  for (let from = 0; from < keys.length; from += chunk) hot.saw(keys, hashes, from, Math.min(keys.length, from + chunk));
  return hot;
}

describe('hot keys', () => {
  it('are those with the most records, with about their share of all, among very many others', () => {
    const random = new Random(7);
    const keys = Array.from({ length: 200_000 }, (): Key => {
      const n = random.next();
      return n < 0.3 ? 'hottest' : n < 0.4 ? 'hot' : n < 0.45 ? 17 : `cold-${random.below(100_000)}`;
    });
    const [first, second, third, ...more] = hottest([processed(keys).weighed]);
    expect([first!.key, second!.key, third!.key, more]).toEqual(['hottest', 'hot', 17, []]);
    expect(first!.share).toBeGreaterThan(0.2);
    expect(first!.share).toBeLessThan(0.4);
    expect(second!.share).toBeLessThan(0.2);
  });

  it('are found however small the chunks are, and whatever their length has in common with the order of the records', () => {
    for (const chunk of [1, 7, 64, 100, 1024]) {
      const keys = Array.from({ length: 60_000 }, (_, i): Key => (i % 4 === 0 ? 'a' : `cold-${i}`));
      const [first] = hottest([processed(keys, chunk).weighed]);
      expect(first, `chunks of ${chunk}`).toMatchObject({ key: 'a' });
      expect(Math.abs(first!.share - 0.25), `chunks of ${chunk}`).toBeLessThan(0.12);
    }
  });

  it('are no more when others have taken their place', () => {
    const keys: Key[] = [...Array.from({ length: 100_000 }, () => 'then'), ...Array.from({ length: 1_000_000 }, () => 'now')];
    const [first, second] = hottest([processed(keys, 64).weighed]);
    expect(first!.key).toBe('now');
    expect(first!.share).toBeGreaterThan(0.9);
    expect(second?.share ?? 0).toBeLessThan(0.1);
  });

  it('are none where no key stands out, and where few records have come', () => {
    expect(hottest([processed(Array.from({ length: 200_000 }, (_, i) => `k${i % 50_000}`)).weighed])).toEqual([]);
    expect(hottest([processed(Array.from({ length: 63 }, () => 'a')).weighed])).toEqual([]);
    expect(hottest([])).toEqual([]);
  });

  it('of several instances have their share of all', () => {
    const [one, other] = ['a', 'b'].map((key) => processed(Array.from({ length: key === 'a' ? 30_000 : 10_000 }, () => key)).weighed);
    const found = hottest([one!, other!]);
    expect(found.map(({ key, share }) => [key, Math.round(share * 100)])).toEqual([
      ['a', 75],
      ['b', 25],
    ]);
  });
});
