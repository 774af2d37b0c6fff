import { type AggregateFunction, combine, early, job, sliding, tumbling } from 'millrace';
import { describe, expect, it } from 'vitest';

/** Its result is its accumulator, which goes on changing. */
const bag: AggregateFunction<number, number[], number[]> = {
  create: () => [],
  add(held, v) {
    held.push(v);
    return held;
  },
  merge(left, right) {
    left.push(...right);
    return left;
  },
  result: (held) => held,
};

interface Counted {
  n: number;
  at: number;
}
const mutating = (left: Counted, right: Counted): Counted => {
  left.n += right.n;
  return left;
};
const counted = (): Counted[] => [1, 2, 3, 4].map((n) => ({ n, at: n }));

/** Runs to its end and gives what came out, looked at only afterwards: an object that was changed after it was emitted shows. */
async function outputOf<T>(build: (env: Parameters<Parameters<typeof job>[1]>[0], out: (value: T) => void) => void, parallelism = 1): Promise<T[]> {
  const out: T[] = [];
  await job('references', (env) => build(env, (v) => void out.push(v))).run({ parallelism });
  return out;
}

describe('protocols 16 A: by reference: batches change after they were «sent»', () => {
  it('a running aggregate whose result is its accumulator emits four values, not one four times', async () => {
    const out = await outputOf<{ value: number[] }>((env, emit) =>
      env
        .fromArray('in', [1, 2, 3, 4])
        .keyBy(() => 'k')
        .aggregate('all', bag)
        .forEach('out', emit),
    );
    expect(out.map((r) => r.value)).toEqual([[1], [1, 2], [1, 2, 3], [1, 2, 3, 4]]);
  });

  it('nor where it is a part of combine()', async () => {
    const out = await outputOf<{ value: { bag: number[] } }>((env, emit) =>
      env
        .fromArray('in', [1, 2, 3])
        .keyBy(() => 'k')
        .aggregate('all', combine({ bag }))
        .forEach('out', emit),
    );
    expect(out.map((r) => r.value.bag)).toEqual([[1], [1, 2], [1, 2, 3]]);
  });

  it('a running reduce that changes and returns its left side leaves what it emitted, and its input, alone', async () => {
    const records: Counted[] = [];
    const out = await outputOf<Counted>((env, emit) => {
      const input = env.fromArray('in', counted());
      input
        .keyBy(() => 'k')
        .reduce('sum', mutating)
        .forEach('out', emit);
      input.forEach('records', (v) => void records.push(v));
    });
    expect(out.map((v) => v.n)).toEqual([1, 3, 6, 10]);
    expect(records.map((v) => v.n)).toEqual([1, 2, 3, 4]);
  });

  for (const [name, assigner] of [
    ['tumbling', tumbling(100)],
    ['sliding', sliding(100, 50)],
  ] as const) {
    it(`a reducer that changes its left side leaves the records alone in ${name} windows`, async () => {
      const records: Counted[] = [];
      const out = await outputOf<{ start: number; value: Counted }>((env, emit) => {
        const input = env.fromArray('in', counted(), { timestamp: (v) => v.at });
        input
          .keyBy(() => 'k')
          .window(assigner)
          .reduce('sum', mutating)
          .forEach('out', emit);
        input.forEach('records', (v) => void records.push(v));
      });
      expect(out.map((w) => w.value.n)).toEqual(name === 'tumbling' ? [10] : [10, 10]);
      expect(records.map((v) => v.n)).toEqual([1, 2, 3, 4]);
    });

    it(`early results of ${name} windows stay as they were`, async () => {
      const out = await outputOf<{ start: number; value: number[] }>((env, emit) =>
        env
          .fromArray('in', [1, 2, 3, 4], { timestamp: (v) => v })
          .keyBy(() => 'k')
          .window(assigner)
          .trigger(early({ count: 1 }))
          .aggregate('all', bag)
          .forEach('out', emit),
      );
      const ofFirst = out.filter((w) => w.start === 0).map((w) => w.value);
      expect(ofFirst).toEqual([[1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]]);
    });
  }

  it('windows that overlap give results of their own, with and without merge', async () => {
    const { merge: _, ...unmergeable } = bag;
    for (const fn of [bag, unmergeable]) {
      const out = await outputOf<{ start: number; value: number[] }>((env, emit) =>
        env
          .fromArray('in', [10, 60, 110], { timestamp: (v) => v })
          .keyBy(() => 'k')
          .window(sliding(100, 50))
          .aggregate('all', fn)
          .forEach('out', emit),
      );
      expect(out.map((w) => [w.start, w.value])).toEqual([
        [-50, [10]],
        [0, [10, 60]],
        [50, [60, 110]],
        [100, [110]],
      ]);
    }
  });
});
