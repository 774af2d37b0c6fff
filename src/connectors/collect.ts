// The sink that appends to an array: for tests, and for programs that look at the result of a bounded job. At-least-once, as every plain sink.

import type { Sink } from '../graph/sink.ts';

/**
 * A sink that appends to an array: for tests and small programs. At least once: after a restart, records may stand in it twice.
 * @example
 * const seen: number[] = [];
 * await job('numbers', (env) => {
 *   env.fromArray('numbers', [1, 2, 3]).sink('seen', collect(seen));
 * }).run();
 * assert.deepEqual(seen, [1, 2, 3]);
 */
export function collect<T>(into: T[]): Sink<T> {
  return {
    async open() {
      return {
        write(values) {
          for (const value of values) into.push(value);
        },
        async flush() {},
        async close() {},
      };
    },
  };
}
