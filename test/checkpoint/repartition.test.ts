import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { job, process, value } from 'millrace';
import { describe, expect, it } from 'vitest';
import { repartition } from '../../src/checkpoint/repartition.ts';
import { snapshotAt } from '../../src/checkpoint/verification.ts';
import type { JobRun } from '../../src/execution/job-run.ts';
import { checkpointsIn, ends, Feed, rejection, Store, temporaryFolder } from '../protocols/lab.ts';

interface Word {
  readonly key: string;
  readonly n: number;
  readonly at: number;
}
const KEYS = Array.from({ length: 60 }, (_, i) => `key ${i}`);
/** A sum by key, and a timer that tells it. */
const telling = process<string, Word, Word>()({
  state: { sum: value<number>({ default: 0 }) },
  onRecord({ n, at }, ctx) {
    ctx.state.sum.update((sum) => sum + n);
    ctx.timers.event.set(at);
  },
  onTimer({ at }, ctx) {
    ctx.emit({ key: ctx.key, n: ctx.state.sum.get(), at });
  },
});
const program = (feed: Feed<Word>, store: Store<Word>) =>
  job('telling', (env) => {
    env
      .source('in', feed, { timestamp: ({ at }) => at })
      .keyBy(({ key }) => key)
      .process('tell', telling)
      .sink('out', store);
  });
const round = (at: number): Word[] => KEYS.map((key, i) => ({ key, n: i, at }));

describe('a savepoint with another number of key groups', () => {
  it.each([
    [512, 3],
    [4, 4],
    [128, 2],
  ])('%i: every key has what it had, and its timers, at any parallelism', async (groups, parallelism) => {
    const folder = await temporaryFolder();
    const feed = new Feed<Word>({ bounded: false, splits: ['a', 'b'] });
    const run = ends(await program(feed, new Store()).start({ checkpoints: checkpointsIn(folder), parallelism: 4 })) as unknown as JobRun;
    // After rescaling two tasks name files of which each counts for some key groups only.
    for (const n of [4, 3, 2]) {
      feed.push(round(100), undefined, 'a');
      await feed.taken();
      await run.rescale(n);
    }
    await run.stop({ savepoint: join(folder, 'saved') });
    const made = await repartition(await snapshotAt(join(folder, 'saved')), join(folder, 'made'), groups);
    expect(made.path).toBe(join(folder, 'made'));
    const { metadata } = await snapshotAt(made.path);
    expect(metadata.edits).toEqual([{ at: expect.any(Number), what: `repartition: maxParallelism 128 → ${groups}` }]);

    const store = new Store<Word>();
    const start = { checkpoints: { ...checkpointsIn(folder), directory: join(folder, 'b') }, restore: { from: made.path } };
    const after = ends(await program(feed, store).start({ ...start, parallelism })) as unknown as JobRun;
    feed
      .push(round(200), undefined, 'a')
      .push([{ key: 'key 0', n: 0, at: 300 }], undefined, 'b')
      .push([{ key: 'key 0', n: 0, at: 300 }], undefined, 'a');
    feed.end();
    await after.finished;
    const at100 = store.records.filter(({ at }) => at === 100);
    expect(at100).toHaveLength(KEYS.length);
    const at200 = Object.fromEntries(store.records.filter(({ at }) => at === 200).map(({ key, n }) => [key, n]));
    expect(at200).toEqual(Object.fromEntries(KEYS.map((key, i) => [key, 4 * i])));
  });

  it('has at least as many as the snapshot has instances, and leaves nothing behind where it fails', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<Word>({ bounded: false });
    const run = ends(await program(feed, new Store()).start({ checkpoints: checkpointsIn(folder), parallelism: 4 }));
    feed.push(round(1));
    await feed.taken();
    const { path } = await run.savepoint(join(folder, 'saved'));
    await run.cancel();
    const [to, snapshot] = [join(folder, 'made'), await snapshotAt(path)];
    expect(await rejection(repartition(snapshot, to, 3))).toMatchObject({ code: 'MAX_PARALLELISM_CHANGED' });
    expect(await rejection(repartition(snapshot, to, 40_000))).toMatchObject({ code: 'OPTION_INVALID' });
    expect(await rejection(repartition(snapshot, path, 256))).toMatchObject({ code: 'SAVEPOINT_EXISTS' });
    const reading = { ...snapshot, files: Object.create(snapshot.files, { read: { value: () => failing() } }) };
    expect(await rejection(repartition(reading, to, 256))).toMatchObject({ code: 'SAVEPOINT_FAILED' });
    expect(existsSync(to)).toBe(false);
    expect(await readdir(path)).toContain('metadata');
  });
});

// biome-ignore lint/correctness/useYield: it fails before there is anything to give.
async function* failing(): AsyncGenerator<Uint8Array> {
  throw new Error('no disk');
}
