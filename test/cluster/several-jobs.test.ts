// Several jobs of one cluster, whose program is upgraded replica by replica (protocols 21): they go over together, behind a last checkpoint of each.

import { join } from 'node:path';
import type { RunningJob } from 'millrace';
import { describe, expect, it, vi } from 'vitest';
import { LONG } from '../long.ts';
import { Watch } from '../protocols/lab.ts';
import { NO_ZOOKEEPER } from '../services/zookeeper.ts';
import { Cluster, Lines } from './in-process.ts';

interface Replica {
  readonly running: readonly RunningJob[];
  readonly watch: Watch;
  readonly log: Lines;
}

/** A replica with that version of all of those jobs. */
async function replica(version: string, jobs: readonly Cluster[], { every = 20, faults = '' } = {}): Promise<Replica> {
  const [watch, log] = [new Watch(), new Lines()];
  const cluster = jobs[0]!.zookeeper();
  const running: RunningJob[] = [];
  // What reads them is loaded in the middle of the first start.
  if (faults !== '') vi.stubEnv('MILLRACE_FAULTS', faults);
  for (const each of jobs)
    running.push(
      await each.start({
        cluster,
        version,
        checkpoints: { directory: join(each.folder, 'checkpoints'), every },
        onEvent: watch.onEvent,
        logger: log.logger,
      }),
    );
  vi.unstubAllEnvs();
  return { running, watch, log };
}

/** Each of them has counted so far, once. */
async function counted(jobs: readonly Cluster[], each: number): Promise<void> {
  for (const of of jobs) of.push([2 * each, 2 * each + 1]);
  await Promise.all(jobs.map((of) => of.counted(each)));
}

const takesOver = /Another version of the program takes over/;

describe.skipIf(NO_ZOOKEEPER)('jobs of one cluster', () => {
  it('go over to another version together', async () => {
    const one = await Cluster.open();
    const jobs = [one, one.beside('second')];
    const old = await replica('1', jobs);
    await counted(jobs, 1);
    const next = await replica('2', jobs);
    await old.log.until(takesOver);
    // Nobody is told of events but by who leads.
    await next.watch.until((watch) => watch.of('checkpoint').length > 2);
    await counted(jobs, 2);
    expect(old.running.map(({ status }) => status)).toEqual(['running', 'running']);
    expect(old.watch.of('restart')).toEqual([]);
    await Promise.all(next.running.map((each) => each.cancel()));
  });

  it.skipIf(!LONG)('go over to a version that has one more, which runs from then on', async () => {
    const first = await Cluster.open();
    const second = first.beside('second');
    const old = await replica('1', [first]);
    await counted([first], 1);
    const next = await replica('2', [first, second]);
    await old.log.until(takesOver);
    second.push([0, 1]);
    await second.counted(1);
    await counted([first, second], 2);
    expect(old.running[0]!.status).toBe('running');
    await Promise.all(next.running.map((each) => each.cancel()));
  });

  it.skipIf(!LONG)('of which one cannot be handed over go on all the same, each with everything once, and go over with the next try', async () => {
    const one = await Cluster.open();
    const jobs = [one, one.beside('second')];
    const never = 3_600_000;
    const push = async (n: number, { running }: Replica): Promise<void> => {
      for (const each of jobs) {
        each.push([2 * n, 2 * n + 1]);
        await each.feed.taken();
      }
      for (const each of running) await each.checkpoint();
      await Promise.all(jobs.map((each) => each.counted(n)));
    };
    // Behind one of each, those of the hand-over are the third and the fourth.
    const old = await replica('1', jobs, { every: never, faults: 'checkpoint.metadata.write=fail@3' });
    await push(1, old);
    const next = await replica('2', jobs, { every: never });
    await next.watch.until((watch) => watch.of('status').filter(({ status }) => status === 'running').length === 2);
    await next.log.until(/This process leads the cluster/);
    await push(2, next);
    expect(old.log.lines.some((line) => line.includes('is not handed over, for want of a last checkpoint'))).toBe(true);
    await Promise.all(next.running.map((each) => each.cancel()));
  });
});
