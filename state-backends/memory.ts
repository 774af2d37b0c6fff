// memory(): all state in the process. The same tables and the same files as level(), without residency.

import type { Backend, RegionState } from './contract.ts';
import { Task } from './task.ts';

/**
 * Keeps all keyed state in memory, the default; checkpoints make it durable.
 *
 * @example
 * const seen: number[] = [];
 * await job('once', (env) => {
 *   env.fromArray('in', [1, 2]).keyBy(() => 'all').reduce('sum', (left, right) => left + right).sink('seen', collect(seen));
 * }).run({ state: memory() });
 * assert.deepEqual(seen, [1, 3]);
 */
export function memory(): Backend {
  return {
    kind: 'memory',
    settings: {},
    open({ tracked }): Promise<RegionState> {
      return Promise.resolve({
        task: (options) => new Task({ ...options, tracked }),
        close: () => Promise.resolve(),
      });
    },
  };
}
