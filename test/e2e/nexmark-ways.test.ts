import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { killAt } from './killing.ts';
import { slowUntil, startHere } from './run-here.ts';
import { STEPS } from './steps.ts';
import { ensureBuilt, FOUR, Input, Trial } from './trial.ts';
import { NEXMARK, type Query } from './workloads.ts';

// Each query with a crash inside and on at another parallelism, with each backend, and once killed. Parallelisms take turns; npm run test:chaos has all of them.
const COURSES = [
  [1, 2, 3],
  [2, 3, 1],
  [3, 1, 2],
] as const;

/** Where a process that runs the query is killed: at steps that come in all of them, with state or without. */
const KILLED_AT: Readonly<Record<Query, string>> = {
  q0: 'sink.commit',
  q1: 'checkpoint.registered',
  q2: 'sink.committed',
  q3: 'checkpoint.delta.upload',
  q4: 'restore.load',
  q5: 'checkpoint.ack',
  q7: 'checkpoint.metadata.written',
  q8: 'checkpoint.register',
};

const inputs = new Map<Query, Input>();
beforeAll(() => {
  ensureBuilt();
  for (const query of NEXMARK) inputs.set(query, new Input(query, { files: FOUR }));
}, 180_000);
afterAll(() => {
  for (const input of inputs.values()) input.remove();
});

describe.each(NEXMARK.map((query, turn) => ({ query, turn })))('$query', ({ query, turn }) => {
  it.each([
    { backend: 'memory', course: COURSES[turn % 3]! },
    { backend: 'level', course: COURSES[(turn + 1) % 3]! },
  ] as const)(
    'gives the reference output with $backend() when a function throws, and the job then stops and goes on, at parallelism $course',
    async ({ backend, course: [before, after] }) => {
      const trial = new Trial(inputs.get(query)!, { backend, every: 20 });
      let checkpoints = 0;
      let thrownBehind = 0;
      let stopped = false;
      const onRecord = (): void => {
        if (thrownBehind > 0 || checkpoints === 0) return;
        thrownBehind = checkpoints;
        throw new Error('A function of the job throws.');
      };
      const running = await startHere(trial, { parallelism: before, onRecord, pace: slowUntil(() => stopped) }, (event) => {
        if (event.type !== 'checkpoint') return;
        checkpoints += 1;
        if (thrownBehind === 0 || checkpoints < thrownBehind + 2 || stopped) return;
        stopped = true;
        setImmediate(() => void running.stop());
      });
      const first = await running.finished;
      expect(first).toMatchObject({ status: 'stopped', restarts: 1 });
      const again = await startHere(trial, { parallelism: after });
      expect(again.restoredFrom?.id).toBe(first.checkpoint?.id);
      expect((await again.finished).status).toBe('finished');
      expect(await trial.complaints()).toEqual([]);
      trial.remove();
    },
  );
});

describe.concurrent('killed', () => {
  it.each(NEXMARK.map((query, turn) => ({ query, turn, step: KILLED_AT[query] })))(
    '$query gives the reference output when its process is killed at $step, and again, and another one goes on',
    async ({ query, turn, step: name }) => {
      const step = STEPS.find((each) => each.name === name)!;
      const backend = (['memory', 'level'] as const)[turn % 2]!;
      const { wrong, killed } = await killAt(inputs.get(query)!, step, { backend, parallelism: COURSES[turn % 3]!, pace: 10 });
      expect(wrong).toEqual([]);
      expect(killed).toBeGreaterThan(0);
    },
  );
});
