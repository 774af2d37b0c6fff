import { cp, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { level, job as plainJob, type RunOptions } from 'millrace';
import { describe, expect, it } from 'vitest';
import { filesSink } from '../../src/connectors/files-sink.ts';
import { directory } from '../../src/storage/directory.ts';
import { kept } from '../e2e/kept.ts';
import { checkpointsIn, ends, Feed, jobOnIo, RESTARTS, rejection, Store, temporaryFolder, Watch } from '../protocols/lab.ts';
import { published } from '../protocols/processes.ts';
import { DISKS, MOUNTED, type SmallDisk, smallDisk } from './small-disk.ts';

const sumsOn = (disk: Pick<SmallDisk, 'io'>, feed: Feed<number>, store: Store<number>) =>
  jobOnIo(disk.io)('sums', (env) => {
    env
      .source('in', feed)
      .keyBy(() => 'all')
      .reduce('sum', (left, right) => left + right)
      .sink('out', store);
  });
const FULL = { retryable: true, message: expect.stringMatching(/no space left on device.*make room/is) };
const retrying = (folder: string): RunOptions => ({ checkpoints: checkpointsIn(folder, { tolerate: 1000 }), restarts: RESTARTS });
const checkpointsOf = (folder: string): string => join(folder, 'checkpoints', 'sums');

describe.each(DISKS)('a checkpoint directory on a disk that is full (%s)', (kind) => {
  it('costs the checkpoint and nothing else: the job goes on, what was complete stays, and there is another one when there is room again', async () => {
    const disk = await smallDisk(kind);
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const watch = new Watch();
    const running = ends(await sumsOn(disk, feed, store).start({ ...retrying(disk.folder), onEvent: watch.onEvent }));
    await feed.push([1]).taken();
    const before = await running.checkpoint();
    await store.until((r) => r.length === 1);
    await disk.fill();
    for (let n = 0; n < 3; n++) {
      await feed.push([10]).taken();
      expect(await rejection(running.checkpoint())).toMatchObject({ code: 'CHECKPOINT_FAILED', ...FULL });
    }
    expect(watch.of('restart')).toEqual([]);
    expect((await running.checkpoints()).map(({ id }) => id)).toEqual([before.id]);
    // As a crash would leave it now: what was complete is whole.
    const left = await temporaryFolder();
    await cp(join(disk.folder, 'checkpoints'), join(left, 'checkpoints'), { recursive: true });
    await disk.free();
    await feed.push([100]).taken();
    await running.checkpoint();
    await store.until((r) => r.length === 5);
    expect(store.records).toEqual([1, 11, 21, 31, 131]);
    await running.stop();
    const again = ends(await sumsOn(disk, feed, store).start(retrying(disk.folder)));
    await feed.push([1000]).taken();
    await again.stop();
    expect(store.records.at(-1)).toBe(1131);
    expect(await kept(checkpointsOf(disk.folder))).toEqual([]);
    expect(await kept(checkpointsOf(left))).toEqual([]);
  });

  it('ends a job that may not fail with a coded error that says what to do; with room it goes on where it was', async () => {
    const disk = await smallDisk(kind);
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const options: RunOptions = { checkpoints: checkpointsIn(disk.folder), restarts: { ...RESTARTS, max: 2 } };
    const running = ends(await sumsOn(disk, feed, store).start(options));
    await feed.push([1]).taken();
    await running.checkpoint();
    await store.until((r) => r.length === 1);
    await disk.fill();
    feed.push([10]);
    for (let failed = false; !failed; ) {
      await running.checkpoint().catch(() => {});
      failed = await Promise.race([
        running.finished.then(
          () => true,
          () => true,
        ),
        new Promise<false>((resolve) => setImmediate(() => resolve(false))),
      ]);
    }
    expect(await rejection(running.finished)).toMatchObject({ code: expect.stringMatching(/^CHECKPOINT_(FAILED|DIRECTORY)$/), ...FULL });
    await disk.free();
    const again = ends(await sumsOn(disk, feed, store).start(options));
    await feed.push([100]).taken();
    await again.stop();
    expect(store.records).toEqual([1, 11, 111]);
  });

  it('refuses a savepoint, of which nothing is left, and the job does not notice', async () => {
    const disk = await smallDisk(kind);
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const running = ends(await sumsOn(disk, feed, store).start(retrying(folder)));
    await feed.push([1]).taken();
    await disk.fill();
    const error = await rejection(running.savepoint(join(disk.folder, 'saved')));
    expect(error).toMatchObject({ code: 'SAVEPOINT_FAILED', retryable: true, message: expect.stringMatching(/no space left on device/i) });
    expect(await readdir(disk.folder)).not.toContain('saved');
    await disk.free();
    await running.savepoint(join(disk.folder, 'saved'));
    await feed.push([10]).taken();
    await running.stop();
    expect(store.records).toEqual([1, 11]);
  });

  it('of the file sink is a commit that failed: the region goes back to the checkpoint, and each record is published once', async () => {
    const disk = await smallDisk(kind);
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const watch = new Watch();
    const out = join(disk.folder, 'out');
    const copy = jobOnIo(disk.io)('copy', (env) => void env.source('in', feed).sink('out', filesSink<number>({ directory: out }, disk.io)));
    const running = ends(await copy.start({ ...retrying(folder), onEvent: watch.onEvent }));
    await feed.push([1]).taken();
    await running.checkpoint();
    await disk.fill();
    await feed.push(Array.from({ length: 5000 }, (_, n) => 10_000 + n)).taken();
    // Its commit fails; that the region restarts may be told first.
    running.checkpoint().catch(() => {});
    await watch.until((w) => w.of('restart').length >= 2);
    expect(watch.of('restart')[0]?.error).toMatchObject({ uid: 'out', retryable: true, message: expect.stringMatching(/no space left on device/i) });
    await disk.free();
    await watch.until((w) => w.events.at(-1)?.type === 'status' && running.status === 'running');
    await feed.push([2]).taken();
    await running.stop();
    expect((await published<number>(out)).sort((a, b) => a - b)).toEqual([1, 2, ...Array.from({ length: 5000 }, (_, n) => 10_000 + n)]);
  });
});

describe.runIf(MOUNTED)('LevelDB on a disk that is full', () => {
  it('as the registry: what it says is written behind that is written, though the log has half a record in it', async () => {
    const disk = await smallDisk('mounted', 1);
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const watch = new Watch();
    const options: RunOptions = {
      checkpoints: { ...checkpointsIn(disk.folder, { tolerate: 1000 }), storage: directory(join(folder, 'bytes')) },
      restarts: RESTARTS,
      onEvent: watch.onEvent,
    };
    const running = ends(await sumsOn(disk, feed, store).start(options));
    await feed.push([1]).taken();
    await running.checkpoint();
    await disk.fill();
    // Its last page has room for some pointers still.
    let told: (Error & { code?: string }) | undefined;
    while (told === undefined)
      told = await running.checkpoint().then(
        () => undefined,
        (error: Error) => error,
      );
    expect(told).toMatchObject({ code: 'CHECKPOINT_FAILED', ...FULL });
    await disk.free();
    let newest: number | undefined;
    for (let n = 0; n < 8; n++) {
      await feed.push([1]).taken();
      newest = await running.checkpoint().then(
        ({ id }) => id,
        () => newest,
      );
    }
    expect(newest).toBeDefined();
    // As a crash leaves it.
    const left = await temporaryFolder();
    await cp(join(disk.folder, 'checkpoints'), join(left, 'checkpoints'), { recursive: true });
    await running.cancel();
    const again = sumsOn(disk, new Feed<number>({ bounded: false }), store);
    const restored = ends(await again.start({ checkpoints: { ...checkpointsIn(left), storage: directory(join(folder, 'bytes')) } }));
    expect(restored.restoredFrom?.id).toBe(newest);
    await restored.cancel();
    expect(store.records).toEqual(Array.from({ length: 9 }, (_, n) => n + 1));
  });

  it('as the registry, at a start: refused with a code, and no lock is kept', async () => {
    const disk = await smallDisk('mounted', 1);
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const options: RunOptions = { checkpoints: checkpointsIn(disk.folder) };
    const first = ends(await sumsOn(disk, feed, store).start(options));
    await feed.push([1]).taken();
    await first.stop();
    await disk.fill();
    for (let n = 0; n < 2; n++) expect(await rejection(sumsOn(disk, feed, store).start(options))).toMatchObject({ code: 'CHECKPOINT_DIRECTORY', ...FULL });
    await disk.free();
    const again = ends(await sumsOn(disk, feed, store).start(options));
    await feed.push([10]).taken();
    await again.stop();
    expect(store.records).toEqual([1, 11]);
  });

  it('as keyed state: the region begins again from its checkpoint with a new one, and loses no row', async () => {
    const disk = await smallDisk('mounted', 8);
    const folder = await temporaryFolder();
    const keys = 3000;
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<string>();
    const watch = new Watch();
    const counts = plainJob('counts', (env) => {
      env
        .source('in', feed)
        .map((key) => ({ key, n: 1, ballast: 'x'.repeat(200) }))
        .keyBy(({ key }) => key)
        .reduce('count', (left, right) => ({ key: left.key, n: left.n + right.n, ballast: left.ballast }))
        .map(({ key, n }) => `${key} ${n}`)
        .sink('out', store);
    });
    const all = Array.from({ length: keys }, (_, key) => key);
    const state = level({ directory: join(disk.folder, 'state'), cacheBytes: 1 << 14 });
    const running = ends(await counts.start({ ...retrying(folder), state, onEvent: watch.onEvent }));
    await feed.push(all).taken();
    await running.checkpoint();
    await store.until((r) => r.length === keys);
    await disk.fill();
    feed.push(all).push(all);
    await watch.until((w) => w.of('restart').length >= 3);
    for (const { error } of watch.of('restart'))
      expect(error).toMatchObject({ code: 'STATE_IO', retryable: true, message: expect.stringMatching(/no space left on device/i) });
    await disk.free();
    await feed.taken();
    await running.stop();
    expect(store.records.length).toBe(3 * keys);
    expect(new Set(store.records)).toEqual(new Set(all.flatMap((key) => [1, 2, 3].map((n) => `${key} ${n}`))));
  });
});
