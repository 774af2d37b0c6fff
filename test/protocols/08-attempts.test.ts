import { join } from 'node:path';
import { job, level, memory } from 'millrace';
import { describe, expect, it, vi } from 'vitest';
import { checkpointsIn, ends, Feed, RESTARTS, Store, temporaryFolder, Watch } from './lab.ts';

describe('protocols 8: the old attempt is still alive in the same thread and in the same database', () => {
  for (const kind of ['memory', 'level'] as const) {
    it(`A, B: ${kind}(): rows written after the checkpoint do not survive the restore, neither new nor changed ones`, async () => {
      const folder = await temporaryFolder();
      const feed = new Feed<string>();
      const store = new Store<string>();
      const watch = new Watch();
      let crashed = false;
      const running = ends(
        await job('counting', (env) => {
          env
            .source('in', feed)
            .keyBy((v) => (crashed && v === 'new' ? 'other' : v))
            .aggregate('counts', { create: () => 0, add: (n: number) => n + 1, result: (n: number) => n })
            .map(({ key, value }) => {
              if (key === 'crash' && !crashed) {
                crashed = true;
                throw new Error('crash');
              }
              return `${key} ${value}`;
            })
            .sink('out', store);
        }).start({
          state: kind === 'memory' ? memory() : level({ directory: join(folder, 'state'), cacheBytes: 1 }),
          checkpoints: checkpointsIn(folder),
          restarts: RESTARTS,
          onEvent: watch.onEvent,
        }),
      );
      await feed.push(['old', 'old']).taken();
      await running.checkpoint();
      feed.push(['old', 'new', 'new', 'crash']);
      await watch.restarted();
      await feed.taken();
      // The stale rows would be met by these.
      crashed = true;
      feed.push(['old', 'crash']).end();
      await running.finished;
      expect(store.records).toEqual(['old 1', 'old 2', 'old 3', 'other 1', 'other 2', 'crash 1', 'old 4', 'crash 2']);
    });
  }

  it('B: one region restarts from the checkpoint while another goes on', async () => {
    const folder = await temporaryFolder();
    const [left, right] = [new Feed<number>(), new Feed<number>()];
    const store = new Store<string>();
    const watch = new Watch();
    const fuse = { lit: false };
    const running = ends(
      await job('regions', (env) => {
        for (const [name, feed] of [
          ['left', left],
          ['right', right],
        ] as const)
          env
            .source(name, feed)
            .keyBy(() => 'k')
            .reduce(`${name}-sum`, (a, b) => a + b)
            .map((v) => {
              if (name === 'left' && fuse.lit) {
                fuse.lit = false;
                throw new Error('crash');
              }
              return `${name} ${v}`;
            })
            .sink(`${name}-out`, store);
      }).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }),
    );
    await left.push([1]).taken();
    await right.push([1]).taken();
    await running.checkpoint();
    await right.push([10]).taken();
    fuse.lit = true;
    left.push([10]);
    await watch.restarted();
    await vi.waitFor(() => expect(left.reads).toHaveLength(2));
    expect(right.reads).toHaveLength(1);
    await running.checkpoint();
    left.push([100]).end();
    right.push([100]).end();
    await running.finished;
    expect(store.records.toSorted()).toEqual(['left 1', 'left 11', 'left 111', 'right 1', 'right 11', 'right 111']);
  });

  it('C: a read of the old attempt that comes to its end late gives nothing to the new one', async () => {
    const store = new Store<number>();
    const watch = new Watch();
    const trigger = new Feed<number>();
    const releases: (() => void)[] = [];
    const running = ends(
      await job('late', (env) => {
        env
          .source<number>('in', {
            bounded: true,
            splits: async () => ['all'],
            splitId: () => 'all',
            // It does not hear the signal.
            async *read() {
              const attempt = releases.length + 1;
              await new Promise<void>((resolve) => releases.push(resolve));
              yield { values: [attempt * 100], position: 1 };
            },
          })
          .union(env.source('trigger', trigger))
          .map((v) => {
            if (v === -1 && releases.length === 1) throw new Error('crash');
            return v;
          })
          .sink('out', store);
      }).start({ restarts: RESTARTS, onEvent: watch.onEvent }),
    );
    trigger.push([-1]).end();
    await watch.restarted();
    while (releases.length < 2) await new Promise((resolve) => setImmediate(resolve));
    releases[0]!();
    await new Promise((resolve) => setImmediate(resolve));
    releases[1]!();
    await running.finished;
    expect(store.records.toSorted((a, b) => a - b)).toEqual([-1, 200]);
  });

  it('C: a commit of the old attempt that hangs is waited for a while; what it does afterwards is fenced', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>();
    const store = new Store<number>();
    const watch = new Watch();
    const fuse = { lit: false };
    let release!: () => void;
    let begun!: () => void;
    const hanging = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    let late: Promise<void> | undefined;
    store.before = ({ attempt }) => {
      if (attempt > 1) return;
      begun();
      late = released;
      return released;
    };
    const running = ends(
      await job('late', (env) => {
        env
          .source('in', feed)
          .map((v) => {
            if (fuse.lit) {
              fuse.lit = false;
              throw new Error('crash');
            }
            return v;
          })
          .sink('out', store);
      }).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }),
    );
    await feed.push([1]).taken();
    await running.checkpoint();
    await hanging;
    fuse.lit = true;
    feed.push([2]);
    await watch.restarted();
    expect(store.records).toEqual([1]);
    release();
    await late;
    feed.push([3]).end();
    await running.finished;
    expect(store.records).toEqual([1, 2, 3]);
    expect(store.commits.every((c) => c.attempt > 1)).toBe(true);
  });
});
