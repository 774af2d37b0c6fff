// What tests of whole jobs share: a source that emits when the test says so, a transactional sink whose commits the test sees, and conditions to await.
//
// Nothing here sleeps: a test awaits `feed.taken()` (everything fed has been handed to the task), `store.until(...)` or `watch.until(...)`.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Job, JobEvent, job, ReadContext, RunningJob, RunOptions, Sink, SinkContext, Source, TransactionalSink } from 'millrace';
import { onTestFinished } from 'vitest';
import { jobsOf } from '../../src/api/job.ts';
import { arraySource } from '../../src/connectors/arrays.ts';
import { iterableSource } from '../../src/connectors/iterables.ts';
import { JobRun } from '../../src/execution/job-run.ts';
import { operatorOf } from '../../src/operators/operator-of.ts';
import { type Io, systemIo } from '../../src/runtime/io.ts';

export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true, maxRetries: 3 }));
  return folder;
}

/** Promises that resolve when something that a test looks at has changed and holds. */
export class Conditions {
  #waiting: { readonly holds: () => boolean; readonly resolve: () => void }[] = [];

  until(holds: () => boolean): Promise<void> {
    if (holds()) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ holds, resolve }));
  }

  changed(): void {
    const held = this.#waiting.filter((w) => w.holds());
    this.#waiting = this.#waiting.filter((w) => !held.includes(w));
    for (const { resolve } of held) resolve();
  }
}

interface FeedSplit<T> {
  readonly batches: { readonly values: T[]; readonly timestamps: number[] | undefined }[];
  ended: boolean;
  /** How many batches have been taken and come back for more in the read that runs; less than none where it was aborted and no other runs yet. */
  reached: number;
  reads: number;
}

/** Replayable: a position is the number of batches read. Splits may be added while a job runs. */
export class Feed<T> implements Source<T, string, number> {
  readonly bounded: boolean;
  readonly #splits = new Map<string, FeedSplit<T>>();
  readonly #conditions = new Conditions();
  #found: boolean;
  reads: { split: string; from: number | undefined; subtask: number }[] = [];

  /** Without names of splits there is one, 'all'. With `open`, more may be added until `end()`. */
  constructor(options: { bounded?: boolean; splits?: readonly string[]; open?: boolean } = {}) {
    this.bounded = options.bounded ?? true;
    for (const name of options.splits ?? ['all']) this.#add(name);
    this.#found = options.open !== true;
  }

  #add(name: string): void {
    this.#splits.set(name, { batches: [], ended: false, reached: 0, reads: 0 });
  }

  addSplit(name: string): this {
    this.#add(name);
    this.#conditions.changed();
    return this;
  }

  push(values: T[], timestamps?: number[], split = 'all'): this {
    this.#splits.get(split)!.batches.push({ values, timestamps });
    this.#conditions.changed();
    return this;
  }

  end(split?: string): this {
    for (const [name, of] of this.#splits) if (split === undefined || split === name) of.ended = true;
    if (split === undefined) this.#found = true;
    this.#conditions.changed();
    return this;
  }

  /** Every batch pushed has been consumed by the source task of the attempt that runs. */
  taken(split?: string): Promise<void> {
    return this.#conditions.until(() => [...this.#splits].every(([name, s]) => (split !== undefined && split !== name) || s.reached >= s.batches.length));
  }

  async *splits({ signal }: { readonly signal: AbortSignal }): AsyncGenerator<string[]> {
    const wake = (): void => this.#conditions.changed();
    signal.addEventListener('abort', wake);
    let given = 0;
    for (;;) {
      const names = [...this.#splits.keys()];
      if (names.length > given) {
        yield names.slice(given);
        given = names.length;
      }
      if (this.#found && this.#splits.size === given) return;
      await this.#conditions.until(() => this.#found || this.#splits.size > given || signal.aborted);
      if (signal.aborted) return;
    }
  }

  splitId(split: string): string {
    return split;
  }

  async *read(split: string, from: number | undefined, { signal, subtask }: ReadContext) {
    const of = this.#splits.get(split)!;
    const wake = (): void => this.#conditions.changed();
    signal.addEventListener('abort', wake);
    this.reads.push({ split, from, subtask });
    const read = ++of.reads;
    for (let at = from ?? 0; ; at++) {
      of.reached = at;
      this.#conditions.changed();
      await this.#conditions.until(() => at < of.batches.length || of.ended || signal.aborted);
      if (signal.aborted && of.reads === read) of.reached = -1;
      if (signal.aborted || at >= of.batches.length) return;
      const { values, timestamps } = of.batches[at]!;
      yield { values: [...values], ...(timestamps === undefined ? {} : { timestamps: [...timestamps] }), position: at + 1 };
    }
  }
}

export interface Commit<T> {
  readonly uid: string;
  readonly lineage: string;
  readonly writer: string;
  readonly attempt: number;
  readonly checkpoint: number;
  readonly records: readonly T[];
}

/** A store with transactions: records and marker together, older attempts of an identity fenced at open. It outlives every job of a test. */
export class Store<T> implements TransactionalSink<T, T> {
  readonly transactional = true as const;
  readonly commits: Commit<T>[] = [];
  readonly opened: string[] = [];
  readonly closed: string[] = [];
  readonly fences = new Map<string, number>();
  readonly #markers = new Map<string, number>();
  readonly #conditions = new Conditions();
  /** Called with everything that is to be committed, before it is; may wait or throw. */
  before: (context: SinkContext, checkpoint: number) => void | Promise<void> = () => {};
  /** Called after it was committed: an error here is one of unknown outcome. */
  after: (context: SinkContext, checkpoint: number) => void | Promise<void> = () => {};

  async open(context: SinkContext) {
    const identity = `${context.uid}/${context.lineage}/${context.writer}`;
    this.opened.push(identity);
    this.fences.set(identity, Math.max(this.fences.get(identity) ?? 0, context.attempt));
    return {
      commit: async (checkpoint: number, records: Iterable<T>): Promise<void> => {
        const held = [...records];
        await this.before(context, checkpoint);
        if (this.fences.get(identity)! > context.attempt) throw new Error(`attempt ${context.attempt} of ${identity} is fenced`);
        if (checkpoint <= (this.#markers.get(identity) ?? 0)) throw new Error(`${identity} commits ${checkpoint} again`);
        const { uid, lineage, writer, attempt } = context;
        this.commits.push({ uid, lineage, writer, attempt, checkpoint, records: held });
        this.#markers.set(identity, checkpoint);
        this.#conditions.changed();
        await this.after(context, checkpoint);
      },
      lastCommitted: async (): Promise<number> => this.#markers.get(identity) ?? 0,
      close: async (): Promise<void> => {
        this.closed.push(identity);
        this.#conditions.changed();
      },
    };
  }

  /** Resolves when so many writers have been closed. */
  closes(count: number): Promise<void> {
    return this.#conditions.until(() => this.closed.length >= count);
  }

  get records(): T[] {
    return this.commits.flatMap((c) => c.records);
  }

  until(holds: (records: T[]) => boolean): Promise<void> {
    return this.#conditions.until(() => holds(this.records));
  }
}

/** A plain sink that the test can await. */
export class Seen<T> implements Sink<T> {
  readonly values: T[] = [];
  readonly timestamps: number[] = [];
  readonly #conditions = new Conditions();

  async open() {
    return {
      write: (values: readonly T[], timestamps: readonly number[]): void => {
        this.values.push(...values);
        this.timestamps.push(...timestamps);
        this.#conditions.changed();
      },
      async flush(): Promise<void> {},
      async close(): Promise<void> {},
    };
  }

  until(holds: (values: T[]) => boolean): Promise<void> {
    return this.#conditions.until(() => holds(this.values));
  }
}

/** The events of a job, and promises for those to come. */
export class Watch {
  readonly events: JobEvent[] = [];
  readonly #conditions = new Conditions();
  readonly onEvent = (event: JobEvent): void => {
    this.events.push(event);
    this.#conditions.changed();
  };

  of<K extends JobEvent['type']>(type: K): Extract<JobEvent, { type: K }>[] {
    return this.events.filter((e): e is Extract<JobEvent, { type: K }> => e.type === type);
  }
  until(holds: (watch: this) => boolean): Promise<void> {
    return this.#conditions.until(() => holds(this));
  }
  /** The n-th restart has come to an end: every task runs again. */
  restarted(n = 1): Promise<void> {
    return this.until(() => {
      const at = this.events.findIndex((e) => e.type === 'restart' && e.count === n);
      return at !== -1 && this.events.slice(at).some((e) => e.type === 'status' && e.status === 'running');
    });
  }
}

/** Starts a job with faults set (src/runtime/io.ts), as MILLRACE_FAULTS does for a whole process. */
export function startWithFaults(job: Job, faults: string, options: RunOptions): Promise<RunningJob> {
  process.env['MILLRACE_FAULTS'] = faults;
  try {
    return job.start(options);
  } finally {
    delete process.env['MILLRACE_FAULTS'];
  }
}

/** Quick restarts, without randomness. */
export const RESTARTS = { max: 100, within: 60_000, backoff: { initial: 1, max: 1, factor: 1, jitter: 0 } };

/** Checkpoints only when the test asks for one. */
export function checkpointsIn(folder: string, options: { retain?: number; tolerate?: number; timeout?: number } = {}) {
  return { directory: join(folder, 'checkpoints'), every: 3_600_000, ...options };
}

/** Ends a job that a test has left running. */
export function ends(running: RunningJob): RunningJob {
  running.finished.catch(() => {});
  onTestFinished(async () => {
    await running.cancel().catch(() => {});
  });
  return running;
}

export async function rejection(promise: Promise<unknown>): Promise<Error & { code?: string; uid?: string; todo?: string; retryable?: boolean }> {
  try {
    await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error('it was expected to reject');
}

/** `job` on a port to disk and clock of the test's own: its `step` may fail where it likes. */
export function jobOn(step: (name: string) => Promise<void> | undefined): typeof job {
  return jobOnIo({ ...systemIo(), step });
}

export function jobOnIo(io: Io): typeof job {
  return jobsOf({
    arraySource,
    iterableSource,
    async start(definition, options) {
      const run = new JobRun(definition, options, { operators: operatorOf, io });
      await run.start();
      return run as unknown as RunningJob;
    },
  });
}
