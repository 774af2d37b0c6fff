// The bytes that level() believes to be in memory, beside a count of what is there.

import type { RegionState, TaskState } from '../../state-backends/index.ts';
import type { MemoryGroup, MemoryRow } from '../../state-backends/row.ts';
import { GROUP_BYTES, sizeOfKey } from '../../state-backends/value-size.ts';

interface Probed {
  readonly tables: readonly ({ readonly groups: readonly (MemoryGroup | undefined)[] } | { readonly rows: readonly (MemoryRow | undefined)[] } | object)[];
}

/** What rows and groups in memory, tombstones included, say that they take. */
function recount(task: TaskState): number {
  let sum = 0;
  for (const table of (task as unknown as Probed).tables) {
    if ('groups' in table) {
      for (const group of table.groups) {
        if (group === undefined) continue;
        const rows = group.rows.reduce((bytes, row) => bytes + row.bytes, 0);
        expectSame(`the group of ${String(group.key)}`, group.bytes, GROUP_BYTES + sizeOfKey(group.key) + rows);
        sum += group.bytes;
      }
    } else if ('rows' in table) {
      for (const row of table.rows) sum += row?.bytes ?? 0;
    }
  }
  return sum;
}

/** Nothing for memory(), which counts no bytes. */
export function expectCounted(region: RegionState, ...tasks: readonly TaskState[]): void {
  const { residentBytes } = region as unknown as { readonly residentBytes?: number };
  if (residentBytes === undefined) return;
  const counted = tasks.reduce((sum, task) => sum + recount(task), 0);
  expectSame('the region', residentBytes, counted);
}

/** Sums of fractions: the last bits may differ. Called after every step of long histories, and so without \`expect\`. */
function expectSame(what: string, said: number, counted: number): void {
  if (Math.abs(said - counted) > 1e-3) throw new Error(`${what} says ${said} bytes, and has ${counted}`);
}
