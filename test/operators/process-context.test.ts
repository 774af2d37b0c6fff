import { job, output, type Stream, type, value } from 'millrace';
import { harness, harness2 } from 'millrace/testing';
import { describe, expect, it } from 'vitest';
import { ends, Feed, rejection } from '../protocols/lab.ts';

const values = <R>(h: { take(): { value: R }[] }): R[] => h.take().map((r) => r.value);
const late = output<string>('late');

describe('the context of a process', () => {
  it('emits with the timestamp of the record or timer, or with one that is given; so does side', async () => {
    const h = await harness((input: Stream<string>) =>
      input
        .keyBy(() => 'k')
        .process('stamps', {
          emits: type<string>(),
          onRecord(v, ctx) {
            ctx.emit(v);
            ctx.emit(`${v} at 7`, 7);
            ctx.side(late, v);
            ctx.side('late', `${v} at 8`, 8);
            ctx.timers.event.set(20);
            ctx.timers.processing.set(30);
          },
          onTimer: (timer, ctx) => ctx.emit(`${timer.domain}`),
          onWatermark: (time, ctx) => ctx.emit(`watermark ${time} = ${ctx.watermark}`),
          onEnd: (ctx) => ctx.emit('end', 99),
        }),
    );
    await h.push('a', 5);
    await h.push('b');
    await h.watermark(20);
    await h.processingTime(30);
    await h.end();
    expect(h.take()).toEqual([
      { value: 'a', timestamp: 5 },
      { value: 'a at 7', timestamp: 7 },
      { value: 'b', timestamp: undefined },
      { value: 'b at 7', timestamp: 7 },
      { value: 'event', timestamp: 20 },
      { value: 'watermark 20 = 20', timestamp: undefined },
      { value: 'processing', timestamp: undefined },
      { value: 'watermark Infinity = Infinity', timestamp: undefined },
      { value: 'end', timestamp: 99 },
    ]);
    expect(h.side(late)).toEqual([
      { value: 'a', timestamp: 5 },
      { value: 'a at 8', timestamp: 8 },
      { value: 'b', timestamp: undefined },
      { value: 'b at 8', timestamp: 8 },
    ]);
    await h.close();
  });

  it('knows the clock and a random source that a test can drive, and where it runs', async () => {
    const build = (input: Stream<number>) =>
      input.process('where', {
        emits: type<unknown[]>(),
        onRecord: (_v, ctx) => ctx.emit([ctx.now(), ctx.random(), ctx.uid, ctx.subtask, ctx.parallelism, ctx.watermark]),
      });
    const once = async (seed: number): Promise<unknown[]> => {
      const h = await harness(build, { seed });
      await h.processingTime(123);
      await h.push(1);
      const [out] = values(h);
      await h.close();
      return out!;
    };
    const first = await once(1);
    expect(first).toEqual([123, expect.any(Number), 'where', 0, 1, Number.NEGATIVE_INFINITY]);
    expect(await once(1)).toEqual(first);
    expect((await once(2))[1]).not.toBe(first[1]);
  });

  it('has counters, gauges and histograms of the job', async () => {
    const feed = new Feed<number>({ bounded: false });
    const running = ends(
      await job('metrics', (env) => {
        env.source('in', feed).process('measured', {
          onStart: (ctx) => ctx.metrics.gauge('answer', () => 42),
          onRecord(v, ctx) {
            ctx.metrics.counter('seen').inc();
            ctx.metrics.counter('total').inc(v);
            ctx.metrics.histogram('sizes').record(v);
          },
        });
      }).start(),
    );
    await feed.push([1, 2, 3]).taken();
    const figure = async (name: string): Promise<number | undefined> => (await running.metrics()).find((m) => m.name === name)?.value;
    expect([await figure('seen'), await figure('total'), await figure('sizes_count'), await figure('answer')]).toEqual([3, 6, 3, 42]);
  });

  const uses: [string, (ctx: never) => unknown][] = [
    ['the key', (ctx: { key: unknown }) => ctx.key],
    ['keyed state', (ctx: { state: unknown }) => ctx.state],
    ['a timer', (ctx: { timers: { event: { set(at: number): void } } }) => ctx.timers.event.set(1)],
  ];
  it.each(uses)('of onStart and onWatermark has no use for %s', async (_what, use) => {
    const build = (handler: 'onStart' | 'onWatermark') => (input: Stream<string>) =>
      input
        .keyBy((v) => v)
        .process('keyed', { state: { n: value<number>() }, onRecord() {}, [handler]: (...given: unknown[]) => void use(given.at(-1) as never) });
    const error = { code: 'CONTEXT_USED_OUTSIDE_RECORD', uid: 'keyed' };
    expect(await rejection(harness(build('onStart')).then((h) => h.push('a', 1)))).toMatchObject(error);
    const h = await harness(build('onWatermark'));
    await h.push('a', 1);
    expect(await rejection(h.watermark(5))).toMatchObject(error);
    await h.close().catch(() => {});
  });
});

describe('timers', () => {
  it('as many as there are for one watermark fire before it goes on, in order of time, with records behind them', async () => {
    const count = 20_000;
    const h = await harness((input: Stream<number>) =>
      input
        .keyBy((v) => v % 500)
        .process('burst', {
          emits: type<number>(),
          onRecord(v, ctx) {
            if (v < 0) ctx.emit(v);
            else ctx.timers.event.set((v * 7919) % count);
          },
          onTimer: (timer, ctx) => ctx.emit(timer.at),
        }),
    );
    await Promise.all(Array.from({ length: count }, (_, v) => h.push(v, 0)));
    const fired = h.watermark(count);
    const behind = h.push(-1, 5);
    await Promise.all([fired, behind]);
    const out = values(h);
    expect(out).toHaveLength(count + 1);
    expect(out.at(-1)).toBe(-1);
    expect(out.slice(0, count).every((at, i) => i === 0 || out[i - 1]! <= at)).toBe(true);
    expect(h.watermarks()).toEqual([count]);
    await h.close();
  });

  it('of both inputs are the same timers, and may be set and deleted from either', async () => {
    const h = await harness2((left: Stream<number>, right: Stream<number>) =>
      left
        .keyBy(() => 'k')
        .connect(right.keyBy(() => 'k'))
        .process('both', {
          emits: type<string>(),
          onLeft: (at, ctx) => ctx.timers.event.set(at),
          onRight: (at, ctx) => (at < 0 ? ctx.timers.event.delete(-at) : ctx.timers.processing.set(at)),
          onTimer(timer, ctx) {
            ctx.emit(`${timer.domain} ${timer.at}`);
            if (timer.domain === 'event' && timer.at < 12) ctx.timers.event.set(timer.at + 1);
          },
        }),
    );
    for (const at of [10, 20, 30]) await h.left.push(at, 1);
    await h.right.push(-20, 1);
    await h.right.push(10, 1);
    await h.left.watermark(25);
    await h.right.watermark(25);
    await h.processingTime(10);
    expect(values(h)).toEqual(['event 10', 'event 11', 'event 12', 'processing 10']);
    expect(h.timers()).toEqual([{ key: 'k', at: 30, domain: 'event' }]);
    await h.close();
  });

  it('one that throws under skip stays fired, and what else it did is undone', async () => {
    const h = await harness((input: Stream<number>) =>
      input
        .keyBy(() => 'k')
        .process('skips', {
          emits: type<number>(),
          state: { n: value({ default: 0 }) },
          onRecord: (at, ctx) => ctx.timers.event.set(at),
          onTimer(timer, ctx) {
            ctx.state.n.update((n) => n + 1);
            ctx.timers.event.set(timer.at + 100);
            ctx.emit(ctx.state.n.get());
            if (timer.at === 1) throw new Error('one');
          },
        })
        .onError('skip'),
    );
    await h.push(1, 0);
    await h.push(2, 0);
    await h.watermark(50);
    expect(values(h)).toEqual([1]);
    expect(h.timers().map((t) => t.at)).toEqual([102]);
    expect(h.deadLetters().map((d) => [d.record, d.key, d.timestamp])).toEqual([[{ timer: { at: 1, domain: 'event' } }, 'k', 1]]);
    await h.close();
  });
});
