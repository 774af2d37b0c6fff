// Not in npm test. npm run test:chaos: a job that writes to files, and one that writes to PostgreSQL, killed at every step of its sink, stopped there, and stopped while
// another process takes its place with other writers. Writes docs/chaos-outputs.md.
//
// MILLRACE_OUTPUT_CHAOS=6 does that many of them, spread over all, and writes nothing.

import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem, type } from 'node:os';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Database } from '../connectors/postgres/database.ts';
import { FILES, INTERRUPTIONS, postgresOutput, removeInputs, runPoint } from '../e2e/output-points.ts';
import { ensureBuilt } from '../e2e/trial.ts';
import { NO_POSTGRES } from '../services/postgres.ts';

const BY_SCRIPT = process.env.npm_lifecycle_event === 'test:chaos';
const WANTED = process.env.MILLRACE_OUTPUT_CHAOS;
const LOG = fileURLToPath(new URL('../../docs/chaos-outputs.md', import.meta.url));

let database: Database | undefined;
beforeAll(async () => {
  if (!BY_SCRIPT && WANTED === undefined) return;
  ensureBuilt();
  if (!NO_POSTGRES) database = await Database.open();
}, 180_000);
afterAll(async () => {
  removeInputs();
  await database?.close();
});

it.runIf(BY_SCRIPT || WANTED !== undefined)(
  'killed, stopped and overtaken at every step of its sink, a job writes every row once',
  { timeout: 7_200_000 },
  async () => {
    const begun = Date.now();
    const outputs = database === undefined ? [FILES] : [FILES, postgresOutput(() => database!)];
    const all = outputs.flatMap((output) => output.steps.flatMap((step) => INTERRUPTIONS.map((how) => ({ output, step, how }))));
    const count = Math.min(all.length, Number(WANTED ?? all.length));
    const wrong: string[] = [];
    const done = new Map<string, string[]>();
    for (let turn = 0; turn < count; turn++) {
      const { output, step, how } = all[Math.floor((turn * all.length) / count)]!;
      wrong.push(...(await runPoint(output, step, how, turn)));
      const row = `${output.name} | \`${step}\``;
      done.set(row, [...(done.get(row) ?? []), how]);
    }
    if (WANTED === undefined) writeFileSync(LOG, page(done, wrong, (Date.now() - begun) / 60_000));
    expect(wrong).toEqual([]);
  },
);

function page(done: ReadonlyMap<string, readonly string[]>, wrong: readonly string[], minutes: number): string {
  return `# Chaos: files and PostgreSQL

Written by \`npm run test:chaos\` (test/chaos/outputs.test.ts). In each trial a job that counts words has left a checkpoint with something to commit; its second process, with
another number of writers, is *killed* at the step (SIGKILL; a third one finishes), *stopped* there (SIGSTOP; it goes on), or *overtaken*: stopped while a third process, with another
number of writers again, finishes the job, and then let go on: it must end with an error and may write nothing. In the end every row is there exactly once, which is looked up without the engine.

${wrong.length === 0 ? 'Nothing was wrong.' : wrong.map((sentence) => `- ${sentence.split('\n')[0]}`).join('\n')}

${Math.round(minutes)} minutes, ${type()}, ${availableParallelism()} × ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GB, Node ${process.version}.

| written to | step | |
|---|---|---|
${[...done].map(([row, how]) => `| ${row} | ${how.join(', ')} |`).join('\n')}
`;
}
