import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem, type } from 'node:os';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, it } from 'vitest';
import { SAVEPOINT_STEPS, STEPS } from '../e2e/steps.ts';
import { ensureBuilt } from '../e2e/trial.ts';
import { KEYS } from './state-model.ts';
import { Lane, newTally, type Tally } from './state-rounds.ts';

// Not in npm test. npm run test:chaos: 200 rounds, whose log is docs/chaos-state.md; .ci/run: a tenth of them. MILLRACE_STATE_CHAOS asks for another number, and
// MILLRACE_CHAOS_SEED repeats the rounds of a run.
const ASKED_FOR = process.env.npm_lifecycle_event === 'test:chaos' || process.env.MILLRACE_STATE_CHAOS !== undefined;
const ROUNDS = Number(process.env.MILLRACE_STATE_CHAOS ?? 200);
const SEED = Number(process.env.MILLRACE_CHAOS_SEED ?? Date.now() % 1_000_000);
const LANES = 2;
const LOG = fileURLToPath(new URL('../../docs/chaos-state.md', import.meta.url));

beforeAll(() => {
  if (ASKED_FOR) ensureBuilt();
}, 180_000);

it.runIf(ASKED_FOR)(
  `${ROUNDS} rounds of SIGKILL with ${KEYS} keys: none is lost, none comes back, nothing is left behind`,
  { timeout: 7_200_000 },
  async () => {
    const begun = Date.now();
    const tally = newTally();
    let left = ROUNDS;
    await Promise.all(
      Array.from({ length: LANES }, async (_, lane) => {
        const one = new Lane(SEED + lane * 1000, tally);
        while (left > 0) {
          left -= 1;
          if (!(await one.round())) return;
        }
        await one.finish();
      }),
    );
    const seconds = (Date.now() - begun) / 1000;
    console.log(summary(tally, seconds));
    if (ROUNDS >= 50) writeFileSync(LOG, page(tally, seconds));
    expect(tally.wrong).toEqual([]);
    expect(tally.rounds).toBe(ROUNDS);
  },
);

function summary({ rounds, steps, moments, compared, based, bases, rows, wrong }: Tally, seconds: number): string {
  const at = [...steps.values()].reduce((sum, n) => sum + n, 0);
  return `State chaos: ${rounds} rounds with ${KEYS} keys, killed ${at} times at ${steps.size} named steps and ${moments} times at random; ${compared} keys (${based} times with bases, of which there were ${bases.size}) and ${rows} rows compared, ${wrong.length} wrong; ${(seconds / rounds).toFixed(1)} s a round, seed ${SEED}.`;
}

function page(tally: Tally, seconds: number): string {
  const { rounds, steps, moments, failures, compared, based, bases, operations, rows, wrong } = tally;
  const all = [...STEPS.map(({ name }) => name), ...SAVEPOINT_STEPS];
  const at = [...steps.values()].reduce((sum, n) => sum + n, 0);
  return `# Killed, and every key where it was

\`npm run test:chaos\` keeps ${KEYS.toLocaleString('en')} keys in jobs of their own (\`test/chaos/state-model.ts\`): a value, a list, a map and a timer each, which are changed in place, emptied,
dropped, made again and expire. Each round starts a process from the newest checkpoint, with \`memory()\` or with \`level()\` and a small cache, at another parallelism; it takes
checkpoints and bases, now and then a savepoint, is rescaled, or stops with a savepoint that the next one claims; and it ends with SIGKILL, at a named step or at some moment.

Asked behind each kill, of the newest checkpoint as its files have it: does every key hold what follows from the position to which the input was read? Is any there that should
be gone? Is every published row there once, and right? And at each start: is there a file of an older attempt that no checkpoint names?

This page is written by the run.

| | |
| --- | --- |
| Date | ${new Date().toISOString().slice(0, 10)} |
| Machine | ${cpus()[0]?.model.trim()}, ${availableParallelism()} cores, ${Math.round(totalmem() / 2 ** 30)} GB, ${type()} ${release()}, Node ${process.version} |
| Rounds | ${rounds}, in ${LANES} jobs at once, seed ${SEED} |
| Killed at named steps | ${at}, at ${steps.size} of ${all.length} |
| Killed at random moments | ${moments} |
| Rounds in which a step failed first, so that the job restarted by itself | ${failures} |
| Operations | ${operations.toLocaleString('en')} |
| Keys compared | ${compared.toLocaleString('en')}, in ${compared / KEYS} checkpoints and savepoints, of which ${based} had bases |
| Bases | ${bases.size} |
| Published rows compared | ${rows.toLocaleString('en')} |
| Duration | ${(seconds / 60).toFixed(1)} min, ${(seconds / rounds).toFixed(1)} s a round |
| Wrong | ${wrong.length} |

| step | killed there |
| --- | --- |
${all.map((name) => `| \`${name}\` | ${steps.get(name) ?? 0} |`).join('\n')}
${wrong.map((sentence) => `\n- ${sentence.split('\n')[0]!}`).join('')}`;
}
