// `millrace state verify <snapshot> <module>`: whether the job of a module can take over a savepoint or checkpoint, state by state. Exit code 0 or 1.

import type { StateVerdict, Verdict } from '../checkpoint/verify.ts';
import { MillraceError } from '../errors.ts';
import { loadJob } from './job-module.ts';
import { countOf } from './option-values.ts';
import { editLines } from './views.ts';

export interface VerifyFlags {
  parallelism?: string;
  allowNonRestoredState?: boolean;
  json?: boolean;
}

export async function verifyCommand(
  snapshot: string,
  path: string,
  { parallelism, allowNonRestoredState, json }: VerifyFlags,
  moduleArguments: readonly string[],
): Promise<number> {
  const options = {
    ...(parallelism === undefined ? {} : { parallelism: countOf(parallelism, '--parallelism') }),
    ...(allowNonRestoredState === true ? { restore: { from: snapshot, allowNonRestoredState } } : {}),
  };
  const job = await loadJob(path, moduleArguments);
  const asked = job.verify?.(options, snapshot);
  if (asked === undefined)
    throw new MillraceError('MODULE_WITHOUT_JOB', `The job of ${path} was made by a Millrace that cannot verify snapshots.`, {
      todo: 'Use the same version for the module and the command.',
    });
  const verdict = (await asked) as Verdict;
  process.stdout.write(json === true ? `${JSON.stringify(verdict)}\n` : `${verdictLines(job.name, verdict).join('\n')}\n`);
  return verdict.takesOver ? 0 : 1;
}

/** Pure. */
export function verdictLines(job: string, { id, takesOver, states, edits = [] }: Verdict): string[] {
  const lines = states.map((state) => `${state.outcome.padEnd(8)}  ${nameOf(state)}: ${state.sentence}${state.todo === undefined ? '' : ` ${state.todo}`}`);
  const refused = states.filter(({ outcome }) => outcome === 'refused').length;
  const end = takesOver ? `The job '${job}' can take over snapshot ${id}.` : `The job '${job}' cannot take over snapshot ${id}: ${refused} refused.`;
  return [...editLines(edits), ...lines, end];
}

function nameOf({ uid, state }: StateVerdict): string {
  return state === undefined ? uid : `${uid}/${state}`;
}
