import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LONG } from '../long.ts';
import { courseOf, killAt } from './killing.ts';
import { CHAOS_ONLY, STEPS } from './steps.ts';
import { ensureBuilt, FOUR, Input } from './trial.ts';
import { WORKLOADS } from './workloads.ts';

beforeAll(ensureBuilt, 180_000);

const inputs = WORKLOADS.map((workload) => new Input(workload, { records: 16_000, files: FOUR }));
const large = new Input('wc', { files: FOUR });
afterAll(() => {
  for (const input of [...inputs, large]) input.remove();
});

// Once each; in short those that need a large input are left out. npm run test:chaos kills the next run as well, and more often.
describe.concurrent('killed', () => {
  it.each(
    STEPS.map((step, index) => ({ ...step, index })).filter(({ index, ...step }) => !CHAOS_ONLY.has(step.name) && (LONG || !courseOf(step, index).large)),
  )('at $name, a job writes every row once and leaves nothing behind', async ({ index, ...step }) => {
    const { workload, large: whole, course } = courseOf(step, index);
    const { wrong } = await killAt(whole ? large : inputs[WORKLOADS.indexOf(workload)]!, step, course, false);
    expect(wrong).toEqual([]);
  });
});
