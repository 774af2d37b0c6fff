import { type AggregateFunction, avg, collect, combine, count, distinct, first, histogram, last, max, maxBy, min, minBy, sum, topN } from 'millrace';
import { describe, expect, it } from 'vitest';
import { copy, decode, encode } from '../../state-backends/index.ts';

interface Item {
  readonly id: number;
  readonly n: number;
}
const items = [5, 3, 9, 3, 9, 1].map((n, id): Item => ({ id, n }));
type Any = AggregateFunction<Item, unknown, unknown> & { merge(left: unknown, right: unknown): unknown };
const of = (fn: unknown): Any => fn as Any;
const added = (fn: Any, values: readonly Item[]): unknown => values.reduce<unknown>((held, value) => fn.add(held, value), fn.create());

const cases: Record<string, [fn: unknown, whole: unknown, none: unknown]> = {
  'count()': [count(), 6, 0],
  sum: [sum<Item>((item) => item.n), 30, 0],
  avg: [avg<Item>((item) => item.n), 5, Number.NaN],
  min: [min<Item, number>((item) => item.n), 1, undefined],
  max: [max<Item, number>((item) => item.n), 9, undefined],
  minBy: [minBy<Item>((item) => item.n), items[5], undefined],
  maxBy: [maxBy<Item>((item) => item.n), items[2], undefined],
  'first()': [first<Item>(), items[0], undefined],
  'last()': [last<Item>(), items[5], undefined],
  distinct: [distinct<Item>((item) => item.n), 4, 0],
  'collect()': [collect<Item>(), items, []],
  topN: [topN<Item>(3, (item) => item.n), [items[2], items[4], items[0]], []],
  combine: [
    combine<Item, Record<string, AggregateFunction<Item, unknown, unknown>>>({ n: of(count()), from: of(first<Item>()), all: of(collect<Item>()) }),
    { n: 6, from: items[0], all: items },
    { n: 0, from: undefined, all: [] },
  ],
};

describe('aggregates', () => {
  for (const [name, [given, whole, none]] of Object.entries(cases)) {
    const fn = of(given);
    it(`${name}: of all, of none, and merged wherever they are cut`, () => {
      expect(fn.result(added(fn, items))).toEqual(whole);
      expect(fn.result(fn.create())).toEqual(none);
      for (let cut = 0; cut <= items.length; cut++) {
        const right = added(fn, items.slice(cut));
        const before = copy(right);
        expect(fn.result(fn.merge(added(fn, items.slice(0, cut)), right))).toEqual(whole);
        expect(right).toEqual(before);
      }
    });

    it(`${name}: its accumulator is stored as it is, and results do not change with it`, () => {
      const held = added(fn, items.slice(0, 3));
      const result = fn.result(held);
      const before = copy(result);
      const stored = decode(encode(held));
      expect(fn.result(fn.add(stored, items[3]!))).toEqual(fn.result(fn.add(held, items[3]!)));
      expect(result).toEqual(before);
    });
  }

  it('distinct tells keys apart as keyBy does', () => {
    const fn = distinct<unknown>((value) => value as string);
    const all = [0, -0, Number.NaN, Number.NaN, '1', 1, 1n, true, ['a', 'b'], ['a', 'b'], ['ab'], '\u0000x'];
    expect(fn.result(all.reduce<unknown>((held, value) => fn.add(held, value), fn.create()))).toBe(9);
  });

  it('topN keeps what came first of those that are as large, and what has no rank behind all', () => {
    const fn = topN<Item>(2, (item) => item.n);
    const unranked = { id: 9, n: Number.NaN };
    expect(fn.result([unranked, items[1]!, items[3]!].reduce((held, item) => fn.add(held, item), fn.create()))).toEqual([items[1], items[3]]);
    expect(fn.result([unranked, items[1]!].reduce((held, item) => fn.add(held, item), fn.create()))).toEqual([items[1], unranked]);
  });
});

describe('histogram', () => {
  const of = (values: readonly number[], buckets?: number[]) => {
    const fn = histogram<number>((value) => value, buckets === undefined ? {} : { buckets });
    return fn.result(values.reduce<unknown>((held, value) => fn.add(held, value), fn.create()));
  };
  const values = Array.from({ length: 1000 }, (_, i) => (i - 300) * 1.7);

  it('gives quantiles within 1 %, of negative values, 0 and fractions too', () => {
    const result = of(values);
    expect([result.count, result.sum]).toEqual([1000, values.reduce((a, b) => a + b)]);
    for (const q of [0, 0.001, 0.1, 0.25, 0.3, 0.5, 0.9, 0.999, 1]) {
      const exact = values[Math.max(1, Math.ceil(q * 1000)) - 1]!;
      expect(Math.abs(result.quantile(q) - exact)).toBeLessThanOrEqual(Math.abs(exact) * 0.0101 + 1e-9);
    }
  });

  it('interpolates within buckets that are given, between the least and the largest value', () => {
    const result = of([1, 2, 3, 4, 50], [2, 4, 10]);
    expect([0, 0.2, 0.4, 0.8, 1].map((q) => result.quantile(q))).toEqual([1, 1, 2, 4, 50]);
  });

  it('leaves out what is no number, and knows nothing of no values', () => {
    expect(of([Number.NaN, 1]).count).toBe(1);
    expect(of([]).quantile(0.5)).toBeNaN();
    expect(of([1]).quantile(2)).toBeNaN();
    expect(() => histogram(() => 1, { buckets: [2, 1] })).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
  });

  it('is a value that can be stored and sent on', () => {
    const result = of(values);
    const again = copy(result);
    expect([again.quantile(0.5), again.count, again.sum]).toEqual([result.quantile(0.5), result.count, result.sum]);
  });
});
