// A trial whose threads die on their way (dying-job.ts), in a process of its own.

import { fileURLToPath } from 'node:url';
import { bundled } from '../bundled.ts';
import type { Trial } from '../e2e/trial.ts';
import { DYING_MODULE, THREAD_ENTRY } from './cluster-trial.ts';
import type { ThreadsThatDie } from './dying-process.ts';
import { type Ended, endOf } from './trial-process.ts';

const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

export interface Said {
  readonly status: string;
  readonly restarts: readonly { readonly code: string; readonly uid: string; readonly message: string }[];
}

export function dying(trial: Trial, settings: Pick<ThreadsThatDie, 'deaths'> & Partial<ThreadsThatDie>): Promise<Ended<Said>> {
  const all: ThreadsThatDie = {
    ...trial.settings,
    parallelism: 2,
    at: 500,
    folder: trial.folder,
    module: DYING_MODULE,
    entry: THREAD_ENTRY,
    stallMs: 10_000,
    ...settings,
  };
  // A thread has as much memory as the process.
  const memory = settings.deaths.includes('has no memory left') ? ['--max-old-space-size=160'] : [];
  return endOf([...memory, bundled(here('./dying-process.ts'))], all);
}
