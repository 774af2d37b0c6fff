import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  collect,
  count,
  early,
  every,
  evictCount,
  evictDelta,
  evictTime,
  first,
  global,
  type KeyedStream,
  last,
  level,
  list,
  map,
  never,
  onCount,
  onEventTime,
  onProcessingTime,
  purging,
  reducing,
  type Stream,
  session,
  sliding,
  sum,
  type Trigger,
  tumbling,
  value,
  type Window,
  type WindowAssigner,
} from 'millrace';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Backend } from '../../state-backends/index.ts';
import { Driven, type DrivenOptions } from './driven.ts';

/** A record: its number, and its key where that matters. */
interface Item {
  readonly n: number;
  readonly key?: string;
  readonly gap?: number;
}

type Keyed = KeyedStream<string, Item>;
const open = (build: (keyed: Keyed, other: Keyed) => unknown, options: DrivenOptions = {}): Promise<Driven<Item>> => {
  const keyBy = (stream: Stream<Item>): Keyed => stream.keyBy((item) => item.key ?? 'k');
  return Driven.open<Item>((left, right) => build(keyBy(left), keyBy(right)), options);
};
const summing = sum<Item>((item) => item.n);
/** [start, end, value] of what has left. */
const results = (driven: Driven<Item>): unknown[] =>
  driven.take().map(({ value, timestamp }) => {
    const { start, end, value: result } = value as { start: number; end: number; value: unknown };
    expect(timestamp).toBe(end - 1);
    return [start, end, result];
  });
/** Pushes records of [timestamp, n]. */
const feed = (driven: Driven<Item>, ...records: readonly (readonly [timestamp: number, n: number])[]): Driven<Item> => {
  for (const [timestamp, n] of records) driven.push({ n }, timestamp);
  return driven;
};

describe('sessions', () => {
  it('hold records that follow one another by no more than the gap; those that touch are one', async () => {
    const driven = await open((keyed) => keyed.window(session(10)).aggregate('w', summing));
    feed(driven, [0, 1], [10, 2], [21, 4], [-5, 8]).end();
    expect(results(driven)).toEqual([
      [-5, 20, 11],
      [21, 31, 4],
    ]);
    expect(driven.rows).toBe(0);
  });

  it('fire at the end of what they have grown to, once', async () => {
    const driven = await open((keyed) => keyed.window(session(10)).aggregate('w', summing));
    feed(driven, [0, 1]).watermark(8);
    feed(driven, [5, 2]).watermark(13);
    expect(results(driven)).toEqual([]);
    driven.watermark(14);
    expect(results(driven)).toEqual([[0, 15, 3]]);
    expect(driven.rows).toBe(0);
    driven.end();
    expect(results(driven)).toEqual([]);
  });

  it('are bridged by a record that comes between two of them, out of order', async () => {
    const driven = await open((keyed) => keyed.window(session(10)).aggregate('w', collect<Item>()));
    feed(driven, [20, 1], [0, 2], [10, 3], [40, 4]).end();
    expect(results(driven)).toEqual([
      [0, 30, [{ n: 2 }, { n: 1 }, { n: 3 }]],
      [40, 50, [{ n: 4 }]],
    ]);
  });

  it('have the gap of each record', async () => {
    const driven = await open((keyed) => keyed.window(session((item) => item.gap ?? 1)).aggregate('w', summing));
    driven.push({ n: 1, gap: 100 }, 0).push({ n: 2 }, 50).push({ n: 4 }, 101).push({ n: 8 }, -1).end();
    expect(results(driven)).toEqual([
      [-1, 100, 11],
      [101, 102, 4],
    ]);
  });

  it('whose gap is not above 0 fail the record', async () => {
    for (const gap of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
      const driven = await open((keyed) => keyed.window(session(() => gap)).aggregate('w', summing));
      expect(() => driven.push({ n: 1 }, 0)).toThrow(/gap of a session/);
    }
  });

  it('of other keys are other windows', async () => {
    const driven = await open((keyed) => keyed.window(session(10)).aggregate('w', summing));
    driven.push({ n: 1, key: 'a' }, 0).push({ n: 2, key: 'b' }, 5).push({ n: 4, key: 'a' }, 9).end();
    expect(driven.values()).toEqual([
      { key: 'b', start: 5, end: 15, value: 2 },
      { key: 'a', start: 0, end: 19, value: 5 },
    ]);
  });

  it('take late records within the allowed lateness, which fire at once, also where they bridge sessions that have fired', async () => {
    const driven = await open((keyed) => keyed.window(session(10)).allowedLateness(100).aggregate('w', summing));
    feed(driven, [0, 1], [15, 2]).watermark(50);
    expect(results(driven)).toEqual([
      [0, 10, 1],
      [15, 25, 2],
    ]);
    feed(driven, [7, 4]);
    expect(results(driven)).toEqual([[0, 25, 7]]);
    // One that reaches behind the watermark opens the session again: it fires at its new end.
    feed(driven, [25, 8]);
    expect(results(driven)).toEqual([[0, 35, 15]]);
    feed(driven, [34, 16], [44, 32]);
    expect(results(driven)).toEqual([[0, 44, 31]]);
    driven.watermark(53);
    expect(results(driven)).toEqual([[0, 54, 63]]);
    driven.watermark(153);
    expect(driven.rows).toBe(0);
    feed(driven, [7, 64]);
    expect(results(driven)).toEqual([]);
    expect(driven.values('late')).toEqual([{ n: 64 }]);
  });

  it('are late where nothing of theirs is left; the record is only then', async () => {
    const driven = await open((keyed) => keyed.window(session(10)).aggregate('w', summing));
    feed(driven, [20, 1]).watermark(25);
    // [12, 22) is over, and touches one that is not; [1, 11) is over and touches nothing.
    feed(driven, [12, 2], [1, 4]).end();
    expect(results(driven)).toEqual([[12, 30, 3]]);
    expect(driven.values('late')).toEqual([{ n: 4 }]);
  });

  it('in processing time end when nothing has come for a gap of the clock', async () => {
    const driven = await open((keyed) => keyed.window(session(10, { time: 'processing' })).aggregate('w', summing));
    driven.push({ n: 1 }, Number.NaN).clock(9);
    expect(driven.values()).toEqual([{ key: 'k', start: 0, end: 10, value: 1 }]);
    driven.clock(100).push({ n: 2 }, Number.NaN).clock(105).push({ n: 4 }, 3).clock(113);
    expect(driven.values()).toEqual([]);
    driven.clock(114);
    expect(driven.values()).toEqual([{ key: 'k', start: 100, end: 115, value: 6 }]);
    expect(driven.rows).toBe(0);
  });

  it('keep the order in which records came, however they merge', async () => {
    const driven = await open((keyed) => keyed.window(session(10)).process('w', (_ctx, values) => [[...values].map((item) => item.n)]));
    feed(driven, [20, 1], [0, 2], [22, 3], [2, 4], [11, 5], [30, 6]).end();
    expect(driven.values()).toEqual([[1, 2, 3, 4, 5, 6]]);
  });

  it('first and last are those of the earlier and of the later of two that merge', async () => {
    const driven = await open((keyed) => keyed.window(session(10)).aggregate('w', first<Item>()));
    feed(driven, [20, 1], [0, 2], [10, 3]).end();
    expect(results(driven)).toEqual([[0, 30, { n: 2 }]]);
    const other = await open((keyed) => keyed.window(session(10)).aggregate('w', last<Item>()));
    feed(other, [20, 1], [0, 2], [10, 3]).end();
    expect(results(other)).toEqual([[0, 30, { n: 3 }]]);
  });
});

describe('windows of processing time', () => {
  it('are those of the clock when a record comes; records without timestamps do, and none is late', async () => {
    const driven = await open((keyed) => keyed.window(tumbling(10, { time: 'processing' })).aggregate('w', summing));
    driven.push({ n: 1 }, Number.NaN).clock(5).watermark(1e9).push({ n: 2 }, -100).clock(8);
    expect(driven.values()).toEqual([]);
    driven.clock(9);
    expect(results(driven)).toEqual([[0, 10, 3]]);
    driven.clock(25).push({ n: 4 }, 0).clock(29);
    expect(results(driven)).toEqual([[20, 30, 4]]);
    expect(driven.lateDropped).toBe(0);
    expect(driven.rows).toBe(0);
  });

  it('slide too, shifted by an offset', async () => {
    const driven = await open((keyed) => keyed.window(sliding(10, 5, { time: 'processing', offset: 2 })).aggregate('w', summing));
    driven.clock(8).push({ n: 1 }, Number.NaN).clock(100);
    expect(results(driven)).toEqual([
      [2, 12, 1],
      [7, 17, 1],
    ]);
  });

  it('fire nothing when event time ends', async () => {
    const driven = await open((keyed) => keyed.window(tumbling(10, { time: 'processing' })).aggregate('w', summing));
    driven.push({ n: 1 }, 5).end();
    expect(driven.values()).toEqual([]);
  });
});

describe('global windows', () => {
  it('never fire by themselves, also not at the end', async () => {
    const driven = await open((keyed) => keyed.window(global()).aggregate('w', summing));
    driven.push({ n: 1 }, Number.NaN).end();
    expect(driven.values()).toEqual([]);
  });

  it('give results from −∞ to +∞ with the timestamp +∞, and nothing is late for them', async () => {
    const driven = await open((keyed) => keyed.window(global()).trigger(onCount(2)).aggregate('w', summing));
    driven.watermark(1000).push({ n: 1 }, 3).push({ n: 2 }, Number.NaN);
    expect(driven.take()).toEqual([
      { value: { key: 'k', start: Number.NEGATIVE_INFINITY, end: Number.POSITIVE_INFINITY, value: 3 }, timestamp: Number.POSITIVE_INFINITY },
    ]);
  });

  it('count(n) is every n records, each in one result', async () => {
    const driven = await open((keyed) => keyed.window(count(3)).aggregate('w', summing));
    for (let n = 1; n <= 7; n++) driven.push({ n }, Number.NaN);
    expect(driven.values().map((result) => (result as { value: number }).value)).toEqual([6, 15]);
  });

  it('count(n, slide) is the newest n, every slide records', async () => {
    const driven = await open((keyed) => keyed.window(count(3, 2)).aggregate('w', collect<Item>()));
    for (let n = 1; n <= 7; n++) driven.push({ n }, Number.NaN);
    expect(driven.values().map((result) => (result as { value: Item[] }).value.map((item) => item.n))).toEqual([
      [1, 2],
      [2, 3, 4],
      [4, 5, 6],
    ]);
  });
});

describe('an assigner of your own', () => {
  /** Windows by the hundred, and one around each record. */
  const own: WindowAssigner<Item, false> = {
    merges: false,
    time: 'event',
    assign: (item, timestamp) =>
      item.n === 0
        ? []
        : [
            { start: Math.floor(timestamp / 100) * 100, end: Math.floor(timestamp / 100) * 100 + 100 },
            { start: Math.floor(timestamp / 100) * 100, end: timestamp + 1 },
          ],
    trigger: onEventTime,
  };

  it('may give windows that begin together; a record without a window is not late', async () => {
    const driven = await open((keyed) => keyed.window(own).aggregate('w', summing));
    feed(driven, [5, 1], [5, 2], [7, 4], [7, 0]).end();
    expect(results(driven)).toEqual([
      [0, 6, 3],
      [0, 8, 4],
      [0, 100, 7],
    ]);
    driven.push({ n: 0 }, 7);
    expect(driven.values('late')).toEqual([]);
    expect(driven.rows).toBe(0);
  });

  it('adds to the windows that are not over; the record is late where all are', async () => {
    const driven = await open((keyed) => keyed.window(own).allowedLateness(10).aggregate('w', summing));
    driven.watermark(50);
    feed(driven, [7, 1], [-60, 2]);
    driven.watermark(109);
    expect(results(driven)).toEqual([[0, 100, 1]]);
    expect(driven.values('late')).toEqual([{ n: 2 }]);
    feed(driven, [98, 4], [100, 8]);
    expect(driven.values('late')).toEqual([{ n: 4 }]);
  });

  it('of windows that merge grows them together, through its own trigger', async () => {
    const merging: WindowAssigner<Item, true> = {
      merges: true,
      time: 'event',
      assign: (_item, timestamp) => [{ start: timestamp, end: timestamp + 5 }],
      trigger: onEventTime,
    };
    const driven = await open((keyed) => keyed.window(merging).aggregate('w', summing));
    feed(driven, [0, 1], [5, 2], [11, 4]).end();
    expect(results(driven)).toEqual([
      [0, 10, 3],
      [11, 16, 4],
    ]);
  });

  it('a changed copy of one of ours is an own one', async () => {
    const shifted = { ...tumbling(10), assign: (_item: unknown, at: number): Window[] => [{ start: at, end: at + 1 }] };
    const driven = await open((keyed) => keyed.window(shifted).aggregate('w', summing));
    feed(driven, [3, 1]).end();
    expect(results(driven)).toEqual([[3, 4, 1]]);
  });

  it('that gives a window that does not begin before it ends fails the record', async () => {
    const empty: WindowAssigner<Item, false> = { ...tumbling(10), assign: () => [{ start: 5, end: 5 }] };
    const driven = await open((keyed) => keyed.window(empty).aggregate('w', summing));
    expect(() => driven.push({ n: 1 }, 5)).toThrow(/from 5 to 5/);
  });
});

describe('triggers', () => {
  it('onCount(n) fires with each n records and leaves them; purging takes them away', async () => {
    const kept = await open((keyed) => keyed.window(tumbling(100)).trigger(onCount(2)).aggregate('w', summing));
    feed(kept, [0, 1], [1, 2], [2, 4], [3, 8], [4, 16]).end();
    expect(results(kept)).toEqual([
      [0, 100, 3],
      [0, 100, 15],
    ]);
    expect(kept.rows).toBe(0);
    const purged = await open((keyed) =>
      keyed
        .window(tumbling(100))
        .trigger(purging(onCount(2)))
        .aggregate('w', summing),
    );
    feed(purged, [0, 1], [1, 2], [2, 4], [3, 8], [4, 16]).end();
    expect(results(purged)).toEqual([
      [0, 100, 3],
      [0, 100, 12],
    ]);
    expect(purged.rows).toBe(0);
  });

  it('onCount counts on where sessions merge', async () => {
    const driven = await open((keyed) =>
      keyed
        .window(session(10))
        .trigger(purging(onCount(4)))
        .aggregate('w', summing),
    );
    feed(driven, [0, 1], [20, 2], [21, 4], [10, 8]);
    expect(results(driven)).toEqual([[0, 31, 15]]);
    driven.end();
    expect(results(driven)).toEqual([]);
    expect(driven.rows).toBe(0);
  });

  it('purging(onEventTime()) gives late records alone', async () => {
    const driven = await open((keyed) => keyed.window(tumbling(10)).trigger(purging(onEventTime())).allowedLateness(10).aggregate('w', summing));
    feed(driven, [1, 1]).watermark(9);
    feed(driven, [2, 2], [3, 4]).watermark(19);
    expect(results(driven)).toEqual([
      [0, 10, 1],
      [0, 10, 2],
      [0, 10, 4],
    ]);
    feed(driven, [4, 8]);
    expect(driven.values('late')).toEqual([{ n: 8 }]);
    expect(driven.rows).toBe(0);
  });

  it('onProcessingTime() fires when the clock is at the end of the window', async () => {
    const driven = await open((keyed) => keyed.window(tumbling(10)).trigger(onProcessingTime()).aggregate('w', summing));
    feed(driven, [1, 1], [12, 2]).clock(9);
    expect(results(driven)).toEqual([[0, 10, 1]]);
    driven.clock(18);
    expect(results(driven)).toEqual([]);
    driven.watermark(19).clock(30);
    expect(results(driven)).toEqual([]);
    expect(driven.rows).toBe(0);
  });

  it('never() never does', async () => {
    const driven = await open((keyed) => keyed.window(tumbling(10)).trigger(never()).aggregate('w', summing));
    feed(driven, [1, 1]).end();
    expect(results(driven)).toEqual([]);
    expect(driven.rows).toBe(0);
  });

  it('every(ms, event) fires at each multiple after the first record, and at the end; late records fire at once', async () => {
    const driven = await open((keyed) => keyed.window(tumbling(30)).trigger(every(10, 'event')).allowedLateness(5).aggregate('w', summing));
    feed(driven, [3, 1]).watermark(9);
    expect(results(driven)).toEqual([]);
    driven.watermark(10);
    expect(results(driven)).toEqual([[0, 30, 1]]);
    feed(driven, [12, 2]).watermark(28);
    expect(results(driven)).toEqual([[0, 30, 3]]);
    driven.watermark(30);
    expect(results(driven)).toEqual([[0, 30, 3]]);
    feed(driven, [7, 4]);
    expect(results(driven)).toEqual([[0, 30, 7]]);
    driven.end();
    expect(results(driven)).toEqual([]);
  });

  it('every(ms, processing) fires by the clock, from the first multiple after a record, and at the end of event time', async () => {
    const driven = await open((keyed) => keyed.window(tumbling(30)).trigger(every(10, 'processing')).aggregate('w', summing));
    driven.clock(13);
    feed(driven, [3, 1]).clock(19);
    expect(results(driven)).toEqual([]);
    driven.clock(20);
    expect(results(driven)).toEqual([[0, 30, 1]]);
    driven.clock(40);
    expect(results(driven)).toEqual([
      [0, 30, 1],
      [0, 30, 1],
    ]);
    driven.watermark(29).clock(100);
    expect(results(driven)).toEqual([[0, 30, 1]]);
    expect(driven.rows).toBe(0);
  });

  it('every keeps the earliest pending firing where sessions merge', async () => {
    const driven = await open((keyed) => keyed.window(session(20)).trigger(every(10, 'event')).aggregate('w', summing));
    feed(driven, [3, 1], [35, 2], [19, 4]).watermark(10);
    expect(results(driven)).toEqual([[3, 55, 7]]);
    driven.watermark(53);
    expect(results(driven)).toEqual(Array.from({ length: 4 }, () => [3, 55, 7]));
    driven.watermark(54);
    expect(results(driven)).toEqual([[3, 55, 7]]);
    expect(driven.rows).toBe(0);
  });

  it('every(ms, event) on a global window ends with the input', async () => {
    const driven = await open((keyed) => keyed.window(global()).trigger(every(10, 'event')).aggregate('w', summing));
    feed(driven, [3, 1]).watermark(25);
    expect(driven.values()).toHaveLength(2);
    driven.end();
    expect(driven.values().length).toBeGreaterThan(0);
  });

  it('early works on sessions, with functions and evictors too', async () => {
    const driven = await open((keyed) =>
      keyed
        .window(session(10))
        .trigger(early({ count: 2, every: 5 }))
        .process('w', (ctx, values) => [`${ctx.start}-${ctx.end}:${[...values].map((item) => item.n)}`]),
    );
    feed(driven, [0, 1], [5, 2]);
    expect(driven.values()).toEqual(['0-15:1,2']);
    driven.clock(5);
    expect(driven.values()).toEqual(['0-15:1,2']);
    driven.clock(20);
    expect(driven.values()).toEqual([]);
    feed(driven, [9, 3]).clock(25).end();
    expect(driven.values()).toEqual(['0-19:1,2,3', '0-19:1,2,3']);
    expect(driven.rows).toBe(0);
  });

  describe('of your own', () => {
    /** Fires once as soon as the sum is 10, and at the end. */
    const blocks: Trigger<Item, { size: ReturnType<typeof reducing<number>>; fired: ReturnType<typeof value<boolean>> }> = {
      state: { size: reducing<number>((a, b) => a + b), fired: value<boolean>({ default: false }) },
      onElement(item, _timestamp, window, ctx) {
        ctx.timers.event.set(window.end - 1);
        ctx.state.size.add(item.n);
        if (ctx.state.fired.get() || (ctx.state.size.get() ?? 0) < 10) return 'continue';
        ctx.state.fired.set(true);
        return 'fire';
      },
      onEventTime: (time, window) => (time === window.end - 1 ? 'fire' : 'continue'),
      onMerge(window, ctx) {
        ctx.timers.event.set(window.end - 1);
      },
    };

    it('have state of the key and window, which merges with sessions', async () => {
      const driven = await open((keyed) =>
        keyed
          .window(session(10))
          .trigger(blocks as never)
          .aggregate('w', summing),
      );
      driven.push({ n: 4, key: 'a' }, 0).push({ n: 5, key: 'a' }, 15).push({ n: 9, key: 'b' }, 0);
      expect(driven.values()).toEqual([]);
      driven.push({ n: 1, key: 'a' }, 7);
      expect(driven.values()).toEqual([{ key: 'a', start: 0, end: 25, value: 10 }]);
      driven.push({ n: 1, key: 'a' }, 20).end();
      expect(driven.values()).toEqual([
        { key: 'b', start: 0, end: 10, value: 9 },
        { key: 'a', start: 0, end: 30, value: 11 },
      ]);
      expect(driven.rows).toBe(0);
    });

    it('are not asked for timers of a window that has grown since', async () => {
      const times: unknown[] = [];
      const driven = await open((keyed) =>
        keyed
          .window(session(10))
          .trigger({
            onElement(_item, timestamp, _window, ctx) {
              ctx.timers.event.set(timestamp + 2);
              return 'continue';
            },
            onEventTime(time, window) {
              times.push([time, window]);
              return 'continue';
            },
            onMerge() {},
          })
          .aggregate('w', summing),
      );
      feed(driven, [0, 1], [5, 2]).end();
      expect(times).toEqual([[7, { start: 0, end: 15 }]]);
    });

    it('have timers of both times, unique, that can be deleted', async () => {
      const seen: string[] = [];
      const driven = await open((keyed) =>
        keyed
          .window(tumbling(100))
          .trigger({
            onElement(_item, _timestamp, _window, { timers }) {
              timers.event.set(50);
              timers.event.set(50);
              timers.event.set(60);
              timers.event.delete(60);
              timers.event.delete(61);
              timers.processing.set(50);
              return 'continue';
            },
            onEventTime(time) {
              seen.push(`event ${time}`);
              return 'continue';
            },
            onProcessingTime(time) {
              seen.push(`processing ${time}`);
              return 'fire-and-purge';
            },
          })
          .aggregate('w', summing),
      );
      feed(driven, [0, 1], [1, 2]).watermark(70).clock(70);
      expect(seen).toEqual(['event 50', 'processing 50']);
      expect(results(driven)).toEqual([[0, 100, 3]]);
    });

    it('see the end of a window last: onClear runs once, and what is left of timers and state is gone', async () => {
      const seen: unknown[] = [];
      const driven = await open((keyed) =>
        keyed
          .window(tumbling(10))
          .allowedLateness(5)
          .trigger({
            state: { all: list<number>(), by: map<string, number>(), n: value({ default: 0 }) },
            onElement(item, _timestamp, _window, { timers, state }) {
              for (const at of [9, 14, 15, 1000]) timers.event.set(at);
              timers.processing.set(1000);
              state.all.add(item.n);
              state.by.set('x', item.n);
              state.n.update((n) => n + 1);
              return 'continue';
            },
            onEventTime(time) {
              seen.push(time);
              return time === 9 ? 'fire-and-purge' : 'continue';
            },
            onProcessingTime: () => 'fire',
            onClear(window, { state }) {
              seen.push(['clear', window, state.all.all(), [...state.by.keys()], state.n.get()]);
            },
          })
          .aggregate('w', summing),
      );
      feed(driven, [0, 1], [1, 2]).watermark(2000).clock(2000);
      expect(seen).toEqual([9, 14, ['clear', { start: 0, end: 10 }, [1, 2], ['x'], 2]]);
      expect(results(driven)).toEqual([[0, 10, 3]]);
      expect(driven.rows).toBe(0);
    });

    it('that say something else, or a promise, fail the record', async () => {
      for (const said of ['FIRE', undefined, Promise.resolve('fire')]) {
        const driven = await open((keyed) =>
          keyed
            .window(tumbling(10))
            .trigger({ onElement: () => said as never })
            .aggregate('w', summing),
        );
        expect(() => driven.push({ n: 1 }, 0)).toThrow(/trigger of 'w' said|returned a promise/);
      }
    });

    it('cannot keep their context', async () => {
      let kept: { state: unknown; timers: { event: { set(at: number): void } } } | undefined;
      const driven = await open((keyed) =>
        keyed
          .window(tumbling(10))
          .trigger({
            onElement(_item, _timestamp, _window, context) {
              kept = context as never;
              return 'continue';
            },
          })
          .aggregate('w', summing),
      );
      feed(driven, [0, 1]);
      expect(() => kept!.state).toThrow(/outside/);
      expect(() => kept!.timers.event.set(1)).toThrow(/outside/);
    });
  });
});

describe('evictors', () => {
  const numbers = (driven: Driven<Item>): number[][] => driven.values().map((result) => result as number[]);
  const window = (keyed: Keyed) => keyed.window(global());

  it('evictCount keeps the newest n; what is dropped is gone', async () => {
    const driven = await open((keyed) =>
      window(keyed)
        .trigger(onCount(2))
        .evictor(evictCount(3))
        .process('w', (_ctx, values) => [[...values].map((item) => item.n)]),
    );
    for (let n = 1; n <= 6; n++) driven.push({ n }, Number.NaN);
    expect(numbers(driven)).toEqual([
      [1, 2],
      [2, 3, 4],
      [4, 5, 6],
    ]);
  });

  it('evictTime drops what is as old as that, or older; without a timestamp it is kept', async () => {
    const driven = await open((keyed) =>
      window(keyed)
        .trigger(onCount(4))
        .evictor(evictTime(10))
        .process('w', (_ctx, values) => [[...values].map((item) => item.n)]),
    );
    feed(driven, [0, 1], [1, 2], [Number.NaN, 3], [10, 4]);
    expect(numbers(driven)).toEqual([[2, 3, 4]]);
  });

  it('evictDelta drops what is as far from the last as that, or further', async () => {
    const driven = await open((keyed) =>
      window(keyed)
        .trigger(onCount(3))
        .evictor(evictDelta<Item>(5, (older, newest) => newest.n - older.n))
        .process('w', (_ctx, values) => [[...values].map((item) => item.n)]),
    );
    for (const n of [1, 6, 10]) driven.push({ n }, 0);
    expect(numbers(driven)).toEqual([[6, 10]]);
  });

  it('work with aggregate and reduce, on sessions, and after the function', async () => {
    const driven = await open((keyed) => keyed.window(session(10)).evictor(evictCount(2)).aggregate('w', summing));
    feed(driven, [20, 1], [0, 2], [10, 4]).end();
    expect(results(driven)).toEqual([[0, 30, 6]]);
    const reduced = await open((keyed) =>
      window(keyed)
        .trigger(onCount(1))
        .evictor({ after: (elements) => elements.filter(({ value }) => value.n !== 2) })
        .reduce('w', (left, right) => ({ n: left.n + right.n })),
    );
    for (const n of [1, 2, 4]) reduced.push({ n }, 0);
    expect(reduced.values().map((result) => (result as { value: Item }).value.n)).toEqual([1, 3, 5]);
  });

  it('that leave nothing give nothing', async () => {
    const driven = await open((keyed) =>
      window(keyed)
        .trigger(onCount(1))
        .evictor({ before: () => [] })
        .aggregate('w', summing),
    );
    driven.push({ n: 1 }, 0);
    expect(driven.values()).toEqual([]);
    expect(driven.rows).toBe(0);
  });
});

describe('functions of windows', () => {
  it('have state of the key and of the window, and side outputs with the timestamp of results', async () => {
    const cleared: unknown[] = [];
    const driven = await open((keyed) =>
      keyed
        .window(tumbling(10))
        .allowedLateness(10)
        .process('w', {
          state: { all: value({ default: 0 }) },
          windowState: { firings: value({ default: 0 }) },
          onFire(ctx, values) {
            const n = [...values].length;
            ctx.state.all.update((all) => all + n);
            ctx.windowState.firings.update((firings) => firings + 1);
            ctx.side('seen', ctx.key);
            return [[ctx.start, ctx.end, n, ctx.state.all.get(), ctx.windowState.firings.get()]];
          },
          onClear(ctx) {
            cleared.push([ctx.start, ctx.windowState.firings.get(), ctx.state.all.get()]);
          },
        }),
    );
    feed(driven, [1, 1], [2, 1], [11, 1]).watermark(12);
    feed(driven, [3, 1]).watermark(100);
    expect(driven.take()).toEqual([
      { value: [0, 10, 2, 2, 1], timestamp: 9 },
      { value: [0, 10, 3, 5, 2], timestamp: 9 },
      { value: [10, 20, 1, 6, 1], timestamp: 19 },
    ]);
    expect(driven.take('seen').map(({ timestamp }) => timestamp)).toEqual([9, 9, 19]);
    expect(cleared).toEqual([
      [0, 2, 6],
      [10, 1, 6],
    ]);
    expect(driven.rows).toBe(1);
  });

  it('merge the state of windows that merge', async () => {
    const driven = await open((keyed) =>
      keyed
        .window(session(10))
        .trigger({ onElement: () => 'fire', onMerge() {} })
        .process('w', {
          windowState: {
            sum: reducing<number>((left, right) => left + right),
            first: value<number>(),
            all: list<number>(),
            by: map<string, number>(),
          },
          onFire({ windowState }, values) {
            const { n } = [...values].at(-1)!;
            windowState.sum.add(n);
            if (windowState.first.get() === undefined) windowState.first.set(n);
            windowState.all.add(n);
            windowState.by.set(`${n % 2}`, n);
            return [[windowState.sum.get(), windowState.first.get(), windowState.all.all(), [...windowState.by.entries()].toSorted()]];
          },
        }),
    );
    feed(driven, [20, 1], [0, 2], [10, 4]);
    expect(driven.values().at(-1)).toEqual([
      7,
      2,
      [2, 1, 4],
      [
        ['0', 4],
        ['1', 1],
      ],
    ]);
    driven.end();
    expect(driven.rows).toBe(0);
  });

  it('cannot be asynchronous, and cannot keep their context', async () => {
    const waiting = await open((keyed) => keyed.window(tumbling(10)).process('w', (async () => []) as never));
    expect(() => feed(waiting, [1, 1]).end()).toThrow(/promise/);
    let kept: { start: number; key: string } | undefined;
    const driven = await open((keyed) =>
      keyed.window(tumbling(10)).process('w', (ctx) => {
        kept = ctx;
        return [];
      }),
    );
    feed(driven, [1, 1]).end();
    expect(() => kept!.start).toThrow(/outside/);
    expect(() => kept!.key).toThrow(/outside/);
  });

  it('of all records have no key', async () => {
    const driven = await Driven.open<Item>((all) => all.windowAll(tumbling(10)).aggregate('w', summing));
    driven.push({ n: 1, key: 'a' }, 1).push({ n: 2, key: 'b' }, 2).end();
    expect(driven.values()).toEqual([{ key: null, start: 0, end: 10, value: 3 }]);
    const sessions = await Driven.open<Item>((all) => all.windowAll(session(10)).process('w', (ctx, values) => [[ctx.key, [...values].length]]));
    sessions.push({ n: 1, key: 'a' }, 1).push({ n: 2, key: 'b' }, 2).end();
    expect(sessions.values()).toEqual([[null, 2]]);
  });
});

describe('join and coGroup', () => {
  it('join pairs each record of the left with each of the right of the same window and key', async () => {
    const driven = await open((left, right) =>
      left
        .join(right)
        .window(tumbling(10))
        .apply('w', (l, r, window) => `${l.n}+${r.n}@${window.start}`),
    );
    driven.push({ n: 1 }, 1).push({ n: 2 }, 2, true).push({ n: 3 }, 3).push({ n: 4 }, 4, true).push({ n: 5 }, 11).push({ n: 6, key: 'z' }, 1, true).end();
    expect(driven.take()).toEqual(['1+2@0', '1+4@0', '3+2@0', '3+4@0'].map((value) => ({ value, timestamp: 9 })));
    expect(driven.rows).toBe(0);
  });

  it('coGroup gives both sides in the order in which they came; one of them may be empty', async () => {
    const driven = await open((left, right) =>
      left
        .coGroup(right)
        .window(session(10))
        .apply('w', (key, l, r, { start, end }) => [[key, l.map(({ n }) => n), r.map(({ n }) => n), start, end]]),
    );
    driven.push({ n: 1 }, 20).push({ n: 2 }, 0, true).push({ n: 3 }, 21).push({ n: 4 }, 10, true).push({ n: 5 }, 50, true).end();
    expect(driven.values()).toEqual([
      ['k', [1, 3], [2, 4], 0, 31],
      ['k', [], [5], 50, 60],
    ]);
    expect(driven.rows).toBe(0);
  });
});

describe('lists of records', () => {
  it('of many are kept in chunks: a record more is not the whole list again in the next snapshot', async () => {
    const driven = await open((keyed) => keyed.window(tumbling(1e6)).process('w', (_ctx, values) => [[...values].map((item) => item.n)]));
    const bytes = (): number => driven.snapshot().files.reduce((sum, file) => sum + file.bytes, 0);
    for (let n = 0; n < 10_000; n++) driven.push({ n }, n);
    const before = bytes();
    driven.push({ n: 10_000 }, 5);
    expect(bytes() - before).toBeLessThan(before / 50);
    driven.end();
    expect(driven.values()).toEqual([Array.from({ length: 10_001 }, (_, n) => n)]);
    expect(driven.rows).toBe(0);
  });
});

describe('a failing function under skip', () => {
  const failing = (fails: (n: number) => boolean) => (keyed: Keyed) =>
    keyed
      .window(tumbling(10))
      .allowedLateness(100)
      .process('w', {
        state: { n: value({ default: 0 }) },
        onFire(ctx, values) {
          ctx.state.n.update((n) => n + 1);
          const all = [...values];
          if (fails(all.length)) throw new Error('no');
          return [[all.length, ctx.state.n.get()]];
        },
      });

  it('keeps the contents of its window, and counts as fired', async () => {
    const driven = await open(
      failing((n) => n === 2),
      { skip: true },
    );
    feed(driven, [1, 1], [2, 2]).watermark(50);
    expect(driven.values()).toEqual([]);
    expect(driven.letters.map(({ subject }) => subject)).toEqual([{ window: { start: 0, end: 10 } }]);
    driven.watermark(60);
    expect(driven.letters).toHaveLength(1);
    feed(driven, [3, 4]);
    expect(driven.values()).toEqual([[3, 1]]);
  });

  it('undoes the record that made it fire', async () => {
    const driven = await open(
      failing((n) => n === 2),
      { skip: true },
    );
    feed(driven, [1, 1]).watermark(50);
    feed(driven, [2, 2]);
    expect(driven.letters.map(({ subject }) => subject)).toEqual([{ n: 2 }]);
    feed(driven, [3, 4]);
    expect(driven.letters).toHaveLength(2);
    expect(driven.values()).toEqual([[1, 1]]);
  });

  it('undoes a merge of sessions', async () => {
    const driven = await open(
      (keyed) =>
        keyed.window(session((item) => item.gap ?? 10)).aggregate('w', {
          ...summing,
          add: (total: number, item: Item) => {
            if (item.n === 0) throw new Error('no');
            return total + item.n;
          },
        }),
      { skip: true },
    );
    feed(driven, [0, 1], [15, 2], [7, 0]).end();
    expect(driven.letters).toHaveLength(1);
    expect(results(driven)).toEqual([
      [0, 10, 1],
      [15, 25, 2],
    ]);
    expect(driven.rows).toBe(0);
  });

  it('lets a window end whose onClear fails', async () => {
    const driven = await open(
      (keyed) =>
        keyed.window(tumbling(10)).process('w', {
          windowState: { n: value<number>() },
          onFire(ctx) {
            ctx.windowState.n.set(1);
            return [];
          },
          onClear() {
            throw new Error('no');
          },
        }),
      { skip: true },
    );
    feed(driven, [1, 1]).watermark(50);
    expect(driven.letters).toHaveLength(1);
    expect(driven.rows).toBe(0);
  });
});

describe('a snapshot and a restore', () => {
  const backends: Record<string, () => Promise<() => Backend>> = {
    'memory()': async () => (await import('millrace')).memory as () => Backend,
    'level()': async () => {
      const directory = await mkdtemp(join(tmpdir(), 'millrace-'));
      onTestFinished(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }));
      return () => level({ directory }) as Backend;
    },
  };
  for (const [name, backend] of Object.entries(backends)) {
    it(`keeps sessions, their triggers, timers and state, at another parallelism, in ${name}`, async () => {
      const build = (keyed: Keyed): unknown =>
        keyed
          .window(session(10))
          .trigger(early({ every: 50 }))
          .process('w', {
            windowState: { fired: value({ default: 0 }) },
            onFire(ctx, values) {
              ctx.windowState.fired.update((n) => n + 1);
              return [`${ctx.key} ${ctx.start}-${ctx.end} ${[...values].map((item) => item.n)} #${ctx.windowState.fired.get()}`];
            },
          });
      const made = await backend();
      const before = await open(build, { backend: made });
      const keys = Array.from({ length: 20 }, (_, i) => `k${i}`);
      for (const key of keys) before.push({ n: 1, key }, 20).push({ n: 2, key }, 0);
      before.clock(50);
      before.values();
      const snapshot = before.snapshot();
      await before.close();
      for (const parallelism of [1, 3]) {
        const after = await open(build, { restore: snapshot, parallelism, backend: made });
        for (const key of keys) after.push({ n: 3, key }, 10);
        after.clock(100);
        expect(after.values().toSorted()).toEqual(keys.map((key) => `${key} 0-30 1,2,3 #2`).toSorted());
        after.end();
        expect(after.values().toSorted()).toEqual(keys.map((key) => `${key} 0-30 1,2,3 #3`).toSorted());
        expect(after.rows).toBe(0);
        await after.close();
      }
    });
  }

  it('with another definition of the windows is refused, naming the operator; lateness and triggers may change', async () => {
    const builds: Record<string, (keyed: Keyed) => unknown> = {
      tumbling: (keyed) => keyed.window(tumbling(10)).aggregate('w', summing),
      larger: (keyed) => keyed.window(tumbling(20)).aggregate('w', summing),
      shifted: (keyed) => keyed.window(tumbling(10, { offset: 1 })).aggregate('w', summing),
      sliding: (keyed) => keyed.window(sliding(10, 5)).aggregate('w', summing),
      sessions: (keyed) => keyed.window(session(10)).aggregate('w', summing),
      processing: (keyed) => keyed.window(tumbling(10, { time: 'processing' })).aggregate('w', summing),
      records: (keyed) => keyed.window(tumbling(10)).process('w', () => []),
      evicting: (keyed) => keyed.window(tumbling(10)).evictor(evictCount(1)).aggregate('w', summing),
    };
    for (const [name, build] of Object.entries(builds)) {
      const driven = await open(build);
      feed(driven, [1, 1]);
      const restore = driven.snapshot();
      for (const [other, changed] of Object.entries(builds)) {
        const opened = open(changed, { restore });
        if (other === name) await opened;
        else await expect(opened, `${name} → ${other}`).rejects.toMatchObject({ code: 'SNAPSHOT_INCOMPATIBLE', uid: 'w' });
      }
    }
    const plain = await open((keyed) => keyed.window(tumbling(10)).aggregate('w', summing));
    feed(plain, [1, 1]);
    const later = await open(
      (keyed) =>
        keyed
          .window(tumbling(10))
          .allowedLateness(5)
          .trigger(early({ count: 9 }))
          .aggregate('w', summing),
      {
        restore: plain.snapshot(),
      },
    );
    later.end();
    expect(results(later)).toEqual([[0, 10, 1]]);
  });
});
