import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type CheckpointInfo, job, type RunningJob } from 'millrace';
import { collect } from 'millrace/connectors';
import { describe, expect, it } from 'vitest';
import { LocalRegistry } from '../../src/checkpoint/local-registry.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { MemoryKafka } from '../connectors/kafka/memory-cluster.ts';
import { exactlyOnce } from '../connectors/kafka/sinks.ts';
import { checkpointsIn, ends, Feed, RESTARTS, rejection, Store, temporaryFolder, Watch } from './lab.ts';

/** A running sum with a transactional sink, or with a plain one. */
function sums(feed: Feed<number>, store: Store<number> | undefined, plain: number[] = []) {
  return job('sums', (env) => {
    const out = env
      .source('in', feed)
      .keyBy(() => 'k')
      .reduce('sum', (a, b) => a + b);
    if (store === undefined) out.sink('plain', collect(plain));
    else out.sink('out', store);
  });
}

const folderOf = (folder: string): string => join(folder, 'checkpoints', 'sums');
async function damage(path: string, how: 'flip' | 'truncate' | 'empty'): Promise<void> {
  const bytes = await readFile(path);
  if (how === 'flip') bytes[bytes.length >> 1]! ^= 1;
  await writeFile(path, how === 'flip' ? bytes : how === 'truncate' ? bytes.subarray(0, bytes.length - 1) : '');
}
/** The newest snapshot file of a kind: delta, segment. */
async function newest(folder: string, kind: string, id: number): Promise<string> {
  const names = await readdir(join(folderOf(folder), 'files'));
  const name = names.find((n) => n.startsWith(kind) && new RegExp(`-a\\d+-${id}(-\\d+)?$`).test(n));
  if (name === undefined) throw new Error(`no ${kind} of ${id} among ${names.join(', ')}`);
  return join(folderOf(folder), 'files', name);
}

/** As a crash would leave it: neither a last checkpoint nor a commit. The outcome is not that of a cancelled job. */
async function crash(running: RunningJob, folder: string): Promise<void> {
  await running.cancel();
  const registry = await LocalRegistry.open(folderOf(folder), 'sums', systemIo(), { wait: false });
  await registry.setOutcome('failed');
  await registry.close();
}

async function twoCheckpoints(folder: string, feed: Feed<number>, store: Store<number> | undefined, plain: number[] = []): Promise<CheckpointInfo[]> {
  const running = ends(await sums(feed, store, plain).start({ checkpoints: checkpointsIn(folder) }));
  const taken: CheckpointInfo[] = [];
  for (const v of [1, 10]) {
    await feed.push([v]).taken();
    taken.push(await running.checkpoint());
    if (store !== undefined) await store.until((r) => r.length === taken.length);
  }
  await feed.push([100]).taken();
  await crash(running, folder);
  return taken;
}

describe('protocols 4: falling back to the checkpoint before duplicates everything the sinks committed since', () => {
  for (const how of ['flip', 'truncate', 'empty'] as const) {
    for (const kind of ['delta', 'segment', 'metadata'] as const) {
      it(`${kind}, ${how}: refused with RESTORE_WOULD_DUPLICATE where a sink has committed since`, async () => {
        const folder = await temporaryFolder();
        const feed = new Feed<number>({ bounded: false });
        const store = new Store<number>();
        const [first, second] = await twoCheckpoints(folder, feed, store);
        const bad = kind === 'metadata' ? [second!.path, `${second!.path}.copy`] : [await newest(folder, kind, second!.id)];
        for (const path of bad) await damage(path, how);
        const error = await rejection(sums(feed, store).start({ checkpoints: checkpointsIn(folder) }));
        expect(error).toMatchObject({ code: 'RESTORE_WOULD_DUPLICATE', retryable: false });
        expect(error.message).toContain(bad[0]);
        expect(error.message).toMatch(/sink 'out', writer 0, up to checkpoint 2/);
        expect(error.todo).toContain(`from: ${first!.id}`);
        // Refusing has changed nothing: it is refused again, and what it advises works.
        expect((await rejection(sums(feed, store).start({ checkpoints: checkpointsIn(folder) }))).code).toBe('RESTORE_WOULD_DUPLICATE');
        const running = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder), restore: { from: first!.id } }));
        await feed.taken();
        await running.stop();
        expect(store.records).toEqual([1, 11, 11, 111]);
      });
    }
  }

  for (const kind of ['segment', 'metadata'] as const) {
    it(`${kind}: asks also the writers that only the damaged checkpoint has, where it was made at a larger parallelism`, async () => {
      const folder = await temporaryFolder();
      const feed = new Feed<number>({ bounded: false, splits: ['a', 'b', 'c', 'd'] });
      const store = new Store<number>();
      const copy = job('sums', (env) => {
        env.source('in', feed).sink('out', store);
      });
      const narrow = ends(await copy.start({ parallelism: 2, checkpoints: checkpointsIn(folder) }));
      await feed.push([1], undefined, 'a').taken();
      await narrow.stop();
      const wide = ends(await copy.start({ parallelism: 4, checkpoints: checkpointsIn(folder) }));
      await feed.push([2], undefined, 'd').taken();
      const { id, path } = await wide.checkpoint();
      await store.until((r) => r.length === 2);
      expect(store.commits.map((c) => c.writer)).toEqual(['0', '3']);
      await crash(wide, folder);
      const bad = kind === 'metadata' ? [path, `${path}.copy`] : [await newest(folder, 'segment', id)];
      for (const file of bad) await damage(file, 'empty');
      const error = await rejection(copy.start({ parallelism: 2, checkpoints: checkpointsIn(folder) }));
      expect(error.code).toBe('RESTORE_WOULD_DUPLICATE');
      expect(error.message).toContain(`writer 3, up to checkpoint ${id}`);
    });
  }

  it('closes every writer that it asks, also one that cannot answer', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const [, second] = await twoCheckpoints(folder, feed, store);
    await damage(await newest(folder, 'segment', second!.id), 'flip');
    let open = 0;
    let answers = 0;
    const mute = new Store<number>();
    const { open: opens } = mute;
    mute.open = async (context) => {
      const writer = await opens.call(mute, context);
      open += 1;
      const lastCommitted = async (): Promise<number> => {
        answers += 1;
        throw new Error('not now');
      };
      return { ...writer, lastCommitted, close: async () => void open-- };
    };
    expect((await rejection(sums(feed, mute).start({ checkpoints: checkpointsIn(folder) }))).message).toContain('not now');
    expect([answers, open]).toEqual([1, 0]);
  });

  it('falls back where no sink is made worse by it', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const plain: number[] = [];
    const [first, second] = await twoCheckpoints(folder, feed, undefined, plain);
    await damage(await newest(folder, 'delta', second!.id), 'flip');
    const running = ends(await sums(feed, undefined, plain).start({ checkpoints: checkpointsIn(folder) }));
    expect(running.restoredFrom?.id).toBe(first!.id);
    await feed.taken();
    await running.stop();
    expect(plain).toEqual([1, 11, 111, 11, 111]);
  });

  it('falls back where the newer checkpoint was not committed yet', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const running = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder), restarts: false }));
    await feed.push([1]).taken();
    await running.checkpoint();
    await store.until((r) => r.length === 1);
    store.before = () => Promise.reject(new Error('the store is down'));
    await feed.push([10]).taken();
    const second = await running.checkpoint();
    expect((await rejection(running.finished)).code).toBe('SINK_FAILED');
    store.before = () => {};
    await damage(await newest(folder, 'delta', second.id), 'truncate');
    const next = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    expect(next.restoredFrom?.id).toBe(1);
    await feed.taken();
    await next.stop();
    expect(store.records).toEqual([1, 11]);
  });

  it('refused also where a sink has committed a part of the damaged checkpoint: a reader has seen that', async () => {
    const folder = await temporaryFolder();
    const kafka = new MemoryKafka().createTopic('out', 1);
    const feed = new Feed<number>({ bounded: false });
    const copies = (faults?: string) =>
      job('copies', (env) => {
        env.source('in', feed).sink('out', exactlyOnce<number>(kafka.client(), { commitBytes: 250 }, faults));
      });
    // The second checkpoint is five records, in transactions of two; the process ends behind the first of them.
    const running = ends(await copies('sink.kafka.send=fail@3').start({ checkpoints: checkpointsIn(folder), restarts: false }));
    await feed.push([1]).taken();
    const first = await running.checkpoint();
    await feed.push([2, 3, 4, 5, 6]).taken();
    await running.checkpoint().catch(() => {});
    await rejection(running.finished);
    expect(kafka.values('out')).toEqual(['1', '2', '3']);
    const segments = join(folder, 'checkpoints', 'copies', 'files');
    const newestSegment = (await readdir(segments)).find((name) => /^segment-.*-2-\d+$/.test(name))!;
    await damage(join(segments, newestSegment), 'flip');
    const error = await rejection(copies().start({ checkpoints: checkpointsIn(folder) }));
    expect(error).toMatchObject({ code: 'RESTORE_WOULD_DUPLICATE', retryable: false });
    expect(error.message).toMatch(/sink 'out', writer 0, up to checkpoint 2/);
    expect(kafka.values('out')).toEqual(['1', '2', '3']);
    // What it advises works.
    const again = ends(await copies().start({ checkpoints: checkpointsIn(folder), restore: { from: first.id } }));
    await feed.taken();
    await again.stop();
    expect(kafka.values('out')).toEqual(['1', '2', '3', '2', '3', '4', '5', '6']);
  });

  it('a stop does not count as committed what was fallen back from: its last checkpoint is taken again', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const watch = new Watch();
    const running = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }));
    await feed.push([1]).taken();
    const first = await running.checkpoint();
    await store.until((r) => r.length === 1);
    await feed.push([10]).taken();
    // The last checkpoint is damaged while its commit fails: the region goes back to the one before.
    store.before = async (_, checkpoint) => {
      store.before = () => {};
      await damage(await newest(folder, 'delta', checkpoint), 'flip');
      throw new Error('the store is down');
    };
    const { checkpoint, status } = await running.stop();
    expect(status).toBe('stopped');
    expect(watch.of('restart').length).toBeGreaterThan(0);
    expect(store.records).toEqual([1, 11]);
    expect(checkpoint!.id).toBeGreaterThan(first.id + 1);
    // What the stop names is there, whole and the newest.
    const next = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    expect(next.restoredFrom).toEqual(checkpoint);
    await feed.push([100]).taken();
    await next.stop();
    expect(store.records).toEqual([1, 11, 111]);
  });

  it('one whole copy of the metadata is enough', async () => {
    for (const which of ['', '.copy']) {
      const folder = await temporaryFolder();
      const feed = new Feed<number>({ bounded: false });
      const store = new Store<number>();
      const [, second] = await twoCheckpoints(folder, feed, store);
      await damage(`${second!.path}${which}`, 'truncate');
      const running = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder) }));
      expect(running.restoredFrom?.id).toBe(second!.id);
      await feed.taken();
      await running.stop();
      expect(store.records).toEqual([1, 11, 111]);
    }
  });

  it('nothing whole at all: the start is refused, naming the newest file that is damaged', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    for (const checkpoint of await twoCheckpoints(folder, feed, store)) await damage(await newest(folder, 'delta', checkpoint.id), 'flip');
    const error = await rejection(sums(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    expect(error).toMatchObject({ code: 'SNAPSHOT_CORRUPT', retryable: false });
    expect(error.todo).toBeDefined();
  });

  it('a file damaged while the job runs is met at the next restart, and refused as well', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const watch = new Watch();
    let fail = false;
    const running = ends(
      await job('sums', (env) => {
        env
          .source('in', feed)
          .map((v) => {
            if (fail) throw new Error('crash');
            return v;
          })
          .keyBy(() => 'k')
          .reduce('sum', (a, b) => a + b)
          .sink('out', store);
      }).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }),
    );
    for (const v of [1, 10]) {
      await feed.push([v]).taken();
      await running.checkpoint();
    }
    await store.until((r) => r.length === 2);
    await damage(await newest(folder, 'delta', 2), 'flip');
    fail = true;
    feed.push([100]);
    expect((await rejection(running.finished)).code).toBe('RESTORE_WOULD_DUPLICATE');
    expect(store.records).toEqual([1, 11]);
  });
});
