import { broadcastMap, job, type Sink, type Stream, type StreamEnvironment, type } from 'millrace';
import { expect, it } from 'vitest';
import { definitionOf } from '../../src/api/job.ts';
import { buildGraph } from '../../src/graph/plan.ts';

const nowhere: Sink<number> = { open: async () => ({ write() {}, async flush() {}, async close() {} }) };

/** The addresses of all edges between the source and the sink. */
function addresses(build: (numbers: Stream<number>, env: StreamEnvironment) => Stream<number>, parallelism = 2): (string | undefined)[] {
  const program = job('addresses', (env) => void build(env.fromArray<number>('in', []), env).sink('out', nowhere));
  return buildGraph(definitionOf(program).build(), { parallelism }).edges.map(({ address }) => address);
}

const table: [string, (numbers: Stream<number>, env: StreamEnvironment) => Stream<number>, (string | undefined)[]][] = [
  ['with a key: by the operator that it is for', (n) => n.keyBy((x) => x).reduce('sum', (a, b) => a + b), ['sum left by key']],
  [
    'with a key, two inputs',
    (n, env) =>
      n
        .keyBy((x) => x)
        .connect(env.fromArray<number>('other', []).keyBy((x) => x))
        .process('both', { emits: type<number>(), onLeft: () => undefined, onRight: () => undefined }),
    ['both left by key', 'both right by key'],
  ],
  [
    'with a key, in front of an operator that has no uid: by its number and by who sends',
    (n) => n.keyBy((x) => x).map((x) => x),
    ['map.1 left by key from in'],
  ],
  [
    'in turn, at random and by a function, where the program asks for it',
    (n) =>
      n
        .rebalance()
        .asyncMap('one', async (x) => x)
        .shuffle()
        .asyncMap('two', async (x) => x)
        .partition((x, of) => x % of)
        .asyncMap('three', async (x) => x),
    ['one left rebalance from in', 'two left shuffle from one', 'three left custom from two'],
  ],
  ['none without an exchange', (n) => n.asyncMap('ask', async (x) => x), [undefined]],
  ['none where only parallelisms differ: at others there is no exchange', (n) => n.map((x) => x).parallelism(3), [undefined]],
  ['none of shares', (n) => n.rescale().map((x) => x), [undefined]],
  [
    'none of a broadcast',
    (n, env) =>
      n
        .keyBy((x) => x)
        .connect(env.fromArray<number>('rules', []).broadcast())
        .process('ruled', { emits: type<number>(), state: { rules: broadcastMap<number, number>() }, onLeft: () => undefined, onRight: () => undefined }),
    ['ruled left by key', undefined],
  ],
];
for (const [name, build, wanted] of table) it(`the address of what is in flight: ${name}`, () => expect(addresses(build)).toEqual(wanted));

it('addresses are the same at any parallelism', () => {
  const build = (n: Stream<number>): Stream<number> =>
    n
      .rebalance()
      .map((x) => x)
      .keyBy((x) => x)
      .reduce('sum', (a, b) => a + b);
  expect(addresses(build, 1)).toEqual(addresses(build, 4));
});
