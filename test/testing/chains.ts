// Chains of windows and joins behind one another, of records that are never late: what they give does not depend on the order in which instances meet.

import { combine, count, max, maxBy, type Stream, session, sliding, sum, topN, tumbling } from 'millrace';
import type { SourceScript } from 'millrace/testing';
import type { Random } from '../random.ts';

export interface Item {
  readonly id: number;
  readonly key: string;
  readonly n: number;
  readonly gap: number;
  readonly at: number;
}
export interface Measures {
  readonly size: number;
  readonly offset: number;
  readonly lower: number;
  readonly upper: number;
}
export interface Chain {
  readonly inputs: readonly string[];
  /** Records that failed come by `failed`. */
  build(inputs: readonly Stream<Item>[], measures: Measures): { readonly out: Stream<unknown>; readonly failed?: Stream<unknown> };
}

const byKey = (stream: Stream<Item>) => stream.keyBy((item) => item.key);
const idsOf = (items: Iterable<Item>): number[] => [...items].map((item) => item.id).sort((a, b) => a - b);

export const CHAINS: Record<string, Chain> = {
  'the hottest of sliding counts': {
    inputs: ['a'],
    build: ([a], { size, offset }) => ({
      out: byKey(a!)
        .window(sliding(size * 8, size, { offset }))
        .aggregate('counts', count())
        .windowAll(tumbling(size, { offset }))
        .process('hottest', (_, counts) => {
          const all = [...counts];
          const most = Math.max(...all.map((counted) => counted.value));
          return all.filter((counted) => counted.value === most).map((counted) => [counted.start, counted.key, counted.value]);
        }),
    }),
  },
  'the largest of sliding totals, by their start': {
    inputs: ['a'],
    build: ([a], { size, offset }) => ({
      out: byKey(a!)
        .window(sliding(size * 9, size, { offset }))
        .aggregate('totals', combine({ count: count(), sum: sum((item: Item) => item.n) }))
        .keyBy((total) => total.start)
        .window(tumbling(size, { offset }))
        .aggregate(
          'largest',
          maxBy((total) => total.value.count * 1e6 + total.value.sum * 10 + (total.key.charCodeAt(0) % 10)),
        ),
    }),
  },
  'sessions of own gaps in tumbling windows': {
    inputs: ['a'],
    build: ([a], { size, offset }) => ({
      out: byKey(a!)
        .window(session((item: Item) => item.gap))
        .process('sessions', ({ key, start, end }, items) => [{ key, start, end, ids: idsOf(items) }])
        .keyBy((found) => found.ids.length % 2)
        .window(tumbling(size * 4, { offset }))
        .process('together', ({ key, start }, all) => [[key, start, [...all].map((found) => JSON.stringify(found)).sort()]]),
    }),
  },
  'totals of sessions in sessions of all': {
    inputs: ['a'],
    build: ([a], { size }) => ({
      out: byKey(a!)
        .window(session(size | 1))
        .aggregate('sessions', combine({ count: count(), sum: sum((item: Item) => item.n), last: max((item: Item) => item.at) }))
        .windowAll(session(size * 2 + 1))
        .aggregate('all', combine({ records: sum((found) => found.value.count), sessions: count(), end: max((found) => found.end) })),
    }),
  },
  'two window joins': {
    inputs: ['a', 'b', 'c'],
    build: ([a, b, c], { size, offset }) => ({
      out: byKey(a!)
        .join(byKey(b!))
        .window(tumbling(size, { offset }))
        .apply('pairs', (left, right, { start }) => ({ key: left.key, ids: [left.id, right.id], start }))
        .keyBy((found) => found.key)
        .join(byKey(c!))
        .window(tumbling(size, { offset }))
        .apply('triples', ({ key, ids }, item, { start }) => [key, ...ids, item.id, start]),
    }),
  },
  'sessions of two streams': {
    inputs: ['a', 'b'],
    build: ([a, b]) => ({
      out: byKey(a!)
        .coGroup(byKey(b!))
        .window(session((item: Item) => item.gap))
        .apply('together', (key, left, right, { start, end }) => [[key, start, end, idsOf(left), idsOf(right)]]),
    }),
  },
  'windows of an interval join': {
    inputs: ['a', 'b'],
    build: ([a, b], { size, lower, upper }) => ({
      out: byKey(a!)
        .intervalJoin('pairs', byKey(b!), { lower, upper }, (left, right) => ({ key: left.key, left: left.id, right: right.id }))
        .keyBy((found) => found.key)
        .window(tumbling(size))
        .aggregate('totals', combine({ count: count(), sum: sum((found) => found.left * 1000 + found.right) })),
    }),
  },
  'an outer interval join': {
    inputs: ['a', 'b'],
    build: ([a, b], { lower, upper }) => ({
      out: byKey(a!).intervalJoin('pairs', byKey(b!), { lower, upper, outer: 'left' }, (left, right) => [left.key, left.id, right?.id ?? null]),
    }),
  },
  'the largest of two streams, but for some': {
    inputs: ['a', 'b'],
    build: ([a, b], { size, offset }) => ({
      out: byKey(a!.union(b!))
        .window(sliding(size * 3, size, { offset }))
        .evictor({ before: (held) => held.filter((entry) => entry.value.n % 3 !== 0) })
        .aggregate(
          'largest',
          topN(2, (item) => item.n * 1000 + item.id),
        )
        .map(({ key, start, value: items }) => [key, start, items.map((item) => [item.n, item.id])]),
    }),
  },
  'timestamps given on the way': {
    inputs: ['a'],
    build: ([a], { size, offset }) => ({
      out: byKey(a!.map((item) => ({ ...item, at: item.at * 2 })).timestamps({ timestamp: (item) => item.at, outOfOrderness: 2 * OUT_OF_ORDER }))
        .window(tumbling(size, { offset }))
        .aggregate('totals', combine({ count: count(), sum: sum((item: Item) => item.id) })),
    }),
  },
  'firings that fail': {
    inputs: ['a'],
    build([a], { size, offset }) {
      const fired = byKey(a!)
        .window(tumbling(size, { offset }))
        .process('fired', ({ key, start }, items) => {
          const ids = idsOf(items);
          if (ids.reduce((total, id) => total + id, 0) % 3 === 0) throw new Error(`${key} ${start} ${ids.join()}`);
          return [[key, start, ids]];
        })
        .onError('skip');
      return { out: fired, failed: fired.deadLetters().map(({ key, error }) => [key, error.message]) };
    },
  },
};

/** The most by which a record of a chain is behind the newest before it. */
export const OUT_OF_ORDER = 200;

export function itemsOf(random: Random): SourceScript[string] {
  let time = random.between(-100, 50);
  return Array.from({ length: random.between(0, 60) }, (_, i) => {
    time += random.of([0, 0, 1, 2, 5, 20]);
    const at = 2 * time - random.of([0, 0, 2, 10, 60, OUT_OF_ORDER]);
    const item: Item = { id: i + 1, key: random.of(['a', 'b', 'c', 'd']), n: random.below(10), gap: random.between(1, 15) | 1, at };
    return { value: item, timestamp: at };
  });
}
