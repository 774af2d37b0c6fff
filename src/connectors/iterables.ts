// The source behind `env.fromAsync`: one split, whose position is the number of records read.
//
// The iterator is drawn from ahead of the reader, up to a batch, so that records that are ready together travel together, and one that comes alone
// goes at once. On restore `make()` is called anew and as many records are passed over: it must give the same ones again.
//
// Invariants:
// I1  what was drawn and not handed over is in no position: it is drawn again after a restore.
// I2  when the attempt ends, or the iterator fails, its `return()` is called once and not waited for while it is busy: a generator that waits for
//     something outside answers when that comes.

import type { Source, WithoutTimestamps } from '../graph/source.ts';
import { Arrivals } from './arrivals.ts';

const BATCH = 1024;

export function iterableSource<T>(make: () => AsyncIterable<T>): Source<T, 'all', number> & WithoutTimestamps {
  return {
    assignsTimestamps: false,
    bounded: false,
    async splits() {
      return ['all'];
    },
    splitId: (split) => split,
    async *read(_split, from, { signal, log }) {
      const arrivals = new Arrivals<T>(BATCH);
      const iterator = make()[Symbol.asyncIterator]();
      const done = new AbortController();
      const drawn = draw(iterator, from ?? 0, arrivals, done.signal);
      // Its failure is met below, when all that came before it has been handed over.
      drawn.catch(() => {});
      const stop = (): void => {
        done.abort();
        arrivals.end();
      };
      signal.addEventListener('abort', stop);
      if (signal.aborted) stop();
      let position = from ?? 0;
      try {
        for (;;) {
          const values = await arrivals.take();
          if (signal.aborted) return;
          if (values.length === 0) break;
          position += values.length;
          yield { values, position };
        }
        const passed = await drawn;
        if (passed < (from ?? 0)) log.warn(`The restored position is ${from}, and the iterable ended after ${passed} records.`);
      } finally {
        signal.removeEventListener('abort', stop);
        stop();
        iterator.return?.().then(undefined, (error: unknown) => log.warn({ error }, 'The iterable failed when it was told to end.'));
      }
    },
  };
}

/** Draws until the end; the number of records drawn. */
async function draw<T>(iterator: AsyncIterator<T>, skip: number, arrivals: Arrivals<T>, signal: AbortSignal): Promise<number> {
  let count = 0;
  try {
    while (!signal.aborted) {
      const step = await iterator.next();
      if (step.done === true || signal.aborted) break;
      count += 1;
      if (count <= skip) continue;
      arrivals.push(step.value);
      if (arrivals.full) await arrivals.room();
    }
  } finally {
    arrivals.end();
  }
  return count;
}
