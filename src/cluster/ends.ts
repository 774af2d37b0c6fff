// How a job ended, as data that the job store keeps and as what programs are told. Pure.

import type { Outcome } from '../checkpoint/registry.ts';
import { CODES, type ErrorCode, MillraceError, messageOf } from '../errors.ts';
import type { CheckpointInfo, JobResult } from '../graph/job.ts';
import type { Failure, JobEnd } from './zookeeper/job-store.ts';

const CAUSES_MAX = 5;

export function failureOf(error: unknown, depth = 0): Failure {
  const { sentence, uid, todo, retryable, cause, code } = (error instanceof Error ? error : {}) as Partial<MillraceError>;
  return {
    code: code ?? '',
    message: sentence ?? messageOf(error),
    ...(uid === undefined ? {} : { uid }),
    ...(todo === undefined ? {} : { todo }),
    ...(retryable === undefined ? {} : { retryable }),
    ...(cause === undefined || depth === CAUSES_MAX ? {} : { cause: failureOf(cause, depth + 1) }),
  };
}

/** An error of Millrace again, or one of the program's code. */
export function errorOfFailure({ code, message, uid, todo, retryable, cause: inner }: Failure): Error {
  const cause = inner === undefined ? undefined : errorOfFailure(inner);
  if (Object.hasOwn(CODES, code)) return new MillraceError(code as ErrorCode, message, { uid, todo, cause, ...(retryable === undefined ? {} : { retryable }) });
  const error = new Error(message, cause === undefined ? undefined : { cause });
  return code === '' ? error : Object.assign(error, { code });
}

/** An error is no data: of the cause of a job that stopped by policy its sentence is kept. */
export function endOf(job: { readonly name: string; readonly run: string | undefined }, at: number, outcome: JobResult | Error): JobEnd {
  const whose = { job: job.name, at, ...(job.run === undefined ? {} : { run: job.run }) };
  if (outcome instanceof Error) return { ...whose, failure: failureOf(outcome) };
  return { ...whose, result: outcome.cause === undefined ? outcome : { ...outcome, cause: failureOf(outcome.cause) } };
}

export function resultOf(end: JobEnd): JobResult {
  if ('failure' in end) throw errorOfFailure(end.failure);
  const { cause } = end.result;
  return cause === undefined ? end.result : { ...end.result, cause: errorOfFailure(cause as Failure) };
}

/**
 * Of a run that had begun under a leader before: whether it was over when that died, and how it ended, as far as the registry says. Undefined: it was not. One that
 * finished is asked for its result instead.
 */
export function endedBefore(name: string, outcome: Outcome | undefined, newest: CheckpointInfo | undefined): JobResult | MillraceError | undefined {
  if (outcome === undefined || outcome === 'running' || outcome === 'finished') return undefined;
  if (outcome === 'failed')
    return new MillraceError('RUNTIME_FAILED', `The job '${name}' failed, and who led it died before it could say why.`, {
      todo: 'Look at the log of that process, and start the job again.',
    });
  return { status: outcome, restarts: 0, ...(newest === undefined || outcome === 'cancelled' ? {} : { checkpoint: newest }) };
}
