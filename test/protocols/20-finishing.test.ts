import { job, type RunOptions, sum, tumbling } from 'millrace';
import { describe, expect, it } from 'vitest';
import { readMetadata } from '../../src/checkpoint/metadata.ts';
import { directory } from '../../src/storage/directory.ts';
import { checkpointsIn, ends, Feed, RESTARTS, rejection, Store, startWithFaults, temporaryFolder, Watch } from './lab.ts';

function copying(feed: Feed<number>, store: Store<number>, fuse = { lit: false }) {
  return job('copying', (env) => {
    env
      .source('in', feed, { timestamp: (v) => v })
      .map((v) => {
        if (fuse.lit) {
          fuse.lit = false;
          throw new Error('crash');
        }
        return v;
      })
      .sink('out', store);
  });
}

describe('protocols 20: finished tasks and the last checkpoint', () => {
  it('A: checkpoints complete while three of four source instances have no split', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>();
    const store = new Store<number>();
    const running = ends(await copying(feed, store).start({ parallelism: 4, checkpoints: checkpointsIn(folder) }));
    await feed.push([1, 2]).taken();
    // The empty instances end before, during or after this one, and finish with the first or the second.
    for (let i = 0; i < 3; i++) await running.checkpoint();
    await store.until((r) => r.length === 2);
    await feed.push([3]).taken();
    await running.checkpoint();
    await store.until((r) => r.length === 3);
    feed.end();
    expect((await running.finished).status).toBe('finished');
    expect(store.records).toEqual([1, 2, 3]);
  });

  it('A: a keyed operator behind them sees the end of input once, after all', async () => {
    const folder = await temporaryFolder();
    const store = new Store<number>();
    const feed = new Feed<number>().push([1, 2, 3, 1001]).end();
    await job('sums', (env) => {
      env
        .source('in', feed, { timestamp: (v) => v })
        .keyBy(() => 'k')
        .window(tumbling(1000))
        .aggregate(
          'sums',
          sum((v) => v),
        )
        .map((w) => w.value)
        .sink('out', store);
    }).run({ parallelism: 4, checkpoints: checkpointsIn(folder) });
    expect(store.records).toEqual([6, 1001]);
  });

  for (const step of ['checkpoint.trigger', 'checkpoint.segment.upload', 'checkpoint.ack', 'checkpoint.metadata.write', 'checkpoint.metadata.copy']) {
    it(`B: a last checkpoint that fails at ${step} is followed by another, and everything is committed`, async () => {
      const folder = await temporaryFolder();
      const store = new Store<number>();
      const watch = new Watch();
      const feed = new Feed<number>().push([1, 2, 3]).end();
      const running = await startWithFaults(copying(feed, store), `${step}=fail`, {
        checkpoints: checkpointsIn(folder, { tolerate: 1 }),
        onEvent: watch.onEvent,
      });
      expect((await running.finished).status).toBe('finished');
      expect(watch.of('checkpoint-failed')).toHaveLength(1);
      expect(store.records).toEqual([1, 2, 3]);
    });
  }

  it('B: a last checkpoint that times out is followed by another', async () => {
    const folder = await temporaryFolder();
    const store = new Store<number>();
    const watch = new Watch();
    const feed = new Feed<number>().push([1]).end();
    const running = await startWithFaults(copying(feed, store), 'checkpoint.ack=stall:400', {
      checkpoints: checkpointsIn(folder, { tolerate: 1, timeout: 50 }),
      onEvent: watch.onEvent,
    });
    await running.finished;
    expect(watch.of('checkpoint-failed').map((e) => e.error.code)).toContain('CHECKPOINT_EXPIRED');
    expect(store.records).toEqual([1]);
  });

  it('B: a last commit that fails is done again before the job counts as finished', async () => {
    const folder = await temporaryFolder();
    const store = new Store<number>();
    let failures = 0;
    store.before = () => {
      if (failures++ === 0) throw new Error('not now');
    };
    const result = await copying(new Feed<number>().push([1, 2]).end(), store).run({ checkpoints: checkpointsIn(folder), restarts: RESTARTS });
    expect(result).toMatchObject({ status: 'finished', restarts: 1 });
    expect(store.records).toEqual([1, 2]);
  });

  it('C: a split that is found after a restore goes to an instance that has not ended, and so is not late', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ splits: ['a', 'b'] });
    const store = new Store<number>();
    const sums = job('sums', (env) => {
      env
        .source('in', feed, { timestamp: (v) => v })
        .keyBy(() => 'k')
        .window(tumbling(1000))
        .aggregate(
          'sums',
          sum((v) => v),
        )
        .map((w) => w.value)
        .sink('out', store);
    });
    const options: RunOptions = { parallelism: 2, checkpoints: checkpointsIn(folder) };
    const first = ends(await sums.start(options));
    feed.push([1], undefined, 'b').end('b');
    await feed.push([2], undefined, 'a').taken('a');
    for (let ended = false; !ended; ) {
      const { tasks } = await readMetadata(directory('.'), (await first.checkpoint()).path);
      ended = tasks.some((t) => t.vertex === 'in' && t.subtask === 1 && t.ended);
    }
    await first.stop();
    feed.addSplit('c');
    const second = ends(await sums.start(options));
    await feed.push([5000], undefined, 'a').taken('a');
    await feed.push([3, 4], undefined, 'c').taken('c');
    feed.end('a').end('c');
    expect((await second.finished).status).toBe('finished');
    expect(feed.reads.at(-1)).toEqual({ split: 'c', from: undefined, subtask: 0 });
    expect(store.records).toEqual([10, 5000]);
  });

  it('D: a finished job that is started again answers every call at once', async () => {
    const folder = await temporaryFolder();
    const build = copying(new Feed<number>().push([1]).end(), new Store<number>());
    await build.run({ checkpoints: checkpointsIn(folder) });
    const again = await build.start({ checkpoints: checkpointsIn(folder) });
    expect(again.status).toBe('finished');
    expect(await again.checkpoints()).toEqual([]);
    expect((await rejection(again.checkpoint())).code).toBe('JOB_ENDED');
    expect((await again.stop()).status).toBe('finished');
    expect((await again.cancel()).status).toBe('finished');
  });

  it('C: a source that has finished is not read again after a restore', async () => {
    const folder = await temporaryFolder();
    const store = new Store<number>();
    const done = new Feed<number>().push([1, 2]).end();
    const open = new Feed<number>();
    const build = job('two', (env) => {
      env.source('done', done).union(env.source('open', open)).sink('out', store);
    });
    const options: RunOptions = { checkpoints: checkpointsIn(folder) };
    const first = ends(await build.start(options));
    await done.taken();
    await open.push([10]).taken();
    for (let i = 0; i < 3; i++) await first.checkpoint();
    await first.stop();
    expect(done.reads).toHaveLength(1);
    const second = ends(await build.start(options));
    open.push([11]).end();
    await second.finished;
    expect(done.reads).toHaveLength(1);
    expect(store.records.toSorted((a, b) => a - b)).toEqual([1, 2, 10, 11]);
  });

  it('C: an instance that has ended takes over unfinished splits of another one, and reads them', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ splits: ['f0', 'f1', 'f2'] });
    const store = new Store<number>();
    const fuse = { lit: false };
    const watch = new Watch();
    const running = ends(
      await copying(feed, store, fuse).start({ parallelism: 2, checkpoints: checkpointsIn(folder), onEvent: watch.onEvent, restarts: RESTARTS }),
    );
    await feed.push([1], undefined, 'f0').push([2], undefined, 'f1').push([3], undefined, 'f2').taken();
    feed.end('f1');
    await running.checkpoint();
    await running.checkpoint();
    fuse.lit = true;
    feed.push([4], undefined, 'f0');
    await watch.restarted();
    feed.push([5], undefined, 'f2').end();
    await running.finished;
    expect(store.records.toSorted()).toEqual([1, 2, 3, 4, 5]);
  });

  it('D: a job that finished is not run again; restore none runs it anew', async () => {
    const folder = await temporaryFolder();
    const store = new Store<number>();
    const said: string[] = [];
    const log = (...args: unknown[]): void => void said.push(String(args.at(-1)));
    const run = (restore: 'latest' | 'none') =>
      copying(new Feed<number>().push([1, 2]).end(), store).run({
        checkpoints: checkpointsIn(folder),
        restore,
        logger: { debug() {}, info: log, warn() {}, error() {} },
      });
    const first = await run('latest');
    expect(await run('latest')).toEqual(first);
    expect(said.join('\n')).toMatch(/has finished before.*restore/);
    expect(store.records).toEqual([1, 2]);
    await run('none');
    expect(store.records).toEqual([1, 2, 1, 2]);
    expect(new Set(store.commits.map((c) => c.lineage)).size).toBe(2);
  });

  it('D: what dies between the last commit and «finished» finishes at the next start, and writes nothing again', async () => {
    const folder = await temporaryFolder();
    const store = new Store<number>();
    const feed = new Feed<number>().push([1, 2]).end();
    const running = await startWithFaults(copying(feed, store), 'job.finish=fail', { checkpoints: checkpointsIn(folder) });
    expect((await rejection(running.finished)).code).toBe('FAULT_INJECTED');
    expect(store.records).toEqual([1, 2]);
    expect((await copying(feed, store).run({ checkpoints: checkpointsIn(folder) })).status).toBe('finished');
    expect(store.records).toEqual([1, 2]);
    expect(feed.reads).toHaveLength(1);
  });

  it('without checkpoints the sinks of a bounded job commit at its end', async () => {
    const store = new Store<number>();
    expect((await copying(new Feed<number>().push([1, 2]).end(), store).run()).status).toBe('finished');
    expect(store.commits.map((c) => c.records)).toEqual([[1, 2]]);
  });

  it('an operator that has seen the end hears of no timer any more', async () => {
    const folder = await temporaryFolder();
    const calls: string[] = [];
    const running = ends(
      await startWithFaults(
        job('timers', (env) => {
          env
            .source('in', new Feed<number>().push([1]).end())
            .keyBy(() => 'k')
            .process<string>('process', {
              onRecord(_value, ctx) {
                ctx.timers.processing.set(ctx.now() + 20);
              },
              onTimer() {
                calls.push('timer');
              },
              onEnd() {
                calls.push('end');
              },
            })
            .sink('out', new Store<string>());
        }),
        'checkpoint.trigger=stall:100',
        { checkpoints: checkpointsIn(folder) },
      ),
    );
    await running.finished;
    expect(calls.slice(calls.indexOf('end'))).toEqual(['end']);
  });

  it('a checkpoint that is under way when a drain begins knows nothing of the end of time, also where its barrier waits behind a watermark', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    for (let batch = 0; batch < 40; batch++)
      feed.push(
        Array.from({ length: 512 }, (_, i) => i),
        Array.from({ length: 512 }, (_, i) => batch * 512 + i),
      );
    let release!: () => void;
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    const running = ends(
      await job('held', (env) => {
        env
          .source('in', feed, {})
          .rebalance()
          .forEach('each', () => released);
      }).start({ checkpoints: checkpointsIn(folder) }),
    );
    const turns = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
    };
    // The source gets no credit any more; then its clock sends a watermark, which cannot leave.
    for (let before = -1; ; await turns(50)) {
      const read = (await running.metrics()).find((m) => m.name === 'recordsIn' && m.labels.task === 'in-0')!.value;
      if (read === before) break;
      before = read;
    }
    await new Promise((resolve) => setTimeout(resolve, 250));
    const checkpoint = running.checkpoint();
    while (!JSON.stringify(await running.tree()).includes('acknowledging')) await turns(1);
    const stopped = running.stop({ drain: true });
    await turns(20);
    release();
    const metadata = await readMetadata(directory('.'), (await checkpoint).path);
    expect(metadata.drained).toBe(false);
    expect(metadata.tasks.map((t) => Number.isFinite(t.watermark))).toEqual([true, true]);
    expect((await stopped).status).toBe('stopped');
  });

  it('a source whose onCheckpointComplete throws goes on', async () => {
    const folder = await temporaryFolder();
    const feed = Object.assign(new Feed<number>().push([1]).end(), {
      onCheckpointComplete(): Promise<void> {
        throw new Error('no monitoring today');
      },
    });
    const store = new Store<number>();
    expect(await copying(feed, store).run({ checkpoints: checkpointsIn(folder), restarts: RESTARTS })).toMatchObject({ status: 'finished', restarts: 0 });
    expect(store.records).toEqual([1]);
  });
});
