import { job } from 'millrace';
import { expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, rejection, Store, temporaryFolder } from '../protocols/lab.ts';

it('a checkpoint that is given up before its barrier has come to a task is not begun there any more, and the next one completes', async () => {
  const folder = await temporaryFolder();
  const feed = new Feed<number>({ bounded: false });
  const store = new Store<number>();
  let answer = (): void => {};
  const asking = job('asking', (env) => {
    env
      .source('in', feed)
      .rebalance()
      // The second record waits for the first one's answer, and the barrier behind it.
      .asyncMap('ask', (v) => (v === 1 ? new Promise<number>((resolve) => (answer = () => resolve(v))) : Promise.resolve(v)), { capacity: 1 })
      .sink('out', store);
  });
  const running = ends(await asking.start({ checkpoints: checkpointsIn(folder, { timeout: 100, tolerate: 9 }) }));
  await feed.push([1]).push([2]).taken();
  expect(await rejection(running.checkpoint())).toMatchObject({ code: 'CHECKPOINT_EXPIRED', message: expect.stringContaining('ask-0') });
  answer();
  // Once the answer is out the barrier has passed, or is about to: the one that completes stands behind it.
  for (;;) {
    const outcome = await running.checkpoint().catch((error: { code?: string }) => error.code);
    if (outcome !== 'CHECKPOINT_EXPIRED') break;
  }
  await store.until((all) => all.length === 2);
  const figures = Object.fromEntries((await running.metrics()).map(({ name, value }) => [name, value]));
  expect(figures['acknowledgementsLate']).toBe(0);
  await running.stop();
  expect(store.records).toEqual([1, 2]);
});
