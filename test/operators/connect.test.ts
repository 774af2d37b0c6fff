import { broadcastMap, job, list, map, output, process as processOf, type Stream, splitList, type, unionList, value } from 'millrace';
import { collect } from 'millrace/connectors';
import { harness2 } from 'millrace/testing';
import { describe, expect, it } from 'vitest';
import { rejection } from '../protocols/lab.ts';

const values = <R>(h: { take(): { value: R }[] }): R[] => h.take().map((r) => r.value);

interface Left {
  k: string;
  n: number;
}
interface Right {
  k: string;
  s: string;
}
const l = (k: string, n: number): Left => ({ k, n });
const r = (k: string, s: string): Right => ({ k, s });

describe('two keyed inputs', () => {
  const definition = processOf<string, Left, Right, string>()({
    state: { sum: value({ default: 0 }), words: list<string>() },
    onLeft(v, ctx) {
      ctx.state.sum.update((sum) => sum + v.n);
      ctx.timers.event.set(v.n);
      ctx.emit(`${ctx.key} ${ctx.state.sum.get()} ${ctx.state.words.all().join('')}`);
    },
    onRight(v, ctx) {
      ctx.state.words.add(v.s);
      ctx.timers.event.set(1000);
      ctx.emit(`${ctx.key} ${ctx.state.sum.get()} ${ctx.state.words.all().join('')} at ${ctx.timestamp}`);
    },
    onTimer: (timer, ctx) => ctx.emit(`${ctx.key} timer ${timer.at} ${ctx.state.sum.get()} ${ctx.state.words.all().length}`),
  });
  const build = (left: Stream<Left>, right: Stream<Right>): Stream<string> =>
    left
      .keyBy((v) => v.k)
      .connect(right.keyBy((v) => v.k))
      .process('both', definition);

  it('share state and timers by key', async () => {
    const h = await harness2(build);
    await h.left.push(l('a', 5), 1);
    await h.right.push(r('a', 'x'), 2);
    await h.right.push(r('b', 'y'), 3);
    await h.left.push(l('a', 7), 4);
    expect(values(h)).toEqual(['a 5 ', 'a 5 x at 2', 'b 0 y at 3', 'a 12 x']);
    expect(h.timers().map(({ key, at }) => [key, at])).toEqual([
      ['a', 5],
      ['a', 7],
      ['a', 1000],
      ['b', 1000],
    ]);
    await h.left.watermark(2000);
    expect(values(h)).toEqual([]);
    await h.right.watermark(1000);
    expect(values(h).toSorted()).toEqual(['a timer 1000 12 1', 'a timer 5 12 1', 'a timer 7 12 1', 'b timer 1000 0 1']);
    await h.close();
  });

  it('are restored at another parallelism', async () => {
    for (const [from, to] of [
      [1, 3],
      [3, 1],
    ] as const) {
      const h = await harness2(build, { parallelism: from });
      for (let i = 0; i < 20; i++) {
        await h.left.push(l(`k${i}`, i), i);
        await h.right.push(r(`k${i}`, 'x'), i);
      }
      h.take();
      const again = await harness2(build, { parallelism: to, restore: await h.snapshot() });
      await h.close();
      for (let i = 0; i < 20; i++) await again.right.push(r(`k${i}`, 'y'), i);
      expect(values(again).toSorted()).toEqual(Array.from({ length: 20 }, (_, i) => `k${i} ${i} xy at ${i}`).toSorted());
      await again.left.watermark(2000);
      await again.right.watermark(2000);
      expect(values(again)).toHaveLength(40);
      await again.close();
    }
  });

  it('undo what a record did on either side, and name it in a dead letter', async () => {
    const h = await harness2((left: Stream<Left>, right: Stream<Right>) =>
      left
        .keyBy((v) => v.k)
        .connect(right.keyBy((v) => v.k))
        .process('both', {
          emits: type<string>(),
          state: { seen: map<string, number>() },
          onLeft(v, ctx) {
            ctx.state.seen.set('left', v.n);
            ctx.emit(`left ${v.n}`);
            if (v.n < 0) throw new Error('negative');
          },
          onRight(v, ctx) {
            ctx.state.seen.set('right', 1);
            ctx.emit(`right ${[...ctx.state.seen.keys()]}`);
            if (v.s === '') throw new Error('empty');
          },
        })
        .onError('skip'),
    );
    await h.left.push(l('a', -1), 1);
    await h.right.push(r('a', ''), 2);
    await h.right.push(r('a', 'x'), 3);
    expect(values(h)).toEqual(['right right']);
    expect(h.deadLetters().map((d) => [d.uid, d.key, d.timestamp, d.error.message, d.record])).toEqual([
      ['both', 'a', 1, 'negative', l('a', -1)],
      ['both', 'a', 2, 'empty', r('a', '')],
    ]);
    await h.close();
  });

  it('give their dead letters as a stream, and side outputs of both sides', async () => {
    const odd = output<number>('odd');
    const out: string[] = [];
    await job('letters', (env) => {
      const both = env
        .fromArray('left', [1, 2, 3])
        .keyBy(() => 'k')
        .connect(env.fromArray('right', ['a', 'bad']).keyBy(() => 'k'))
        .process('both', {
          emits: type<string>(),
          onLeft: (v, ctx) => (v % 2 === 1 ? ctx.side(odd, v) : ctx.emit(`even ${v}`)),
          onRight(v, ctx) {
            if (v === 'bad') throw new Error('bad');
            ctx.emit(v);
          },
        })
        .onError('skip');
      both.sink('main', collect(out));
      both
        .side(odd)
        .map((n) => `odd ${n}`)
        .sink('odd', collect(out));
      both
        .deadLetters()
        .map((d) => `letter ${String(d.record)} of ${d.uid}`)
        .sink('letters', collect(out));
    }).run({ parallelism: 2 });
    expect(out.toSorted()).toEqual(['a', 'even 2', 'letter bad of both', 'odd 1', 'odd 3']);
  });
});

describe('two inputs without a key', () => {
  const build = (left: Stream<number>, right: Stream<string>): Stream<string> =>
    left.connect(right).process('both', {
      emits: type<string>(),
      state: { seen: splitList<string>() },
      onLeft(v, ctx) {
        ctx.state.seen.add(`l${v}`);
        ctx.emit(ctx.state.seen.all().join(' '));
      },
      onRight(v, ctx) {
        ctx.state.seen.add(`r${v}`);
        ctx.emit(`${ctx.state.seen.all().join(' ')} at ${ctx.timestamp}`);
      },
    });

  it('share the state of their instance, and have neither key nor timers', async () => {
    const h = await harness2(build);
    await h.left.push(1);
    await h.right.push('x', 9);
    expect(values(h)).toEqual(['l1', 'l1 rx at 9']);
    await h.close();
    for (const use of [(ctx: { key: unknown }) => ctx.key, (ctx: { timers: { event: { set(at: number): void } } }) => ctx.timers.event.set(1)]) {
      const bad = await harness2((left: Stream<number>, right: Stream<number>) =>
        left.connect(right).process('both', { onLeft: (_v, ctx) => void use(ctx as never), onRight() {} }),
      );
      expect(await rejection(bad.left.push(1))).toMatchObject({ code: 'CONTEXT_USED_OUTSIDE_RECORD', uid: 'both' });
      await bad.close().catch(() => {});
    }
  });
});

interface Rule {
  id: string;
  limit: number;
}
const rule = (id: string, limit: number): Rule => ({ id, limit });

describe('beside a broadcast stream', () => {
  const keyed = (left: Stream<Left>, right: Stream<Rule>): Stream<string> =>
    left
      .keyBy((v) => v.k)
      .connect(right.broadcast())
      .process('limits', {
        emits: type<string>(),
        state: { sum: value({ default: 0 }), rules: broadcastMap<string, Rule>() },
        onLeft(v, ctx) {
          ctx.state.sum.update((sum) => sum + v.n);
          ctx.timers.event.set(100);
          for (const { id, limit } of ctx.state.rules.values()) if (ctx.state.sum.get() > limit) ctx.emit(`${ctx.key} over ${id}`);
        },
        onRight(v, ctx) {
          if (v.limit < 0) ctx.state.rules.delete(v.id);
          else ctx.state.rules.set(v.id, v);
        },
        onTimer: (_timer, ctx) => ctx.emit(`${ctx.key} ${ctx.state.sum.get()} with ${ctx.state.rules.size} rules`),
      });

  it('every instance sees every record of it, and the keyed side reads what they made', async () => {
    for (const parallelism of [1, 3]) {
      const h = await harness2(keyed, { parallelism });
      await h.right.push(rule('big', 10));
      for (const k of ['a', 'b', 'c', 'd', 'e']) await h.left.push(l(k, 11), 1);
      expect(values(h).toSorted()).toEqual(['a', 'b', 'c', 'd', 'e'].map((k) => `${k} over big`));
      await h.right.push(rule('big', -1));
      for (const k of ['a', 'b', 'c', 'd', 'e']) await h.left.push(l(k, 11), 1);
      expect(values(h)).toEqual([]);
      await h.left.watermark(100);
      await h.right.watermark(100);
      expect(values(h).toSorted()).toEqual(['a', 'b', 'c', 'd', 'e'].map((k) => `${k} 22 with 0 rules`));
      await h.close();
    }
  });

  it('every new instance has the copy of an old one, at whatever parallelism it is restored', async () => {
    for (const [from, to] of [
      [1, 1],
      [1, 3],
      [3, 2],
      [2, 2],
    ] as const) {
      const h = await harness2(keyed, { parallelism: from });
      await h.right.push(rule('big', 10));
      await h.right.push(rule('huge', 20));
      await h.left.push(l('a', 5), 1);
      const again = await harness2(keyed, { parallelism: to, restore: await h.snapshot() });
      await h.close();
      for (const k of ['a', 'b', 'c', 'd', 'e']) await again.left.push(l(k, 11), 1);
      expect(values(again).toSorted()).toEqual(['a', 'b', 'c', 'd', 'e'].map((k) => `${k} over big`));
      await again.close();
    }
  });

  const uses: [string, string, (ctx: never) => unknown][] = [
    ['the key', 'CONTEXT_USED_OUTSIDE_RECORD', (ctx: { key: unknown }) => ctx.key],
    ['an event-time timer', 'CONTEXT_USED_OUTSIDE_RECORD', (ctx: { timers: { event: { set(at: number): void } } }) => ctx.timers.event.set(5)],
    [
      'a processing-time timer',
      'CONTEXT_USED_OUTSIDE_RECORD',
      (ctx: { timers: { processing: { delete(at: number): void } } }) => ctx.timers.processing.delete(5),
    ],
    ['keyed state', 'STATE_MISUSED', (ctx: { state: { sum: { get(): number } } }) => ctx.state.sum.get()],
  ];
  it.each(uses)('its side cannot use %s: %s', async (_what, code, use) => {
    const h = await harness2((left: Stream<Left>, right: Stream<Rule>) =>
      left
        .keyBy((v) => v.k)
        .connect(right.broadcast())
        .process('limits', {
          state: { sum: value({ default: 0 }), rules: broadcastMap<string, Rule>() },
          onLeft() {},
          onRight: (_v, ctx) => void use(ctx as never),
        }),
    );
    await h.left.push(l('a', 1), 1);
    expect(await rejection(h.right.push(rule('x', 1)))).toMatchObject({ code, uid: 'limits' });
    await h.close().catch(() => {});
  });

  it.each(['set', 'delete', 'clear'] as const)('the other side cannot call %s on a broadcast map', async (method) => {
    const h = await harness2((left: Stream<number>, right: Stream<Rule>) =>
      left.connect(right.broadcast()).process('limits', {
        state: { rules: broadcastMap<string, Rule>() },
        onLeft: (_v, ctx) => (ctx.state.rules as unknown as Record<string, (...given: unknown[]) => undefined>)[method]!('x', rule('x', 1)),
        onRight() {},
      }),
    );
    expect(await rejection(h.left.push(1))).toMatchObject({ code: 'STATE_MISUSED', uid: 'limits' });
    await h.close().catch(() => {});
  });

  it('its side goes on without a key after a keyed record, and the keyed side has its key after a broadcast one', async () => {
    const seen: string[] = [];
    const h = await harness2((left: Stream<Left>, right: Stream<Rule>) =>
      left
        .keyBy((v) => v.k)
        .connect(right.broadcast())
        .process('limits', {
          state: { n: value({ default: 0 }), rules: broadcastMap<string, Rule>() },
          onLeft(v, ctx) {
            ctx.state.n.update((n) => n + 1);
            if (v.n < 0) throw new Error('negative');
            seen.push(`${ctx.key} ${ctx.state.n.get()}`);
          },
          onRight(v, ctx) {
            ctx.state.rules.set(v.id, v);
            if (v.limit < 0) throw new Error('negative');
            seen.push([...ctx.state.rules.keys()].join());
          },
        })
        .onError('skip'),
    );
    await h.left.push(l('a', 1), 1);
    await h.right.push(rule('x', -1));
    await h.left.push(l('a', -1), 1);
    await h.left.push(l('a', 1), 1);
    await h.right.push(rule('y', 1));
    expect(seen).toEqual(['a 1', 'a 2', 'y']);
    expect(h.deadLetters().map((d) => [d.key, d.error.message])).toEqual([
      [undefined, 'negative'],
      ['a', 'negative'],
    ]);
    await h.close();
  });
});

describe('what does not fit is refused when the plan is built, with its uid', () => {
  const nothing = (): undefined => undefined;
  type Loose = { connect(other: unknown): { process(uid: string, definition: object): unknown }; process(uid: string, definition: object): unknown };
  const cases: [string, (streams: { plain: Loose; keyed: Loose; other: Stream<number> }) => unknown][] = [
    ['keyed state in an unkeyed process', ({ plain }) => plain.process('bad', { state: { v: value() }, onRecord: nothing })],
    ['operator state in a keyed process', ({ keyed }) => keyed.process('bad', { state: { v: splitList() }, onRecord: nothing })],
    ['a broadcast map without a broadcast input', ({ plain }) => plain.process('bad', { state: { v: broadcastMap() }, onRecord: nothing })],
    ['a broadcast map in a keyed process', ({ keyed }) => keyed.process('bad', { state: { v: broadcastMap() }, onRecord: nothing })],
    ['a keyed stream connected with an unkeyed one', ({ keyed, other }) => keyed.connect(other).process('bad', { onLeft: nothing, onRight: nothing })],
    [
      'an unkeyed stream connected with a keyed one',
      ({ plain, other }) => plain.connect(other.keyBy((v) => v)).process('bad', { onLeft: nothing, onRight: nothing }),
    ],
    [
      'keyed state in a connected process without a key',
      ({ plain, other }) => plain.connect(other).process('bad', { state: { v: list() }, onLeft: nothing, onRight: nothing }),
    ],
    [
      'a union list in a keyed connected process',
      ({ keyed, other }) => keyed.connect(other.keyBy((v) => v)).process('bad', { state: { v: unionList() }, onLeft: nothing, onRight: nothing }),
    ],
    [
      'a split list beside a broadcast stream with a key',
      ({ keyed, other }) => keyed.connect(other.broadcast()).process('bad', { state: { v: splitList() }, onLeft: nothing, onRight: nothing }),
    ],
    ['a process without onRight', ({ plain, other }) => plain.connect(other).process('bad', { onLeft: nothing })],
    ['state that is none', ({ keyed }) => keyed.process('bad', { state: { v: {} }, onRecord: nothing })],
    ['state with a name of Millrace', ({ keyed }) => keyed.process('bad', { state: { '.timers': value() }, onRecord: nothing })],
  ];
  it.each(cases)('%s', (_what, build) => {
    const plan = (): unknown =>
      job('plan', (env) => {
        const plain = env.fromArray('in', [1]);
        build({ plain: plain as never, keyed: plain.keyBy((v) => v) as never, other: env.fromArray('other', [1]) });
      }).plan();
    expect(plan).toThrow(expect.objectContaining({ code: 'PLAN_INVALID', uid: 'bad' }));
  });

  it.each([{ ttl: 0 }, { ttl: Number.NaN }, { ttl: -1 }, { ttl: 1, ttlClock: 'moon' }, { ttl: 1, ttlOn: 'never' }, { version: -1 }])(
    'the options %j',
    (options) => {
      const plan = (): unknown =>
        job('plan', (env) => {
          env
            .fromArray('in', [1])
            .keyBy((v) => v)
            .process('bad', { state: { v: value(options as { ttl: number }) }, onRecord() {} });
        }).plan();
      expect(plan).toThrow(expect.objectContaining({ code: 'OPTION_INVALID', uid: 'bad' }));
    },
  );
});

it('a stream may be connected with itself, and unions with broadcast unions', async () => {
  const seen: string[] = [];
  await job('itself', (env) => {
    const numbers = env.fromArray('in', [1, 2, 3]);
    numbers.connect(numbers).process('itself', { onLeft: (v) => void seen.push(`l${v}`), onRight: (v) => void seen.push(`r${v}`) });
    const more = env.fromArray('more', [4]);
    numbers
      .union(more)
      .keyBy((v) => v)
      .connect(numbers.union(more).broadcast())
      .process('beside', {
        state: { all: broadcastMap<number, number>() },
        onLeft: (v) => void seen.push(`k${v}`),
        onRight: (v, ctx) => ctx.state.all.set(v, v),
      });
  }).run({ parallelism: 2 });
  expect(seen.toSorted()).toEqual(['k1', 'k2', 'k3', 'k4', 'l1', 'l2', 'l3', 'r1', 'r2', 'r3']);
});
