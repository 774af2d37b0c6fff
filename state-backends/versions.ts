// Which versions of stored values a declaration takes over: its own, and older ones where it says how. Versions go up: what a newer program stored an older one has
// never seen, and its `migrate` was written for other values.

import { StateError } from './state-error.ts';

/** Added to the version of a table whose rows say when they were written, twice where that is event time (kinds-keyed.ts, H5). */
export const EXPIRING = 2 ** 32;

/** Pure. Why values of that version are refused; undefined: they are taken over. */
export function versionFault(
  name: string,
  stored: number,
  declared: number,
  migrates: boolean,
): { readonly sentence: string; readonly todo: string } | undefined {
  if (stored === declared) return undefined;
  // What an operator keeps for itself has versions that may go down, such as the length of a ttl.
  if (migrates && name.includes('/.')) return undefined;
  const sentence = `State ${name} was stored in version ${stored} and is declared in version ${declared}`;
  if (stored > declared)
    return {
      sentence: `${sentence}, which is older.`,
      todo: 'Start the program that wrote it, or declare a higher version, with a `migrate` that takes that one.',
    };
  return migrates ? undefined : { sentence: `${sentence}.`, todo: 'Declare `migrate` beside `version`.' };
}

export function refuseVersion(name: string, stored: number, declared: number, migrates: boolean): void {
  const fault = versionFault(name, stored, declared, migrates);
  if (fault !== undefined) throw new StateError('SNAPSHOT_INCOMPATIBLE', fault.sentence, { todo: fault.todo });
}
