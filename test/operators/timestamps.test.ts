import { type DeadLetter, job, type Stream, sum, tumbling, type WatermarkStrategy } from 'millrace';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, RESTARTS, rejection, Store, temporaryFolder, Watch } from '../protocols/lab.ts';
import { DrivenClock, jobBy, rest } from '../time/driven-clock.ts';

/** What one instance sees: records with their timestamps, and watermarks. */
function timeline(stream: Stream<number>, into: string[]): void {
  stream
    .process<number>('timeline', {
      onRecord: (v, ctx) => void into.push(Number.isNaN(ctx.timestamp) ? String(v) : `${v}@${ctx.timestamp}`),
      onWatermark: (time) => void into.push(`|${time}`),
    })
    .parallelism(1);
}

describe('timestamps()', () => {
  async function of(upstream: WatermarkStrategy<number> | undefined, strategy: WatermarkStrategy<number>): Promise<string[]> {
    const seen: string[] = [];
    await job('stamps', (env) => {
      timeline(env.source('in', new Feed<number>().push([1, 2], [10, 20]).push([3], [30]).end(), upstream).timestamps(strategy), seen);
    }).run();
    return seen;
  }

  // The source is bounded, but an operator behind it is told of time by the clock: finite watermarks come every 200 ms, or not at all in a job this short.
  const table: [string, WatermarkStrategy<number> | undefined, WatermarkStrategy<number>, string[]][] = [
    ['gives records other timestamps', undefined, { timestamp: (v) => v * 100 }, ['1@100', '2@200', '3@300', '|Infinity']],
    ['knows the timestamps that they had', undefined, { timestamp: (v, assigned) => assigned + v }, ['1@11', '2@22', '3@33', '|Infinity']],
    ['keeps them where it says nothing of them', undefined, {}, ['1@10', '2@20', '3@30', '|Infinity']],
    ['may take them away', undefined, { timestamp: () => Number.NaN }, ['1', '2', '3', '|Infinity']],
    ['lets no watermark of upstream pass, except the last', {}, { timestamp: (v) => v }, ['1@1', '2@2', '3@3', '|Infinity']],
  ];
  for (const [name, upstream, strategy, wanted] of table) it(name, async () => expect(await of(upstream, strategy)).toEqual(wanted));

  it('keeps the `this` of its strategy', async () => {
    const strategy: WatermarkStrategy<number> & { factor: number } = {
      factor: 7,
      timestamp(this: unknown, v: number) {
        return v * (this as { factor: number }).factor;
      },
    };
    expect((await of(undefined, strategy)).slice(0, 3)).toEqual(['1@7', '2@14', '3@21']);
  });

  it('says watermarks every 200 ms', async () => {
    const feed = new Feed<number>({ bounded: false });
    const clock = new DrivenClock();
    const seen: string[] = [];
    ends(await jobBy(clock)('clocked', (env) => timeline(env.source('in', feed).timestamps({ timestamp: (v) => v, outOfOrderness: 5 }), seen)).start());
    feed.push([100]).push([50]);
    await clock.advance(199);
    expect(seen).toEqual(['100@100', '50@50']);
    await clock.advance(1);
    expect(seen.splice(0)).toEqual(['100@100', '50@50', '|94']);
    feed.push([120]);
    await clock.advance(400);
    expect(seen).toEqual(['120@120', '|114']);
  });

  it('asks a generator of one’s own with each record and each 200 ms; a NaN moves nothing', async () => {
    const feed = new Feed<number>({ bounded: false });
    const clock = new DrivenClock();
    const seen: string[] = [];
    let period = 0;
    const strategy: WatermarkStrategy<number> = {
      timestamp: (v) => v,
      generator: () => ({ onRecord: (v) => (v === 7 ? Number.NaN : v), onPeriodic: () => (++period === 2 ? 1000 : undefined) }),
    };
    ends(await jobBy(clock)('custom', (env) => timeline(env.source('in', feed).timestamps(strategy), seen)).start());
    feed.push([5, 7, 3]);
    await clock.advance(400);
    expect(seen).toEqual(['5@5', '7@7', '3@3', '|5', '|1000']);
  });

  it('is idle by its own clock, not by that of upstream', async () => {
    const [quiet, busy] = [new Feed<number>({ bounded: false }), new Feed<number>({ bounded: false })];
    const clock = new DrivenClock();
    const seen: string[] = [];
    ends(
      await jobBy(clock)('idle', (env) => {
        const stamped = env.source('quiet', quiet, { timestamp: (v) => v, idleness: 400 }).timestamps({ timestamp: (v) => v, idleness: 2000 });
        timeline(stamped.union(env.source('busy', busy, { timestamp: (v) => v })), seen);
      }).start(),
    );
    quiet.push([10]);
    busy.push([500]);
    await clock.advance(1000);
    expect(seen.filter((s) => s.startsWith('|'))).toEqual(['|9']);
    await clock.advance(1600);
    expect(seen.filter((s) => s.startsWith('|'))).toEqual(['|9', '|499']);
    // It wakes: behind what was said it holds nobody, and counts once it has caught up.
    quiet.push([600]);
    busy.push([700]);
    await clock.advance(200);
    busy.push([800]);
    await clock.advance(200);
    expect(seen.filter((s) => s.startsWith('|')).at(-1)).toBe('|599');
  });

  it('that is idle when its input ends says the end all the same', async () => {
    const feed = new Feed<number>({ bounded: false });
    const clock = new DrivenClock();
    const seen: string[] = [];
    const running = ends(
      await jobBy(clock)('ends', (env) => timeline(env.source('in', feed).timestamps({ timestamp: (v) => v, idleness: 400 }), seen)).start(),
    );
    feed.push([10]);
    await clock.advance(2000);
    feed.end();
    await running.finished;
    expect(seen).toEqual(['10@10', '|9', '|Infinity']);
  });

  it('under skip makes a dead letter of a record whose timestamp function throws', async () => {
    const letters: DeadLetter[] = [];
    const out: number[] = [];
    await job('throws', (env) => {
      const stamped = env
        .fromArray('in', [1, 2, 3])
        .timestamps({
          timestamp(v) {
            if (v === 2) throw new Error('no time');
            return v;
          },
        })
        .onError('skip');
      stamped.deadLetters().forEach('letters', (l) => void letters.push(l));
      stamped.forEach('out', (v) => void out.push(v));
    }).run();
    expect(out).toEqual([1, 3]);
    expect(letters).toMatchObject([{ record: 2, error: { message: 'no time' } }]);
  });

  it('refuses align, which belongs to sources', async () => {
    const refused = job('aligned', (env) => void env.fromArray('in', [1]).timestamps({ align: { group: 'g', maxDrift: 1 } })).run();
    expect(await rejection(refused)).toMatchObject({ code: 'OPTION_INVALID' });
  });
});

describe('timestamps() and restores', () => {
  /** The clock of the second run never reaches a tick: what it knows of time, it knows from the snapshot. */
  async function restored(parallelism: number): Promise<{ late: number[]; windows: string[] }> {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<string>();
    const build = (clock: DrivenClock) =>
      jobBy(clock)('restored', (env) => {
        const windows = env
          .source('in', feed)
          .timestamps({ timestamp: (v) => v })
          .keyBy(() => 'k')
          .window(tumbling(100))
          .aggregate(
            'sums',
            sum((v) => v),
          );
        windows.map((w) => `${w.start}: ${w.value}`).sink('out', store);
        windows
          .late()
          .map((v) => `late ${v}`)
          .sink('late', store);
      });
    const clock = new DrivenClock();
    const first = ends(await build(clock).start({ checkpoints: checkpointsIn(folder) }));
    feed.push([10, 20, 250]);
    await clock.advance(200);
    await first.stop();
    const again = new DrivenClock();
    const second = ends(await build(again).start({ parallelism, checkpoints: checkpointsIn(folder) }));
    await feed.push([30, 260]).taken();
    await rest();
    feed.end();
    await second.finished;
    const late = store.records.filter((r) => r.startsWith('late')).map((r) => Number(r.slice(5)));
    return { late, windows: store.records.filter((r) => !r.startsWith('late')).toSorted() };
  }
  for (const parallelism of [1, 2, 3]) {
    it(`at parallelism ${parallelism} time does not fall back: what was late before is late, and no window fires twice`, async () => {
      expect(await restored(parallelism)).toEqual({ late: [30], windows: ['0: 30', '200: 510'] });
    });
  }

  it('a crash in the middle changes no window', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>();
    for (let i = 0; i < 200; i++) feed.push([i]);
    const store = new Store<string>();
    const watch = new Watch();
    const crashes = new Set([60, 150]);
    await job('crashing', (env) => {
      env
        .source('in', feed.end())
        .timestamps({ timestamp: (v) => v })
        .map((v) => {
          if (crashes.delete(v)) throw new Error('crash');
          return v;
        })
        .keyBy(() => 'k')
        .window(tumbling(50))
        .aggregate(
          'sums',
          sum(() => 1),
        )
        .map((w) => `${w.start}: ${w.value}`)
        .sink('out', store);
    }).run({ checkpoints: { ...checkpointsIn(folder), every: 5 }, restarts: RESTARTS, onEvent: watch.onEvent });
    expect(watch.of('restart')).toHaveLength(2);
    expect(store.records).toEqual(['0: 50', '50: 50', '100: 50', '150: 50']);
  });
});
