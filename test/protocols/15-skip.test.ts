import { type DeadLetter, job, list, type MillraceError, memory, sum, tumbling, value } from 'millrace';
import { describe, expect, it } from 'vitest';
import { StateError } from '../../state-backends/state-error.ts';
import { checkpointsIn, Feed, RESTARTS, rejection, Seen, Store, temporaryFolder, Watch } from './lab.ts';

const boom = (): never => {
  throw new Error('boom');
};

describe('protocols 15: skip: what has already left cannot be undone', () => {
  it('A: a flatMap that fails at its 601st result leaves none of them, also across an exchange', async () => {
    const out: number[] = [];
    const far: number[] = [];
    await job('many', (env) => {
      const many = env
        .fromArray('in', [1, 2, 3])
        .flatMap(function* (v) {
          for (let i = 0; i < 1300; i++) yield v === 2 && i === 600 ? boom() : v;
        })
        .onError('skip');
      many.forEach('near', (v) => void out.push(v));
      many.rebalance().forEach('far', (v) => void far.push(v));
    }).run();
    for (const seen of [out, far]) {
      expect(seen.filter((v) => v === 1)).toHaveLength(1300);
      expect(seen.filter((v) => v === 2)).toHaveLength(0);
      expect(seen.filter((v) => v === 3)).toHaveLength(1300);
    }
  });

  it('B: sinks and forEach fused into the chain act only after the unit has ended', async () => {
    const near: number[] = [];
    const plain = new Seen<number>();
    const store = new Store<number>();
    const watch = new Watch();
    await job('fused', (env) => {
      const input = env.fromArray('in', [1, 2, 3]).onError('skip');
      input.forEach('each', (v) => void near.push(v));
      input.sink('plain', plain);
      input.sink('exact', store);
      input.map((v) => (v === 2 ? boom() : v)).onError('skip');
    }).run({ onEvent: watch.onEvent });
    expect(near).toEqual([1, 3]);
    expect(plain.values).toEqual([1, 3]);
    expect(store.records).toEqual([1, 3]);
    expect(watch.of('dead-letter').map((e) => e.deadLetter.record)).toEqual([2]);
  });

  it('C: a timer whose callback fails stays deleted, its other effects are undone, its dead letter names timer and key', async () => {
    const letters: DeadLetter[] = [];
    const out: unknown[] = [];
    await job('timers', (env) => {
      const fired = env
        .fromArray('in', [1, 2], { timestamp: (v) => v })
        .keyBy((v) => `k${v}`)
        .process<string, { seen: ReturnType<typeof list<string>>; n: ReturnType<typeof value<number>> }>('proc', {
          state: { seen: list<string>(), n: value<number>() },
          onRecord(v, ctx) {
            ctx.state.n.set(v);
            ctx.timers.event.set(10);
            ctx.timers.event.set(20);
          },
          onTimer(timer, ctx) {
            ctx.state.seen.add(`timer ${timer.at}`);
            ctx.emit(`${ctx.key} at ${timer.at}`);
            ctx.timers.event.set(timer.at + 1000);
            if (timer.at === 10 && ctx.key === 'k1') boom();
            if (timer.at === 20) ctx.emit(`${ctx.key} has seen ${ctx.state.seen.all().join(', ')}`);
            if (timer.at > 1000) ctx.timers.event.delete(timer.at + 1000);
          },
        })
        .onError('skip');
      fired.forEach('out', (v) => void out.push(v));
      fired.deadLetters().forEach('letters', (v) => void letters.push(v));
    }).run();
    expect(out.slice(0, 5).toSorted()).toEqual(['k1 at 20', 'k1 has seen timer 20', 'k2 at 10', 'k2 at 20', 'k2 has seen timer 10, timer 20']);
    expect(out.filter((v) => v === 'k1 at 1010')).toEqual([]);
    expect(letters).toMatchObject([{ uid: 'proc', key: 'k1', timestamp: 10, record: { timer: { at: 10, domain: 'event' } }, error: { message: 'boom' } }]);
  });

  it('C: a window whose firing fails keeps its contents until cleanup and counts as fired', async () => {
    const out: number[] = [];
    const letters: DeadLetter[] = [];
    let failures = 0;
    await job('windows', (env) => {
      const fired = env
        .fromArray('in', [1, 2, 1500, 3, 2800], { timestamp: (v) => v })
        .parallelism(1)
        .keyBy(() => 'k')
        .window(tumbling(1000))
        .allowedLateness(1000)
        .aggregate('sums', {
          create: () => ({ total: 0 }),
          add: (held, v: number) => ({ total: held.total + v }),
          result: ({ total }) => {
            if (total === 6 && failures++ === 0) throw new Error('no result');
            return total;
          },
        })
        .onError('skip');
      fired.forEach('out', (w) => void out.push(w.value));
      fired.deadLetters().forEach('letters', (v) => void letters.push(v));
    }).run();
    // All five are one batch, so the window fires once at the end of the batch; a result for 1 + 2 + 3 is what fails.
    expect(out).toEqual([1500, 2800]);
    expect(letters).toMatchObject([{ uid: 'sums', key: 'k', record: { window: { start: 0, end: 1000 } } }]);
  });

  it('state that was set, appended and cleared is as before the record that failed', async () => {
    const out: unknown[] = [];
    await job('undo', (env) => {
      env
        .fromArray('in', ['a', 'b', 'bad', 'c'])
        .keyBy(() => 'k')
        .process<unknown, { o: ReturnType<typeof value<{ n: number }>>; l: ReturnType<typeof list<string>> }>('proc', {
          state: { o: value<{ n: number }>(), l: list<string>() },
          onRecord(v, ctx) {
            const o = ctx.state.o.get() ?? { n: 0 };
            o.n += 1;
            ctx.state.o.set(o);
            ctx.state.l.add(v);
            ctx.emit([v, o.n, ctx.state.l.all()]);
            if (v !== 'bad') return;
            ctx.state.l.clear();
            ctx.state.o.clear();
            boom();
          },
        })
        .onError('skip')
        .forEach('out', (v) => void out.push(v));
    }).run();
    expect(out).toEqual([
      ['a', 1, ['a']],
      ['b', 2, ['a', 'b']],
      ['c', 3, ['a', 'b', 'c']],
    ]);
  });

  describe('D: only an error thrown by user code can be skipped', () => {
    /** memory(), whose reads fail while `disk.broken`; like level() it keeps the failure for the next `maintain`. */
    function breaking(disk: { broken: number }) {
      const inner = memory() as unknown as { open(options: unknown): Promise<{ task(options: unknown): object; close(): Promise<void> }> };
      return {
        kind: 'breaking',
        async open(options: unknown) {
          const region = await inner.open(options);
          return {
            task(taskOptions: unknown): object {
              let failure: unknown;
              const state = region.task(taskOptions) as Record<string, (...args: unknown[]) => unknown>;
              return new Proxy(state, {
                get(target, name: string) {
                  const member = target[name];
                  if (typeof member !== 'function') return member;
                  if (name === 'maintain')
                    return () => {
                      if (failure !== undefined) throw failure;
                      return member.call(target);
                    };
                  if (name !== 'single') return member.bind(target);
                  return (...args: unknown[]) => {
                    const table = member.apply(target, args) as { find(...a: unknown[]): unknown };
                    const find = table.find.bind(table);
                    table.find = (...a) => {
                      if (disk.broken === 0) return find(...a);
                      disk.broken -= 1;
                      failure = new StateError('STATE_IO', 'The disk is broken.');
                      throw failure;
                    };
                    return table;
                  };
                },
              });
            },
            close: () => region.close(),
          };
        },
      };
    }
    const counting = (feed: Feed<string>, store: Store<number>, swallow: boolean) =>
      job('counting', (env) => {
        env
          .source('in', feed)
          .keyBy((v) => v)
          .process<number, { n: ReturnType<typeof value<number>> }>('counts', {
            state: { n: value<number>() },
            onRecord(_v, ctx) {
              let n = 0;
              try {
                n = ctx.state.n.get() ?? 0;
              } catch (error) {
                if (!swallow) throw error;
              }
              ctx.state.n.set(n + 1);
              ctx.emit(n + 1);
            },
          })
          .onError('skip')
          .sink('out', store);
      });

    for (const swallow of [false, true]) {
      it(`a read of state that fails restarts the region ${swallow ? 'though user code swallows it' : 'and makes no dead letter'}`, async () => {
        const folder = await temporaryFolder();
        const disk = { broken: 0 };
        const store = new Store<number>();
        const watch = new Watch();
        const feed = new Feed<string>({ bounded: false });
        const running = await counting(feed, store, swallow).start({
          state: breaking(disk),
          checkpoints: checkpointsIn(folder),
          restarts: RESTARTS,
          onEvent: watch.onEvent,
        });
        await feed.push(['a', 'a']).taken();
        await running.checkpoint();
        disk.broken = 1;
        feed.push(['a']);
        await watch.restarted();
        await feed.push(['a']).taken();
        await running.stop();
        expect(watch.of('dead-letter')).toEqual([]);
        expect(watch.of('restart')).toHaveLength(1);
        expect(store.records).toEqual([1, 2, 3, 4]);
      });
    }

    it('and the job that gives up says that its state failed', async () => {
      const error = await rejection(counting(new Feed<string>().push(['a']).end(), new Store(), false).run({ state: breaking({ broken: 1 }) }));
      expect(error).toMatchObject({ code: 'STATE_IO', uid: 'counts' } satisfies Partial<MillraceError>);
      expect(error.cause).toMatchObject({ code: 'STATE_IO' });
    });
  });

  it('undone timers do not fire, kept ones do', async () => {
    const out: number[] = [];
    await job('undone', (env) => {
      env
        .fromArray('in', [1, 2, 3], { timestamp: (v) => v })
        .keyBy(() => 'k')
        .process<number>('proc', {
          onRecord(v, ctx) {
            ctx.timers.event.set(v * 10);
            if (v > 1) ctx.timers.event.delete((v - 1) * 10);
            if (v === 2) boom();
          },
          onTimer: (timer, ctx) => ctx.emit(timer.at),
        })
        .onError('skip')
        .forEach('out', (v) => void out.push(v));
    }).run();
    expect(out).toEqual([10, 30]);
  });

  it('a running sum skips what cannot be added and goes on from before', async () => {
    const out: number[] = [];
    await job('sums', (env) => {
      env
        .fromArray('in', [1, 2, 3])
        .keyBy(() => 'k')
        .aggregate(
          'sums',
          sum((v) => (v === 2 ? boom() : v)),
        )
        .onError('skip')
        .forEach('out', (r) => void out.push(r.value));
    }).run();
    expect(out).toEqual([1, 4]);
  });
});
