import { job, sum, tumbling } from 'millrace';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, jobOn, RESTARTS, rejection, Seen, Store, temporaryFolder, Watch } from '../protocols/lab.ts';

describe('fromArray', () => {
  for (const parallelism of [1, 2, 3]) {
    it(`gives every element once at parallelism ${parallelism}, also when it is restored at another one`, async () => {
      const folder = await temporaryFolder();
      const values = Array.from({ length: 5000 }, (_, i) => i);
      const store = new Store<number>();
      let fail = true;
      const build = job('array', (env) => {
        env
          .fromArray('in', values)
          .map((v) => {
            if (fail && v === 4999) throw new Error('crash');
            return v;
          })
          .sink('out', store);
      });
      await rejection(build.run({ parallelism, checkpoints: { ...checkpointsIn(folder), every: 1 }, restarts: false }));
      fail = false;
      await build.run({ parallelism: 4 - parallelism, checkpoints: checkpointsIn(folder) });
      expect(store.records.toSorted((a, b) => a - b)).toEqual(values);
    });
  }
});

describe('fromAsync', () => {
  it('is made anew after a restore, and as many records as were read are passed over', async () => {
    const folder = await temporaryFolder();
    const store = new Store<number>();
    const watch = new Watch();
    let made = 0;
    let fail = false;
    let release!: () => void;
    let reached!: () => void;
    const half = new Promise<void>((resolve) => {
      reached = resolve;
    });
    const rest = new Promise<void>((resolve) => {
      release = resolve;
    });
    const running = ends(
      await job('iterable', (env) => {
        env
          .fromAsync('in', async function* () {
            made += 1;
            for (let i = 0; i < 100; i++) {
              if (i === 50) {
                setImmediate(reached);
                await rest;
              }
              yield i;
            }
          })
          .map((v) => {
            if (fail) {
              fail = false;
              throw new Error('crash');
            }
            return v;
          })
          .sink('out', store);
      }).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }),
    );
    await half;
    await running.checkpoint();
    await store.until((r) => r.length > 0);
    fail = true;
    release();
    await watch.restarted();
    await running.finished;
    expect(made).toBe(2);
    expect(store.records).toEqual(Array.from({ length: 100 }, (_, i) => i));
  });

  it('that fails is SOURCE_FAILED with its error as cause', async () => {
    const error = await rejection(
      job('failing', (env) => {
        env
          // biome-ignore lint/correctness/useYield: it fails before
          .fromAsync('in', async function* (): AsyncGenerator<number> {
            throw new RangeError('broken');
          })
          .forEach('out', () => {});
      }).run(),
    );
    expect(error).toMatchObject({ code: 'SOURCE_FAILED', uid: 'in', cause: { message: 'broken' } });
  });
});

describe('a source', () => {
  it('whose splits, or whose read, throw at once is SOURCE_FAILED as well', async () => {
    const broken = (): never => {
      throw new RangeError('broken');
    };
    const base = { bounded: true, splits: async () => ['a'], splitId: () => 'a', async *read() {} };
    for (const part of [{ splits: broken }, { read: broken }, { splitId: broken }, { splits: async () => broken() }]) {
      const error = await rejection(job('broken', (env) => void env.source('in', { ...base, ...part } as never).forEach('out', () => {})).run());
      expect(error).toMatchObject({ code: 'SOURCE_FAILED', uid: 'in', cause: { message: 'broken' } });
    }
  });

  it('is told of completed checkpoints; what it throws then changes nothing', async () => {
    const folder = await temporaryFolder();
    const told: [string, number][][] = [];
    const feed = new Feed<number>({ bounded: false });
    const source = Object.assign(feed, {
      async onCheckpointComplete(positions: Map<string, number>) {
        told.push([...positions]);
        throw new Error('not interested');
      },
    });
    const running = ends(await job('told', (env) => void env.source('in', source).forEach('out', () => {})).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push([1]).taken();
    await running.checkpoint();
    await feed.push([2]).taken();
    await running.checkpoint();
    await running.stop();
    expect(told.slice(0, 2)).toEqual([[['all', 1]], [['all', 2]]]);
  });

  it('is told the positions that the checkpoint holds, and not what was read while it completed', async () => {
    const folder = await temporaryFolder();
    const told: [string, number][][] = [];
    const feed = new Feed<number>({ bounded: false });
    const source = Object.assign(feed, {
      async onCheckpointComplete(positions: Map<string, number>) {
        told.push([...positions]);
      },
    });
    let between = async (): Promise<void> => {};
    const slow = jobOn((name) => (name === 'checkpoint.register' ? between() : undefined));
    const running = ends(await slow('told', (env) => void env.source('in', source).forEach('out', () => {})).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push([1]).taken();
    between = async () => {
      between = async () => {};
      await feed.push([2]).push([3]).taken();
    };
    await running.checkpoint();
    await running.stop();
    expect(told).toEqual([[['all', 1]], [['all', 3]]]);
  });

  it('finds splits while it runs and deals them to the instance with the fewest, ties to the lowest', async () => {
    const feed = new Feed<number>({ splits: ['a', 'b'], open: true });
    const seen = new Seen<number>();
    const running = await job('found', (env) => void env.source('in', feed).sink('out', seen)).start({ parallelism: 2 });
    await feed.push([1], undefined, 'a').push([2], undefined, 'b').taken();
    for (const [i, name] of ['c', 'd', 'e'].entries())
      await feed
        .addSplit(name)
        .push([i + 3], undefined, name)
        .taken();
    feed.end();
    await running.finished;
    expect(seen.values.toSorted()).toEqual([1, 2, 3, 4, 5]);
    expect(Object.fromEntries(feed.reads.map((r) => [r.split, r.subtask]))).toEqual({ a: 0, b: 1, c: 0, d: 1, e: 0 });
  });

  it('without splits ends at once', async () => {
    const seen = new Seen<number>();
    await job('none', (env) => void env.source('in', new Feed<number>({ splits: [] }).end()).sink('out', seen)).run({ parallelism: 3 });
    expect(seen.values).toEqual([]);
  });
});

describe('event time of several sources', () => {
  const windows = (left: Feed<number>, right: Feed<number>, seen: Seen<string>, idleness?: number) =>
    job('two', (env) => {
      env
        .source('left', left, { timestamp: (v) => v, ...(idleness === undefined ? {} : { idleness }) })
        .union(env.source('right', right, { timestamp: (v) => v, ...(idleness === undefined ? {} : { idleness }) }))
        .keyBy(() => 'k')
        .window(tumbling(1000))
        .aggregate(
          'sums',
          sum((v) => v),
        )
        .map((w) => `${w.start}: ${w.value}`)
        .sink('out', seen);
    });

  it('waits for the slowest', async () => {
    const [left, right] = [new Feed<number>(), new Feed<number>()];
    const seen = new Seen<string>();
    const running = await windows(left, right, seen).start();
    await left.push([1, 5000]).taken();
    await right.push([2]).taken();
    right.push([1500]);
    await seen.until((v) => v.length === 1);
    expect(seen.values).toEqual(['0: 3']);
    left.end();
    right.end();
    await running.finished;
    expect(seen.values).toEqual(['0: 3', '1000: 1500', '5000: 5000']);
  });

  it('does not wait for one that has ended', async () => {
    const [left, right] = [new Feed<number>(), new Feed<number>()];
    const seen = new Seen<string>();
    const running = await windows(left, right, seen).start();
    right.end();
    left.push([1, 5000]);
    await seen.until((v) => v.length === 1);
    left.end();
    await running.finished;
    expect(seen.values).toEqual(['0: 1', '5000: 5000']);
  });

  it('does not wait for one that is idle, and takes it back when it wakes', async () => {
    const [left, right] = [new Feed<number>({ bounded: false }), new Feed<number>({ bounded: false })];
    const seen = new Seen<string>();
    const running = ends(await windows(left, right, seen, 1).start());
    left.push([1, 5000]);
    await seen.until((v) => v.length === 1);
    // When both are idle event time is at the largest; what is behind it is late.
    await right.push([2, 4999, 7000]).taken();
    await left.push([6000]).taken();
    await seen.until((v) => v.includes('5000: 5000'));
    await running.stop({ drain: true });
    expect(seen.values[0]).toBe('0: 1');
    expect(seen.values.slice(1)).toContain('7000: 7000');
  });

  it('of a source without a strategy there is none: windows wait for the end of input', async () => {
    const [left, right] = [new Feed<number>(), new Feed<number>()];
    const out: string[] = [];
    const running = await job('none', (env) => {
      env
        .source('left', left, { timestamp: (v) => v })
        .union(env.source('right', right))
        .keyBy(() => 'k')
        .window(tumbling(1000))
        .aggregate(
          'sums',
          sum((v) => v),
        )
        .forEach('out', (w) => void out.push(`${w.start}: ${w.value}`));
    }).start();
    await left.push([1, 5000]).taken();
    await right.push([2], [2]).taken();
    left.end();
    right.end();
    await running.finished;
    expect(out).toEqual(['0: 3', '5000: 5000']);
  });
});

describe('streams', () => {
  it('keyed map, filter and flatMap run where the key lives, in the order of each key', async () => {
    const out: [string, number][] = [];
    await job('keyed', (env) => {
      env
        .fromArray(
          'in',
          Array.from({ length: 3000 }, (_, i) => ({ k: `k${i % 5}`, n: i })),
        )
        .parallelism(1)
        .keyBy((v) => v.k)
        .flatMap((v) => [v, { k: v.k, n: v.n + 0.5 }])
        .forEach('out', (v) => void out.push([v.k, v.n]));
    }).run({ parallelism: 3 });
    expect(out).toHaveLength(6000);
    for (let k = 0; k < 5; k++) {
      const ns = out.filter(([key]) => key === `k${k}`).map(([, n]) => n);
      expect(ns).toEqual(ns.toSorted((a, b) => a - b));
    }
  });

  it('rebalance deals records out in turn', async () => {
    const by = new Map<number, number>();
    await job('dealt', (env) => {
      env
        .fromArray(
          'in',
          Array.from({ length: 999 }, (_, i) => i),
        )
        .parallelism(1)
        .rebalance()
        .process('count', { onRecord: (_v, ctx) => void by.set(ctx.subtask, (by.get(ctx.subtask) ?? 0) + 1) })
        .parallelism(3);
    }).run();
    expect(Object.fromEntries(by)).toEqual({ 0: 333, 1: 333, 2: 333 });
  });
});
