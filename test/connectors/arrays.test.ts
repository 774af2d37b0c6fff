import { describe, expect, it } from 'vitest';
import { arraySource } from '../../src/connectors/arrays.ts';
import { batchesOf, splitsOf, valuesOf } from './reading.ts';

const values = Array.from({ length: 5000 }, (_, n) => n);

describe('an array as a source', () => {
  it('is dealt out to as many splits as there are instances', async () => {
    const source = arraySource(values);
    const splits = await splitsOf(source, { parallelism: 3 });
    expect(splits.map((split) => source.splitId(split))).toEqual(['0/3', '1/3', '2/3']);
    const parts = await Promise.all(splits.map((split) => valuesOf(source, split)));
    expect(parts[1]?.slice(0, 3)).toEqual([1, 4, 7]);
    expect(parts.flat().sort((a, b) => a - b)).toEqual(values);
  });

  it('goes on behind every position it gave', async () => {
    const source = arraySource(values);
    const [, second] = await splitsOf(source, { parallelism: 2 });
    let count = 0;
    for (const { values: batch, position } of await batchesOf(source, second!)) {
      count += batch.length;
      expect(await valuesOf(source, second!, position)).toEqual(values.filter((n) => n % 2 === 1).slice(count));
    }
    expect(count).toBe(2500);
  });

  it('keeps its old splits when it is restored at another parallelism', async () => {
    const source = arraySource(values);
    const splits = await splitsOf(source, { parallelism: 4, known: new Set(['1/2', '0/2']) });
    expect(splits.map((split) => source.splitId(split))).toEqual(['0/2', '1/2']);
  });

  it('may be empty, or shorter than there are instances', async () => {
    const source = arraySource<number>([]);
    for (const split of await splitsOf(source, { parallelism: 2 })) expect(await batchesOf(source, split)).toEqual([]);
  });
});
