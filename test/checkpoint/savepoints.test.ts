import { existsSync } from 'node:fs';
import { cp, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { job, level, list, map, process, type RunOptions, value } from 'millrace';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, jobOn, RESTARTS, rejection, Store, startWithFaults, temporaryFolder, Watch } from '../protocols/lab.ts';

interface Word {
  readonly key: string;
  readonly n: number;
}
interface Told extends Word {
  readonly all: readonly number[];
  readonly of: readonly string[];
}

/** State of three kinds by key. */
const tally = process<string, Word, Told>()({
  state: { sum: value<number>({ default: 0 }), all: list<number>(), of: map<string, number>() },
  onRecord({ n }, ctx) {
    ctx.state.sum.update((sum) => sum + n);
    ctx.state.all.add(n);
    ctx.state.of.set(`of ${n % 3}`, n);
    ctx.emit({ key: ctx.key, n: ctx.state.sum.get(), all: [...ctx.state.all], of: [...ctx.state.of.keys()].sort() });
  },
});

const program = (feed: Feed<Word>, store: Store<Told>, make = job) =>
  make('tallies', (env) => {
    env
      .source('in', feed)
      .keyBy(({ key }) => key)
      .process('tally', tally)
      .sink('out', store);
  });
const KEYS = Array.from({ length: 40 }, (_, i) => `key ${i}`);
const round = (n: number): Word[] => KEYS.map((key, i) => ({ key, n: n + i }));
const unbounded = () => new Feed<Word>({ bounded: false });
/** What the newest result of each key says. */
const newest = (told: readonly Told[]) => Object.fromEntries(told.map((one) => [one.key, one]).sort(([a], [b]) => (a! < b! ? -1 : 1)));
async function contents(folder: string): Promise<Record<string, string>> {
  const names = (await readdir(folder, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  return Object.fromEntries(
    await Promise.all(names.map(async ({ parentPath, name }) => [join(parentPath, name).slice(folder.length), await readFile(join(parentPath, name), 'hex')])),
  );
}

describe('a savepoint', () => {
  it('of a running job is complete in its folder, is no checkpoint, and commits nothing', async () => {
    const folder = await temporaryFolder();
    const [feed, store, watch] = [unbounded(), new Store<Told>(), new Watch()];
    const running = ends(await program(feed, store).start({ checkpoints: checkpointsIn(folder), onEvent: watch.onEvent }));
    await feed.push(round(1)).taken();
    const savepoint = await running.savepoint(join(folder, 'saved'));
    expect(savepoint).toMatchObject({ id: 1, path: join(folder, 'saved'), bytes: expect.any(Number), startedAt: expect.any(Number) });
    expect((await readdir(join(folder, 'saved'))).sort()).toEqual(['files', 'metadata', 'metadata.copy']);
    expect(await running.checkpoints()).toEqual([]);
    expect(watch.of('checkpoint')).toEqual([]);
    expect(store.commits).toEqual([]);
    // Ids are used once, also by savepoints.
    expect((await running.checkpoint()).id).toBe(2);
    await store.until((told) => told.length === KEYS.length);
    expect(await running.stop()).not.toHaveProperty('savepoint');
  });

  it.each([
    ['memory', undefined, 'level', 1, 4],
    ['level', 'level', undefined, 4, 3],
    ['memory', undefined, undefined, 3, 1],
  ] as const)('taken with %s restores into another backend and parallelism, and goes on with the same results', async (_, first, second, from, to) => {
    const folder = await temporaryFolder();
    const backend = (name: 'level' | undefined, place: string): Pick<RunOptions, 'state'> =>
      name === undefined ? {} : { state: level({ directory: join(folder, place) }) };
    const [feed, store] = [unbounded(), new Store<Told>()];
    const before = ends(await program(feed, store).start({ checkpoints: checkpointsIn(folder), parallelism: from, ...backend(first, 'a') }));
    await feed.push(round(1)).push(round(7)).taken();
    await before.checkpoint();
    await feed.push(round(20)).taken();
    await before.savepoint(join(folder, 'saved'));
    await feed.push(round(100)).taken();
    await before.stop();
    const expected = newest(store.records);

    // Another place, where only the folder is.
    await rename(join(folder, 'saved'), join(folder, 'moved'));
    const kept = await contents(join(folder, 'moved'));
    const again = new Store<Told>();
    const fork = ends(
      await program(feed, again).start({
        checkpoints: { ...checkpointsIn(folder), directory: join(folder, 'elsewhere') },
        parallelism: to,
        restore: { from: join(folder, 'moved') },
        ...backend(second, 'b'),
      }),
    );
    expect(fork.restoredFrom?.id).toBe(2);
    await feed.taken();
    await fork.stop();
    expect(newest(again.records)).toEqual(expected);
    expect(await contents(join(folder, 'moved'))).toEqual(kept);
  });

  it('is restored by its metadata file too, and nothing of the job depends on it afterwards', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [unbounded(), new Store<Told>()];
    const before = ends(await program(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push(round(1)).taken();
    await before.savepoint(join(folder, 'saved'));
    await before.cancel();
    const after = ends(
      await program(feed, store).start({ checkpoints: checkpointsIn(folder), restore: { from: join(folder, 'saved', 'metadata') }, restarts: RESTARTS }),
    );
    await rm(join(folder, 'saved'), { recursive: true });
    await feed.push(round(2)).taken();
    await after.checkpoint();
    await after.stop();
    const last = ends(await program(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push(round(3)).taken();
    await last.stop();
    expect(newest(store.records)['key 0']).toMatchObject({ n: 6, all: [1, 2, 3] });
  });

  it('that is claimed goes when the job has a checkpoint of its own, and not before', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [unbounded(), new Store<Told>()];
    const saved = join(folder, 'saved');
    const before = ends(await program(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push(round(1)).taken();
    await before.savepoint(saved);
    await before.cancel();
    await writeFile(join(saved, 'mine.txt'), 'a note');
    const after = ends(await program(feed, store).start({ checkpoints: checkpointsIn(folder), restore: { from: saved, claim: true } }));
    await after.cancel();
    expect((await readdir(saved)).sort()).toEqual(['files', 'metadata', 'metadata.copy', 'mine.txt']);
    const again = ends(await program(feed, store).start({ checkpoints: checkpointsIn(folder), restore: { from: saved, claim: true } }));
    await feed.push(round(2)).taken();
    await again.stop();
    expect(await readdir(saved)).toEqual(['mine.txt']);
    const last = ends(await program(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push(round(3)).taken();
    await last.stop();
    expect(newest(store.records)['key 1']).toMatchObject({ n: 9, all: [2, 3, 4] });
  });

  it('that a job with its claim was killed over while it removed it is removed by the next start', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [unbounded(), new Store<Told>()];
    const saved = join(folder, 'saved');
    const before = ends(await program(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push(round(1)).taken();
    await before.savepoint(saved);
    await before.cancel();
    const failing = await startWithFaults(program(feed, store), 'savepoint.remove=fail*', {
      checkpoints: checkpointsIn(folder),
      restore: { from: saved, claim: true },
    });
    await ends(failing).stop();
    expect(existsSync(saved)).toBe(true);
    await ends(await program(feed, store).start({ checkpoints: checkpointsIn(folder) })).stop();
    expect(existsSync(saved)).toBe(false);
  });

  it('by stop: the sinks commit, and the folder holds what the last checkpoint does', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [unbounded(), new Store<Told>()];
    const running = ends(await program(feed, store).start({ checkpoints: checkpointsIn(folder), parallelism: 2 }));
    await feed.push(round(1)).taken();
    const result = await running.stop({ savepoint: join(folder, 'saved') });
    expect(result).toMatchObject({ status: 'stopped', savepoint: { id: result.checkpoint!.id, path: join(folder, 'saved') } });
    expect(store.records).toHaveLength(KEYS.length);
    // Its own start goes on from the checkpoint; nothing is committed again by either.
    const fork = ends(
      await program(feed, store).start({ checkpoints: { ...checkpointsIn(folder), directory: join(folder, 'b') }, restore: { from: join(folder, 'saved') } }),
    );
    await feed.push([{ key: 'key 0', n: 5 }]).taken();
    await fork.stop();
    expect(store.records).toHaveLength(KEYS.length + 1);
    expect(newest(store.records)['key 0']).toMatchObject({ n: 6, all: [1, 5] });
  });

  it('by stop with drain: windows have fired, and what is restored begins a new time', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [unbounded(), new Store<Told>()];
    const running = ends(await program(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push(round(1)).taken();
    expect(await running.stop({ drain: true, savepoint: join(folder, 'saved') })).toMatchObject({
      status: 'stopped',
      savepoint: { path: join(folder, 'saved') },
    });
  });

  it('that cannot be written by stop leaves a job that has stopped, with its last checkpoint whole', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [unbounded(), new Store<Told>()];
    const running = ends(await startWithFaults(program(feed, store), 'savepoint.metadata=fail', { checkpoints: checkpointsIn(folder) }));
    await feed.push(round(1)).taken();
    const error = await rejection(running.stop({ savepoint: join(folder, 'saved') }));
    expect(error).toMatchObject({ code: 'SAVEPOINT_FAILED', message: expect.stringMatching(/has stopped behind checkpoint 1/) });
    expect(existsSync(join(folder, 'saved'))).toBe(false);
    expect(await running.finished).toMatchObject({ status: 'stopped', checkpoint: { id: 1 } });
    expect(store.records).toHaveLength(KEYS.length);
  });

  it.each(['savepoint.file', 'savepoint.metadata', 'checkpoint.metadata.copy'])(
    'that fails at %s costs nothing else, leaves nothing behind, and can be tried again',
    async (step) => {
      const folder = await temporaryFolder();
      const [feed, store, watch] = [unbounded(), new Store<Told>(), new Watch()];
      const running = ends(await startWithFaults(program(feed, store), `${step}=fail`, { checkpoints: checkpointsIn(folder), onEvent: watch.onEvent }));
      await feed.push(round(1)).taken();
      const saved = join(folder, 'saved');
      expect(await rejection(running.savepoint(saved))).toMatchObject({ code: 'SAVEPOINT_FAILED', retryable: true });
      expect(existsSync(saved)).toBe(false);
      expect((await running.savepoint(saved)).id).toBe(2);
      await running.stop();
      expect(watch.of('restart')).toEqual([]);
      expect(watch.of('checkpoint-failed')).toEqual([]);
    },
  );

  it('is refused where the folder holds anything, for one of two that want it at once, and for a job without checkpoints', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [unbounded(), new Store<Told>()];
    const running = ends(await program(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push(round(1)).taken();
    const saved = join(folder, 'deep', 'saved');
    const outcomes = await Promise.allSettled([running.savepoint(saved), running.savepoint(saved)]);
    expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(outcomes.find(({ status }) => status === 'rejected')).toMatchObject({ reason: { code: 'SAVEPOINT_EXISTS' } });
    expect(await rejection(running.stop({ savepoint: saved }))).toMatchObject({ code: 'SAVEPOINT_EXISTS' });
    expect(running.status).toBe('running');
    await mkdir(join(folder, 'mine'));
    await writeFile(join(folder, 'mine', 'letter.txt'), '');
    expect(await rejection(running.savepoint(join(folder, 'mine')))).toMatchObject({ code: 'SAVEPOINT_EXISTS' });
    await running.stop();
    expect(await rejection(running.savepoint(join(folder, 'later')))).toMatchObject({ code: 'JOB_ENDED' });
    const without = ends(await job('none', (env) => void env.source('in', unbounded()).forEach('out', () => {})).start());
    expect(await rejection(without.savepoint(join(folder, 'none')))).toMatchObject({ code: 'CHECKPOINTS_OFF' });
    expect(await rejection(without.stop({ savepoint: join(folder, 'none') }))).toMatchObject({ code: 'CHECKPOINTS_OFF' });
  });

  it('keeps the files that it is copied from until it is complete, and the next clean-up removes them', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [unbounded(), new Store<Told>()];
    let go!: () => void;
    let reached!: () => void;
    const [waits, copying] = [new Promise<void>((resolve) => (go = resolve)), new Promise<void>((resolve) => (reached = resolve))];
    let first = true;
    const held = jobOn((name) => {
      if (name !== 'savepoint.file' || !first) return undefined;
      first = false;
      reached();
      return waits;
    });
    const running = ends(await program(feed, store, held).start({ checkpoints: checkpointsIn(folder, { retain: 1 }) }));
    await feed.push(round(1)).taken();
    await running.checkpoint();
    const saving = running.savepoint(join(folder, 'saved'));
    await copying;
    // Enough deltas for a base that replaces them, and then for their checkpoints to go.
    for (let n = 0; n < 40; n++) {
      await feed.push(round(n)).taken();
      await running.checkpoint();
    }
    go();
    await saving;
    await running.stop();
    const fork = ends(
      await program(feed, new Store<Told>()).start({
        checkpoints: { ...checkpointsIn(folder), directory: join(folder, 'b') },
        restore: { from: join(folder, 'saved') },
      }),
    );
    await fork.cancel();
  });
});

describe('a savepoint that is damaged', () => {
  it('anywhere is not restored, and the sentence names the file', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [unbounded(), new Store<Told>()];
    const running = ends(await program(feed, store).start({ checkpoints: checkpointsIn(folder), parallelism: 2 }));
    await feed.push(round(1)).taken();
    const saved = join(folder, 'saved');
    await running.savepoint(saved);
    await running.cancel();
    const names = await readdir(join(saved, 'files'));
    expect(names.some((name) => name.startsWith('delta-'))).toBe(true);
    expect(names.some((name) => name.startsWith('segment-'))).toBe(true);
    for (const name of names) {
      for (const damage of ['flip', 'cut', 'gone'] as const) {
        const bad = join(folder, 'bad');
        await cp(saved, bad, { recursive: true });
        const path = join(bad, 'files', name);
        const bytes = await readFile(path);
        bytes[Math.floor(bytes.length / 2)]! ^= 1;
        if (damage === 'gone') await rm(path);
        else await writeFile(path, damage === 'flip' ? bytes : bytes.subarray(0, -1));
        for (const claim of [false, true]) {
          const error = await rejection(program(feed, store).start({ checkpoints: checkpointsIn(folder), restore: { from: bad, claim } }));
          expect(error).toMatchObject({ code: 'SNAPSHOT_CORRUPT', message: expect.stringContaining(path), retryable: false });
        }
        await rm(bad, { recursive: true });
      }
    }
    expect(store.commits).toEqual([]);
  });

  it('in one copy of its metadata is restored from the other; in both it is refused by name', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [unbounded(), new Store<Told>()];
    const running = ends(await program(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push(round(1)).taken();
    const saved = join(folder, 'saved');
    await running.savepoint(saved);
    await running.cancel();
    const flip = async (path: string): Promise<void> => {
      const bytes = await readFile(path);
      bytes[30]! ^= 4;
      await writeFile(path, bytes);
    };
    const restore = { from: saved };
    await flip(join(saved, 'metadata'));
    await ends(await program(feed, store).start({ checkpoints: checkpointsIn(folder), restore })).cancel();
    await flip(join(saved, 'metadata.copy'));
    expect(await rejection(program(feed, store).start({ checkpoints: checkpointsIn(folder), restore }))).toMatchObject({
      code: 'SNAPSHOT_CORRUPT',
      message: expect.stringContaining(join(saved, 'metadata')),
    });
    await rm(join(saved, 'metadata'));
    await rm(join(saved, 'metadata.copy'));
    expect(await rejection(program(feed, store).start({ checkpoints: checkpointsIn(folder), restore }))).toMatchObject({
      code: 'CHECKPOINT_NOT_FOUND',
      message: expect.stringContaining(saved),
    });
  });
});
