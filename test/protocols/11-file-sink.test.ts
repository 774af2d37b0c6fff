import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { job } from 'millrace';
import { files } from 'millrace/connectors';
import { describe, expect, it } from 'vitest';
import { FILES_SINK_STEPS } from '../../src/connectors/files-sink.ts';
import { checkpointsIn, ends, Feed, RESTARTS, rejection, startWithFaults, temporaryFolder, Watch } from './lab.ts';
import { published } from './processes.ts';

const BUCKETS = ['a', 'b', 'c'];

/** Three buckets, so that a commit is several renames; files that roll over checkpoints. */
function bucketed(feed: Feed<number>, directory: string, roll: { bytes: number } | undefined) {
  return job('bucketed', (env) => {
    env
      .source('in', feed)
      .map((n) => ({ n, bucket: BUCKETS[n % 3]! }))
      .sink('out', files.sink({ directory, bucket: (v) => v.bucket, ...(roll === undefined ? {} : { roll }) }));
  });
}
async function all(directory: string): Promise<number[]> {
  const records: { n: number }[] = [];
  for (const bucket of BUCKETS) records.push(...(await published<{ n: number }>(join(directory, bucket))));
  return records.map((r) => r.n).toSorted((a, b) => a - b);
}

describe('protocols 11: file sink: the name is no marker when a commit is several renames', () => {
  for (const step of FILES_SINK_STEPS) {
    it(`a commit that fails at ${step} is gone on with after the restart of the region, file by file`, async () => {
      const folder = await temporaryFolder();
      const out = join(folder, 'out');
      const feed = new Feed<number>();
      const watch = new Watch();
      const running = ends(
        await startWithFaults(bucketed(feed, out, { bytes: 40 }), `${step}=fail@2`, {
          checkpoints: checkpointsIn(folder),
          restarts: RESTARTS,
          onEvent: watch.onEvent,
        }),
      );
      for (let i = 0; i < 4; i++) {
        await feed.push(Array.from({ length: 9 }, (_, k) => i * 9 + k)).taken();
        await running.checkpoint().catch(() => {});
      }
      feed.end();
      await running.finished;
      expect(await all(out)).toEqual(Array.from({ length: 36 }, (_, i) => i));
    });
  }

  it('what was published may be taken away by a reader meanwhile: it is not written again', async () => {
    const folder = await temporaryFolder();
    const out = join(folder, 'out');
    const feed = new Feed<number>({ bounded: false });
    const build = bucketed(feed, out, { bytes: 1 });
    const first = ends(await startWithFaults(build, 'sink.committed=fail@1', { checkpoints: checkpointsIn(folder), restarts: false }));
    await feed.push([0, 1, 2]).taken();
    await first.checkpoint();
    await rejection(first.finished);
    const before = await all(out);
    const { rm } = await import('node:fs/promises');
    await rm(join(out, 'a'), { recursive: true, force: true });
    const second = ends(await build.start({ checkpoints: checkpointsIn(folder) }));
    await feed.push([3, 4, 5]).taken();
    await second.stop({ drain: true });
    expect(before).toEqual([0, 1, 2]);
    expect(await all(out)).toEqual([1, 2, 3, 4, 5]);
  });

  it('files still open are hidden, and are published when the job drains or ends', async () => {
    const folder = await temporaryFolder();
    const out = join(folder, 'out');
    const feed = new Feed<number>({ bounded: false });
    const running = ends(await bucketed(feed, out, { bytes: 1 << 20 }).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push([0, 1, 2]).taken();
    await running.checkpoint();
    expect((await readdir(out)).filter((name) => !name.startsWith('.'))).toEqual([]);
    await running.stop({ drain: true });
    expect(await all(out)).toEqual([0, 1, 2]);
  });

  it('at another parallelism the records of all writers come out once', async () => {
    const folder = await temporaryFolder();
    const out = join(folder, 'out');
    const feed = new Feed<number>({ bounded: false, splits: ['x', 'y', 'z'] });
    const build = bucketed(feed, out, { bytes: 1 << 20 });
    let n = 0;
    for (const parallelism of [3, 1, 2]) {
      const running = ends(await build.start({ parallelism, checkpoints: checkpointsIn(folder) }));
      for (const split of ['x', 'y', 'z']) feed.push([n++, n++, n++], undefined, split);
      await feed.taken();
      if (parallelism === 2) await running.stop({ drain: true });
      else await running.stop();
    }
    expect(await all(out)).toEqual(Array.from({ length: n }, (_, i) => i));
  });
});
