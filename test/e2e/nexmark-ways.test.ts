import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LONG } from '../long.ts';
import { interrupted } from './interrupted.ts';
import { killAt } from './killing.ts';
import { NEXMARK_COURSES, nexmarkStepOf } from './steps.ts';
import { ensureBuilt, FOUR, Input, Trial } from './trial.ts';
import { NEXMARK, type Query } from './workloads.ts';

// Each query interrupted with each backend, and killed with one; in short some of them. Parallelisms take turns; npm run test:chaos has all of them.
const inputs = new Map<Query, Input>();
beforeAll(() => {
  ensureBuilt();
  for (const query of NEXMARK) inputs.set(query, new Input(query, { files: FOUR }));
}, 180_000);
afterAll(() => {
  for (const input of inputs.values()) input.remove();
});

describe.each(NEXMARK.map((query, turn) => ({ query, turn })).filter(({ turn }) => LONG || turn % 4 === 0))('$query', ({ query, turn }) => {
  const ways = [
    { backend: 'memory', course: NEXMARK_COURSES[turn % 3]! },
    { backend: 'level', course: NEXMARK_COURSES[(turn + 1) % 3]! },
  ] as const;
  it.each(LONG ? ways : [ways[(turn / 4) % 2]!])(
    'gives the reference output with $backend() when a function throws, and the job then stops and goes on, at parallelism $course',
    async ({ backend, course: [before, after] }) => {
      const trial = new Trial(inputs.get(query)!, { backend, every: 20 });
      expect(await interrupted(trial, before, after)).toEqual([]);
      trial.remove();
    },
  );
});

describe.concurrent('killed', () => {
  it.each(NEXMARK.map((query, turn) => ({ query, turn, step: nexmarkStepOf(query) })).filter(({ turn }) => LONG || turn % 8 === 4))(
    '$query gives the reference output when its process is killed at $step.name, and again, and another one goes on',
    async ({ query, turn, step }) => {
      const backend = (['memory', 'level'] as const)[turn % 2]!;
      const { wrong, killed } = await killAt(inputs.get(query)!, step, { backend, parallelism: NEXMARK_COURSES[turn % 3]!, pace: 10 });
      expect(wrong).toEqual([]);
      expect(killed).toBeGreaterThan(0);
    },
  );
});
