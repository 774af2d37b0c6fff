// `millrace run --threads`: what a user sees of it. What jobs give in threads stands in test/cluster/threads.test.ts.

import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { LONG } from '../long.ts';
import { build, Place, TICKING } from './millrace-process.ts';

let place: Place;
beforeAll(build, 180_000);
beforeEach(() => {
  place = new Place();
});
afterEach(() => place.remove());

const ONCE = (body: string): string => `import { job } from 'millrace'; import { isMainThread } from 'node:worker_threads'; ${body}`;

describe('millrace run --threads', () => {
  it.runIf(LONG)('runs the tasks in threads, which the tree shows, and goes on in one thread and at another parallelism', async () => {
    const module = place.write('ticking.ts', TICKING.replace('read(split, from', 'read(split: string, from'));
    const run = place.start(['run', module, '--threads', '2', '--parallelism', '2', '--', 'ticking']);
    await run.said(/door at/);
    await run.said(/^20 20$/m, 'stdout');
    const tree = (await place.run('tree')).stdout;
    expect(tree).toMatch(/region-0 +running[\s\S]*thread-0 +running[\s\S]*ticks-0 +running[\s\S]*thread-1 +running[\s\S]*sum-1 +running/);
    const metrics = JSON.parse((await place.run('tree', '--json')).stdout);
    expect(JSON.stringify(metrics)).toContain('recordsIn');
    expect((await place.run('state', 'get', 'sum', 'value', 'all')).stdout).toMatch(/"count": \d+/);
    expect((await place.run('rescale', '3')).stdout).toMatch(/^ticking: runs at parallelism 3/);
    expect((await place.run('stop')).code).toBe(0);
    expect((await run.ended).code).toBe(0);
    const counted = Number(/(\d+) (\d+)\n$/.exec(run.stdout)![2]);

    const again = place.start(['run', module, '--', 'ticking']);
    await again.said(/resumes from checkpoint/);
    const [, n, count] = await again.said(/^(\d+) (\d+)$/m, 'stdout');
    expect(n).toBe(count);
    expect(Number(count)).toBeGreaterThan(counted);
    expect((await place.run('stop')).code).toBe(0);
    await again.ended;
  });

  it.each(
    (
      [
        [
          'a record that is no plain data, on its way to another thread',
          `export default job('other', (env) => void env.fromArray('in', [1, 2, 3, 4]).map((n) => ({ n, later: () => n })).rebalance().forEach('out', () => {}));`,
          /STATE_NOT_SERIALIZABLE: A record of .* cannot be sent to 'out'/,
        ],
        [
          'a job that is another in each thread',
          `export default job('other', (env) => void env.fromArray('in', [1]).forEach(isMainThread ? 'here' : 'there', () => {}));`,
          /PLAN_INVALID: The module makes another plan of the job 'other'/,
        ],
        [
          'a job that is started by its own module',
          `const one = job('other', (env) => void env.fromArray('in', [1]).forEach('out', () => {})); if (!isMainThread) await one.run(); export default one;`,
          /OPTION_INVALID: The module of the job 'other' starts it while a thread loads it/,
        ],
        [
          'a module that is another in each thread',
          `export default isMainThread ? job('other', (env) => void env.fromArray('in', [1]).forEach('out', () => {})) : undefined;`,
          /MODULE_WITHOUT_JOB: The default export of .* is not the job 'other'/,
        ],
      ] as const
    ).slice(0, LONG ? 4 : 1),
  )('says what is wrong with %s', async (_, body, sentence) => {
    const module = place.write('other.mjs', ONCE(body));
    const { code, stderr } = await place.run('run', module, '--threads', '2', '--parallelism', '2', '--no-checkpoints');
    expect(stderr).toMatch(sentence);
    expect(code).toBe(1);
  });

  it('refuses a number that is none', async () => {
    const module = place.write('ticking.mjs', TICKING);
    expect(await place.run('run', module, '--threads', 'two')).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^OPTION_INVALID: 'two' is no number for --threads/),
    });
  });
});
