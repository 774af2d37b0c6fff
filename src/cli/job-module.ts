// From the path on the command line to the job: the module's default export.

import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { MillraceError, messageOf } from '../errors.ts';
import type { JobRun } from '../execution/job-run.ts';
import type { RunOptions } from '../graph/job.ts';
import type { Plan } from '../graph/plan.ts';
import { hookModules } from './hook-modules.ts';

/** What `job()` of `millrace` returns, as far as it matters here; the module may have its own copy of the package. */
export interface LoadedJob {
  readonly name: string;
  readonly defaults: RunOptions;
  plan(options?: { parallelism?: number }): Plan;
  start(options: RunOptions): Promise<JobRun & { readonly controlUrl?: string | undefined }>;
  /** Undefined, or giving undefined: it cannot. */
  verify?(options: RunOptions, snapshot: string): Promise<object> | undefined;
  /** As `verify`. */
  replay?(options: object): AsyncIterable<object> | undefined;
}

const VERIFY = Symbol.for('millrace.verify');
const REPLAY = Symbol.for('millrace.replay');

/** `process.argv` becomes what the module would see if Node had started it. */
export async function loadJob(path: string, moduleArguments: readonly string[]): Promise<LoadedJob> {
  const file = resolve(path);
  const stat = statSync(file, { throwIfNoEntry: false });
  if (stat === undefined || !stat.isFile())
    throw new MillraceError('MODULE_NOT_FOUND', `There is no module at ${file}${stat?.isDirectory() === true ? ': it is a folder' : ''}.`, {
      todo: 'Correct the path, which is taken from the current folder.',
    });
  hookModules();
  process.argv.splice(1, process.argv.length, file, ...moduleArguments);
  let exports: { default?: unknown };
  try {
    exports = (await import(pathToFileURL(file).href)) as { default?: unknown };
  } catch (error) {
    throw new MillraceError('MODULE_FAILED', `The module ${path} failed while it was loaded: ${oneSentence(messageOf(error))}${placeOf(error, file)}.`, {
      cause: error,
      todo: whatToDo(error),
    });
  }
  const job = exports.default as Partial<LoadedJob> | undefined;
  if (typeof job !== 'object' || job === null || typeof job.start !== 'function' || typeof job.name !== 'string')
    throw new MillraceError(
      'MODULE_WITHOUT_JOB',
      `The module ${path} has ${'default' in exports ? `a default export that is no job (${describe(exports.default)})` : 'no default export'}.`,
      { todo: 'Write export default job(…).' },
    );
  return {
    name: job.name,
    defaults: job.defaults ?? {},
    plan: (options) => (job as LoadedJob).plan(options),
    start: (options) => (job as LoadedJob).start(options),
    verify: (options, snapshot) => (job as { [VERIFY]?: LoadedJob['verify'] })[VERIFY]?.(options, snapshot),
    replay: (options) => (job as { [REPLAY]?: LoadedJob['replay'] })[REPLAY]?.(options),
  };
}

function oneSentence(message: string): string {
  return message.trim().replace(/\.$/, '');
}

/** The first place in a file of the user's, for a failure that does not say it itself. */
function placeOf(error: unknown, file: string): string {
  const stack = (error as { stack?: unknown } | null)?.stack;
  if (typeof stack !== 'string') return '';
  const place = (error instanceof SyntaxError ? syntaxPlaceOf(file) : undefined) ?? /^\s+at .*?(file:[^\s)]+:\d+):\d+\)?$/m.exec(stack)?.[1];
  if (place === undefined || place.includes('/node_modules/')) return '';
  return ` (${place.replace(/^file:\/\/.*(?=:\d+$)/, (url) => fileURLToPath(url))})`;
}

/** Node tells the place of a slip in the syntax to the terminal only; checking the file alone makes it print that. */
function syntaxPlaceOf(file: string): string | undefined {
  if (!/\.[cm]?js$/.test(file)) return undefined;
  const { stderr } = spawnSync(process.execPath, ['--check', file], { encoding: 'utf8' });
  return /^(?:file:\/\/)?(\/?.+:\d+)\n/.exec(stderr ?? '')?.[1];
}

function whatToDo(error: unknown): string {
  const { code } = (error ?? {}) as { code?: string };
  if (code === 'ERR_MODULE_NOT_FOUND') return 'Correct the import, or install the package beside the module.';
  return 'Correct the module; MILLRACE_DEBUG=1 shows the stack.';
}

function describe(value: unknown): string {
  if (value === null) return 'null';
  return typeof value === 'function' ? 'a function' : Array.isArray(value) ? 'an array' : `${/^[aeiou]/.test(typeof value) ? 'an' : 'a'} ${typeof value}`;
}
