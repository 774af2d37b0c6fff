// A process that runs a trial and says at its end, as JSON, how that went. Settings go by MILLRACE_TRIAL. One that crashes takes no test with it.

import { spawn } from 'node:child_process';

export interface Ended<Said> {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly errors: string;
  /** Nothing where it died before. */
  readonly said?: Said;
}

/** `program`: the arguments of `node`. */
export function endOf<Said>(program: readonly string[], settings: object, faults = ''): Promise<Ended<Said>> {
  const child = spawn(process.execPath, program, {
    env: { ...process.env, MILLRACE_TRIAL: JSON.stringify(settings), MILLRACE_FAULTS: faults },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let out = '';
  let errors = '';
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (errors += data));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, errors, ...(out === '' ? {} : { said: JSON.parse(out) as Said }) }));
  });
}
