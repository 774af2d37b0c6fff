import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem, type } from 'node:os';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, it } from 'vitest';
import { interrupted } from '../e2e/interrupted.ts';
import { courseOf, killAfter, killAt, unalignedOf } from '../e2e/killing.ts';
import { runHere } from '../e2e/run-here.ts';
import { NEXMARK_COURSES, nexmarkStepOf, STEPS } from '../e2e/steps.ts';
import { ensureBuilt, FOUR, Input, Trial } from '../e2e/trial.ts';
import { NEXMARK, WORKLOADS } from '../e2e/workloads.ts';

// Not in npm test. npm run test:chaos: every step five times, and twenty random moments for each workload, backend and parallelism; and the queries of Nexmark,
// each with each backend and parallelism, straight, interrupted, killed at a step and at random moments, a tenth as many. Writes docs/chaos.md.
// MILLRACE_CHAOS='rounds,moments' runs another number of them, and MILLRACE_CHAOS_SEED repeats the moments of a run.
const [ROUNDS, MOMENTS] = (process.env.MILLRACE_CHAOS ?? '5,20').split(',').map(Number) as [number, number];
const ASKED_FOR = process.env.npm_lifecycle_event === 'test:chaos' || process.env.MILLRACE_CHAOS !== undefined;
const SEED = Number(process.env.MILLRACE_CHAOS_SEED ?? Date.now() % 1_000_000);
const LOG = fileURLToPath(new URL('../../docs/chaos.md', import.meta.url));

beforeAll(() => {
  if (ASKED_FOR) ensureBuilt();
}, 180_000);

it.runIf(ASKED_FOR)('killed at every step and at random moments, jobs write every row once', { timeout: 3 * 3_600_000 }, async () => {
  const begun = Date.now();
  const inputs = WORKLOADS.map((workload) => new Input(workload, { records: 16_000, files: FOUR }));
  const large = new Input('wc', { files: FOUR });
  const random = generator(SEED);
  const backends = ['memory', 'level'] as const;
  const tally = { steps: 0, moments: 0, straight: 0, interrupted: 0, kills: 0, wrong: [] as string[] };
  const trials: (() => Promise<void>)[] = [];

  for (let round = 0; round < ROUNDS; round++) {
    for (const [index, step] of STEPS.entries()) {
      const { workload, large: whole, course } = courseOf(step, index + round * 7);
      trials.push(async () => {
        const { wrong, killed } = await killAt(whole ? large : inputs[WORKLOADS.indexOf(workload)]!, step, course);
        tally.steps += 1;
        tally.kills += killed;
        tally.wrong.push(...wrong.map((sentence) => `${step.name}, ${workload}, ${JSON.stringify(course)}: ${sentence}`));
      });
    }
  }
  for (const [index, workload] of WORKLOADS.entries()) {
    for (const backend of backends) {
      for (const parallelism of [1, 2, 4]) {
        for (let moment = 0; moment < MOMENTS; moment++) {
          // A process needs some 400 ms to start, the job then about 700.
          const delays = [300 + random() * 1000, 300 + random() * 1000] as const;
          const course = { backend, parallelism: [parallelism, [1, 2, 3, 4][Math.floor(random() * 4)]!, parallelism] as const, ...unalignedOf(moment) };
          trials.push(async () => {
            const { wrong, killed } = await killAfter(inputs[index]!, [delays[0], delays[1]], { ...course, parallelism: [...course.parallelism] });
            tally.moments += 1;
            tally.kills += killed;
            tally.wrong.push(...wrong.map((sentence) => `${delays.map(Math.round)} ms, ${workload}, ${JSON.stringify(course)}: ${sentence}`));
          });
        }
      }
    }
  }

  for (const query of NEXMARK) {
    let input: Input | undefined;
    let left = 0;
    const trial = (said: string, run: (input: Input) => Promise<{ wrong: readonly string[]; killed: number }>): void => {
      left += 1;
      trials.push(async () => {
        input ??= new Input(query, { files: FOUR });
        const { wrong, killed } = await run(input).catch((error: unknown) => ({ wrong: [String(error)], killed: 0 }));
        tally.kills += killed;
        tally.wrong.push(...wrong.map((sentence) => `${said}, ${query}: ${sentence}`));
        left -= 1;
        if (left === 0) input.remove();
      });
    };
    const here = (said: string, settings: Partial<Trial['settings']>, run: (trial: Trial) => Promise<string[]>): void =>
      trial(said, async (input) => {
        const one = new Trial(input, settings);
        const wrong = await run(one);
        if (wrong.length === 0) one.remove();
        return { wrong, killed: 0 };
      });
    for (const backend of backends) {
      for (const parallelism of NEXMARK_COURSES) {
        const course = { backend, parallelism, pace: 10 };
        const [first, second] = parallelism;
        here(`straight, ${backend}, parallelism ${first}`, { backend, parallelism: first, every: 200 }, async (one) => {
          tally.straight += 1;
          const { status } = await runHere(one);
          return status === 'finished' ? one.complaints() : [`ended as ${status}`];
        });
        here(`interrupted, ${backend}, parallelism ${first} and ${second}`, { backend, every: 20 }, (one) => {
          tally.interrupted += 1;
          return interrupted(one, first, second);
        });
        const step = nexmarkStepOf(query);
        trial(`${step.name}, ${JSON.stringify(course)}`, (input) => {
          tally.steps += 1;
          return killAt(input, step, course);
        });
        for (let moment = 0; moment < MOMENTS / 10; moment++) {
          const delays = [400 + random() * 1500, 400 + random() * 1500] as const;
          trial(`${delays.map(Math.round)} ms, ${JSON.stringify(course)}`, (input) => {
            tally.moments += 1;
            return killAfter(input, delays, course);
          });
        }
      }
    }
  }

  const lanes = Array.from({ length: availableParallelism() + 1 }, async () => {
    for (let trial = trials.shift(); trial !== undefined; trial = trials.shift()) await trial();
  });
  await Promise.all(lanes);
  for (const input of [...inputs, large]) input.remove();
  writeFileSync(LOG, page({ ...tally, minutes: (Date.now() - begun) / 60_000 }));
  expect(tally.wrong).toEqual([]);
});

function page(run: {
  steps: number;
  moments: number;
  straight: number;
  interrupted: number;
  kills: number;
  minutes: number;
  wrong: readonly string[];
}): string {
  const { version } = JSON.parse(readFileSync(fileURLToPath(new URL('../../package.json', import.meta.url)), 'utf8')) as { version: string };
  return `# Killed, and nothing lost

\`npm run test:chaos\` runs the workloads \`wc\` and \`cpu\` (\`test/e2e/workloads.ts\`) in processes of their own and ends these with SIGKILL: at every named step of a
checkpoint, a commit and a restore (\`test/e2e/steps.ts\`), and at random moments; each trial is killed twice in a row and then finished, at another
parallelism each time. Asked at the end: is every row of the output there, once? Is there a file in the checkpoint, state or output directory that nobody needs?

The queries of Nexmark (\`docs/nexmark.md\`) run over 100,000 events with each backend and at each parallelism: straight; interrupted (a function throws, the job
restarts, is stopped, and goes on at another parallelism); killed at a step and at random moments. Their outputs must be those of the reference, byte for byte.

This page is written by the run.

| | |
| --- | --- |
| Date | ${new Date().toISOString().slice(0, 10)} |
| Millrace | ${version} |
| Machine | ${cpus()[0]?.model.trim()}, ${availableParallelism()} cores, ${Math.round(totalmem() / 2 ** 30)} GB, ${type()} ${release()}, Node ${process.version} |
| Trials at named steps | ${run.steps} (${STEPS.length} steps, each ${ROUNDS} times; ${NEXMARK.length} queries × 2 backends × 3 courses of parallelisms) |
| Trials at random moments | ${run.moments} (${MOMENTS} for each of 2 workloads × 2 backends × parallelism 1, 2, 4; ${Math.ceil(MOMENTS / 10)} for each query, backend and course), seed ${SEED} |
| Queries straight, and interrupted | ${run.straight}, and ${run.interrupted} |
| Processes killed | ${run.kills} |
| Duration | ${run.minutes.toFixed(1)} min |
| Trials with something wrong | ${run.wrong.length} |
${run.wrong.map((sentence) => `\n- ${sentence.split('\n')[0]!}`).join('')}`;
}

/** mulberry32: the same moments for the same seed. */
function generator(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
