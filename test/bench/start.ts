// Milliseconds from start() to the first record that leaves the source, and to the first result in the sink: one JSON line. Each start is the first of a
// process of its own (`cold`); afterwards the same process starts again (`warm`). Loading the modules is stated apart.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Count, counting } from './harness/counting-sink.ts';
import { print, quantiles, tell } from './harness/figures.ts';
import { words } from './harness/inputs.ts';
import { type Departure, inMemory, observed } from './harness/measured-source.ts';

const PROCESSES = 9;
const AGAIN = 5;

interface Started {
  readonly loadMs: number;
  readonly recordMs: readonly number[];
  readonly resultMs: readonly number[];
}

async function starts(): Promise<Started> {
  const loading = performance.now();
  const { job, level } = await import('millrace');
  const loadMs = performance.now() - loading;
  const input = words(1000, 1000);
  const held = Array.from({ length: input.records }, (_, i) => input.make(i));
  const [recordMs, resultMs]: [number[], number[]] = [[], []];
  for (let i = 0; i <= AGAIN; i++) {
    const directory = mkdtempSync(join(tmpdir(), 'millrace-bench-'));
    const departure: Departure = { at: undefined };
    const count: Count = { results: 0, last: 0 };
    const begun = performance.now();
    const running = await job('first', (env) => {
      env
        .source('words', observed(inMemory(input, held, input.records, 1), departure))
        .map((w) => ({ word: w.word, count: 1 }))
        .keyBy((w) => w.word)
        .reduce('counts', (left, right) => ({ word: left.word, count: left.count + right.count }))
        .sink('results', counting(count));
    }).start({
      state: level({ directory: join(directory, 'state') }),
      checkpoints: { directory: join(directory, 'checkpoints') },
    });
    await running.finished;
    recordMs.push(departure.at! - begun);
    resultMs.push(count.first! - begun);
    rmSync(directory, { recursive: true, force: true });
  }
  return { loadMs, recordMs, resultMs };
}

if (process.argv[2] === 'once') {
  print(await starts());
} else {
  const all: Started[] = [];
  for (let i = 0; i < PROCESSES; i++) {
    const { stdout, status } = spawnSync(process.execPath, [...process.execArgv, fileURLToPath(import.meta.url), 'once'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    if (status !== 0) throw new Error('A start failed.');
    all.push(JSON.parse(stdout.toString()) as Started);
    tell(`start: ${i + 1} of ${PROCESSES} processes`);
  }
  print({
    bench: 'start',
    backend: 'level',
    processes: PROCESSES,
    coldRecordMs: quantiles(all.map((s) => s.recordMs[0]!)),
    coldResultMs: quantiles(all.map((s) => s.resultMs[0]!)),
    warmRecordMs: quantiles(all.flatMap((s) => s.recordMs.slice(1))),
    warmResultMs: quantiles(all.flatMap((s) => s.resultMs.slice(1))),
    loadMs: quantiles(all.map((s) => s.loadMs)),
  });
}
