// `millrace state replay <module>`: what becomes of one key at one operator, step by step, from a snapshot on. It reads, and touches nothing of the job.

import { MillraceError, messageOf } from '../errors.ts';
import { keyOf, keyText, shown } from '../observe/state-json.ts';
import { type LoadedJob, loadJob } from './job-module.ts';
import { countOf, durationOf, stateOf } from './option-values.ts';
import { pathOfSnapshot, type SnapshotFlags, writeAll } from './state-commands.ts';

export interface ReplayFlags extends SnapshotFlags {
  readonly at: string;
  readonly uid: string;
  readonly key?: string;
  readonly until?: string;
  readonly patience?: string;
  readonly parallelism?: string;
  readonly state?: string;
  readonly allowNonRestoredState?: boolean;
}

/** As `replay()` of the module's own Millrace gives it, which may be a later one. */
interface ShownStep {
  readonly step: number;
  readonly kind: string;
  readonly input: unknown;
  readonly side?: string;
  readonly timestamp: number;
  readonly watermark: number;
  readonly before: Readonly<Record<string, unknown>>;
  readonly after: Readonly<Record<string, unknown>>;
  readonly outputs: readonly { readonly value: unknown; readonly timestamp: number; readonly output?: string }[];
  readonly timersSet: readonly { readonly at: number; readonly domain: string }[];
  readonly timersDeleted: readonly { readonly at: number; readonly domain: string }[];
  readonly error?: unknown;
}

export async function replayCommand(path: string, flags: ReplayFlags, moduleArguments: readonly string[]): Promise<void> {
  const { uid, json } = flags;
  const abort = new AbortController();
  const options = {
    uid,
    ...(flags.key === undefined ? {} : { key: keyOf(flags.key) }),
    ...(flags.until === undefined ? {} : { until: limitOf(flags.until) }),
    ...(flags.patience === undefined ? {} : { patience: durationOf(flags.patience, '--patience') }),
    ...(flags.parallelism === undefined ? {} : { parallelism: countOf(flags.parallelism, '--parallelism') }),
    ...(flags.state === undefined ? {} : { state: stateOf(flags.state) }),
    ...(flags.allowNonRestoredState === true ? { allowNonRestoredState: true } : {}),
    signal: abort.signal,
  };
  const job = await loadJob(path, moduleArguments);
  const from = await snapshotOf(job, flags);
  const steps = job.replay?.({ ...options, from }) as AsyncIterable<ShownStep> | undefined;
  if (steps === undefined)
    throw new MillraceError('MODULE_WITHOUT_JOB', `The job of ${path} was made by a Millrace that cannot replay.`, {
      todo: 'Use the same version for the module and the command.',
    });
  const stop = (): void => abort.abort();
  process.once('SIGINT', stop);
  try {
    await writeAll(
      (async function* () {
        for await (const step of steps) yield* json === true ? [JSON.stringify(jsonOf(step))] : stepLines(step);
      })(),
    );
  } finally {
    process.off('SIGINT', stop);
  }
}

/** Where the job's own options say, where neither a running job nor the folder of the command has it. */
async function snapshotOf({ name, defaults }: LoadedJob, flags: ReplayFlags): Promise<string> {
  const named = { ...flags, job: name };
  try {
    return await pathOfSnapshot(flags.at, named);
  } catch (error) {
    const { code } = error as { code?: string };
    const { checkpoints } = defaults;
    if (flags.checkpoints !== undefined || typeof checkpoints !== 'object' || (code !== 'JOB_NOT_FOUND' && code !== 'CHECKPOINT_NOT_FOUND')) throw error;
    return pathOfSnapshot(flags.at, { ...named, checkpoints: checkpoints.directory });
  }
}

/** A number of records, or a time: an instant of ISO 8601, or `@` and epoch milliseconds. Pure. */
export function limitOf(text: string): { records: number } | { time: number } {
  if (/^\d+$/.test(text)) return { records: countOf(text, '--until') };
  const time = /^@-?\d+$/.test(text) ? Number(text.slice(1)) : /^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : Number.NaN;
  if (!Number.isNaN(time)) return { time };
  throw new MillraceError('OPTION_INVALID', `'${text}' is no limit for --until.`, {
    todo: 'Write a number of records, an instant such as 2026-01-31T12:00:00Z, or @ and epoch milliseconds.',
  });
}

/** Times that are no numbers in JSON are null. Pure. */
export function jsonOf(step: ShownStep): object {
  const { input, timestamp, watermark, before, after, outputs, error, ...others } = step;
  return {
    ...others,
    ...(input === undefined ? {} : { input: shown(input) }),
    timestamp: Number.isFinite(timestamp) ? timestamp : null,
    watermark: Number.isFinite(watermark) ? watermark : null,
    before: shown(before),
    after: shown(after),
    outputs: outputs.map((output) => ({ ...output, value: shown(output.value), timestamp: Number.isFinite(output.timestamp) ? output.timestamp : null })),
    ...(error === undefined ? {} : { error: messageOf(error) }),
  };
}

/** Pure. */
export function stepLines({ step, kind, input, side, timestamp, watermark, before, after, outputs, timersSet, timersDeleted, error }: ShownStep): string[] {
  const text = (value: unknown): string => (value === undefined ? '–' : JSON.stringify(shown(value)));
  const time = (at: number): string => (Math.abs(at) <= 8.64e15 ? new Date(at).toISOString() : at === Number.POSITIVE_INFINITY ? 'the end' : '–');
  const head = [
    `#${step} ${kind}`,
    ...(side === undefined ? [] : [side]),
    ...(input === undefined ? [] : [text(input)]),
    ...(Number.isFinite(timestamp) ? [`at ${time(timestamp)}`] : []),
    ...(watermark > Number.NEGATIVE_INFINITY ? [`(event time ${time(watermark)})`] : []),
  ].join(' ');
  const states = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  const changes = states.flatMap((name) => {
    const [was, is] = [text(before[name]), text(after[name])];
    return kind === 'start' ? [`   ${name}: ${is}`] : was === is ? [] : [`   ${name}: ${was} → ${is}`];
  });
  return [
    head,
    ...changes,
    ...timersDeleted.map(({ at, domain }) => `   timer deleted: ${domain} ${time(at)}`),
    ...timersSet.map(({ at, domain }) => `   timer ${kind === 'start' ? 'waits' : 'set'}: ${domain} ${time(at)}`),
    ...outputs.map(({ value, output }) => `   ${output === undefined ? 'out' : `side ${keyText(output)}`}: ${text(value)}`),
    ...(error === undefined ? [] : [`   failed: ${messageOf(error)}`]),
  ];
}
