import { describe, expect, it } from 'vitest';
import { iterableSource } from '../../src/connectors/iterables.ts';
import { batchesOf, readContext, valuesOf } from './reading.ts';

async function* numbers(n: number): AsyncGenerator<number> {
  for (let i = 0; i < n; i += 1) yield i;
}

describe('an async iterable as a source', () => {
  it('travels in batches where records are ready, with the number read as the position', async () => {
    const batches = await batchesOf(
      iterableSource(() => numbers(5000)),
      'all',
    );
    expect(batches.flatMap(({ values }) => values)).toEqual(Array.from({ length: 5000 }, (_, n) => n));
    expect(batches.length).toBeLessThan(50);
    expect(batches.at(-1)?.position).toBe(5000);
  });

  it('hands over what has come while it waits for more', async () => {
    let go = (): void => {};
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    const source = iterableSource(async function* () {
      yield 1;
      yield 2;
      await gate;
      yield 3;
    });
    const reading = source.read('all', undefined, readContext())[Symbol.asyncIterator]();
    expect((await reading.next()).value).toEqual({ values: [1, 2], position: 2 });
    const next = reading.next();
    go();
    expect((await next).value).toEqual({ values: [3], position: 3 });
    expect((await reading.next()).done).toBe(true);
  });

  it('is made anew on restore, and as many records are passed over', async () => {
    let made = 0;
    const source = iterableSource(() => {
      made += 1;
      return numbers(10);
    });
    expect(await valuesOf(source, 'all', 7)).toEqual([7, 8, 9]);
    expect(await valuesOf(source, 'all', 12)).toEqual([]);
    expect(made).toBe(2);
  });

  it('fails behind the records that came before its error', async () => {
    const source = iterableSource(async function* () {
      yield 1;
      throw new Error('broken');
    });
    const reading = source.read('all', undefined, readContext())[Symbol.asyncIterator]();
    expect((await reading.next()).value).toEqual({ values: [1], position: 1 });
    await expect(reading.next()).rejects.toThrow('broken');
  });

  it('is told to end when the attempt ends, also while it waits', async () => {
    const attempt = new AbortController();
    let returned = 0;
    const source = iterableSource<number>(() => ({
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise(() => {}),
        return: async () => {
          returned += 1;
          return { done: true, value: undefined };
        },
      }),
    }));
    const reading = source.read('all', undefined, readContext([], { signal: attempt.signal }))[Symbol.asyncIterator]();
    const pending = reading.next();
    attempt.abort();
    expect((await pending).done).toBe(true);
    expect(returned).toBe(1);
  });

  it('is not drawn from without bound when nobody reads', async () => {
    let drawn = 0;
    const source = iterableSource(async function* () {
      for (;;) {
        drawn += 1;
        yield drawn;
      }
    });
    const reading = source.read('all', undefined, readContext())[Symbol.asyncIterator]();
    await reading.next();
    await new Promise((resolve) => setImmediate(resolve));
    expect(drawn).toBeLessThan(3000);
    await reading.return?.();
  });
});
