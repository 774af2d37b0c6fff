// Random programs whose records wait in front of barriers, crashed and restored at other parallelisms with unaligned checkpoints: what sinks hold in the end is what
// a model says, or what a straight run gives, each record once.
//
// A failure prints the seed and the program; MILLRACE_SEED repeats it, MILLRACE_ROUNDS asks for more.

import { type Job, job, type Sink, tumbling, type } from 'millrace';
import { runJob, type SourceScript } from 'millrace/testing';
import { expect, it } from 'vitest';
import { Random, rounds, SEED } from '../random.ts';
import { CHAINS, type Item, itemsOf, type Measures, OUT_OF_ORDER } from './chains.ts';
import { build, planOf } from './graphs.ts';
import { type Lived, lives } from './lives.ts';

const MOST_ROUNDS = 50;

const nowhere: Sink<unknown> = { open: async () => ({ write() {}, async flush() {}, async close() {} }) };

const shown = (sinks: Record<string, readonly unknown[]>): Record<string, string[]> =>
  Object.fromEntries(Object.entries(sinks).map(([uid, values]) => [uid, values.map((v) => JSON.stringify(v)).sort()]));

function courseOf(random: Random) {
  return {
    parallelisms: [random.between(1, 3), random.between(1, 3), random.between(1, 3)],
    unaligned: random.of<boolean | { after: number }>([true, true, { after: random.between(0, 20) }]),
    stall: random.of([5, 20, 60]),
    every: random.between(3, 15),
  };
}

async function same(said: string, expected: Record<string, readonly unknown[]>, running: Promise<Lived>): Promise<Lived> {
  const lived = await running.catch((cause: unknown) => {
    throw new Error(said, { cause });
  });
  expect(shown(lived.sinks), said).toEqual(shown(expected));
  return lived;
}

async function compareGraph(seed: number): Promise<Lived> {
  const random = new Random(seed);
  const { plan, values } = planOf(random);
  const course = courseOf(random);
  const said = `seed ${seed}: ${JSON.stringify({ ...course, ...plan })}`;
  const sources: SourceScript = Object.fromEntries(Object.entries(plan.sources).map(([uid, all]) => [uid, all.map((x) => ({ value: x }))]));
  const expected = Object.fromEntries(plan.sinks.map((i) => [`out-${i}`, values[i]!]));
  return same(
    said,
    expected,
    lives((stall) => job('graph', (env) => build(env, plan, stall)), { seed, random, sources, ...course }),
  );
}

async function compareChain(seed: number): Promise<Lived> {
  const random = new Random(seed);
  const name = random.of(Object.keys(CHAINS));
  const { inputs, build: chain } = CHAINS[name]!;
  const size = random.of([1, 3, 5, 10, 16]);
  const lower = random.between(-10, 5);
  const measures: Measures = { size, offset: random.between(1 - size, size - 1), lower, upper: lower + random.between(0, 15) };
  const sources = Object.fromEntries(inputs.map((uid) => [uid, itemsOf(random)]));
  const course = courseOf(random);
  const made = (stall: () => Promise<void>): Job =>
    job('chain', (env) => {
      const streams = inputs.map((uid) =>
        env
          .fromArray<Item>(uid, [], { timestamp: (item) => item.at, outOfOrderness: OUT_OF_ORDER })
          .rebalance()
          .asyncMap(`stall-${uid}`, async (item) => stall().then(() => item), { capacity: 1 }),
      );
      const { out, failed } = chain(streams, measures);
      out
        .keyBy((found) => JSON.stringify(found).length % 5)
        .asyncMap('stall', async (found) => stall().then(() => found), { capacity: 2 })
        .sink('out', nowhere);
      failed?.sink('failed', nowhere);
    });
  const said = `seed ${seed}: ${name}, ${JSON.stringify({ ...course, ...measures })}`;
  const { sinks: expected } = await runJob(
    made(async () => {}),
    { sources },
  );
  return same(said, expected, lives(made, { seed, random, sources, ...course }));
}

/** Of one source in one instance the order is given, for each key and with event time between its records: so it is decided which of them are late. */
async function compareLate(seed: number): Promise<Lived> {
  const random = new Random(seed);
  const [size, lateness, outOfOrderness] = [random.of([5, 10, 16]), random.of([0, 0, 5]), random.below(6)];
  let time = 0;
  const script = Array.from({ length: random.between(20, 60) }, (_, id) => {
    time += random.below(5);
    return { value: { id, key: random.below(6), at: time - random.below(20) } };
  });
  const course = courseOf(random);
  const made = (stall: () => Promise<void>): Job =>
    job('late', (env) => {
      const windows = env
        .fromArray<{ id: number; key: number; at: number }>('in', [], { timestamp: ({ at }) => at, outOfOrderness })
        .parallelism(1)
        .keyBy(({ key }) => key)
        .window(tumbling(size))
        .allowedLateness(lateness)
        .process('windows', ({ key, start }, values) => [[key, start, [...values].map(({ id }) => id)]]);
      const out = windows.map((found) => ({ found })).union(windows.late().map(({ id }) => ({ late: id })));
      out
        .keyBy((found) => JSON.stringify(found).length % 4)
        .asyncMap('stall', async (found) => stall().then(() => found), { capacity: 1 })
        .sink('out', nowhere);
    });
  const said = `seed ${seed}: ${JSON.stringify({ ...course, size, lateness, outOfOrderness })}`;
  const { sinks: expected } = await runJob(
    made(async () => {}),
    { sources: { in: script } },
  );
  return same(said, expected, lives(made, { seed, random, sources: { in: script }, ...course }));
}

/** A watermark lets many timers fire, of each there is much, and it finds no room: barriers pass between the timers. */
async function compareTimers(seed: number): Promise<Lived> {
  const random = new Random(seed);
  const [keys, timers, results] = [8, 36, 40];
  const script = [0, 1].flatMap((round) => [
    ...Array.from({ length: keys }, (_, key) => ({ value: { key, at: round * 1000 } })),
    { value: { key: -1, at: round * 1000 + 500 } },
  ]);
  const sources = { in: [...script, ...Array.from({ length: 20 }, (_, n) => ({ value: { key: -1, at: 3000 + n } }))] };
  const made = (stall: () => Promise<void>): Job =>
    job('timers', (env) => {
      const fired = env
        .fromArray<{ key: number; at: number }>('in', [], { timestamp: ({ at }) => at })
        .parallelism(1)
        .keyBy(({ key }) => key)
        .process('timers', {
          emits: type<{ key: number; at: number; n: number }>(),
          onRecord({ key, at }, context) {
            for (let n = 1; n <= timers && key >= 0; n++) context.timers.event.set(at + n);
          },
          onTimer({ at }, { key, emit }) {
            for (let n = 0; n < results; n++) emit({ key, at, n });
          },
        });
      fired
        .keyBy(({ key }) => key)
        .asyncMap('stall', async (result) => (result.n === 0 && result.at % 6 === 0 ? stall().then(() => result) : result), { capacity: 4 })
        .keyBy(({ key }) => key)
        .process('results', {
          emits: type<unknown>(),
          onRecord({ key, at, n }, { watermark, emit }) {
            if (n === 0 || at <= watermark) emit([key, at, n, at > watermark]);
          },
        })
        .sink('out', nowhere);
    });
  const parallelisms = [random.between(1, 2), random.between(1, 2), 1];
  const course = { ...courseOf(random), parallelisms, unaligned: true, stall: 40, every: random.between(20, 60) };
  const expected = Array.from({ length: 2 * keys * timers }, (_, i) => {
    const timer = Math.floor(i / keys);
    return [i % keys, Math.floor(timer / timers) * 1000 + 1 + (timer % timers), 0, true];
  });
  return same(`seed ${seed}: ${JSON.stringify(course)}`, { out: expected }, lives(made, { seed, random, sources, ...course }));
}

for (const [what, compare, often] of [
  ['random graphs give what a model of multisets gives', compareGraph, 2],
  ['random chains of windows and joins give what they give straight', compareChain, 2],
  ['records that are late straight are late, and no others,', compareLate, 3],
  ['timers fire once, and in front of their watermark,', compareTimers, 1],
] as const) {
  it(`${what}, with records in front of barriers and restored at other parallelisms, seeds from ${SEED}`, async () => {
    const all: Lived[] = [];
    const recorded = (): number => all.reduce((sum, { records }) => sum + records, 0);
    // Where nothing was in flight nothing was tried.
    for (let round = 0; round < rounds(often) || (recorded() === 0 && round < MOST_ROUNDS); round++) all.push(await compare(SEED + round));
    expect(recorded()).toBeGreaterThan(0);
  }, 3_600_000);
}
