import { job } from 'millrace';
import { expect, it } from 'vitest';
import { definitionOf } from '../../src/api/job.ts';
import { MillraceError } from '../../src/errors.ts';
import { JobRun } from '../../src/execution/job-run.ts';
import { operatorOf } from '../../src/operators/operator-of.ts';
import { type Io, systemIo } from '../../src/runtime/io.ts';
import { Feed, RESTARTS, Watch } from '../protocols/lab.ts';

it('a job that ends while a region waits to restart leaves no timer behind', async () => {
  const clock = systemIo().clock;
  const timers = new Set<unknown>();
  const io: Io = {
    ...systemIo(),
    clock: {
      ...clock,
      setTimeout: (fn, ms) => {
        const timer = clock.setTimeout(() => {
          timers.delete(timer);
          fn();
        }, ms);
        timers.add(timer);
        return timer;
      },
      clearTimeout: (timer) => {
        timers.delete(timer);
        clock.clearTimeout(timer);
      },
    },
  };
  const feed = new Feed<number>({ bounded: false });
  const failing = (): never => {
    throw new Error('always');
  };
  const definition = definitionOf(
    job(
      'failing',
      (env) =>
        void env
          .source('in', feed)
          .map(failing)
          .forEach('out', () => {}),
    ),
  );
  const watch = new Watch();
  const backoff = { initial: 3_600_000, max: 3_600_000 };
  const run = new JobRun(definition, { restarts: { ...RESTARTS, backoff }, onEvent: watch.onEvent }, { operators: operatorOf, io });
  await run.start();
  feed.push([1]);
  await watch.until(() => watch.of('restart').length === 1);
  expect((await run.cancel()).status).toBe('cancelled');
  expect(timers.size).toBe(0);
});

it('a job that is cancelled before it is launched ends, also where there will never be room for its tasks', async () => {
  let cease!: (error: Error) => void;
  const never = new Promise<never>((_, reject) => {
    cease = reject;
  });
  never.catch(() => {});
  const hosts = {
    parts: () => never,
    cease: () => cease(new MillraceError('JOB_ENDED', 'Nobody waits for hosts any more.')),
    close: async () => {},
  };
  const definition = definitionOf(job('waiting', (env) => void env.source('in', new Feed({ bounded: false })).forEach('out', () => {})));
  const run = new JobRun(definition, {}, { operators: operatorOf, hosts });
  const started = run.start();
  const cancelled = run.cancel();
  expect((await cancelled).status).toBe('cancelled');
  await started;
});
