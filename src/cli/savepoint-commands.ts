// `millrace checkpoint`, `savepoint`, `rescale`: they ask a running job to do something, and say what has become of it.

import { absolute } from '../checkpoint/addresses.ts';
import { repartition } from '../checkpoint/repartition.ts';
import { snapshotAt } from '../checkpoint/verification.ts';
import { MillraceError } from '../errors.ts';
import type { CheckpointInfo, SavepointInfo } from '../graph/job.ts';
import { ask, chooseJob } from './door-client.ts';
import { at, type LookFlags, print } from './look-commands.ts';
import { countOf } from './option-values.ts';

export async function checkpointCommand(name: string | undefined, { json, ...where }: LookFlags): Promise<void> {
  const job = await chooseJob(name, where);
  const checkpoint = await ask<CheckpointInfo>(job.url, 'POST', at(job, 'checkpoint'));
  print([json === true ? JSON.stringify(checkpoint) : `${job.name}: checkpoint ${checkpoint.id}`]);
}

/** The folder is one of this command's machine and working folder. */
export async function savepointCommand(args: readonly string[], { json, ...where }: LookFlags): Promise<void> {
  const { job: name, last } = nameAnd(args, 'a folder', 'millrace savepoint [job] DIR');
  const job = await chooseJob(name, where);
  const savepoint = await ask<SavepointInfo>(job.url, 'POST', at(job, 'savepoint'), { directory: absolute(last) });
  print([json === true ? JSON.stringify(savepoint) : `${job.name}: savepoint ${savepoint.id} in ${savepoint.path}, ${savepoint.bytes} bytes`]);
}

export async function rescaleCommand(args: readonly string[], { json, ...where }: LookFlags): Promise<void> {
  const { job: name, last } = nameAnd(args, 'a number', 'millrace rescale [job] N');
  const parallelism = countOf(last, 'rescale');
  const job = await chooseJob(name, where);
  const rescaled = await ask<{ parallelism: number; checkpoint: CheckpointInfo }>(job.url, 'POST', at(job, 'rescale'), { parallelism });
  print([json === true ? JSON.stringify(rescaled) : `${job.name}: runs at parallelism ${rescaled.parallelism}, from checkpoint ${rescaled.checkpoint.id}`]);
}

/** Offline: a savepoint of another number of key groups, made of a savepoint or checkpoint. */
export async function repartitionCommand(from: string, to: string, { maxParallelism, json }: { maxParallelism: string; json?: boolean }): Promise<void> {
  const groups = countOf(maxParallelism, '--max-parallelism');
  const snapshot = await snapshotAt(from);
  const savepoint = await repartition(snapshot, absolute(to), groups);
  const before = snapshot.metadata.maxParallelism;
  print([json === true ? JSON.stringify(savepoint) : `savepoint ${savepoint.id} in ${savepoint.path}: ${groups} key groups instead of ${before}`]);
}

/** The name of the job is optional and comes first. Pure. */
export function nameAnd(args: readonly string[], what: string, usage: string): { job: string | undefined; last: string } {
  const [first, second, ...rest] = args;
  if (first === undefined || rest.length > 0)
    throw new MillraceError('OPTION_INVALID', `There must be ${what}, and at most the name of a job in front of it.`, { todo: `Write ${usage}.` });
  return second === undefined ? { job: undefined, last: first } : { job: first, last: second };
}
