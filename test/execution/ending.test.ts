import { getEventListeners } from 'node:events';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { job, memory } from 'millrace';
import { level } from 'millrace/state-backends';
import { expect, it } from 'vitest';
import type { JobRun } from '../../src/execution/job-run.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { Conditions, checkpointsIn, ends, Feed, jobOnIo, rejection, Store, temporaryFolder, Watch } from '../protocols/lab.ts';

it('a job ends that is cancelled while a region is to restart and a checkpoint is still being registered', async () => {
  const folder = await temporaryFolder();
  const conditions = new Conditions();
  const watch = new Watch();
  const feed = new Feed<number>({ bounded: false });
  let registering = false;
  let released = false;
  let waits = 0;
  const io = systemIo();
  const start = jobOnIo({
    ...io,
    clock: {
      ...io.clock,
      setTimeout(fn, ms) {
        // Whoever restarts a region looks every millisecond whether what is being registered is settled.
        if (registering && ms === 1) {
          waits += 1;
          conditions.changed();
        }
        return io.clock.setTimeout(fn, ms);
      },
    },
    step(name) {
      if (name !== 'checkpoint.register') return undefined;
      registering = true;
      conditions.changed();
      return conditions.until(() => released);
    },
  });
  const running = ends(
    await start('sums', (env) => {
      env
        .source('in', feed)
        .map((n) => {
          if (n < 0) throw new Error('no');
          return n;
        })
        .sink('out', new Store<number>());
    }).start({
      checkpoints: checkpointsIn(folder),
      restarts: { max: 9, within: 60_000, backoff: { initial: 5, max: 5, factor: 1, jitter: 0 } },
      onEvent: watch.onEvent,
    }),
  );
  await feed.push([1]).taken();
  running.checkpoint().catch(() => {});
  await conditions.until(() => registering);
  feed.push([-1]);
  await watch.until((w) => w.of('restart').length === 1);
  await conditions.until(() => waits > 2);
  const cancelled = running.cancel();
  released = true;
  conditions.changed();
  expect((await cancelled).status).toBe('cancelled');
});

it.each(['checkpoint', 'savepoint', 'rescale'] as const)('a %s that was asked for and has not begun when the job ends is refused', async (what) => {
  const folder = await temporaryFolder();
  const conditions = new Conditions();
  let begins = false;
  const start = jobOnIo({
    ...systemIo(),
    step(name) {
      if (name !== 'checkpoint.trigger') return undefined;
      begins = true;
      conditions.changed();
      return new Promise(() => {});
    },
  });
  const running = ends(
    await start('endless', (env) => {
      env.source('in', new Feed<number>({ bounded: false })).sink('out', new Store<number>());
    }).start({ checkpoints: checkpointsIn(folder) }),
  );
  const asked =
    what === 'checkpoint' ? running.checkpoint() : what === 'savepoint' ? running.savepoint(join(folder, 'saved')) : (running as unknown as JobRun).rescale(2);
  const refused = rejection(asked);
  await conditions.until(() => begins);
  await running.cancel();
  expect((await refused).code).toBe('JOB_ENDED');
  expect(await readdir(folder)).not.toContain('saved');
});

it('a region that cannot be built leaves no database open', async () => {
  const folder = await temporaryFolder();
  const directory = join(folder, 'state');
  const failing = job('failing', (env) => {
    env
      .fromArray('in', [1])
      .keyBy(() => 'k')
      .reduce('sum', (a, b) => a + b)
      .timestamps({
        generator: () => {
          throw new Error('no generator today');
        },
      })
      .sink('out', new Store<number>());
  });
  expect((await rejection(failing.start({ state: level({ directory }), restarts: false }))).message).toContain('no generator today');
  expect(await readdir(directory)).toEqual([]);
});

it('closes every region, and lets the registry go, where the state of the first cannot be closed', async () => {
  const folder = await temporaryFolder();
  const inner = memory() as unknown as { readonly kind: string; open(options: object): Promise<{ close(): Promise<void> }> };
  let opened = 0;
  const closed: number[] = [];
  const state = {
    ...inner,
    async open(options: object) {
      const number = ++opened;
      const region = await inner.open(options);
      region.close = async () => {
        closed.push(number);
        if (number === 1) throw new Error('the disk is gone');
      };
      return region;
    },
  };
  const two = job('two', (env) => {
    for (const uid of ['a', 'b']) env.source(`in-${uid}`, new Feed<number>({ bounded: false })).sink(`out-${uid}`, new Store<number>());
  });
  const running = ends(await two.start({ checkpoints: checkpointsIn(folder), state }));
  expect((await rejection(running.stop())).message).toContain('the disk is gone');
  expect(closed.sort()).toEqual([1, 2]);
  await ends(await two.start({ checkpoints: checkpointsIn(folder) })).stop();
});

it('a signal that outlives its jobs does not hold them', async () => {
  const { signal } = new AbortController();
  const feed = new Feed<number>().push([1]).end();
  for (let times = 0; times < 3; times++) await job('short', (env) => void env.source('in', feed).sink('out', new Store<number>())).run({ signal });
  expect(getEventListeners(signal, 'abort')).toEqual([]);
});
