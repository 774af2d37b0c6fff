// Sources of the benches: records out of memory, and a wrapper that notes when the first record leaves any source.
//
// The one in memory holds parsed records and makes one new object a record. At parallelism p split r reads the records r, r + p, … of the whole
// sequence of passes. A position is the number of records that the split has given.

import type { Source, SourceBatch } from 'millrace';
import type { Input } from './inputs.ts';

const BATCH = 1024;

export interface Share {
  readonly index: number;
}

export function inMemory<T>(input: Input<T>, held: readonly T[], events: number, parallelism: number): Source<T, Share, number> {
  const { again, records } = input;
  return {
    bounded: true,
    splits: async () => Array.from({ length: parallelism }, (_, index) => ({ index })),
    splitId: (share) => `share-${share.index}`,
    async *read(share, from) {
      let position = from ?? 0;
      let i = share.index + position * parallelism;
      while (i < events) {
        const values: T[] = [];
        let pass = Math.floor(i / records);
        let at = i - pass * records;
        for (; values.length < BATCH && i < events; i += parallelism) {
          values.push(again(held[at]!, pass));
          at += parallelism;
          if (at >= records) {
            at -= records;
            pass += 1;
          }
        }
        position += values.length;
        yield { values, position };
      }
    },
  };
}

/** When the first record of a run left its source, in performance.now(). */
export interface Departure {
  at: number | undefined;
  /** Called once, at that moment. */
  onFirst?: () => void;
}

export function observed<T, S, P>(source: Source<T, S, P>, departure: Departure): Source<T, S, P> {
  return {
    bounded: source.bounded,
    splits: (context) => source.splits(context),
    splitId: (split) => source.splitId(split),
    read(split, from, context) {
      const iterator = source.read(split, from, context)[Symbol.asyncIterator]();
      if (departure.at !== undefined) return { [Symbol.asyncIterator]: () => iterator };
      return {
        [Symbol.asyncIterator]: () => ({
          async next(): Promise<IteratorResult<SourceBatch<T, P>>> {
            const result = await iterator.next();
            if (departure.at === undefined) {
              departure.at = performance.now();
              departure.onFirst?.();
            }
            return result;
          },
          return: async () => (await iterator.return?.()) ?? { done: true, value: undefined },
        }),
      };
    },
  };
}
