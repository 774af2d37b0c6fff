// The leader: whoever is elected runs the jobs that are wanted, for as long as its term lasts.
//
// The order of a term (protocols 17): the epoch is taken, in ZooKeeper, before anything is read; registries and the job store are read behind that, in the same session; the
// epoch is told to every worker, whose hosts leave their older leader; each job is opened from its registry: regions that are whole go on, what was registered and not announced is
// announced to them or committed by the restore of the others, and what was under way under an older leader is aborted.
//
// Invariants:
//  A1  Between two terms of one process nothing of the first is led any more. Tasks may go on, also on this worker, until another leader goes on with them or ends them.
//  A2  Jobs that are wanted and not offered here are left alone; that is said once.
//  A3  Which regions keep running is decided in one place, before anything of the job is opened (JobRun, J5; standing.ts). Any other restarts, which is always right.
//  A4  A job whose plan in force is another one than this process has is led only where nobody stands for that one, and only from a checkpoint that this program can go on
//      from (protocols 21). Who cannot, or where others can, stands back, or waits and says why. To stop or to cancel a job no program is needed.
//  A5  Leadership goes to another version behind a last checkpoint of every job, and the store says which plans are in force, all at once, before it is given up. A version that could
//      not start what it was given gives it back.

import { asError, codeOf, isDeposed, MillraceError, messageOf } from '../errors.ts';
import type { Internals } from '../execution/job-run.ts';
import type { Hosts } from '../execution/region.ts';
import { filesOf } from '../execution/snapshots.ts';
import type { StateQueries } from '../execution/state-queries.ts';
import type { Logger } from '../graph/context.ts';
import type { Io } from '../runtime/io.ts';
import { type Callee, whyUnanswered } from './calls.ts';
import { LedJob, type OfferedJob } from './led-job.ts';
import { heirOf, type Led, type Reason, type Version, yields } from './versions.ts';
import type { Client } from './zookeeper/client.ts';
import { deposed, type Term, terms } from './zookeeper/election.ts';
import { isPassing } from './zookeeper/errors.ts';
import type { JobStore, WantedJob } from './zookeeper/job-store.ts';
import type { Member } from './zookeeper/membership.ts';
import { ZooKeeperRegistry } from './zookeeper/registry.ts';

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
  /** All that are listed, and whether mail goes to that one. */
  readonly members: () => readonly Member[];
  readonly reaches: (worker: string) => boolean;
  /** Whether that worker's program can go on from that checkpoint of a job; this one's own as well. Rejects where it does not answer in time. */
  readonly verify: (worker: string, question: VerifyQuestion, withinMs: number) => Promise<VerifyAnswer>;
  /** This process must not lead: it has another storage than the others. */
  readonly unfit: (error: Error) => void;
  readonly io: Io;
  readonly log: Logger;
}

export interface VerifyQuestion {
  readonly job: string;
  /** The address of its metadata. */
  readonly checkpoint: string;
}

/** Why not; empty: it can. */
export type VerifyAnswer = readonly string[];

export interface JobQuestion {
  readonly job: string;
  readonly run?: string | undefined;
}

/** How long a question about changes waits for one. */
const WATCH_MS = 10_000;
/** How long another version may take to read a checkpoint through; and where this process is about to end, all of them together. */
const VERIFY_MS = 600_000;
const VERIFY_LEAVING_MS = 5000;
/** Until one that did not answer is asked again; and one that refused, the first time: a later checkpoint may be another matter. */
const VERIFY_AGAIN_MS = 5000;
const REFUSED_AGAIN_MS = 60_000;
const REFUSED_AGAIN_MAX_MS = 3_600_000;

/** What one term knows of versions. */
class Looks {
  /** A4: jobs that are looked at, and those that this program can go on with, or cannot. */
  readonly jobs = new Map<string, 'looking' | 'fits' | 'refused'>();
  /** A5: keys of versions that could not take over, and until when they are not asked again. */
  readonly refused = new Map<string, { readonly times: number; readonly until: number }>();
  /** Plans of members, by job, that the store is being told of. */
  readonly seen = new Set<string>();
  verifying = false;
}

export class Leader {
  readonly #options: LeaderOptions;
  readonly #led = new Map<string, LedJob>();
  readonly #waiting = new Set<() => void>();
  #wanted: readonly WantedJob[] = [];
  #term: Term | undefined;
  readonly #unknown = new Set<string>();
  #leaving = false;
  #looks = new Looks();
  /** The lead is being given up. */
  #passing = false;
  #again: unknown;

  constructor(options: LeaderOptions) {
    this.#options = options;
  }

  /** Stands for election, again and again, until the signal aborts. Rejects where ZooKeeper refuses for good. */
  async stand(signal: AbortSignal): Promise<void> {
    const { client, self, elected, log } = this.#options;
    for await (const term of terms(client, self, signal, () => this.#yields())) {
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
      // What passes by itself costs the term, and not the process its place.
      if (!isPassing(error)) throw error;
    } finally {
      this.#term = undefined;
      this.#looks = new Looks();
      this.#options.io.clock.clearTimeout(this.#again);
      // A1.
      await Promise.all([...this.#led.values()].map((job) => job.leave(deposed(term.epoch))));
      this.#led.clear();
      this.#passing = false;
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
    const { client, store, self, offered, internals, answerState, hosts, slots, members, reaches, unfit, io, log } = this.#options;
    const term = this.#term;
    if (term === undefined || this.#leaving || !term.isLeader()) return;
    // Also while the lead is being given up: a hand-over may have to wait for slots, and whoever ends the job does not.
    for (const { name, run, until } of this.#wanted) {
      const led = this.#led.get(name);
      if (led?.run === run) led?.until(until);
    }
    if (this.#passing) return;
    for (const wanted of this.#wanted) {
      if (this.#led.has(wanted.name)) {
        this.#see(term, wanted);
        continue;
      }
      const mine = offered.get(wanted.name);
      if (mine === undefined) {
        // A2.
        if (!this.#unknown.has(wanted.name))
          log.warn({ job: wanted.name }, `The job '${wanted.name}' is to run, and who leads does not have it: give it a root of its own.`);
        this.#unknown.add(wanted.name);
        this.#see(term, wanted);
        continue;
      }
      this.#see(term, wanted);
      const fits = wanted.plan === undefined || wanted.plan === mine.planHash || this.#looks.jobs.get(wanted.name) === 'fits';
      if (!fits && wanted.until.kind === 'end') {
        this.#look(term, wanted, mine);
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
        self: self.id,
        workers: () => members().filter(({ id, plans }) => plans[wanted.name] === mine.planHash && (id === self.id || reaches(id))).length,
        reaches,
        changed: () => this.#pass(),
        ends: !fits,
        gaveUp: (error, revived) => this.#givesBack(term, wanted, mine, error, revived),
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
    this.#pass();
  }

  #wake(): void {
    for (const wake of [...this.#waiting]) wake();
  }

  /** Members have come or gone. */
  resized(): void {
    for (const job of this.#led.values()) job.resized();
    this.#sync();
  }

  // ── versions ──

  get #own(): Record<string, string> {
    return Object.fromEntries([...this.#options.offered].map(([name, { planHash }]) => [name, planHash]));
  }

  /** A4: as a candidate. */
  async #yields(): Promise<boolean> {
    const { store, members } = this.#options;
    return yields(this.#own, await store.jobs(), members());
  }

  /** The order in which versions come is the store's. */
  #see(term: Term, { name, run, versions = [] }: WantedJob): void {
    const { store, members, log } = this.#options;
    const looks = this.#looks;
    const plans = members()
      .toSorted((a, b) => (a.born ?? 0) - (b.born ?? 0))
      .flatMap(({ plans: { [name]: plan } }) => (plan === undefined || versions.includes(plan) || looks.seen.has(`${name} ${plan}`) ? [] : [plan]));
    if (plans.length === 0) return;
    for (const plan of plans) looks.seen.add(`${name} ${plan}`);
    store.seen(term, name, run, plans).catch((error) => {
      for (const plan of plans) looks.seen.delete(`${name} ${plan}`);
      if (isDeposed(error)) return;
      log.warn({ job: name, error: messageOf(error) }, 'Which versions there are could not be noted; it is tried again.');
      this.#lookAgain();
    });
  }

  /** A4: as a leader. */
  #look(term: Term, wanted: WantedJob, mine: OfferedJob): void {
    const { members, log } = this.#options;
    const { name } = wanted;
    const looks = this.#looks;
    if (yields(this.#own, this.#wanted, members())) {
      log.info({ job: name }, `The program that '${name}' runs with is another one, and others have it: this process stands back for them.`);
      this.#passing = true;
      void this.#resign(term);
      return;
    }
    if (looks.jobs.has(name)) return;
    looks.jobs.set(name, 'looking');
    this.#refusalBy(this.#options.self.id, term, mine, VERIFY_MS).then(
      (refusal) => {
        if (this.#term !== term) return;
        looks.jobs.set(name, refusal.length === 0 ? 'fits' : 'refused');
        if (refusal.length === 0) log.info({ job: name }, `Nobody has the program any more that '${name}' ran with: it goes on with this one.`);
        else
          log.error(
            { job: name, why: refusal },
            `'${name}' stands still: nobody has the program that it ran with, and this one cannot go on from its checkpoint. ${refusal.join(' ')}`,
          );
        this.#sync();
      },
      (error) => {
        if (this.#term !== term || isDeposed(error)) return;
        log.warn({ job: name, error: messageOf(error) }, `Whether this program can go on with '${name}' is not known yet; it is looked at again.`);
        looks.jobs.delete(name);
        this.#lookAgain();
      },
    );
  }

  /** Of a job that nobody runs, by what a start would choose. */
  async #refusalBy(worker: string, term: Term, { definition: { name }, options }: OfferedJob, withinMs: number): Promise<VerifyAnswer> {
    const { client, verify, io } = this.#options;
    if (typeof options.checkpoints !== 'object') return [];
    const { checkpoints } = filesOf(name, options.checkpoints, io);
    const registry = await ZooKeeperRegistry.open({ client, term, job: name, checkpoints, io });
    const lineage = await registry.lineage();
    const paths = (await registry.checkpoints()).filter((checkpoint) => checkpoint.lineage === lineage).map(({ path }) => path);
    const origin = await registry.origin();
    for (const path of [...paths.reverse(), ...(origin === undefined ? [] : [origin])]) {
      try {
        return await verify(worker, { job: name, checkpoint: path }, withinMs);
      } catch (error) {
        if (codeOf(error) !== 'SNAPSHOT_CORRUPT') throw error;
      }
    }
    // The start says what is wrong with them.
    return [];
  }

  #lookAgain(afterMs = VERIFY_AGAIN_MS): void {
    const { clock } = this.#options.io;
    clock.clearTimeout(this.#again);
    this.#again = clock.setTimeout(() => this.#sync(), afterMs);
  }

  /** A5: where a newer version is there that can, it leads from now on. */
  #pass(): void {
    const term = this.#term;
    const looks = this.#looks;
    if (term === undefined || this.#leaving || this.#passing || looks.verifying || !term.isLeader()) return;
    if (!this.#handable || [...looks.jobs.values()].includes('looking') || this.#heir('newer') === undefined) return;
    looks.verifying = true;
    this.#verified(term, 'newer', () => VERIFY_MS)
      .finally(() => {
        looks.verifying = false;
      })
      .then(async (heir) => {
        if (heir === undefined || this.#leaving || this.#term !== term || !this.#handable) return;
        this.#passing = true;
        const led = [...this.#led.values()];
        const given = await Promise.all(led.map((job) => job.handOver(deposed(term.epoch))));
        if (given.every((each) => each)) await this.#enforce(term, heir);
        else if (!given.some((each) => each)) {
          this.#passing = false;
          this.#lookAgain();
          return;
        }
        await this.#resign(term);
      })
      .catch((error) => {
        if (!isDeposed(error)) this.#options.log.warn({ error: messageOf(error) }, 'Another version could not be given the lead.');
        // What was left behind is taken up again by an election.
        if (this.#term === term) void this.#resign(term);
      });
  }

  get #handable(): boolean {
    return [...this.#led.values()].every(({ handable }) => handable);
  }

  /** All that are to run and that somebody can, as this process does. */
  #jobs(): readonly Led[] {
    const { offered, members } = this.#options;
    return this.#wanted.flatMap(({ name, versions = [], rejected = [] }) => {
      if (!this.#led.has(name) && !members().some(({ plans }) => plans[name] !== undefined)) return [];
      // What is not led because it has just ended, or is about to be, has no other plan for that.
      const plan = this.#looks.jobs.get(name) === 'refused' ? undefined : offered.get(name)?.planHash;
      return [{ name, plan, versions, rejected }];
    });
  }

  /** The version that comes next, as far as is known. Slots of members that are not connected do not count. */
  #heir(why: Reason): Version | undefined {
    const { self, members, reaches, io } = this.#options;
    const connected = members().filter(({ id }) => id === self.id || reaches(id));
    const now = io.elapsed();
    return heirOf(this.#jobs(), connected, { self: self.id, own: this.#own, why, refused: (key) => (this.#looks.refused.get(key)?.until ?? 0) > now });
  }

  /** One that says of each job whose program is another that it can go on; undefined: there is none. */
  async #verified(term: Term, why: Reason, withinMs: () => number): Promise<Version | undefined> {
    const { log, io } = this.#options;
    const looks = this.#looks;
    for (;;) {
      const heir = this.#heir(why);
      if (heir === undefined || this.#term !== term) return undefined;
      const addresses = heir.members.map(({ address }) => address);
      let refusal: readonly string[];
      try {
        refusal = await this.#refusalOf(heir, term, withinMs);
      } catch (error) {
        if (whyUnanswered(error) !== undefined || isLost(error)) {
          log.warn({ members: addresses, error: messageOf(error) }, 'Whether another version can take over is not known yet; it is asked again.');
          this.#lookAgain();
          return undefined;
        }
        refusal = [messageOf(error)];
      }
      if (this.#term !== term) return undefined;
      if (refusal.length === 0) {
        // Meanwhile members and jobs may have come and gone.
        if (this.#heir(why)?.key !== heir.key) continue;
        log.info({ members: addresses }, 'Another version of the program takes over, behind a last checkpoint.');
        return heir;
      }
      const times = (looks.refused.get(heir.key)?.times ?? 0) + 1;
      const ms = Math.min(REFUSED_AGAIN_MAX_MS, REFUSED_AGAIN_MS * 2 ** (times - 1));
      looks.refused.set(heir.key, { times, until: io.elapsed() + ms });
      this.#lookAgain(ms);
      if (times === 1)
        log.error({ members: addresses, why: refusal }, `Another version of the program cannot take over, and this one goes on: ${refusal.join(' ')}`);
    }
  }

  /** Of each job that it would run with another program than the one in force. */
  async #refusalOf({ plans, members }: Version, term: Term, withinMs: () => number): Promise<readonly string[]> {
    const { offered, verify } = this.#options;
    const worker = members[0]!.id;
    const why: string[] = [];
    for (const { name, plan: inForce } of this.#wanted) {
      const job = this.#led.get(name);
      const mine = offered.get(name);
      if (plans[name] === undefined || plans[name] === (job === undefined ? (inForce ?? plans[name]) : mine?.planHash)) continue;
      if (job !== undefined)
        why.push(
          ...(await job.readingNewest(async (newest) =>
            newest === undefined || newest.path === '' ? [] : verify(worker, { job: name, checkpoint: newest.path }, withinMs()),
          )),
        );
      else if (mine !== undefined) why.push(...(await this.#refusalBy(worker, term, mine, withinMs())));
    }
    return why;
  }

  /** A5: this program could not start what it was given. True: another one has it again. */
  async #givesBack(term: Term, { name, run }: WantedJob, { planHash }: OfferedJob, error: Error, revived: () => Promise<void>): Promise<boolean> {
    const { store, self, log } = this.#options;
    if (this.#term !== term || this.#leaving) return false;
    const other = heirOf(this.#jobs(), this.#options.members(), { self: self.id, own: this.#own, why: 'failed' });
    const plan = other?.plans[name];
    if (plan === undefined || plan === planHash) return false;
    this.#passing = true;
    log.error({ job: name, error: messageOf(error) }, `This version of '${name}' cannot start where the other one ended, which goes on: ${messageOf(error)}`);
    await revived();
    await store.rejected(term, name, run, planHash, plan);
    void this.#resign(term);
    return true;
  }

  async #enforce(term: Term, { plans }: Version): Promise<void> {
    const inForce = this.#wanted.flatMap(({ name, run }) => (plans[name] === undefined ? [] : [{ name, run, plan: plans[name] }]));
    await this.#options.store.planned(term, inForce);
  }

  async #resign(term: Term): Promise<void> {
    await term.resign().catch(() => {
      // With its session, then.
    });
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
    const moved = await Promise.allSettled([...this.#led.values()].map((job) => job.move()));
    // What it has led is another leader's by now, or about to be, who is to be asked.
    if (this.#leaving) throw deposed(this.#term?.epoch ?? 0);
    this.#leads();
    // One that has ended has nothing to move.
    for (const each of moved) if (each.status === 'rejected' && codeOf(each.reason) !== 'JOB_ENDED') throw each.reason;
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
    const { log } = this.#options;
    this.#leaving = true;
    const term = this.#term;
    const until = this.#options.io.elapsed() + VERIFY_LEAVING_MS;
    const heir = term === undefined ? undefined : await this.#verified(term, 'leaving', () => Math.max(1, until - this.#options.io.elapsed()));
    await Promise.all([...this.#led.values()].map((job) => job.leave(cause, true)));
    if (heir === undefined || term === undefined) return;
    // Whoever is elected without it sees that nobody has the old one any more.
    await this.#enforce(term, heir).catch((error) => log.warn({ error: messageOf(error) }, 'Which version leads next could not be said.'));
  }
}

/** Whoever was asked is gone, or the connection to it. */
function isLost(error: unknown): boolean {
  const code = codeOf(error);
  return code === 'HOST_LOST' || code === 'LINK_LOST' || code === 'JOB_ENDED';
}

const FIND_MS = 2000;
const DRAIN_LOOK_MS = 20;
