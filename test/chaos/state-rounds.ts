// Rounds of a job with 200,000 keys whose process is killed: in each it starts from its newest checkpoint, at another parallelism or backend, goes on, and is killed
// at a named step or at some moment. Behind each kill the newest checkpoint is read from its files and every key compared with the oracle, which computes what a key
// must hold from the committed position of the input. Rows that the sink has published are looked at and taken away: each must be there once, and hold what the
// oracle says. At the start of each process nothing may be left that an older one wrote and no checkpoint names.

import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { LocalRegistry } from '../../src/checkpoint/local-registry.ts';
import { readMetadata } from '../../src/checkpoint/metadata.ts';
import { SnapshotFiles } from '../../src/checkpoint/storage.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { DirectoryStorage } from '../../src/storage/directory.ts';
import { chainOf } from '../../state-backends/index.ts';
import { bundled } from '../bundled.ts';
import { kept } from '../e2e/kept.ts';
import { SAVEPOINT_STEPS, STEPS } from '../e2e/steps.ts';
import { Random } from '../random.ts';
import { ANSWERED, KEYS, Oracle, SPLITS } from './state-model.ts';
import type { Settings } from './state-process.ts';
import { compared, positionsOf } from './state-stored.ts';

const program = fileURLToPath(new URL('./state-process.ts', import.meta.url));
const io = systemIo();
const disk = new DirectoryStorage('.', io);
const PARALLELISMS = [1, 4, 3, 2, 3, 1, 2, 4];
/** A process that has not ended by then hangs; one that has taken no checkpoint by then is killed where it is. */
const HANGS_MS = 300_000;
const PATIENCE_MS = 5000;

export interface Tally {
  rounds: number;
  /** By step: how often a process was killed there. */
  readonly steps: Map<string, number>;
  moments: number;
  failures: number;
  /** Keys compared, in checkpoints and savepoints. */
  compared: number;
  /** Of checkpoints that had a base, and how many bases those were. */
  based: number;
  readonly bases: Set<string>;
  operations: number;
  rows: number;
  readonly wrong: string[];
}
export const newTally = (): Tally => ({
  rounds: 0,
  steps: new Map(),
  moments: 0,
  failures: 0,
  compared: 0,
  based: 0,
  bases: new Set(),
  operations: 0,
  rows: 0,
  wrong: [],
});

interface Patience {
  readonly made: number;
  /** Counted from when there is a new base: bases take longer than many a process lives. */
  readonly base: boolean;
  readonly checkpoints: number;
  readonly afterMs: number;
}

/** One job, from its first key to its end. */
export class Lane {
  readonly #random: Random;
  readonly #tally: Tally;
  readonly #folder = mkdtempSync(join(tmpdir(), 'millrace-state-'));
  readonly #oracle = new Oracle();
  readonly #answered: Uint8Array[] = Array.from({ length: SPLITS }, () => new Uint8Array(1 << 16));
  readonly #expired = new Map<string, number>();
  readonly #said: string;
  #round = 0;
  #savepoints = 0;
  /** Where the next process is to go on from, if it is not its newest checkpoint. */
  #restore: string | undefined;
  #newest = 0;

  constructor(seed: number, tally: Tally) {
    this.#random = new Random(seed);
    this.#tally = tally;
    this.#said = `seed ${seed}`;
    mkdirSync(join(this.#folder, 'state'));
  }

  /** False: something is wrong, and further rounds say nothing. */
  async round(): Promise<boolean> {
    const random = this.#random;
    this.#round += 1;
    const step = random.of([...STEPS.map(({ name }) => name), ...SAVEPOINT_STEPS]);
    const drawn = this.#round === 1 ? 'moment' : random.of(['step', 'step', 'step', 'step', 'moment', 'moment', 'fail'] as const);
    // Each attempt has file sinks of its own, and these would count anew: it would fail for ever.
    const kind = drawn === 'fail' && step.startsWith('sink.files.') ? 'step' : drawn;
    const wantsSavepoint = step.startsWith('savepoint.') && kind !== 'moment';
    const wantsImport = step === 'restore.import' && kind !== 'moment';
    const action = wantsSavepoint ? 'savepoint' : wantsImport ? 'stop' : random.of(['', '', '', '', '', 'savepoint', 'rescale', 'stop'] as const);
    const name = join(this.#folder, `savepoint-${this.#savepoints}`);
    const settings: Settings = {
      folder: this.#folder,
      backend: random.of(['memory', 'level', 'level'] as const),
      cacheBytes: random.of([4 << 20, 16 << 20, 32 << 20]),
      parallelism: PARALLELISMS[this.#round % PARALLELISMS.length]!,
      every: random.of([20, 60, 150]),
      ends: new Array<null>(SPLITS).fill(null),
      ...(this.#restore === undefined ? {} : { restore: this.#restore }),
      ...(action === 'savepoint' ? { task: { savepoint: name } } : action === 'rescale' ? { task: { rescale: random.between(1, 4) } } : {}),
      ...(action === 'stop' && this.#restore === undefined ? { task: { stop: name } } : {}),
    };
    if (settings.task !== undefined && 'rescale' in settings.task === false) this.#savepoints += 1;
    const at = random.of([1, 1, 1, 2, 3]);
    const faults = kind === 'moment' || (wantsImport && this.#restore === undefined) ? '' : `${step}=${kind === 'fail' ? 'fail' : 'kill'}@${at}`;
    const said = `${this.#said}, round ${this.#round}: ${faults || 'a moment'}, ${JSON.stringify({ ...settings, folder: undefined, ends: undefined })}`;
    // So many checkpoints are taken, then it is killed where it is. First every key is made.
    const patience = {
      made: this.#round === 1 ? SPLITS : 0,
      base: this.#round % 3 === 0,
      checkpoints: kind === 'moment' ? random.between(1, 3) : 8,
      afterMs: random.below(2) * random.below(200),
    };
    const outcome = await this.#run(settings, faults, patience);
    this.#tally.rounds += 1;
    if (outcome.by === 'itself') {
      if (kind !== 'fail') this.#tally.steps.set(step, (this.#tally.steps.get(step) ?? 0) + 1);
    } else this.#tally.moments += 1;
    if (kind === 'fail') this.#tally.failures += 1;
    const wrong = [...outcome.wrong, ...(await this.#look(said))];
    this.#tally.wrong.push(...wrong.map((sentence) => `${said}: ${sentence}`));
    return wrong.length === 0;
  }

  /** To the end of an input of that length, without faults; then everything must have expired, once. */
  async finish(): Promise<void> {
    const ends = this.#oracle.positions.map((position) => position + 5000);
    const settings: Settings = { folder: this.#folder, backend: 'level', cacheBytes: 16 << 20, parallelism: 2, every: 1000, ends };
    const { wrong } = await this.#run({ ...settings, ...(this.#restore === undefined ? {} : { restore: this.#restore }) }, '', undefined);
    for (const [split, end] of ends.entries()) this.#oracle.advance(split, end);
    for (let key = 0; key < KEYS; key++) if (this.#oracle.n[key]! > 0) this.#oracle.expire(key);
    wrong.push(...this.#published(), ...this.#everyRow());
    wrong.push(...(await kept(join(this.#folder, 'checkpoints', 'chaos'))));
    for (const name of readdirSync(join(this.#folder, 'state'))) wrong.push(`state/${name} is left`);
    this.#tally.operations += ends.reduce((sum, end) => sum + end, 0);
    this.#tally.wrong.push(...wrong.map((sentence) => `${this.#said}, at the end: ${sentence}`));
    if (wrong.length === 0) this.remove();
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  // ── a process ──

  async #run(settings: Settings, faults: string, patience: Patience | undefined): Promise<{ by: 'itself' | 'us' | 'end'; wrong: string[] }> {
    const child = spawn(process.execPath, [bundled(program), JSON.stringify(settings)], {
      env: { ...process.env, MILLRACE_FAULTS: faults },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let out = '';
    let errors = '';
    let begun!: () => void;
    const running = new Promise<void>((resolve) => {
      begun = resolve;
    });
    let enough!: () => void;
    const taken = new Promise<void>((resolve) => {
      enough = resolve;
    });
    const times = (line: RegExp): number => [...out.matchAll(line)].length;
    const bases = this.#bases();
    let from = patience?.base === true ? undefined : 0;
    child.stdout.on('data', (data) => {
      out += data;
      if (!/^running/m.test(out)) return;
      begun();
      if (from === undefined && [...this.#bases()].some((name) => !bases.has(name))) from = times(/^checkpoint/gm);
      if (from === undefined || patience === undefined) return;
      if (times(/^made/gm) >= patience.made && times(/^checkpoint/gm) >= from + patience.checkpoints) enough();
    });
    child.stderr.on('data', (data) => (errors += data));
    const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) =>
      child.on('close', (code, signal) => resolve({ code, signal })),
    );
    let by: 'itself' | 'us' | 'end' = 'itself';
    const wrong: string[] = [];
    const over = new AbortController();
    const hangs = sleep(HANGS_MS, undefined, { signal: over.signal }).then(
      () => 'hangs',
      () => 'over',
    );
    if ((await Promise.race([running, ended, hangs])) === 'hangs') wrong.push('it does not start');
    const stops = settings.task !== undefined && 'stop' in settings.task;
    const pause = (ms: number): Promise<void> => sleep(ms, undefined, { signal: over.signal }).catch(() => {});
    if (patience !== undefined && wrong.length === 0 && !stops)
      await Promise.race([
        ended,
        taken.then(() => pause(patience.afterMs)),
        pause(patience.made > 0 ? HANGS_MS : patience.base ? 3 * PATIENCE_MS : PATIENCE_MS),
      ]);
    else if (wrong.length === 0 && (await Promise.race([ended, hangs])) === 'hangs') wrong.push('it does not end');
    if (child.exitCode === null && child.signalCode === null) {
      by = 'us';
      child.kill('SIGKILL');
    }
    const { code, signal } = await ended;
    over.abort();
    if (signal !== 'SIGKILL') {
      by = 'end';
      // What fails before anything runs is the start itself, and another one is made.
      const refused = !/^running/m.test(out) && faults.includes('=fail') && errors.includes('FAULT_INJECTED');
      if (!refused && (code !== 0 || !/^ended (finished|stopped)$/m.test(out))) wrong.push(`it ended with ${signal ?? code}\n${errors}`);
    }
    for (const [, file] of out.matchAll(/^leaked (.*)$/gm)) wrong.push(`${file} is left behind`);
    // Once it runs, a start from a savepoint has been made: the next one goes on with what came of it.
    if (/^running/m.test(out)) this.#restore = undefined;
    if (/^saved$/m.test(out) && stops) this.#restore = (settings.task as { stop: string }).stop;
    return { by, wrong };
  }

  /** Complete ones. */
  #bases(): Set<string> {
    const folder = join(this.#folder, 'checkpoints', 'chaos', 'files');
    return new Set(existsSync(folder) ? readdirSync(folder).filter((name) => /^(base-|linked-.*-m\d)/.test(name)) : []);
  }

  // ── what is there then ──

  async #look(said: string): Promise<string[]> {
    const wrong = await this.#stored();
    if (wrong.length === 0) wrong.push(...this.#published());
    return wrong.map((sentence) => (sentence.includes('\n') ? `${said}\n${sentence}` : sentence));
  }

  async #stored(): Promise<string[]> {
    const directory = join(this.#folder, 'checkpoints', 'chaos');
    if (!existsSync(join(directory, 'registry'))) return [];
    const registry = await LocalRegistry.open(directory, 'chaos', io, { wait: false });
    const files = new SnapshotFiles(disk, directory, { io });
    const all: { id: number; look: () => Promise<string[]> }[] = [];
    try {
      const registered = await registry.checkpoints();
      // Older ones only now and then: the newest is what counts.
      for (const { id, path } of this.#random.once(4) ? registered : registered.slice(-1))
        all.push({ id, look: async () => this.#compared(await readMetadata(disk, path), files) });
    } finally {
      await registry.close();
    }
    for (const name of readdirSync(this.#folder)) {
      const folder = join(this.#folder, name);
      if (!name.startsWith('savepoint-') || folder === this.#restore) continue;
      if (existsSync(join(folder, 'metadata')) || existsSync(join(folder, 'metadata.copy'))) {
        const metadata = await readMetadata(disk, join(folder, 'metadata'));
        all.push({ id: metadata.id, look: () => this.#compared(metadata, new SnapshotFiles(disk, folder, { io })) });
      }
    }
    const wrong: string[] = [];
    for (const { id, look } of all.sort((a, b) => a.id - b.id)) {
      if (id <= this.#newest) continue;
      wrong.push(...(await look()));
      this.#newest = id;
      if (wrong.length > 0) break;
    }
    for (const name of readdirSync(this.#folder))
      if (name.startsWith('savepoint-') && join(this.#folder, name) !== this.#restore) rmSync(join(this.#folder, name), { recursive: true });
    return wrong;
  }

  async #compared(metadata: Awaited<ReturnType<typeof readMetadata>>, files: Pick<SnapshotFiles, 'read'>): Promise<string[]> {
    for (const [split, position] of positionsOf(metadata).entries()) this.#oracle.advance(split, position);
    this.#tally.compared += KEYS;
    const chain = chainOf(metadata.tasks.flatMap(({ keyed }) => (keyed === undefined ? [] : [keyed.handle])));
    if (chain.bases.length > 0) this.#tally.based += 1;
    for (const { file } of chain.bases) this.#tally.bases.add(`${this.#said} ${file.name}`);
    return compared(metadata, files, this.#oracle);
  }

  /** Of files that were published since. */
  #published(): string[] {
    const folder = join(this.#folder, 'out');
    const wrong: string[] = [];
    for (const name of existsSync(folder) ? readdirSync(folder) : []) {
      if (name.startsWith('.')) continue;
      for (const line of readFileSync(join(folder, name), 'utf8').split('\n').slice(0, -1)) wrong.push(...this.#row(JSON.parse(line)));
      rmSync(join(folder, name));
    }
    return wrong.slice(0, 3);
  }

  #row(row: { split: number; i: number; digest: number } | { key: number; at: number }): string[] {
    this.#tally.rows += 1;
    if ('key' in row) {
      const name = `${row.key}@${row.at}`;
      const times = (this.#expired.get(name) ?? 0) + 1;
      this.#expired.set(name, times);
      return times === 1 ? [] : [`key ${row.key} expires at ${row.at} ${times} times`];
    }
    const { split, i, digest } = row;
    const place = i / ANSWERED;
    if (place >= this.#answered[split]!.length) {
      const larger = new Uint8Array(Math.max(place + 1, this.#answered[split]!.length * 2));
      larger.set(this.#answered[split]!);
      this.#answered[split] = larger;
    }
    const seen = this.#answered[split]!;
    seen[place]! += 1;
    if (seen[place]! > 1) return [`the answer to operation ${i} of split ${split} is there ${seen[place]} times`];
    const expected = this.#oracle.answers[split]![place];
    if (expected === undefined) return [`operation ${i} of split ${split} is answered, which no checkpoint has`];
    return digest === expected ? [] : [`the answer to operation ${i} of split ${split} is ${digest}, not ${expected}`];
  }

  #everyRow(): string[] {
    const wrong: string[] = [];
    for (const [split, answers] of this.#oracle.answers.entries()) {
      const missing = answers.findIndex((_, place) => this.#answered[split]![place] !== 1);
      if (missing !== -1) wrong.push(`the answer to operation ${missing * ANSWERED} of split ${split} is lost`);
    }
    for (const [name, times] of this.#oracle.expired) {
      const got = this.#expired.get(name) ?? 0;
      if (got !== times) {
        wrong.push(`${name} expired ${got} times, not ${times}`);
        break;
      }
    }
    for (const name of this.#expired.keys()) {
      if (!this.#oracle.expired.has(name)) {
        wrong.push(`${name} expired, which it should not`);
        break;
      }
    }
    return wrong;
  }
}
