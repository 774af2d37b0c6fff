// A process that runs a workload in threads; every thread loads this module too, and takes the job from it. Settings come by MILLRACE_TRIAL. When the run ends it says
// how, as JSON.

import { existsSync, writeFileSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';
import { level, memory } from 'millrace';
import type { Settings } from '../e2e/job-process.ts';
import { jobOf } from '../e2e/workloads.ts';

export interface ThreadSettings extends Settings {
  readonly threads: number;
  /** The thread that sees the record of that number does this, once in the trial; `mark` is made by it. */
  readonly crash?: { readonly at: number; readonly how: 'throws' | 'exits' | 'fails outside'; readonly mark: string };
}

const settings = JSON.parse(process.env.MILLRACE_TRIAL!) as ThreadSettings;
const { crash, threads, parallelism, backend, state, cacheBytes } = settings;

let records = 0;
function onRecord(): void {
  records += 1;
  if (crash === undefined || records < crash.at || existsSync(crash.mark)) return;
  writeFileSync(crash.mark, '');
  if (crash.how === 'throws') throw new Error('A function of the job throws.');
  // In a thread this ends that thread.
  if (crash.how === 'exits') process.exit(3);
  setImmediate(() => {
    throw new Error('Nobody catches this.');
  });
}

const job = jobOf(settings.workload, { ...settings, onRecord });
export default job;

if (isMainThread) {
  let checkpoints = 0;
  const restarts: string[] = [];
  const running = await job.start({
    threads,
    module: import.meta.url,
    parallelism,
    checkpoints: { directory: settings.checkpoints, every: settings.every, ...(settings.unaligned === undefined ? {} : { unaligned: settings.unaligned }) },
    restarts: { max: 5, within: 60_000, backoff: { initial: 10, max: 10 } },
    state: backend === 'level' ? level({ directory: state, cacheBytes: cacheBytes ?? 1 << 20 }) : memory(),
    onEvent: (event) => {
      if (event.type === 'restart') restarts.push(event.error.code);
      if (event.type !== 'checkpoint') return;
      checkpoints += 1;
      if (checkpoints === settings.stopAfter) setImmediate(() => void running.stop());
    },
    logger: { debug: () => {}, info: () => {}, warn: console.error, error: console.error },
  });
  const { status } = await running.finished;
  process.stdout.write(JSON.stringify({ status, checkpoints, restarts, restoredFrom: running.restoredFrom?.id }));
}
