import { afterAll, describe, expect, it } from 'vitest';
import { LONG } from '../long.ts';
import { expectedOf, inputOf, REFERENCE, sha256 } from './oracle.ts';
import { runHere } from './run-here.ts';
import { Input, Trial } from './trial.ts';
import { NEXMARK } from './workloads.ts';

// Each query meets each backend, in short one of them, and over the queries each backend meets every parallelism; npm run test:chaos has all of them.
describe.each(NEXMARK.map((query, index) => ({ query, turn: index })))('$query', ({ query, turn }) => {
  const input = new Input(query);
  afterAll(() => input.remove());

  it('has a reference output that a plain computation gives too', () => {
    expect(sha256(input.expected.final)).toBe(REFERENCE[query].sha256);
    expect(input.expected.final.split('\n').length - 1).toBe(REFERENCE[query].count);
    expect(expectedOf(query, inputOf(query)) === input.expected.final).toBe(true);
  });

  const runs = [
    { backend: 'memory', parallelism: 1 + (turn % 3) },
    { backend: 'level', parallelism: 1 + ((turn + 1) % 3) },
  ] as const;
  it.each(LONG ? runs : [runs[turn % 2]!])(
    'gives the reference output with $backend() at parallelism $parallelism, byte for byte, and leaves nothing behind',
    async (settings) => {
      const trial = new Trial(input, { ...settings, every: 200 });
      expect((await runHere(trial)).status).toBe('finished');
      expect(sha256(trial.output())).toBe(REFERENCE[query].sha256);
      expect(await trial.complaints()).toEqual([]);
      trial.remove();
    },
  );
});
