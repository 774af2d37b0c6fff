// What the values of options mean: text from the command line to what `start` takes. Pure; each throws OPTION_INVALID with a sentence.

import { level, memory, type StateBackend } from '../../state-backends/index.ts';
import { absolute, isUrl } from '../checkpoint/addresses.ts';
import { storageOf } from '../checkpoint/places.ts';
import { MillraceError } from '../errors.ts';
import type { CheckpointOptions, ControlTokens, RunOptions } from '../graph/job.ts';
import { systemIo } from '../runtime/io.ts';

/** What lies there belongs to running attempts; the backend removes it. */
const STATE_DIRECTORY = '.millrace/state';

const UNITS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** Milliseconds of `10s`, `500ms`, `1.5m`, `2h`, `1d`. */
export function durationOf(text: string, option: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text);
  const ms = match === null ? 0 : Number(match[1]) * UNITS[match[2] as keyof typeof UNITS];
  if (!(ms > 0)) throw invalid(`'${text}' is no time for ${option}.`, 'Write a number with ms, s, m, h or d, such as 10s.');
  return ms;
}

export function countOf(text: string, option: string, least = 1): number {
  const n = Number(text);
  if (!/^\d+$/.test(text) || n < least || !Number.isSafeInteger(n))
    throw invalid(`'${text}' is no number for ${option}.`, `Write a whole number from ${least} on.`);
  return n;
}

export function portOf(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65_535) throw invalid(`'${text}' is no port.`, 'Write a number up to 65535; 0 takes a free one.');
  return port;
}

export function restoreOf(
  text: string | undefined,
  { allowNonRestoredState, claim }: { allowNonRestoredState?: boolean; claim?: boolean } = {},
): RunOptions['restore'] {
  if (text === '') throw invalid('--restore is empty.', 'Write latest, none, the path of a savepoint or checkpoint, or its id.');
  if (text === undefined || text === 'latest' || text === 'none') {
    const option = allowNonRestoredState === true ? '--allow-non-restored-state' : claim === true ? '--claim' : undefined;
    if (option !== undefined)
      throw invalid(`${option} is about a snapshot that --restore names.`, 'Name it: --restore PATH, or the id of a retained checkpoint.');
    return text;
  }
  return {
    from: /^\d+$/.test(text) ? Number(text) : text,
    ...(allowNonRestoredState === true ? { allowNonRestoredState } : {}),
    ...(claim === true ? { claim } : {}),
  };
}

export function stateOf(text: string): StateBackend {
  if (text === 'memory') return memory();
  const match = /^level(?::(.+))?$/.exec(text);
  if (match === null) throw invalid(`'${text}' is no state backend.`, 'Write memory, level or level:DIRECTORY.');
  return level({ directory: match[1] ?? STATE_DIRECTORY });
}

const CHECKPOINT_DIRECTORY = '.millrace';
const CHECKPOINT_EVERY_MS = 10_000;

/**
 * What was asked for on the command line, over what the job says, over the defaults of the command. An address such as s3://bucket/folder is where bytes go; the registry
 * stays in a directory. A path is where both go, whatever storage the job has.
 */
export function checkpointsOf(
  asked: { directory: string | false | undefined; every: number | undefined },
  job: CheckpointOptions | false | undefined,
): CheckpointOptions | false {
  if (asked.directory === false) {
    if (asked.every !== undefined) throw invalid('--every and --no-checkpoints exclude each other.', 'Leave one of them out.');
    return false;
  }
  if (asked.directory === undefined && asked.every === undefined && job !== undefined) return job;
  const base = typeof job === 'object' ? job : { directory: CHECKPOINT_DIRECTORY, every: CHECKPOINT_EVERY_MS };
  const { storage: _, ...local } = base;
  const { directory } = asked;
  const place = directory === undefined ? base : isUrl(directory) ? { ...base, storage: storageOf(absolute(directory), systemIo()) } : { ...local, directory };
  return {
    ...place,
    ...(asked.every === undefined ? {} : { every: asked.every }),
  };
}

/** Without checkpoints every run begins anew, also with `latest`, which is what nobody need say. A checkpoint that was named must not be passed over in silence. */
export function refuseRestoreWithout(checkpoints: CheckpointOptions | false, restore: RunOptions['restore']): void {
  if (checkpoints !== false || typeof restore !== 'object') return;
  throw invalid(
    '--restore with a checkpoint needs checkpoints, and this run has none.',
    'Leave --no-checkpoints out, or name a directory with --checkpoints where the job itself has switched them off; or leave --restore out to begin anew.',
  );
}

/** Of the environment, since what stands on a command line everybody of the machine can read. Empty ones are refused by the door: nobody has meant them. */
export function tokensIn({ MILLRACE_TOKEN: operate, MILLRACE_READ_TOKEN: read }: Readonly<Record<string, string | undefined>>): {
  token?: string | ControlTokens;
} {
  if (read === undefined) return operate === undefined ? {} : { token: operate };
  return { token: operate === undefined ? { read } : { read, operate } };
}

function invalid(sentence: string, todo: string): MillraceError {
  return new MillraceError('OPTION_INVALID', sentence, { todo });
}
