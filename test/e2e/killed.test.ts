import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { COURSES, killAt } from './killing.ts';
import { ONLY_CPU, STEPS } from './steps.ts';
import { ensureBuilt, FOUR, Input } from './trial.ts';
import { WORKLOADS } from './workloads.ts';

beforeAll(ensureBuilt, 180_000);

const inputs = WORKLOADS.map((workload) => new Input(workload, { records: 16_000, files: FOUR }));
// Bases are made of deltas of some size.
const large = new Input('wc', { files: FOUR });
afterAll(() => {
  for (const input of [...inputs, large]) input.remove();
});

describe.concurrent('killed', () => {
  it.each(STEPS.map((step, index) => ({ ...step, index })))(
    'at $name, twice, a job writes every row once and leaves nothing behind',
    async ({ index, ...step }) => {
      const base = step.name.startsWith('base.');
      const input = base ? large : inputs[ONLY_CPU.has(step.name) ? WORKLOADS.indexOf('cpu') : index % 2]!;
      const wrong = await killAt(input, step, {
        backend: Math.floor(index / 2) % 2 === 0 ? 'memory' : 'level',
        parallelism: COURSES[index % COURSES.length]!,
        pace: base ? 20 : 100,
      });
      expect(wrong).toEqual([]);
    },
  );
});
