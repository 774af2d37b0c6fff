// A process that runs the job of test/cluster/dying-job.ts in two threads. Settings come by MILLRACE_TRIAL. When the run ends it says how, as JSON.

import { memory } from 'millrace';
import { definitionOf } from '../../src/api/job.ts';
import { threadData } from '../../src/cluster/thread-data.ts';
import { Threads } from '../../src/cluster/threads.ts';
import { JobRun } from '../../src/execution/job-run.ts';
import type { JobError, RunOptions } from '../../src/graph/job.ts';
import { operatorOf } from '../../src/operators/operator-of.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { level } from '../../state-backends/index.ts';
import { jobOf } from '../e2e/workloads.ts';
import type { DyingSettings } from './dying-job.ts';

export interface ThreadsThatDie extends DyingSettings {
  readonly module: string;
  readonly entry: string;
  readonly stallMs: number;
}

const settings = JSON.parse(process.env.MILLRACE_TRIAL!) as ThreadsThatDie;
const { workload, backend, state, cacheBytes, checkpoints, every, parallelism, module, entry, stallMs } = settings;
const restarts: { code: string; uid: string | undefined; message: string }[] = [];
const definition = definitionOf(jobOf(workload, settings));
const logger = { debug: () => {}, info: () => {}, warn: console.error, error: console.error };
const options: RunOptions = {
  threads: 2,
  module,
  parallelism,
  checkpoints: { directory: checkpoints, every },
  restarts: { max: 50, within: 600_000, backoff: { initial: 10, max: 10 } },
  state: backend === 'level' ? level({ directory: state, cacheBytes: cacheBytes ?? 1 << 16 }) : memory(),
  onEvent: (event) => {
    if (event.type !== 'restart') return;
    const { code, uid, message } = event.error as JobError;
    restarts.push({ code, uid, message });
  },
  logger,
};
const io = systemIo();
const hosts = new Threads({ count: 2, entry: new URL(entry), data: threadData(definition, options, true), io, log: logger, stallMs });
const run = new JobRun(definition, options, { operators: operatorOf, hosts });
await run.start();
const { status } = await run.finished;
process.stdout.write(JSON.stringify({ status, restarts }));
