import fc from 'fast-check';
import {
  type AggregateFunction,
  count,
  early,
  job,
  type MillraceError,
  type Stream,
  session,
  sliding,
  sum,
  tumbling,
  type WindowAssigner,
  type Windowed,
} from 'millrace';
import { harness } from 'millrace/testing';
import { describe, expect, it } from 'vitest';
import { Feed, rejection } from '../protocols/lab.ts';

interface Event {
  readonly key: string;
  readonly n: number;
  readonly at: number;
}
interface Spec {
  readonly size: number;
  readonly slide: number;
  readonly offset: number;
  readonly lateness: number;
  readonly bound: number;
}
type Result = readonly [key: string, start: number, value: number];

const SEED = Number(process.env['MILLRACE_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

/** Flink's WindowOperator, one contents a window, nothing clever: what every implementation must agree with. */
function reference(batches: readonly Event[][], { size, slide, offset, lateness, bound }: Spec): { results: Result[]; late: number[] } {
  const windows = new Map<string, { key: string; start: number; total: number; fired: boolean }>();
  const results: Result[] = [];
  const late: number[] = [];
  let watermark = Number.NEGATIVE_INFINITY;
  let newest = Number.NEGATIVE_INFINITY;
  const advance = (to: number): void => {
    if (to <= watermark) return;
    watermark = to;
    for (const [name, w] of [...windows].sort(([, a], [, b]) => a.start - b.start)) {
      if (!w.fired && w.start + size - 1 <= watermark) {
        w.fired = true;
        results.push([w.key, w.start, w.total]);
      }
      if (w.start + size - 1 + lateness <= watermark) windows.delete(name);
    }
  };
  for (const batch of batches) {
    for (const { key, n, at } of batch) {
      const starts: number[] = [];
      // The windows [start, start + size) with start = offset + k × slide that hold `at`.
      for (let k = Math.floor((at - offset) / slide); offset + k * slide > at - size; k--) starts.push(offset + k * slide);
      const open = starts.filter((start) => start + size - 1 + lateness > watermark);
      if (starts.length > 0 && open.length === 0) late.push(n);
      for (const start of open) {
        const name = `${key}/${start}`;
        const w = windows.get(name) ?? { key, start, total: 0, fired: false };
        windows.set(name, w);
        w.total += n;
        if (start + size - 1 > watermark) continue;
        w.fired = true;
        results.push([key, start, w.total]);
      }
      newest = Math.max(newest, at);
    }
    advance(newest - bound - 1);
  }
  advance(Number.POSITIVE_INFINITY);
  return { results, late };
}

async function run(batches: readonly Event[][], spec: Spec, fn: AggregateFunction<Event, number, number>, parallelism: number) {
  const feed = new Feed<Event>();
  for (const batch of batches) feed.push([...batch]);
  feed.end();
  const results: Result[] = [];
  const late: number[] = [];
  await job('windows', (env) => {
    const windows = env
      .source('in', feed, { timestamp: (e) => e.at, outOfOrderness: spec.bound })
      .parallelism(1)
      .keyBy((e) => e.key)
      .window(spec.size === spec.slide ? tumbling(spec.size, { offset: spec.offset }) : sliding(spec.size, spec.slide, { offset: spec.offset }))
      .allowedLateness(spec.lateness)
      .aggregate('sums', fn);
    windows.forEach('out', (w) => void results.push([w.key, w.start, w.value]));
    windows.late().forEach('late', (e) => void late.push(e.n));
  }).run({ parallelism });
  return { results, late };
}

const summing = sum<Event>((e) => e.n);
const unmergeable: AggregateFunction<Event, number, number> = { create: () => 0, add: (held, e) => held + e.n, result: (held) => held };

describe('windows agree with the plain reference', () => {
  const specs = fc
    .record({
      size: fc.integer({ min: 1, max: 40 }),
      slide: fc.integer({ min: 1, max: 40 }),
      shift: fc.integer({ min: -39, max: 39 }),
      lateness: fc.constantFrom(0, 0, 5, 30),
      bound: fc.constantFrom(0, 0, 3, 20),
    })
    .map(({ size, slide, shift, lateness, bound }): Spec => ({ size, slide, offset: shift % slide, lateness, bound }));
  const events = fc.record({ key: fc.constantFrom('a', 'b', 'c'), n: fc.integer({ min: 1, max: 1000 }), at: fc.integer({ min: -150, max: 150 }) });
  const batches = fc.array(fc.array(events, { minLength: 1, maxLength: 12 }), { maxLength: 10 });

  for (const [name, fn] of [
    ['an aggregate that merges (slices)', summing],
    ['one that does not', unmergeable],
  ] as const) {
    it(`for random sizes, slides, offsets, lateness and input out of order, with ${name}`, async () => {
      const property = fc.asyncProperty(specs, batches, fc.integer({ min: 1, max: 3 }), async (spec, input, parallelism) => {
        const [got, wanted] = [await run(input, spec, fn, parallelism), reference(input, spec)];
        expect(got.results.map(String).toSorted()).toEqual(wanted.results.map(String).toSorted());
        expect(got.late.toSorted()).toEqual(wanted.late.toSorted());
        // Of one window results come in the order in which it fired; of one key windows come in order of their ends.
        if (parallelism === 1 && spec.lateness === 0) {
          for (const key of ['a', 'b', 'c']) {
            const starts = got.results.filter((r) => r[0] === key).map((r) => r[1]);
            expect(starts).toEqual(starts.toSorted((x, y) => x - y));
          }
        }
      });
      await fc.assert(property, { seed: SEED, numRuns: 120 });
    });

    it(`tumbling windows likewise, with ${name}`, async () => {
      const tumblings = specs.map((spec) => ({ ...spec, slide: spec.size, offset: spec.offset % spec.size }));
      await fc.assert(
        fc.asyncProperty(tumblings, batches, async (spec, input) => {
          const [got, wanted] = [await run(input, spec, fn, 1), reference(input, spec)];
          expect(got.results.map(String).toSorted()).toEqual(wanted.results.map(String).toSorted());
          expect(got.late.toSorted()).toEqual(wanted.late.toSorted());
        }),
        { seed: SEED, numRuns: 60 },
      );
    });
  }
});

/** Runs batches of [timestamp, n] of one key; gives [start, end, value, timestamp] of the results, and what was late. */
async function table(
  batches: (readonly [number, number])[][],
  windows: Parameters<ReturnType<ReturnType<Parameters<Parameters<typeof job>[1]>[0]['fromArray']>['keyBy']>['window']>[0],
  options: { lateness?: number; trigger?: ReturnType<typeof early>; read?: boolean } = {},
) {
  const feed = new Feed<readonly [number, number]>();
  for (const batch of batches) feed.push([...batch]);
  feed.end();
  const out: (readonly [number, number, number])[] = [];
  const late: number[] = [];
  const timestamps: number[] = [];
  await job('table', (env) => {
    let windowed = env
      .source('in', feed, { timestamp: ([at]) => at })
      .keyBy(() => 'k')
      .window(windows)
      .allowedLateness(options.lateness ?? 0);
    if (options.trigger !== undefined) windowed = windowed.trigger(options.trigger);
    const results = windowed.aggregate(
      'sums',
      sum(([, n]) => n),
    );
    results.forEach('out', (w: Windowed<string, number>) => void out.push([w.start, w.end, w.value]));
    results.process('stamps', { onRecord: (_w, ctx) => void timestamps.push(ctx.timestamp) });
    if (options.read !== false) results.late().forEach('late', ([, n]) => void late.push(n));
  }).run();
  return { out, late, timestamps };
}

describe('windows', () => {
  it('are aligned to the epoch, before it too', async () => {
    const { out } = await table(
      [
        [
          [-1, 1],
          [-1000, 2],
          [-1001, 4],
          [0, 8],
          [999, 16],
        ],
      ],
      tumbling(1000),
    );
    expect(out).toEqual([
      [-2000, -1000, 4],
      [-1000, 0, 3],
      [0, 1000, 24],
    ]);
  });

  it('with an offset are shifted by it', async () => {
    const { out } = await table(
      [
        [
          [-1, 1],
          [299, 2],
          [300, 4],
          [1299, 8],
        ],
      ],
      tumbling(1000, { offset: 300 }),
    );
    expect(out).toEqual([
      [-700, 300, 3],
      [300, 1300, 12],
    ]);
  });

  it('give results with the timestamp end − 1', async () => {
    const { out, timestamps } = await table([[[5, 1]]], sliding(10, 5));
    expect(out).toEqual([
      [0, 10, 1],
      [5, 15, 1],
    ]);
    expect(timestamps).toEqual([9, 14]);
  });

  it('with a slide longer than their size leave out what falls in the gap; it is not late', async () => {
    const { out, late } = await table(
      [
        [
          [3, 1],
          [7, 2],
          [12, 4],
        ],
        [[7, 8]],
      ],
      sliding(5, 10),
    );
    expect(out).toEqual([
      [0, 5, 1],
      [10, 15, 4],
    ]);
    expect(late).toEqual([]);
  });

  it('fire again at once for each record within the allowed lateness, then never again', async () => {
    const { out, late } = await table([[[5, 1]], [[10, 2]], [[6, 4]], [[7, 8]], [[21, 16]], [[8, 32]]], tumbling(10), { lateness: 10 });
    expect(out).toEqual([
      [0, 10, 1],
      [0, 10, 5],
      [0, 10, 13],
      [10, 20, 2],
      [20, 30, 16],
    ]);
    expect(late).toEqual([32]);
  });

  it('give late records to late(), untouched and with their timestamp, or count them where nobody reads', async () => {
    const read = await table([[[5, 1]], [[25, 2]], [[6, 4]]], tumbling(10));
    expect(read.late).toEqual([4]);
    const feed = new Feed<number>();
    const running = await job('counted', (env) => {
      env
        .source('in', feed, { timestamp: (v) => v })
        .keyBy(() => 'k')
        .window(tumbling(10))
        .aggregate(
          'sums',
          sum((v) => v),
        );
    }).start();
    feed.push([5]).push([25]).push([6, 7]);
    const figure = async (name: string): Promise<number> => (await running.metrics()).find((m) => m.name === name && m.labels['task'] === 'sums-0')!.value;
    while ((await figure('recordsIn')) < 4) await new Promise((resolve) => setImmediate(resolve));
    expect(await figure('lateDropped')).toBe(2);
    feed.end();
    await running.finished;
  });

  it('of the same stream may have late outputs of different names', async () => {
    const feed = new Feed<number>().push([5]).push([100]).push([6]).end();
    const late: string[] = [];
    await job('two', (env) => {
      const keyed = env.source('in', feed, { timestamp: (v) => v }).keyBy(() => 'k');
      for (const name of ['a', 'b']) {
        const results = keyed
          .window(tumbling(10))
          .lateTo(`late-${name}`)
          .aggregate(
            name,
            sum((v) => v),
          );
        results.side<number>(`late-${name}`).forEach(`late-of-${name}`, (v) => void late.push(`${name}${v}`));
      }
    }).run();
    expect(late.toSorted()).toEqual(['a6', 'b6']);
  });

  describe('early({ count })', () => {
    it('fires the whole window each count elements, and at its end', async () => {
      const batch = Array.from({ length: 7 }, (_, i) => [i, 1] as const);
      const { out } = await table([batch], tumbling(10), { trigger: early({ count: 3 }) });
      expect(out.map(([, , n]) => n)).toEqual([3, 6, 7]);
    });

    it('counts each window of a sliding one for itself', async () => {
      const { out } = await table(
        [
          [
            [1, 1],
            [6, 2],
            [7, 4],
          ],
        ],
        sliding(10, 5),
        { trigger: early({ count: 2 }) },
      );
      expect(out).toEqual([
        [0, 10, 3],
        [5, 15, 6],
        [-5, 5, 1],
        [0, 10, 7],
        [5, 15, 6],
      ]);
    });

    it('fires late elements at once, besides', async () => {
      const { out } = await table([[[5, 1]], [[15, 2]], [[6, 4]]], tumbling(10), { trigger: early({ count: 100 }), lateness: 100 });
      expect(out).toEqual([
        [0, 10, 1],
        [0, 10, 5],
        [10, 20, 2],
      ]);
    });
  });

  it('early({ every }) fires an open window by the clock, before event time reaches its end', async () => {
    const feed = new Feed<number>({ bounded: false });
    const out: number[] = [];
    let first!: () => void;
    const fired = new Promise<void>((resolve) => {
      first = resolve;
    });
    const running = await job('early', (env) => {
      env
        .source('in', feed, { timestamp: (v) => v })
        .keyBy(() => 'k')
        .window(tumbling(1000))
        .trigger(early({ every: 5 }))
        .aggregate(
          'sums',
          sum((v) => v),
        )
        .forEach('out', (w) => {
          out.push(w.value);
          first();
        });
    }).start();
    await feed.push([1, 2]).taken();
    await fired;
    expect(out).toEqual([3]);
    await running.stop({ drain: true });
    expect(out).toEqual([3, 3]);
  });

  it('without timestamps fail with TIMESTAMP_MISSING, naming the operator and what to do', async () => {
    const error = await rejection(
      job('without', (env) => {
        env
          .fromArray('in', [1])
          .keyBy(() => 'k')
          .window(tumbling(10))
          .aggregate(
            'sums',
            sum((v) => v),
          );
      }).run(),
    );
    expect(error).toMatchObject({ code: 'TIMESTAMP_MISSING', uid: 'sums', retryable: false } satisfies Partial<MillraceError>);
    expect(error.todo).toMatch(/timestamp/);
  });

  it('take a timestamp of NaN for none, and skip that record where told so', async () => {
    const out: number[] = [];
    await job('some', (env) => {
      env
        .fromArray('in', [1, Number.NaN, 3], { timestamp: (v) => v })
        .keyBy(() => 'k')
        .window(tumbling(10))
        .aggregate(
          'sums',
          sum((v) => v),
        )
        .onError('skip')
        .forEach('out', (w) => void out.push(w.value));
    }).run();
    expect(out).toEqual([4]);
  });

  it.each([
    ['tumbling', tumbling(10)],
    ['sliding', sliding(20, 10)],
    ['session', session(10)],
  ])('take a timestamp that is none of a Date for an error of that record, which leaves the others alone: %s', async (_, windows) => {
    const at = [5, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1e300, 6];
    for (const all of [false, true]) {
      const h = await harness((input: Stream<number>) => {
        const windowed = input.keyBy(() => 'k').window(windows as WindowAssigner<unknown, false>);
        return all
          ? windowed.process('w', (_context, values) => [[...values].length]).onError('skip')
          : windowed
              .aggregate('w', count())
              .onError('skip')
              .map((result) => result.value);
      });
      for (const timestamp of at) await h.push(timestamp, timestamp);
      expect(h.deadLetters().map((letter) => [letter.record, letter.error.code])).toEqual(at.slice(1, 4).map((record) => [record, 'TIMESTAMP_MISSING']));
      await h.end();
      expect(new Set(h.take().map(({ value }) => value))).toEqual(new Set([2]));
      await h.close();
    }
  });

  it('behind windows without an end need timestamps(): those of their results are none', async () => {
    const h = await harness((input: Stream<number>) =>
      input
        .keyBy(() => 'k')
        .window(count(2))
        .aggregate('pairs', count())
        .keyBy((result) => result.key)
        .window(tumbling(10))
        .aggregate('w', count()),
    );
    await h.push(1, 1);
    await expect(h.push(2, 2)).rejects.toMatchObject({ code: 'TIMESTAMP_MISSING', uid: 'w', todo: expect.stringContaining('timestamps()') });
    await h.close();
  });

  it('restored where event time begins in front of an end that has come before fire there once more, where another record came, and no others do', async () => {
    for (const [windows, all] of [
      [tumbling(10), false],
      [tumbling(10), true],
      [sliding(20, 10), false],
      [sliding(20, 10), true],
    ] as const) {
      const build = (input: Stream<number>): Stream<readonly number[]> => {
        const windowed = input
          .keyBy(() => 'k')
          .window(windows)
          .allowedLateness(100);
        return all
          ? windowed.process('w', ({ start }, values) => [[start, [...values].length]])
          : windowed.aggregate('w', count()).map(({ start, value }) => [start, value]);
      };
      const before = await harness(build);
      for (const at of [1, 11, 41]) await before.push(at, at);
      await before.watermark(35);
      const sliding = windows.assign(0, 0)[Symbol.iterator]().next().value!.end === 20;
      const values = (h: typeof before): unknown[] => h.take().map(({ value }) => value);
      expect(values(before)).toEqual(
        sliding
          ? [
              [-10, 1],
              [0, 2],
              [10, 1],
            ]
          : [
              [0, 1],
              [10, 1],
            ],
      );
      const restore = await before.snapshot();
      await before.close();
      const h = await harness(build, { restore, parallelism: 2 });
      await h.push(2, 2);
      await h.push(32, 32);
      await h.watermark(5);
      expect(values(h)).toEqual([]);
      await h.watermark(19);
      expect(values(h)).toEqual(
        sliding
          ? [
              [-10, 2],
              [0, 3],
            ]
          : [[0, 2]],
      );
      await h.watermark(39);
      expect(values(h)).toEqual(sliding ? [[20, 1]] : [[30, 1]]);
      await h.push(3, 3);
      expect(values(h)).toEqual(
        sliding
          ? [
              [0, 4],
              [-10, 3],
            ]
          : [[0, 3]],
      );
      await h.end();
      expect(values(h)).toEqual(
        sliding
          ? [
              [30, 2],
              [40, 1],
            ]
          : [[40, 1]],
      );
      await h.close();
    }
  });

  it.each([
    [0.3, 0.1, 0],
    [10, 3.3, 0.7],
    [1.5, 0.5, -0.2],
    [1.1, 1.1, 0],
    [0.7, 2.3, 0.1],
  ])('of fractions of milliseconds, %d each %d from %d, hold each record that is within their bounds', async (size, slide, offset) => {
    const at = [0, 0.1, 0.25, 0.3, 0.5, 1, 1.1, 1.5, 2, 3.3, 6.6, 0.6, -0.3, -3.3, 9.899999999999999];
    const expected = new Map<number, number>();
    for (let k = -500; k < 500; k++) {
      const start = k * slide + offset;
      const within = at.filter((timestamp) => timestamp >= start && timestamp < start + size).length;
      if (within > 0) expected.set(start, within);
    }
    for (const all of [false, true]) {
      const h = await harness((input: Stream<number>) => {
        const windowed = input.keyBy(() => 'k').window(sliding(size, slide, { offset }));
        return all
          ? windowed.process('w', ({ start }, values) => [[start, [...values].length] as const])
          : windowed.aggregate('w', count()).map(({ start, value }) => [start, value] as const);
      });
      for (const timestamp of at) await h.push(timestamp, timestamp);
      await h.end();
      expect(new Map(h.take().map(({ value }) => value))).toEqual(expected);
      await h.close();
    }
  });
});

describe('what is reduced in windows that overlap', () => {
  it('comes in the order of arrival, not of time', async () => {
    const h = await harness((input: Stream<{ k: string; at: number }>) =>
      input
        .keyBy((r) => r.k)
        .window(sliding(20, 10))
        .reduce('last', (_, r) => r)
        .map((w) => [w.start, w.value.at]),
    );
    for (const at of [15, 5]) await h.push({ k: 'a', at }, at);
    await h.end();
    expect(h.take().map((r) => r.value)).toEqual([
      [-10, 5],
      [0, 5],
      [10, 15],
    ]);
    await h.close();
  });

  it('need not be associative: each record is added once to each window', async () => {
    const h = await harness((input: Stream<{ k: string; n: number }>) =>
      input
        .keyBy((r) => r.k)
        .window(sliding(20, 10))
        .reduce('count', (l) => ({ ...l, n: l.n + 1 }))
        .map((w) => w.value.n),
    );
    for (const at of [1, 2, 11, 12]) await h.push({ k: 'a', n: 1 }, at);
    await h.end();
    expect(h.take().map((r) => r.value)).toEqual([2, 4, 2]);
    await h.close();
  });
});

describe('a timestamp at the end of all time', () => {
  it('moves no watermark of its source: what comes behind it is on time', async () => {
    const out: number[] = [];
    const times = [5, Number.POSITIVE_INFINITY, 7];
    const late: number[] = [];
    await job('endless', (env) => {
      const windows = env
        .fromAsync(
          'in',
          async function* () {
            yield* times;
          },
          { timestamp: (at) => at },
        )
        .filter((at) => at < 100)
        .keyBy(() => 'all')
        .window(tumbling(10))
        .aggregate('n', count());
      windows.forEach('out', (w) => void out.push(w.value));
      windows.late().forEach('late', (at) => void late.push(at));
    }).run();
    expect([out, late]).toEqual([[2], []]);
  });
});
