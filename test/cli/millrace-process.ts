// The command as a user runs it: `node dist/src/cli/main.js …` in a folder and with a temporary folder of its own, so that tests that run side by
// side do not find each other's jobs.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const MAIN = join(ROOT, 'dist', 'src', 'cli', 'main.js');

export function build(): void {
  const { status, stderr } = spawnSync(process.execPath, [join(ROOT, 'scripts', 'ensure.mjs')], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  stdout = '';
  stderr = '';
  #watchers: (() => void)[] = [];
  #over = false;

  constructor(child: ChildProcess) {
    this.child = child;
    child.stdout!.setEncoding('utf8').on('data', (text: string) => this.#heard(() => (this.stdout += text)));
    child.stderr!.setEncoding('utf8').on('data', (text: string) => this.#heard(() => (this.stderr += text)));
    this.ended = new Promise((resolve) => {
      child.on('close', (code, signal) => {
        this.#heard(() => (this.#over = true));
        resolve({ code, signal, stdout: this.stdout, stderr: this.stderr });
      });
    });
  }

  #heard(change: () => void): void {
    change();
    for (const watcher of this.#watchers) watcher();
  }

  /** Resolves when the pattern has been said, with what it found; rejects when the process ends without. */
  said(pattern: RegExp, where: 'stdout' | 'stderr' = 'stderr'): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const found = pattern.exec(this[where]);
        if (found !== null) resolve(found);
        else if (this.#over) reject(new Error(`The process ended without saying ${pattern}:\n${this.stderr}\n${this.stdout}`));
        else return;
        this.#watchers = this.#watchers.filter((watcher) => watcher !== look);
      };
      this.#watchers.push(look);
      look();
    });
  }
}

/** A user's folder. `discovery` is where its jobs announce themselves. */
export class Place {
  readonly folder = mkdtempSync(join(tmpdir(), 'millrace-cli-'));
  readonly temporary = join(this.folder, 'tmp');
  readonly #children: Running[] = [];

  constructor() {
    mkdirSync(this.temporary);
  }

  write(name: string, text: string): string {
    writeFileSync(join(this.folder, name), text);
    return name;
  }

  start(args: readonly string[], environment: Record<string, string> = {}): Running {
    return this.spawn(process.execPath, [MAIN, ...args], environment);
  }

  /** Any command, in this folder and with its temporary folder. */
  spawn(command: string, args: readonly string[], environment: Record<string, string> = {}): Running {
    const env: NodeJS.ProcessEnv = { ...process.env, TMPDIR: this.temporary, TMP: this.temporary, TEMP: this.temporary, MILLRACE_DEBUG: '', ...environment };
    // What vitest sets for itself is not for the processes it tests.
    delete env.NODE_OPTIONS;
    const running = new Running(spawn(command, args, { cwd: this.folder, env, stdio: ['ignore', 'pipe', 'pipe'] }));
    this.#children.push(running);
    return running;
  }

  run(...args: string[]): Promise<Ended> {
    return this.start(args).ended;
  }

  /** Files by which running jobs are found. */
  announced(): string[] {
    return readdirSync(this.temporary, { recursive: true })
      .map(String)
      .filter((name) => name.endsWith('.json'));
  }

  has(name: string): boolean {
    return existsSync(join(this.folder, name));
  }

  async remove(): Promise<void> {
    for (const { child, ended } of this.#children) {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
      await ended;
    }
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** An unbounded job that counts, with a state to resume. */
export const TICKING = `
import { job } from 'millrace';
const ticks = {
  bounded: false,
  splits: async () => ['clock'],
  splitId: (split) => split,
  async *read(split, from = 0, { signal }) {
    for (let n = from + 1; !signal.aborted; n++) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      yield { values: [{ n }], timestamps: [n], position: n };
    }
  },
};
export default job(process.argv[2] ?? 'ticking', (env) => {
  env.source('ticks', ticks, {})
    .keyBy(() => 'all')
    .reduce('sum', (l, r) => ({ n: r.n, count: (l.count ?? 1) + 1 }))
    .forEach('out', ({ n, count }) => { if (n % 20 === 0) console.log(n + ' ' + count); });
});
`;
