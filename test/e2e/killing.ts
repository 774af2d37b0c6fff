// How a trial is killed at a named step or at a random moment, and finished at another parallelism. Used once a step by npm test, and often by npm run test:chaos.

import { setTimeout as sleep } from 'node:timers/promises';
import type { Settings } from './job-process.ts';
import { ONLY_CPU, ONLY_LEVEL, preludeOf, type Step } from './steps.ts';
import { type Input, Trial } from './trial.ts';
import { WORKLOADS } from './workloads.ts';

/** Parallelisms of the first, the second and the last run. */
const COURSES: readonly (readonly [number, number, number])[] = [
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
  /** Unaligned checkpoints, and records that wait in front of their barriers. */
  readonly unaligned?: Settings['unaligned'];
}

/** Microseconds for a record, where checkpoints are to find some in flight. */
const SLOW = 30;

/** Of a number: most checkpoints are aligned, some wait for a while, some do not. */
export function unalignedOf(turn: number): Pick<Course, 'unaligned'> {
  return turn % 5 === 1 ? { unaligned: true } : turn % 5 === 3 ? { unaligned: { after: 5 } } : {};
}

/** The turn's backend, workload and parallelisms for a step: every step meets others in each round. */
export function courseOf(step: Step, turn: number): { workload: (typeof WORKLOADS)[number]; large: boolean; course: Course } {
  const backend = (['memory', 'level'] as const)[Math.floor(turn / 2) % 2]!;
  // Bases are made of deltas of some size.
  if (step.name.startsWith('base.') || step.name === 'restore.base')
    return { workload: 'wc', large: true, course: { backend: ONLY_LEVEL.has(step.name) ? 'level' : backend, parallelism: [1, 2, 4], pace: 100 } };
  const unaligned = step.name.startsWith('checkpoint.inflight') ? { unaligned: true } : unalignedOf(turn);
  const workload = ONLY_CPU.has(step.name) ? 'cpu' : WORKLOADS[turn % 2]!;
  // More checkpoints must complete than are retained, on a busy machine too.
  const slow = step.name.startsWith('checkpoint.prune') ? { pace: 300 } : {};
  return { workload, large: false, course: { backend, parallelism: COURSES[turn % COURSES.length]!, ...slow, ...unaligned } };
}

/**
 * Kills a run at the step, and with `again` the next one too where it comes there; then finishes. Gives what is wrong. A run that ended before it came to the step says
 * nothing: on a busy machine a job is over before enough checkpoints are. It is then tried again, slower; where that does not help either, it is wrong.
 */
export async function killAt(input: Input, step: Step, course: Course, again = true): Promise<{ wrong: string[]; killed: number }> {
  for (let pace = course.pace ?? 100; ; pace *= 4) {
    const { reached, ...outcome } = await tryKill(input, step, { ...course, pace }, again);
    if (reached || pace > 2000) return outcome;
  }
}

async function tryKill(
  input: Input,
  step: Step,
  course: Course & { pace: number },
  again: boolean,
): Promise<{ wrong: string[]; killed: number; reached: boolean }> {
  const { backend, pace, unaligned } = course;
  const [first, second, last] = course.parallelism;
  const { name, at, restoring } = step;
  const trial = new Trial(input, { backend, every: 5, pace, ...inFlight(unaligned) });
  const faults = restoring ? [preludeOf(name), `${name}=kill@${at}`] : [`${name}=kill@${at}`, ...(again ? [`${name}=kill`] : [])];
  let killed = 0;
  for (const [index, fault] of faults.entries()) {
    const { signal, code, errors } = await trial.run({ parallelism: index === 0 ? first : second }, fault);
    if (signal === 'SIGKILL') killed += 1;
    else if (code !== 0 || index === 0 || restoring) {
      if (code === 0) trial.remove();
      return { wrong: [`run ${index + 1} was not killed at ${fault}, it ended with ${code}\n${errors}`], killed, reached: code !== 0 };
    }
  }
  return { wrong: await finished(trial, last), killed, reached: true };
}

/** Kills two runs in a row after so many milliseconds, then finishes. */
export async function killAfter(input: Input, delays: readonly [number, number], course: Course): Promise<{ wrong: string[]; killed: number }> {
  const { backend, parallelism, pace = 100, unaligned } = course;
  const trial = new Trial(input, { backend, every: 5, pace, ...inFlight(unaligned) });
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

function inFlight(unaligned: Course['unaligned']): Partial<Settings> {
  return unaligned === undefined ? {} : { unaligned, slow: SLOW };
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
