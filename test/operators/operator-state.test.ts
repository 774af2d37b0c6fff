import { job, type Stream, splitList, type, unionList } from 'millrace';
import { type Harness, harness } from 'millrace/testing';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, RESTARTS, rejection, Store, temporaryFolder, Watch } from '../protocols/lab.ts';

const values = <R>(h: { take(): { value: R }[] }): R[] => h.take().map((r) => r.value);

/** Keeps what it is given, and tells all of it when it is asked with 0. */
const keeping = (state: typeof splitList<number> | typeof unionList<number>) => (input: Stream<number>) =>
  input.process('keep', {
    emits: type<string>(),
    state: { kept: state() },
    onRecord(v, ctx) {
      if (v > 0) ctx.state.kept.add(v);
      else ctx.emit(`${ctx.subtask}: ${ctx.state.kept.all().join(' ')}`);
    },
  });

/** Gives each instance a record in turn: the harness deals them out so. */
async function askAll(h: Harness<number, string>, instances: number): Promise<string[]> {
  for (let i = 0; i < instances; i++) await h.push(0);
  return values(h).toSorted();
}

describe('a split list', () => {
  const cases: [number, number, string[]][] = [
    [1, 1, ['0: 1 2 3 4 5']],
    [1, 2, ['0: 1 2 3', '1: 4 5']],
    [1, 3, ['0: 1 2', '1: 3 4', '2: 5']],
  ];
  it.each(cases)('of %i instances is dealt out anew to %i', async (from, to, expected) => {
    const h = await harness(keeping(splitList), { parallelism: from });
    for (const v of [1, 2, 3, 4, 5]) await h.push(v);
    const again = await harness(keeping(splitList), { parallelism: to, restore: await h.snapshot() });
    await h.close();
    const out = new Set<string>();
    // Whoever answers: every instance is asked in the end, since records are dealt out in turn.
    for (let i = 0; i < 4 * to && out.size < to; i++) for (const answer of await askAll(again, 1)) out.add(answer);
    expect([...out].sort()).toEqual(expected.slice(0, out.size));
    await again.close();
  });

  it('comes back whole when an operator is narrowed, with everything it had', async () => {
    const build = (input: Stream<number>) => keeping(splitList)(input.rebalance());
    const h = await harness(build, { parallelism: 3 });
    for (let v = 1; v <= 7; v++) await h.push(v);
    const again = await harness(build, { parallelism: 1, restore: await h.snapshot() });
    await h.close();
    const [answer] = await askAll(again, 1);
    expect(answer!.split(' ').slice(1).map(Number).sort()).toEqual([1, 2, 3, 4, 5, 6, 7]);
    await again.close();
  });

  it('is untouched at the same parallelism: each instance has its own again', async () => {
    const build = (input: Stream<number>) => keeping(splitList)(input.partition((v, n) => (v === 0 ? 0 : v % n)));
    const h = await harness(build, { parallelism: 2 });
    for (let v = 1; v <= 6; v++) await h.push(v);
    const again = await harness(build, { parallelism: 2, restore: await h.snapshot() });
    await h.close();
    expect(await askAll(again, 1)).toEqual(['0: 2 4 6']);
    await again.close();
  });
});

it('a union list: every instance has everything, also at the same parallelism', async () => {
  const build = (input: Stream<number>) => keeping(unionList)(input.partition((v, n) => v % n));
  for (const to of [2, 3]) {
    const h = await harness(build, { parallelism: 2 });
    for (let v = 1; v <= 4; v++) await h.push(v);
    const again = await harness(build, { parallelism: to, restore: await h.snapshot() });
    await h.close();
    expect(await askAll(again, 1)).toEqual(['0: 2 4 1 3']);
    await again.close();
  }
});

describe('operator state', () => {
  it('is in the snapshot as it was at the barrier, whatever is done to its items afterwards', async () => {
    interface Counter {
      n: number;
    }
    const build = (input: Stream<number>) =>
      input.process('count', {
        emits: type<number>(),
        state: { counters: splitList<Counter>() },
        onRecord(v, ctx) {
          const [first] = ctx.state.counters.all();
          if (first === undefined) ctx.state.counters.add({ n: v });
          else first.n += v;
          ctx.emit(ctx.state.counters.all()[0]!.n);
        },
      });
    const h = await harness(build);
    await h.push(1);
    await h.push(1);
    const two = await h.snapshot();
    await h.push(1);
    const three = await h.snapshot();
    await h.push(1);
    expect(values(h)).toEqual([1, 2, 3, 4]);
    await h.close();
    for (const [bytes, expected] of [
      [two, 12],
      [three, 13],
    ] as const) {
      const again = await harness(build, { restore: bytes });
      await again.push(10);
      expect(values(again)).toEqual([expected]);
      await again.close();
    }
  });

  it('is undone with the record that failed: what was added, replaced, cleared and changed in place', async () => {
    interface Item {
      n: number;
    }
    const build = (input: Stream<string>) =>
      input
        .process('undone', {
          emits: type<number[]>(),
          state: { items: splitList<Item>() },
          onRecord(v, ctx) {
            const { items } = ctx.state;
            if (v.includes('add')) items.add({ n: 1 });
            if (v.includes('change')) for (const item of items.all()) item.n += 10;
            if (v.includes('clear')) items.clear();
            if (v.includes('set')) items.set([{ n: 7 }, { n: 8 }]);
            if (v.includes('change')) for (const item of items.all()) item.n += 100;
            if (v.includes('fail')) throw new Error(v);
            ctx.emit(items.all().map((item) => item.n));
          },
        })
        .onError('skip');
    const h = await harness(build);
    for (const v of ['add', 'add', 'change']) await h.push(v);
    h.take();
    for (const v of ['add fail', 'change fail', 'clear fail', 'set change fail', 'add change set clear add fail', 'clear set change fail']) {
      await h.push(v);
      await h.push('look');
      expect(values(h), v).toEqual([[111, 111]]);
    }
    const again = await harness(build, { restore: await h.snapshot() });
    await again.push('look');
    expect(values(again)).toEqual([[111, 111]]);
    await Promise.all([h.close(), again.close()]);
  });

  it('is seen by onStart, onWatermark and onEnd', async () => {
    const build = (input: Stream<number>) =>
      input.process('seen', {
        emits: type<string>(),
        state: { kept: splitList<number>() },
        onStart: (ctx) => ctx.emit(`start ${ctx.state.kept.all().join(' ')}`),
        onRecord: (v, ctx) => ctx.state.kept.add(v),
        onWatermark(time, ctx) {
          ctx.state.kept.add(100);
          ctx.emit(`watermark ${time} ${ctx.state.kept.all().join(' ')}`, time);
        },
        onEnd(ctx) {
          ctx.emit(`end ${ctx.state.kept.all().join(' ')}`);
          ctx.state.kept.clear();
        },
      });
    const h = await harness(build);
    await h.push(1, 1);
    await h.watermark(5);
    const bytes = await h.snapshot();
    expect(h.take()).toEqual([
      { value: 'start ', timestamp: undefined },
      { value: 'watermark 5 1 100', timestamp: 5 },
    ]);
    await h.close();
    const again = await harness(build, { restore: bytes });
    await again.push(2, 6);
    await again.end();
    expect(values(again)).toEqual(['start 1 100', 'watermark Infinity 1 100 2 100', 'end 1 100 2 100']);
    await again.close();
  });

  it('throws CONTEXT_USED_OUTSIDE_RECORD where its handle is used after the handler', async () => {
    let kept: { add(n: number): void } | undefined;
    await job('leak', (env) => {
      env.fromArray('in', [1]).process('leak', {
        state: { kept: splitList<number>() },
        onRecord(_v, ctx) {
          kept = ctx.state.kept;
        },
      });
    }).run();
    expect(() => kept!.add(1)).toThrow(expect.objectContaining({ code: 'CONTEXT_USED_OUTSIDE_RECORD' }));
  });

  it('that cannot be stored fails with the first checkpoint, and names the state and its operator', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const running = ends(
      await job('bad', (env) => {
        env.source('in', feed).process('bad', { state: { fns: splitList<unknown>() }, onRecord: (_v, ctx) => ctx.state.fns.add(() => 1) });
      }).start({ checkpoints: checkpointsIn(folder), restarts: false }),
    );
    await feed.push([1]).taken();
    const asked = rejection(running.checkpoint());
    const error = await rejection(running.finished);
    expect(error).toMatchObject({ code: 'STATE_NOT_SERIALIZABLE' });
    expect(error.message).toContain('State fns of bad');
    await asked;
  });

  it('expires item by item, and is restored with the time it has left', async () => {
    const build = (input: Stream<number>) =>
      input.process('brief', {
        emits: type<number[]>(),
        state: { kept: splitList<number>({ ttl: 10 }) },
        onRecord(v, ctx) {
          if (v > 0) ctx.state.kept.add(v);
          ctx.emit(ctx.state.kept.all());
        },
      });
    const h = await harness(build);
    await h.push(1);
    await h.processingTime(5);
    await h.push(2);
    await h.processingTime(9);
    await h.push(0);
    const bytes = await h.snapshot();
    await h.processingTime(10);
    await h.push(0);
    await h.processingTime(15);
    await h.push(0);
    expect(values(h)).toEqual([[1], [1, 2], [1, 2], [2], []]);
    await h.close();
    const again = await harness(build, { restore: bytes });
    await again.processingTime(14);
    await again.push(0);
    await again.processingTime(15);
    await again.push(0);
    expect(values(again)).toEqual([[2], []]);
    await again.close();
  });

  it('is migrated item by item; another version without migrate, and another kind, are refused', async () => {
    const build =
      (state: ReturnType<typeof splitList<string>> | ReturnType<typeof unionList<string>>) =>
      (input: Stream<string>): Stream<string> =>
        input.process('keep', {
          emits: type<string>(),
          state: { kept: state },
          onRecord(v, ctx) {
            ctx.state.kept.add(v);
            ctx.emit(ctx.state.kept.all().join(' '));
          },
        });
    const h = await harness(build(splitList<string>()));
    await h.push('a');
    await h.push('b');
    const bytes = await h.snapshot();
    await h.close();
    const again = await harness(build(splitList<string>({ version: 2, migrate: (old, from) => `${String(old)}${from}` })), { restore: bytes });
    await again.push('c');
    expect(values(again)).toEqual(['a0 b0 c']);
    await again.close();
    expect(await rejection(harness(build(splitList<string>({ version: 2 })), { restore: bytes }))).toMatchObject({ code: 'SNAPSHOT_INCOMPATIBLE' });
    expect(await rejection(harness(build(unionList<string>()), { restore: bytes }))).toMatchObject({ code: 'SNAPSHOT_INCOMPATIBLE' });
  });

  it('comes back from the last checkpoint after a crash', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const watch = new Watch();
    let bad = true;
    const running = ends(
      await job('crash', (env) => {
        env
          .source('in', feed)
          .process('sum', {
            emits: type<number>(),
            state: { kept: splitList<number>() },
            onRecord(v, ctx) {
              if (v === 3 && bad) {
                bad = false;
                throw new Error('crash');
              }
              ctx.state.kept.add(v);
              ctx.emit(ctx.state.kept.all().reduce((a, b) => a + b, 0));
            },
          })
          .sink('out', store);
      }).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }),
    );
    await feed.push([1, 2]).taken();
    await running.checkpoint();
    feed.push([10, 3]);
    await watch.restarted();
    await feed.taken();
    await running.stop();
    expect(store.records).toEqual([1, 3, 13, 16]);
  });
});
