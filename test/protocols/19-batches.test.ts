import { job, type RunningJob, type Source, sum, tumbling } from 'millrace';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, RESTARTS, Store, temporaryFolder, Watch } from './lab.ts';

/** So many that a checkpoint asked for at the 3,000th comes in the middle. */
const COUNT = 300_000;

describe('protocols 19: source: a position for a whole batch, a barrier in the middle of it', () => {
  for (const parallelism of [1, 3]) {
    it(`the rest of a half-emitted batch is in the snapshot and comes first after a restore, at parallelism ${parallelism}`, async () => {
      const folder = await temporaryFolder();
      const feed = new Feed<number>();
      const store = new Store<number>();
      const watch = new Watch();
      let running: RunningJob | undefined;
      let taken: Promise<unknown> | undefined;
      const build = job('batches', (env) => {
        env
          .source('in', feed)
          .parallelism(1)
          .map((v) => {
            if (v === 3000) taken ??= running!.checkpoint();
            return v;
          })
          .rebalance()
          .sink('out', store);
      });
      running = ends(await build.start({ parallelism, checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }));
      feed.push(Array.from({ length: COUNT }, (_, i) => i));
      await feed.taken();
      await taken;
      await store.until((r) => r.length > 0);
      const before = store.records.length;
      expect(before).toBeGreaterThan(3000);
      expect(before).toBeLessThan(COUNT);
      // Ends without another checkpoint, as by a crash.
      await running.cancel();
      const next = ends(await build.start({ parallelism, checkpoints: checkpointsIn(folder), restore: { from: 1 } }));
      feed.push([COUNT]).end();
      await next.finished;
      expect(feed.reads.map((r) => r.from)).toEqual([undefined, 1]);
      expect(store.records.toSorted((a, b) => a - b)).toEqual(Array.from({ length: COUNT + 1 }, (_, i) => i));
    });
  }

  it('the rest keeps its timestamps, and the watermark of its batch comes behind it', async () => {
    const folder = await temporaryFolder();
    const store = new Store<string>();
    const feed = new Feed<number>();
    let running: RunningJob | undefined;
    let taken: Promise<unknown> | undefined;
    const build = job('stamped', (env) => {
      const windows = env
        .source('in', feed, {})
        .map((v) => {
          if (v === 1000) taken ??= running!.checkpoint();
          return v;
        })
        .keyBy(() => 'k')
        .window(tumbling(1000))
        .aggregate(
          'sums',
          sum(() => 1),
        );
      windows.map((w) => `${w.start}: ${w.value}`).sink('out', store);
      windows
        .late()
        .map((v) => `late ${v}`)
        .sink('late', store);
    });
    running = ends(await build.start({ checkpoints: checkpointsIn(folder) }));
    const values = Array.from({ length: 5000 }, (_, i) => i);
    // Time runs backwards in the batch: a watermark in the middle of it would make its rest late.
    await feed
      .push(
        values,
        values.map((v) => 5000 - v),
      )
      .taken();
    await taken;
    await running.cancel();
    const next = ends(await build.start({ checkpoints: checkpointsIn(folder), restore: { from: 1 } }));
    feed.end();
    await next.finished;
    expect(store.records.toSorted()).toEqual(['0: 999', '1000: 1000', '2000: 1000', '3000: 1000', '4000: 1000', '5000: 1']);
  });

  it('barriers pass while a read is pending, and while the source waits for credit', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    let release!: () => void;
    const blocked = new Promise<void>((resolve) => {
      release = resolve;
    });
    let began!: () => void;
    const writing = new Promise<void>((resolve) => {
      began = resolve;
    });
    const running = ends(
      await job('credit', (env) => {
        const input = env.source('in', feed);
        input.rebalance().forEach('slow', async () => {
          began();
          await blocked;
        });
        input.sink('out', store);
      }).start({ checkpoints: checkpointsIn(folder) }),
    );
    await running.checkpoint();
    for (let i = 0; i < 40; i++) feed.push(Array.from({ length: 1000 }, (_, k) => i * 1000 + k));
    await writing;
    const taken = running.checkpoint();
    release();
    await taken;
    await feed.taken();
    await running.stop();
    expect(store.records.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 40_000 }, (_, i) => i));
  });

  it('a split that is found while the job runs is read from its beginning, also by a restored job', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<string>({ splits: ['a'], open: true });
    const store = new Store<string>();
    const build = job('found', (env) => void env.source('in', feed).sink('out', store));
    const first = ends(await build.start({ parallelism: 2, checkpoints: checkpointsIn(folder) }));
    await feed.push(['a1'], undefined, 'a').taken();
    await feed.addSplit('b').push(['b1'], undefined, 'b').taken();
    await first.stop();
    feed.addSplit('c').push(['c1'], undefined, 'c');
    const second = ends(await build.start({ parallelism: 2, checkpoints: checkpointsIn(folder) }));
    await feed.push(['b2'], undefined, 'b').taken();
    feed.end();
    await second.finished;
    expect(feed.reads.find((r) => r.split === 'c')?.from).toBeUndefined();
    expect(store.records.toSorted()).toEqual(['a1', 'b1', 'b2', 'c1']);
  });

  it('a batch without records moves the position', async () => {
    const folder = await temporaryFolder();
    const from: unknown[] = [];
    let reached!: () => void;
    const empty = new Promise<void>((resolve) => {
      reached = resolve;
    });
    const source: Source<number, string, number> = {
      bounded: false,
      splits: async () => ['all'],
      splitId: () => 'all',
      async *read(_split, position, { signal }) {
        from.push(position);
        if (position === undefined) {
          yield { values: [1], position: 1 };
          yield { values: [], position: 7 };
        }
        reached();
        await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
      },
    };
    const build = job('empty', (env) => void env.source('in', source).sink('out', new Store()));
    const first = ends(await build.start({ checkpoints: checkpointsIn(folder) }));
    await empty;
    await first.stop();
    const second = ends(await build.start({ checkpoints: checkpointsIn(folder) }));
    await second.checkpoint();
    await second.stop();
    expect(from).toEqual([undefined, 7]);
  });
});
