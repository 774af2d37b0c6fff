import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { job, type RunOptions } from 'millrace';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, RESTARTS, rejection, Store, startWithFaults, temporaryFolder, Watch } from './lab.ts';

const copying = (feed: Feed<number>, store: Store<number>, fuse = { lit: false }) =>
  job('copying', (env) => {
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
  });
/** A sink as program 16 has it: its marker knows the writer, but no lineage. */
function byWriterOnly(store: Store<number>): Store<number> {
  const open = store.open.bind(store);
  store.open = (context) => open({ ...context, lineage: 'any' });
  return store;
}

describe('protocols 5 D, and identities of writers', () => {
  it('a writer that commits its own segment and dies does not take the adopted segments of others for committed', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false, splits: ['a', 'b'] });
    const store = new Store<number>();
    const first = ends(await copying(feed, store).start({ parallelism: 2, checkpoints: checkpointsIn(folder), restarts: false }));
    store.before = () => Promise.reject(new Error('down'));
    await feed.push([1], undefined, 'a').push([2], undefined, 'b').taken();
    await first.checkpoint();
    await rejection(first.finished);
    // At parallelism 1 one task has both: it commits its own and dies.
    let commits = 0;
    store.before = () => {
      commits += 1;
      if (commits > 1) throw new Error('died on the way');
    };
    const second = await copying(feed, store)
      .start({ checkpoints: checkpointsIn(folder), restarts: false })
      .then(
        (running) => rejection(running.finished),
        (error: Error & { code?: string }) => error,
      );
    expect(second.code).toBe('SINK_FAILED');
    expect(store.records).toHaveLength(1);
    store.before = () => {};
    const third = ends(await copying(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await third.stop();
    expect(store.records.toSorted()).toEqual([1, 2]);
    expect(new Set(store.commits.map((c) => c.writer))).toEqual(new Set(['0', '1']));
  });

  for (const [from, to] of [
    [4, 2],
    [2, 4],
    [3, 1],
  ] as const) {
    it(`pending segments keep the identity that wrote them, restored from parallelism ${from} at ${to}`, async () => {
      const folder = await temporaryFolder();
      const feed = new Feed<number>({ bounded: false, splits: ['a', 'b', 'c', 'd'] });
      const store = new Store<number>();
      const first = ends(await copying(feed, store).start({ parallelism: from, checkpoints: checkpointsIn(folder), restarts: false }));
      store.before = () => Promise.reject(new Error('down'));
      for (const [i, split] of ['a', 'b', 'c', 'd'].entries()) feed.push([i], undefined, split);
      await feed.taken();
      await first.checkpoint();
      await rejection(first.finished);
      store.before = () => {};
      store.opened.length = 0;
      const second = ends(await copying(feed, store).start({ parallelism: to, checkpoints: checkpointsIn(folder) }));
      expect(store.records.toSorted()).toEqual([0, 1, 2, 3]);
      const writers = new Set(Array.from({ length: Math.max(from, to) }, (_, i) => String(i)));
      expect(new Set(store.opened.map((o) => o.split('/')[2]))).toEqual(writers);
      expect(store.opened).toHaveLength(writers.size);
      // Adopted identities with nothing left are closed behind a checkpoint, named by no later one, and not opened again.
      store.closed.length = 0;
      await second.checkpoint();
      await store.closes(writers.size - to);
      await second.stop();
      store.opened.length = 0;
      const third = ends(await copying(feed, store).start({ parallelism: to, checkpoints: checkpointsIn(folder) }));
      expect(store.opened).toHaveLength(to);
      await third.stop();
      expect(store.records).toHaveLength(4);
    });
  }

  it('a commit of unknown outcome is not done again: the next attempt asks the store first', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const watch = new Watch();
    let fail = true;
    store.after = () => {
      if (fail) {
        fail = false;
        throw new Error('connection lost');
      }
    };
    const running = ends(await copying(feed, store).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }));
    await feed.push([1]).taken();
    await running.checkpoint();
    await watch.restarted();
    await feed.push([2]).taken();
    await running.stop();
    expect(store.records).toEqual([1, 2]);
    expect(watch.of('restart')[0]?.error).toMatchObject({ code: 'SINK_FAILED', uid: 'out' });
  });
});

describe('protocols 7: checkpoint ids that go back or are reused', () => {
  it('A: a marker that is ahead of the restored checkpoint raises the ids: no interval of output is dropped', async () => {
    for (const restore of ['none', 'older'] as const) {
      const folder = await temporaryFolder();
      const feed = new Feed<number>({ bounded: false });
      const store = byWriterOnly(new Store<number>());
      const options: RunOptions = { checkpoints: checkpointsIn(folder, { retain: 10 }) };
      const first = ends(await copying(feed, store).start(options));
      let old = 0;
      for (let i = 1; i <= 9; i++) {
        await feed.push([i]).taken();
        const { id } = await first.checkpoint();
        if (i === 5) old = id;
        await store.until((r) => r.length === i);
      }
      await first.cancel();
      // With `none` a new directory, too: nothing but the sink knows of the ids.
      const elsewhere = { checkpoints: checkpointsIn(join(folder, 'new')) };
      const second = ends(await copying(feed, store).start(restore === 'none' ? { ...elsewhere, restore: 'none' } : { ...options, restore: { from: old } }));
      const before = store.records.length;
      await feed.push([10]).taken();
      await second.stop();
      expect(store.records.slice(before)).toEqual(restore === 'none' ? [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] : [6, 7, 8, 9, 10]);
    }
  });

  it('ids begin above every marker that a writer reports when it is opened', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    // The marker that the writer is told of at open is behind no id: everything up to it counts as committed.
    const open = store.open.bind(store);
    let told = 0;
    store.open = async (context) => {
      const writer = await open(context);
      return { ...writer, lastCommitted: async () => told };
    };
    const first = ends(await copying(feed, store).start({ checkpoints: checkpointsIn(folder), restarts: false }));
    told = 1_000_000;
    await feed.push([1]).taken();
    await first.checkpoint();
    await store.until((r) => r.length === 1);
    const ids: number[] = [];
    await first.stop();
    const second = ends(await copying(feed, store).start({ checkpoints: checkpointsIn(folder), restarts: false }));
    await feed.push([2]).taken();
    ids.push((await second.checkpoint()).id);
    await second.stop();
    // The runtime asks first, so that it never comes to a reuse: the next id is above what any writer has.
    expect(ids[0]).toBeGreaterThan(1_000_000);
    expect(store.records).toEqual([1, 2]);
  });

  it('B: ids and files of a checkpoint that was triggered and never completed are not used again', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const watch = new Watch();
    const first = ends(
      await startWithFaults(copying(feed, store), 'checkpoint.metadata.written=fail@2', {
        checkpoints: checkpointsIn(folder),
        restarts: false,
        onEvent: watch.onEvent,
      }),
    );
    await feed.push([1]).taken();
    const { id } = await first.checkpoint();
    await feed.push([2]).taken();
    expect((await rejection(first.checkpoint())).code).toBe('CHECKPOINT_FAILED');
    await rejection(first.finished);
    const failed = watch.of('checkpoint-failed')[0]!.id;
    expect(failed).toBeGreaterThan(id);
    const second = ends(await copying(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await feed.taken();
    expect((await second.checkpoint()).id).toBeGreaterThan(failed);
    await second.stop();
    expect(store.records).toEqual([1, 2]);
  });

  it('B: leftovers of older attempts are removed at the next start, whatever a retained checkpoint names stays', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const first = ends(
      await startWithFaults(copying(feed, store), 'checkpoint.metadata.write=fail@2', { checkpoints: checkpointsIn(folder), restarts: false }),
    );
    await feed.push([1]).taken();
    await first.checkpoint();
    await feed.push([2]).taken();
    await rejection(first.checkpoint());
    await rejection(first.finished);
    const files = join(folder, 'checkpoints', 'copying', 'files');
    const before = await readdir(files);
    const second = ends(await copying(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    const after = await readdir(files);
    expect(after.length).toBeLessThan(before.length);
    await second.stop();
    const third = ends(await copying(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await third.stop();
    expect(store.records).toEqual([1, 2]);
  });

  it('attempts and ids only rise over restarts and starts', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const fuse = { lit: false };
    const watch = new Watch();
    for (let start = 0; start < 3; start++) {
      const running = ends(await copying(feed, store, fuse).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }));
      await feed.push([start]).taken();
      await running.checkpoint();
      const before = watch.of('restart').length;
      fuse.lit = true;
      feed.push([start]);
      await watch.until((w) => w.of('restart').length === before + 1 && w.events.at(-1)?.type === 'status');
      await feed.taken();
      await running.stop();
    }
    const ids = watch.of('checkpoint').map((e) => e.checkpoint.id);
    expect(ids).toEqual([...new Set(ids)].toSorted((a, b) => a - b));
    const attempts = store.commits.map((c) => c.attempt);
    expect(attempts).toEqual(attempts.toSorted((a, b) => a - b));
    expect(store.records).toEqual([0, 0, 1, 1, 2, 2]);
  });
});
