import { job, type Stream, type } from 'millrace';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, RESTARTS, rejection, Store, temporaryFolder } from '../protocols/lab.ts';

const RECORDS = 6000;
const SHAPES: readonly [from: number, to: number][] = [
  [1, 3],
  [3, 2],
  [2, 4],
  [3, 3],
];

/** Of which records each instance was given, in order. `fromArray` at parallelism p gives value v to instance v mod p. */
async function received(from: number, to: number, exchange: (stream: Stream<number>) => Stream<number>, records = RECORDS): Promise<number[][]> {
  const got = Array.from({ length: to }, () => [] as number[]);
  await job('exchanging', (env) => {
    const sent = env
      .fromArray(
        'in',
        Array.from({ length: records }, (_, i) => i),
      )
      .parallelism(from);
    exchange(sent)
      .process<number>('receive', { onRecord: (v, ctx) => void got[ctx.subtask]!.push(v) })
      .parallelism(to)
      .chain('never');
  }).run();
  return got;
}

const inOrder = (values: readonly number[]): number[] => values.toSorted((a, b) => a - b);
const all = (records = RECORDS): number[] => Array.from({ length: records }, (_, i) => i);

function keepsOrderOfEachChannel(got: readonly number[][], from: number): void {
  for (const values of got)
    for (let sender = 0; sender < from; sender++) {
      const channel = values.filter((v) => v % from === sender);
      expect(channel).toEqual(inOrder(channel));
    }
}

for (const [from, to] of SHAPES) {
  describe(`from ${from} to ${to} instances`, () => {
    it('rebalance deals the records of each sender out in turn', async () => {
      const got = await received(from, to, (s) => s.rebalance());
      expect(inOrder(got.flat())).toEqual(all());
      keepsOrderOfEachChannel(got, from);
      for (let sender = 0; sender < from; sender++) {
        const counts = got.map((values) => values.filter((v) => v % from === sender).length);
        expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
      }
    });

    it('rescale deals them out in turn among a share of the receivers', async () => {
      const got = await received(from, to, (s) => s.rescale());
      expect(inOrder(got.flat())).toEqual(all());
      keepsOrderOfEachChannel(got, from);
      const pairs = got.flatMap((values, receiver) => [...new Set(values.map((v) => v % from))].map((sender) => `${sender}→${receiver}`)).toSorted();
      // As few channels as there can be: each sender and each receiver has one, and the larger side no more.
      expect(pairs).toHaveLength(Math.max(from, to));
      expect(new Set(pairs.map((p) => p.split('→')[0])).size).toBe(from);
      expect(new Set(pairs.map((p) => p.split('→')[1])).size).toBe(to);
      for (let sender = 0; sender < from; sender++) {
        const counts = got.map((values) => values.filter((v) => v % from === sender).length).filter((n) => n > 0);
        expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
      }
    });

    it('shuffle gives each record to one, and some to all', async () => {
      const got = await received(from, to, (s) => s.shuffle());
      expect(inOrder(got.flat())).toEqual(all());
      keepsOrderOfEachChannel(got, from);
      for (const values of got) expect(values.length).toBeGreaterThan(RECORDS / to / 2);
    });

    it('partition gives each to the one that is named, and asks once for each record', async () => {
      let asked = 0;
      const got = await received(from, to, (s) =>
        s.partition((v, instances) => {
          asked += 1;
          expect(instances).toBe(to);
          return Math.floor(v / 7) % instances;
        }),
      );
      expect(asked).toBe(RECORDS);
      expect(inOrder(got.flat())).toEqual(all());
      keepsOrderOfEachChannel(got, from);
      for (const [receiver, values] of got.entries()) expect(values.every((v) => Math.floor(v / 7) % to === receiver)).toBe(true);
    });

    it('without an exchange records stay in their instance, or are dealt out where the numbers differ', async () => {
      const got = await received(from, to, (s) => s);
      expect(inOrder(got.flat())).toEqual(all());
      keepsOrderOfEachChannel(got, from);
      if (from === to) for (const [instance, values] of got.entries()) expect(values.every((v) => v % from === instance)).toBe(true);
    });

    it('keyBy gives all records of a key to one, in order, and keys to all', async () => {
      const got = Array.from({ length: to }, () => new Map<string, number[]>());
      await job('keyed', (env) => {
        env
          .fromArray('in', all())
          .parallelism(from)
          .keyBy((v) => `key ${v % 101}`)
          .process<number>('receive', {
            onRecord(v, ctx) {
              const values = got[ctx.subtask]!.get(ctx.key as string) ?? [];
              values.push(v);
              got[ctx.subtask]!.set(ctx.key as string, values);
            },
          })
          .parallelism(to);
      }).run();
      const keys = got.flatMap((of) => [...of.keys()]);
      expect(new Set(keys).size).toBe(101);
      expect(keys).toHaveLength(101);
      for (const of of got) expect(of.size).toBeGreaterThan(0);
      keepsOrderOfEachChannel(
        got.flatMap((of) => [...of.values()]),
        from,
      );
      expect(inOrder(got.flatMap((of) => [...of.values()].flat()))).toEqual(all());
    });

    it('broadcast gives every record to every one', async () => {
      const got = Array.from({ length: to }, () => [] as number[]);
      await job('broadcast', (env) => {
        const sent = env.fromArray('in', all(600)).parallelism(from);
        env
          .fromArray<number>('other', [])
          .connect(sent.broadcast())
          .process('receive', { onLeft() {}, onRight: (v, ctx) => void got[ctx.subtask]!.push(v) })
          .parallelism(to);
      }).run();
      for (const values of got) expect(inOrder(values)).toEqual(all(600));
      keepsOrderOfEachChannel(got, from);
    });
  });
}

describe('exchanges, crashes and restores', () => {
  const ways: [string, (s: Stream<number>) => Stream<number>][] = [
    ['rebalance', (s) => s.rebalance()],
    ['rescale', (s) => s.rescale()],
    ['shuffle', (s) => s.shuffle()],
    ['partition', (s) => s.partition((v, n) => v % n)],
    ['keyBy', (s) => s.keyBy((v) => v % 13).map((v) => v)],
    ['no exchange', (s) => s],
  ];
  for (const [name, exchange] of ways) {
    for (const [from, to] of SHAPES.slice(0, 3)) {
      it(`${name} from ${from} to ${to}: nothing is lost and nothing repeated`, async () => {
        const folder = await temporaryFolder();
        const store = new Store<number>();
        const crashes = new Set([777, 1555]);
        const result = await job('crashing', (env) => {
          exchange(env.fromArray('in', all(2000)).parallelism(from))
            .map((v) => {
              if (crashes.delete(v)) throw new Error('crash');
              return v;
            })
            .parallelism(to)
            .sink('out', store);
        }).run({ checkpoints: { ...checkpointsIn(folder), every: 2 }, restarts: RESTARTS });
        expect(result.restarts).toBeGreaterThan(0);
        expect(inOrder(store.records)).toEqual(all(2000));
      });
    }
  }
});

describe('a partition function', () => {
  const wrong: [string, unknown, string][] = [
    ['−1', -1, 'PARTITION_INVALID'],
    ['as many as there are', 3, 'PARTITION_INVALID'],
    ['a fraction', 1.5, 'PARTITION_INVALID'],
    ['NaN', Number.NaN, 'PARTITION_INVALID'],
    ['nothing', undefined, 'PARTITION_INVALID'],
    ['a string', '1', 'PARTITION_INVALID'],
    ['the name of something else', 'length', 'PARTITION_INVALID'],
    ['a promise', Promise.resolve(1), 'HANDLER_IS_ASYNC'],
  ];
  for (const [what, target, code] of wrong) {
    it(`that gives ${what} is refused`, async () => {
      const error = await rejection(received(1, 3, (s) => s.partition(() => target as number), 1));
      expect(error).toMatchObject({ code, retryable: false });
    });
  }

  it('that throws, or names nobody, under skip makes a dead letter, and the record goes nowhere', async () => {
    const letters: number[] = [];
    const got: number[] = [];
    await job('skipping', (env) => {
      const sent = env
        .fromArray('in', [0, 1, 2, 3])
        .map((v) => v)
        .onError('skip');
      sent.deadLetters().forEach('letters', (l) => void letters.push(l.record as number));
      sent.forEach('near', (v) => void got.push(v));
      sent
        .partition((v) => {
          if (v === 1) throw new Error('no');
          return v === 2 ? 99 : 0;
        })
        .forEach('far', (v) => void got.push(v));
    }).run({ parallelism: 1 });
    expect(letters).toEqual([1, 2]);
    expect(inOrder(got)).toEqual([0, 0, 3, 3]);
  });
});

describe('chaining', () => {
  const chained = (mode: 'never' | 'always' | undefined, parallelism?: number) => {
    const out: number[] = [];
    const made = job('chained', (env) => {
      const mapped = env.fromArray('in', [1, 2, 3]).map((v) => v * 2);
      if (mode !== undefined) mapped.chain(mode);
      if (parallelism !== undefined) mapped.parallelism(parallelism);
      mapped.process<number>('watch', { emits: type<number>(), onRecord: (v, ctx) => ctx.emit(v) }).forEach('out', (v) => void out.push(v));
    });
    return { made, out };
  };

  it('is as the numbers of instances allow, unless never; the results are the same', async () => {
    const vertices: number[] = [];
    for (const mode of ['never', 'always', undefined] as const) {
      const { made, out } = chained(mode);
      vertices.push(made.plan().vertices.length);
      await made.run();
      expect(out).toEqual([2, 4, 6]);
    }
    expect(vertices).toEqual([2, 1, 1]);
  });

  it('always is refused where an exchange is needed', async () => {
    expect(await rejection(chained('always', 2).made.run())).toMatchObject({ code: 'PLAN_INVALID' });
  });
});
