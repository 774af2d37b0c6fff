// Whether a job is ready, as probes of a machine want to know it: by its status alone. Pure.
//
// Nothing of it is secret, since probes have no token: neither names nor messages of the job, a status and a sentence of ours.

import type { JobStatus } from '../graph/job.ts';

export interface Readiness {
  readonly ready: boolean;
  readonly status: JobStatus;
  /** Of a job that is not ready. */
  readonly why?: string;
}

const WHY: Readonly<Record<Exclude<JobStatus, 'running'>, string>> = {
  starting: 'Not every task is open yet.',
  restarting: 'A part of the job has failed, and goes on from the last checkpoint.',
  stopping: 'The job takes its last checkpoint.',
  finished: 'The job has finished.',
  stopped: 'The job has been stopped.',
  cancelled: 'The job has been cancelled.',
  failed: 'The job has failed.',
};

export function readinessOf(status: JobStatus): Readiness {
  return status === 'running' ? { ready: true, status } : { ready: false, status, why: WHY[status] };
}
