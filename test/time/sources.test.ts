import { job, type Stream, sum, tumbling, type WatermarkStrategy } from 'millrace';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, Store, temporaryFolder } from '../protocols/lab.ts';
import { DrivenClock, jobBy, rest } from './driven-clock.ts';

/** Writes down records and watermarks in the order in which one instance sees them. */
function timeline(stream: Stream<number>, into: string[], uid = 'timeline'): void {
  stream
    .process<number>(uid, {
      onRecord: (v) => void into.push(String(v)),
      onWatermark: (time) => void into.push(`|${time}`),
    })
    .parallelism(1);
}

const BY_VALUE: WatermarkStrategy<number> = { timestamp: (v) => v };

async function started(build: (seen: string[], source: (feed: Feed<number>, strategy?: WatermarkStrategy<number>) => Stream<number>) => void, parallelism = 1) {
  const clock = new DrivenClock();
  const seen: string[] = [];
  const running = ends(
    await jobBy(clock)('timed', (env) => {
      let n = 0;
      build(seen, (feed, strategy) => env.source(`in-${n++}`, feed, strategy));
    }).start({ parallelism }),
  );
  return { clock, seen, running };
}

describe('an unbounded source', () => {
  it('says watermarks every 200 ms, not with each batch', async () => {
    const feed = new Feed<number>({ bounded: false });
    const { clock, seen } = await started((into, source) => timeline(source(feed, { ...BY_VALUE, outOfOrderness: 5 }), into));
    feed.push([10]).push([20]).push([15]);
    await clock.advance(199);
    expect(seen).toEqual(['10', '20', '15']);
    await clock.advance(1);
    expect(seen.splice(0)).toEqual(['10', '20', '15', '|14']);
    await clock.advance(1000);
    feed.push([30]);
    await clock.advance(200);
    expect(seen).toEqual(['30', '|24']);
  });

  it('says none without a strategy, until it ends', async () => {
    const feed = new Feed<number>({ bounded: false });
    const { clock, seen, running } = await started((into, source) => timeline(source(feed), into));
    feed.push([1], [100]);
    await clock.advance(1000);
    expect(seen).toEqual(['1']);
    feed.end();
    await running.finished;
    expect(seen).toEqual(['1', '|Infinity']);
  });

  it('is not moved by records without a timestamp', async () => {
    const feed = new Feed<number>({ bounded: false });
    const { clock, seen } = await started((into, source) => timeline(source(feed, { timestamp: (v) => (v === 7 ? Number.NaN : v) }), into));
    feed.push([7]);
    await clock.advance(200);
    feed.push([5, 7]);
    await clock.advance(200);
    expect(seen).toEqual(['7', '5', '7', '|4']);
  });

  it('asks a generator of one’s own with each record and each 200 ms, one a split', async () => {
    const feed = new Feed<number>({ bounded: false, splits: ['a', 'b'] });
    let made = 0;
    const strategy: WatermarkStrategy<number> = {
      ...BY_VALUE,
      generator() {
        made += 1;
        let periods = 0;
        return { onRecord: (v) => (v % 2 === 0 ? v : undefined), onPeriodic: () => (++periods === 3 ? 500 : undefined) };
      },
    };
    const { clock, seen } = await started((into, source) => timeline(source(feed, strategy), into));
    await rest();
    expect(made).toBe(2);
    feed.push([4], undefined, 'a').push([6, 7], undefined, 'b');
    await rest();
    seen.splice(0);
    await clock.advance(600);
    expect(seen).toEqual(['|4', '|500']);
  });

  it('with several splits says the least, without those that are idle', async () => {
    const feed = new Feed<number>({ bounded: false, splits: ['a', 'b'] });
    const { clock, seen } = await started((into, source) => timeline(source(feed, { ...BY_VALUE, idleness: 1000 }), into));
    feed.push([100], undefined, 'a').push([50], undefined, 'b');
    await clock.advance(200);
    expect(seen.splice(0).at(-1)).toBe('|49');
    for (let t = 0; t < 5; t++) {
      feed.push([101 + t], undefined, 'a');
      await clock.advance(200);
    }
    expect(seen.at(-1)).toBe('|104');
    expect(seen.filter((s) => s.startsWith('|'))).toEqual(['|103', '|104']);
    // It wakes below what was said: nothing falls.
    feed.push([60], undefined, 'b').push([110], undefined, 'a');
    await clock.advance(200);
    feed.push([120], undefined, 'b');
    await clock.advance(200);
    expect(seen.slice(seen.indexOf('|104') + 1).filter((s) => s.startsWith('|'))).toEqual(['|109']);
  });

  it('says the largest where all its splits are idle, and holds back no other source', async () => {
    const [idle, busy] = [new Feed<number>({ bounded: false, splits: ['a', 'b'] }), new Feed<number>({ bounded: false })];
    const { clock, seen } = await started((into, source) => timeline(source(idle, { ...BY_VALUE, idleness: 1000 }).union(source(busy, BY_VALUE)), into));
    idle.push([100], undefined, 'a').push([50], undefined, 'b');
    busy.push([1000]);
    await clock.advance(200);
    expect(seen.at(-1)).toBe('|49');
    await clock.advance(1000);
    expect(seen.filter((s) => s.startsWith('|'))).toEqual(['|49', '|99', '|999']);
  });

  it('of which an instance has no split is not held back by it, and is as soon as that one gets one', async () => {
    const feed = new Feed<number>({ bounded: false, splits: ['a'], open: true });
    const { clock, seen } = await started((into, source) => timeline(source(feed, BY_VALUE).parallelism(2), into));
    feed.push([100], undefined, 'a');
    await clock.advance(200);
    expect(seen).toEqual(['100', '|99']);
    feed.addSplit('b');
    await rest();
    // It counts once it has reached what was said without it.
    feed.push([200], undefined, 'a').push([50], undefined, 'b');
    await clock.advance(200);
    expect(seen.splice(0).at(-1)).toBe('|199');
    feed.push([300], undefined, 'b');
    await clock.advance(200);
    feed.push([400], undefined, 'a');
    await clock.advance(200);
    expect(seen).toEqual(['300', '400', '|299']);
  });

  it('is not held back by a split that has ended', async () => {
    const feed = new Feed<number>({ bounded: false, splits: ['a', 'b'] });
    const { clock, seen } = await started((into, source) => timeline(source(feed, BY_VALUE), into));
    feed.push([100], undefined, 'a').push([50], undefined, 'b');
    await clock.advance(200);
    feed.end('b');
    await clock.advance(200);
    expect(seen.filter((s) => s.startsWith('|'))).toEqual(['|49', '|99']);
  });

  it('hears of the time in a split that was read to its end at once', async () => {
    const feed = new Feed<number>({ bounded: false, splits: ['a', 'b'], open: true });
    const { clock, seen } = await started((into, source) => timeline(source(feed, BY_VALUE), into));
    feed.push([50], undefined, 'a').push([100], undefined, 'b').end('a').end('b');
    await clock.advance(200);
    expect(seen.filter((s) => s.startsWith('|'))).toEqual(['|99']);
    // The next one does not make time fall, and takes it on.
    feed.addSplit('c');
    feed.push([200], undefined, 'c').end('c');
    await clock.advance(200);
    expect(seen.filter((s) => s.startsWith('|'))).toEqual(['|99', '|199']);
  });

  it('that ends while it is idle is heard to end: its windows fire', async () => {
    const feed = new Feed<number>({ bounded: false });
    const clock = new DrivenClock();
    const out: number[] = [];
    const running = ends(
      await jobBy(clock)('ending', (env) => {
        env
          .source('in', feed, { ...BY_VALUE, idleness: 1000 })
          .keyBy(() => 'k')
          .window(tumbling(1000))
          .aggregate(
            'sums',
            sum((v) => v),
          )
          .forEach('out', (w) => void out.push(w.value));
      }).start(),
    );
    feed.push([1, 2]);
    await clock.advance(2000);
    feed.end();
    expect((await running.finished).status).toBe('finished');
    expect(out).toEqual([3]);
  });

  it('that is idle is not at its end because another source has ended: what it says later is not late', async () => {
    const [ended, idle] = [new Feed<number>({ bounded: true }), new Feed<number>({ bounded: false })];
    const { clock, seen, running } = await started((into, source) =>
      timeline(source(ended, BY_VALUE).union(source(idle, { ...BY_VALUE, idleness: 1000 })), into),
    );
    idle.push([5]);
    ended.push([10]).end();
    await clock.advance(3000);
    expect(seen.filter((s) => s.startsWith('|'))).toEqual(['|4', '|9']);
    idle.push([20]);
    await clock.advance(200);
    expect(seen.slice(-2)).toEqual(['20', '|19']);
    idle.end();
    await running.finished;
    expect(seen.at(-1)).toBe('|Infinity');
  });
});

describe('the clock of idleness', () => {
  it('stands still under back-pressure: a split that could not be read is not idle', async () => {
    const feed = new Feed<number>({ bounded: false, splits: ['a', 'b'] });
    const clock = new DrivenClock();
    const watermarks: number[] = [];
    let release!: () => void;
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    ends(
      await jobBy(clock)('pressed', (env) => {
        const slow = env.source('in', feed, { ...BY_VALUE, idleness: 1000 }).rebalance();
        slow
          .process<number>('watch', { onRecord: (v, ctx) => ctx.emit(v), onWatermark: (time) => void watermarks.push(time) })
          .rebalance()
          .forEach('out', () => released);
      }).start(),
    );
    await feed.push([1], undefined, 'b').taken('b');
    for (let batch = 0; batch < 60; batch++)
      feed.push(
        Array.from({ length: 512 }, (_, i) => 1000 + batch * 512 + i),
        undefined,
        'a',
      );
    await rest();
    // Split a waits for room all the time, and b with it.
    await clock.advance(10_000);
    expect(watermarks.filter((w) => w > 0)).toEqual([]);
    release();
    await feed.taken('a');
    await clock.advance(600);
    expect(watermarks.filter((w) => w > 0)).toEqual([]);
    feed.push([50_000], undefined, 'a');
    await clock.advance(600);
    expect(watermarks.at(-1)).toBeGreaterThan(1000);
  });
});

describe('a bounded source', () => {
  it('says watermarks after each batch, whatever the clock', async () => {
    const feed = new Feed<number>().push([1, 5]).push([3]).push([9]).end();
    const { seen, running } = await started((into, source) => timeline(source(feed, { ...BY_VALUE, outOfOrderness: 1 }), into));
    await running.finished;
    expect(seen).toEqual(['1', '5', '|3', '3', '9', '|7', '|Infinity']);
  });

  it('at a parallelism above the number of its splits loses nothing: no instance is idle before it knows its share', async () => {
    for (const parallelism of [1, 2, 5]) {
      const late: number[] = [];
      const sums: number[] = [];
      await job('many', (env) => {
        const windows = env
          .fromArray(
            'in',
            Array.from({ length: 3000 }, (_, i) => i),
            BY_VALUE,
          )
          .keyBy(() => 'k')
          .window(tumbling(1000))
          .aggregate(
            'sums',
            sum(() => 1),
          );
        windows.forEach('out', (w) => void sums.push(w.value));
        windows.late().forEach('late', (v) => void late.push(v));
      }).run({ parallelism });
      expect({ sums, late }).toEqual({ sums: [1000, 1000, 1000], late: [] });
    }
  });
});

describe('a restored source', () => {
  it('says the stored watermark of each split before its first record', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: true, splits: ['a', 'b'] });
    const seen: string[] = [];
    const build = job('restored', (env) => timeline(env.source('in', feed, BY_VALUE), seen));
    const first = ends(await build.start({ checkpoints: checkpointsIn(folder) }));
    await feed.push([100], undefined, 'a').push([50], undefined, 'b').taken();
    await first.stop();
    seen.splice(0);
    const second = ends(await build.start({ checkpoints: checkpointsIn(folder) }));
    await feed.push([60], undefined, 'b').taken();
    feed.end();
    await second.finished;
    expect(seen).toEqual(['60', '|59', '|Infinity']);
  });
});

describe('sources that are aligned', () => {
  const aligned = (maxDrift: number): WatermarkStrategy<number> => ({ ...BY_VALUE, align: { group: 'g', maxDrift } });
  /** Two sources in regions of their own. */
  const sources = (slow: Feed<number>, fast: Feed<number>, out: { slow: number[]; fast: number[] }, maxDrift = 150) =>
    job('aligned', (env) => {
      env.source('slow', slow, aligned(maxDrift)).forEach('slow-out', (v) => void out.slow.push(v));
      env.source('fast', fast, aligned(maxDrift)).forEach('fast-out', (v) => void out.fast.push(v));
    });

  it('wait for the slowest: who is more than maxDrift ahead gets no records', async () => {
    const [slow, fast] = [new Feed<number>(), new Feed<number>()];
    const out = { slow: [] as number[], fast: [] as number[] };
    const running = ends(await sources(slow, fast, out).start());
    await slow.push([0]).taken();
    for (let t = 0; t < 1000; t += 100) fast.push([t]);
    await rest();
    expect(out.fast).toEqual([0, 100, 200]);
    await slow.push([300]).taken();
    await rest();
    expect(out.fast).toEqual([0, 100, 200, 300, 400, 500]);
    // One that has ended holds nobody.
    slow.end();
    fast.end();
    expect((await running.finished).status).toBe('finished');
    expect(out.fast).toHaveLength(10);
  });

  it('also splits of one source, in several instances', async () => {
    const feed = new Feed<number>({ splits: ['a', 'b', 'c'] });
    const out: number[] = [];
    const running = ends(
      await job('one', (env) => {
        env.source('in', feed, aligned(150)).forEach('out', (v) => void out.push(v));
      }).start({ parallelism: 2 }),
    );
    await feed.push([0], undefined, 'a').taken('a');
    for (let t = 0; t < 1000; t += 100) feed.push([t], undefined, 'b').push([t + 1], undefined, 'c');
    await rest();
    expect(out.toSorted((a, b) => a - b)).toEqual([0, 0, 1, 100, 101, 200, 201]);
    feed.end();
    await running.finished;
    expect(out).toHaveLength(21);
  });

  it('let barriers pass while they wait, and keep what waits in the snapshot', async () => {
    const folder = await temporaryFolder();
    const [slow, fast] = [new Feed<number>(), new Feed<number>()];
    const store = new Store<number>();
    const build = job('waiting', (env) => {
      env
        .source('slow', slow, aligned(150))
        .union(env.source('fast', fast, aligned(150)))
        .sink('out', store);
    });
    const first = ends(await build.start({ checkpoints: checkpointsIn(folder) }));
    await slow.push([0]).taken();
    for (let t = 0; t < 1000; t += 100) fast.push([t]);
    await rest();
    await first.checkpoint();
    await store.until((all) => all.length === 4);
    await first.stop();
    slow.push([2000]).end();
    fast.end();
    await build.run({ checkpoints: checkpointsIn(folder) });
    expect(store.records.toSorted((a, b) => a - b)).toEqual([0, 0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 2000]);
  });

  it('a stop and a drain pass too', async () => {
    for (const drain of [false, true]) {
      const folder = await temporaryFolder();
      const [slow, fast] = [new Feed<number>({ bounded: true }), new Feed<number>({ bounded: true })];
      const out = { slow: [] as number[], fast: [] as number[] };
      const running = ends(await sources(slow, fast, out).start({ checkpoints: checkpointsIn(folder) }));
      await slow.push([0]).taken();
      fast.push([100]).push([200]).push([300]);
      await rest();
      expect((await running.stop({ drain })).status).toBe('stopped');
    }
  });

  it('do not wait for one that is idle', async () => {
    const clock = new DrivenClock();
    const [slow, fast] = [new Feed<number>({ bounded: false }), new Feed<number>({ bounded: false })];
    const fastOut: number[] = [];
    ends(
      await jobBy(clock)('idle', (env) => {
        env.source('slow', slow, { ...aligned(150), idleness: 1000 }).forEach('slow-out', () => {});
        env.source('fast', fast, { ...aligned(150), idleness: 1000 }).forEach('fast-out', (v) => void fastOut.push(v));
      }).start(),
    );
    slow.push([0]);
    await clock.advance(200);
    fast.push([1000]);
    await clock.advance(200);
    fast.push([2000]).push([3000]);
    await clock.advance(400);
    expect(fastOut).toEqual([1000]);
    await clock.advance(1000);
    expect(fastOut).toEqual([1000, 2000, 3000]);
  });

  it('do not wait for one that is away', async () => {
    const [slow, fast] = [new Feed<number>(), new Feed<number>()];
    const fastOut: number[] = [];
    const running = ends(
      await job('away', (env) => {
        env.source('slow', slow, aligned(150)).forEach('slow-out', (v) => {
          if (v === 1) throw new Error('crash');
        });
        env.source('fast', fast, aligned(150)).forEach('fast-out', (v) => void fastOut.push(v));
      }).start({ restarts: { max: 1, within: 1000, backoff: { initial: 3_600_000, max: 3_600_000, jitter: 0 } } }),
    );
    await slow.push([0]).taken();
    for (let t = 0; t < 1000; t += 100) fast.push([t]);
    await rest();
    expect(fastOut).toEqual([0, 100, 200]);
    slow.push([1]);
    await fast.taken();
    expect(fastOut).toHaveLength(10);
    await running.cancel();
  });
});
