import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sliding, startOf, tumbling } from '../../src/time/windows.ts';

describe('the start of a window', () => {
  for (const [timestamp, width, offset, start] of [
    [0, 10, 0, 0],
    [9, 10, 0, 0],
    [10, 10, 0, 10],
    [-1, 10, 0, -10],
    [-10, 10, 0, -10],
    [-11, 10, 0, -20],
    [0, 10, 3, -7],
    [3, 10, 3, 3],
    [2, 10, 3, -7],
    [0, 10, -3, -3],
    [7, 10, -3, 7],
    [6, 10, -3, -3],
    [-8, 10, 3, -17],
    [-7, 10, 3, -7],
    [1_700_000_000_123, 3_600_000, -1_800_000, 1_699_997_400_000],
  ] as const) {
    it(`of ${timestamp}, width ${width}, offset ${offset} is ${start}`, () => expect(startOf(timestamp, width, offset)).toBe(start));
  }

  it('is the one multiple of the width, shifted, in (timestamp − width, timestamp]', () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 1, max: 1e9 }), fc.integer({ min: -1e9, max: 1e9 }), (timestamp, width, by) => {
        const offset = by % width;
        const start = startOf(timestamp, width, offset);
        expect(start <= timestamp && start > timestamp - width).toBe(true);
        expect(Math.abs((start - offset) % width)).toBe(0);
      }),
    );
  });

  it('assigners give every window that holds the timestamp, and no other', () => {
    const starts = (assigner: ReturnType<typeof sliding>, timestamp: number): number[] => [...assigner.assign(undefined, timestamp)].map((w) => w.start);
    expect(starts(tumbling(10), -3)).toEqual([-10]);
    expect(starts(sliding(10, 5), 7)).toEqual([5, 0]);
    expect(starts(sliding(10, 5), -7)).toEqual([-10, -15]);
    expect(starts(sliding(10, 3, { offset: 1 }), 0)).toEqual([-2, -5, -8]);
    expect(starts(sliding(5, 10), 7)).toEqual([]);
  });
});
