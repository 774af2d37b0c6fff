import { job, level, memory, type StateBackend, type Stream } from 'millrace';
import { collect } from 'millrace/connectors';
import { harness2 } from 'millrace/testing';
import { describe, expect, it } from 'vitest';
import { ends, Feed, rejection, temporaryFolder } from '../protocols/lab.ts';

interface Item {
  k: string;
  t: number;
}
const at = (t: number, k = 'k'): Item => ({ k, t });

interface Bounds {
  lower: number;
  upper: number;
  outer?: 'left';
}

const joined =
  (bounds: Bounds) =>
  (left: Stream<Item>, right: Stream<Item>): Stream<string> =>
    left
      .keyBy((v) => v.k)
      .intervalJoin(
        'join',
        right.keyBy((v) => v.k),
        bounds as { lower: number; upper: number; outer: 'left' },
        (l, r) => `${l.k}${l.t}-${r === undefined ? 'nobody' : r.t}`,
      );

type Step = ['l' | 'r', number, string?] | ['w', number] | ['wl' | 'wr', number];

/** What comes out of the steps, in order: results with their timestamps. */
async function run(bounds: Bounds, steps: readonly Step[]): Promise<string[]> {
  const h = await harness2(joined(bounds));
  const out: string[] = [];
  for (const [what, t, k] of steps) {
    if (what === 'l') await h.left.push(at(t, k), t);
    else if (what === 'r') await h.right.push(at(t, k), t);
    if (what === 'w' || what === 'wl') await h.left.watermark(t);
    if (what === 'w' || what === 'wr') await h.right.watermark(t);
    out.push(...h.take().map((r) => `${r.value}@${r.timestamp}`));
  }
  await h.close();
  return out;
}

describe('an interval join', () => {
  const cases: [string, Bounds, Step[], string[]][] = [
    [
      'both ends are included',
      { lower: -2, upper: 3 },
      [
        ['l', 10],
        ['r', 7],
        ['r', 8],
        ['r', 13],
        ['r', 14],
      ],
      ['k10-8@10', 'k10-13@13'],
    ],
    [
      'whichever side comes first',
      { lower: -2, upper: 3 },
      [
        ['r', 7],
        ['r', 8],
        ['r', 13],
        ['r', 14],
        ['l', 10],
      ],
      ['k10-8@10', 'k10-13@13'],
    ],
    [
      'keys are apart',
      { lower: 0, upper: 0 },
      [
        ['l', 1, 'a'],
        ['r', 1, 'b'],
        ['r', 1, 'a'],
      ],
      ['a1-1@1'],
    ],
    [
      'of equal timestamps every pair',
      { lower: 0, upper: 0 },
      [
        ['l', 5],
        ['l', 5],
        ['r', 5],
        ['r', 5],
      ],
      ['k5-5@5', 'k5-5@5', 'k5-5@5', 'k5-5@5'],
    ],
    [
      'bounds wholly below 0',
      { lower: -5, upper: -3 },
      [
        ['r', 4],
        ['r', 5],
        ['r', 7],
        ['r', 8],
        ['l', 10],
        ['r', 6],
      ],
      ['k10-5@10', 'k10-7@10', 'k10-6@10'],
    ],
    [
      'bounds wholly above 0',
      { lower: 3, upper: 5 },
      [
        ['l', 10],
        ['r', 12],
        ['r', 13],
        ['r', 15],
        ['r', 16],
      ],
      ['k10-13@13', 'k10-15@15'],
    ],
    [
      'a record at the watermark joins, one before it does not',
      { lower: 0, upper: 10 },
      [
        ['l', 5],
        ['w', 8],
        ['r', 7],
        ['r', 8],
      ],
      ['k5-8@8'],
    ],
    [
      'a left record that is late joins nothing later',
      { lower: 0, upper: 10 },
      [
        ['w', 8],
        ['l', 7],
        ['l', 8],
        ['r', 9],
      ],
      ['k8-9@9'],
    ],
    [
      'one that may still meet somebody at the watermark is kept',
      { lower: 0, upper: 3 },
      [
        ['l', 5],
        ['w', 8],
        ['r', 8],
      ],
      ['k5-8@8'],
    ],
    [
      'the watermark is that of both sides',
      { lower: 0, upper: 1 },
      [
        ['l', 5],
        ['wl', 100],
        ['r', 6],
      ],
      ['k5-6@6'],
    ],
    [
      'negative timestamps',
      { lower: -1, upper: 1 },
      [
        ['l', -10],
        ['r', -11],
        ['r', -9],
      ],
      ['k-10--11@-10', 'k-10--9@-9'],
    ],
    [
      'fractions',
      { lower: -0.5, upper: 0.5 },
      [
        ['l', 1.5],
        ['r', 1],
        ['r', 2],
        ['r', 2.1],
      ],
      ['k1.5-1@1.5', 'k1.5-2@2'],
    ],
    [
      'outer: a left record that met nobody comes when nobody can come',
      { lower: 0, upper: 3, outer: 'left' },
      [
        ['l', 5],
        ['w', 8],
        ['w', 9],
      ],
      ['k5-nobody@5'],
    ],
    [
      'outer: one that met somebody does not',
      { lower: 0, upper: 3, outer: 'left' },
      [
        ['l', 5],
        ['r', 5],
        ['w', 20],
      ],
      ['k5-5@5'],
    ],
    [
      'outer: one that met somebody who was there before',
      { lower: -3, upper: 3, outer: 'left' },
      [
        ['r', 4],
        ['l', 5],
        ['w', 20],
      ],
      ['k5-4@5'],
    ],
    [
      'outer: in order of time',
      { lower: 0, upper: 1, outer: 'left' },
      [
        ['l', 7],
        ['l', 5, 'b'],
        ['l', 6],
        ['w', 20],
      ],
      ['b5-nobody@5', 'k6-nobody@6', 'k7-nobody@7'],
    ],
    [
      'outer: at once where nobody can come any more',
      { lower: -5, upper: -3, outer: 'left' },
      [
        ['w', 10],
        ['l', 12],
        ['l', 13],
      ],
      ['k12-nobody@12'],
    ],
    [
      'outer: at the end of input',
      { lower: 0, upper: 1000, outer: 'left' },
      [
        ['l', 5],
        ['w', Number.POSITIVE_INFINITY],
      ],
      ['k5-nobody@5'],
    ],
    [
      'outer: right records that met nobody never come',
      { lower: 0, upper: 1, outer: 'left' },
      [
        ['r', 5],
        ['w', 100],
      ],
      [],
    ],
    [
      'outer: a late left record does not come',
      { lower: 0, upper: 1, outer: 'left' },
      [
        ['w', 10],
        ['l', 9],
        ['w', 100],
      ],
      [],
    ],
  ];
  it.each(cases)('%s', async (_name, bounds, steps, expected) => {
    expect(await run(bounds, steps)).toEqual(expected);
  });

  it.each(['memory', 'level'])('is what comparing all pairs gives, with snapshots and at other parallelisms: %s()', async (backend) => {
    const folder = await temporaryFolder();
    // So small that rows leave memory all the time.
    const state = (): StateBackend => (backend === 'memory' ? memory() : level({ directory: folder, cacheBytes: 1 << 10 }));
    let seed = 3;
    const random = (n: number): number => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return (seed >>> 8) % n;
    };
    for (const bounds of [
      { lower: -4, upper: 6 },
      { lower: 2, upper: 9, outer: 'left' as const },
      { lower: -9, upper: -1, outer: 'left' as const },
    ]) {
      const lefts: Item[] = [];
      const rights: Item[] = [];
      const got: string[] = [];
      let h = await harness2(joined(bounds), { parallelism: 2, state: state() });
      let watermark = 0;
      for (let i = 0; i < 120; i++) {
        const item = at(watermark + random(25), `k${random(3)}`);
        if (random(2) === 0) {
          lefts.push(item);
          await h.left.push(item, item.t);
        } else {
          rights.push(item);
          await h.right.push(item, item.t);
        }
        if (i % 10 === 9) {
          watermark += random(12);
          await h.left.watermark(watermark);
          await h.right.watermark(watermark);
        }
        if (i % 40 === 39) {
          got.push(...h.take().map((r) => `${r.value}@${r.timestamp}`));
          const restore = await h.snapshot();
          await h.close();
          h = await harness2(joined(bounds), { parallelism: 1 + random(3), restore, state: state() });
          await h.left.watermark(watermark);
          await h.right.watermark(watermark);
        }
      }
      await h.left.end();
      await h.right.end();
      got.push(...h.take().map((r) => `${r.value}@${r.timestamp}`));
      await h.close();
      const expected = lefts.flatMap((l) => {
        const met = rights.filter((r) => r.k === l.k && r.t >= l.t + bounds.lower && r.t <= l.t + bounds.upper);
        if (met.length === 0 && bounds.outer === 'left') return [`${l.k}${l.t}-nobody@${l.t}`];
        return met.map((r) => `${l.k}${l.t}-${r.t}@${Math.max(l.t, r.t)}`);
      });
      expect(got.toSorted()).toEqual(expected.toSorted());
    }
  });

  it('keeps hundreds of records of one key and timestamp in rows of a bounded size, over a restore', async () => {
    const build = (left: Stream<Item>, right: Stream<Item>) => joined({ lower: 0, upper: 0, outer: 'left' })(left, right);
    const h = await harness2(build);
    for (let i = 0; i < 200; i++) await h.left.push(at(5), 5);
    await h.right.push(at(5), 5);
    expect(h.take()).toHaveLength(200);
    for (let i = 0; i < 100; i++) await h.left.push(at(6), 6);
    const restore = await h.snapshot();
    await h.close();
    const again = await harness2(build, { restore });
    await again.right.push(at(5), 5);
    expect(again.take()).toHaveLength(200);
    await again.left.watermark(100);
    await again.right.watermark(100);
    expect(again.take().map((r) => r.value)).toEqual(Array.from({ length: 100 }, () => 'k6-nobody'));
    await again.close();
  });

  it('counts what comes too late, and leaves no rows behind', async () => {
    const [left, right] = [new Feed<Item>(), new Feed<Item>()];
    const out: string[] = [];
    const running = ends(
      await job('late', (env) => {
        const strategy = { timestamp: (v: Item) => v.t };
        joined({ lower: -7, upper: 7 })(env.source('left', left, strategy), env.source('right', right, strategy)).sink('out', collect(out));
      }).start(),
    );
    const figure = async (name: string): Promise<number> =>
      (await running.metrics()).find((m) => m.name === name && m.labels.task === 'join-0')?.value ?? Number.NEGATIVE_INFINITY;
    const reaches = async (name: string, value: number): Promise<void> => {
      while ((await figure(name)) < value) await new Promise((resolve) => setImmediate(resolve));
    };
    const items = Array.from({ length: 100 }, (_, i) => at(i, `k${i % 7}`));
    left.push([...items, at(1000)]);
    right.push([...items, at(1000)]);
    await reaches('watermark', 999);
    left.push([at(3)]);
    right.push([at(998), at(999)]);
    await reaches('recordsIn', 205);
    expect(await figure('lateDropped')).toBe(2);
    // One on the left, two on the right, and for each side when its oldest are to go: once for the older ones of the right, once for those before.
    expect(await figure('stateRows')).toBeLessThanOrEqual(6);
    left.push([at(5000)]);
    right.push([at(5000)]);
    await reaches('watermark', 4999);
    expect(await figure('stateRows')).toBe(4);
    left.end();
    right.end();
    await running.finished;
    expect(out.filter((v) => v.startsWith('k1000'))).toEqual(['k1000-1000', 'k1000-999']);
  });

  it('refuses records without a timestamp: TIMESTAMP_MISSING, of that record', async () => {
    const h = await harness2((left: Stream<Item>, right: Stream<Item>) => {
      const stream = joined({ lower: 0, upper: 1 })(left, right);
      return stream.onError('skip');
    });
    await h.left.push(at(1));
    await h.right.push(at(2));
    await h.left.push(at(3), 3);
    await h.right.push(at(3), 3);
    expect(h.take().map((r) => r.value)).toEqual(['k3-3']);
    expect(h.deadLetters().map((d) => [d.uid, d.error.code, (d.record as Item).t])).toEqual([
      ['join', 'TIMESTAMP_MISSING', 1],
      ['join', 'TIMESTAMP_MISSING', 2],
    ]);
    await h.close();
  });

  it('undoes a record that fails: it joined nobody, and who met it met nobody', async () => {
    const h = await harness2((left: Stream<Item>, right: Stream<Item>) =>
      left
        .keyBy((v) => v.k)
        .intervalJoin(
          'join',
          right.keyBy((v) => v.k),
          { lower: 0, upper: 9, outer: 'left' },
          (l, r) => {
            if (r?.t === 3) throw new Error('three');
            if (r === undefined && l.t === 2) throw new Error('alone');
            return `${l.t}-${r?.t}`;
          },
        )
        .onError('skip'),
    );
    await h.left.push(at(1), 1);
    await h.left.push(at(2), 2);
    await h.right.push(at(3), 3);
    await h.left.watermark(100);
    await h.right.watermark(100);
    expect(h.take().map((r) => r.value)).toEqual(['1-undefined']);
    expect(h.deadLetters().map((d) => [d.error.message, (d.record as Item).t, d.key])).toEqual([
      ['three', 3, 'k'],
      ['alone', 2, 'k'],
    ]);
    await h.close();
  });

  it('refuses a function that returns a promise', async () => {
    const h = await harness2((left: Stream<Item>, right: Stream<Item>) =>
      left
        .keyBy((v) => v.k)
        .intervalJoin(
          'join',
          right.keyBy((v) => v.k),
          { lower: 0, upper: 9 },
          async () => 1,
        ),
    );
    await h.left.push(at(1), 1);
    expect(await rejection(h.right.push(at(1), 1))).toMatchObject({ code: 'HANDLER_IS_ASYNC', uid: 'join' });
    await h.close().catch(() => {});
  });

  it.each([
    { lower: 2, upper: 1 },
    { lower: Number.NaN, upper: 1 },
    { lower: 0, upper: Number.POSITIVE_INFINITY },
    { lower: 0 },
    { lower: 0, upper: 1, outer: 'right' },
  ])('refuses the bounds %j', (bounds) => {
    expect(() =>
      job('bad', (env) => {
        joined(bounds as Bounds)(env.fromArray('left', [at(1)]), env.fromArray('right', [at(1)]));
      }).plan(),
    ).toThrow(expect.objectContaining({ code: 'OPTION_INVALID', uid: 'join' }));
  });
});
