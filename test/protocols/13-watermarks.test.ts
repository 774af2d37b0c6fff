import { job, type RunOptions, sum, tumbling, type Windowed } from 'millrace';
import { describe, expect, it, vi } from 'vitest';
import { checkpointsIn, ends, Feed, RESTARTS, Store, temporaryFolder, Watch } from './lab.ts';

type Out = Windowed<string, number> | { late: number };

/** Sums in windows of 1 s; `fuse.lit` makes the next record fail, so that the region restarts. */
function windows(feed: Feed<number>, store: Store<Out>, fuse = { lit: false }) {
  return job('windows', (env) => {
    const results = env
      .source('in', feed, { timestamp: (v) => v })
      .map((v) => {
        if (fuse.lit) {
          fuse.lit = false;
          throw new Error('crash');
        }
        return v;
      })
      .keyBy(() => 'k')
      .window(tumbling(1000))
      .aggregate(
        'sums',
        sum((v) => v),
      );
    results.sink('out', store as Store<Windowed<string, number>>);
    results
      .late()
      .map((v) => ({ late: v }))
      .sink('late', store as Store<{ late: number }>);
  });
}
const sums = (store: Store<Out>): [number, number][] => store.records.flatMap((r) => ('late' in r ? [] : [[r.start, r.value] as [number, number]]));
const late = (store: Store<Out>): number[] => store.records.flatMap((r) => ('late' in r ? [r.late] : []));

describe('protocols 13: watermark −∞ after restore: late records come back to life and windows fire twice', () => {
  for (const [from, to] of [
    [1, 1],
    [1, 2],
    [2, 1],
  ] as const) {
    it(`a record that was late before the crash is late after it, restored from parallelism ${from} at ${to}`, async () => {
      const folder = await temporaryFolder();
      const feed = new Feed<number>();
      const store = new Store<Out>();
      const options = (parallelism: number): RunOptions => ({ parallelism, checkpoints: checkpointsIn(folder) });
      const first = ends(await windows(feed, store).start(options(from)));
      feed.push([100, 200, 3000]);
      await feed.taken();
      await first.checkpoint();
      await store.until((r) => r.length === 1);
      await first.stop();
      const second = ends(await windows(feed, store).start(options(to)));
      feed.push([150]).push([5000]).end();
      await second.finished;
      expect(sums(store)).toEqual([
        [0, 300],
        [3000, 3000],
        [5000, 5000],
      ]);
      expect(late(store)).toEqual([150]);
    });
  }

  it('splits that are dealt out anew take their own watermark along, not that of the instance they come to', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ splits: ['a'], open: true });
    const store = new Store<Out>();
    const fuse = { lit: false };
    const watch = new Watch();
    const running = ends(
      await windows(feed, store, fuse).start({ parallelism: 2, checkpoints: checkpointsIn(folder), onEvent: watch.onEvent, restarts: RESTARTS }),
    );
    // Found in this order they are dealt out a→0, c→1, b→0; in the order of their names a→0, b→1, c→0.
    await feed.push([10], undefined, 'a').taken();
    await feed.addSplit('c').push([5000], undefined, 'c').taken();
    await feed.addSplit('b').push([20], undefined, 'b').taken();
    await running.checkpoint();
    fuse.lit = true;
    feed.push([30], undefined, 'a');
    await watch.restarted();
    await vi.waitFor(() => expect(feed.reads.slice(-3).map(({ split, subtask }) => `${split}→${subtask}`)).toEqual(['a→0', 'c→0', 'b→1']));
    await feed.push([9000], undefined, 'a').taken();
    await feed.push([9000], undefined, 'c').taken();
    await feed.push([25], undefined, 'b').taken();
    feed.end();
    await running.finished;
    expect(late(store)).toEqual([]);
    expect(sums(store)).toEqual([
      [0, 85],
      [5000, 5000],
      [9000, 18_000],
    ]);
  });

  it('a bounded source gives watermarks once a batch: what is late does not depend on the clock', async () => {
    const runs = await Promise.all(
      Array.from({ length: 3 }, async () => {
        const store = new Store<Out>();
        const feed = new Feed<number>().push([100, 2500, 150]).push([200, 2600]).push([2700, 300]).end();
        await windows(feed, store).run();
        return [sums(store), late(store)];
      }),
    );
    for (const run of runs) {
      expect(run).toEqual([
        [
          [0, 250],
          [2000, 7800],
        ],
        [200, 300],
      ]);
    }
  });
});
