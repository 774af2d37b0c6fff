// `millrace jobs`, `tree`, `checkpoints`, `stop`, `cancel`: a question to a running job, and its answer on standard output.

import { setTimeout as pause } from 'node:timers/promises';
import { absolute } from '../checkpoint/addresses.ts';
import type { MillraceError } from '../errors.ts';
import type { CheckpointInfo, JobResult } from '../graph/job.ts';
import { ask, chooseJob, type FoundJob, runningJobs } from './door-client.ts';
import { CHECKPOINT_DIRECTORY, hasCheckpoints, storedCheckpoints } from './stored-checkpoints.ts';
import { checkpointLines, jobLines, type ShownNode, treeLines } from './views.ts';
import { isNamed, type Where } from './where.ts';

export interface LookFlags extends Where {
  json?: boolean;
  watch?: boolean;
  drain?: boolean;
  savepoint?: string;
  checkpoints?: string;
}

const WATCH_MS = 1000;

export async function jobsCommand({ json, ...where }: LookFlags): Promise<void> {
  const jobs = await runningJobs(where);
  if (json === true) print([JSON.stringify(jobs)]);
  else print(jobs.length === 0 ? [`No job runs ${isNamed(where) ? 'there' : 'on this machine'}.`] : jobLines(jobs, Date.now()));
}

export async function treeCommand(name: string | undefined, { json, watch, ...where }: LookFlags): Promise<void> {
  const job = await chooseJob(name, where);
  do {
    let tree: ShownNode;
    try {
      tree = await ask<ShownNode>(job.url, 'GET', at(job, 'tree'));
    } catch (error) {
      // While it was watched, the job has ended: that is no failure of the command.
      if (watch === true && (error as Partial<MillraceError>).code === 'JOB_NOT_FOUND') return;
      throw error;
    }
    const live = watch === true && json !== true && process.stdout.isTTY;
    if (live) process.stdout.write('\x1b[H\x1b[2J');
    print(json === true ? [JSON.stringify(tree)] : [...(live ? [`${job.name}, ${new Date().toLocaleTimeString()}`, ''] : []), ...treeLines(tree)]);
    if (watch === true) await pause(WATCH_MS);
  } while (watch === true);
}

/** Of a job that runs, those that it retains; with a folder, and where none runs, those that lie there. */
export async function checkpointsCommand(name: string | undefined, { json, checkpoints: folder, ...where }: LookFlags): Promise<void> {
  const checkpoints = folder === undefined ? await retainedOf(name, where) : await storedCheckpoints(folder, name);
  print(json === true ? [JSON.stringify(checkpoints)] : checkpointLines(checkpoints));
}

async function retainedOf(name: string | undefined, where: Where): Promise<CheckpointInfo[]> {
  let job: FoundJob;
  try {
    job = await chooseJob(name, where);
  } catch (error) {
    if ((error as Partial<MillraceError>).code !== 'JOB_NOT_FOUND' || isNamed(where) || !(await hasCheckpoints())) throw error;
    return storedCheckpoints(CHECKPOINT_DIRECTORY, name);
  }
  return ask<CheckpointInfo[]>(job.url, 'GET', at(job, 'checkpoints'));
}

export async function stopCommand(name: string | undefined, { json, drain, savepoint, ...where }: LookFlags): Promise<void> {
  const job = await chooseJob(name, where);
  // Of this command's folder, not of the process that is stopped.
  const folder = savepoint === undefined ? {} : { savepoint: absolute(savepoint) };
  printResult(job, await ask<JobResult>(job.url, 'POST', at(job, 'stop'), { drain: drain === true, ...folder }), json);
}

export async function cancelCommand(name: string | undefined, { json, ...where }: LookFlags): Promise<void> {
  const job = await chooseJob(name, where);
  printResult(job, await ask<JobResult>(job.url, 'POST', at(job, 'cancel')), json);
}

function printResult(job: FoundJob, result: JobResult, json: boolean | undefined): void {
  if (json === true) print([JSON.stringify(result)]);
  else {
    const last = result.status === 'cancelled' || result.checkpoint === undefined ? '' : `, checkpoint ${result.checkpoint.id}`;
    print([`${job.name}: ${result.status}${last}${result.savepoint === undefined ? '' : `, savepoint in ${result.savepoint.path}`}`]);
  }
}

/** The path of a request to the door. */
export function at(job: FoundJob, what: string): string {
  return `/jobs/${encodeURIComponent(job.name)}/${what}`;
}

export function print(lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}
