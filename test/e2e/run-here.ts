// A run of a trial's job in this process.

import { type JobEvent, type JobResult, level, memory, type RunningJob } from 'millrace';
import { s3 } from 'millrace/storage';
import type { Settings } from './job-process.ts';
import type { Trial } from './trial.ts';
import { jobOf, type Places } from './workloads.ts';

export function startHere(
  trial: Trial,
  settings: Partial<Omit<Settings, 'pace'> & Places> & { readonly restore?: string } = {},
  onEvent?: (event: JobEvent) => void,
): Promise<RunningJob> {
  const all = { ...trial.settings, ...settings };
  return jobOf(all.workload, all).start({
    parallelism: all.parallelism,
    checkpoints: {
      directory: all.checkpoints,
      every: all.every,
      ...(all.s3 === undefined ? {} : { storage: s3(all.s3) }),
      ...(all.tolerate === undefined ? {} : { tolerate: all.tolerate }),
    },
    state: all.backend === 'level' ? level({ directory: all.state, cacheBytes: all.cacheBytes ?? 1 << 20 }) : memory(),
    onEvent,
    ...(all.restore === undefined ? {} : { restore: { from: all.restore } }),
  });
}

export async function runHere(trial: Trial, settings: Partial<Settings> = {}): Promise<JobResult> {
  return (await startHere(trial, settings)).finished;
}

/** The pace of a source that waits for something to happen, without stopping: at first a little, then longer. */
export function slowUntil(done: () => boolean): () => number {
  let batches = 0;
  return () => {
    batches += 1;
    if (done()) return 0;
    return batches < 40 ? 10 : 300;
  };
}
