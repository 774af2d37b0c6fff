import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { job } from 'millrace';
import { files } from 'millrace/connectors';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, rejection, Store, temporaryFolder } from './lab.ts';
import { published } from './processes.ts';

const sums = (feed: Feed<number>, store: Store<number>) =>
  job('sums', (env) => {
    env
      .source('in', feed)
      .keyBy(() => 'all')
      .reduce('sum', (l, r) => l + r)
      .sink('out', store);
  });
const elsewhere = (folder: string, name: string) => ({ ...checkpointsIn(folder), directory: join(folder, name) });

describe('protocols 7: ids after a savepoint was restored elsewhere', () => {
  it('output is committed behind a marker that is ahead of the savepoint', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [new Feed<number>({ bounded: false }), new Store<number>()];
    const running = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push([1]).taken();
    await running.savepoint(join(folder, 'saved'));
    for (const n of [10, 100, 1000]) {
      await feed.push([n]).taken();
      await running.checkpoint();
    }
    await running.stop();
    expect(store.records).toEqual([1, 11, 111, 1111]);
    const ids = store.commits.map(({ checkpoint }) => checkpoint);
    // A directory of its own knows nothing of ids 2 to 5; the sink of the same store has them as markers.
    const fork = ends(await sums(feed, store).start({ checkpoints: elsewhere(folder, 'b'), restore: { from: join(folder, 'saved') } }));
    await feed.taken();
    await fork.checkpoint();
    await feed.push([10_000]).taken();
    await fork.stop();
    // The records of the savepoint were committed by then, under the identity that wrote them: not again. What comes after it is the fork's, again.
    expect(store.records).toEqual([1, 11, 111, 1111, 11, 111, 1111, 11_111]);
    const later = store.commits.slice(ids.length);
    expect(new Set(later.map(({ lineage }) => lineage)).size).toBe(1);
    expect(later[0]!.lineage).not.toBe(store.commits[0]!.lineage);
    for (const { checkpoint } of later) expect(checkpoint).toBeGreaterThan(Math.max(...ids));
  });

  it('what the savepoint held of a sink is committed by whoever restores it first, and never twice', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [new Feed<number>({ bounded: false }), new Store<number>()];
    const running = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push([1]).taken();
    await running.savepoint(join(folder, 'saved'));
    await running.cancel();
    expect(store.records).toEqual([]);
    for (const name of ['b', 'c']) {
      const fork = ends(await sums(feed, store).start({ checkpoints: elsewhere(folder, name), restore: { from: join(folder, 'saved') } }));
      await fork.stop();
    }
    expect(store.records).toEqual([1]);
  });

  it('a job with the file sink goes on elsewhere, also after the first has been restarted often: its attempts are larger', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const out = join(folder, 'out');
    const copy = job('copy', (env) => void env.source('in', feed).sink('out', files.sink({ directory: out })));
    const first = ends(await copy.start({ checkpoints: checkpointsIn(folder) }));
    await feed.push([1]).taken();
    await first.savepoint(join(folder, 'saved'));
    await first.stop();
    for (const n of [2, 3, 4]) {
      const again = ends(await copy.start({ checkpoints: checkpointsIn(folder) }));
      await feed.push([n]).taken();
      await again.stop();
    }
    await cp(join(folder, 'saved'), join(folder, 'moved'), { recursive: true });
    await rm(checkpointsIn(folder).directory, { recursive: true });
    const fork = ends(await copy.start({ checkpoints: elsewhere(folder, 'b'), restore: { from: join(folder, 'moved') } }));
    await feed.taken();
    await feed.push([5]).taken();
    await fork.stop();
    expect((await published<number>(out)).toSorted()).toEqual([1, 2, 2, 3, 3, 4, 4, 5]);
  });
});

describe('protocols 4: a savepoint that is damaged', () => {
  it('is refused and not replaced by an older checkpoint, and the next start goes on as if nothing had been asked', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [new Feed<number>({ bounded: false }), new Store<number>()];
    const running = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push([1]).taken();
    await running.checkpoint();
    await feed.push([10]).taken();
    await running.stop({ savepoint: join(folder, 'saved') });
    await rm(join(folder, 'saved', 'files'), { recursive: true });
    const error = await rejection(sums(feed, store).start({ checkpoints: checkpointsIn(folder), restore: { from: join(folder, 'saved') } }));
    expect(error).toMatchObject({ code: 'SNAPSHOT_CORRUPT', message: expect.stringContaining(join(folder, 'saved', 'files')) });
    const again = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push([100]).taken();
    await again.stop();
    expect(store.records).toEqual([1, 11, 111]);
  });
});
