import { cp, readdir, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Level } from 'level';
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

/** Two checkpoints, each with records that are committed. */
async function ran(folder: string, feed: Feed<number>, store: Store<number>): Promise<number> {
  const running = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder) }));
  await feed.push([1]).taken();
  await running.checkpoint();
  await feed.push([10]).taken();
  const { checkpoint } = await running.stop();
  return checkpoint!.id;
}

describe('protocols 4: checkpoints that the registry does not know of any more', () => {
  it('a pointer that was lost: the older checkpoint is refused, since a sink has committed past it', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const id = await ran(folder, feed, store);
    const registry = new Level<string, unknown>(join(checkpointsIn(folder).directory, 'sums', 'registry'), { valueEncoding: 'json' });
    await registry.del(`checkpoint/${String(id).padStart(19, '0')}`);
    await registry.close();
    const error = await rejection(sums(feed, store).run({ checkpoints: checkpointsIn(folder), restarts: false }));
    expect(error).toMatchObject({ code: 'RESTORE_WOULD_DUPLICATE', uid: 'out', retryable: false });
    expect(store.records).toEqual([1, 11]);
  });

  it('a pointer that was lost, of the first checkpoint there was: refused too, since nothing would be begun anew but what was written already', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const running = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push([1]).taken();
    const { checkpoint } = await running.stop();
    const registry = new Level<string, unknown>(join(checkpointsIn(folder).directory, 'sums', 'registry'), { valueEncoding: 'json' });
    await registry.del(`checkpoint/${String(checkpoint!.id).padStart(19, '0')}`);
    await registry.close();
    for (let times = 0; times < 2; times++) {
      const error = await rejection(sums(feed, store).run({ checkpoints: checkpointsIn(folder), restarts: false }));
      expect(error).toMatchObject({
        code: 'RESTORE_WOULD_DUPLICATE',
        uid: 'out',
        retryable: false,
        message: expect.stringContaining('no checkpoint to restore'),
      });
    }
    expect(store.records).toEqual([1]);
  });

  it('a registry that was replaced by an older one is refused, and the sentence names the newest checkpoint', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const registry = join(checkpointsIn(folder).directory, 'sums', 'registry');
    await ran(folder, feed, store);
    await cp(registry, join(folder, 'older'), { recursive: true });
    const id = await ran(folder, feed, store);
    await rm(registry, { recursive: true });
    await rename(join(folder, 'older'), registry);
    const error = await rejection(sums(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    expect(error).toMatchObject({ code: 'CHECKPOINT_DIRECTORY', retryable: false });
    expect(error.message).toMatch(new RegExp(`older than what lies beside it.*chk-${id}-a2`));
    const [, newest] = /--restore (\S+)\)/.exec(error.message)!;
    const again = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder), restore: { from: newest! } }));
    await feed.push([100]).taken();
    await again.stop();
    expect(store.records).toEqual([1, 11, 12, 22, 122]);
  });

  it('a registry that was lost: nothing begins anew beside the checkpoints, and the sentence names the newest', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const id = await ran(folder, feed, store);
    await rm(join(checkpointsIn(folder).directory, 'sums', 'registry'), { recursive: true });
    const error = await rejection(sums(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    expect(error.code).toBe('CHECKPOINT_DIRECTORY');
    expect(error.message).toContain(`chk-${id}-a`);
    expect(store.records).toEqual([1, 11]);
  });

  // LevelDB says of each another thing.
  it.each([
    ['a manifest that is garbage', (name: string) => name.startsWith('MANIFEST-'), (path: string) => writeFile(path, 'garbage, and more of it than a header')],
    ['a manifest that is gone', (name: string) => name.startsWith('MANIFEST-'), (path: string) => rm(path)],
    ['a pointer to the manifest that is gone', (name: string) => name === 'CURRENT', (path: string) => rm(path)],
    ['a pointer to the manifest that is cut off', (name: string) => name === 'CURRENT', (path: string) => truncate(path, 3)],
  ])('a registry that is damaged, %s: the sentence says how to go on, and that loses and repeats nothing', async (_, damaged, damage) => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const out = join(folder, 'out');
    const copy = job('copy', (env) => void env.source('in', feed).sink('out', files.sink({ directory: out })));
    for (const n of [1, 2]) {
      const running = ends(await copy.start({ checkpoints: checkpointsIn(folder) }));
      await feed.push([n]).taken();
      await running.stop();
    }
    const registry = join(checkpointsIn(folder).directory, 'copy', 'registry');
    for (const name of await readdir(registry)) if (damaged(name)) await damage(join(registry, name));
    const error = await rejection(copy.start({ checkpoints: checkpointsIn(folder) }));
    expect(error).toMatchObject({ code: 'CHECKPOINT_DIRECTORY', retryable: false, message: expect.stringContaining(`Move ${registry} away, keep the rest`) });
    const [, newest] = /--restore (\S+)/.exec(error.message)!;
    await rename(registry, `${registry}-damaged`);
    const again = ends(await copy.start({ checkpoints: checkpointsIn(folder), restore: { from: newest! } }));
    await feed.push([3]).taken();
    await again.stop();
    expect((await published<number>(out)).toSorted()).toEqual([1, 2, 3]);
  });

  it('a checkpoint that is restored into another directory after many starts: its writers are fenced by a larger attempt, and every record is there once', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const out = join(folder, 'out');
    const copy = job('copy', (env) => void env.source('in', feed).sink('out', files.sink({ directory: out })));
    let path = '';
    for (const n of [1, 2, 3]) {
      const running = ends(await copy.start({ checkpoints: checkpointsIn(folder) }));
      await feed.push([n]).taken();
      path = (await running.stop()).checkpoint!.path;
    }
    const elsewhere = ends(await copy.start({ checkpoints: { directory: join(folder, 'elsewhere') }, restore: { from: path } }));
    await feed.push([4]).taken();
    await elsewhere.stop();
    expect((await published<number>(out)).toSorted()).toEqual([1, 2, 3, 4]);
  });

  it('is refused where the run has no checkpoints of its own: it would begin anew in silence', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    await ran(folder, feed, store);
    const error = await rejection(sums(feed, store).start({ checkpoints: false, restore: { from: 1 } }));
    expect(error).toMatchObject({ code: 'CHECKPOINTS_OFF', retryable: false });
  });
});
