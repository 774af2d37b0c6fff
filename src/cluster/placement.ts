// Which host runs which task. Pure, and the same for the same arguments.

import type { PlannedTask } from '../execution/region-tasks.ts';

/**
 * Instances with the same number stand together, so that what goes straight on from operator to operator stays within a host; operators that have fewer instances than
 * there are hosts begin at different ones.
 */
export function placeTasks(tasks: readonly PlannedTask[], hosts: number): ReadonlyMap<string, number> {
  return new Map(tasks.map(({ name, vertex, subtask }) => [name, (subtask + (vertex.parallelism < hosts ? vertex.index : 0)) % hosts]));
}
