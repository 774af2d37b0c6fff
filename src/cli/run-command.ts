// `millrace run <module>`: loads the job, starts it with its door open, says what happens, and ends with it.
//
// Signals: the first Ctrl-C, SIGTERM or SIGHUP is stop(), a second one cancel(). npm hands the terminal's Ctrl-C on to its child, which has had it
// already: the same signal within ECHO_MS is that echo and no second wish.
//
// Invariants:
//  C1  Options of the command line go over those of the job; what neither says has the defaults of the command: checkpoints into .millrace every 10 s,
//      a door on a free port of this machine.
//  C2  The job's own `onEvent` and `logger` stay in use beside what is said here.
//  C3  A job that has ended ends the process, also where the module has left something open.
//  C4  Where nobody reads standard output any more (`millrace run … | head`) the job ends too, and without an error: it is stopped, or, where it prints and so
//      cannot go on to a last checkpoint, fails quietly behind the last one.

import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { MillraceError, messageOf } from '../errors.ts';
import type { CheckpointInfo, JobEvent, JobResult, RunOptions } from '../graph/job.ts';
import { type LoadedJob, loadJob } from './job-module.ts';
import { checkpointsOf, countOf, durationOf, portOf, refuseRestoreWithout, restoreOf, stateOf, tokensIn } from './option-values.ts';
import { errorLine, type Said, saying } from './said.ts';

export interface RunFlags {
  parallelism?: string;
  threads?: string;
  state?: string;
  checkpoints?: string | false;
  every?: string;
  restore?: string;
  allowNonRestoredState?: boolean;
  claim?: boolean;
  port?: string;
  wait?: boolean;
  json?: boolean;
}

const ECHO_MS = 300;
const WAIT_STEP_MS = 500;
/** For what a module has left open, behind the end of its job. */
const LEFT_OPEN_MS = 1000;

export async function runCommand(path: string, flags: RunFlags, moduleArguments: readonly string[]): Promise<number> {
  const said = saying(flags.json === true);
  const asked = parsed(flags);
  const job = await loadJob(path, moduleArguments);
  // Of code that the job does not call: it ends the process as in Node, with a sentence instead of a stack.
  process.on('uncaughtException', (error) => {
    said.error(new MillraceError('MODULE_FAILED', `The module ${path} threw outside of its job: ${messageOf(error)}.`, { cause: error }));
    process.exit(1);
  });
  const end = await runJob(job, optionsOf(path, job, asked, said), said, flags.wait === true);
  leave();
  return end;
}

interface Asked {
  readonly parallelism: number | undefined;
  readonly threads: number | undefined;
  readonly state: string | undefined;
  readonly checkpoints: { directory: string | false | undefined; every: number | undefined };
  readonly restore: RunOptions['restore'];
  readonly port: number | undefined;
}

/** Before the module is loaded: a slip on the command line should not run anything. */
function parsed(flags: RunFlags): Asked {
  if (flags.state !== undefined) stateOf(flags.state);
  const checkpoints = { directory: flags.checkpoints, every: flags.every === undefined ? undefined : durationOf(flags.every, '--every') };
  const restore = restoreOf(flags.restore, flags);
  refuseRestoreWithout(checkpointsOf(checkpoints, undefined), restore);
  return {
    parallelism: flags.parallelism === undefined ? undefined : countOf(flags.parallelism, '--parallelism'),
    threads: flags.threads === undefined ? undefined : countOf(flags.threads, '--threads', 0),
    state: flags.state,
    checkpoints,
    restore,
    port: flags.port === undefined ? undefined : portOf(flags.port),
  };
}

/** C1, C2. */
function optionsOf(path: string, job: LoadedJob, asked: Asked, said: Said): RunOptions {
  const { defaults } = job;
  const control = defaults.control === false && asked.port === undefined ? false : { ...tokensIn(process.env), ...defaults.control };
  const checkpoints = checkpointsOf(asked.checkpoints, defaults.checkpoints);
  refuseRestoreWithout(checkpoints, asked.restore);
  return {
    parallelism: asked.parallelism,
    ...(asked.threads === undefined ? {} : { threads: asked.threads }),
    // Threads build the job from it.
    module: defaults.module ?? pathToFileURL(resolve(path)),
    ...(asked.state === undefined ? {} : { state: stateOf(asked.state) }),
    checkpoints,
    restore: asked.restore,
    control: control === false || asked.port === undefined ? control : { ...control, port: asked.port },
    logger: defaults.logger ?? warningsTo(said),
    onEvent: (event) => {
      sayEvent(event, said);
      defaults.onEvent?.(event);
    },
  };
}

async function runJob(job: LoadedJob, options: RunOptions, said: Said, wait: boolean): Promise<number> {
  const abort = new AbortController();
  job.defaults.signal?.addEventListener('abort', () => abort.abort(job.defaults.signal?.reason), { once: true });
  const signals = new Signals(said, options.checkpoints === false, () => abort.abort());
  try {
    const run = await started(job, { ...options, signal: abort.signal }, said, wait, signals);
    if (run === undefined) return 0;
    const { status, restoredFrom: from } = run;
    if (status === 'finished')
      said.line(`${job.name}: has finished before, and its result is returned; --restore none runs it anew`, { job: job.name, event: 'finished before' });
    else {
      const url = run.controlUrl;
      const begins = from === undefined ? 'begins anew' : `resumes from checkpoint ${from.id}, taken ${clockTime(from.startedAt)}`;
      said.line(`${job.name}: ${begins}${options.checkpoints === false ? ', without checkpoints' : ''}`, {
        job: job.name,
        event: 'started',
        id: run.id,
        pid: process.pid,
        restoredFrom: from ?? null,
      });
      if (url !== undefined) said.line(`${job.name}: door at ${url}`, { job: job.name, event: 'door', url });
    }
    signals.takes(
      () => run.stop(),
      () => run.cancel(),
    );
    const result = await run.finished;
    if (status !== 'finished') sayResult(job.name, result, said);
    return 0;
  } catch (error) {
    if (isClosedOutput(error)) {
      said.line(`${job.name}: ended, since nobody reads its output any more`, { job: job.name, event: 'ended', cause: errorLine(error) });
      return 0;
    }
    said.error(error);
    return 1;
  } finally {
    signals.close();
  }
}

/** C4. */
function isClosedOutput(error: unknown): boolean {
  for (let at: unknown = error; at instanceof Error; at = at.cause) if ((at as NodeJS.ErrnoException).code === 'EPIPE') return true;
  return false;
}

/** Undefined where the wait for another process was broken off. */
async function started(job: LoadedJob, options: RunOptions, said: Said, wait: boolean, signals: Signals) {
  for (let waited = false; ; waited = true) {
    try {
      return await job.start(options);
    } catch (error) {
      if (!wait || (error as { code?: string }).code !== 'JOB_ALREADY_RUNNING') throw error;
      if (!waited) said.line(`${job.name}: runs in another process already; waiting for its end`, { job: job.name, event: 'waiting' });
    }
    await Promise.race([new Promise((resolve) => setTimeout(resolve, WAIT_STEP_MS)), signals.first]);
    if (signals.count > 0) return undefined;
  }
}

class Signals {
  readonly first: Promise<void>;
  count = 0;
  readonly #said: Said;
  /** The job keeps no checkpoints. */
  readonly #forgets: boolean;
  readonly #abort: () => void;
  #stop: (() => Promise<unknown>) | undefined;
  #cancel: (() => Promise<unknown>) | undefined;
  #last = { name: '', at: Number.NEGATIVE_INFINITY };
  #come!: () => void;

  constructor(said: Said, forgets: boolean, abort: () => void) {
    this.#said = said;
    this.#forgets = forgets;
    this.#abort = abort;
    this.first = new Promise((resolve) => {
      this.#come = resolve;
    });
    for (const name of NAMES) process.on(name, this.#on);
    process.stdout.on('error', this.#onOutput);
  }

  /** C4. */
  #onOutput = (error: NodeJS.ErrnoException): void => {
    if (error.code !== 'EPIPE') throw error;
    if (this.count > 0) return;
    this.count = 1;
    this.#come();
    this.#tell(this.#stop);
  };

  #on = (name: string): void => {
    const at = performance.now();
    const echo = name === this.#last.name && at - this.#last.at < ECHO_MS;
    this.#last = { name, at };
    if (echo) return;
    this.count += 1;
    this.#come();
    if (this.count === 1) {
      this.#said.line(`stopping${this.#forgets ? '' : ': a last checkpoint is taken'} (once more: cancel)`, { event: 'stopping', signal: name });
      this.#tell(this.#stop);
    } else if (this.count === 2) {
      this.#said.line('cancelling', { event: 'cancelling', signal: name });
      if (this.#cancel === undefined) this.#abort();
      else this.#tell(this.#cancel);
    }
  };

  /** What came while the job was starting is told now. */
  takes(stop: () => Promise<unknown>, cancel: () => Promise<unknown>): void {
    this.#stop = stop;
    this.#cancel = cancel;
    if (this.count > 0) this.#tell(stop);
    if (this.count > 1) this.#tell(cancel);
  }

  /** How it ended is said by `finished`. */
  #tell(what: (() => Promise<unknown>) | undefined): void {
    what?.().catch(() => {});
  }

  close(): void {
    for (const name of NAMES) process.off(name, this.#on);
  }
}
const NAMES = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export function sayEvent(event: JobEvent, said: Said): void {
  switch (event.type) {
    case 'restart':
      said.line(`restart ${event.count}, because of ${event.uid}: ${errorLine(event.error)}`, {
        event: 'restart',
        count: event.count,
        uid: event.uid,
        message: errorLine(event.error),
      });
      break;
    case 'checkpoint-failed':
      said.line(`checkpoint ${event.id} failed: ${errorLine(event.error)}`, { event: 'checkpoint-failed', id: event.id, message: errorLine(event.error) });
      break;
    case 'dead-letter': {
      const { uid, error } = event.deadLetter;
      said.line(`dead letter of ${uid}: ${error.message}`, { event: 'dead-letter', uid, message: error.message });
      break;
    }
    default:
  }
}

/** What the library tells its log and no event says; restarts and failed checkpoints are said already. */
export function warningsTo(said: Said): NonNullable<RunOptions['logger']> {
  const print = (fields: object | string, message?: string): void => {
    const text = typeof fields === 'string' ? fields : (message ?? JSON.stringify(fields));
    if (/restarts from the last checkpoint|^Checkpoint \d+ failed|^The job '.*' failed/.test(text)) return;
    said.line(text, { event: 'warning', message: text, ...(typeof fields === 'string' ? {} : fields) });
  };
  return { debug() {}, info() {}, warn: print, error: print };
}

export function sayResult(job: string, result: JobResult, said: Said): void {
  const parts = [`${job}: ${result.status}`];
  if (result.checkpoint !== undefined && result.status !== 'cancelled')
    parts.push(`checkpoint ${result.checkpoint.id}, taken ${clockTime(result.checkpoint.startedAt)}`);
  if (result.restarts > 0) parts.push(`${result.restarts} restart${result.restarts === 1 ? '' : 's'}`);
  // Of the program's own code where it has no code: onError('stop') hands on what a function threw.
  const cause = result.cause === undefined ? undefined : errorLine(result.cause, 'USER_FUNCTION_FAILED');
  if (cause !== undefined) parts.push(`because of ${cause}`);
  said.line(parts.join(', '), { job, event: 'ended', ...result, cause });
}

export function clockTime(at: CheckpointInfo['startedAt']): string {
  const d = new Date(at);
  const two = (n: number): string => String(n).padStart(2, '0');
  const time = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  const sameDay = d.toDateString() === new Date().toDateString();
  return sameDay ? time : `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${time}`;
}

/** C3. The timer does not hold the process itself. */
function leave(): void {
  setTimeout(() => process.exit(), LEFT_OPEN_MS).unref();
}
