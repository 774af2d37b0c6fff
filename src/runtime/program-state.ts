// Which tables of stored state are the program's own: what its author has declared, and would miss.
//
// What: a pure function. Operators keep tables beside the declared ones (timers, what expires when, bounds of windows, progress of triggers), which they make
// anew or leave where the definition changes; those of windows are guarded by the definition that is stored beside them.

import type { Step } from '../graph/node.ts';

/** Of windows that share slices. */
const OF_WINDOWS: ReadonlySet<string> = new Set(['slices', 'timers', 'early', 'early-counts']);

/** `kind`: of the operator that is to take it over. */
export function isProgramState(table: string, kind: Step['kind']): boolean {
  if (table.startsWith('.window.')) return true;
  return !table.startsWith('.') && !(kind === 'window' && OF_WINDOWS.has(table));
}

/** As the program calls it. */
export function stateName(table: string): string {
  return table.startsWith('.window.') ? table.slice('.window.'.length) : table;
}
