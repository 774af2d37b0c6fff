// The sink of the benches: it counts, and remembers when it was first and last given something.

import type { Sink } from 'millrace';

export interface Count {
  results: number;
  /** performance.now() of the first call. */
  first?: number;
  /** performance.now() of the last call with results. */
  last: number;
}

export function counting(count: Count): Sink<unknown> & { write(values: readonly unknown[]): void } {
  const write = (values: readonly unknown[]): void => {
    count.results += values.length;
    count.last = performance.now();
    count.first ??= count.last;
  };
  return { write, open: async () => ({ write, async flush() {}, async close() {} }) };
}
