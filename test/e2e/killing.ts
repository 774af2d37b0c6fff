// How a trial is killed at a named step or at a random moment, and finished at another parallelism. Used once a step by npm test, and often by npm run test:chaos.

import { setTimeout as sleep } from 'node:timers/promises';
import type { Settings } from './job-process.ts';
import { preludeOf, type Step } from './steps.ts';
import { type Input, Trial } from './trial.ts';

/** Parallelisms of the first, the second and the last run. */
export const COURSES: readonly (readonly [number, number, number])[] = [
  [1, 2, 4],
  [2, 2, 3],
  [4, 1, 2],
  [2, 4, 1],
  [2, 2, 2],
];

export interface Course {
  readonly backend: Settings['backend'];
  readonly parallelism: readonly [number, number, number];
  readonly pace?: number;
}

/** Kills two runs in a row at the step, then finishes. Gives what is wrong; also where the step was not reached. */
export async function killAt(input: Input, step: Step, { backend, parallelism: [first, second, last], pace = 100 }: Course): Promise<string[]> {
  const { name, at, restoring } = step;
  const trial = new Trial(input, { backend, every: 5, pace });
  const faults = restoring ? [preludeOf(name), `${name}=kill@${at}`] : [`${name}=kill@${at}`, `${name}=kill`];
  for (const [index, parallelism] of [first, second].entries()) {
    const { signal, code, errors } = await trial.run({ parallelism }, faults[index]);
    if (signal !== 'SIGKILL') return [`run ${index + 1} was not killed at ${faults[index]}, it ended with ${code}\n${errors}`];
  }
  return finished(trial, last);
}

/** Kills two runs in a row after so many milliseconds, then finishes. */
export async function killAfter(input: Input, delays: readonly [number, number], course: Course): Promise<{ wrong: string[]; killed: number }> {
  const { backend, parallelism, pace = 100 } = course;
  const trial = new Trial(input, { backend, every: 5, pace });
  let killed = 0;
  for (const [index, delay] of delays.entries()) {
    const { process, ended } = trial.begin({ parallelism: parallelism[index]! });
    // Who has finished by then was not killed.
    await Promise.race([sleep(delay), ended]);
    process.kill('SIGKILL');
    const { signal, code, errors } = await ended;
    if (signal === 'SIGKILL') killed += 1;
    else if (code !== 0) return { wrong: [`run ${index + 1} ended with ${code}\n${errors}`], killed };
  }
  return { wrong: await finished(trial, parallelism[2]), killed };
}

async function finished(trial: Trial, parallelism: number): Promise<string[]> {
  try {
    await trial.finish({ parallelism });
    const wrong = await trial.complaints();
    if (wrong.length === 0) trial.remove();
    else wrong.push(`in ${trial.folder}`);
    return wrong;
  } catch (error) {
    return [`${(error as Error).message} In ${trial.folder}`];
  }
}
