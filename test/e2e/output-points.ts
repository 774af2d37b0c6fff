// Where a job that writes to files, or to a table of PostgreSQL, is interrupted, and how: its process is killed at a step of the sink, stopped there and goes on, or stopped
// there while another one takes its place with other writers, and goes on behind it. Used a few times by long runs, and for every step by npm run test:chaos. Every
// point gives what is wrong afterwards, as sentences: rows are read by `readdir`, or by a connection of their own, and compared as a multiset.

import { setTimeout as sleep } from 'node:timers/promises';
import { FILES_SINK_STEPS } from '../../src/connectors/files-sink.ts';
import { POSTGRES_SINK_STEPS } from '../../src/connectors/postgres/sink.ts';
import type { Database } from '../connectors/postgres/database.ts';
import { canonical } from './oracle.ts';
import { ONLY_CPU, preludeOf } from './steps.ts';
import { goesOn, NotReached, reached } from './stopping.ts';
import { FOUR, Input, Trial } from './trial.ts';
import type { Workload } from './workloads.ts';

/** What is written to, and how it is read again. */
export interface Output {
  readonly name: string;
  readonly steps: readonly string[];
  /** Whether an attempt is fenced as a whole: also those of its writers that the newer one knows nothing of. Elsewhere the registry alone keeps those from committing, of which a zombie has a copy here. */
  readonly fencesAll: boolean;
  /** A trial of its own, with what reads its rows. */
  open(step: string): Promise<{ readonly trial: Trial; readonly rows: () => Promise<string> }>;
}

export type Interruption = 'killed' | 'stopped' | 'overtaken';
export const INTERRUPTIONS: readonly Interruption[] = ['killed', 'stopped', 'overtaken'];

/** Ms between two batches of the source; slower where a run was over before it came to its step. */
const PACES = [60, 240, 1_000];

const inputs = new Map<Workload, Input>();
function inputOf(workload: Workload): Input {
  const input = inputs.get(workload) ?? new Input(workload, { records: 16_000, files: FOUR });
  inputs.set(workload, input);
  return input;
}

/** Behind all points. */
export function removeInputs(): void {
  for (const input of inputs.values()) input.remove();
  inputs.clear();
}

export const FILES: Output = {
  name: 'files',
  steps: FILES_SINK_STEPS,
  fencesAll: false,
  async open(step) {
    const trial = new Trial(inputOf(ONLY_CPU.has(step) ? 'cpu' : 'wc'), { every: 5 });
    return { trial, rows: async () => trial.rows() };
  },
};

export function postgresOutput(database: () => Database): Output {
  return {
    name: 'PostgreSQL',
    steps: POSTGRES_SINK_STEPS,
    fencesAll: true,
    async open() {
      const table = await database().table('word text, count int');
      const trial = new Trial(inputOf('wc'), { every: 5, postgres: { url: database().url, table } });
      const rows = async (): Promise<string> => canonical((await database().query(`SELECT word, count FROM ${table}`)).map((row) => JSON.stringify(row)));
      return { trial, rows };
    },
  };
}

/** At the step of the second run, so that it has something to take over; each run has another parallelism. */
export async function runPoint(output: Output, step: string, how: Interruption, turn = 0): Promise<string[]> {
  const said = `${output.name}, ${how} at ${step}`;
  for (const pace of PACES) {
    const opened = await output.open(step);
    const { trial, rows } = opened;
    try {
      const wrong = [...(await interrupt(output, opened, step, how, { turn, pace })), ...trial.wrongRows(await rows())];
      if (wrong.length === 0) trial.remove();
      return wrong.map((sentence) => `${said}: ${sentence} (${trial.folder})`);
    } catch (error) {
      trial.remove();
      if (error instanceof NotReached) continue;
      return [`${said}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`];
    }
  }
  return [`${said}: no run came to the step`];
}

async function interrupt(
  { fencesAll }: Output,
  { trial, rows }: Awaited<ReturnType<Output['open']>>,
  step: string,
  how: Interruption,
  { turn, pace }: { readonly turn: number; readonly pace: number },
): Promise<string[]> {
  const parallelism = (run: number): number => 1 + ((turn + run * 2) % 4);
  const first = await trial.run({ parallelism: parallelism(0), pace }, preludeOf(step));
  if (first.code === 0) throw new NotReached('the first run was over before anything was pending');
  if (first.signal !== 'SIGKILL') return [`the first run ended with ${first.code}\n${first.errors}`];
  if (how === 'killed') {
    const second = await trial.run({ parallelism: parallelism(1), pace }, `${step}=kill`);
    if (second.code === 0) throw new NotReached('the second run was over before it came to the step');
    if (second.signal !== 'SIGKILL') return [`the run that was to be killed ended with ${second.code}\n${second.errors}`];
    await trial.finish({ parallelism: parallelism(2) });
    return [];
  }
  // What was overtaken may not begin again: in a cluster it would not be the leader.
  const begun = trial.begin({ parallelism: parallelism(1), pace, withoutRestarts: how === 'overtaken' }, `${step}=stop`);
  try {
    await reached(begun);
    if (how === 'stopped') {
      await sleep(200);
      const { code, said, errors } = await goesOn(begun);
      return code === 0 && said?.status === 'finished' ? [] : [`the process that was stopped ended with ${code}\n${errors}`];
    }
    const successors = fencesAll ? parallelism(2) : parallelism(1) + 1;
    await trial.finish({ parallelism: successors, checkpoints: trial.copyCheckpoints('taken-over') });
    const { code, signal, errors } = await goesOn(begun);
    // Whatever it still had to write must have been refused. Where it had nothing left, that says nothing; its rows are looked at all the same.
    if (code === 0 && trial.wrongRows(await rows()).length === 0) throw new NotReached('the zombie had nothing left to write');
    return signal === null && code !== 0 ? [] : [`the zombie ended with ${signal ?? code}\n${errors}`];
  } finally {
    begun.process.kill('SIGKILL');
  }
}
