import type { job, RunningJob } from 'millrace';
import { expect, it } from 'vitest';
import { jobsOf } from '../../src/api/job.ts';
import { arraySource } from '../../src/connectors/arrays.ts';
import { iterableSource } from '../../src/connectors/iterables.ts';
import { JobRun } from '../../src/execution/job-run.ts';
import { operatorOf } from '../../src/operators/operator-of.ts';
import { type Clock, systemIo } from '../../src/runtime/io.ts';
import { Conditions, ends, Feed, Seen } from '../protocols/lab.ts';

/** Stands until the test moves it; what is set rings when the test says so, and no earlier. */
class HandClock implements Clock {
  at = 1000;
  readonly set: { readonly fn: () => void; readonly ms: number }[] = [];
  readonly conditions = new Conditions();

  now(): number {
    return this.at;
  }
  setTimeout(fn: () => void, ms: number): unknown {
    const timer = { fn, ms };
    this.set.push(timer);
    this.conditions.changed();
    return timer;
  }
  clearTimeout(handle: unknown): void {
    const index = this.set.indexOf(handle as (typeof this.set)[number]);
    if (index !== -1) this.set.splice(index, 1);
  }
  /** The one timer that is set rings, whatever the time; gives what is set then. */
  ring(): number[] {
    this.set.shift()!.fn();
    return this.waits();
  }
  waits(): number[] {
    return this.set.map(({ ms }) => ms);
  }
}

function jobWith(clock: Clock): typeof job {
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

it('a processing-time timer whose alarm rings before the clock says so is not lost: the alarm is set again, for what is left', async () => {
  const clock = new HandClock();
  const feed = new Feed<string>({ bounded: false });
  const seen = new Seen<string>();
  const running = ends(
    await jobWith(clock)('ringing', (env) => {
      env
        .source('in', feed)
        .keyBy((v) => v)
        .process<string>('timed', {
          onRecord: (_, ctx) => ctx.timers.processing.set(1100),
          onTimer: (timer, ctx) => ctx.emit(`timer ${timer.at}`),
        })
        .sink('out', seen);
    }).start(),
  );
  feed.push(['k']);
  await clock.conditions.until(() => clock.set.length === 1);
  expect(clock.waits()).toEqual([100]);
  clock.at = 1098;
  expect(clock.ring()).toEqual([2]);
  clock.at = 1099;
  expect(clock.ring()).toEqual([1]);
  expect(seen.values).toEqual([]);
  clock.at = 1100;
  clock.ring();
  await seen.until((values) => values.length === 1);
  expect(seen.values).toEqual(['timer 1100']);
  await running.cancel();
});
