// A process that runs a workload, from its newest checkpoint on, and is killed on its way by MILLRACE_FAULTS or from outside. Its one argument is its
// settings; when its run ends by itself it says how, as JSON.

import { level, memory } from 'millrace';
import { type S3Options, s3 } from 'millrace/storage';
import { jobOf, type Places, type Workload } from './workloads.ts';

export interface Settings extends Places {
  readonly workload: Workload;
  readonly checkpoints: string;
  /** Where the bytes of checkpoints go instead. */
  readonly s3?: S3Options;
  readonly tolerate?: number;
  /** The directory of level(). */
  readonly state: string;
  readonly backend: 'memory' | 'level';
  readonly parallelism: number;
  readonly every: number;
  readonly pace: number;
  readonly unaligned?: boolean | { readonly after: number } | undefined;
  /** How much level() keeps in memory: little, so that rows go to disk. */
  readonly cacheBytes?: number;
  /** Whatever fails ends it. */
  readonly withoutRestarts?: boolean;
  /** stop() once this many checkpoints are complete. */
  readonly stopAfter?: number;
}

const settings = JSON.parse(process.argv[2]!) as Settings;
let checkpoints = 0;
const running = await jobOf(settings.workload, settings).start({
  parallelism: settings.parallelism,
  checkpoints: {
    directory: settings.checkpoints,
    every: settings.every,
    ...(settings.s3 === undefined ? {} : { storage: s3(settings.s3) }),
    ...(settings.tolerate === undefined ? {} : { tolerate: settings.tolerate }),
    ...(settings.unaligned === undefined ? {} : { unaligned: settings.unaligned }),
  },
  state: settings.backend === 'level' ? level({ directory: settings.state, cacheBytes: settings.cacheBytes ?? 1 << 20 }) : memory(),
  ...(settings.withoutRestarts === true ? { restarts: false } : {}),
  onEvent: (event) => {
    if (event.type !== 'checkpoint') return;
    checkpoints += 1;
    // The first event may come while start() is still under way.
    if (checkpoints === settings.stopAfter) setImmediate(() => void running.stop());
  },
  logger: { ...console, debug: () => {}, info: () => {}, warn: console.error, error: console.error },
});
const { status } = await running.finished;
process.stdout.write(JSON.stringify({ status, checkpoints }));
