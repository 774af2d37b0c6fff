import { expect, it } from 'vitest';
import { Threads } from '../../src/cluster/threads.ts';
import type { PartOptions } from '../../src/execution/region-part.ts';
import { SILENT } from '../../src/graph/context.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { rejection } from '../protocols/lab.ts';

/** Of a region without tasks: its parts are none, but threads are started for them. */
const NO_TASKS = {
  graph: { vertices: [], defaults: { parallelism: 1 }, plan: { hash: '' } },
  number: 0,
  lastCheckpoint: () => undefined,
} as unknown as PartOptions;
const counters = (of: number): Int32Array => new Int32Array(new SharedArrayBuffer(4 * of));

function threads(fails: number) {
  const [started, joined] = [counters(3), counters(9)];
  const io = systemIo();
  const timers = new Set<unknown>();
  const clock = {
    ...io.clock,
    setTimeout(fn: () => void, ms: number) {
      const timer = io.clock.setTimeout(() => {
        timers.delete(timer);
        fn();
      }, ms);
      timers.add(timer);
      return timer;
    },
    clearTimeout(timer: unknown) {
      timers.delete(timer);
      io.clock.clearTimeout(timer);
    },
  };
  const all = new Threads({
    count: 3,
    entry: new URL('./starting-thread.mjs', import.meta.url),
    data: { fails, started, joined },
    io: { ...io, clock },
    log: SILENT,
  });
  return { all, started, joined, timers };
}

it('threads that were there before another one failed to start are linked with each other too', async () => {
  const { all, started, joined } = threads(1);
  await rejection(all.parts(NO_TASKS));
  await all.parts(NO_TASKS);
  expect([...started]).toEqual([1, 2, 1]);
  expect([...joined]).toEqual([0, 1, 1, 1, 0, 1, 1, 1, 0]);
  await all.close();
});

it('threads that are closed while they start leave no timer behind', async () => {
  const { all, timers } = threads(-1);
  const starting = all.parts(NO_TASKS).catch(() => {});
  await all.close();
  await starting;
  expect(timers.size).toBe(0);
});
