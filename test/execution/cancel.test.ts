import { job } from 'millrace';
import { expect, it } from 'vitest';
import { definitionOf } from '../../src/api/job.ts';
import { MillraceError } from '../../src/errors.ts';
import { JobRun } from '../../src/execution/job-run.ts';
import { operatorOf } from '../../src/operators/operator-of.ts';
import { Feed } from '../protocols/lab.ts';

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
