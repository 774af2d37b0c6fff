// The leader: whoever is elected runs the jobs that are wanted, for as long as its term lasts.
//
// The order of a term (protocols 17): the epoch is taken, in ZooKeeper, before anything is read; registries and the job store are read behind that, in the same session; the
// epoch is told to every worker, whose hosts of older leaders end; each job is opened from its registry: what was registered and not announced is committed by the restore,
// and what was under way under an older leader is aborted with its attempt.
//
// Invariants:
//  A1  Between two terms of one process nothing of the first runs any more.
//  A2  Jobs that are wanted and not offered here are left alone; that is said once.
//  A3  Which regions could keep running is decided in one place, where a job is opened (led-job.ts). As it is every one restarts, which is always right.

import { asError, MillraceError, messageOf } from '../errors.ts';
import type { Internals } from '../execution/job-run.ts';
import type { Hosts } from '../execution/region.ts';
import type { StateQueries } from '../execution/state-queries.ts';
import type { Logger } from '../graph/context.ts';
import type { Io } from '../runtime/io.ts';
import type { Callee } from './calls.ts';
import { LedJob, type OfferedJob } from './led-job.ts';
import type { Client } from './zookeeper/client.ts';
import { deposed, type Term, terms } from './zookeeper/election.ts';
import type { JobStore, WantedJob } from './zookeeper/job-store.ts';

export interface LeaderOptions {
  readonly client: Client;
  readonly store: JobStore;
  /** By which the others reach this process. */
  readonly self: Callee;
  /** By name. */
  readonly offered: ReadonlyMap<string, OfferedJob>;
  readonly internals: Pick<Internals, 'operators' | 'queryable'>;
  readonly answerState: (queries: StateQueries, url: string) => Promise<unknown>;
  /** Where the tasks of a job run in that term; in this thread by default. */
  readonly hosts: (job: OfferedJob, term: Term, io: Io) => Hosts | undefined;
  /** Of the members that can run it. */
  readonly slots: (job: OfferedJob) => number;
  /** Whether that worker is listed with a job. */
  readonly offers: (worker: string) => boolean;
  /** The epoch is told to this worker, and by it to the others. */
  readonly elected: (epoch: number) => void;
  /** This process must not lead: it has another storage than the others. */
  readonly unfit: (error: Error) => void;
  readonly io: Io;
  readonly log: Logger;
}

export interface JobQuestion {
  readonly job: string;
  readonly run?: string | undefined;
}

/** How long a question about changes waits for one. */
const WATCH_MS = 10_000;

export class Leader {
  readonly #options: LeaderOptions;
  readonly #led = new Map<string, LedJob>();
  readonly #waiting = new Set<() => void>();
  #wanted: readonly WantedJob[] = [];
  #term: Term | undefined;
  readonly #unknown = new Set<string>();
  #leaving = false;

  constructor(options: LeaderOptions) {
    this.#options = options;
  }

  /** Stands for election, again and again, until the signal aborts. Rejects where ZooKeeper refuses for good. */
  async stand(signal: AbortSignal): Promise<void> {
    const { client, self, elected, log } = this.#options;
    for await (const term of terms(client, self, signal)) {
      log.info({ epoch: term.epoch }, `This process leads the cluster, in epoch ${term.epoch}.`);
      elected(term.epoch);
      await this.#lead(term);
      log.info({ epoch: term.epoch }, `The leadership of epoch ${term.epoch} is over.`);
    }
  }

  async #lead(term: Term): Promise<void> {
    const { store, log } = this.#options;
    this.#term = term;
    // At once, and not behind whatever the store is being asked: the lease counts.
    const over = (): void => {
      for (const job of this.#led.values()) void job.leave(asError(term.ended.reason));
    };
    term.ended.addEventListener('abort', over, { once: true });
    try {
      for await (const wanted of store.followed(term.ended)) {
        this.#wanted = wanted;
        this.#sync();
      }
    } catch (error) {
      log.error({ error: messageOf(error) }, 'What the cluster should run cannot be read: this process leads no more.');
      throw error;
    } finally {
      this.#term = undefined;
      // A1.
      await Promise.all([...this.#led.values()].map((job) => job.leave(deposed(term.epoch))));
      this.#led.clear();
      this.#wake();
      await term.resign().catch(() => {
        // With its session, then.
      });
    }
  }

  /** What is offered here, or wanted, has changed. */
  offers(): void {
    this.#sync();
  }

  #sync(): void {
    const { client, store, offered, internals, answerState, hosts, slots, unfit, io, log } = this.#options;
    const term = this.#term;
    if (term === undefined || this.#leaving || !term.isLeader()) return;
    for (const wanted of this.#wanted) {
      const led = this.#led.get(wanted.name);
      if (led !== undefined) {
        if (led.run === wanted.run) led.until(wanted.until);
        continue;
      }
      const mine = offered.get(wanted.name);
      if (mine === undefined) {
        // A2.
        if (!this.#unknown.has(wanted.name))
          log.warn({ job: wanted.name }, `The job '${wanted.name}' is to run, and who leads does not have it: give it a root of its own.`);
        this.#unknown.add(wanted.name);
        continue;
      }
      const job = new LedJob({
        client,
        term,
        store,
        wanted,
        offered: mine,
        internals,
        hosts: () => hosts(mine, term, io),
        slots: () => slots(mine),
        answerState,
        io,
        log,
      });
      this.#led.set(wanted.name, job);
      job.over
        .catch((error) => unfit(asError(error)))
        .then(() => {
          if (this.#led.get(wanted.name) !== job) return;
          this.#led.delete(wanted.name);
          // Somebody may have submitted it anew.
          store.jobs().then(
            (jobs) => {
              this.#wanted = jobs;
              this.#sync();
            },
            // Followed all the same.
            (error) => log.warn({ error: messageOf(error) }, 'The jobs of the cluster could not be read.'),
          );
        });
    }
    this.#wake();
  }

  #wake(): void {
    for (const wake of [...this.#waiting]) wake();
  }

  /** Members have come or gone. */
  resized(): void {
    for (const job of this.#led.values()) job.resized();
  }

  /** What another process, or this one, asks whoever leads. @throws LEADER_DEPOSED where this process does not */
  async answer(method: string, args: unknown): Promise<unknown> {
    if (method === 'jobs') {
      this.#leads();
      return [...this.#led.values()].map(({ name, run, state }) => ({ name, run, ...state }));
    }
    if (method === 'drain') return this.#drain((args as { worker: string }).worker);
    const { job: name, run } = args as JobQuestion;
    const job = await this.#find(name, run);
    if (method === 'watch') return job.newer((args as { known: number }).known, WATCH_MS);
    return job.ask(method, args);
  }

  /** Whether this process does. */
  get leads(): boolean {
    return this.#term?.isLeader() === true;
  }

  #leads(): void {
    if (this.#term === undefined || !this.#term.isLeader()) throw deposed(this.#term?.epoch ?? 0);
  }

  /** A worker is about to leave; it is listed with no job any more. */
  async #drain(worker: string): Promise<void> {
    this.#leads();
    const { offers, io, log } = this.#options;
    const until = io.elapsed() + FIND_MS;
    // The list of members may be a moment behind.
    while (offers(worker) && io.elapsed() < until) await new Promise<void>((resolve) => void io.clock.setTimeout(resolve, DRAIN_LOOK_MS));
    log.info({ worker }, 'A worker leaves: what it runs is moved.');
    await Promise.all([...this.#led.values()].map((job) => job.move()));
  }

  /** One that was submitted a moment ago may not be known here yet. */
  async #find(name: string, run: string | undefined): Promise<LedJob> {
    const found = (): LedJob | undefined => {
      this.#leads();
      const job = this.#led.get(name);
      return job !== undefined && (run === undefined || job.run === run) ? job : undefined;
    };
    const until = this.#options.io.elapsed() + FIND_MS;
    for (;;) {
      const job = found();
      if (job !== undefined) return job;
      const left = until - this.#options.io.elapsed();
      if (left <= 0) break;
      await new Promise<void>((resolve) => {
        const done = (): void => {
          clearTimeout(timer);
          this.#waiting.delete(done);
          resolve();
        };
        const timer = setTimeout(done, left);
        this.#waiting.add(done);
      });
    }
    throw new MillraceError('JOB_NOT_FOUND', `Who leads the cluster does not run the job '${name}'.`, {
      todo: 'It has ended, or the process that leads does not have it.',
    });
  }

  /** Hands over every job behind a last checkpoint, before this process stands back. */
  async handOver(cause: Error): Promise<void> {
    this.#leaving = true;
    await Promise.all([...this.#led.values()].map((job) => job.leave(cause, true)));
  }
}

const FIND_MS = 2000;
const DRAIN_LOOK_MS = 20;
