// Pauses of checkpoints with a million changed keys in each interval, over at least a hundred barriers: one JSON line a backend.
// `pause.ts [--backend memory|level] [--events barriers] [--cache 512MiB]`; without --backend both are measured.
//
// A source gives every key once between two barriers, in an order of its own each time, and asks for the next checkpoint when it has and the one before is
// complete; records go on while it is encoded and written. `pauseMs` is the longest uninterrupted stretch of checkpoint work in a task.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { type CheckpointInfo, job, level, memory, type RunningJob, type Source } from 'millrace';
import { type Count, counting } from './harness/counting-sink.ts';
import { delays, print, quantiles, rounded, tell } from './harness/figures.ts';
import { settingsOf } from './harness/settings.ts';

const KEYS = 1 << 20;
const BATCH = 1024;
const NEVER = 2 ** 31 - 1;

interface Keyed {
  key: number;
  count: number;
}

async function measure(backend: 'memory' | 'level', barriers: number, cacheBytes: number): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-bench-'));
  const checkpoints: (CheckpointInfo & { pauseMs?: number })[] = [];
  let tellJob: (running: RunningJob) => void = () => {};
  const started = new Promise<RunningJob>((resolve) => {
    tellJob = resolve;
  });
  const source: Source<Keyed, string, number> = {
    bounded: true,
    splits: async () => ['keys'],
    splitId: (split) => split,
    async *read() {
      const running = await started;
      let pending: Promise<unknown> | undefined;
      for (let barrier = 0; barrier <= barriers; barrier++) {
        // An odd step goes through all keys before one comes again.
        const step = 2 * barrier + 7919;
        for (let i = 0; i < KEYS; i += BATCH) {
          const values: Keyed[] = [];
          for (let j = i; j < i + BATCH; j++) values.push({ key: Math.imul(j, step) & (KEYS - 1), count: 1 });
          yield { values, position: barrier };
        }
        await pending;
        pending = running.checkpoint();
        if (barrier % 10 === 0) tell(`pause, ${backend}: ${barrier} of ${barriers} barriers`);
      }
      await pending;
    },
  };
  const count: Count = { results: 0, last: 0 };
  const delay = monitorEventLoopDelay({ resolution: 1 });
  const begun = performance.now();
  try {
    const running = await job('pause', (env) => {
      env
        .source('keys', source)
        .keyBy((record) => record.key)
        .reduce('counts', (left, right) => ({ key: left.key, count: left.count + right.count }))
        .sink('results', counting(count));
    }).start({
      state: backend === 'memory' ? memory() : level({ directory: join(directory, 'state'), cacheBytes }),
      checkpoints: { directory: join(directory, 'checkpoints'), every: NEVER },
      restore: 'none',
      onEvent: (event) => {
        if (event.type !== 'checkpoint') return;
        // The first interval fills the table; it is the warm-up.
        if (event.checkpoint.id === 1) delay.enable();
        else checkpoints.push(event.checkpoint);
      },
    });
    tellJob(running);
    await running.finished;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  delay.disable();
  // The last checkpoint is that of the end, with nothing changed.
  const measured = checkpoints.slice(0, barriers);
  print({
    bench: 'pause',
    backend,
    changedKeys: KEYS,
    barriers: measured.length,
    pauseMs: quantiles(measured.flatMap((c) => (c.pauseMs === undefined ? [] : [c.pauseMs]))),
    durationMs: quantiles(measured.map((c) => c.durationMs)),
    bytes: measured[measured.length - 1]?.bytes,
    eventLoopDelayMs: delays(delay, 1),
    recordsPerSecond: Math.round((count.results * 1000) / (count.last - begun)),
    seconds: rounded((count.last - begun) / 1000),
  });
}

const args = process.argv.slice(2);
const settings = settingsOf(args);
for (const backend of args.includes('--backend') ? [settings.backend] : (['memory', 'level'] as const))
  await measure(backend, settings.events ?? 100, settings.cacheBytes);
