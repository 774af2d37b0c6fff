// What the conformance suites of connectors stand on: contexts, patience, comparing what was read or written, and jobs in a folder of their own on the real engine.
//
// Invariant: nothing is left behind: folders are removed, attempts aborted, jobs ended, whatever a case came to.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encode } from '../../state-backends/index.ts';
import { definitionOf, jobsOf, type StreamEnvironment } from '../api/job.ts';
import { MillraceError } from '../errors.ts';
import { JobRun } from '../execution/job-run.ts';
import { SILENT } from '../graph/context.ts';
import type { JobEvent, RunOptions } from '../graph/job.ts';
import type { SinkContext } from '../graph/sink.ts';
import type { ReadContext, Source, SourceContext } from '../graph/source.ts';
import { operatorOf } from '../operators/operator-of.ts';
import { systemIo } from '../runtime/io.ts';

const NO_METRICS = { counter: () => ({ inc() {} }), gauge() {}, histogram: () => ({ record() {} }) };

export function sourceContextOf(signal: AbortSignal): SourceContext {
  return { uid: 'in', signal, log: SILENT, metrics: NO_METRICS, parallelism: 1, known: new Set(), ended: new Map() };
}

export function readContextOf(signal: AbortSignal, letters: unknown[] = []): ReadContext {
  return { uid: 'in', signal, log: SILENT, metrics: NO_METRICS, parallelism: 1, subtask: 0, deadLetter: (record) => void letters.push(record) };
}

export function sinkContextOf(given: Partial<SinkContext>): SinkContext {
  const never = new AbortController().signal;
  return {
    uid: 'out',
    job: 'trial',
    writer: '0',
    lineage: 'trial',
    attempt: 1,
    restored: undefined,
    signal: never,
    log: SILENT,
    metrics: NO_METRICS,
    ...given,
  };
}

/** Fails where nothing comes for so long: a connector that hangs is wrong, and one that is slow is not. */
export async function within<R>(ms: number, what: string, promise: Promise<R>): Promise<R> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new assert.AssertionError({ message: `${what}: nothing for ${ms} ms` })), ms);
  });
  try {
    return await Promise.race([promise, over]);
  } finally {
    clearTimeout(timer);
  }
}

/** Equal as values that a snapshot can hold are; the order counts not. */
export function sameRecords(found: readonly unknown[], expected: readonly unknown[], what: string): void {
  const counted = (values: readonly unknown[]): Map<string, { value: unknown; count: number }> => {
    const counts = new Map<string, { value: unknown; count: number }>();
    for (const value of values) {
      const key = keyOf(value);
      counts.set(key, { value, count: (counts.get(key)?.count ?? 0) + 1 });
    }
    return counts;
  };
  const [left, right] = [counted(found), counted(expected)];
  const missing = [...right].filter(([key, { count }]) => (left.get(key)?.count ?? 0) < count).map(([, { value }]) => value);
  const extra = [...left].filter(([key, { count }]) => (right.get(key)?.count ?? 0) < count).map(([, { value }]) => value);
  assert.deepEqual({ missing, extra }, { missing: [], extra: [] }, `${what}: records are missing, or there too often`);
}

/** The same for equal values. */
export function keyOf(value: unknown): string {
  return Buffer.from(encode(value)).toString('latin1');
}

/** Promises for what comes to hold. */
export class Turning {
  #wakes: (() => void)[] = [];

  changed(): void {
    const woken = this.#wakes;
    this.#wakes = [];
    for (const wake of woken) wake();
  }

  async until(holds: () => boolean): Promise<void> {
    while (!holds()) await new Promise<void>((resolve) => void this.#wakes.push(resolve));
  }
}

/** Numbers below `count` in four splits, no further than it is let. */
export class LetThrough {
  allowed = 0;
  readonly #count: number;
  readonly #turning = new Turning();

  constructor(count: number) {
    this.#count = count;
  }

  allow(count: number): void {
    this.allowed = count;
    this.#turning.changed();
  }

  readonly source: Source<number, number, number> = {
    bounded: true,
    splits: async () => [0, 1, 2, 3],
    splitId: (split) => `split-${split}`,
    read: (split, from, { signal }) => this.#read(split, from ?? split, signal),
  };

  async *#read(_: number, from: number, signal: AbortSignal): AsyncGenerator<{ values: number[]; position: number }> {
    const wake = (): void => this.#turning.changed();
    signal.addEventListener('abort', wake);
    for (let n = from; n < this.#count; n += 4) {
      await this.#turning.until(() => n < this.allowed || signal.aborted);
      if (signal.aborted) return;
      yield { values: [n], position: n + 4 };
    }
  }
}

/** A job on the real engine. */
export interface TrialRun {
  readonly run: JobRun;
  readonly finished: Promise<unknown>;
  /** The region has been restored so often, and runs again. */
  restarted(times: number): Promise<void>;
}

/** Runs jobs one after the other in one folder of checkpoints, each going on where the one before left off. */
export async function withJobs(
  work: (start: (build: (env: StreamEnvironment) => void, options: RunOptions) => Promise<TrialRun>) => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-trial-'));
  const runs: JobRun[] = [];
  const jobOf = jobsOf({ arraySource: noSource, iterableSource: noSource, start: async () => noSource() });
  try {
    await work(async (build, options) => {
      const events: JobEvent[] = [];
      const turning = new Turning();
      const run = new JobRun(
        definitionOf(jobOf('trial', build)),
        {
          checkpoints: { directory: folder, every: 3_600_000 },
          restarts: { max: 10, within: 60_000, backoff: { initial: 1, max: 1 } },
          ...options,
          onEvent: (event) => {
            events.push(event);
            turning.changed();
          },
        },
        { operators: operatorOf, io: systemIo() },
      );
      runs.push(run);
      await run.start();
      const ended = (): boolean => events.some((event) => event.type === 'status' && ['finished', 'failed', 'cancelled', 'stopped'].includes(event.status));
      return {
        run,
        finished: run.finished,
        restarted: async (times) => {
          const holds = (): boolean => {
            const at = events.findIndex((event) => event.type === 'restart' && event.count === times);
            return at >= 0 && events.slice(at).some((event) => event.type === 'status' && event.status === 'running');
          };
          await turning.until(() => holds() || ended());
          // What it failed with is said.
          if (!holds()) await run.finished;
          assert.ok(holds(), 'the job ended without a restart');
        },
      };
    });
  } finally {
    for (const run of runs) {
      await run.cancel().catch(() => {
        // It has ended already.
      });
    }
    await rm(folder, { recursive: true, force: true });
  }
}

function noSource(): never {
  throw new MillraceError('PLAN_INVALID', 'A trial has no such source.');
}
