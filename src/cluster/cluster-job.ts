// A job of a cluster, as each process that has started it sees it: one handle on the whole job, whoever leads it.
//
// Who owns what: the leader runs the job (led-job.ts), the job store says that it should run, and how it ended. The handle asks, follows and tells.
//
// Invariants:
//  H1  `finished` settles by the end that the store has of this run: what every replica is told is the same, and no leader's death loses it.
//  H2  What ends the job goes through the store, and so outlives the leader that was to do it.
//  H3  A question that was not answered is asked again of whoever leads by then, where asking twice does no harm; a savepoint and a rescale are not.
//  H4  Leaving is not ending: the handle rejects with CLUSTER_LEFT, the job goes on.

import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { memory } from '../../state-backends/index.ts';
import { absolute } from '../checkpoint/addresses.ts';
import { checkOptions, patienceOf } from '../checkpoint/decisions.ts';
import type { SnapshotFiles } from '../checkpoint/storage.ts';
import { asError, codeOf, MillraceError, messageOf } from '../errors.ts';
import { filesOf } from '../execution/snapshots.ts';
import { type Logger, SILENT } from '../graph/context.ts';
import type { CheckpointInfo, Cluster, JobEvent, JobResult, JobStatus, Key, MetricSample, RunOptions, SavepointInfo, TreeNode } from '../graph/job.ts';
import type { Node } from '../graph/node.ts';
import { leastOf, rangeOf } from '../graph/parallelism.ts';
import { buildGraph, type Plan } from '../graph/plan.ts';
import { whyUnanswered } from './calls.ts';
import { codeVersionOf } from './code-version.ts';
import { resultOf } from './ends.ts';
import { differing, type JobState, storedOptions } from './led-job.ts';
import { Replica, type ReplicaOptions } from './replica.ts';
import { checkStorage } from './shared-storage.ts';
import { planHashOf } from './worker.ts';
import type { Leader as Elected } from './zookeeper/election.ts';

export interface ClusterJobOptions {
  readonly cluster: Cluster;
  readonly replica: ReplicaOptions;
  /** The same as data, where tasks run in threads. */
  readonly data?: object | undefined;
}

/** Milliseconds that a question waits for a leader and its answer. */
const ASK_MS = 30_000;
/** A question about changes is answered sooner. */
const WATCH_MS = 30_000;
const AGAIN_MS = 200;
/** Until it is said that nobody starts the job. */
const SAY_MS = 10_000;

const ENDS: readonly JobStatus[] = ['finished', 'stopped', 'cancelled', 'failed'];

export class ClusterJob {
  readonly name: string;
  readonly finished: Promise<JobResult>;
  readonly plan: Plan;
  /** Mounted where the job is put together (observe/door.ts). */
  declare readonly handler: (request: IncomingMessage, response: ServerResponse) => void;
  readonly #definition: { readonly name: string; build(): Node[] };
  readonly #options: RunOptions;
  readonly #cluster: ClusterJobOptions;
  readonly #log: Logger;
  /** Where its checkpoints lie. */
  readonly #files: SnapshotFiles | undefined;
  readonly #over = new AbortController();
  #id = randomBytes(6).toString('hex');
  #status: JobStatus = 'starting';
  #restoredFrom: CheckpointInfo | undefined;
  #replica: Replica | undefined;
  #settle!: { resolve(result: JobResult): void; reject(error: unknown): void };
  #runs!: () => void;
  readonly #running: Promise<void>;

  constructor(definition: { readonly name: string; build(): Node[] }, options: RunOptions, cluster: ClusterJobOptions) {
    this.name = definition.name;
    this.#definition = definition;
    this.#options = options;
    this.#cluster = cluster;
    this.#log = options.logger ?? SILENT;
    rangeOf(options.parallelism);
    // What means nothing is refused here: a leader that finds it out has the job in its store by then.
    if (typeof options.checkpoints === 'object') {
      checkOptions(options.checkpoints);
      patienceOf(options.checkpoints);
    }
    this.#files = typeof options.checkpoints === 'object' ? filesOf(this.name, options.checkpoints, cluster.replica.io) : undefined;
    this.plan = buildGraph(definition.build(), { parallelism: leastOf(options.parallelism), version: options.version }).plan;
    this.finished = new Promise<JobResult>((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.#running = new Promise((resolve) => {
      this.#runs = resolve;
    });
    // Whoever cares awaits it.
    this.finished.catch(() => {});
  }

  /** Of this run, the same in every process. */
  get id(): string {
    return this.#id;
  }
  get status(): JobStatus {
    return this.#status;
  }
  get restoredFrom(): CheckpointInfo | undefined {
    return this.#restoredFrom;
  }

  // ── start ──

  /** This process is one of those that run the job, which is submitted where it is not there. Rejects with what prevents it. */
  async join(): Promise<void> {
    const { signal, checkpoints } = this.#options;
    const { cluster, replica: options, data } = this.#cluster;
    try {
      if (this.#leaves) throw new MillraceError('CLUSTER_LEFT', `The signal of the job '${this.name}' had aborted before it was started.`);
      const replica = await Replica.hold(cluster, options, this);
      this.#replica = replica;
      if (typeof checkpoints !== 'object')
        this.#log.warn({ job: this.name }, `'${this.name}' runs in a cluster without checkpoints: with its leader, or a worker, it begins anew.`);
      await this.#checkStorage(replica);
      const { version, module } = this.#options;
      const planHash = planHashOf(this.#definition, version ?? (await codeVersionOf(module!)));
      const needs = Math.max(...this.plan.vertices.map(({ parallelism }) => parallelism));
      await replica.offer(
        this,
        { definition: this.#definition, options: this.#options, planHash },
        { definition: this.#definition, planHash, needs, backend: this.#options.state ?? memory(), storage: this.#files, data },
      );
      await this.#submit(replica, planHash);
      const leave = (): void => void replica.leave();
      signal?.addEventListener('abort', leave, { once: true });
      // A signal may outlive many jobs.
      this.finished.catch(() => {}).finally(() => signal?.removeEventListener('abort', leave));
      void this.#followEnd(replica);
      void this.#watch(replica);
      if (this.#leaves) leave();
    } catch (error) {
      await this.withdraw(error);
      throw error;
    }
  }

  /** Resolves when every task runs, in whatever process; rejects with what prevents it. `door`: where this process answers for the job. */
  async start(door: string | undefined): Promise<void> {
    const { control } = this.#options;
    const everywhere = typeof control === 'object' && (control.host === '0.0.0.0' || control.host === '::');
    if (door !== undefined && !this.#over.signal.aborted) await this.#replica!.announce(this.name, { url: door, id: this.#id }, everywhere);
    const slow = setTimeout(
      () => this.#log.warn({ job: this.name }, `'${this.name}' does not run yet: no process of the cluster that leads has it, or there are too few slots.`),
      SAY_MS,
    );
    await Promise.race([this.#running, this.finished]).finally(() => clearTimeout(slow));
    // Whoever led first has said by now which storage it is.
    if (!this.#over.signal.aborted) await this.#checkStorage(this.#replica!);
  }

  /** Of a start that failed: the job goes on without this process. */
  async withdraw(cause: unknown): Promise<void> {
    this.#end('failed', () => this.#settle.reject(cause));
    await this.#replica?.release(this, this.name);
  }

  get #leaves(): boolean {
    return this.#options.signal?.aborted === true;
  }

  async #checkStorage({ client }: Replica): Promise<void> {
    if (this.#files !== undefined) await checkStorage(client, this.name, this.#files);
  }

  async #submit({ store }: Replica, planHash: string): Promise<void> {
    const job = { name: this.name, run: this.#id, options: storedOptions(this.#options), until: { kind: 'end' } } as const;
    for (;;) {
      if (await store.submit(job)) return;
      const there = (await store.jobs()).find(({ name }) => name === this.name);
      // It has ended just now.
      if (there === undefined) continue;
      this.#id = there.run ?? this.#id;
      const other = differing(there.options, this.#options);
      if (other.length > 0)
        this.#log.warn(
          { job: this.name, options: other },
          `'${this.name}' runs already, started with another value of ${other.join(', ')}: those of whoever leads are in force.`,
        );
      if (there.plan !== undefined && there.plan !== planHash)
        this.#log.info(
          { job: this.name },
          `'${this.name}' runs with another version of its program: this process stands by until its own has slots enough, or the other leaves.`,
        );
      const { restore = 'latest' } = this.#options;
      if (restore !== 'latest') this.#log.warn({ job: this.name }, `'${this.name}' runs already: what it was to be restored from here is not looked at.`);
      return;
    }
  }

  // ── what becomes of it ──

  /** H1. */
  async #followEnd({ store }: Replica): Promise<void> {
    const { signal } = this.#over;
    try {
      for await (const { wanted, end } of store.followedEnd(this.name, signal)) {
        if (end !== undefined && end.run === this.#id) {
          this.#ended(() => resultOf(end));
          return;
        }
        if (wanted !== undefined && wanted.run === this.#id) continue;
        const unknown = new MillraceError(
          'JOB_ENDED',
          `This run of the job '${this.name}' has ended, and how is not known any more: it was started again since.`,
        );
        this.#ended(() => {
          throw unknown;
        });
        return;
      }
    } catch (error) {
      // Where the session was closed the replica ends too, and tells.
      if (!signal.aborted && codeOf(error) !== 'ZOOKEEPER_CLOSED') this.left(asError(error));
    }
  }

  #ended(result: () => JobResult): void {
    let how: JobResult;
    try {
      how = result();
    } catch (error) {
      this.#end('failed', () => this.#settle.reject(error));
      void this.#replica?.release(this, this.name);
      return;
    }
    this.#end(how.status, () => this.#settle.resolve(how));
    void this.#replica?.release(this, this.name);
  }

  #end(status: JobStatus, settle: () => void): void {
    if (this.#over.signal.aborted) return;
    this.#over.abort();
    this.#become(status);
    settle();
  }

  /** H4. */
  left(cause: Error): void {
    if (this.#over.signal.aborted) return;
    this.#over.abort();
    this.#settle.reject(cause);
  }

  #become(status: JobStatus, restoredFrom = this.#restoredFrom): void {
    this.#restoredFrom = restoredFrom;
    if (status === 'running' || status === 'stopping') this.#runs();
    if (status === this.#status) return;
    this.#status = status;
    const event: JobEvent = { type: 'status', status, ...(restoredFrom === undefined ? {} : { restoredFrom }) };
    try {
      this.#options.onEvent?.(event);
    } catch (error) {
      this.#log.error({ error: messageOf(error) }, 'onEvent threw.');
    }
  }

  /** How the job stands, as its leader sees it. */
  async #watch(replica: Replica): Promise<void> {
    const { signal } = this.#over;
    let known = 0;
    let epoch = 0;
    while (!signal.aborted && !replica.ended) {
      let leader: Elected<{ id: string; address: string }> | undefined;
      try {
        leader = await replica.leader(WATCH_MS);
        if (leader.epoch !== epoch) known = 0;
        epoch = leader.epoch;
        const state = (await replica.ask(leader, 'watch', { job: this.name, run: this.#id, known }, { signal, timeout: WATCH_MS })) as JobState;
        if (signal.aborted) return;
        known = state.version;
        const starts = state.status === 'starting' && this.#status !== 'starting';
        // How it has ended comes from the store, in a moment.
        if (ENDS.includes(state.status)) await replica.moved(leader, AGAIN_MS);
        else this.#become(starts ? 'restarting' : state.status, state.restoredFrom);
      } catch (error) {
        if (signal.aborted) return;
        if (whyUnanswered(error) === undefined) this.#log.warn({ error: messageOf(error) }, `How '${this.name}' stands is not known: who leads does not say.`);
        if (this.#status === 'running' && codeOf(error) !== 'JOB_NOT_FOUND') this.#become('restarting');
        await replica.moved(leader, AGAIN_MS);
      }
    }
  }

  // ── asking ──

  /** H3. */
  async #ask<T>(method: string, args: object = {}, { repeats = true, timeout = ASK_MS }: { repeats?: boolean; timeout?: number } = {}): Promise<T> {
    const replica = this.#replica;
    const { signal } = this.#over;
    const until = performance.now() + timeout;
    for (;;) {
      if (replica === undefined || signal.aborted || replica.ended)
        throw new MillraceError('JOB_ENDED', `The job '${this.name}' has ended, or this process has left it.`);
      let leader: Elected<{ id: string; address: string }> | undefined;
      try {
        leader = await replica.leader(Math.max(0, until - performance.now()));
        const left = until - performance.now();
        return (await replica.ask(
          leader,
          method,
          { job: this.name, run: this.#id, ...args },
          { signal, ...(left === Number.POSITIVE_INFINITY ? {} : { timeout: left }) },
        )) as T;
      } catch (error) {
        const why = whyUnanswered(error);
        if (signal.aborted) continue;
        if (why === undefined || (why === 'unknown' && !repeats) || performance.now() > until) throw error;
        await replica.moved(leader, AGAIN_MS);
      }
    }
  }

  tree(): Promise<TreeNode> {
    if (this.#over.signal.aborted) return Promise.resolve({ name: 'host', path: '/', kind: 'system', state: 'stopped', restarts: 0, mailbox: 0, children: [] });
    return this.#ask('tree');
  }
  async metrics(): Promise<MetricSample[]> {
    return this.#over.signal.aborted ? [] : this.#ask('metrics');
  }
  async checkpoints(): Promise<CheckpointInfo[]> {
    return this.#over.signal.aborted ? [] : this.#ask('checkpoints');
  }
  checkpoint(): Promise<CheckpointInfo> {
    return this.#ask('checkpoint', {}, { timeout: Number.POSITIVE_INFINITY });
  }
  async query<V>(uid: string, state: string, key?: Key): Promise<V | undefined> {
    return (await this.#ask<{ value: V | undefined }>('query', { uid, state, ...(key === undefined ? {} : { key }) })).value;
  }
  /** A question of the control door about keyed state. */
  answerState(url: string): Promise<unknown> {
    return this.#ask('door state', { url });
  }
  savepoint(directory: string): Promise<SavepointInfo> {
    return this.#ask('savepoint', { directory: absolute(directory) }, { repeats: false, timeout: Number.POSITIVE_INFINITY });
  }
  rescale(parallelism: number): Promise<{ readonly parallelism: number; readonly checkpoint: CheckpointInfo }> {
    return this.#ask('rescale', { parallelism }, { repeats: false, timeout: Number.POSITIVE_INFINITY });
  }

  /** H2. */
  async stop({ drain = false, savepoint }: { drain?: boolean; savepoint?: string } = {}): Promise<JobResult> {
    if (this.#over.signal.aborted) return this.finished;
    if (savepoint === undefined) {
      await this.#replica?.store.until(this.name, { kind: 'stop', drain }, this.#id);
      return this.finished;
    }
    const folder = absolute(savepoint);
    await this.#ask('stop', { drain, savepoint: folder }, { repeats: false, timeout: Number.POSITIVE_INFINITY });
    const result = await this.finished;
    if (result.savepoint === undefined && result.status === 'stopped')
      throw new MillraceError('SAVEPOINT_FAILED', `The job '${this.name}' has stopped, but its savepoint in ${folder} could not be written.`, {
        todo: `Start it again, or elsewhere from its last checkpoint${result.checkpoint === undefined ? '' : `: ${result.checkpoint.path}`}.`,
      });
    return result;
  }

  /** H2. */
  async cancel(): Promise<JobResult> {
    if (!this.#over.signal.aborted) await this.#replica?.store.until(this.name, { kind: 'cancel' }, this.#id);
    return this.finished;
  }
}
