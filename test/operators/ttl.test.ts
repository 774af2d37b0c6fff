import { list, map, type Stream, type, value } from 'millrace';
import { harness } from 'millrace/testing';
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
