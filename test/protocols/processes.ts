// Children that a test starts, stops, goes on with and kills; each by its own id.

import { type ChildProcess, spawn } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import { bundled } from '../bundled.ts';
import { Conditions } from './lab.ts';

const here = dirname(fileURLToPath(import.meta.url));

export class Child {
  readonly lines: string[] = [];
  errors = '';
  readonly process: ChildProcess;
  readonly #conditions = new Conditions();
  readonly ended: Promise<NodeJS.Signals | number>;

  constructor(program: string, args: readonly string[], faults = '') {
    this.process = spawn(process.execPath, [bundled(join(here, program)), ...args], {
      env: { ...process.env, MILLRACE_FAULTS: faults },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let rest = '';
    this.process.stdout!.on('data', (data: Buffer) => {
      const lines = (rest + data.toString()).split('\n');
      rest = lines.pop()!;
      this.lines.push(...lines);
      this.#conditions.changed();
    });
    this.process.stderr!.on('data', (data: Buffer) => {
      this.errors += data.toString();
    });
    let over = false;
    this.ended = new Promise((resolve) =>
      this.process.on('close', (code, signal) => {
        over = true;
        resolve(signal ?? code ?? 0);
        this.#conditions.changed();
      }),
    );
    onTestFinished(async () => {
      if (!over) this.process.kill('SIGKILL');
      await this.ended;
    });
  }

  /** A line that matches, or the end. */
  async said(what: RegExp): Promise<string | undefined> {
    let over = false;
    void this.ended.then(() => {
      over = true;
      this.#conditions.changed();
    });
    await this.#conditions.until(() => over || this.lines.some((l) => what.test(l)));
    return this.lines.find((l) => what.test(l));
  }
}

/** Every record of the committed files, parsed. */
export async function published<T>(directory: string): Promise<T[]> {
  const names = await readdir(directory).catch(() => [] as string[]);
  const records: T[] = [];
  for (const name of names.sort()) {
    if (name.startsWith('.')) continue;
    for (const line of (await readFile(join(directory, name), 'utf8')).split('\n')) if (line !== '') records.push(JSON.parse(line) as T);
  }
  return records;
}
