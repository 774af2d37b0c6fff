import { type Job, job, sum, tumbling, value } from 'millrace';
import { describe, expect, it } from 'vitest';
import { Store } from '../protocols/lab.ts';

type Build = Parameters<typeof job>[1];
const plan = (build: Build, options: Parameters<Job['plan']>[0] = {}, version?: string) =>
  job('planned', build, version === undefined ? {} : { version }).plan(options);
const chains = (build: Build, parallelism = 1): string[] => plan(build, { parallelism }).vertices.map((v) => v.chain.join(' → '));
const edges = (build: Build, parallelism = 1): string[] => plan(build, { parallelism }).edges.map((e) => `${e.from} ${e.exchange} ${e.to}`);

describe('the plan', () => {
  it('fuses neighbours without an exchange between them', () => {
    expect(
      chains(
        (env) =>
          void env
            .fromArray('in', [1])
            .map((v) => v)
            .filter(() => true)
            .flatMap((v) => [v])
            .sink('out', new Store()),
      ),
    ).toEqual(['source in → map → filter → flatMap → sink out']);
  });

  it('begins a vertex behind keyBy, rebalance, union, another parallelism and chain(never)', () => {
    const build: Build = (env) => {
      const a = env.fromArray('a', [1]);
      const b = env.fromArray('b', [2]);
      a.union(b)
        .map((v) => v)
        .keyBy((v) => v)
        .reduce('sum', (l, r) => l + r)
        .rebalance()
        .filter(() => true)
        .map((v) => v)
        .parallelism(3)
        .forEach('out', () => {})
        .chain('never');
    };
    expect(chains(build)).toEqual(['source a', 'source b', 'map', 'reduce sum', 'filter', 'map', 'forEach out']);
    expect(edges(build)).toEqual([
      'a forward map.2',
      'b forward map.2',
      'map.2 hash sum',
      'sum rebalance filter.4',
      'filter.4 rebalance map.5',
      'map.5 forward out',
    ]);
  });

  it('lets a stream without state behind keyBy run where the key lives', () => {
    const build: Build = (env) =>
      void env
        .fromArray('in', [1])
        .keyBy((v) => v)
        .map((v) => v)
        .sink('out', new Store());
    expect(chains(build)).toEqual(['source in', 'map → sink out']);
    expect(edges(build)).toEqual(['in hash out']);
  });

  it('keeps branches of one stream in its vertex, side outputs and dead letters too', () => {
    const build: Build = (env) => {
      const process = env.fromArray('in', [1]).process('p', { onRecord() {} });
      process.forEach('main', () => {});
      process.side('side').forEach('of-side', () => {});
      process.deadLetters().forEach('letters', () => {});
    };
    expect(chains(build)).toEqual(['source in → process p → forEach main → forEach of-side → forEach letters']);
  });

  it('gives inherited parallelism along forward edges, the default behind exchanges', () => {
    const build: Build = (env) =>
      void env
        .fromArray('in', [1], { timestamp: (v) => v })
        .parallelism(2)
        .map((v) => v)
        .keyBy((v) => v)
        .window(tumbling(1))
        .aggregate(
          'sums',
          sum((v) => v),
        )
        .map((w) => w)
        .sink('out', new Store());
    expect(plan(build, { parallelism: 5 }).vertices.map((v) => [v.id, v.parallelism])).toEqual([
      ['in', 2],
      ['sums', 5],
    ]);
  });

  it('numbers what hangs together as one region', async () => {
    const { buildGraph } = await import('../../src/graph/plan.ts');
    const { nodesOf } = await import('./nodes.ts');
    const regions = (build: Build) => buildGraph(nodesOf(build), { parallelism: 1 }).vertices.map((v) => `${v.id} ${v.region}`);
    expect(
      regions((env) => {
        const a = env.fromArray('a', [1]);
        const b = env.fromArray('b', [1]);
        const c = env.fromArray('c', [1]);
        b.keyBy((v) => v).reduce('bs', (l) => l);
        a.union(c).forEach('ac', () => {});
      }),
    ).toEqual(['a 0', 'b 1', 'c 0', 'bs 1', 'ac 0']);
  });

  it('is JSON, and the same each time it is made', () => {
    const build: Build = (env) =>
      void env
        .fromArray('in', [1])
        .keyBy((v) => v)
        .reduce('sum', (a, b) => a + b)
        .sink('out', new Store());
    expect(JSON.parse(JSON.stringify(plan(build)))).toEqual(plan(build));
    expect(plan(build).hash).toMatch(/^[0-9a-f]{16}$/);
  });

  it('has another hash where the program differs in what a snapshot or a neighbour sees, and not where a function does', () => {
    const base =
      (options: { uid?: string; factor?: number; extra?: boolean; state?: object } = {}): Build =>
      (env) => {
        const input = env.fromArray('in', [1]).map((v) => v * (options.factor ?? 1));
        const keyed = (options.extra === true ? input.filter(() => true) : input).keyBy((v) => v);
        keyed.process(options.uid ?? 'p', { state: options.state ?? {}, onRecord() {} } as never);
      };
    const hash = plan(base()).hash;
    expect(plan(base({ factor: 2 })).hash).toBe(hash);
    expect(plan(base({ uid: 'q' })).hash).not.toBe(hash);
    expect(plan(base({ extra: true })).hash).not.toBe(hash);
    expect(plan(base({ state: { n: value() } })).hash).not.toBe(hash);
    expect(plan(base(), { parallelism: 2 }).hash).not.toBe(hash);
    expect(plan(base(), {}, 'v2').hash).not.toBe(hash);
  });

  it('sends a stream joined with itself twice', async () => {
    const out: number[] = [];
    await job('twice', (env) => {
      const input = env.fromArray('in', [1, 2]);
      input.union(input).forEach('out', (v) => void out.push(v));
    }).run();
    expect(out.toSorted()).toEqual([1, 1, 2, 2]);
  });
});
