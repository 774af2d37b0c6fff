import { job, type RunOptions, sum, tumbling, type, value } from 'millrace';
import { describe, expect, it } from 'vitest';
import { readMetadata } from '../../src/checkpoint/metadata.ts';
import { directory } from '../../src/storage/directory.ts';
import { Conditions, checkpointsIn, ends, Feed, RESTARTS, Store, temporaryFolder, Watch } from './lab.ts';

type Running = Awaited<ReturnType<ReturnType<typeof job>['start']>>;

/** Checkpoints until one has been taken in which the source of that uid has ended in all its instances. */
async function untilEnded(running: Running, uid: string): Promise<void> {
  for (;;) {
    const { tasks } = await readMetadata(directory('.'), (await running.checkpoint()).path);
    const of = tasks.filter((t) => t.vertex === uid);
    if (of.length === 0 || of.every((t) => t.ended)) return;
  }
}

const numerically = (values: readonly number[]): number[] => values.toSorted((a, b) => a - b);

describe('protocols 20: jobs in which some inputs have ended and others go on', () => {
  for (const ended of ['left', 'right'] as const) {
    it(`checkpoints go on while the ${ended} side of a connect has ended; after a crash it is not read again, and its state is there`, async () => {
      const folder = await temporaryFolder();
      const sides = { left: new Feed<number>(), right: new Feed<number>() };
      const other = ended === 'left' ? 'right' : 'left';
      const store = new Store<string>();
      const watch = new Watch();
      const fuse = { lit: false };
      const running = ends(
        await job('connected', (env) => {
          env
            .source('left', sides.left)
            .keyBy(() => 'k')
            .connect(env.source('right', sides.right).keyBy(() => 'k'))
            .process<string, { sum: ReturnType<typeof value<number>> }>('sums', {
              state: { sum: value<number>() },
              onLeft(v, ctx) {
                ctx.state.sum.set((ctx.state.sum.get() ?? 0) + v);
                ctx.emit(`left ${ctx.state.sum.get()}`);
              },
              onRight(v, ctx) {
                ctx.state.sum.set((ctx.state.sum.get() ?? 0) + v);
                ctx.emit(`right ${ctx.state.sum.get()}`);
              },
            })
            .map((v) => {
              if (!fuse.lit) return v;
              fuse.lit = false;
              throw new Error('crash');
            })
            .sink('out', store);
        }).start({ parallelism: 2, checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }),
      );
      await sides[ended].push([1, 2]).taken();
      sides[ended].end();
      await untilEnded(running, ended);
      await sides[other].push([10]).taken();
      await running.checkpoint();
      fuse.lit = true;
      sides[other].push([100]);
      await watch.restarted();
      await sides[other].push([1000]).taken();
      await running.checkpoint();
      sides[other].end();
      expect(await running.finished).toMatchObject({ status: 'finished', restarts: 1 });
      expect(sides[ended].reads).toHaveLength(1);
      expect(store.records).toEqual([`${ended} 1`, `${ended} 3`, `${other} 13`, `${other} 113`, `${other} 1113`]);
    });
  }

  it('a broadcast side that has ended is known in every instance, also in those that come with a rescale', async () => {
    const folder = await temporaryFolder();
    const [rules, values] = [new Feed<number>(), new Feed<number>({ splits: ['a', 'b', 'c'] })];
    const store = new Store<number>();
    const build = job('ruled', (env) => {
      const ruled = env.source('rules', rules).parallelism(1).broadcast();
      let factor = 1;
      env
        .source('values', values)
        .rebalance()
        .connect(ruled)
        .process<number>('apply', {
          emits: type<number>(),
          onLeft: (v, ctx) => ctx.emit(v * factor),
          onRight(v) {
            factor = v;
          },
        })
        .sink('out', store);
    });
    const options: RunOptions = { checkpoints: checkpointsIn(folder) };
    const first = ends(await build.start({ ...options, parallelism: 2 }));
    await rules.push([10]).taken();
    rules.end();
    await untilEnded(first, 'rules');
    for (const split of ['a', 'b', 'c']) await values.push([1, 2], undefined, split).taken(split);
    await first.checkpoint();
    await first.stop();
    expect(numerically(store.records)).toEqual([10, 10, 10, 20, 20, 20]);
    const second = ends(await build.start({ ...options, parallelism: 3 }));
    for (const split of ['a', 'b', 'c']) await values.push([3], undefined, split).taken(split);
    values.end();
    expect((await second.finished).status).toBe('finished');
    expect(rules.reads).toHaveLength(1);
    expect(store.records).toHaveLength(9);
  });

  it('checkpoints go on while an asyncMap has calls open whose input has ended; after a crash they are asked again', async () => {
    const folder = await temporaryFolder();
    const [done, open] = [new Feed<number>(), new Feed<number>()];
    const store = new Store<number>();
    const watch = new Watch();
    const conditions = new Conditions();
    const calls: { v: number; resolve: (v: number) => void; reject: (error: unknown) => void }[] = [];
    const running = ends(
      await job('asking', (env) => {
        const asked = env.source('done', done).asyncMap(
          'ask',
          (v) =>
            new Promise<number>((resolve, reject) => {
              calls.push({ v, resolve, reject });
              conditions.changed();
            }),
        );
        asked.union(env.source('open', open)).sink('out', store);
      }).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }),
    );
    await done.push([1, 2]).taken();
    done.end();
    await conditions.until(() => calls.length === 2);
    await untilEnded(running, 'done');
    // The source is gone: the barrier comes to the asyncMap by mail.
    await running.checkpoint();
    await running.checkpoint();
    calls[1]!.reject(new Error('crash'));
    await watch.restarted();
    await conditions.until(() => calls.length === 4);
    expect(calls.slice(2).map((c) => c.v)).toEqual([1, 2]);
    await open.push([3]).taken();
    await running.checkpoint();
    for (const { v, resolve } of calls.slice(2)) resolve(v * 10);
    open.end();
    expect(await running.finished).toMatchObject({ status: 'finished', restarts: 1 });
    expect(done.reads).toHaveLength(1);
    expect(numerically(store.records)).toEqual([3, 10, 20]);
  });

  it('a union of which one part has ended goes on by the time of the others, through a restore', async () => {
    const folder = await temporaryFolder();
    const [done, open] = [new Feed<number>(), new Feed<number>()];
    const store = new Store<string>();
    const build = job('union', (env) => {
      env
        .source('done', done, { timestamp: (v) => v })
        .union(env.source('open', open, { timestamp: (v) => v }))
        .keyBy(() => 'k')
        .window(tumbling(100))
        .aggregate(
          'sums',
          sum((v) => v),
        )
        .map((w) => `${w.start}: ${w.value}`)
        .sink('out', store);
    });
    const options: RunOptions = { checkpoints: checkpointsIn(folder) };
    const first = ends(await build.start(options));
    await done.push([10, 250]).taken();
    await open.push([20]).taken();
    done.end();
    await untilEnded(first, 'done');
    await open.push([150]).taken();
    await first.checkpoint();
    await first.stop();
    expect(store.records).toEqual(['0: 30']);
    const second = ends(await build.start({ ...options, parallelism: 2 }));
    await open.push([260]).taken();
    await second.checkpoint();
    await store.until((all) => all.includes('100: 150'));
    open.end();
    await second.finished;
    expect(store.records).toEqual(['0: 30', '100: 150', '200: 510']);
  });

  it('a job of which a whole region has finished goes on with the others, and finishes once', async () => {
    const folder = await temporaryFolder();
    const [done, open] = [new Feed<number>(), new Feed<number>()];
    const [near, far] = [new Store<number>(), new Store<number>()];
    const fuse = { lit: false };
    const watch = new Watch();
    const running = ends(
      await job('regions', (env) => {
        env.source('done', done).sink('near', near);
        env
          .source('open', open)
          .map((v) => {
            if (!fuse.lit) return v;
            fuse.lit = false;
            throw new Error('crash');
          })
          .sink('far', far);
      }).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }),
    );
    done.push([1]).end();
    await untilEnded(running, 'done');
    await near.until((all) => all.length === 1);
    await open.push([2]).taken();
    await running.checkpoint();
    fuse.lit = true;
    open.push([3]);
    await watch.restarted();
    open.push([4]).end();
    expect(await running.finished).toMatchObject({ status: 'finished', restarts: 1 });
    expect([near.records, far.records]).toEqual([[1], [2, 3, 4]]);
  });
});
