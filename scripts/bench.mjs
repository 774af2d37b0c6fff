// `npm run bench -- <name> [options]`: each benchmark in processes of its own, one after the other. Figures are JSON lines on standard output, progress and
// a summary with median and spread go to standard error. docs/benchmarks.md has the list, the options and what is measured.
//
// Workloads are read from test/bench/throughput.ts (one process a workload and run of this script); every other name is a file of test/bench.

import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const folder = join(root, 'test', 'bench');
const NEXMARK = ['q0', 'q1', 'q2', 'q3', 'q4', 'q5', 'q7', 'q8'].map((query) => `nexmark:${query}`);
const WORKLOADS = ['wc', 'wc1m', 'cpu5m', 'cpu', ...NEXMARK];
const programs = readdirSync(folder)
  .filter((name) => name.endsWith('.ts') && name !== 'throughput.ts')
  .map((name) => basename(name, '.ts'))
  .sort();

const args = process.argv.slice(2);
const from = args.findIndex((argument) => argument.startsWith('--'));
const names = from === -1 ? args : args.slice(0, from);
const options = from === -1 ? [] : args.slice(from);
const unknown = names.filter((name) => !WORKLOADS.includes(name) && !programs.includes(name));
if (unknown.length > 0) {
  console.error(`No benchmark is named ${unknown.join(', ')}. Workloads: ${WORKLOADS.join(', ')}. Others: ${programs.join(', ')}.`);
  process.exit(1);
}

let failed = false;
for (const name of names.length > 0 ? names : WORKLOADS) {
  const lines = [];
  const workload = WORKLOADS.includes(name);
  const script = workload ? [join(folder, 'throughput.ts'), name] : [join(folder, `${name}.ts`)];
  const status = await run([...script, ...options], (line) => {
    console.log(line);
    lines.push(line);
  });
  if (status !== 0) failed = true;
  else if (workload)
    summarize(
      name,
      lines.map((line) => JSON.parse(line)),
    );
}
process.exitCode = failed ? 1 : 0;

/** Runs a program; `line` is given each line of its standard output. Resolves with its exit code. */
function run(script, line) {
  const typescript = pathToFileURL(join(root, 'scripts', 'typescript.mjs')).href;
  const child = spawn(process.execPath, ['--expose-gc', '--import', typescript, ...script], { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
  createInterface({ input: child.stdout }).on('line', line);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 1));
  });
}

function summarize(name, runs) {
  const spread = (figures, digits) => {
    const sorted = figures.filter((figure) => figure !== undefined && figure !== null).sort((a, b) => a - b);
    if (sorted.length === 0) return '–';
    const median = sorted[Math.ceil(sorted.length / 2) - 1];
    return `${median.toFixed(digits)} (${sorted[0].toFixed(digits)} … ${sorted[sorted.length - 1].toFixed(digits)})`;
  };
  const of = (pick, digits) => spread(runs.map(pick), digits);
  console.error(
    `${name}, ${runs[0]?.backend}, parallelism ${runs[0]?.parallelism}, ${runs.length} runs: ${of((r) => r.eventsPerSecond / 1e6, 2)} M records/s, ` +
      `loop ÷ engine ${of((r) => r.ratio, 2)}, event loop p99 ${of((r) => r.eventLoopDelayMs.p99, 1)} ms, ` +
      `pause p99 ${of((r) => r.checkpoints.pauseMs?.p99, 1)} ms, RSS ${of((r) => r.rssPeakBytes / 2 ** 20, 0)} MiB`,
  );
}
