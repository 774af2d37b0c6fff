// A workload whose process is killed when its storage gets a request: before the request has had its effect (`refuse`), or behind it (`lose`).

import type { Trial } from '../e2e/trial.ts';
import type { FaultyProxy } from './faulty-proxy.ts';

export interface KillAt {
  /** Of the requests that the run sends, from 1. */
  readonly request: number;
  readonly how: 'refuse' | 'lose';
  readonly parallelism: number;
}

/** Kills one run for each. Gives what is wrong; a run that had ended before says so with `ended`. */
export async function killedAtRequests(trial: Trial, proxy: FaultyProxy, kills: readonly KillAt[]): Promise<{ wrong: string[]; ended: boolean }> {
  for (const [index, { request, how, parallelism }] of kills.entries()) {
    const { process: child, ended } = trial.begin({ parallelism });
    let requests = 0;
    proxy.decide = () => {
      requests += 1;
      if (requests < request) return undefined;
      if (requests === request) child.kill('SIGKILL');
      return requests === request ? how : 'refuse';
    };
    const { signal, code, errors } = await ended;
    proxy.decide = () => undefined;
    if (signal === 'SIGKILL') continue;
    return { wrong: code === 0 ? [] : [`run ${index + 1} ended with ${code} before it had sent ${request} requests\n${errors}`], ended: true };
  }
  return { wrong: [], ended: false };
}
