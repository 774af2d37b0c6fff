// This process in a cluster: a worker, a candidate for the leadership, and whoever asks the leader. One for all jobs that a process starts with one `zookeeper()`.
//
// Who owns what: the replica owns the worker, its candidacy and what it follows; jobs (cluster-job.ts) hold it, and when the last of them is over it leaves.
//
// Invariants:
//  B1  Who leaves in order hands over first: what it leads goes on behind a last checkpoint, and only then the next is elected.
//  B2  What goes wrong for good ends the replica, and every job of this process is told why; the jobs go on elsewhere.
//  B3  When it has left, nothing of it keeps the process alive. The session with ZooKeeper is its owner's.

import { below, nameIn } from '../checkpoint/addresses.ts';
import { verifySnapshot } from '../checkpoint/verification.ts';
import { asError, codeOf, MillraceError, messageOf } from '../errors.ts';
import type { Internals } from '../execution/job-run.ts';
import type { Hosts } from '../execution/region.ts';
import { filesOf } from '../execution/snapshots.ts';
import type { StateQueries } from '../execution/state-queries.ts';
import type { Logger } from '../graph/context.ts';
import type { Cluster, WorkerOptions } from '../graph/job.ts';
import type { Io } from '../runtime/io.ts';
import { type AskOptions, type Callee, type CallMail, Calls, isCallMail, Unanswered, whyUnanswered } from './calls.ts';
import { Leader, type VerifyAnswer, type VerifyQuestion } from './leader.ts';
import type { OfferedJob } from './led-job.ts';
import { Worker, type WorkerJob } from './worker.ts';
import { Workers } from './workers.ts';
import type { Client } from './zookeeper/client.ts';
import { type Leader as Elected, followedLeader, type Term } from './zookeeper/election.ts';
import { JobStore } from './zookeeper/job-store.ts';
import type { MemberDoor } from './zookeeper/membership.ts';

export interface ReplicaOptions {
  readonly client: Client;
  readonly worker: WorkerOptions;
  /** Threads that tasks run in, and what those run; in this one by default. */
  readonly threads?: { readonly count: number; readonly entry: URL } | undefined;
  readonly internals: Pick<Internals, 'operators' | 'queryable'>;
  readonly answerState: (queries: StateQueries, url: string) => Promise<unknown>;
  /** Of Millrace. */
  readonly version: string;
  readonly io: Io;
  readonly log: Logger;
}

/** Whoever is told when the replica is over. */
export interface Holder {
  left(cause: Error): void;
}

/** Who asks a process to end is not patient for longer than 30 s as a rule. */
const DRAIN_MS = 20_000;
const AGAIN_MS = 200;
/** Below it a busy operator in the main thread costs the session (protocols 18). */
const SESSION_LEAST_MS = 15_000;

const replicas = new WeakMap<Cluster, Replica>();

export class Replica {
  readonly store: JobStore;
  readonly client: Client;
  readonly #options: ReplicaOptions;
  readonly #offered = new Map<string, OfferedJob & { readonly holder: Holder }>();
  readonly #holders = new Set<Holder>();
  readonly #moved = new Set<() => void>();
  readonly #ended = new AbortController();
  readonly #calls: Calls;
  #worker!: Worker;
  #leader!: Leader;
  #opening: Promise<void> | undefined;
  #standing: Promise<void> = Promise.resolve();
  #elected: Elected<Callee> | undefined;
  #epoch = 0;
  #leaving: Promise<void> | undefined;

  /** The one of that cluster in this process, which is made where there is none, with these options; held until `release`. */
  static async hold(cluster: Cluster, options: ReplicaOptions, holder: Holder): Promise<Replica> {
    for (;;) {
      const found = replicas.get(cluster);
      if (found !== undefined && found.#leaving !== undefined) {
        await found.#leaving;
        if (replicas.get(cluster) === found) replicas.delete(cluster);
        continue;
      }
      const replica = found ?? new Replica(options);
      replicas.set(cluster, replica);
      replica.#holders.add(holder);
      replica.#opening ??= replica.#open();
      try {
        await replica.#opening;
        return replica;
      } catch (error) {
        if (replicas.get(cluster) === replica) replicas.delete(cluster);
        replica.#ended.abort();
        throw error;
      }
    }
  }

  private constructor(options: ReplicaOptions) {
    this.#options = options;
    this.client = options.client;
    this.store = new JobStore(options.client);
    this.#calls = new Calls({
      tell: (worker, message) => this.#worker.tell(worker, message),
      lost: async (worker, over, signal) => {
        while (!signal.aborted && this.#worker.over(worker) === over) await this.#worker.changed(signal);
      },
      answer: (method, args) => (method === 'verify' ? this.#verify(args as VerifyQuestion) : this.#leader.answer(method, args)),
    });
  }

  async #open(): Promise<void> {
    const { client, worker, threads, internals, answerState, version, io, log } = this.#options;
    await client.connect();
    if (threads === undefined && client.sessionTimeoutMs < SESSION_LEAST_MS)
      log.warn(
        { sessionTimeout: client.sessionTimeoutMs },
        `The session with ZooKeeper lasts ${client.sessionTimeoutMs} ms, and tasks run in the main thread: a record that takes longer costs this process its place. Give 15 s, or \`threads\`.`,
      );
    this.#worker = await Worker.open({
      client,
      jobs: new Map(),
      operators: internals.operators,
      ...worker,
      threads,
      version,
      epoch: () => this.#epoch,
      heard: (from, message) => {
        if (isCallMail(message)) this.#calls.heard(from, message as CallMail);
      },
      io,
      log,
    });
    const { member } = this.#worker;
    this.#leader = new Leader({
      client,
      store: this.store,
      self: { id: member.id, address: member.address },
      offered: this.#offered,
      internals,
      answerState,
      hosts: (job, term) => this.#hosts(job, term),
      slots: (job) => this.#slots(job),
      members: () => this.#worker.members(),
      reaches: (id) => this.#worker.reaches(id),
      verify: (id, question, withinMs) => this.#askVerdict(id, question, withinMs),
      offers: (worker) => this.#worker.members().some(({ id, plans }) => id === worker && Object.keys(plans).length > 0),
      elected: (epoch) => this.#leads(epoch),
      unfit: (error) => this.#fail(error),
      io,
      log,
    });
    const { signal } = this.#ended;
    void this.#follow(signal).catch((error) => this.#fail(asError(error)));
    this.#standing = this.#leader.stand(signal);
    this.#standing.catch((error) => this.#fail(asError(error)));
    void this.#resizes(signal);
  }

  /** It leaves, or has left. */
  get ended(): boolean {
    return this.#ended.signal.aborted;
  }

  // ── who leads ──

  async #follow(signal: AbortSignal): Promise<void> {
    for await (const elected of followedLeader<Callee>(this.client, signal)) {
      this.#elected = elected;
      if (elected !== undefined) this.#leads(elected.epoch);
      for (const wake of [...this.#moved]) wake();
    }
  }

  #leads(epoch: number): void {
    if (epoch <= this.#epoch) return;
    this.#epoch = epoch;
    this.#worker.leads(epoch);
  }

  async #resizes(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#worker.changed(signal);
      this.#leader.resized();
    }
  }

  /** Who leads, as far as is known. Waits where nobody does yet. @throws LEADER_UNREACHABLE after so many milliseconds */
  async leader(withinMs: number): Promise<Elected<Callee>> {
    if (this.#elected === undefined) await this.moved(undefined, withinMs);
    if (this.#elected === undefined) throw new Unanswered(`Nobody has led the cluster for ${Math.round(withinMs)} ms.`);
    return this.#elected;
  }

  /** Resolves when another leads than that one, after so many milliseconds, or when this process leaves. */
  moved(than: Elected<Callee> | undefined, withinMs: number): Promise<void> {
    return new Promise((resolve) => {
      const { signal } = this.#ended;
      const look = (): void => {
        if (this.#elected?.epoch === than?.epoch && !signal.aborted) return;
        done();
      };
      const done = (): void => {
        clearTimeout(timer);
        this.#moved.delete(look);
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = withinMs === Number.POSITIVE_INFINITY ? undefined : setTimeout(done, withinMs);
      this.#moved.add(look);
      signal.addEventListener('abort', done, { once: true });
      look();
    });
  }

  /** Given up when another leads. @throws LEADER_UNREACHABLE, LEADER_DEPOSED, and what is answered */
  async ask(leader: Elected<Callee>, method: string, args: unknown, options: AskOptions): Promise<unknown> {
    // Of a signal that outlives all questions none leaves anything behind, which `AbortSignal.any` does.
    const given = new AbortController();
    const giveUp = (): void => given.abort(options.signal?.reason);
    const look = (): void => {
      if (this.#elected?.epoch !== leader.epoch) given.abort(new Error('another leads by now'));
    };
    options.signal?.addEventListener('abort', giveUp, { once: true });
    if (options.signal?.aborted === true) giveUp();
    this.#moved.add(look);
    try {
      return await this.#calls.ask(leader.value, method, args, { ...options, signal: given.signal });
    } finally {
      this.#moved.delete(look);
      options.signal?.removeEventListener('abort', giveUp);
    }
  }

  // ── versions ──

  async #askVerdict(worker: string, question: VerifyQuestion, withinMs: number): Promise<VerifyAnswer> {
    const member = this.#worker.members().find(({ id }) => id === worker);
    if (member === undefined) throw new MillraceError('HOST_LOST', `The worker ${worker} is no member any more.`);
    return (await this.#calls.ask(member, 'verify', question, { timeout: withinMs })) as VerifyAnswer;
  }

  /** Why the program of this process cannot go on from that checkpoint; both sides say so. */
  async #verify({ job: name, checkpoint }: VerifyQuestion): Promise<VerifyAnswer> {
    const { internals, io, log } = this.#options;
    const job = this.#offered.get(name);
    if (job === undefined || typeof job.options.checkpoints !== 'object')
      throw new MillraceError('JOB_NOT_FOUND', `This process does not run the job '${name}' with checkpoints.`);
    const { restore: _begin, ...options } = job.options;
    const files = filesOf(name, job.options.checkpoints, io);
    // The folder may be mounted elsewhere here.
    const own = below(files.checkpoints, nameIn(checkpoint));
    const path = (await files.storage.find(own)) === 'file' ? own : checkpoint;
    const { states } = await verifySnapshot(job.definition, options, path, internals.operators);
    const why = states
      .filter(({ outcome }) => outcome === 'refused')
      .map(({ uid, state, sentence, todo }) => `${state === undefined ? uid : `${uid}/${state}`}: ${sentence}${todo === undefined ? '' : ` ${todo}`}`);
    if (why.length > 0) log.error({ job: name, checkpoint, why }, `This version of '${name}' cannot take over, and stands by: ${why.join(' ')}`);
    return why;
  }

  // ── jobs ──

  /** This process can run that job from now on, and lead it. */
  async offer(holder: Holder, job: OfferedJob, worker: WorkerJob): Promise<void> {
    const { name } = job.definition;
    if (this.#offered.has(name))
      throw new MillraceError('JOB_ALREADY_RUNNING', `This process runs the job '${name}' in that cluster already.`, {
        todo: 'Use the handle that its start has given.',
        retryable: false,
      });
    this.#offered.set(name, { ...job, holder });
    try {
      await this.#worker.add(name, worker);
    } catch (error) {
      this.#offered.delete(name);
      // What could not be said now would be said with the next connection.
      await this.#worker.remove(name).catch(() => {
        // For the same reason; it is not said any more.
      });
      throw error;
    }
    this.#leader.offers();
  }

  /** By which the commands of another machine find the job. */
  async announce(job: string, door: MemberDoor, everywhere: boolean): Promise<void> {
    await this.#worker
      .announce(job, door, everywhere)
      .catch((error) => this.#options.log.warn({ error: messageOf(error) }, `The door of '${job}' in this process is not found by way of ZooKeeper.`));
  }

  #hosts({ definition: { name }, planHash }: OfferedJob, term: Term): Hosts {
    const { io, log } = this.#options;
    return new Workers({ worker: this.#worker, job: name, planHash, epoch: term.epoch, io, log });
  }

  #slots({ definition: { name }, planHash }: OfferedJob): number {
    // A member that was killed is listed until its session ends.
    return this.#worker.members().reduce((sum, { id, slots, plans }) => sum + (plans[name] === planHash && this.#worker.reaches(id) ? slots : 0), 0);
  }

  // ── the end ──

  /** Of a job that is over. The last one ends the replica. */
  async release(holder: Holder, job: string): Promise<void> {
    this.#holders.delete(holder);
    if (this.#holders.size === 0) return this.#leave(left(), false);
    // Another start of the same name, which was refused, has offered nothing.
    if (this.#offered.get(job)?.holder !== holder) return;
    this.#offered.delete(job);
    await this.#worker
      .remove(job)
      .catch((error) => this.#options.log.warn({ error: messageOf(error) }, `The job '${job}' is still listed as one of this worker.`));
  }

  /** B1. */
  leave(): Promise<void> {
    return this.#leave(left(), true);
  }

  /** B1. */
  async #handOver(cause: Error): Promise<void> {
    if (this.#leader === undefined) return;
    const { leads } = this.#leader;
    if (leads) await this.#leader.handOver(cause);
    // Listed without jobs it is given no more tasks, and no candidate lets it pass; then those that it has are moved.
    for (const name of this.#offered.keys()) await this.#worker.remove(name);
    if (!leads) await this.#drained(cause);
  }

  /** B1: by whoever leads; it may be leaving too. */
  async #drained(cause: Error): Promise<void> {
    const { io } = this.#options;
    const until = io.elapsed() + DRAIN_MS;
    for (;;) {
      // Elected meanwhile.
      if (this.#leader.leads) return this.#leader.handOver(cause);
      const leader = this.#elected;
      if (leader === undefined) return;
      try {
        await this.ask(leader, 'drain', { worker: this.#worker.id }, { timeout: Math.max(1, until - io.elapsed()) });
        return;
      } catch (error) {
        if (whyUnanswered(error) === undefined || io.elapsed() > until) throw error;
        await this.moved(leader, AGAIN_MS);
      }
    }
  }

  /** B2. */
  #fail(error: Error): void {
    if (this.#leaving !== undefined) return;
    const closed = codeOf(error) === 'ZOOKEEPER_CLOSED';
    if (!closed) this.#options.log.error({ error: messageOf(error) }, 'This process cannot stay in the cluster.');
    void this.#leave(closed ? left(error) : error, false);
  }

  #leave(cause: Error, inOrder: boolean): Promise<void> {
    this.#leaving ??= this.#left(cause, inOrder);
    return this.#leaving;
  }

  async #left(cause: Error, inOrder: boolean): Promise<void> {
    const { log } = this.#options;
    const waits = async (what: string, work: () => Promise<unknown> | undefined): Promise<void> => {
      try {
        await work();
      } catch (error) {
        if (codeOf(error) !== 'ZOOKEEPER_CLOSED') log.warn({ error: messageOf(error) }, `This process leaves the cluster, and ${what}.`);
      }
    };
    if (inOrder) await waits('could not hand over what it ran', () => this.#handOver(cause));
    this.#ended.abort();
    await waits('did not end what it led in order', () => this.#standing);
    this.#calls.close(cause);
    await waits('is listed until its session ends', () => this.#worker?.close());
    for (const holder of [...this.#holders]) holder.left(cause);
    this.#holders.clear();
    for (const wake of [...this.#moved]) wake();
  }
}

function left(cause?: unknown): MillraceError {
  return new MillraceError('CLUSTER_LEFT', 'This process has left the cluster; the job goes on where it runs.', {
    todo: 'Start it again here to see how it ends.',
    cause,
  });
}
