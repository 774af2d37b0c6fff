// `millrace worker`: what a user sees of it. What a cluster does stands in test/cluster and test/protocols/17-leaders.test.ts.

import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { rangeIn } from '../../src/cli/worker-command.ts';
import { freshRoot } from '../cluster/zookeeper/clients.ts';
import { LONG } from '../long.ts';
import { NO_ZOOKEEPER, zookeeperForTests } from '../services/zookeeper.ts';
import { build, Place, TICKING } from './millrace-process.ts';

let place: Place;
beforeAll(build, 180_000);
beforeEach(() => {
  place = new Place();
});
afterEach(() => place.remove());

describe.skipIf(NO_ZOOKEEPER || !LONG)('millrace worker', () => {
  it('joins with its jobs, is seen by the other commands, hands over at SIGTERM, and ends with its jobs', async () => {
    const connect = await zookeeperForTests();
    const module = place.write('ticking.mjs', TICKING);
    const root = freshRoot();
    const args = ['worker', '--zookeeper', connect, '--root', root, '--checkpoints', join(place.folder, 'checkpoints'), '--every', '200ms', module];
    const first = place.start(args);
    await first.said(/^ticking: joins$[\s\S]*^ticking: running$[\s\S]*^ticking: door at/m);
    await first.said(/^20 20$/m, 'stdout');
    const second = place.start(args);
    await second.said(/door at/);
    // One job, whichever of the two is asked.
    expect((JSON.parse((await place.run('jobs', '--json')).stdout) as object[]).length).toBe(1);
    const there = ['--zookeeper', connect, '--root', root];
    const [found, ...others] = JSON.parse((await place.run('jobs', ...there, '--json')).stdout) as { name: string; url: string }[];
    expect([found?.name, others]).toEqual(['ticking', []]);
    expect((await place.run('tree', 'ticking', ...there)).stdout).toMatch(/sum-0 +running/);
    expect((await place.run('tree', 'ticking', ...there, '--url', found!.url)).code).toBe(0);
    const elsewhere = await place.run('tree', '--zookeeper', connect, '--root', freshRoot());
    expect(elsewhere).toMatchObject({ code: 1, stderr: expect.stringMatching(/^JOB_NOT_FOUND: There is no member of a cluster below /) as string });
    first.child.kill('SIGTERM');
    const left = await first.ended;
    expect(left).toMatchObject({ code: 0, signal: null });
    expect(left.stderr).toMatch(/^leaving: [\s\S]*^ticking: goes on without this worker$/m);
    const [, n, count] = await second.said(/^(\d+) (\d+)$/m, 'stdout');
    expect(count).toBe(n);
    const tree = await place.run('tree');
    expect(tree.stdout, tree.stderr).toMatch(/sum-0 +running/);
    const stopped = await place.run('stop');
    expect(stopped.stdout).toMatch(/^ticking: stopped, checkpoint \d+\n$/);
    expect((await second.ended).code).toBe(0);
    // Every count was made once: the numbers go on where the first worker was.
    expect(Number(n)).toBeGreaterThan(20);
  });
});

describe('the command line of millrace worker', () => {
  it('without servers, with a port that is none, or a secret that cannot be read, means nothing', async () => {
    const module = place.write('ticking.mjs', TICKING);
    for (const [args, said] of [
      [[module], /required option.*--zookeeper/i],
      [[module, '--zookeeper', 'localhost:1', '--port', '99999'], /'99999' is no port/],
      [[module, '--zookeeper', 'localhost:1', '--secret-file', 'nowhere'], /secret in nowhere cannot be read/],
    ] as const) {
      const ended = await place.run('worker', ...args);
      expect(ended.stderr).toMatch(said);
      expect(ended.code).toBe(2);
    }
  });

  it('has a parallelism, or a range of it', () => {
    expect([rangeIn('4'), rangeIn('2-8')]).toEqual([4, { min: 2, max: 8 }]);
    expect(() => rangeIn('8-2')).toThrow(/no range/);
    expect(() => rangeIn('x')).toThrow(/no number/);
  });
});
