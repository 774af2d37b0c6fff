// What the tests of connectors share: contexts, a folder that goes away, and reading a source to its end.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { SILENT } from '../../src/graph/context.ts';
import type { SinkContext } from '../../src/graph/sink.ts';
import type { ReadContext, Source, SourceContext } from '../../src/graph/source.ts';

export const NO_METRICS = { counter: () => ({ inc() {} }), gauge() {}, histogram: () => ({ record() {} }) };

export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export function sourceContext(options: Partial<SourceContext> = {}): SourceContext {
  return { uid: 'in', signal: new AbortController().signal, log: SILENT, metrics: NO_METRICS, parallelism: 1, known: new Set(), ended: new Map(), ...options };
}

export interface Letter {
  readonly record: unknown;
  readonly error: unknown;
}

export function readContext(letters: Letter[] = [], options: Partial<ReadContext> = {}): ReadContext {
  return {
    uid: 'in',
    signal: new AbortController().signal,
    log: SILENT,
    metrics: NO_METRICS,
    parallelism: 1,
    subtask: 0,
    deadLetter: (record, error) => void letters.push({ record, error }),
    ...options,
  };
}

export function sinkContext(options: Partial<SinkContext> = {}): SinkContext {
  return {
    uid: 'out',
    job: 'job',
    writer: '0',
    lineage: 'abc',
    attempt: 1,
    restored: undefined,
    signal: new AbortController().signal,
    log: SILENT,
    metrics: NO_METRICS,
    ...options,
  };
}

/** All splits known at once. */
export async function splitsOf<T, S, P>(source: Source<T, S, P>, options: Partial<SourceContext> = {}): Promise<S[]> {
  const answer = source.splits(sourceContext(options));
  if (answer instanceof Promise) return answer;
  throw new Error('the splits are an iterable');
}

export async function batchesOf<T, S, P>(
  source: Source<T, S, P>,
  split: S,
  from?: P,
  context = readContext(),
): Promise<{ values: T[]; timestamps?: number[]; position: P }[]> {
  const batches: { values: T[]; timestamps?: number[]; position: P }[] = [];
  for await (const batch of source.read(split, from, context)) batches.push(batch);
  return batches;
}

export async function valuesOf<T, S, P>(source: Source<T, S, P>, split: S, from?: P, context = readContext()): Promise<T[]> {
  return (await batchesOf(source, split, from, context)).flatMap(({ values }) => values);
}
