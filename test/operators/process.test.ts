import { job, list, type MillraceError, map, output, process as processOf, sum, tumbling, type, value } from 'millrace';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, RESTARTS, rejection, Seen, Store, temporaryFolder, Watch } from '../protocols/lab.ts';

type Env = Parameters<Parameters<typeof job>[1]>[0];

async function outputOf<T>(build: (env: Env, out: (value: T) => void) => void, options: { parallelism?: number } = {}): Promise<T[]> {
  const out: T[] = [];
  await job('process', (env) => build(env, (v) => void out.push(v))).run(options);
  return out;
}

describe('a process fused behind another operator', () => {
  const stamp = {
    emits: type<string>(),
    onRecord: (v: unknown, ctx: { emit(s: string): void; timestamp: number }): undefined => void ctx.emit(`${JSON.stringify(v)} at ${ctx.timestamp}`),
  };

  it('handles what a window emits when it fires', async () => {
    const out = await outputOf<string>((env, emit) =>
      env
        .fromArray('in', [1, 2], { timestamp: (v) => v })
        .keyBy(() => 'k')
        .window(tumbling(10))
        .aggregate(
          'sums',
          sum((v) => v),
        )
        .map((w) => w.value)
        .process('stamp', stamp)
        .forEach('out', emit),
    );
    expect(out).toEqual(['3 at 9']);
  });

  it('handles what a keyed process emits from onTimer, onStart, onWatermark and onEnd', async () => {
    const out = await outputOf<string>((env, emit) =>
      env
        .fromArray('in', [1], { timestamp: (v) => v })
        .keyBy(() => 'k')
        .process<string>('keyed', {
          onStart: (ctx) => ctx.emit('start', 0),
          onRecord: (_v, ctx) => ctx.timers.event.set(5),
          onTimer: (timer, ctx) => ctx.emit(`timer ${timer.at}`),
          onWatermark: (time, ctx) => ctx.emit(`watermark ${time}`, time),
          onEnd: (ctx) => ctx.emit('end', 99),
        })
        .process('stamp', stamp)
        .forEach('out', emit),
    );
    expect(out).toEqual(['"start" at 0', '"watermark 0" at 0', '"timer 5" at 5', '"watermark Infinity" at Infinity', '"end" at 99']);
  });

  it('handles dead letters, of records and of sources', async () => {
    const out = await outputOf<string>((env, emit) => {
      const input = env.source<number>('in', {
        bounded: true,
        splits: async () => ['all'],
        splitId: () => 'all',
        async *read(_split, _from, context) {
          context.deadLetter('undecodable', new Error('bytes'));
          yield { values: [1, 2], position: 1 };
        },
      });
      const shout = (uid: string) => ({
        emits: type<string>(),
        onRecord: (v: { error: { message: string } }, ctx: { emit(s: string): void }): undefined => void ctx.emit(`${uid}: ${v.error.message}`),
      });
      input.deadLetters().process('of-source', shout('source')).forEach('source-out', emit);
      const mapped = input
        .map((v) => {
          if (v === 2) throw new Error('two');
          return v;
        })
        .onError('skip');
      mapped.deadLetters().process('of-map', shout('map')).forEach('map-out', emit);
    });
    expect(out.toSorted()).toEqual(['map: two', 'source: bytes']);
  });
});

describe('timers', () => {
  type OnTimer<T> = (timer: { at: number; domain: string }, ctx: TimerContext<T>) => void | undefined;
  const timed = <T = unknown>(onRecord: (v: number, ctx: TimerContext<T>) => void | undefined, rest: { onTimer?: OnTimer<T> } = {}) =>
    run<T>({ onRecord, ...rest });
  function run<T>(definition: { onRecord(v: number, ctx: TimerContext<T>): void | undefined; onTimer?: OnTimer<T> }): Promise<T[]> {
    return outputOf<T>((env, emit) =>
      env
        .fromArray('in', [1, 2, 3], { timestamp: (v) => v })
        .keyBy((v) => (v === 3 ? 'b' : 'a'))
        .process<T>('timed', {
          onTimer: (timer: { at: number }, ctx: TimerContext<T>) => ctx.emit(`${ctx.key} ${timer.at}` as T),
          ...(definition as object),
        } as never)
        .forEach('out', emit),
    );
  }
  interface TimerContext<T> {
    readonly key: string;
    readonly timestamp: number;
    readonly watermark: number;
    emit(value: T): void;
    readonly timers: Record<'event' | 'processing', { set(at: number): void; delete(at: number): void }>;
    now(): number;
  }

  it('are unique by key and time, and fire in order of time', async () => {
    const out = await timed<string>((v, ctx) => {
      for (const at of [30, 10, 20, 10]) ctx.timers.event.set(at);
      if (v === 2) ctx.timers.event.set(25);
    });
    expect(out.filter((v) => v.startsWith('a'))).toEqual(['a 10', 'a 20', 'a 25', 'a 30']);
    expect(out.filter((v) => v.startsWith('b'))).toEqual(['b 10', 'b 20', 'b 30']);
  });

  it('that were deleted do not fire; deleting what is not set does nothing', async () => {
    const out = await timed<string>((v, ctx) => {
      if (v === 1) ctx.timers.event.set(10);
      else ctx.timers.event.delete(10);
      ctx.timers.event.delete(11);
    });
    expect(out).toEqual([]);
  });

  it('set in a callback for a time that is due fire in the same pass, before the watermark leaves', async () => {
    const out = await timed<string>((v, ctx) => void (v === 1 && ctx.timers.event.set(0)), {
      onTimer(timer, ctx) {
        ctx.emit(`${timer.at} at ${ctx.timestamp}`);
        if (timer.at >= 0 && timer.at < 3) ctx.timers.event.set(timer.at + 1);
        else if (timer.at === 3) ctx.timers.event.set(-5);
      },
    });
    expect(out).toEqual(['0 at 0', '1 at 1', '2 at 2', '3 at 3', '-5 at -5']);
  });

  it('of the two domains are apart, also at equal times; a processing timer has no timestamp', async () => {
    const out = await timed<string>(
      (v, ctx) => {
        if (v !== 1) return;
        ctx.timers.processing.set(10);
        ctx.timers.event.set(10);
      },
      { onTimer: (timer, ctx) => ctx.emit(`${timer.domain} ${timer.at} ${ctx.timestamp}`) },
    );
    expect(out.toSorted()).toEqual(['event 10 10', 'processing 10 NaN']);
  });

  it('of processing time fire by the clock, with their key and state', async () => {
    const feed = new Feed<string>({ bounded: false });
    const seen = new Seen<string>();
    ends(
      await job('clock', (env) => {
        env
          .source('in', feed)
          .keyBy((v) => v)
          .process<string, { n: ReturnType<typeof value<number>> }>('proc', {
            state: { n: value<number>() },
            onRecord(_v, ctx) {
              ctx.state.n.set((ctx.state.n.get() ?? 0) + 1);
              ctx.timers.processing.set(ctx.now() + 2);
            },
            onTimer(timer, ctx) {
              if (ctx.now() < timer.at) throw new Error('too early');
              ctx.emit(`${ctx.key} ${ctx.state.n.get()}`);
            },
          })
          .sink('out', seen);
      }).start(),
    );
    await feed.push(['a', 'a', 'b']).taken();
    await seen.until((values) => values.includes('a 2') && values.includes('b 1'));
  });

  it('of processing time survive a restart; one that became due meanwhile fires at once', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<string>({ bounded: false });
    const store = new Store<string>();
    let due = Number.MAX_SAFE_INTEGER;
    const build = job('clock', (env) => {
      env
        .source('in', feed)
        .keyBy((v) => v)
        .process<string>('proc', {
          onRecord: (_v, ctx) => ctx.timers.processing.set(due),
          onTimer: (timer, ctx) => ctx.emit(`${ctx.key} ${timer.at}`),
        })
        .sink('out', store);
    });
    const first = ends(await build.start({ checkpoints: checkpointsIn(folder) }));
    due = Date.now() + 20;
    await feed.push(['a']).taken();
    await first.stop();
    const second = ends(await build.start({ checkpoints: checkpointsIn(folder) }));
    while (store.records.length === 0) await second.checkpoint();
    await second.stop();
    expect(store.records).toEqual([`a ${due}`]);
  });

  for (const at of [Number.NaN, '5', undefined]) {
    it(`are refused at ${String(at)}`, async () => {
      const error = await rejection(timed((_v, ctx) => ctx.timers.event.set(at as number) as undefined));
      expect(error).toMatchObject({ code: 'TIMER_INVALID', uid: 'timed', retryable: false } satisfies Partial<MillraceError>);
      expect(error.todo).toBeDefined();
    });
  }

  it('at +∞ fire at the end of input', async () => {
    expect(await timed<string>((v, ctx) => void (v === 1 && ctx.timers.event.set(Number.POSITIVE_INFINITY)))).toEqual(['a Infinity']);
  });
});

describe('a process', () => {
  it('of one definition keeps state by key at any parallelism', async () => {
    const counting = processOf<string, string, [string, number, string[]]>()({
      state: { n: value({ default: 0 }), seen: list<string>(), by: map<string, number>() },
      onRecord(v, ctx) {
        ctx.state.n.update((n) => n + 1);
        ctx.state.seen.add(v);
        ctx.state.by.set(v, (ctx.state.by.get(v) ?? 0) + 1);
        ctx.emit([ctx.key, ctx.state.n.get(), [...ctx.state.by.keys()]]);
      },
    });
    for (const parallelism of [1, 3]) {
      const out = await outputOf<[string, number, string[]]>(
        (env, emit) =>
          env
            .fromArray('in', ['aa', 'ab', 'ba', 'aa'])
            .keyBy((v) => v[0]!)
            .process('counts', counting)
            .forEach('out', emit),
        { parallelism },
      );
      expect(out.filter(([key]) => key === 'b')).toEqual([['b', 1, ['ba']]]);
      expect(out.filter(([key]) => key === 'a').map(([, n]) => n)).toEqual([1, 2, 3]);
    }
  });

  it('calls onStart before the first record, onEnd behind the last and after the last watermark, onStop at the end', async () => {
    const calls: string[] = [];
    await job('life', (env) => {
      env.fromArray('in', [7], { timestamp: (v) => v }).process('proc', {
        onStart: () => void calls.push('start'),
        onRecord: (v) => void calls.push(`record ${v}`),
        onWatermark: (time) => void calls.push(`watermark ${time}`),
        onEnd: () => void calls.push('end'),
        onStop: () => void calls.push('stop'),
      });
    }).run();
    expect(calls).toEqual(['start', 'record 7', 'watermark 6', 'watermark Infinity', 'end', 'stop']);
  });

  it('writes to side outputs by name and by typed output; what nobody reads is dropped', async () => {
    const odd = output<number>('odd');
    const out = await outputOf<string>((env, emit) => {
      const split = env.fromArray('in', [1, 2, 3]).process('split', {
        emits: type<number>(),
        onRecord(v, ctx) {
          ctx.side('nobody', v);
          if (v % 2 === 1) ctx.side(odd, v, 42);
          else ctx.emit(v);
        },
      });
      split.forEach('main', (v) => emit(`main ${v}`));
      split
        .side(odd)
        .process('stamps', { emits: type<string>(), onRecord: (v, ctx) => ctx.emit(`${v} at ${ctx.timestamp}`) })
        .forEach('odd', emit);
      split
        .side<number>('odd')
        .keyBy((v) => v)
        .reduce('far', (l) => l)
        .forEach('far-out', (v) => emit(`far ${v}`));
    });
    expect(out.toSorted()).toEqual(['1 at 42', '3 at 42', 'far 1', 'far 3', 'main 2']);
  });

  it('is built anew with each attempt: what its closures held is gone', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const watch = new Watch();
    let bad = true;
    const running = ends(
      await job('closures', (env) => {
        let seen = 0;
        env
          .source('in', feed)
          .map((v) => {
            if (v === 3 && bad) {
              bad = false;
              throw new Error('crash');
            }
            seen += 1;
            return seen;
          })
          .sink('out', store);
      }).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }),
    );
    await feed.push([1, 2]).taken();
    await running.checkpoint();
    feed.push([3]);
    await watch.restarted();
    await feed.taken();
    await running.stop();
    expect(store.records).toEqual([1, 2, 1]);
  });
});
