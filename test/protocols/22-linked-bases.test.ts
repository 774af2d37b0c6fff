import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { job, level, memory, type RunningJob, type RunOptions, value } from 'millrace';
import { describe, expect, it } from 'vitest';
import { filesNamed, readMetadata } from '../../src/checkpoint/metadata.ts';
import { MillraceError } from '../../src/errors.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { DirectoryStorage } from '../../src/storage/directory.ts';
import { filesOfBase, type LevelBaseRef } from '../../state-backends/index.ts';
import { kept } from '../e2e/kept.ts';
import { checkpointsIn, ends, Feed, jobOn, RESTARTS, Store, temporaryFolder, Watch } from './lab.ts';

interface Word {
  readonly key: string;
  readonly n: number;
}
type Result = readonly [uid: string, key: string, sum: number];

/** Two operators of one region, and timers that wait for long. */
const program = (feed: Feed<Word>, store: Store<Result>, of = job) =>
  of('linked', (env) => {
    const words = env.source('in', feed).keyBy(({ key }) => key);
    words
      .aggregate('sums', { create: () => 0, add: (sum: number, { n }: Word) => sum + n, result: (sum) => sum })
      .map(({ key, value: sum }): Result => ['sums', key, sum])
      .sink('out', store);
    words
      .process<Result, { seen: ReturnType<typeof value<{ count: number }>> }>('seen', {
        state: { seen: value<{ count: number }>() },
        onRecord({ key }, ctx) {
          const seen = ctx.state.seen.get() ?? { count: 0 };
          seen.count += 1;
          ctx.state.seen.set(seen);
          ctx.timers.processing.set(9_000_000_000_000 + seen.count);
          ctx.emit(['seen', key, seen.count]);
        },
      })
      .sink('out-seen', store);
  });

const disk = new DirectoryStorage('.', systemIo());
const KEYS = Array.from({ length: 50 }, (_, i) => `key ${i}`);
const round = (n: number, some = KEYS): Word[] => some.map((key) => ({ key, n }));
const tiny = (folder: string) => level({ directory: join(folder, 'state'), cacheBytes: 1 });
/** The newest result of each key. */
const newest = (store: Store<Result>): Record<string, number> => Object.fromEntries(store.records.map(([uid, key, sum]) => [`${uid} ${key}`, sum]));

async function metadataOf(running: RunningJob) {
  const { path } = (await running.checkpoints()).at(-1)!;
  return readMetadata(disk, path);
}

async function linkedIn(running: RunningJob): Promise<LevelBaseRef[]> {
  const { tasks } = await metadataOf(running);
  return tasks.flatMap(({ keyed }) => keyed?.handle.bases.filter((base): base is LevelBaseRef => base.kind === 'leveldb') ?? []);
}

/** Checkpoints, with something changed for each, until every task has another base. */
async function untilLinked(running: RunningJob, feed: Feed<Word>, tasks: number, not?: string): Promise<number> {
  for (let n = 1; ; n++) {
    await feed.push(round(1, KEYS.slice(n % 7, (n % 7) + 10))).taken();
    await running.checkpoint();
    const bases = await linkedIn(running);
    if (bases.length === tasks && bases.every(({ file }) => file.name !== not)) return n;
    expect(n).toBeLessThan(200);
  }
}

describe('protocols 1 and 22: bases by hard link', () => {
  it('one serves all tasks of a region; its tables are stored once, shared by the checkpoints that name them, and go with the last one', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [new Feed<Word>({ bounded: false }), new Store<Result>()];
    const running = ends(await program(feed, store).start({ state: tiny(folder), parallelism: 2, checkpoints: checkpointsIn(folder, { retain: 2 }) }));
    await feed.push(round(1)).taken();
    await untilLinked(running, feed, 4);
    const first = await linkedIn(running);
    expect(new Set(first.map(({ file }) => file.name)).size).toBe(1);
    expect(new Set(first.map(({ b, n }) => `${b} ${n}`)).size).toBe(1);
    expect(new Set(first.flatMap(({ tables }) => tables.map(({ uid, number }) => `${uid} ${number}`))).size).toBeGreaterThan(2);
    for (const { tables } of first) expect(new Set(tables.map(({ uid }) => uid)).size).toBe(1);
    // What is stored is what retained checkpoints name; a later base names what is the same by the same name.
    await untilLinked(running, feed, 4, first[0]!.file.name);
    const second = await linkedIn(running);
    const names = (refs: readonly LevelBaseRef[]): string[] => [...new Set(refs.flatMap(filesOfBase).map(({ name }) => name))];
    for (const name of names(second)) expect(name).toMatch(/^linked-0-[0-9a-z]+-m?\d+-[0-9a-f]{8}-a1$/);
    expect(names(second).filter((name) => names(first).includes(name)).length).toBeGreaterThan(0);
    for (let i = 0; i < 3; i++) {
      await feed.push(round(1)).taken();
      await running.checkpoint();
    }
    await running.stop();
    expect(await kept(join(folder, 'checkpoints', 'linked'), 2)).toEqual([]);
    expect(await readdir(join(folder, 'state'))).toEqual([]);
  });

  it('it restores into level() and memory(), at other parallelisms, also where a task has several of them', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [new Feed<Word>({ bounded: false }), new Store<Result>()];
    const options = (parallelism: number, state = tiny(folder)): RunOptions => ({ state, parallelism, checkpoints: checkpointsIn(folder) });
    let running = ends(await program(feed, store).start(options(2)));
    await feed.push(round(1)).taken();
    await untilLinked(running, feed, 4);
    await feed.push(round(1, KEYS.slice(3))).taken();
    await running.stop();
    for (const [parallelism, state] of [
      [3, undefined],
      [1, memory()],
      [2, undefined],
    ] as const) {
      const before = newest(store);
      running = ends(await program(feed, store).start(options(parallelism, state)));
      await feed.push(round(5)).taken();
      if (state === undefined) await untilLinked(running, feed, parallelism * 2);
      await feed.push(round(1)).taken();
      await running.stop();
      const added = new Map(KEYS.map((key) => [key, 0]));
      for (const [uid, key] of store.records) if (uid === 'seen') added.set(key, added.get(key)! + 1);
      for (const key of KEYS) {
        expect(newest(store)[`seen ${key}`]).toBe(added.get(key));
        expect(newest(store)[`sums ${key}`]! - before[`sums ${key}`]!).toBe(newest(store)[`seen ${key}`]! - before[`seen ${key}`]! + 4);
      }
    }
    expect(await kept(join(folder, 'checkpoints', 'linked'))).toEqual([]);
  });

  it('a savepoint has the rows of it and none of its files: memory() takes it over, and another directory', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [new Feed<Word>({ bounded: false }), new Store<Result>()];
    let running = ends(await program(feed, store).start({ state: tiny(folder), parallelism: 2, checkpoints: checkpointsIn(folder) }));
    await feed.push(round(1)).taken();
    const batches = 1 + (await untilLinked(running, feed, 4));
    const { path } = await running.savepoint(join(folder, 'saved'));
    const checkpoint = (await running.checkpoints()).at(-1)!;
    await running.stop();
    const { tasks } = await readMetadata(disk, join(path, 'metadata'));
    expect(tasks.flatMap(({ keyed }) => keyed?.handle.bases.map(({ kind }) => kind) ?? [])).toEqual(['rows', 'rows', 'rows', 'rows']);
    const before = newest(store);
    // A checkpoint of another directory keeps its tables.
    for (const [index, from] of [path, checkpoint.path].entries()) {
      const elsewhere = join(folder, `elsewhere-${index}`);
      const again = new Store<Result>();
      const feedAgain = new Feed<Word>({ bounded: false });
      // In the place of what it has read by then.
      for (let i = 0; i < batches; i++) feedAgain.push([]);
      running = ends(await program(feedAgain, again).start({ state: memory(), parallelism: 3, checkpoints: checkpointsIn(elsewhere), restore: { from } }));
      await feedAgain.push(round(1)).taken();
      await running.stop();
      expect(newest(again)).toEqual(Object.fromEntries(Object.entries(before).map(([key, sum]) => [key, sum + 1])));
    }
  });

  it('where links fail again and again the tasks sweep, each for itself, and nothing is lost or left', async () => {
    const folder = await temporaryFolder();
    const [feed, store, watch] = [new Feed<Word>({ bounded: false }), new Store<Result>(), new Watch()];
    let failed = 0;
    const of = jobOn((name) => {
      if (name !== 'base.made') return undefined;
      failed += 1;
      return Promise.reject(new MillraceError('FAULT_INJECTED', 'The tables cannot be stored.'));
    });
    const options: RunOptions = { state: tiny(folder), checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent };
    let running = ends(await program(feed, store, of).start(options));
    await feed.push(round(1)).taken();
    let swept = 0;
    for (let n = 0; swept < 2; n++) {
      await feed.push(round(1, KEYS.slice(0, 5))).taken();
      await running.checkpoint();
      const { tasks } = await metadataOf(running);
      swept = tasks.flatMap(({ keyed }) => keyed?.handle.bases.filter(({ kind }) => kind === 'rows') ?? []).length;
      expect(n).toBeLessThan(200);
    }
    expect(failed).toBe(2);
    expect(filesNamed(await metadataOf(running)).some(({ name }) => name.startsWith('linked-'))).toBe(false);
    expect(watch.of('checkpoint-failed')).toEqual([]);
    await running.stop();
    expect(await kept(join(folder, 'checkpoints', 'linked'))).toEqual([]);
    const before = newest(store);
    running = ends(await program(feed, store).start(options));
    await feed.push(round(1)).taken();
    await running.stop();
    expect(newest(store)).toEqual(Object.fromEntries(Object.entries(before).map(([key, sum]) => [key, sum + 1])));
  });
});
