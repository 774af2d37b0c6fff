import { job, memory, type } from 'millrace';
import { expect, it } from 'vitest';
import { Conditions, checkpointsIn, ends, Feed, RESTARTS, rejection, Store, startWithFaults, temporaryFolder, Watch } from '../protocols/lab.ts';

/** Each source with its own sink: as many regions as feeds. */
function apart(feeds: readonly Feed<number>[], stores: readonly Store<number>[]) {
  return job('apart', (env) => {
    feeds.forEach((feed, i) => {
      env
        .source(`in-${i}`, feed)
        .keyBy(() => 'k')
        .reduce(`sum-${i}`, (a, b) => a + b)
        .sink(`out-${i}`, stores[i]!);
    });
  });
}

const endless = (count: number): Feed<number>[] => Array.from({ length: count }, () => new Feed<number>({ bounded: false }));
const storesFor = (feeds: readonly unknown[]): Store<number>[] => feeds.map(() => new Store<number>());

it('counts a checkpoint that failed as one restart, however many regions go back for it', async () => {
  const folder = await temporaryFolder();
  const watch = new Watch();
  const feeds = endless(7);
  const stores = storesFor(feeds);
  const running = ends(
    await startWithFaults(apart(feeds, stores), 'checkpoint.metadata.write=fail', { checkpoints: checkpointsIn(folder), onEvent: watch.onEvent }),
  );
  await rejection(running.checkpoint());
  await watch.restarted();
  expect(watch.of('restart').map((e) => e.count)).toEqual([1]);
  for (const feed of feeds) await feed.push([1]).taken();
  expect(await running.stop()).toMatchObject({ status: 'stopped', restarts: 1 });
  expect(stores.map((s) => s.records)).toEqual(feeds.map(() => [1]));
});

it('stops only when a region that failed in its last commit is back and has committed', async () => {
  const folder = await temporaryFolder();
  const feeds = endless(2);
  const [first, second] = storesFor(feeds);
  const watch = new Watch();
  const running = ends(await apart(feeds, [first!, second!]).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }));
  for (const feed of feeds) await feed.push([1]).taken();
  let failures = 0;
  first!.before = () => {
    if (failures++ === 0) throw new Error('not now');
  };
  // The other region commits while the first one is away.
  second!.before = () => watch.until((w) => w.of('restart').length === 1);
  expect((await running.stop()).status).toBe('stopped');
  expect([first!.records, second!.records]).toEqual([[1], [1]]);
});

it('closes a region whose opening was overtaken by a restart', async () => {
  const folder = await temporaryFolder();
  const feeds = endless(2);
  const stores = storesFor(feeds);
  const inner = memory() as unknown as { readonly kind: string; open(options: { name: string }): Promise<{ close(): Promise<void> }> };
  const conditions = new Conditions();
  let opens = 0;
  let closed = 0;
  const state = {
    ...inner,
    async open(options: { name: string }) {
      const mine = ++opens;
      if (mine === 1) throw new Error('not now');
      conditions.changed();
      // The second region's first opening comes to its end behind its second.
      if (mine === 2) await conditions.until(() => opens === 4);
      const region = await inner.open(options);
      if (mine !== 2) return region;
      const { close } = region;
      region.close = () => {
        closed += 1;
        conditions.changed();
        return close.call(region);
      };
      return region;
    },
  };
  const running = ends(await apart(feeds, stores).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, state: state as never }));
  await conditions.until(() => closed === 1);
  for (const feed of feeds) await feed.push([1]).taken();
  expect((await running.stop()).status).toBe('stopped');
  expect(feeds.map((f) => f.reads.length)).toEqual([1, 1]);
  expect(stores.map((s) => s.records)).toEqual([[1], [1]]);
});

it('begins anew only when a region that takes long to go down is back too', async () => {
  const folder = await temporaryFolder();
  const conditions = new Conditions();
  const feeds = endless(2);
  const stores = storesFor(feeds);
  const [first] = stores;
  const { open } = first!;
  let opens = 0;
  first!.open = (context) => {
    opens += 1;
    conditions.changed();
    return open.call(first, context);
  };
  let slow = true;
  const twoWithOneSlow = job('apart', (env) => {
    feeds.forEach((feed, i) => {
      env
        .source(`in-${i}`, feed)
        .process(`pass-${i}`, {
          emits: type<number>(),
          onRecord: (n, context) => context.emit(n),
          async onStop() {
            if (i === 0 || !slow) return;
            slow = false;
            await conditions.until(() => opens === 2);
            // The other region is open, and says so.
            for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
          },
        })
        .sink(`out-${i}`, stores[i]!);
    });
  });
  const running = ends(await startWithFaults(twoWithOneSlow, 'checkpoint.metadata.write=fail', { checkpoints: checkpointsIn(folder), restarts: RESTARTS }));
  await rejection(running.checkpoint());
  for (const feed of feeds) await feed.push([1]).taken();
  expect(await running.stop()).toMatchObject({ status: 'stopped', restarts: 1 });
  expect(stores.map((s) => s.records)).toEqual([[1], [1]]);
});
