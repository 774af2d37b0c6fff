import { broadcastMap, list, map, reducing, type Stream, splitList, tumbling, type, value } from 'millrace';
import { harness, harness2 } from 'millrace/testing';
import { describe, expect, it } from 'vitest';

const values = <R>(h: { take(): { value: R }[] }): R[] => h.take().map((r) => r.value);

describe('state with a ttl', () => {
  const build = (input: Stream<string>): Stream<string> =>
    input
      .keyBy((v) => v[0]!)
      .process('brief', {
        emits: type<string>(),
        state: { last: value<string>({ ttl: 10 }), all: list<string>({ ttl: 10 }), by: map<string, number>({ ttl: 10, ttlOn: 'read' }) },
        onRecord(v, ctx) {
          ctx.emit(`${ctx.state.last.get()} ${ctx.state.all.all().join('')} ${ctx.state.by.size}`);
          if (v.endsWith('?')) return;
          ctx.state.last.set(v);
          ctx.state.all.add(v[1]!);
          ctx.state.by.set(v, 1);
          ctx.timers.processing.set(1000);
        },
      });

  it('is gone when its time has come, by the clock of the task', async () => {
    const h = await harness(build);
    await h.push('a1');
    await h.processingTime(5);
    await h.push('a2');
    await h.processingTime(9);
    await h.push('a?');
    await h.processingTime(10);
    await h.push('a?');
    await h.processingTime(15);
    await h.push('a?');
    expect(values(h)).toEqual(['undefined  0', 'a1 1 1', 'a2 12 2', 'a2 2 1', 'undefined  0']);
    await h.close();
  });

  it('has no timers that users see, and theirs fire beside', async () => {
    const h = await harness(build);
    await h.push('a1');
    await h.push('b1');
    expect(h.timers()).toEqual([
      { key: 'a', at: 1000, domain: 'processing' },
      { key: 'b', at: 1000, domain: 'processing' },
    ]);
    await h.processingTime(500);
    expect(h.timers()).toHaveLength(2);
    await h.close();
  });

  it.each([1, 3])('is restored with the time that it has left, from parallelism 2 to %i', async (parallelism) => {
    const h = await harness(build, { parallelism: 2 });
    await h.processingTime(100);
    for (const k of 'abcdef') await h.push(`${k}1`);
    await h.processingTime(104);
    for (const k of 'abc') await h.push(`${k}2`);
    const restore = await h.snapshot();
    await h.close();
    const again = await harness(build, { restore, parallelism });
    // A harness begins at 0, but time never goes back: what is stored counts.
    await again.processingTime(109);
    for (const k of 'af') await again.push(`${k}?`);
    await again.processingTime(110);
    for (const k of 'af') await again.push(`${k}?`);
    await again.processingTime(114);
    for (const k of 'af') await again.push(`${k}?`);
    expect(values(again)).toEqual(['a2 12 2', 'f1 1 1', 'a2 2 1', 'undefined  0', 'undefined  0', 'undefined  0']);
    await again.close();
  });
});

describe('state with a ttl of event time', () => {
  const event = { ttl: 10, ttlClock: 'event' } as const;
  const build = (input: Stream<string>): Stream<string> =>
    input
      .keyBy((v) => v[0]!)
      .process('brief', {
        emits: type<string>(),
        state: {
          last: value<string>(event),
          all: list<string>(event),
          by: map<string, number>(event),
          sum: reducing<number>((l, r) => l + r, event),
          read: value<string>({ ...event, ttlOn: 'read' }),
        },
        onRecord(v, ctx) {
          const { last, all, by, sum, read } = ctx.state;
          ctx.emit([last.get(), all.all().join(''), [...by.keys()].join(','), sum.get(), read.get()].join(' '));
          if (v.endsWith('?')) return;
          last.set(v);
          all.add(v[1]!);
          by.set(v, 1);
          sum.add(Number(v[1]));
          read.set(v);
        },
      });

  it('is gone when the watermark has come a ttl further than its record, whatever processing time', async () => {
    const h = await harness(build);
    await h.push('a1', 100);
    await h.processingTime(1e12);
    await h.push('a?', 101);
    await h.watermark(105);
    await h.push('a2', 106);
    await h.watermark(109);
    await h.push('a?', 109);
    await h.watermark(110);
    await h.push('a?', 110);
    await h.watermark(116);
    await h.push('a?', 116);
    expect(values(h)).toEqual(['    ', 'a1 1 a1 1 a1', 'a1 1 a1 1 a1', 'a2 12 a1,a2 3 a2', 'a2 2 a2 3 a2', '    a2']);
    await h.watermark(126);
    await h.push('a?', 126);
    expect(values(h)).toEqual(['    ']);
    await h.close();
  });

  it('is never gone early where watermarks lag behind, and counts from the watermark for records that are late', async () => {
    const h = await harness(build);
    await h.watermark(0);
    await h.push('a1', 500);
    await h.push('b1', -500);
    await h.watermark(9);
    for (const k of 'ab') await h.push(`${k}?`, 9);
    await h.watermark(10);
    for (const k of 'ab') await h.push(`${k}?`, 10);
    await h.watermark(509);
    await h.push('a?', 509);
    // Elements that came out of order go each at its own time.
    await h.push('c2', 520);
    await h.push('c1', 512);
    await h.watermark(522);
    await h.push('c?', 522);
    expect(values(h).slice(2)).toEqual(['a1 1 a1 1 a1', 'b1 1 b1 1 b1', 'a1 1 a1 1 a1', '    b1', 'a1 1 a1 1 a1', '    ', 'c2 2 c2 2 c2', 'c1 2 c2 3 c1']);
    await h.close();
  });

  it('what was written before there was any event time begins with the first watermark', async () => {
    const h = await harness(build);
    await h.push('a1');
    await h.push('a?');
    await h.watermark(1000);
    await h.push('a?');
    await h.watermark(1009);
    await h.push('a?');
    await h.watermark(1010);
    await h.push('a?');
    expect(values(h)).toEqual(['    ', 'a1 1 a1 1 a1', 'a1 1 a1 1 a1', 'a1 1 a1 1 a1', '    a1']);
    await h.close();
  });

  it.each([1, 3])('an outage does not count, restored from parallelism 2 at %i', async (parallelism) => {
    const h = await harness(build, { parallelism: 2 });
    for (const k of 'abcdef') await h.push(`${k}1`, 100);
    await h.watermark(104);
    for (const k of 'abc') await h.push(`${k}2`, 104);
    const restore = await h.snapshot();
    await h.close();
    const again = await harness(build, { restore, parallelism });
    await again.processingTime(1e12);
    for (const k of 'af') await again.push(`${k}?`, 105);
    await again.watermark(110);
    for (const k of 'af') await again.push(`${k}?`, 110);
    expect(values(again)).toEqual(['a2 12 a1,a2 3 a2', 'f1 1 f1 1 f1', 'a2 2 a2 3 a2', '    f1']);
    await again.close();
  });

  it('timers see what is there at their own time, however far the watermark has come by then, and at the end of input', async () => {
    const timed = (input: Stream<string>): Stream<string> =>
      input
        .keyBy((v) => v)
        .process('timed', {
          emits: type<string>(),
          state: { seen: value<string>(event) },
          onRecord(v, ctx) {
            ctx.state.seen.set(v);
            for (const after of [9, 10]) ctx.timers.event.set(ctx.timestamp + after);
          },
          onTimer: (timer, ctx) => ctx.emit(`${timer.at} ${ctx.state.seen.get()}`),
        });
    const h = await harness(timed);
    await h.push('a', 0);
    await h.watermark(1000);
    await h.push('b', 1000);
    await h.end();
    expect(values(h)).toEqual(['9 a', '10 undefined', '1009 b', '1010 undefined']);
    await h.close();
  });

  it('of a unit that is undone is as it was', async () => {
    const failing = (input: Stream<string>): Stream<string> =>
      input
        .keyBy(() => 'k')
        .process('failing', {
          emits: type<string>(),
          state: { all: list<string>(event), last: value<string>(event) },
          onRecord(v, ctx) {
            ctx.state.all.add(v);
            ctx.state.last.set(v);
            if (v === 'no') throw new Error(v);
            ctx.emit(`${ctx.state.all.all().join('')} ${ctx.state.last.get()}`);
          },
        })
        .onError('skip');
    const h = await harness(failing);
    await h.push('a', 0);
    await h.push('no', 50);
    await h.watermark(10);
    await h.push('b', 10);
    expect(values(h)).toEqual(['a a', 'b b']);
    await h.close();
  });

  it('without a key: items of lists and entries of broadcast maps', async () => {
    const lists = await harness((input: Stream<string>) =>
      input.process('lists', {
        emits: type<string>(),
        state: { all: splitList<string>(event) },
        onRecord(v, ctx) {
          ctx.state.all.add(v);
          ctx.emit(ctx.state.all.all().join(''));
        },
      }),
    );
    await lists.push('a', 5);
    await lists.processingTime(1e12);
    await lists.push('b', 0);
    await lists.watermark(10);
    await lists.push('c', 10);
    await lists.watermark(15);
    await lists.push('d', 15);
    expect(values(lists)).toEqual(['a', 'ab', 'ac', 'cd']);
    await lists.close();
    const rules = await harness2((left: Stream<string>, right: Stream<string>) =>
      left.connect(right.broadcast()).process('rules', {
        emits: type<string>(),
        state: { rules: broadcastMap<string, number>(event) },
        onLeft: (_v, ctx) => ctx.emit([...ctx.state.rules.keys()].join('')),
        onRight(v, ctx) {
          ctx.state.rules.set(v, 1);
        },
      }),
    );
    await rules.right.push('r', 0);
    await rules.right.push('s', 3);
    for (const time of [9, 10, 13]) {
      await rules.left.watermark(time);
      await rules.right.watermark(time);
      await rules.left.push('?', time);
    }
    expect(values(rules)).toEqual(['rs', 's', '']);
    await rules.close();
  });

  it('of a key beside its windows: a window that fires sees what is there at its end', async () => {
    const windowed = (input: Stream<number>): Stream<string> =>
      input
        .keyBy(() => 'k')
        .window(tumbling(10))
        .process('windowed', {
          state: { before: list<number>({ ttl: 15, ttlClock: 'event' }) },
          *onFire(ctx, all) {
            yield `${ctx.start}: ${ctx.state.before.all().join(',')}`;
            for (const v of all) ctx.state.before.add(v);
          },
        });
    const straight = await harness(windowed);
    const jumping = await harness(windowed);
    for (const [h, step] of [
      [straight, 1],
      [jumping, 100],
    ] as const) {
      for (const at of [1, 11, 21, 31]) await h.push(at, at);
      for (let time = step; time <= 100; time += step) await h.watermark(time);
    }
    const all = values(straight);
    expect(all).toEqual(['0: ', '10: 1', '20: 11', '30: 21']);
    expect(values(jumping)).toEqual(all);
    await Promise.all([straight.close(), jumping.close()]);
  });

  it.each([
    ['processing', 'event'],
    ['event', 'processing'],
  ] as const)('what was stored by %s time and is declared by %s time begins anew', async (from, to) => {
    const by = (ttlClock: 'processing' | 'event') => (input: Stream<string>) =>
      input
        .keyBy((v) => v[0]!)
        .process('p', {
          emits: type<string>(),
          state: { last: value<string>({ ttl: 10, ttlClock }), all: list<string>({ ttl: 10, ttlClock }), by: map<string, number>({ ttl: 10, ttlClock }) },
          onRecord(v, ctx) {
            ctx.emit([ctx.state.last.get(), ctx.state.all.all().join(''), ctx.state.by.size].join(' '));
            if (v.endsWith('?')) return;
            ctx.state.last.set(v);
            ctx.state.all.add(v);
            ctx.state.by.set(v, 1);
          },
        });
    const h = await harness(by(from));
    await h.processingTime(3000);
    await h.watermark(500);
    await h.push('a1', 500);
    const restore = await h.snapshot();
    await h.close();
    const again = await harness(by(to), { restore });
    const move = (ms: number): Promise<void> => (to === 'event' ? again.watermark(500 + ms) : again.processingTime(ms));
    // A harness begins without event time, and at 0.
    await move(0);
    await move(9);
    await again.push('a?');
    await move(10);
    await again.push('a?');
    expect(values(again)).toEqual(['a1 a1 1', '  0']);
    await again.close();
  });
});

describe('deduplicate', () => {
  it('gives the first record of each key', async () => {
    const h = await harness((input: Stream<{ id: string; n: number }>) => input.keyBy((v) => v.id).deduplicate('once'));
    for (const [id, n] of [
      ['a', 1],
      ['b', 2],
      ['a', 3],
    ] as const)
      await h.push({ id, n }, n);
    await h.processingTime(1e12);
    await h.push({ id: 'a', n: 4 }, 4);
    expect(h.take()).toEqual([
      { value: { id: 'a', n: 1 }, timestamp: 1 },
      { value: { id: 'b', n: 2 }, timestamp: 2 },
    ]);
    await h.close();
  });

  it('with a ttl: and the first one after it, counted from the one that was given', async () => {
    const build = (input: Stream<string>): Stream<string> => input.keyBy((v) => v[0]!).deduplicate('once', { ttl: 10 });
    const h = await harness(build);
    for (const [at, v] of [
      [0, 'a1'],
      [6, 'a2'],
      [10, 'a3'],
      [19, 'a4'],
    ] as const) {
      await h.processingTime(at);
      await h.push(v);
    }
    const restore = await h.snapshot();
    expect(values(h)).toEqual(['a1', 'a3']);
    await h.close();
    const again = await harness(build, { restore, parallelism: 2 });
    await again.processingTime(19);
    await again.push('a5');
    await again.processingTime(20);
    await again.push('a6');
    expect(values(again)).toEqual(['a6']);
    await again.close();
  });
});

describe('topN', () => {
  const build = (input: Stream<{ k: string; n: number; id?: number }>) => input.keyBy((v) => v.k).topN('best', 2, (v) => v.n);

  it('gives the largest of a key, largest first, whenever they have changed; ties in order of arrival', async () => {
    const h = await harness(build);
    const push = (k: string, n: number, id = 0): Promise<void> => h.push({ k, n, id });
    await push('a', 5);
    await push('b', 1);
    await push('a', 7);
    await push('a', 3);
    await push('a', 6);
    await push('a', 7, 1);
    await push('a', 7, 2);
    expect(values(h).map(({ key, value: best }) => `${key}: ${best.map((v) => `${v.n}/${v.id}`).join(' ')}`)).toEqual([
      'a: 5/0',
      'b: 1/0',
      'a: 7/0 5/0',
      'a: 7/0 6/0',
      'a: 7/0 7/1',
    ]);
    const again = await harness(build, { restore: await h.snapshot(), parallelism: 2 });
    await again.push({ k: 'b', n: 9 });
    expect(values(again)).toEqual([
      {
        key: 'b',
        value: [
          { k: 'b', n: 9 },
          { k: 'b', n: 1, id: 0 },
        ],
      },
    ]);
    await Promise.all([h.close(), again.close()]);
  });

  it('what it has given stays as it was', async () => {
    const h = await harness(build);
    for (const n of [1, 2, 3]) await h.push({ k: 'a', n });
    const lists = values(h).map((r) => r.value);
    await h.push({ k: 'a', n: 4 });
    expect(lists.map((list) => list.map((v) => v.n))).toEqual([[1], [2, 1], [3, 2]]);
    await h.close();
  });

  it('a function that gives no number fails its record', async () => {
    const h = await harness((input: Stream<number>) =>
      input
        .keyBy(() => 'k')
        .topN('best', 1, () => Number.NaN)
        .onError('skip'),
    );
    await h.push(1);
    expect(h.deadLetters().map((d) => [d.uid, d.record])).toEqual([['best', 1]]);
    await h.close();
  });
});
