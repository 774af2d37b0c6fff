// State larger than its heap: how long checkpoints hold it up, what they store, how long a restore takes. Prints one JSON line.
// `large-state.ts [--keys 10000000] [--heap 512] [--cache 96] [--every 5000] [--rounds 20]`: MiB, MiB, ms, checkpoints with one in a hundred keys changed.
//
// One process with that heap gives every key once and then a quarter of them again, at full speed, with checkpoints meanwhile (`full`); then, for each of the rounds,
// changes one key in a hundred, chosen at random, and waits for a checkpoint (`few`). Processes with the same heap then restore what it has left, at parallelism 1
// and 2 (`restore`), and count the rows. Bytes are those of files as they lie in the checkpoint directory, each counted once, by kind.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { type CheckpointInfo, job, level, type RunOptions, type Source } from 'millrace';
import { delays, print, quantiles, rounded, tell } from './harness/figures.ts';

interface Options {
  readonly keys: number;
  readonly heap: number;
  readonly cache: number;
  readonly every: number;
  readonly rounds: number;
}

interface Item {
  readonly key: number;
  readonly n: number;
  readonly text: string;
}

const BATCH = 1000;
const TEXT = 'a customer who has bought something and is going to buy more of it '.slice(0, 60);
const item = (key: number): Item => ({ key, n: 1, text: TEXT });

function program(source: Source<Item, string, number>) {
  return job('large-state', (env) => {
    env
      .source('items', source)
      .keyBy(({ key }) => key)
      .reduce('latest', (left, right) => ({ key: left.key, n: left.n + right.n, text: left.text }))
      .forEach('out', () => {});
  });
}

function optionsOf(directory: string, { cache, every }: Options): RunOptions {
  return {
    state: level({ directory: join(directory, 'state'), cacheBytes: cache << 20 }),
    checkpoints: { directory: join(directory, 'checkpoints'), every, retain: 2 },
  };
}

/** Sizes of files by kind, each noted when it is seen first. */
class Files {
  readonly #folder: string;
  readonly #seen = new Map<string, number>();

  constructor(directory: string) {
    this.#folder = join(directory, 'checkpoints', 'large-state', 'files');
  }

  look(): void {
    for (const name of readdirSync(this.#folder)) {
      if (name.startsWith('.') || this.#seen.has(name)) continue;
      try {
        this.#seen.set(name, statSync(join(this.#folder, name)).size);
      } catch (error) {
        if ((error as { code?: string }).code !== 'ENOENT') throw error;
      }
    }
  }

  get bytes(): { deltas: number; bases: number; baseFiles: number } {
    const of = (prefix: RegExp): number[] => [...this.#seen].filter(([name]) => prefix.test(name)).map(([, size]) => size);
    const sum = (sizes: number[]): number => sizes.reduce((total, size) => total + size, 0);
    const bases = of(/^(linked|base)-/);
    return { deltas: sum(of(/^delta-/)), bases: sum(bases), baseFiles: bases.length };
  }
}

async function build(directory: string, options: Options): Promise<void> {
  const { keys, rounds } = options;
  const files = new Files(directory);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  type Taken = CheckpointInfo & { pauseMs?: number };
  const taken: Taken[] = [];
  let complete: () => void = () => {};
  const next = (): Promise<void> => new Promise((resolve) => (complete = resolve));
  let fullMs = 0;
  let after = { bytes: { deltas: 0, bases: 0, baseFiles: 0 }, checkpoints: 0 };
  let fewFrom = 0;
  let done: () => void = () => {};
  const finished = new Promise<void>((resolve) => (done = resolve));
  let heap = 0;
  const begun = performance.now();
  const source: Source<Item, string, number> = {
    bounded: false,
    splits: async () => ['items'],
    splitId: (split) => split,
    async *read(_split, from = 0) {
      for (let at = from; at < keys * 1.25; at += BATCH) {
        yield { values: Array.from({ length: BATCH }, (_, i) => item(at < keys ? at + i : Math.floor(Math.random() * keys))), position: at + BATCH };
        if (at % 1_000_000 === 0) tell(`large-state: ${at / 1e6} M records after ${rounded((performance.now() - begun) / 1000)} s`);
      }
      fullMs = performance.now() - begun;
      await next();
      after = { bytes: files.bytes, checkpoints: taken.length };
      fewFrom = taken.length;
      for (let round = 0; round < rounds; round++) {
        const values = Array.from({ length: Math.ceil(keys / 100) }, () => item(Math.floor(Math.random() * keys)));
        for (let i = 0; i < values.length; i += BATCH) yield { values: values.slice(i, i + BATCH), position: keys * 2 };
        await next();
      }
      done();
      await new Promise(() => {});
    },
  };
  const running = await program(source).start({
    ...optionsOf(directory, options),
    onEvent: (event) => {
      if (event.type === 'checkpoint-failed' || event.type === 'restart') tell(`large-state: ${event.type}: ${event.error.message}`);
      if (event.type !== 'checkpoint') return;
      taken.push(event.checkpoint);
      files.look();
      heap = Math.max(heap, process.memoryUsage().heapUsed);
      complete();
    },
  });
  delay.enable();
  await finished;
  delay.disable();
  const stats = (await running.metrics()).filter(({ name }) => name === 'stateRows' || name === 'stateWriteMs' || name === 'stateStallMs');
  const total = files.bytes;
  const pauses = (some: readonly Taken[]) => quantiles(some.flatMap(({ pauseMs }) => (pauseMs === undefined ? [] : [pauseMs])));
  const last = taken[taken.length - 1]!;
  await running.stop();
  process.stdout.write(
    JSON.stringify({
      full: {
        records: keys * 1.25,
        seconds: rounded(fullMs / 1000),
        recordsPerSecond: Math.round((keys * 1.25 * 1000) / fullMs),
        checkpoints: after.checkpoints,
        pauseMs: pauses(taken.slice(0, fewFrom)),
        durationMs: quantiles(taken.slice(0, fewFrom).map(({ durationMs }) => durationMs)),
        stored: after.bytes,
      },
      few: {
        checkpoints: taken.length - fewFrom,
        changedKeys: Math.ceil(keys / 100),
        pauseMs: pauses(taken.slice(fewFrom)),
        durationMs: quantiles(taken.slice(fewFrom).map(({ durationMs }) => durationMs)),
        stored: {
          deltas: total.deltas - after.bytes.deltas,
          bases: total.bases - after.bytes.bases,
          baseFiles: total.baseFiles - after.bytes.baseFiles,
        },
      },
      checkpointBytes: last.bytes,
      eventLoopDelayMs: delays(delay, 1),
      heapUsedPeak: heap,
      rssPeak: process.resourceUsage().maxRSS * 1024,
      ...Object.fromEntries(stats.map(({ name, value }) => [name, value])),
    }),
  );
}

async function restore(directory: string, options: Options, parallelism: number): Promise<void> {
  const source: Source<Item, string, number> = {
    bounded: false,
    splits: async () => ['items'],
    splitId: (split) => split,
    async *read() {
      await new Promise(() => {});
    },
  };
  const begun = performance.now();
  const running = await program(source).start({ ...optionsOf(directory, { ...options, every: 2 ** 31 - 1 }), parallelism });
  const seconds = (performance.now() - begun) / 1000;
  const rows = (await running.metrics()).filter(({ name }) => name === 'stateRows').reduce((sum, { value }) => sum + value, 0);
  await running.stop();
  process.stdout.write(JSON.stringify({ parallelism, seconds: rounded(seconds), rows, rssPeak: process.resourceUsage().maxRSS * 1024 }));
}

/** In a process with that heap; what it says last. */
function child(heap: number, ...args: string[]): unknown {
  const flags = process.execArgv.filter((flag) => !flag.startsWith('--max-old-space-size'));
  const { status, signal, stdout } = spawnSync(process.execPath, [`--max-old-space-size=${heap}`, ...flags, fileURLToPath(import.meta.url), ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 1 << 26,
  });
  if (status !== 0) throw new Error(`${args[0]} ended with ${signal ?? status}.`);
  return JSON.parse(stdout);
}

const args = process.argv.slice(2);
if (args[0] === 'build') await build(args[1]!, JSON.parse(args[2]!) as Options);
else if (args[0] === 'restore') await restore(args[1]!, JSON.parse(args[2]!) as Options, Number(args[3]));
else {
  const given = new Map<string, number>();
  for (let i = 0; i < args.length; i += 2) given.set(args[i]!.slice(2), Number(args[i + 1]));
  const take = (name: string, otherwise: number): number => given.get(name) ?? otherwise;
  const options: Options = {
    keys: take('keys', 10_000_000),
    heap: take('heap', 512),
    cache: take('cache', 96),
    every: take('every', 5000),
    rounds: take('rounds', 20),
  };
  const directory = mkdtempSync(join(tmpdir(), 'millrace-large-'));
  try {
    const built = child(options.heap, 'build', directory, JSON.stringify(options)) as object;
    const restored = [1, 2].map((parallelism) => child(options.heap, 'restore', directory, JSON.stringify(options), String(parallelism)));
    print({ bench: 'large-state', ...options, ...built, restore: restored });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
