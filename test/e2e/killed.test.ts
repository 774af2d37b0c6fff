import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Settings } from './job-process.ts';
import { ONLY_CPU, preludeOf, STEPS } from './steps.ts';
import { Input, Trial } from './trial.ts';
import { WORKLOADS } from './workloads.ts';

// Child processes run what is built.
beforeAll(() => {
  const ready = spawnSync(process.execPath, [fileURLToPath(new URL('../../scripts/ensure.mjs', import.meta.url))], { encoding: 'utf8' });
  if (ready.status !== 0) throw new Error(ready.stderr);
}, 180_000);

const inputs = WORKLOADS.map((workload) => new Input(workload, { records: 16_000, files: 4 }));
afterAll(() => {
  for (const input of inputs) input.remove();
});

/** Parallelisms of the first, the second and the last run: each change at least once, and none at all. */
const COURSES: readonly (readonly [number, number, number])[] = [
  [1, 2, 4],
  [2, 2, 3],
  [4, 1, 2],
  [2, 4, 1],
  [2, 2, 2],
];

describe.concurrent('killed', () => {
  it.each(STEPS.map((step, index) => ({ ...step, index })))('at $name, twice, a job writes every row once', async ({ name, at, restoring, index }) => {
    const workload = ONLY_CPU.has(name) ? 'cpu' : WORKLOADS[index % 2]!;
    const backend: Settings['backend'] = Math.floor(index / 2) % 2 === 0 ? 'memory' : 'level';
    const [first, second, last] = COURSES[index % COURSES.length]!;
    const trial = new Trial(inputs[WORKLOADS.indexOf(workload)]!, { backend, every: 5, pace: 100 });
    const ends = restoring
      ? [await trial.run({ parallelism: first }, preludeOf(name)), await trial.run({ parallelism: second }, `${name}=kill@${at}`)]
      : [await trial.run({ parallelism: first }, `${name}=kill@${at}`), await trial.run({ parallelism: second }, `${name}=kill`)];
    expect(ends.map(({ signal, errors }) => signal ?? errors)).toEqual(['SIGKILL', 'SIGKILL']);
    await trial.finish({ parallelism: last });
    expect(await trial.complaints()).toEqual([]);
    trial.remove();
  });
});
