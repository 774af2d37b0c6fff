// A clock that the test moves, and a job on it.

import type { job, RunningJob } from 'millrace';
import { jobsOf } from '../../src/api/job.ts';
import { arraySource } from '../../src/connectors/arrays.ts';
import { iterableSource } from '../../src/connectors/iterables.ts';
import { JobRun } from '../../src/execution/job-run.ts';
import { operatorOf } from '../../src/operators/operator-of.ts';
import { type Clock, systemIo } from '../../src/runtime/io.ts';

/** What runs now comes to rest: everything that needs no clock has happened. */
export async function rest(): Promise<void> {
  for (let i = 0; i < 25; i++) await new Promise((resolve) => setImmediate(resolve));
}

export class DrivenClock implements Clock {
  #at = 1_000_000;
  #timers: { readonly at: number; readonly fn: () => void }[] = [];

  now(): number {
    return this.#at;
  }
  setTimeout(fn: () => void, ms: number): unknown {
    const timer = { at: this.#at + ms, fn };
    this.#timers.push(timer);
    return timer;
  }
  clearTimeout(handle: unknown): void {
    this.#timers = this.#timers.filter((timer) => timer !== handle);
  }

  /** Everything that is due on the way rings in its order, and comes to rest. */
  async advance(ms: number): Promise<void> {
    const until = this.#at + ms;
    await rest();
    for (;;) {
      const next = this.#timers.filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      this.clearTimeout(next);
      this.#at = Math.max(this.#at, next.at);
      next.fn();
      await rest();
    }
    this.#at = until;
  }
}

export function jobBy(clock: Clock): typeof job {
  return jobsOf({
    arraySource,
    iterableSource,
    async start(definition, options) {
      const run = new JobRun(definition, options, { operators: operatorOf, io: { ...systemIo(), clock } });
      await run.start();
      return run as unknown as RunningJob;
    },
  });
}
