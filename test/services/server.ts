// A server of the tests: a process of its own group on fixed ports and a folder of its own, that can be killed, stopped and brought back, and that dies with this
// process (lifeline.ts).

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { removeFolder } from './folders.ts';
import { tell } from './lifeline.ts';

const READY_MS = 120_000;
const STOP_MS = 30_000;

export interface ServerOptions {
  readonly name: string;
  /** Removed by `close`. */
  readonly folder: string;
  readonly command: string;
  readonly args: readonly string[];
  /** Whose user it runs as; the user of this process by default. */
  readonly owner?: { readonly uid: number; readonly gid: number } | undefined;
  /** The signal that asks it to end in order. */
  readonly stopSignal?: NodeJS.Signals;
  /** Whether it answers a first request; a rejection says no. */
  readonly answers: () => Promise<boolean>;
}

export class Server {
  readonly #options: ServerOptions;
  #child: ChildProcess | undefined;
  #over: Promise<void> = Promise.resolve();

  constructor(options: ServerOptions) {
    this.#options = options;
  }

  /** Resolves when it answers. For the first time, or again after `kill` or `stop`: on the same ports and data. */
  async up(): Promise<void> {
    this.begin();
    await this.ready();
  }

  /** Like `up`, and does not wait. */
  begin(): void {
    if (this.#child !== undefined) throw new Error(`${this.#options.name} runs already.`);
    const { command, args, owner } = this.#options;
    const log = openSync(this.log, 'a');
    const child = spawn(command, args, { detached: true, stdio: ['ignore', log, log], cwd: this.#options.folder, ...owner });
    closeSync(log);
    this.#child = child;
    this.#over = new Promise((resolve) => {
      const end = (): void => {
        if (child.pid !== undefined) tell('ended', child.pid);
        if (this.#child === child) this.#child = undefined;
        resolve();
      };
      child.once('exit', end);
      child.once('error', end);
    });
    if (child.pid !== undefined) tell('began', child.pid);
    // A process that has nothing to do but hold a server may end; the lifeline then ends the server.
    child.unref();
  }

  async ready(): Promise<void> {
    const latest = Date.now() + READY_MS;
    while (!(await this.#options.answers().catch(() => false))) {
      const late = Date.now() > latest;
      if (this.#child !== undefined && !late) {
        await new Promise((resolve) => setTimeout(resolve, 25));
        continue;
      }
      await this.kill();
      throw new Error(`${this.#options.name} ${late ? 'did not answer' : 'ended'}:\n${this.lastWords()}`);
    }
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get log(): string {
    return join(this.#options.folder, 'server.log');
  }

  /** SIGKILL; resolves when it is gone. */
  async kill(): Promise<void> {
    this.#child?.ref();
    this.signal('SIGKILL');
    await this.#over;
  }

  /** SIGSTOP: its connections stay open, and nothing answers. */
  pause(): void {
    this.signal('SIGSTOP');
  }

  /** SIGCONT. */
  resume(): void {
    this.signal('SIGCONT');
  }

  /** Asks it to end in order and waits for that; kills it after 30 s. */
  async stop(): Promise<void> {
    this.#child?.ref();
    this.signal('SIGCONT');
    this.signal(this.#options.stopSignal ?? 'SIGTERM');
    const late = setTimeout(() => this.signal('SIGKILL'), STOP_MS);
    await this.#over;
    clearTimeout(late);
  }

  /** Killed, and its data removed. */
  async close(): Promise<void> {
    await this.kill();
    await removeFolder(this.#options.folder);
  }

  /** To its whole group. */
  signal(signal: NodeJS.Signals): void {
    const pid = this.#child?.pid;
    if (pid === undefined) return;
    try {
      process.kill(-pid, signal);
    } catch (error) {
      // It ended, and that has not been reported yet.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }

  lastWords(): string {
    return readFileSync(this.log, 'utf8').split('\n').slice(-40).join('\n');
  }
}

/** What the servers of the tests have in common for those who use them. */
export abstract class Service {
  protected readonly server: Server;

  constructor(server: Server) {
    this.server = server;
  }

  /** SIGKILL. */
  kill(): Promise<void> {
    return this.server.kill();
  }
  /** SIGSTOP, until `resume`. */
  pause(): void {
    this.server.pause();
  }
  resume(): void {
    this.server.resume();
  }
  /** Again, on the same ports and data; resolves when it answers. */
  up(): Promise<void> {
    return this.server.up();
  }
  /** `up` without waiting. */
  begin(): void {
    this.server.begin();
  }
  ready(): Promise<void> {
    return this.server.ready();
  }
  /** In order. */
  stop(): Promise<void> {
    return this.server.stop();
  }
  /** Killed, its data removed. */
  close(): Promise<void> {
    return this.server.close();
  }
  get log(): string {
    return this.server.log;
  }
  get pid(): number | undefined {
    return this.server.pid;
  }
}
