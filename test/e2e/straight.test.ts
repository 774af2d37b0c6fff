import { afterAll, describe, expect, it } from 'vitest';
import { LONG } from '../long.ts';
import { expectedOf, inputOf, REFERENCE, referenceOf, sha256 } from './oracle.ts';
import { runHere } from './run-here.ts';
import { Input, Trial } from './trial.ts';
import { WORKLOADS } from './workloads.ts';

describe.each(WORKLOADS)('%s', (workload) => {
  const input = new Input(workload);
  const reference = referenceOf(workload);
  afterAll(() => input.remove());

  it('has a reference output that a plain computation gives too', () => {
    expect(sha256(reference)).toBe(REFERENCE[workload].sha256);
    expect(reference.split('\n').length - 1).toBe(REFERENCE[workload].count);
    expect(expectedOf(workload, inputOf(workload)) === reference).toBe(true);
  });

  // In short: wc, whose state only grows, with level(), and the windows of cpu with memory().
  const backends = ['memory', 'level'] as const;
  describe.each(LONG ? backends : backends.filter((backend) => (workload === 'wc') === (backend === 'level')))('with %s()', (backend) => {
    it.each(LONG ? [1, 2, 3, 4] : [4])('gives the reference output at parallelism %i, byte for byte, and leaves nothing behind', async (parallelism) => {
      const trial = new Trial(input, { backend, parallelism, every: 200 });
      expect((await runHere(trial)).status).toBe('finished');
      // With the reference, whose checksum the first test compares.
      expect(await trial.complaints()).toEqual([]);
      trial.remove();
    });
  });
});
