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

/** The pace of a source that reads no further batch before something has happened, however long that takes, or the attempt ends. */
export function heldUntil(happened: () => boolean): (signal: AbortSignal) => Promise<void> {
  return async (signal) => {
    while (!happened() && !signal.aborted) await new Promise((resolve) => setTimeout(resolve, 5));
  };
}

/** Reads one batch of each split, and nothing more until the attempt ends. */
export const HELD = heldUntil(() => false);
