// A trial whose threads die on their way (dying-job.ts), in a process of its own: one that crashes takes no test with it.

import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { bundled } from '../bundled.ts';
import type { Trial } from '../e2e/trial.ts';
import { DYING_MODULE, THREAD_ENTRY } from './cluster-trial.ts';
import type { ThreadsThatDie } from './dying-process.ts';

const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

export interface DiedThreads {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly errors: string;
  readonly said?: { readonly status: string; readonly restarts: readonly { readonly code: string; readonly uid: string; readonly message: string }[] };
}

export function dying(trial: Trial, settings: Pick<ThreadsThatDie, 'deaths'> & Partial<ThreadsThatDie>): Promise<DiedThreads> {
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
  const child = spawn(process.execPath, [...memory, bundled(here('./dying-process.ts'))], {
    env: { ...process.env, MILLRACE_TRIAL: JSON.stringify(all) },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let out = '';
  let errors = '';
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (errors += data));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, errors, ...(out === '' ? {} : { said: JSON.parse(out) }) }));
  });
}
