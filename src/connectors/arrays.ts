// The source behind `env.fromArray`: at parallelism p the array is p splits, the split r holding the elements r, r + p, r + 2p, …
//
// Splits are named `r/p`. A restored job may run at another parallelism: then the old p splits are given again, all of them, because positions
// belong to them.

import type { Source, WithoutTimestamps } from '../graph/source.ts';

export interface ArraySplit {
  readonly r: number;
  readonly p: number;
}

const BATCH = 1024;

export function arraySource<T>(values: readonly T[]): Source<T, ArraySplit, number> & WithoutTimestamps {
  return {
    assignsTimestamps: false,
    bounded: true,
    async splits({ known, parallelism }) {
      const [first] = known;
      const p = first === undefined ? parallelism : Number(first.slice(first.indexOf('/') + 1));
      return Array.from({ length: p }, (_, r) => ({ r, p }));
    },
    splitId: ({ r, p }) => `${r}/${p}`,
    async *read({ r, p }, from, { signal }) {
      // The position is the index of the next element of this split.
      for (let at = from ?? r; at < values.length && !signal.aborted; ) {
        const batch: T[] = [];
        for (; at < values.length && batch.length < BATCH; at += p) batch.push(values[at]!);
        yield { values: batch, position: at };
      }
    },
  };
}
