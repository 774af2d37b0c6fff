import { job, sum, tumbling } from 'millrace';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, RESTARTS, rejection, Store, startWithFaults, temporaryFolder, Watch } from '../protocols/lab.ts';

function sums(feed: Feed<number>, store: Store<number>, fuse = { lit: false }) {
  return job('sums', (env) => {
    env
      .source('in', feed, { timestamp: (v) => v })
      .keyBy(() => 'k')
      .window(tumbling(1000))
      .aggregate(
        'sums',
        sum((v) => v),
      )
      .map((w) => {
        if (fuse.lit) {
          fuse.lit = false;
          throw new Error('once');
        }
        return w.value;
      })
      .sink('out', store);
  });
}

describe('stop()', () => {
  it('takes a last checkpoint, commits, and the next start goes on where it left off', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const options = { checkpoints: checkpointsIn(folder) };
    const first = ends(await sums(feed, store).start(options));
    await feed.push([1, 2]).taken();
    const result = await first.stop();
    expect(result).toMatchObject({ status: 'stopped', restarts: 0, checkpoint: { id: 1 } });
    expect(first.status).toBe('stopped');
    expect(store.records).toEqual([]);
    const second = ends(await sums(feed, store).start(options));
    expect(second.restoredFrom?.id).toBe(1);
    await feed.push([3]).taken();
    await second.stop({ drain: true });
    expect(store.records).toEqual([6]);
  });

  it('with drain lets windows fire, and a later start begins event time anew without firing them again', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const options = { checkpoints: checkpointsIn(folder) };
    const first = ends(await sums(feed, store).start(options));
    await feed.push([1, 2]).taken();
    await first.stop({ drain: true });
    expect(store.records).toEqual([3]);
    const second = ends(await sums(feed, store).start(options));
    await feed.push([1500]).taken();
    await second.stop({ drain: true });
    expect(store.records).toEqual([3, 1500]);
  });

  it('with drain comes to its end also where the region fails on the way', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const fuse = { lit: false };
    const watch = new Watch();
    const running = ends(await sums(feed, store, fuse).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }));
    await feed.push([1, 2]).taken();
    await running.checkpoint();
    fuse.lit = true;
    expect(await running.stop({ drain: true })).toMatchObject({ status: 'stopped', restarts: 1 });
    expect(store.records).toEqual([3]);
  });

  it('takes no other checkpoint while it drains: a restore would begin behind the end of event time', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const watch = new Watch();
    // A base on which a checkpoint every millisecond would fall into the drain.
    const running = ends(await sums(feed, store).start({ checkpoints: { ...checkpointsIn(folder), every: 1 }, onEvent: watch.onEvent }));
    await feed.push([1, 2]).taken();
    const { checkpoint } = await running.stop({ drain: true });
    const second = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder), restore: { from: checkpoint!.id } }));
    await feed.push([5]).taken();
    await second.stop({ drain: true });
    expect(store.records).toEqual([3, 5]);
  });

  for (const step of ['checkpoint.ack', 'checkpoint.register', 'checkpoint.registered']) {
    it(`is tried again where its checkpoint fails at ${step}`, async () => {
      const folder = await temporaryFolder();
      const feed = new Feed<number>({ bounded: false });
      const store = new Store<number>();
      const running = ends(await startWithFaults(sums(feed, store), `${step}=fail`, { checkpoints: checkpointsIn(folder), restarts: RESTARTS }));
      await feed.push([1, 1001]).taken();
      expect((await running.stop()).status).toBe('stopped');
      const second = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder) }));
      await second.stop({ drain: true });
      expect(store.records).toEqual([1, 1001]);
    });
  }

  it('called twice gives the same result', async () => {
    const feed = new Feed<number>({ bounded: false });
    const folder = await temporaryFolder();
    const running = ends(await sums(feed, new Store()).start({ checkpoints: checkpointsIn(folder) }));
    const [a, b] = await Promise.all([running.stop(), running.stop()]);
    expect(a).toBe(b);
    expect((await rejection(running.checkpoint())).code).toBe('JOB_ENDED');
  });
});

describe('cancel()', () => {
  it('ends at once, commits nothing more, and the next start begins anew', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const options = { checkpoints: checkpointsIn(folder) };
    const first = ends(await sums(feed, store).start(options));
    await feed.push([1]).taken();
    await first.checkpoint();
    expect((await first.cancel()).status).toBe('cancelled');
    const second = ends(await sums(feed, store).start(options));
    expect(second.restoredFrom).toBeUndefined();
    // A record of its own: by the first alone it could not be told which of the two runs has read.
    await feed.push([2]).taken();
    await second.stop({ drain: true });
    expect(store.records).toEqual([3]);
  });

  it('follows the signal of the options', async () => {
    const abort = new AbortController();
    const running = ends(await sums(new Feed<number>({ bounded: true }), new Store()).start({ signal: abort.signal }));
    abort.abort();
    expect((await running.finished).status).toBe('cancelled');
  });
});
