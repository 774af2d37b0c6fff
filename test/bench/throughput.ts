// Records a second of the workloads: one JSON line a run on standard output, progress on standard error. `throughput.ts <workload> [options]`.
//
// Time goes from the first record that leaves the source to the last result that reaches the sink. Beside each run, in the same process and over the same
// records, the hand-written loop: `ratio` is how many times faster it is. A warm-up run is not printed. docs/benchmarks.md says what is measured and
// what is not.

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { type CheckpointInfo, job, level, memory, type RunOptions, type Source } from 'millrace';
import { files } from 'millrace/connectors';
import { type Count, counting } from './harness/counting-sink.ts';
import { delays, print, quantiles, rounded, tell } from './harness/figures.ts';
import type { Input } from './harness/inputs.ts';
import { type Departure, inMemory, observed } from './harness/measured-source.ts';
import { type Settings, settingsOf } from './harness/settings.ts';
import { type Batches, WORKLOADS, type Workload } from './harness/workloads.ts';

const RECORDS = 1_000_000;
/** A run that is not told how many records takes about so long. */
const SECONDS = 4;
const RESOLUTION = 1;
const RSS_EVERY_MS = 20;

interface Reading {
  /** Makes what a source of so many records reads, where that is not there yet. */
  prepare(events: number, parallelism: number): Promise<void>;
  source(events: number, parallelism: number): Source<unknown>;
  readonly recordsPerPass: number | undefined;
}

const scratch = mkdtempSync(join(tmpdir(), 'millrace-bench-'));

/** Record i goes into file i mod p, a line each. */
async function writeFiles<T>(input: Input<T>, paths: readonly string[], events: number): Promise<void> {
  const outputs = await Promise.all(paths.map((path) => open(path, 'w')));
  try {
    for (let i = 0; i < events; ) {
      const lines: string[][] = paths.map(() => []);
      for (const end = Math.min(events, i + 8192); i < end; i++) lines[i % paths.length]!.push(`${JSON.stringify(input.make(i))}\n`);
      for (const [n, output] of outputs.entries()) await output.write(lines[n]!.join(''));
    }
  } finally {
    for (const output of outputs) await output.close();
  }
}

function readingOf(workload: Workload<unknown>, settings: Settings): Reading {
  if (settings.source === 'memory') {
    const input = workload.input(RECORDS);
    const { records } = input;
    const held = Array.from({ length: records }, (_, i) => input.make(i));
    return {
      prepare: async () => {},
      source: (events, parallelism) => inMemory(input, held, events, parallelism) as Source<unknown>,
      recordsPerPass: records,
    };
  }
  const written = new Set<string>();
  const folder = (events: number, parallelism: number): string => join(scratch, `input-${events}-${parallelism}`);
  return {
    async prepare(events, parallelism) {
      const directory = folder(events, parallelism);
      if (written.has(directory)) return;
      tell(`${workload.name}: writing ${events} records`);
      mkdirSync(directory);
      const paths = Array.from({ length: parallelism }, (_, n) => join(directory, `${n}.ndjson`));
      await writeFiles(workload.input(events), paths, events);
      written.add(directory);
    },
    source: (events, parallelism) => files.source<unknown>({ path: folder(events, parallelism) }) as Source<unknown>,
    recordsPerPass: undefined,
  };
}

interface Run {
  readonly seconds: number;
  readonly results: number;
  readonly checkpoints: readonly (CheckpointInfo & { pauseMs?: number })[];
  readonly failedCheckpoints: number;
  readonly eventLoopDelayMs: object;
  readonly rssPeakBytes: number;
  readonly cpuSeconds: number;
}

let runs = 0;

async function runJob(workload: Workload<unknown>, settings: Settings, source: Source<unknown>): Promise<Run> {
  runs += 1;
  const directory = join(scratch, `run-${runs}`);
  const count: Count = { results: 0, last: 0 };
  const checkpoints: CheckpointInfo[] = [];
  let failedCheckpoints = 0;
  let rssPeakBytes = 0;
  const look = (): void => {
    rssPeakBytes = Math.max(rssPeakBytes, process.memoryUsage.rss());
  };
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION });
  const departure: Departure = { at: undefined, onFirst: () => delay.enable() };
  const options: RunOptions = {
    parallelism: settings.parallelism,
    state: settings.backend === 'memory' ? memory() : level({ directory: join(directory, 'state'), cacheBytes: settings.cacheBytes }),
    checkpoints: settings.checkpoint === undefined ? false : { directory: join(directory, 'checkpoints'), every: settings.checkpoint },
    restore: 'none',
    onEvent(event) {
      if (event.type === 'checkpoint') checkpoints.push(event.checkpoint);
      if (event.type === 'checkpoint-failed') failedCheckpoints += 1;
    },
  };
  const watch = setInterval(look, RSS_EVERY_MS);
  const cpu = cpuClock();
  try {
    await job(workload.name.replace(':', '-'), (env) => workload.build(env, observed(source, departure), counting(count))).run(options);
    delay.disable();
    look();
  } finally {
    clearInterval(watch);
    rmSync(directory, { recursive: true, force: true });
  }
  return {
    seconds: (count.last - departure.at!) / 1000,
    results: count.results,
    checkpoints,
    failedCheckpoints,
    eventLoopDelayMs: delays(delay, RESOLUTION),
    rssPeakBytes,
    cpuSeconds: cpu(),
  };
}

/** Seconds of processor time since it was called, of all threads of this process. */
function cpuClock(): () => number {
  const since = process.cpuUsage();
  return () => {
    const { user, system } = process.cpuUsage(since);
    return (user + system) / 1e6;
  };
}

async function runLoop(workload: Workload<unknown>, source: Source<unknown>): Promise<{ seconds: number; results: number; cpuSeconds: number }> {
  const count: Count = { results: 0, last: 0 };
  const { write } = counting(count);
  const context = { signal: new AbortController().signal } as Parameters<Source<unknown>['splits']>[0] & Parameters<Source<unknown>['read']>[2];
  const departure: Departure = { at: undefined };
  const watched = observed(source, departure);
  const cpu = cpuClock();
  const [split] = (await watched.splits(context)) as unknown[];
  await workload.loop(watched.read(split, undefined, context) as Batches<unknown>, write);
  return { seconds: (count.last - departure.at!) / 1000, results: count.results, cpuSeconds: cpu() };
}

async function bench(workload: Workload<unknown>, settings: Settings): Promise<void> {
  const { parallelism, backend } = settings;
  const reading = readingOf(workload, settings);
  const collect = (globalThis as { gc?: () => void }).gc ?? (() => {});

  // Warm-up: at least one pass, and so many that a run at that speed takes long enough. The first are slower than what follows.
  let events = settings.events ?? RECORDS;
  for (;;) {
    await reading.prepare(events, parallelism);
    const { seconds } = await runJob(workload, settings, reading.source(events, parallelism));
    tell(`${workload.name}: warm-up, ${events} records in ${rounded(seconds)} s`);
    if (settings.events !== undefined) break;
    const wanted = Math.ceil((events * SECONDS) / seconds / RECORDS) * RECORDS;
    if (seconds >= SECONDS * 0.4) {
      events = Math.max(events, wanted);
      break;
    }
    events = Math.min(wanted, events * 20);
  }
  await reading.prepare(events, parallelism);
  if (settings.loop) await reading.prepare(events, 1);
  for (let run = 1; run <= settings.runs; run++) {
    collect();
    const ran = await runJob(workload, settings, reading.source(events, parallelism));
    collect();
    const loop = settings.loop ? await runLoop(workload, reading.source(events, 1)) : undefined;
    if (loop !== undefined && loop.results !== ran.results)
      throw new Error(`${workload.name}: the program gave ${ran.results} results and the loop ${loop.results}.`);
    const eventsPerSecond = events / ran.seconds;
    const loopEventsPerSecond = loop === undefined ? undefined : events / loop.seconds;
    const pauses = ran.checkpoints.flatMap((c) => (c.pauseMs === undefined ? [] : [c.pauseMs]));
    print({
      workload: workload.name,
      backend,
      ...(backend === 'level' ? { cacheBytes: settings.cacheBytes } : {}),
      parallelism,
      source: settings.source,
      run,
      events,
      results: ran.results,
      seconds: rounded(ran.seconds, 3),
      eventsPerSecond: Math.round(eventsPerSecond),
      cpuSeconds: rounded(ran.cpuSeconds, 3),
      checkpoints: {
        every: settings.checkpoint,
        count: ran.checkpoints.length,
        failed: ran.failedCheckpoints,
        durationMs: quantiles(ran.checkpoints.map((c) => c.durationMs)),
        pauseMs: quantiles(pauses),
      },
      eventLoopDelayMs: ran.eventLoopDelayMs,
      rssPeakBytes: ran.rssPeakBytes,
      recordsPerPass: reading.recordsPerPass ?? events,
      passes: rounded(events / (reading.recordsPerPass ?? events)),
      loopEventsPerSecond: loopEventsPerSecond === undefined ? undefined : Math.round(loopEventsPerSecond),
      loopCpuSeconds: loop === undefined ? undefined : rounded(loop.cpuSeconds, 3),
      ratio: loopEventsPerSecond === undefined ? undefined : rounded(loopEventsPerSecond / eventsPerSecond),
    });
  }
}

const [name, ...rest] = process.argv.slice(2);
const workload = WORKLOADS[name ?? ''];
if (workload === undefined) throw new Error(`There is no workload '${name}'; there are ${Object.keys(WORKLOADS).join(', ')}.`);
try {
  await bench(workload, settingsOf(rest));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
