// Random graphs against a model of multisets (graphs.ts), with a crash inside, or faults at any step. What is in the sinks is what the model says, each value once.
//
// A failure prints the seed and the graph; MILLRACE_SEED repeats it, MILLRACE_ROUNDS asks for more.

import { job } from 'millrace';
import { crashMarker, runJob, type SourceScript, simulate } from 'millrace/testing';
import { expect, it } from 'vitest';
import { checkpointsOf, Random, rounds, SEED } from '../random.ts';
import { build, type Numbers, planOf } from './graphs.ts';

const sorted = (values: Numbers = []): Numbers => values.toSorted((a, b) => a - b);

async function compare(seed: number): Promise<void> {
  const random = new Random(seed);
  const { plan, values } = planOf(random);
  const { parallelism, sinks } = plan;
  const checkpoints = checkpointsOf(random);
  const graph = job('graph', (env) => build(env, plan), { parallelism, checkpoints });
  const said = `seed ${seed}: ${JSON.stringify({ ...checkpoints, ...plan })}`;
  const sources: SourceScript = Object.fromEntries(Object.entries(plan.sources).map(([uid, all]) => [uid, all.map((x) => ({ value: x }))]));
  const crashing = { ...sources, in: sources.in!.toSpliced(random.below(plan.sources.in!.length), 0, crashMarker()) };
  const running = random.once(4)
    ? simulate<Record<string, number>>(graph, { seed, sources, faults: { crash: 2, slow: 0.05, drop: 0.1 } })
    : runJob<Record<string, number>>(graph, { seed, sources: crashing });
  const outcome = await running.catch((cause: unknown) => {
    throw new Error(said, { cause });
  });
  const expected = Object.fromEntries(sinks.map((i) => [`out-${i}`, sorted(values[i])]));
  expect(Object.fromEntries(sinks.map((i) => [`out-${i}`, sorted(outcome.sinks[`out-${i}`])])), said).toEqual(expected);
}

it(`random graphs give what a model of multisets gives, over a crash, seeds from ${SEED}`, async () => {
  for (let round = 0; round < rounds(15); round++) await compare(SEED + round);
}, 3_600_000);
