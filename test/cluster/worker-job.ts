// The module that threads of a worker load: its default export is the job of MILLRACE_TRIAL.

import type { Settings } from '../e2e/job-process.ts';
import { jobOf } from '../e2e/workloads.ts';

const settings = JSON.parse(process.env.MILLRACE_TRIAL!) as Settings;

export default jobOf(settings.workload, settings);
