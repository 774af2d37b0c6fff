import { type DeadLetter, list, minutes, output, process, type Stream, seconds, sum, tumbling, type, value } from 'millrace';
import { harness, harness2 } from 'millrace/testing';
import { describe, expect, it } from 'vitest';

interface Click {
  user: string;
  n?: number;
}

const idle = process<string, Click, string>()({
  emits: type<string>(),
  state: { clicks: value({ default: 0 }) },
  onRecord(_, ctx) {
    ctx.state.clicks.update((n) => n + 1);
    ctx.timers.event.set(ctx.timestamp + minutes(30));
  },
  onTimer(_, ctx) {
    ctx.emit(`${ctx.key} ${ctx.state.clicks.get()}`);
  },
});

describe('a harness', () => {
  it('fires the timers of a keyed process when the test moves event time', async () => {
    const h = await harness((clicks: Stream<Click>) => clicks.keyBy((c) => c.user).process('idle', idle));
    await h.push({ user: 'ada' }, 0);
    await h.push({ user: 'bob' }, 1000);
    expect(h.take()).toEqual([]);
    expect(h.timers()).toEqual([
      { key: 'ada', at: minutes(30), domain: 'event' },
      { key: 'bob', at: minutes(30) + 1000, domain: 'event' },
    ]);
    await h.watermark(minutes(30));
    expect(h.take()).toEqual([{ value: 'ada 1', timestamp: minutes(30) }]);
    expect(h.take()).toEqual([]);
    expect(h.timers()).toEqual([{ key: 'bob', at: minutes(30) + 1000, domain: 'event' }]);
    expect(h.watermarks()).toEqual([minutes(30)]);
    await h.end();
    expect(h.take()).toEqual([{ value: 'bob 1', timestamp: minutes(30) + 1000 }]);
    expect(h.watermarks()).toEqual([]);
    await h.close();
  });

  it('keeps allowed lateness, and gives what is too late to late()', async () => {
    const h = await harness((input: Stream<Click>) =>
      input
        .keyBy((c) => c.user)
        .window(tumbling(seconds(10)))
        .allowedLateness(seconds(5))
        .aggregate(
          'n',
          sum((c) => c.n ?? 0),
        ),
    );
    const window = (n: number) => ({ value: { key: 'a', start: 0, end: 10_000, value: n }, timestamp: 9999 });
    await h.push({ user: 'a', n: 1 }, 1000);
    await h.watermark(9999);
    expect(h.take()).toEqual([window(1)]);
    await h.push({ user: 'a', n: 2 }, 2000);
    expect(h.take()).toEqual([window(3)]);
    await h.watermark(14_999);
    await h.push({ user: 'a', n: 4 }, 3000);
    expect(h.take()).toEqual([]);
    expect(h.late<Click>()).toEqual([{ value: { user: 'a', n: 4 }, timestamp: 3000 }]);
    expect(h.late()).toEqual([]);
    expect(h.timers()).toEqual([]);
    await h.close();
  });

  it('moves processing time when told, and fires what is due in order', async () => {
    const h = await harness((input: Stream<Click>) =>
      input
        .keyBy((c) => c.user)
        .process('later', {
          emits: type<[string, number]>(),
          onRecord(c, ctx) {
            ctx.timers.processing.set(ctx.now() + (c.n ?? 0));
          },
          onTimer(timer, ctx) {
            ctx.emit([ctx.key, timer.at], ctx.now());
          },
        }),
    );
    await h.push({ user: 'a', n: 200 });
    await h.push({ user: 'b', n: 100 });
    await h.push({ user: 'c', n: 5000 });
    await h.processingTime(99);
    expect(h.take()).toEqual([]);
    await h.processingTime(200);
    expect(h.take()).toEqual([
      { value: ['b', 100], timestamp: 100 },
      { value: ['a', 200], timestamp: 200 },
    ]);
    await h.processingTime(100);
    await h.push({ user: 'd', n: 1 });
    expect(h.timers()).toEqual([
      { key: 'd', at: 201, domain: 'processing' },
      { key: 'c', at: 5000, domain: 'processing' },
    ]);
    await h.end();
    expect(h.take()).toEqual([]);
    await h.close();
  });

  it('gives undefined for the timestamp of a record that has none', async () => {
    const h = await harness((input: Stream<number>) => input.map((n) => n * 2));
    await h.push(1);
    await h.push(2, 7);
    expect(h.take()).toEqual([
      { value: 2, timestamp: undefined },
      { value: 4, timestamp: 7 },
    ]);
    await h.close();
  });

  it('deals records out to all instances, and gives the watermarks that all of them have reached', async () => {
    const h = await harness(
      (input: Stream<number>) =>
        input
          .process('where', { emits: type<[number, number]>(), onRecord: (n, ctx) => ctx.emit([n, ctx.subtask]) })
          .keyBy(([n]) => n % 2)
          .process('again', { emits: type<string>(), onRecord: ([n, subtask], ctx) => ctx.emit(`${n} by ${subtask} of ${ctx.parallelism}`) }),
      { parallelism: 3 },
    );
    for (const n of [1, 2, 3, 4]) await h.push(n, n);
    expect(h.take().map((r) => r.value)).toEqual(['1 by 0 of 3', '2 by 1 of 3', '3 by 2 of 3', '4 by 0 of 3']);
    await h.watermark(10);
    expect(h.watermarks()).toEqual([10]);
    await h.idle();
    await h.push(5, 5);
    await h.watermark(20);
    expect(h.watermarks()).toEqual([20]);
    await h.end();
    await h.close();
  });

  it('ignores a watermark that is not above the last, and passes on no infinite one', async () => {
    const h = await harness((input: Stream<number>) => input);
    await h.watermark(5);
    await h.watermark(5);
    await h.watermark(3);
    await h.watermark(6);
    await h.end();
    expect(h.watermarks()).toEqual([5, 6]);
    await h.close();
  });

  it('takes calls that are not awaited in the order they were made', async () => {
    const h = await harness((input: Stream<number>) => input);
    void h.push(1);
    void h.watermark(10);
    void h.push(2);
    await h.push(3);
    expect(h.take().map((r) => r.value)).toEqual([1, 2, 3]);
    expect(h.watermarks()).toEqual([10]);
    await h.close();
  });

  it('takes side outputs by name, whether or not the program reads them', async () => {
    const odd = output<number>('odd');
    const h = await harness((input: Stream<number>) =>
      input.process('parity', {
        emits: type<number>(),
        onRecord(n, ctx) {
          if (n % 2 === 1) ctx.side(odd, n);
          else ctx.emit(n);
          if (n > 2) ctx.side('large', n, 1);
        },
      }),
    );
    for (const n of [1, 2, 3, 4]) await h.push(n, n);
    expect(h.take().map((r) => r.value)).toEqual([2, 4]);
    expect(h.side(odd)).toEqual([
      { value: 1, timestamp: 1 },
      { value: 3, timestamp: 3 },
    ]);
    expect(h.side('large').map((r) => r.value)).toEqual([3, 4]);
    expect(h.side(odd)).toEqual([]);
    await h.close();
  });

  it('keeps what failed under skip as a dead letter, and undoes everything else of it', async () => {
    const h = await harness((input: Stream<Click>) =>
      input
        .keyBy((c) => c.user)
        .process('picky', {
          emits: type<number>(),
          state: { n: value({ default: 0 }) },
          onRecord(c, ctx) {
            ctx.state.n.update((n) => n + 1);
            ctx.emit(ctx.state.n.get());
            ctx.side('seen', c.n);
            if (c.n === 13) throw new Error('unlucky');
          },
        })
        .onError('skip'),
    );
    await h.push({ user: 'a', n: 1 }, 1);
    await h.push({ user: 'a', n: 13 }, 2);
    await h.push({ user: 'a', n: 2 }, 3);
    expect(h.take().map((r) => r.value)).toEqual([1, 2]);
    expect(h.side('seen').map((r) => r.value)).toEqual([1, 2]);
    const letters: DeadLetter[] = h.deadLetters();
    expect(letters).toMatchObject([{ uid: 'picky', record: { user: 'a', n: 13 }, key: 'a', timestamp: 2, error: { message: 'unlucky' } }]);
    expect(h.deadLetters()).toEqual([]);
    await h.close();
  });

  it('rejects the call that an error under restart surfaced in, and every one after it', async () => {
    const h = await harness((input: Stream<number>) =>
      input.map((n) => {
        if (n === 2) throw new Error('no twos');
        return n;
      }),
    );
    await h.push(1);
    await expect(h.push(2)).rejects.toThrow('no twos');
    await expect(h.push(3)).rejects.toThrow('no twos');
    expect(h.take().map((r) => r.value)).toEqual([1]);
    await h.close();
  });

  it('shows an error that nobody awaited in the next call', async () => {
    const h = await harness((input: Stream<number>) =>
      input.map(() => {
        throw new Error('never');
      }),
    );
    void h.push(1);
    await expect(h.watermark(1)).rejects.toThrow('never');
    await h.close();
  });

  it('rejects under stop and escalate too', async () => {
    for (const policy of ['stop', 'escalate'] as const) {
      const h = await harness((input: Stream<number>) =>
        input
          .map((n) => {
            if (n === 2) throw new Error('no twos');
            return n;
          })
          .onError(policy),
      );
      await h.push(1);
      await expect(h.push(2)).rejects.toThrow('no twos');
      await h.close();
    }
  });

  it('refuses what comes after the end of an input, and after its close', async () => {
    const h = await harness((input: Stream<number>) => input);
    await h.end();
    await expect(h.push(1)).rejects.toMatchObject({ code: 'JOB_ENDED' });
    await h.end();
    await h.close();
    await h.close();
    await expect(h.processingTime(1)).rejects.toMatchObject({ code: 'JOB_ENDED' });
  });

  it('closes also where something never answers', async () => {
    const h = await harness((input: Stream<number>) => {
      input.forEach('stuck', () => new Promise(() => {}));
      return input;
    });
    await h.push(1);
    expect(h.take()).toHaveLength(1);
    await h.close();
  });

  it('refuses a function that returns no stream', async () => {
    await expect(harness((input: Stream<number>) => input.forEach('out', () => {}) as never)).rejects.toMatchObject({ code: 'PLAN_INVALID' });
    await expect(harness((input: Stream<number>) => input.keyBy((n) => n) as never)).rejects.toMatchObject({ code: 'PLAN_INVALID' });
  });
});

describe('two inputs', () => {
  it('hold event time back together, unless one is idle', async () => {
    const h = await harness2((left: Stream<string>, right: Stream<number>) => left.union(right));
    await h.left.push('a', 1);
    await h.right.push(2, 2);
    expect(h.take().map((r) => r.value)).toEqual(['a', 2]);
    await h.left.watermark(10);
    expect(h.watermarks()).toEqual([]);
    await h.right.watermark(5);
    expect(h.watermarks()).toEqual([5]);
    await h.right.idle();
    expect(h.watermarks()).toEqual([10]);
    await h.left.watermark(20);
    expect(h.watermarks()).toEqual([20]);
    await h.right.active();
    await h.right.watermark(21);
    await h.left.watermark(30);
    expect(h.watermarks()).toEqual([21]);
    await h.left.end();
    await h.right.watermark(40);
    expect(h.watermarks()).toEqual([40]);
    await h.right.end();
    await h.close();
  });

  it('become active by a record', async () => {
    const h = await harness2((left: Stream<number>, right: Stream<number>) => left.union(right));
    await h.left.idle();
    await h.right.watermark(5);
    expect(h.watermarks()).toEqual([5]);
    await h.left.push(1, 1);
    await h.left.watermark(7);
    await h.right.watermark(9);
    expect(h.watermarks()).toEqual([7]);
    await h.close();
  });
});

describe('a snapshot', () => {
  const program = (clicks: Stream<Click>) => clicks.keyBy((c) => c.user).process('idle', idle);

  it.each([1, 2, 3])('is restored at parallelism %i', async (parallelism) => {
    const first = await harness(program, { parallelism: 2 });
    for (const user of ['a', 'b', 'c', 'a']) await first.push({ user }, 1000);
    await first.watermark(2000);
    const bytes = await first.snapshot();
    await first.push({ user: 'a' }, 3000);
    await first.close();

    const again = await harness(program, { restore: bytes, parallelism });
    expect(again.timers()).toHaveLength(3);
    expect(again.watermarks()).toEqual([]);
    await again.push({ user: 'b' }, 1500);
    await again.watermark(minutes(60));
    expect(
      again
        .take()
        .map((r) => r.value)
        .sort(),
    ).toEqual(['a 2', 'b 2', 'b 2', 'c 1']);
    await again.close();
  });

  it('of a program that has ended is its last', async () => {
    const total = (input: Stream<number>) => input.keyBy(() => 'all').reduce('sum', (l, r) => l + r);
    const h = await harness(total);
    await h.push(1);
    await h.push(2);
    await h.end();
    const bytes = await h.snapshot();
    await h.close();
    const again = await harness(total, { restore: bytes });
    await again.push(4);
    expect(again.take().map((r) => r.value)).toEqual([7]);
    await again.close();
  });

  it('that was cut off or belongs to another program is refused', async () => {
    const h = await harness(program);
    await h.push({ user: 'a' }, 1);
    const bytes = await h.snapshot();
    await h.close();
    await expect(harness(program, { restore: bytes.subarray(0, bytes.length - 1) })).rejects.toMatchObject({ code: 'SNAPSHOT_CORRUPT' });
    await expect(harness((input: Stream<number>) => input, { restore: bytes })).rejects.toMatchObject({ code: 'RESTORE_STATE_UNCLAIMED' });
  });

  it('rejects with what is wrong with the state', async () => {
    const h = await harness((input: Stream<number>) =>
      input
        .keyBy(() => 'all')
        .process('odd', {
          emits: type<number>(),
          state: { fn: value<() => number>() },
          onRecord(n, ctx) {
            ctx.state.fn.set(() => n);
          },
        }),
    );
    await h.push(1);
    await expect(h.snapshot()).rejects.toMatchObject({ code: 'STATE_NOT_SERIALIZABLE' });
    await h.close();
  });

  it('starts processing time at 0 again, and timers keep their instants', async () => {
    const later = (input: Stream<string>) =>
      input
        .keyBy((k) => k)
        .process('later', {
          emits: type<number>(),
          onRecord(_, ctx) {
            ctx.timers.processing.set(ctx.now() + 100);
          },
          onTimer(timer, ctx) {
            ctx.emit(timer.at);
          },
        });
    const h = await harness(later);
    await h.processingTime(1000);
    await h.push('a');
    const bytes = await h.snapshot();
    await h.close();
    const again = await harness(later, { restore: bytes });
    await again.push('b');
    await again.processingTime(100);
    expect(again.take().map((r) => r.value)).toEqual([100]);
    await again.processingTime(1100);
    expect(again.take().map((r) => r.value)).toEqual([1100]);
    await again.close();
  });
});

describe('values', () => {
  it('that were emitted cannot be changed', async () => {
    const kept: { n: number }[] = [];
    const h = await harness((input: Stream<{ n: number }>) =>
      input
        .map((v) => {
          const out = { n: v.n, inner: { n: v.n } };
          kept.push(out.inner);
          return out;
        })
        .map((v) => {
          if (v.n === 2) v.inner.n = 3;
          return v;
        }),
    );
    await h.push({ n: 1 });
    expect(() => {
      kept[0]!.n = 9;
    }).toThrow(TypeError);
    await expect(h.push({ n: 2 })).rejects.toThrow(/read only|read-only/);
    await h.close();
  });

  it('that state handed out throw STATE_USED_AFTER_CALLBACK in a later callback, and leave as they are', async () => {
    let before: { n: number } | undefined;
    const h = await harness((input: Stream<string>) =>
      input
        .keyBy(() => 'all')
        .process('keeper', {
          emits: type<unknown>(),
          state: { row: value<{ n: number; tags: string[] }>(), names: list<{ name: string }>() },
          onRecord(word, ctx) {
            if (word === 'late') ctx.emit(before!.n);
            const row = ctx.state.row.get() ?? { n: 0, tags: [] };
            row.n += 1;
            row.tags.push(word);
            ctx.state.row.set(row);
            ctx.state.names.add({ name: word });
            before = ctx.state.row.get();
            ctx.emit({ count: row.n, tags: [...row.tags], names: ctx.state.names.all().map((each) => each.name) });
          },
        }),
    );
    await h.push('a');
    await h.push('b');
    expect(h.take().map((r) => r.value)).toEqual([
      { count: 1, tags: ['a'], names: ['a'] },
      { count: 2, tags: ['a', 'b'], names: ['a', 'b'] },
    ]);
    expect(() => before!.n).toThrow('after the callback');
    await expect(h.push('late')).rejects.toMatchObject({ code: 'STATE_USED_AFTER_CALLBACK' });
    await h.close();
  });

  it('of state that are emitted are no proxies', async () => {
    const h = await harness((input: Stream<string>) =>
      input
        .keyBy(() => 'all')
        .process('words', {
          emits: type<unknown>(),
          state: { words: list<{ word: string }>() },
          onRecord(word, ctx) {
            ctx.state.words.add({ word });
            ctx.emit({ words: ctx.state.words.all(), first: [...ctx.state.words][0] });
          },
        }),
    );
    await h.push('a');
    await h.push('b');
    const [, second] = h.take();
    expect(structuredClone(second!.value)).toEqual({ words: [{ word: 'a' }, { word: 'b' }], first: { word: 'a' } });
    await h.close();
  });
});
