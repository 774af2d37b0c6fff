// One trial of a workload: folders of its own, runs of the job in this process or in one that may be killed, and the questions asked at the end.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { s3 as storageS3 } from 'millrace/storage';
import { bundled } from '../bundled.ts';
import type { Settings } from './job-process.ts';
import { kept } from './kept.ts';
import { canonical, expectedOf, inputOf, referenceOf, updatesOf } from './oracle.ts';
import { outputsOf, type Workload } from './workloads.ts';

const program = fileURLToPath(new URL('./job-process.ts', import.meta.url));

/** Child processes run what is built. */
export function ensureBuilt(): void {
  const { status, stderr } = spawnSync(process.execPath, [fileURLToPath(new URL('../../scripts/ensure.mjs', import.meta.url))], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
}

/** Shares of the input in four files: unlike, so that their ends fall at different times. */
export const FOUR = [0.5, 0.3, 0.15, 0.05];

export interface Expected {
  readonly final: string;
  /** Of wc: every row, updates included. */
  readonly updates: string | undefined;
}

/** An input in a folder, in files with these shares of it, and what it must give. */
export class Input {
  readonly workload: Workload;
  readonly records: number;
  readonly folder: string;
  readonly expected: Expected;

  constructor(workload: Workload, options: { records?: number; files?: readonly number[] } = {}) {
    const { records = 100_000, files = [1] } = options;
    const lines = inputOf(workload, records);
    this.workload = workload;
    this.records = records;
    this.folder = mkdtempSync(join(tmpdir(), 'millrace-input-'));
    let from = 0;
    for (const [index, share] of files.entries()) {
      const to = index + 1 === files.length ? lines.length : from + Math.floor(lines.length * share);
      writeFileSync(join(this.folder, `part-${index}.ndjson`), `${lines.slice(from, to).join('\n')}\n`);
      from = to;
    }
    this.expected = {
      final: records === 100_000 ? referenceOf(workload) : expectedOf(workload, lines),
      updates: workload === 'wc' ? updatesOf(lines) : undefined,
    };
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export interface Ended {
  readonly signal: NodeJS.Signals | null;
  readonly code: number | null;
  readonly errors: string;
  /** What the process said when its run ended by itself. */
  readonly said: { readonly status: string; readonly checkpoints: number; readonly restoredFrom: number | undefined } | undefined;
}

export class Trial {
  readonly input: Input;
  readonly folder: string;
  readonly settings: Settings;

  constructor(input: Input, settings: Partial<Settings> = {}) {
    this.input = input;
    this.folder = mkdtempSync(join(tmpdir(), 'millrace-trial-'));
    const { workload } = input;
    this.settings = {
      workload,
      input: input.folder,
      output: join(this.folder, 'out'),
      checkpoints: join(this.folder, 'checkpoints'),
      state: join(this.folder, 'state'),
      backend: 'memory',
      parallelism: 1,
      every: 20,
      pace: 0,
      ...settings,
    };
    mkdirSync(this.settings.state);
  }

  /** Runs the job in a process of its own, with faults set. */
  begin(settings: Partial<Settings> = {}, faults = ''): { process: ChildProcess; ended: Promise<Ended> } {
    const child = spawn(process.execPath, [bundled(program), JSON.stringify({ ...this.settings, ...settings })], {
      env: { ...process.env, MILLRACE_FAULTS: faults },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let out = '';
    let errors = '';
    child.stdout.on('data', (data) => (out += data));
    child.stderr.on('data', (data) => (errors += data));
    const ended = new Promise<Ended>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code, signal) => resolve({ signal, code, errors, said: out === '' ? undefined : JSON.parse(out) }));
    });
    return { process: child, ended };
  }

  run(settings: Partial<Settings> = {}, faults = ''): Promise<Ended> {
    return this.begin(settings, faults).ended;
  }

  /** Without faults, to the end. */
  async finish(settings: Partial<Settings> = {}): Promise<void> {
    const { signal, code, errors, said } = await this.run({ ...settings, pace: 0 });
    if (signal !== null || code !== 0 || said?.status !== 'finished')
      throw new Error(`The last run ended with ${signal ?? code} (${said?.status}).\n${errors}`);
  }

  /** Every published row, in the canonical form. */
  rows(): string {
    const rows: string[] = [];
    for (const output of outputsOf(this.settings.workload)) {
      const folder = join(this.settings.output, output);
      for (const name of readdirSync(folder)) {
        if (!name.startsWith('.')) rows.push(...readFileSync(join(folder, name), 'utf8').split('\n').slice(0, -1));
      }
    }
    return canonical(rows);
  }

  /** The canonical output: of running updates, the last row of each key. */
  output(rows = this.rows()): string {
    const { workload } = this.settings;
    if (workload !== 'wc' && workload !== 'q4') return rows;
    const last = new Map<string | number, { count: number; row: string }>();
    for (const row of rows.split('\n').slice(0, -1)) {
      const { key, count } = updateOf(row);
      if (count > (last.get(key)?.count ?? 0)) last.set(key, { count, row });
    }
    return canonical([...last.values()].map(({ row }) => row));
  }

  /** What is wrong with the output and with what was left behind, as sentences; nothing where all is well. */
  async complaints(): Promise<string[]> {
    return [...this.wrongRows(), ...(await this.leftovers())];
  }

  /** The checkpoints as they are now, in another folder: what a machine would find that cannot see that the other one lives. */
  copyCheckpoints(name: string): string {
    const copy = join(this.folder, name);
    cpSync(this.settings.checkpoints, copy, { recursive: true });
    return copy;
  }

  /** What is wrong with these rows, in the canonical form. */
  wrongRows(rows = this.rows()): string[] {
    const wrong: string[] = [];
    const { final, updates } = this.input.expected;
    const output = this.output(rows);
    if (updates !== undefined) wrong.push(...difference(rows, updates));
    if (this.settings.workload === 'q4') wrong.push(...miscounted(rows));
    if (output !== final) wrong.push('the canonical output differs', ...difference(output, final));
    return wrong;
  }

  /** Files that nobody needs any more and that are still there. */
  async leftovers(): Promise<string[]> {
    const { workload, output, checkpoints, state, s3 } = this.settings;
    const stored = s3 === undefined ? undefined : storageS3(s3);
    const wrong = (await kept(join(checkpoints, workload), 3, stored)).map((name) => `checkpoints: ${name}`);
    for (const name of readdirSync(state)) wrong.push(`state: ${name} is left`);
    for (const folder of outputsOf(workload)) {
      const markers = join(output, folder, '.millrace');
      for (const name of existsSync(markers) ? readdirSync(markers) : []) {
        if (/\.(tmp|fenced-\d+)$/.test(name)) wrong.push(`output: ${folder}/${name} is left`);
        if (name.endsWith('.open')) for (const file of readdirSync(join(markers, name))) wrong.push(`output: ${folder}/${name}/${file} is left`);
      }
    }
    return wrong;
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A row of a workload that counts on: what it is about, and how many there were so far. */
function updateOf(row: string): { key: string | number; count: number } {
  const { word, category, count } = JSON.parse(row) as { word?: string; category?: number; count: number };
  return { key: word ?? category!, count };
}

/** Of q4, whose intermediate sums depend on the order in which auctions close: each count from 1 on must be there for each category, once. */
function miscounted(rows: string): string[] {
  const counts = new Map<string | number, number[]>();
  for (const row of rows.split('\n').slice(0, -1)) {
    const { key, count } = updateOf(row);
    const held = counts.get(key);
    if (held === undefined) counts.set(key, [count]);
    else held.push(count);
  }
  const wrong = [...counts].filter(([, held]) => held.sort((a, b) => a - b).some((count, index) => count !== index + 1));
  return wrong.map(([key, held]) => `category ${key} has ${held.length} updates, up to a count of ${held.at(-1)}, and not each once`);
}

/** Both sorted: how many rows are missing and how many are there too often, with an example of each. */
function difference(got: string, wanted: string): string[] {
  if (got === wanted) return [];
  const balance = new Map<string, number>();
  for (const row of wanted.split('\n').slice(0, -1)) balance.set(row, (balance.get(row) ?? 0) + 1);
  for (const row of got.split('\n').slice(0, -1)) balance.set(row, (balance.get(row) ?? 0) - 1);
  const lost = [...balance].filter(([, n]) => n > 0);
  const extra = [...balance].filter(([, n]) => n < 0);
  const wrong: string[] = [];
  if (lost.length > 0) wrong.push(`${lost.length} rows are lost, such as ${lost[0]![0]}`);
  if (extra.length > 0) wrong.push(`${extra.length} rows are there that should not be, or twice, such as ${extra[0]![0]}`);
  return wrong;
}
