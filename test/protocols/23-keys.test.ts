import { job, type Key, level, memory, type StateBackend } from 'millrace';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, rejection, Store, temporaryFolder } from './lab.ts';

describe('protocols 23: canonical keys: two different strings, one key, and backends that disagree', () => {
  const different: Key[] = ['a\uD800', 'a\uDBFF', 'a\uFFFD', ['a', 'bc'], ['ab', 'c'], ['abc'], 'abc', 1, '1', 1n, true, 'true', [1], ['1'], [], ''];
  const same: [Key, Key][] = [
    [0, -0],
    [Number.NaN, Number.NaN],
    [
      [1, ['x']],
      [1, ['x']],
    ],
  ];

  const counts = async (keys: readonly Key[], parallelism: number, state: StateBackend, folder: string): Promise<Map<number, number>> => {
    const feed = new Feed<number>();
    const store = new Store<{ id: number; n: number }>();
    const counting = job('counting', (env) => {
      env
        .source('in', feed)
        .map((id) => ({ id, n: 1 }))
        .keyBy((v) => keys[v.id]!)
        .reduce('counts', (left, right) => ({ id: right.id, n: left.n + right.n }))
        .sink('out', store);
    });
    const ids = keys.map((_, i) => i);
    // Half of the records before a restore, half behind it: restored keys meet fresh ones.
    const options = { checkpoints: checkpointsIn(folder), state, parallelism };
    const first = ends(await counting.start(options));
    await feed.push(ids).taken();
    await first.stop();
    const second = ends(await counting.start(options));
    feed.push(ids).end();
    await second.finished;
    const last = new Map<number, number>();
    for (const { id, n } of store.records) last.set(id, Math.max(n, last.get(id) ?? 0));
    return last;
  };

  for (const kind of ['memory', 'level'] as const) {
    for (const parallelism of [1, 3]) {
      it(`${kind}(), parallelism ${parallelism}: different keys are counted apart, equal ones together, also over a restore`, async () => {
        const folder = await temporaryFolder();
        const state = kind === 'memory' ? memory() : level({ directory: `${folder}/state`, cacheBytes: 1 });
        const apart = await counts(different, parallelism, state, `${folder}/1`);
        expect([...apart.values()]).toEqual(different.map(() => 2));
        const together = await counts(same.flat(), parallelism, state, `${folder}/2`);
        // Each pair is one key with four records; whichever of the two came last has seen them all.
        for (let i = 0; i < same.length; i++) expect(Math.max(together.get(2 * i)!, together.get(2 * i + 1)!)).toBe(4);
      });
    }
  }

  it('an array given as key may be changed afterwards', async () => {
    const out: [Key, number][] = [];
    const reused: [string] = ['a'];
    await job('reused', (env) => {
      env
        .fromArray('in', ['a', 'b', 'a', 'b'])
        .keyBy((v) => {
          reused[0] = v;
          return reused;
        })
        .aggregate('counts', { create: () => 0, add: (n: number) => n + 1, result: (n: number) => n })
        .forEach('out', (r) => void out.push([r.key, r.value]));
    }).run();
    expect(out).toEqual([
      [['a'], 1],
      [['b'], 1],
      [['a'], 2],
      [['b'], 2],
    ]);
    expect(out.every(([key]) => Object.isFrozen(key))).toBe(true);
  });

  for (const bad of [undefined, null, { id: 1 }, ['a', undefined], Symbol('s'), () => 'f', new Date(0)]) {
    it(`${String(bad) === '[object Object]' ? JSON.stringify(bad) : String(bad)} is refused as a key, naming operator and value`, async () => {
      const error = await rejection(
        job('bad', (env) => {
          env
            .fromArray('in', [1])
            .keyBy(() => bad as never)
            .reduce('counts', (left) => left);
        }).run(),
      );
      expect(error).toMatchObject({ code: 'KEY_UNSUPPORTED', uid: 'counts', retryable: false });
      expect(error.message).toContain(typeof bad === 'object' ? JSON.stringify(bad) : String(bad));
      expect(error.todo).toBeDefined();
    });
  }
});
