import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type AggregateFunction,
  aggregating,
  count,
  early,
  level,
  minutes,
  type Stream,
  seconds,
  session,
  sliding,
  sum,
  tumbling,
  type,
  value,
} from 'millrace';
import { harness, harness2 } from 'millrace/testing';
import { describe, expect, it } from 'vitest';

describe('asyncMap in a harness', () => {
  it('does not hold push back, and is awaited by end()', async () => {
    const answers: (() => void)[] = [];
    const h = await harness((input: Stream<number>) => input.asyncMap('ask', (n) => new Promise<number>((resolve) => answers.push(() => resolve(n * 10)))));
    await h.push(1, 1);
    await h.push(2, 2);
    await h.watermark(5);
    expect(h.take()).toEqual([]);
    expect(h.watermarks()).toEqual([]);
    answers[0]!();
    await h.active();
    expect(h.take().map((r) => r.value)).toEqual([10]);
    setImmediate(() => answers[1]!());
    await h.end();
    expect(h.take()).toEqual([{ value: 20, timestamp: 2 }]);
    expect(h.watermarks()).toEqual([5]);
    await h.close();
  });

  it('times out when the test moves the clock', async () => {
    const h = await harness((input: Stream<number>) => input.asyncMap('ask', () => new Promise<number>(() => {}), { timeout: 100 }).onError('skip'));
    await h.push(1, 1);
    await h.processingTime(99);
    expect(h.deadLetters()).toEqual([]);
    await h.processingTime(100);
    expect(h.deadLetters()).toMatchObject([{ uid: 'ask', record: 1, error: { code: 'ASYNC_TIMEOUT' } }]);
    await h.close();
  });

  it('asks again what was open in a snapshot', async () => {
    const build = (asked: number[]) => (input: Stream<number>) =>
      input.asyncMap('ask', (n) => {
        asked.push(n);
        return asked.length > 1 ? Promise.resolve(n) : new Promise<number>(() => {});
      });
    const h = await harness(build([]));
    await h.push(7, 7);
    const bytes = await h.snapshot();
    await h.close();
    const asked: number[] = [0];
    const again = await harness(build(asked), { restore: bytes });
    await again.watermark(1);
    expect(again.take()).toEqual([{ value: 7, timestamp: 7 }]);
    expect(asked).toEqual([0, 7]);
    await again.close();
  });

  it('shows an error that came between two calls in the next one', async () => {
    let fail: ((error: Error) => void) | undefined;
    const h = await harness((input: Stream<number>) =>
      input.asyncMap(
        'ask',
        () =>
          new Promise<number>((_, reject) => {
            fail = reject;
          }),
      ),
    );
    await h.push(1);
    fail!(new Error('nobody there'));
    await expect(h.watermark(1)).rejects.toThrow('nobody there');
    await h.close();
  });
});

describe('two keyed inputs in a harness', () => {
  interface Order {
    id: string;
    total: number;
  }
  interface Payment {
    id: string;
    paid: number;
  }
  it('share state by key', async () => {
    const h = await harness2((orders: Stream<Order>, payments: Stream<Payment>) =>
      orders
        .keyBy((o) => o.id)
        .connect(payments.keyBy((p) => p.id))
        .process('settle', {
          emits: type<string>(),
          state: { open: value({ default: 0 }) },
          onLeft(order, ctx) {
            ctx.state.open.update((n) => n + order.total);
            ctx.timers.event.set(ctx.timestamp + minutes(1));
          },
          onRight(payment, ctx) {
            ctx.state.open.update((n) => n - payment.paid);
          },
          onTimer(_, ctx) {
            ctx.emit(`${ctx.key} ${ctx.state.open.get()}`);
          },
        }),
    );
    await h.left.push({ id: 'a', total: 10 }, 0);
    await h.right.push({ id: 'a', paid: 4 }, 5);
    expect(h.timers()).toEqual([{ key: 'a', at: minutes(1), domain: 'event' }]);
    await h.left.watermark(minutes(2));
    expect(h.take()).toEqual([]);
    await h.right.watermark(minutes(1));
    expect(h.take()).toEqual([{ value: 'a 6', timestamp: minutes(1) }]);
    await h.close();
  });
});

describe('windows in a harness', () => {
  it('fire early when the test moves the clock, and keep no timers to look at', async () => {
    const h = await harness((input: Stream<number>) =>
      input
        .keyBy(() => 'all')
        .window(tumbling(seconds(10)))
        .trigger(early({ every: seconds(1) }))
        .aggregate(
          'sum',
          sum((n) => n),
        ),
    );
    await h.push(1, 0);
    await h.processingTime(seconds(1));
    expect(h.take().map((r) => r.value.value)).toEqual([1]);
    expect(h.timers()).toEqual([]);
    await h.push(2, 1);
    await h.watermark(seconds(10) - 1);
    expect(h.take().map((r) => r.value.value)).toEqual([3]);
    await h.close();
  });

  it('of sessions merge, and name their late output as the program does', async () => {
    const h = await harness((input: Stream<string>) =>
      input
        .keyBy((k) => k)
        .window(session(seconds(10)))
        .lateTo('too-late')
        .aggregate('visits', count()),
    );
    await h.push('a', 0);
    await h.push('a', seconds(15));
    await h.push('a', seconds(8));
    await h.watermark(seconds(30));
    expect(h.take().map((r) => r.value)).toEqual([{ key: 'a', start: 0, end: seconds(25), value: 3 }]);
    await h.push('a', 1);
    await h.push('a', 2);
    expect(h.side('too-late').map((r) => r.timestamp)).toEqual([1, 2]);
    expect(h.late()).toEqual([]);
    await h.push('a', 3);
    expect(h.late().map((r) => r.timestamp)).toEqual([3]);
    await h.close();
  });

  it('lend their state for one firing only', async () => {
    let before: { n: number } | undefined;
    const h = await harness((input: Stream<string>) =>
      input
        .keyBy((k) => k)
        .window(tumbling(10))
        .process('firings', {
          state: { fired: value({ default: { n: 0 } }) },
          *onFire(context, values) {
            const fired = context.state.fired.get();
            fired.n += 1;
            context.state.fired.set(fired);
            before = fired;
            yield { fired, records: [...values].length };
          },
        }),
    );
    await h.push('a', 1);
    await h.push('a', 12);
    await h.push('a', 13);
    await h.watermark(9);
    expect(h.take().map((r) => r.value)).toEqual([{ fired: { n: 1 }, records: 1 }]);
    expect(() => before!.n).toThrow('after the callback');
    // What was emitted is frozen, and it is the state itself: changing it now is a mistake, and says so.
    await expect(h.watermark(19)).rejects.toThrow('it was emitted');
    await h.close();
  });
});

describe('accumulators in a harness', () => {
  interface Total {
    n: number;
    seen: number[];
  }
  it('may be changed by the function they are lent to, in all places that keep one', async () => {
    const list: AggregateFunction<number, Total, number[]> = {
      create: () => ({ n: 0, seen: [] }),
      add(held, n) {
        held.n += n;
        held.seen.push(n);
        return held;
      },
      merge: (left, right) => ({ n: left.n + right.n, seen: [...left.seen, ...right.seen] }),
      result: (held) => [held.n, ...held.seen],
    };
    const keyed = (input: Stream<number>) => input.keyBy(() => 'all');
    const programs: [string, (input: Stream<number>) => Stream<unknown>][] = [
      [
        'running',
        (input) =>
          keyed(input)
            .aggregate('list', list)
            .map((r) => r.value),
      ],
      [
        'window',
        (input) =>
          keyed(input)
            .window(tumbling(10))
            .aggregate('list', list)
            .map((r) => r.value),
      ],
      [
        'sliding',
        (input) =>
          keyed(input)
            .window(sliding(10, 10))
            .trigger(early({ count: 1 }))
            .aggregate('list', list)
            .map((r) => r.value),
      ],
      [
        'state',
        (input) =>
          keyed(input).process('list', {
            emits: type<unknown>(),
            state: { held: aggregating(list) },
            onRecord(n, ctx) {
              ctx.state.held.add(n);
              ctx.emit(ctx.state.held.get());
            },
          }),
      ],
    ];
    for (const [name, program] of programs) {
      const h = await harness(program);
      for (const n of [1, 2, 3]) await h.push(n, n);
      await h.watermark(9);
      expect({ name, last: h.take().at(-1)!.value }).toEqual({ name, last: [6, 1, 2, 3] });
      await h.close();
    }
  });

  it('may be changed by a reducer, whose results stay what they were', async () => {
    const add = (left: Total, right: Total): Total => {
      left.n += right.n;
      left.seen.push(...right.seen);
      return left;
    };
    const total = (n: number): Total => ({ n, seen: [n] });
    const h = await harness((input: Stream<Total>) => input.keyBy(() => 'all').reduce('sum', add));
    for (const n of [1, 2, 3]) await h.push(total(n), n);
    expect(h.take().map((r) => r.value)).toEqual([
      { n: 1, seen: [1] },
      { n: 3, seen: [1, 2] },
      { n: 6, seen: [1, 2, 3] },
    ]);
    await h.close();
    const w = await harness((input: Stream<Total>) =>
      input
        .keyBy(() => 'all')
        .window(tumbling(10))
        .reduce('sum', add),
    );
    for (const n of [1, 2, 3]) await w.push(total(n), n);
    await w.watermark(9);
    expect(w.take().map((r) => r.value.value)).toEqual([{ n: 6, seen: [1, 2, 3] }]);
    await w.close();
  });

  it('cannot be kept for later', async () => {
    let kept: Total | undefined;
    const h = await harness((input: Stream<number>) =>
      input
        .keyBy(() => 'all')
        .aggregate('sum', {
          create: (): Total => ({ n: 0, seen: [] }),
          add(held, n) {
            if (kept !== undefined) kept.n = 0;
            held.n += n;
            kept = held;
            return held;
          },
          result: (held) => held.n,
        }),
    );
    await h.push(1);
    await expect(h.push(2)).rejects.toMatchObject({ code: 'STATE_USED_AFTER_CALLBACK' });
    await h.close();
  });
});

describe('timestamps() in a harness', () => {
  it('gives watermarks after each record', async () => {
    const h = await harness((input: Stream<{ at: number }>) => input.timestamps({ timestamp: (v) => v.at, outOfOrderness: 5 }));
    await h.push({ at: 100 }, 1);
    await h.push({ at: 90 }, 2);
    await h.watermark(1000);
    await h.push({ at: 120 }, 3);
    expect(h.take().map((r) => r.timestamp)).toEqual([100, 90, 120]);
    expect(h.watermarks()).toEqual([94, 114]);
    await h.end();
    expect(h.watermarks()).toEqual([]);
    await h.close();
  });
});

describe('a harness on level()', () => {
  it('waits for the disk, and leaves nothing on it', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'harness-'));
    const build = (input: Stream<string>) =>
      input
        .keyBy((k) => k)
        .process('last', {
          emits: type<string>(),
          state: { text: value({ default: '' }) },
          onRecord(k, ctx) {
            ctx.state.text.update((before) => `${before}${k.repeat(500)}`);
            ctx.timers.event.set(1000);
          },
          onTimer(_, ctx) {
            ctx.emit(`${ctx.key} ${ctx.state.text.get().length}`);
          },
        });
    const state = level({ directory, cacheBytes: 4096 });
    const h = await harness(build, { state });
    for (let i = 0; i < 300; i++) await h.push(`k${i % 50}`, i);
    const bytes = await h.snapshot();
    await h.watermark(1000);
    const results = h.take().map((r) => r.value);
    expect(results).toHaveLength(50);
    expect(results).toContain('k1 6000');
    await h.close();
    const again = await harness(build, { state: level({ directory, cacheBytes: 4096 }), restore: bytes, parallelism: 2 });
    expect(again.timers()).toHaveLength(50);
    await again.watermark(1000);
    expect(
      again
        .take()
        .map((r) => r.value)
        .sort(),
    ).toEqual([...results].sort());
    await again.close();
    expect(await readdir(directory)).toEqual([]);
    await rm(directory, { recursive: true });
  });
});
