// The job of MILLRACE_TRIAL, for threads that die where the trial says: a thread that has seen so many records does the next thing on the list, while its database of
// keyed state writes, where it has one. Each thing is done once in the trial.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import { Level } from 'level';
import type { Settings } from '../e2e/job-process.ts';
import { jobOf } from '../e2e/workloads.ts';

export type Death = 'exits' | 'fails outside' | 'has no memory left' | 'hangs' | 'hangs in native code';

export interface DyingSettings extends Settings {
  readonly deaths: readonly Death[];
  /** How many records a thread sees before it may die. */
  readonly at: number;
  readonly folder: string;
}

const settings = JSON.parse(process.env.MILLRACE_TRIAL!) as DyingSettings;
const { deaths, at, folder, backend } = settings;
let records = 0;

function mayDie(): void {
  if (isMainThread || records < at) return;
  for (const [index, death] of deaths.entries()) {
    try {
      writeFileSync(join(folder, `died-${index}`), '', { flag: 'wx' });
    } catch {
      continue;
    }
    die(death);
    return;
  }
  records = Number.NEGATIVE_INFINITY;
}

function die(death: Death): void {
  // In a thread this ends that thread.
  if (death === 'exits') process.exit(3);
  if (death === 'fails outside')
    queueMicrotask(() => {
      throw new Error('Nobody catches this.');
    });
  if (death === 'has no memory left') for (const all: object[] = []; ; ) all.push({ all: [all.length] });
  if (death === 'hangs in native code') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  if (death === 'hangs') for (;;);
}

if (backend === 'level') {
  const original = Level.prototype.batch as (...args: unknown[]) => { write(): Promise<void> };
  Object.assign(Level.prototype, {
    batch(this: Level, ...args: unknown[]) {
      const batch = original.apply(this, args);
      const write = batch.write.bind(batch);
      batch.write = () => {
        const writing = write();
        mayDie();
        return writing;
      };
      return batch;
    },
  });
}

export default jobOf(settings.workload, {
  ...settings,
  onRecord: () => {
    records += 1;
    if (backend === 'memory') mayDie();
  },
});
