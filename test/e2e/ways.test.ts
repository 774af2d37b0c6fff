import type { JobResult } from 'millrace';
import { afterAll, describe, expect, it } from 'vitest';
import { LONG } from '../long.ts';
import { HELD, heldUntil, startHere } from './run-here.ts';
import { FOUR, Input, Trial } from './trial.ts';
import { WORKLOADS } from './workloads.ts';

/** A run that is stopped behind its checkpoint of that number, when of each file only the beginning has been read. */
async function stoppedBehind(count: number, trial: Trial, parallelism: number): Promise<JobResult> {
  let checkpoints = 0;
  let stopping = false;
  const running = await startHere(trial, { parallelism, pace: HELD }, (event) => {
    if (event.type !== 'checkpoint' || ++checkpoints < count || stopping) return;
    stopping = true;
    setImmediate(() => void running.stop());
  });
  return running.finished;
}

// The same output as straight through: with crashes of the job's own functions inside, and stopped and restored at another parallelism. Of half of the input: straight.test.ts
// has the whole of it, and holds the plain computation against the reference that the outputs are compared with here.
describe.each(WORKLOADS)('%s', (workload) => {
  const input = new Input(workload, { records: 50_000, files: FOUR });
  afterAll(() => input.remove());

  // In short: wc, whose state only grows, with level(), and the windows of cpu with memory().
  const backends = ['memory', 'level'] as const;
  describe.each(LONG ? backends : backends.filter((backend) => (workload === 'wc') === (backend === 'level')))('with %s()', (backend) => {
    it.each(LONG ? [1, 2, 4] : [2])(
      'gives the same output at parallelism %i when one of its functions throws, behind a checkpoint and behind another',
      async (parallelism) => {
        const trial = new Trial(input, { backend, parallelism, every: 20 });
        let checkpoints = 0;
        const crashedBehind: number[] = [];
        const onRecord = (): void => {
          if (crashedBehind.length === 2 || checkpoints <= (crashedBehind.at(-1) ?? 0)) return;
          crashedBehind.push(checkpoints);
          throw new Error('A function of the job throws.');
        };
        const pace = heldUntil(() => crashedBehind.length === 2 || checkpoints > (crashedBehind.at(-1) ?? 0));
        const running = await startHere(trial, { onRecord, pace }, (event) => {
          if (event.type === 'checkpoint') checkpoints += 1;
        });
        expect(await running.finished).toMatchObject({ status: 'finished', restarts: 2 });
        expect(await trial.complaints()).toEqual([]);
        trial.remove();
      },
    );

    const courses: [number, number][] = [
      [1, 2],
      [4, 1],
      [2, 4],
      [2, 3],
    ];
    it.each(LONG ? courses : [courses[workload === 'wc' ? 0 : 1]!])(
      'gives the same output when it is stopped at parallelism %i and goes on at %i',
      async (before, after) => {
        const trial = new Trial(input, { backend, every: 20 });
        const stopped = await stoppedBehind(3, trial, before);
        expect(stopped.status).toBe('stopped');
        const again = await startHere(trial, { parallelism: after });
        expect(again.restoredFrom?.id).toBe(stopped.checkpoint?.id);
        expect((await again.finished).status).toBe('finished');
        expect(await trial.complaints()).toEqual([]);
        trial.remove();
      },
    );
  });
});

it('goes on at the same parallelism when the source instance that finds the files had read its own to the end', async () => {
  const input = new Input('wc', { records: 20_000, files: [0.01, 0.99] });
  const trial = new Trial(input, { parallelism: 2, every: 20 });
  expect((await stoppedBehind(4, trial, 2)).status).toBe('stopped');
  const again = await startHere(trial);
  expect((await again.finished).status).toBe('finished');
  expect(await trial.complaints()).toEqual([]);
  trial.remove();
  input.remove();
});
