// What threads are worth: the same job in this thread, in one other thread, and in two at parallelism 2. `threads.ts [--workloads wc,cpu5m,nexmark:q4,nexmark:q5] [--events n]
// [--runs n]`; one JSON line a workload.
//
// Records are held by each thread that reads them, so nothing but the exchange crosses. Time goes from `running` to `finished`, without checkpoints; per workload a first round
// is not counted, and the three are run in turn, so that the ratios are of the same minutes.

import { isMainThread } from 'node:worker_threads';
import { type Job, job } from 'millrace';
import { counting } from './harness/counting-sink.ts';
import { median, print, rounded, tell } from './harness/figures.ts';
import { inMemory } from './harness/measured-source.ts';
import { WORKLOADS } from './harness/workloads.ts';

const HELD = 200_000;

interface Asked {
  readonly workload: string;
  readonly events: number;
  readonly parallelism: number;
}

function jobOf({ workload: name, events, parallelism }: Asked): Job {
  const workload = WORKLOADS[name];
  if (workload === undefined) throw new Error(`No workload is named ${name}.`);
  const input = workload.input(HELD);
  // The thread that supervises only plans.
  const held = isMainThread && process.env.MILLRACE_THREADS !== '0' ? [] : Array.from({ length: input.records }, (_, i) => input.make(i));
  return job('bench', (env) => workload.build(env, inMemory(input, held, events, parallelism), counting({ results: 0, last: 0 })));
}

const given = process.env.MILLRACE_BENCH;
export default given === undefined ? undefined : jobOf(JSON.parse(given) as Asked);

async function secondsOf(asked: Asked, threads: number): Promise<number> {
  process.env.MILLRACE_BENCH = JSON.stringify(asked);
  process.env.MILLRACE_THREADS = String(threads);
  let begun = 0;
  const running = await jobOf(asked).start({
    threads,
    module: import.meta.url,
    parallelism: asked.parallelism,
    onEvent: (event) => {
      if (event.type === 'status' && event.status === 'running') begun = performance.now();
    },
  });
  await running.finished;
  return (performance.now() - begun) / 1000;
}

const WAYS = [
  { name: 'here', threads: 0, parallelism: 1 },
  { name: 'one', threads: 1, parallelism: 1 },
  { name: 'two', threads: 2, parallelism: 2 },
] as const;

if (isMainThread) {
  const option = (name: string, otherwise: string): string => {
    const at = process.argv.indexOf(`--${name}`);
    return at === -1 ? otherwise : process.argv[at + 1]!;
  };
  const events = Number(option('events', '4000000'));
  const runs = Number(option('runs', '3'));
  for (const workload of option('workloads', 'wc,cpu5m,nexmark:q4,nexmark:q5').split(',')) {
    const seconds: Record<(typeof WAYS)[number]['name'], number[]> = { here: [], one: [], two: [] };
    for (let run = 0; run <= runs; run++) {
      for (const { name, threads, parallelism } of WAYS) {
        const took = await secondsOf({ workload, events, parallelism }, threads);
        tell(`${workload} ${name}: ${rounded(events / took / 1e6)} M/s${run === 0 ? ' (not counted)' : ''}`);
        if (run > 0) seconds[name].push(took);
      }
    }
    const rate = (took: readonly number[]): number => Math.round(events / median(took));
    print({
      bench: 'threads',
      workload,
      events,
      runs,
      hereEventsPerSecond: rate(seconds.here),
      oneThreadEventsPerSecond: rate(seconds.one),
      twoThreadsEventsPerSecond: rate(seconds.two),
      twoOverOne: rounded(median(seconds.one) / median(seconds.two)),
      twoOverHere: rounded(median(seconds.here) / median(seconds.two)),
    });
  }
}
