// memory(): all state in the process. The same tables and the same files as level(), without residency.

import type { Backend, RegionState } from './contract.ts';
import { Task } from './task.ts';

/**
 * Keeps all keyed state in memory; checkpoints make it durable.
 *
 * @example
 * const backend = memory();
 */
export function memory(): Backend {
  return {
    kind: 'memory',
    open({ tracked }): Promise<RegionState> {
      return Promise.resolve({
        task: (options) => new Task({ ...options, tracked }),
        close: () => Promise.resolve(),
      });
    },
  };
}
