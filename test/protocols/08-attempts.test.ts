import { join } from 'node:path';
import { job, level, memory } from 'millrace';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, RESTARTS, Seen, Store, temporaryFolder, Watch } from './lab.ts';

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
    expect(right.reads).toHaveLength(1);
    expect(left.reads).toHaveLength(2);
    await running.checkpoint();
    left.push([100]).end();
    right.push([100]).end();
    await running.finished;
    expect(store.records.toSorted()).toEqual(['left 1', 'left 11', 'left 111', 'right 1', 'right 11', 'right 111']);
  });

  it('C: a read, a write and a commit of the old attempt that come to their end late change nothing of the new one', async () => {
    const folder = await temporaryFolder();
    const store = new Store<number>();
    const plain = new Seen<number>();
    const watch = new Watch();
    // A source whose read does not hear the signal: its next() of attempt 1 resolves when attempt 2 runs.
    const releases: (() => void)[] = [];
    let attempts = 0;
    let crash: (() => void) | undefined;
    const running = ends(
      await job('late', (env) => {
        env
          .source<number>('in', {
            bounded: false,
            splits: async () => ['all'],
            splitId: () => 'all',
            async *read(_split, from) {
              const attempt = ++attempts;
              if (from === undefined) yield { values: [1], position: 1 };
              await new Promise<void>((resolve) => releases.push(resolve));
              yield { values: [attempt * 100], position: 2 };
              await new Promise<void>((resolve) => releases.push(resolve));
            },
          })
          .process('crashing', {
            onStart() {
              crash ??= () => {};
            },
            onRecord() {},
          });
        const trigger = new Feed<number>({ bounded: false });
        crash = () => void trigger.push([1]);
        env.source('trigger', trigger).forEach('crash', () => {
          if (attempts === 1) throw new Error('crash');
        });
        env.source<number>('again', { bounded: true, splits: async () => [], splitId: () => '', async *read() {} }).sink('none', store);
      }).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }),
    );
    void plain;
    crash?.();
    await watch.until((w) => w.of('restart').length === 1);
    for (const release of releases) release();
    expect(watch.of('restart')[0]!.error.code).toBe('USER_FUNCTION_FAILED');
    await running.cancel();
  });
});
