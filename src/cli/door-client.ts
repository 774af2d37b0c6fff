// The command's side of a door: which job is meant, and requests to it. It knows a job by its address only.

import { request } from 'node:http';
import { request as requestTls } from 'node:https';
import type { MemberDoor } from '../cluster/zookeeper/membership.ts';
import { CODES, type ErrorCode, MillraceError, messageOf } from '../errors.ts';
import { announced } from '../observe/discovery.ts';
import { doorsOfCluster, isNamed, type Where } from './where.ts';

export interface JobSummary {
  readonly id: string;
  readonly name: string;
  readonly status: string;
  readonly startedAt: number;
  readonly pid: number;
}

/** How long a door of another machine may take to say which jobs it has. */
const FOUND_MS = 5000;

export interface FoundJob extends JobSummary {
  readonly url: string;
}

/** Jobs that answer; what is announced and does not answer has ended this moment. */
export async function runningJobs(where: Where): Promise<FoundJob[]> {
  isNamed(where);
  const { url, zookeeper } = where;
  if (url !== undefined) return (await ask<JobSummary[]>(url, 'GET', '/jobs')).map((job) => ({ ...job, url }));
  if (zookeeper !== undefined) return jobsOfCluster(await doorsOfCluster({ ...where, zookeeper }));
  const answers = await Promise.all(
    announced().map(async (found): Promise<FoundJob[]> => {
      try {
        const jobs = await ask<JobSummary[]>(found.url, 'GET', '/jobs');
        // A port can have gone to another process since.
        return jobs.filter((job) => job.id === found.id).map((job) => ({ ...job, url: found.url }));
      } catch (error) {
        if ((error as Partial<MillraceError>).code === 'CONTROL_UNAUTHORIZED')
          return [{ id: found.id, name: found.job, status: 'wants a token', startedAt: found.startedAt, pid: found.pid, url: found.url }];
        if ((error as Partial<MillraceError>).code === 'JOB_NOT_FOUND') return [];
        throw error;
      }
    }),
  );
  return onceEach(answers.flat());
}

/** By any door that answers. An address of this machine may be another job's door here: each has to answer for the job that was announced. @throws what the first one says, where none does */
async function jobsOfCluster(doors: readonly MemberDoor[]): Promise<FoundJob[]> {
  const answers = await Promise.allSettled(
    doors.map(async ({ url, id }) => {
      const jobs = (await ask<JobSummary[]>(url, 'GET', '/jobs', {}, FOUND_MS)).filter((job) => job.id === id);
      if (jobs.length === 0) throw new MillraceError('JOB_NOT_FOUND', `The door at ${url} is another job's, as seen from this machine.`);
      return jobs.map((job) => ({ ...job, url }));
    }),
  );
  const jobs = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
  const refused = answers.find((answer) => answer.status === 'rejected');
  if (jobs.length === 0 && refused !== undefined) throw refused.reason;
  return onceEach(jobs);
}

/** A job of a cluster has a door in each of its processes, and any of them answers for all of it. */
function onceEach(jobs: readonly FoundJob[]): FoundJob[] {
  return jobs.filter((job, i) => jobs.findIndex(({ id }) => id === job.id) === i);
}

export async function chooseJob(name: string | undefined, where: Where): Promise<FoundJob> {
  return choose(name, await runningJobs(where), isNamed(where) ? 'there' : 'on this machine');
}

/** One that runs needs no name. Pure. */
export function choose(name: string | undefined, jobs: readonly FoundJob[], place = 'on this machine'): FoundJob {
  const meant = name === undefined ? jobs : jobs.filter((job) => job.name === name || job.id === name);
  const [only] = meant;
  if (only !== undefined && meant.length === 1) return only;
  const list = jobs.map((job) => `${job.name} (id ${job.id}, process ${job.pid})`).join(', ');
  if (jobs.length === 0)
    throw new MillraceError('JOB_NOT_FOUND', name === undefined ? `No job runs ${place}.` : `No job '${name}' runs ${place}; none does.`, {
      todo: 'Start one with millrace run, or name a door with --url, or a cluster with --zookeeper.',
    });
  if (meant.length > 1)
    throw new MillraceError('JOB_AMBIGUOUS', `${name === undefined ? 'Several jobs run' : `Several jobs are named '${name}'`}: ${list}.`, {
      todo: name === undefined ? 'Say which one is meant, by its name or id.' : 'Say which one is meant by its id.',
    });
  throw new MillraceError('JOB_NOT_FOUND', `No job '${name}' runs ${place}; there is ${list}.`, { todo: 'Correct the name.' });
}

/** Without a timeout by default: a stop answers when the job has ended. */
export function ask<T>(url: string, method: 'GET' | 'POST', path: string, body: object = {}, timeoutMs?: number): Promise<T> {
  let target: URL;
  try {
    target = new URL(url.replace(/\/+$/, '') + path);
    if (target.protocol !== 'http:' && target.protocol !== 'https:') throw new TypeError('it is not of http');
  } catch (error) {
    return Promise.reject(
      new MillraceError('OPTION_INVALID', `'${url}' is no address of a door: ${messageOf(error)}.`, { todo: 'Write --url http://127.0.0.1:PORT.' }),
    );
  }
  const token = process.env.MILLRACE_TOKEN;
  return new Promise((resolve, reject) => {
    const sent = (target.protocol === 'https:' ? requestTls : request)(
      target,
      {
        method,
        // No connection outlives its question, so that the command ends when it has its answer.
        agent: false,
        ...(timeoutMs === undefined ? {} : { signal: AbortSignal.timeout(timeoutMs) }),
        headers: { ...(method === 'POST' ? { 'content-type': 'application/json' } : {}), ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
      },
      (response) => {
        const pieces: Buffer[] = [];
        response.on('data', (piece: Buffer) => pieces.push(piece));
        response.on('error', (error) => reject(gone(url, error)));
        response.on('end', () => {
          try {
            const value = JSON.parse(Buffer.concat(pieces).toString('utf8')) as unknown;
            if (response.statusCode === 200) resolve(value as T);
            else reject(errorOf(value));
          } catch (error) {
            reject(new MillraceError('CONTROL_NOT_FOUND', `What answers at ${url} is no control door.`, { cause: error, todo: 'Correct the address.' }));
          }
        });
      },
    );
    sent.on('error', (error) => reject(gone(url, error)));
    sent.end(method === 'POST' ? JSON.stringify(body) : undefined);
  });
}

function gone(url: string, cause: Error): MillraceError {
  const { code } = cause as NodeJS.ErrnoException;
  return new MillraceError('JOB_NOT_FOUND', `Nothing answers at ${url}: ${cause.message === '' ? code : cause.message}.`, {
    cause,
    todo: 'The job has ended, or the address is wrong; look with millrace jobs.',
  });
}

function errorOf(value: unknown): Error {
  const { code, message, todo, retryable } = (value ?? {}) as Record<string, unknown>;
  if (typeof code !== 'string' || typeof message !== 'string') throw new TypeError('no error of a door');
  if (code in CODES) {
    return new MillraceError(code as ErrorCode, message, { ...(typeof todo === 'string' ? { todo } : {}), retryable: retryable === true });
  }
  return Object.assign(new Error(message), { code, retryable });
}
