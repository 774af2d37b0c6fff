// A job as it is led in one term: started from its registry, ended as the job store says, its end told to everybody.
//
// Who owns what: it owns the run (execution/job-run.ts), which knows nothing of clusters but its registry; the term says until when anything may be written.
//
// Invariants:
//  D1  Nothing is written once the term is over: the registry and the store check its epoch, every step of the run its lease (protocols 17, 18). What the term leaves
//      behind is abandoned, and is another leader's.
//  D2  What a job is to be restored from counts until its lineage has begun; from then on it goes on from its newest checkpoint, whoever leads.
//  D3  A run that was over before its leader died is not run again: its registry says so (protocols 20).
//  D4  A job ends once: by itself, or as the store says, which outlives this leader.

import { asError, codeOf, isDeposed, MillraceError, messageOf } from '../errors.ts';
import { type Internals, JobRun } from '../execution/job-run.ts';
import { hopeless, type LossFacts, type LossRow, lossLimits, NO_LOSSES, rowNow, withLoss } from '../execution/losses.ts';
import type { Hosts } from '../execution/region.ts';
import { decideRestart, policyOf } from '../execution/restarts.ts';
import { bare } from '../execution/snapshots.ts';
import type { StateQueries } from '../execution/state-queries.ts';
import type { Logger } from '../graph/context.ts';
import type { CheckpointInfo, CheckpointOptions, JobEvent, JobResult, JobStatus, Key, RunOptions } from '../graph/job.ts';
import type { Node } from '../graph/node.ts';
import { type Range, rangeOf } from '../graph/parallelism.ts';
import type { Io } from '../runtime/io.ts';
import { decideScaling, type Room, seen, targetOf } from './elasticity.ts';
import { endedBefore, endOf } from './ends.ts';
import { shareStorage } from './shared-storage.ts';
import type { Client } from './zookeeper/client.ts';
import { deposed, type Term } from './zookeeper/election.ts';
import { isPassing } from './zookeeper/errors.ts';
import type { JobStore, Until, WantedJob } from './zookeeper/job-store.ts';
import { ZooKeeperRegistry } from './zookeeper/registry.ts';

/** A job that this process can run. */
export interface OfferedJob {
  readonly definition: { readonly name: string; build(): Node[] };
  /** As this replica was started. */
  readonly options: RunOptions;
  /** What members compare (worker.ts). */
  readonly planHash: string;
}

/** What every replica sees of a job. */
export interface JobState {
  /** Rises within a term. */
  readonly version: number;
  readonly status: JobStatus;
  readonly restoredFrom?: CheckpointInfo | undefined;
  readonly parallelism?: number | undefined;
}

export interface LedJobOptions {
  readonly client: Client;
  readonly term: Term;
  readonly store: JobStore;
  readonly wanted: WantedJob;
  readonly offered: OfferedJob;
  readonly internals: Pick<Internals, 'operators' | 'queryable'>;
  readonly hosts: () => Hosts | undefined;
  /** Of the members that can run it. */
  readonly slots: () => number;
  /** This process, how many can run the job, and whether mail goes to that one. */
  readonly self: string;
  readonly workers: () => number;
  readonly reaches: (worker: string) => boolean;
  /** How it stands is another thing than before. */
  readonly changed: () => void;
  /** This program may not run it, and only ends it as the store says. */
  readonly ends?: boolean;
  /** It could not be started from what another version has left; true: another one is to go on, for which `revived` was called first. */
  readonly gaveUp: (error: Error, revived: () => Promise<void>) => Promise<boolean>;
  readonly answerState: (queries: StateQueries, url: string) => Promise<unknown>;
  readonly io: Io;
  readonly log: Logger;
}

const AGAIN_MS = 200;
/** How long who leaves waits at a time for a rescale to be over. */
const MOVE_LOOK_MS = 1000;
/** What a run answers that has ended: with nothing. */
const LOOKS: ReadonlySet<string> = new Set(['tree', 'metrics', 'checkpoints']);

/** What of a start is kept in ZooKeeper, as plain data: from where it begins, and for looking at the rest. */
export function storedOptions({ parallelism, maxParallelism, restarts, restore, version, checkpoints }: RunOptions): Record<string, unknown> {
  const { every, timeout, minPause, retain, mode, unaligned, tolerate } = typeof checkpoints === 'object' ? checkpoints : ({} as CheckpointOptions);
  const settings = { every: every === Number.POSITIVE_INFINITY ? 'never' : every, timeout, minPause, retain, mode, unaligned, tolerate };
  const all = { parallelism, maxParallelism, restarts, restore, version, checkpoints: typeof checkpoints === 'object' ? settings : false };
  return JSON.parse(JSON.stringify(all)) as Record<string, unknown>;
}

/** Names of options that another replica was started with otherwise. */
export function differing(stored: Readonly<Record<string, unknown>>, own: RunOptions): string[] {
  const ours = storedOptions(own);
  const names = new Set([...Object.keys(ours), ...Object.keys(stored)]);
  return [...names].filter((name) => name !== 'restore' && name !== 'rescaled' && JSON.stringify(stored[name]) !== JSON.stringify(ours[name]));
}

/** Options are of whoever leads, as the program is: a deployment that changes them is in force once one of its replicas leads. Where to begin is the submission's (D2). */
export function optionsFor(wanted: Pick<WantedJob, 'options'>, own: RunOptions, begun: boolean): RunOptions {
  const { signal: _signal, control: _control, cluster: _cluster, worker: _worker, ...ours } = own;
  return {
    ...ours,
    parallelism: parallelismFor(wanted, own),
    restore: begun ? 'latest' : ((wanted.options.restore as RunOptions['restore']) ?? 'latest'),
    wait: false,
  };
}

/** A rescale by hand stays in force under the next leader, unless its replica asks for another parallelism than the one that was rescaled. */
export function parallelismFor({ options }: Pick<WantedJob, 'options'>, own: RunOptions): RunOptions['parallelism'] {
  const { rescaled, parallelism } = options;
  return typeof rescaled === 'number' && JSON.stringify(parallelism) === JSON.stringify(own.parallelism) ? rescaled : own.parallelism;
}

export class LedJob {
  readonly name: string;
  readonly run: string | undefined;
  /** Resolves when nothing of it is left here: it has ended, or is another leader's. Rejects where this process cannot lead it. */
  readonly over: Promise<void>;
  readonly #options: LedJobOptions;
  readonly #io: Io;
  readonly #waiting = new Set<() => void>();
  #job: JobRun | undefined;
  #until: Until;
  #begun: boolean;
  /** Whether the store says that this plan is in force. */
  #planned: boolean;
  #version = 1;
  #status: JobStatus = 'starting';
  #abandoned: Error | undefined;
  readonly #left = new AbortController();
  /** The last pass over what is wanted of it. */
  #told: Until | undefined;
  #room: Room | undefined;
  #rescaledAt = 0;
  #rescaled: number | undefined;
  /** How many instances it ran with last. */
  #scaled: number | undefined;
  #scaling: unknown;
  #losses: LossRow = NO_LOSSES;

  constructor(options: LedJobOptions) {
    const { wanted, term, io } = options;
    this.#options = options;
    this.name = wanted.name;
    this.run = wanted.run;
    this.#until = wanted.until;
    this.#begun = wanted.begun ?? false;
    this.#planned = wanted.plan === options.offered.planHash;
    // D1.
    this.#io = { ...io, step: (name) => (term.isLeader() ? io.step(name) : Promise.reject(deposed(term.epoch))) };
    this.over = this.#live();
    this.over.catch(() => {});
  }

  // ── what is seen of it ──

  get state(): JobState {
    const job = this.#job;
    return { version: this.#version, status: this.#status, restoredFrom: job?.restoredFrom, parallelism: job?.parallelism };
  }

  /** Resolves when it is newer than that version, or after so many milliseconds. */
  async newer(version: number, withinMs: number): Promise<JobState> {
    if (this.#version <= version) {
      await new Promise<void>((resolve) => {
        const done = (): void => {
          clearTimeout(timer);
          this.#waiting.delete(done);
          resolve();
        };
        const timer = setTimeout(done, withinMs);
        this.#waiting.add(done);
      });
    }
    if (this.#abandoned !== undefined && isDeposed(this.#abandoned)) throw this.#abandoned;
    return this.state;
  }

  #changed(status?: JobStatus): void {
    if (status !== undefined) this.#status = status;
    this.#version += 1;
    for (const wake of [...this.#waiting]) wake();
    this.#options.changed();
  }

  /** Whether another version may take it over: it is not about to end, and no start of it is under way that goes by itself. */
  get handable(): boolean {
    const job = this.#job;
    return (
      this.#until.kind === 'end' && this.#abandoned === undefined && job?.launched === true && !job.ending && !job.rescaling && this.#status !== 'stopping'
    );
  }

  /** The newest checkpoint, which is taken where there is none yet, stays while it is read; undefined: there are none. */
  readingNewest<T>(read: (newest: CheckpointInfo | undefined) => Promise<T>): Promise<T> {
    return this.#running().readingNewest(read);
  }

  // ── what is wanted of it ──

  /** What the store says. */
  until(until: Until): void {
    this.#until = until;
    this.#obey();
  }

  /** D4. */
  #obey(): void {
    const job = this.#job;
    const until = this.#until;
    // Who waits to try again looks first.
    if (job === undefined) for (const wake of [...this.#waiting]) wake();
    if (job === undefined || until.kind === 'end' || this.#told?.kind === until.kind) return;
    this.#told = until;
    const { log } = this.#options;
    if (until.kind === 'cancel') {
      job.cancel().catch(() => {
        // Told by `finished`.
      });
      return;
    }
    const { drain, savepoint } = until;
    const stopping = savepoint === undefined || this.#stopsWith === savepoint ? job.stop({ drain }) : job.stop({ drain, savepoint });
    stopping.catch((error) => {
      if (job.ending || this.#abandoned !== undefined || codeOf(error) === 'JOB_ENDED') return;
      // Another leader had begun to write that savepoint, and died.
      log.warn({ error: messageOf(error) }, `'${this.name}' is stopped without the savepoint that was asked for.`);
      job.stop({ drain }).catch(() => {});
    });
  }

  /** The folder of a stop that was asked for here. */
  #stopsWith: string | undefined;

  /** A stop whose savepoint is prepared here, before the store is told. */
  async #stopWith({ drain = false, savepoint }: { drain?: boolean; savepoint: string }): Promise<void> {
    const job = this.#running();
    this.#stopsWith = savepoint;
    const stopping = job.stop({ drain, savepoint });
    const refused = stopping.then(
      () => undefined,
      (error: unknown) => (job.ending ? undefined : asError(error)),
    );
    const begun = new Promise<undefined>((resolve) => {
      const look = (): void => {
        if (job.status !== 'stopping' && !job.ending) return;
        this.#waiting.delete(look);
        resolve(undefined);
      };
      this.#waiting.add(look);
      look();
    });
    const error = await Promise.race([refused, begun]);
    if (error !== undefined) {
      this.#stopsWith = undefined;
      throw error;
    }
    await this.#options.store.until(this.name, { kind: 'stop', drain, savepoint }, this.run);
  }

  /** A question about the job, or a wish. */
  async ask(method: string, args: unknown): Promise<unknown> {
    const job = this.#running();
    try {
      const answer = await this.#asked(job, method, args);
      // A run that is being left shows nothing of itself any more, as one that is over; the job is not.
      if (!LOOKS.has(method) || !this.#isLeft(job)) return answer;
      throw new MillraceError('JOB_ENDED', `What ran of '${this.name}' under this leader has ended.`);
    } catch (error) {
      if (!this.#isLeft(job) && (this.#abandoned === undefined || !isDeposed(this.#abandoned))) throw error;
      throw new MillraceError('LEADER_UNREACHABLE', `Who led the job '${this.name}' has stood back while it was asked.`, {
        todo: 'Try again: another replica leads by now.',
        cause: error,
      });
    }
  }

  #isLeft(job: JobRun): boolean {
    return this.#left.signal.aborted && job.ending;
  }

  async #asked(job: JobRun, method: string, args: unknown): Promise<unknown> {
    const of = args as {
      readonly uid: string;
      readonly state: string;
      readonly key?: Key;
      readonly directory: string;
      readonly parallelism: number;
      readonly url: string;
    };
    switch (method) {
      case 'tree':
        return job.tree();
      case 'metrics':
        return job.metrics();
      case 'checkpoints':
        return job.checkpoints();
      case 'checkpoint':
        return job.checkpoint();
      case 'savepoint':
        return job.savepoint(of.directory);
      case 'query':
        return { value: await job.query(of.uid, of.state, of.key) };
      case 'door state':
        return this.#options.answerState(job.state, of.url);
      case 'rescale':
        return this.#rescaleByHand(of.parallelism);
      case 'stop':
        return this.#stopWith(args as { drain?: boolean; savepoint: string });
      default:
        throw new MillraceError('OPTION_INVALID', `A leader is not asked for '${method}'.`, { todo: 'Run the same version of Millrace everywhere.' });
    }
  }

  #running(): JobRun {
    if (this.#abandoned !== undefined) throw this.#abandoned;
    if (this.#job?.launched !== true) throw new MillraceError('JOB_NOT_FOUND', `The job '${this.name}' is being started.`, { todo: 'Try again.' });
    return this.#job;
  }

  // ── elasticity ──

  async #rescaleByHand(parallelism: number): Promise<unknown> {
    const { store, term, wanted, offered } = this.#options;
    const { min, max } = this.#range;
    if (min !== max)
      throw new MillraceError('RESCALE_REFUSED', `The job '${this.name}' is rescaled by the slots of its workers, between ${min} and ${max}.`, {
        todo: 'Add or remove workers, or give it one parallelism.',
        retryable: false,
      });
    const done = await this.#rescale(parallelism);
    this.#rescaled = parallelism;
    await store.noted(term, this.name, this.run, { ...wanted.options, parallelism: offered.options.parallelism, rescaled: parallelism });
    return done;
  }

  get #range(): Range {
    const { wanted, offered } = this.#options;
    return rangeOf(this.#rescaled ?? parallelismFor(wanted, offered.options));
  }

  async #rescale(parallelism: number): Promise<unknown> {
    const done = await this.#running().rescale(parallelism);
    this.#rescaledAt = this.#io.elapsed();
    this.#changed();
    return done;
  }

  /** Off a worker that is about to leave, and is placed on no more: behind a last checkpoint, so that nothing is repeated. */
  async move(): Promise<void> {
    // A rescale that is under way may have placed its tasks by then.
    while (this.#job?.rescaling === true && !this.#job.ending) await this.newer(this.#version, MOVE_LOOK_MS);
    const job = this.#job;
    if (job?.status !== 'running') return;
    const { min, max } = this.#range;
    await this.#rescale(min === max ? job.parallelism : (targetOf({ min, max }, this.#options.slots()) ?? min));
  }

  /** Members have come or gone, or a wait is over. */
  resized(): void {
    const { slots, log, term } = this.#options;
    const range = this.#range;
    const job = this.#job;
    const now = this.#io.elapsed();
    this.#room = seen(this.#room, range, slots(), now);
    this.#io.clock.clearTimeout(this.#scaling);
    if (range.min === range.max || job === undefined || job.status !== 'running' || term.ended.aborted) return;
    const decision = decideScaling(this.#room, { current: job.parallelism, rescaledAt: this.#rescaledAt, now });
    if (decision.kind === 'wait') this.#scaling = this.#io.clock.setTimeout(() => this.resized(), decision.ms);
    if (decision.kind !== 'rescale') return;
    log.info(
      { from: job.parallelism, to: decision.to },
      `'${this.name}' is rescaled from ${job.parallelism} to ${decision.to} instances, as there is room for.`,
    );
    this.#rescaledAt = now;
    this.#rescale(decision.to).catch((error) => {
      log.warn({ error: messageOf(error) }, `'${this.name}' could not be rescaled; it is tried again.`);
      this.resized();
    });
  }

  // ── its life ──

  async #live(): Promise<void> {
    const { term, store, wanted, io } = this.#options;
    try {
      const outcome = await this.#ran();
      if (outcome === undefined) return;
      await this.#insists(() => store.ended(term, endOf({ name: this.name, run: this.run }, io.clock.now(), outcome)));
      this.#changed(outcome instanceof Error ? 'failed' : outcome.status);
    } catch (error) {
      // D1.
      if (!isDeposed(error) && !term.ended.aborted) throw error;
    } finally {
      this.#abandoned ??= new MillraceError('JOB_ENDED', `The job '${wanted.name}' has ended.`);
      this.#io.clock.clearTimeout(this.#scaling);
      for (const wake of [...this.#waiting]) wake();
    }
  }

  /** Undefined: it is another leader's. */
  async #ran(): Promise<JobResult | Error | undefined> {
    const { offered, wanted, store, term, log, gaveUp } = this.#options;
    const policy = policyOf(offered.options.restarts);
    let stamps: readonly number[] = [];
    let looked = false;
    for (;;) {
      const begun = this.#begun;
      let job: JobRun;
      try {
        // A start of ours that has failed is not over; it may have been cancelled since.
        const over = looked ? await this.#cancelledBefore() : await this.#overBefore();
        const lost = over !== undefined || looked ? undefined : await this.#tooManyLost();
        if (over !== undefined || lost !== undefined) {
          await this.#endsStanding();
          return over ?? lost;
        }
        looked = true;
        // With checkpoints it is said when the lineage begins.
        if (typeof offered.options.checkpoints !== 'object' && !this.#planned) {
          await store.planned(term, [{ name: this.name, run: this.run, plan: offered.planHash }]);
          this.#planned = true;
        }
        // Whoever leaves has not seen a run that is made behind its back.
        if (this.#left.signal.aborted) return undefined;
        job = this.#made(optionsFor(wanted, offered.options, begun));
        const started = job.start();
        this.#obey();
        await started;
      } catch (error) {
        if (isDeposed(error) || this.#left.signal.aborted) return undefined;
        if (codeOf(error) === 'STORAGE_NOT_SHARED') throw error;
        // ZooKeeper was away, which is no fault of the job.
        if (isPassing(error)) {
          this.#job = undefined;
          await this.#pause(AGAIN_MS);
          continue;
        }
        // The first start is refused as in one process. What has run, somebody relies on.
        const { retryable } = error as { retryable?: boolean };
        const decision = decideRestart(policy, { now: this.#io.clock.now(), stamps, retryable: begun && retryable !== false, random: this.#io.random() });
        if (decision.kind === 'give up') {
          this.#job = undefined;
          return begun && retryable === false && (await gaveUp(asError(error), () => this.#revived())) ? undefined : asError(error);
        }
        stamps = decision.stamps;
        log.warn({ error: messageOf(error), inMs: Math.round(decision.afterMs) }, `'${this.name}' could not be started; it is tried again.`);
        this.#job = undefined;
        await this.#pause(decision.afterMs);
        continue;
      }
      this.resized();
      try {
        return await job.finished;
      } catch (error) {
        return isDeposed(error) ? undefined : asError(error);
      }
    }
  }

  /** Until the next try; no longer where there is to be none. */
  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const over = (): void => {
        this.#io.clock.clearTimeout(timer);
        this.#left.signal.removeEventListener('abort', over);
        this.#waiting.delete(look);
        resolve();
      };
      const look = (): void => {
        if (this.#until.kind === 'cancel') over();
      };
      const timer = this.#io.clock.setTimeout(over, ms);
      this.#left.signal.addEventListener('abort', over, { once: true });
      this.#waiting.add(look);
      if (this.#left.signal.aborted) over();
    });
  }

  /** What an older leader has left running is nobody's any more. */
  async #endsStanding(): Promise<void> {
    const hosts = this.#options.hosts();
    await hosts?.settle?.(new Set());
    await hosts?.close();
  }

  /** D3. */
  async #overBefore(): Promise<JobResult | Error | undefined> {
    const { offered, ends = false } = this.#options;
    if (typeof offered.options.checkpoints !== 'object') {
      return ends && this.#until.kind === 'stop' ? { status: 'stopped', restarts: 0 } : this.#cancelledBefore();
    }
    const registry = await this.#registry(undefined);
    if (this.#begun) {
      const outcome = await registry.outcome();
      const newest = outcome === 'stopped' ? (await registry.checkpoints()).at(-1) : undefined;
      const over = endedBefore(this.name, outcome, newest === undefined ? undefined : bare(newest));
      if (over !== undefined) return over;
      if (outcome === 'finished') return registry.result();
    }
    if (ends && this.#until.kind === 'stop') {
      const newest = await this.#newest(registry);
      await registry.setOutcome('stopped');
      return { status: 'stopped', restarts: 0, ...(newest === undefined ? {} : { checkpoint: bare(newest) }) };
    }
    return this.#cancelledBefore();
  }

  /** D4: nothing of it has to be started for that. */
  async #cancelledBefore(): Promise<JobResult | undefined> {
    if (this.#until.kind !== 'cancel') return undefined;
    if (typeof this.#options.offered.options.checkpoints === 'object') await (await this.#registry(undefined)).setOutcome('cancelled');
    return { status: 'cancelled', restarts: 0 };
  }

  // Who led it before and is gone has taken what it ran of it along, and nobody else could count that.
  async #tooManyLost(): Promise<MillraceError | undefined> {
    const { wanted, offered, self, reaches, workers } = this.#options;
    const { by, ...before } = wanted.losses ?? { by: self, ...NO_LOSSES };
    const { max, breaksAfter } = lossLimits(offered.options);
    const newest = this.#begun && typeof offered.options.checkpoints === 'object' ? await this.#newest(await this.#registry(undefined)) : undefined;
    const facts: LossFacts = { checkpoint: newest?.id ?? 0, now: this.#io.clock.now(), breaksAfter };
    const row = by === self || reaches(by) ? rowNow(before, facts) : withLoss(before, by, facts);
    const error = hopeless(this.name, row, max, workers());
    if (error === undefined) await this.#keep(row);
    return error;
  }

  async #keep(row: LossRow): Promise<void> {
    const { store, term, self } = this.#options;
    this.#losses = row;
    await this.#insists(() => store.lost(term, this.name, this.run, { by: self, ...row }));
  }

  async #newest(registry: ZooKeeperRegistry): Promise<CheckpointInfo | undefined> {
    const lineage = await registry.lineage();
    return (await registry.checkpoints()).findLast((checkpoint) => checkpoint.lineage === lineage);
  }

  /** Until it is written, or the term is over. */
  async #insists(write: () => Promise<unknown>): Promise<void> {
    const { term, io } = this.#options;
    for (;;) {
      try {
        await write();
        return;
      } catch (error) {
        if (!isPassing(error) || term.ended.aborted) throw error;
        await new Promise<void>((resolve) => void io.clock.setTimeout(resolve, AGAIN_MS));
      }
    }
  }

  /** D3: it goes on under another leader, though a start of it here has failed. */
  async #revived(): Promise<void> {
    await (await this.#registry(undefined)).setOutcome('running');
  }

  /** Whoever leads next knows that it has begun, and with which plan. */
  async #say(): Promise<void> {
    const { store, term, offered } = this.#options;
    await store.begun(term, this.name, this.run, offered.planHash);
    this.#begun = true;
    this.#planned = true;
  }

  #registry(checkpoints: string | undefined): Promise<ZooKeeperRegistry> {
    const { client, term } = this.#options;
    return ZooKeeperRegistry.open({
      client,
      term,
      job: this.name,
      ...(checkpoints === undefined ? {} : { checkpoints }),
      io: this.#io,
      // D2.
      begun: async () => {
        if (!this.#begun || !this.#planned) await this.#say();
      },
    });
  }

  #made(options: RunOptions): JobRun {
    const { client, term, offered, internals, hosts, slots, log } = this.#options;
    const range = this.#range;
    const job = new JobRun(
      offered.definition,
      {
        ...options,
        parallelism: targetOf(range, slots()) ?? range.min,
        logger: log,
        onEvent: (event) => this.#event(event),
      },
      {
        ...internals,
        io: this.#io,
        hosts: hosts(),
        losses: { row: this.#losses, keep: (row) => this.#keep(row) },
        reaches: range.max,
        // A number is asked for, whatever there is room for.
        room: () => (this.#range.min === this.#range.max ? Number.POSITIVE_INFINITY : (targetOf(this.#range, slots()) ?? this.#range.min)),
        registry: async (files) => {
          const registry = await this.#registry(files.checkpoints);
          await shareStorage(client, term, this.name, files, async () => options.restore === 'none' || (await registry.checkpoints()).length === 0);
          return registry;
        },
      },
    );
    this.#job = job;
    this.#told = undefined;
    this.#changed('starting');
    return job;
  }

  #event(event: JobEvent): void {
    if (this.#abandoned !== undefined) return;
    if (event.type !== 'status') {
      this.#options.offered.options.onEvent?.(event);
      return;
    }
    // How it ended is told by the store.
    if (['finished', 'stopped', 'cancelled', 'failed'].includes(event.status)) return;
    this.#changed(event.status);
    if (event.status !== 'running') return;
    if (this.#job?.parallelism !== this.#scaled) this.#rescaledAt = this.#io.elapsed();
    this.#scaled = this.#job?.parallelism;
    this.resized();
  }

  /** To another version: behind a last checkpoint, or, with false, not at all. */
  async handOver(cause: Error): Promise<boolean> {
    const job = this.#job;
    if (job !== undefined && !(await job.handOver(cause, true))) return false;
    await this.leave(cause);
    return true;
  }

  /** The term is over, or this process leaves: with `inOrder` behind a last checkpoint. */
  async leave(cause: Error, inOrder = false): Promise<void> {
    if (!inOrder) this.#abandoned ??= cause;
    this.#left.abort();
    const job = this.#job;
    if (job !== undefined) await (inOrder ? job.handOver(cause) : job.abandon(cause));
    this.#abandoned ??= cause;
    for (const wake of [...this.#waiting]) wake();
    await this.over.catch(() => {});
  }
}
