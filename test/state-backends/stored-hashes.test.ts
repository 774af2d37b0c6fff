import { describe, expect, it } from 'vitest';
import { StoredHashes } from '../../state-backends/stored-hashes.ts';

describe('stored hashes', () => {
  it('know every hash that was added more often than deleted, over a long random history', () => {
    const stored = new StoredHashes();
    const counts = new Map<number, number>();
    let x = 7;
    const random = (n: number): number => {
      x = (Math.imul(x, 1103515245) + 12345) & 0x7fffffff;
      return (x >>> 4) % n;
    };
    for (let step = 0; step < 200_000; step++) {
      // Few low bits, as a task that holds a part of the key groups has; and 0 and 1, which share a mark.
      const hash = random(50) === 0 ? random(2) : random(20_000) << 7;
      const count = counts.get(hash) ?? 0;
      if (count > 0 && random(3) > 0) {
        stored.delete(hash);
        counts.set(hash, count - 1);
      } else if (step < 150_000) {
        stored.add(hash);
        counts.set(hash, count + 1);
      }
    }
    let size = 0;
    let wrong = 0;
    for (const [hash, count] of counts) {
      size += count;
      if (hash > 1 && stored.has(hash) !== count > 0) wrong++;
      if (hash <= 1 && count > 0 && !stored.has(hash)) wrong++;
    }
    expect(stored.size).toBe(size);
    expect(wrong).toBe(0);
  });

  it('know nothing at first, and nothing after the last was deleted', () => {
    const stored = new StoredHashes();
    expect(stored.has(0)).toBe(false);
    for (let i = -1000; i < 1000; i++) stored.add(i);
    for (let i = -1000; i < 1000; i++) stored.delete(i);
    expect(stored.size).toBe(0);
    for (let i = -1000; i < 1000; i++) expect(stored.has(i)).toBe(false);
  });
});
