import { type Job, job } from 'millrace';
import { describe, expect, it } from 'vitest';
import { MillraceError } from '../../src/errors.ts';
import type { JobRun } from '../../src/execution/job-run.ts';
import { checkpointsIn, ends, Feed, jobOn, RESTARTS, rejection, Store, startWithFaults, temporaryFolder, Watch } from '../protocols/lab.ts';

interface Word {
  readonly key: string;
  readonly n: number;
}
const KEYS = Array.from({ length: 30 }, (_, i) => `key ${i}`);
const round = (n: number): Word[] => KEYS.map((key) => ({ key, n }));
const add = (left: Word, right: Word): Word => ({ key: left.key, n: left.n + right.n });

const sums = (feed: Feed<Word>, store: Store<Word>, make = job): Job =>
  make('sums', (env) => {
    env
      .source('in', feed)
      .keyBy(({ key }) => key)
      .reduce('sum', add)
      .sink('out', store);
  });
const feedOf = () => new Feed<Word>({ bounded: false, splits: ['a', 'b', 'c'] });
const newest = (words: readonly Word[]) => Object.fromEntries(words.map(({ key, n }) => [key, n]));
const instancesOf = async (run: JobRun): Promise<number> =>
  (await run.tree()).children[0]!.children.flatMap((region) => region.children).filter(({ name }) => name.startsWith('sum-')).length;
/** Rescaling is asked for through the door; tests ask what is behind it. */
const asRun = (running: unknown): JobRun => running as JobRun;

describe('rescaling a running job', () => {
  it('goes on from where it stood, in the same run, at 1, 4 and 3 instances', async () => {
    const folder = await temporaryFolder();
    const [feed, store, watch] = [feedOf(), new Store<Word>(), new Watch()];
    const run = asRun(ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder), onEvent: watch.onEvent })));
    let n = 0;
    const fed = async (): Promise<void> => {
      n += 1;
      for (const split of ['a', 'b', 'c']) feed.push(round(n), undefined, split);
      await feed.taken();
    };
    await fed();
    for (const parallelism of [4, 3, 1, 2]) {
      const told = await run.rescale(parallelism);
      expect(told).toMatchObject({ parallelism, checkpoint: { id: expect.any(Number) } });
      expect(await instancesOf(run)).toBe(parallelism);
      expect(run.status).toBe('running');
      await fed();
    }
    const result = await run.stop();
    expect(result).toMatchObject({ status: 'stopped', restarts: 0 });
    expect(newest(store.records)).toEqual(Object.fromEntries(KEYS.map((key) => [key, 3 * (1 + 2 + 3 + 4 + 5)])));
    expect(store.records).toHaveLength(5 * 3 * KEYS.length);
    expect(watch.of('restart')).toEqual([]);
  });

  it('a failure after it goes back to the newest checkpoint at the parallelism that was decided on', async () => {
    const folder = await temporaryFolder();
    const [feed, store, watch] = [feedOf(), new Store<Word>(), new Watch()];
    const run = asRun(ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent })));
    feed.push(round(1), undefined, 'a');
    await feed.taken();
    await run.rescale(3);
    let fails = true;
    store.before = () => {
      if (!fails) return;
      fails = false;
      throw new Error('no connection');
    };
    feed.push(round(2), undefined, 'b');
    await feed.taken();
    await run.checkpoint();
    await watch.restarted();
    expect(await instancesOf(run)).toBe(3);
    await run.stop();
    expect(newest(store.records)).toEqual(Object.fromEntries(KEYS.map((key) => [key, 3])));
    expect(store.records).toHaveLength(2 * KEYS.length);
  });

  it('is over before the job is handed over, behind a checkpoint that follows', async () => {
    const folder = await temporaryFolder();
    const [feed, store, watch] = [feedOf(), new Store<Word>(), new Watch()];
    const run = asRun(ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder), onEvent: watch.onEvent })));
    feed.push(round(1), undefined, 'a');
    await feed.taken();
    const rescaled = run.rescale(2);
    const handed = run.handOver(new MillraceError('CLUSTER_LEFT', 'It leaves.'));
    const { checkpoint } = await rescaled;
    expect(await handed).toBe(true);
    expect(watch.of('checkpoint').at(-1)!.checkpoint.id).toBeGreaterThan(checkpoint.id);
    expect(watch.of('restart')).toEqual([]);
  });

  it('whose checkpoint fails says so, and the job goes on as it was', async () => {
    const folder = await temporaryFolder();
    const [feed, store, watch] = [feedOf(), new Store<Word>(), new Watch()];
    const running = await startWithFaults(sums(feed, store), 'checkpoint.metadata.write=fail@1', {
      checkpoints: checkpointsIn(folder, { tolerate: 5 }),
      restarts: RESTARTS,
      onEvent: watch.onEvent,
    });
    const run = asRun(ends(running));
    feed.push(round(1), undefined, 'a');
    await feed.taken();
    expect(await rejection(run.rescale(4))).toMatchObject({ code: 'CHECKPOINT_FAILED' });
    await watch.restarted();
    expect(await instancesOf(run)).toBe(1);
    await run.rescale(4);
    expect(await instancesOf(run)).toBe(4);
    feed.push(round(1), undefined, 'b');
    await feed.taken();
    await run.stop();
    expect(newest(store.records)).toEqual(Object.fromEntries(KEYS.map((key) => [key, 2])));
  });

  it('is refused, with nothing changed: more than there are key groups, none, twice at once, and without checkpoints', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [feedOf(), new Store<Word>()];
    const run = asRun(ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder), maxParallelism: 8 })));
    expect(await rejection(run.rescale(9))).toMatchObject({ code: 'MAX_PARALLELISM_CHANGED' });
    expect(await rejection(run.rescale(0))).toMatchObject({ code: 'OPTION_INVALID' });
    expect(await instancesOf(run)).toBe(1);
    const [first, second] = await Promise.allSettled([run.rescale(2), run.rescale(3)]);
    expect(first).toMatchObject({ status: 'fulfilled', value: { parallelism: 2 } });
    expect(second).toMatchObject({ status: 'rejected', reason: { code: 'RESCALE_REFUSED' } });
    const stopping = run.stop();
    expect(await rejection(run.rescale(3))).toMatchObject({ code: expect.stringMatching(/RESCALE_REFUSED|JOB_ENDED/) });
    await stopping;
    const without = asRun(ends(await job('none', (env) => void env.source('in', feedOf()).forEach('out', () => {})).start()));
    expect(await rejection(without.rescale(2))).toMatchObject({ code: 'CHECKPOINTS_OFF' });
  });

  it('a stop that comes in the middle of it stops the job behind a checkpoint of all that was read', async () => {
    const folder = await temporaryFolder();
    const [feed, store] = [feedOf(), new Store<Word>()];
    let reached!: () => void;
    const opening = new Promise<void>((resolve) => {
      reached = resolve;
    });
    let opened = 0;
    const held = jobOn((name) => {
      if (name !== 'restore.state.open') return undefined;
      opened += 1;
      if (opened === 2) reached();
      return undefined;
    });
    const run = asRun(ends(await sums(feed, store, held).start({ checkpoints: checkpointsIn(folder) })));
    feed.push(round(1), undefined, 'a');
    await feed.taken();
    const rescaling = run.rescale(3).catch(() => {});
    await opening;
    feed.push(round(2), undefined, 'c');
    expect(await run.stop()).toMatchObject({ status: 'stopped' });
    await rescaling;
    const again = asRun(ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder), parallelism: 2 })));
    await feed.taken();
    await again.stop();
    expect(newest(store.records)).toEqual(Object.fromEntries(KEYS.map((key) => [key, 3])));
    expect(store.records).toHaveLength(2 * KEYS.length);
  });
});
