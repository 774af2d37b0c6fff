// Processes that stop themselves at a step (`name=stop`, src/runtime/io.ts), and go on when a trial says so: the zombies of its points.

import { type ChildProcess, execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Begun<E> {
  readonly process: ChildProcess;
  readonly ended: Promise<E>;
}

/** A run was over before it came to the step, as on a busy machine: that says nothing. */
export class NotReached extends Error {}

/** Resolves when the process has been stopped by SIGSTOP. */
export async function reached<E extends { readonly code: number | null }>({ process: child, ended }: Begun<E>): Promise<void> {
  while (child.exitCode === null && child.signalCode === null) {
    const state = execFileSync('ps', ['-o', 'state=', '-p', String(child.pid)], { encoding: 'utf8' }).trim();
    if (state.startsWith('T')) return;
    await sleep(20);
  }
  if ((await ended).code === 0) throw new NotReached('the run was over before it came to its step');
  throw new Error(`The process ended (${child.signalCode ?? child.exitCode}) and was not stopped.`);
}

/** Goes on until it ends: each sink counts its steps by itself, so that a process may be stopped several times. */
export async function goesOn<E>({ process: child, ended }: Begun<E>): Promise<E> {
  const waking = setInterval(() => child.kill('SIGCONT'), 50);
  try {
    return await ended;
  } finally {
    clearInterval(waking);
  }
}
