// A run of a job: the job supervisor. It starts regions, restarts them from the newest checkpoint, ends the job, and answers for it.
//
// Who owns what: the run owns the actor system of its host, the snapshots' storage and registry, the regions' attempts, and the status. The coordinator and the
// tasks are actors below the supervisor actor; they report by mail to it.
//
// The order of a start: lock and registry → attempt number → choice of the checkpoint → leftovers removed → regions opened → go. Of a restart: the old attempt's
// tasks have ended → backoff → the completion in flight is settled → a new attempt number → choice → regions opened → go.
//
// Invariants:
//  J1  A result is registered after the last commit; a job that finished is not run again (protocols 20).
//  J2  Every failure ends in exactly one of: a restart, the end of the job with a JobError, the end by policy `stop`.
//  J3  Nothing of an ended run keeps the process alive.
//  J4  A run that is abandoned writes nothing any more: no outcome, no checkpoint, no removal. Another leader goes on from what is registered (protocols 17).
//  J5  Where it takes over from another leader it goes on with regions that run, before it opens the others: none of these is fallen back, restarted or swept (protocols 17).

import { randomBytes } from 'node:crypto';
import { createActor } from 'xstate';
import { type ActorContext, type ActorRef, createSystem, defineActor } from '../../actors/index.ts';
import { defaultMaxParallelism, memory, type StateBackend } from '../../state-backends/index.ts';
import { absolute } from '../checkpoint/addresses.ts';
import { type CompletedCheckpoint, Coordinator, type CoordinatorMail } from '../checkpoint/coordinator.ts';
import { checkOptions, patienceOf } from '../checkpoint/decisions.ts';
import type { CheckpointMetadata } from '../checkpoint/metadata.ts';
import type { Registry } from '../checkpoint/registry.ts';
import { settleMaxParallelism, strayed, unclaimed, uncommitted } from '../checkpoint/restore.ts';
import type { SavepointPlace } from '../checkpoint/savepoint.ts';
import type { SnapshotFiles } from '../checkpoint/storage.ts';
import { claiming } from '../checkpoint/verify.ts';
import { asError, codeOf, isDeposed, MillraceError, messageOf } from '../errors.ts';
import { type Logger, SILENT } from '../graph/context.ts';
import type {
  CheckpointInfo,
  DeadLetter,
  JobError,
  JobEvent,
  JobResult,
  JobStatus,
  Key,
  MetricSample,
  RunOptions,
  SavepointInfo,
  TreeNode,
} from '../graph/job.ts';
import { type Node, nameOf } from '../graph/node.ts';
import { leastOf } from '../graph/parallelism.ts';
import { buildGraph, type Graph } from '../graph/plan.ts';
import { isTransactional } from '../graph/sink.ts';
import { endsWithJob } from '../graph/source.ts';
import { type Io, systemIo } from '../runtime/io.ts';
import type { OperatorFactory } from '../runtime/operator.ts';
import type { Queryable } from '../runtime/queryable.ts';
import type { TaskFailure } from '../runtime/units.ts';
import { AlignmentGroups } from '../time/alignment-group.ts';
import { type JobStep, jobLifecycle } from './lifecycle.ts';
import { hopeless, type LossFacts, type LossRow, lossLimits, NO_LOSSES, rowNow, withLoss } from './losses.ts';
import { MetricRegistry } from './metrics.ts';
import { type Hosts, RegionAttempt, type StandingRegion } from './region.ts';
import { decideRestart, policyOf, type RestartPolicy } from './restarts.ts';
import { bare, type Chosen, Snapshots } from './snapshots.ts';
import { StateQueries } from './state-queries.ts';

export interface JobDefinition {
  readonly name: string;
  /** Builds the logical graph anew, with fresh closures. */
  build(): Node[];
}

/** What the composition root and tests pass in. */
export interface Internals {
  /** Which operator a step of the plan becomes. */
  readonly operators: (node: Node) => OperatorFactory;
  /** What of an operator can be asked for from outside; nothing by default. */
  readonly queryable?: (node: Node) => Queryable;
  readonly io?: Io;
  /** The actor system of the host; one on the machine's clock by default. */
  readonly createSystem?: typeof createSystem;
  /** All tasks run in this thread by default. */
  readonly hosts?: Hosts | undefined;
  /** Where the checkpoints in those files are registered; by default in a directory of this machine. */
  readonly registry?: ((files: SnapshotFiles) => Promise<Registry>) | undefined;
  /** The largest parallelism that it may be rescaled to, where that is known: key groups are made for it. */
  readonly reaches?: number | undefined;
  /** How many instances there is room for now; asked before a restart, which then has no more. As many as are wanted by default. */
  readonly room?: (() => number) | undefined;
  /** Worker processes that were lost in a row, and where that is kept before anything is opened anew. In this run alone by default. */
  readonly losses?: { readonly row: LossRow; keep(row: LossRow): Promise<void> } | undefined;
  readonly watermarkEachBatch?: boolean;
  /** Asked about each notice of a checkpoint's completion or abort to a task: true where it gets lost on its way. None does by default. */
  readonly loses?: () => boolean;
}

interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
}

function deferred<T>(): Deferred<T> {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((res, rej) => {
    resolve = res;
    reject = rej;
  });
  // Whoever cares awaits it; a failure that nobody awaits is still reported through events and the log.
  promise.catch(() => {});
  return { promise, resolve, reject };
}

type JobMail = { readonly kind: 'run'; readonly fn: () => void };

interface RegionSlot {
  readonly number: number;
  attempt: RegionAttempt | undefined;
  ref: ActorRef<never> | undefined;
  running: boolean;
  restarts: number;
  /** The attempt that is to run: an older one whose opening took longer is closed. */
  wanted: number;
}

/** What clocks of machines differ by anyway is not worth a word. */
const CLOCK_BEHIND_MS = 1000;

/** Who asks a process to end is not patient for longer than 30 s as a rule. */
const HAND_OVER_MS = 20_000;

export class JobRun {
  readonly id: string;
  readonly name: string;
  readonly #definition: JobDefinition;
  readonly #options: RunOptions;
  readonly #io: Io;
  readonly #log: Logger;
  readonly #internals: Internals;
  readonly #life = createActor(jobLifecycle);
  readonly #finished = deferred<JobResult>();
  readonly #started = deferred<void>();
  readonly #metrics = new MetricRegistry();
  readonly #alignment = new AlignmentGroups();
  readonly #slots: RegionSlot[] = [];
  readonly #backend: StateBackend;
  /** Of unaligned checkpoints. */
  readonly #patience: number | undefined;
  #graph: Graph;
  /** Rescaling changes it. */
  #parallelism: number;
  #system: ReturnType<typeof createSystem> | undefined;
  #context: ActorContext<JobMail> | undefined;
  #snapshots: Snapshots | undefined;
  #coordinator: Coordinator | undefined;
  #coordinatorRef: ActorRef<CoordinatorMail> | undefined;
  #maxParallelism = 0;
  #lineage = '';
  #attempt = 0;
  #stamps: readonly number[] = [];
  #losses: readonly number[] = [];
  /** Worker processes that were lost in a row, and what of that was kept. */
  #row: LossRow;
  #rowKept: LossRow;
  #restarts = 0;
  #ending: Promise<void> | undefined;
  #abandoned: MillraceError | undefined;
  #stopping: Promise<JobResult> | undefined;
  #restoredFrom: CheckpointInfo | undefined;
  #readyAgain: Deferred<void> | undefined;
  /** Of the next region that runs. */
  #regionRuns = deferred<void>();
  /** Questions from outside about keyed state. */
  readonly state: StateQueries;
  /** The folder that `stop({ savepoint })` has named; where it is, once that is prepared; and how it went. */
  #savepointFolder: string | undefined;
  #savepointPlace: SavepointPlace | undefined;
  #savepointFailed: unknown;

  constructor(definition: JobDefinition, options: RunOptions, internals: Internals) {
    this.id = randomBytes(6).toString('hex');
    this.name = definition.name;
    this.#definition = definition;
    this.#options = options;
    this.#internals = internals;
    this.#io = internals.io ?? systemIo();
    this.#log = options.logger ?? SILENT;
    this.#backend = options.state ?? memory();
    this.#parallelism = leastOf(options.parallelism);
    if (typeof options.checkpoints === 'object') checkOptions(options.checkpoints);
    this.#patience = typeof options.checkpoints === 'object' ? patienceOf(options.checkpoints) : undefined;
    this.#graph = this.#build();
    this.#row = internals.losses?.row ?? NO_LOSSES;
    this.#rowKept = this.#row;
    internals.hosts?.onGone?.((worker) => {
      this.#row = withLoss(this.#row, worker, this.#lossFacts);
    });
    const ended = (): boolean => this.#ending !== undefined || ['finished', 'stopped', 'cancelled', 'failed'].includes(this.status);
    this.state = new StateQueries({
      job: definition.name,
      maxParallelism: () => this.#maxParallelism,
      ended,
      tasks: () => this.#slots.flatMap((slot) => (slot.running ? (slot.attempt?.asked ?? []) : [])),
      parallelism: (uid) => this.#graph.vertices.find(({ nodes }) => nodes.some((node) => nameOf(node) === uid))?.parallelism ?? 1,
      nodes: () => this.#graph.vertices.flatMap(({ nodes }) => nodes),
      queryable: internals.queryable ?? (() => ({ states: [], without: [] })),
      changed: () => Promise.race([this.#regionRuns.promise, this.#finished.promise.then(() => {})]).catch(() => {}),
    });
    this.#life.start();
  }

  get status(): JobStatus {
    return this.#life.getSnapshot().value as JobStatus;
  }
  get finished(): Promise<JobResult> {
    return this.#finished.promise;
  }
  /** The checkpoint that this run started from, where it did. */
  get restoredFrom(): CheckpointInfo | undefined {
    return this.#restoredFrom;
  }
  /** Its end has begun; `finished` settles when it is over. */
  get ending(): boolean {
    return this.#ending !== undefined;
  }
  /** It has begun to open tasks, and can be asked for something. */
  get launched(): boolean {
    return this.#system !== undefined;
  }
  get plan() {
    return this.#graph.plan;
  }
  /** Of operators that do not say otherwise. */
  get parallelism(): number {
    return this.#parallelism;
  }

  #build(): Graph {
    return buildGraph(this.#definition.build(), { parallelism: this.#parallelism, version: this.#options.version });
  }

  #step(type: JobStep['type']): void {
    const before = this.status;
    this.#life.send({ type });
    if (this.status === before) return;
    const from = this.#restoredFrom;
    this.#event({ type: 'status', status: this.status, ...(from === undefined ? {} : { restoredFrom: bare(from) }) });
  }

  #event(event: JobEvent): void {
    try {
      this.#options.onEvent?.(event);
    } catch (error) {
      this.#log.error({ error: messageOf(error) }, 'onEvent threw.');
    }
  }

  #post(fn: () => void): void {
    this.#context?.self.tell({ kind: 'run', fn });
  }

  // ── start ──

  /** Resolves when every task runs; rejects with what prevented it. */
  async start(): Promise<void> {
    try {
      const result = await this.#prepare();
      if (result !== undefined) {
        this.#log.info(`The job '${this.name}' has finished before; its result is returned. restore: 'none' (--restore none) runs it anew.`);
        this.#step('finished');
        await this.#snapshots?.close();
        this.#started.resolve();
        this.#finished.resolve(result);
        return;
      }
      if (this.#abandoned !== undefined) throw this.#abandoned;
      this.#launch();
    } catch (error) {
      await this.#internals.hosts?.close();
      await this.#snapshots?.close();
      this.#step('give up');
      this.#started.reject(error);
      this.#finished.reject(error);
      throw error;
    }
    const { signal } = this.#options;
    const aborted = (): void => void this.cancel().catch(() => {});
    signal?.addEventListener('abort', aborted, { once: true });
    this.finished.catch(() => {}).finally(() => signal?.removeEventListener('abort', aborted));
    if (signal?.aborted === true || this.#cancelled) aborted();
    await this.#started.promise;
  }

  async #prepare(): Promise<JobResult | undefined> {
    const options = this.#options;
    const checkpoints = options.checkpoints === undefined ? false : options.checkpoints;
    if (checkpoints === false && typeof options.restore === 'object')
      throw new MillraceError('CHECKPOINTS_OFF', `The job '${this.name}' is to be restored, but runs without checkpoints.`, {
        todo: 'Start it with checkpoints: { directory }.',
      });
    const nodes = this.#graph.vertices.flatMap((v) => v.nodes);
    if (checkpoints === false) {
      const unbounded = nodes.some((n) => n.step.kind === 'source' && !n.step.source.bounded);
      const transactional = nodes.find((n) => n.step.kind === 'sink' && isTransactional(n.step.sink));
      if (unbounded && transactional !== undefined) {
        throw new MillraceError(
          'SINK_NEVER_COMMITS',
          `The transactional sink '${transactional.uid}' would never commit: the job '${this.name}' is unbounded and has no checkpoints.`,
          { uid: transactional.uid!, todo: "Give the job checkpoints: { directory: 'checkpoints' }." },
        );
      }
      this.#lineage = randomBytes(8).toString('hex');
      this.#attempt = 1;
      this.#settleGroups(undefined);
      return undefined;
    }
    this.#snapshots = await Snapshots.open(this.name, checkpoints, options, this.#io, this.#log, this.#internals.registry);
    const { registry } = this.#snapshots;
    const { restore = 'latest' } = options;
    const outcome = await registry.outcome();
    if (restore === 'latest' && outcome === 'finished') return registry.result();
    const found = await this.#snapshots.files.found();
    if (restore === 'latest' && found.metadata !== undefined && (await registry.lineage()) === undefined)
      throw registryLost(this.#snapshots.files.folder, found.metadata);
    if (restore === 'latest' && (found.attempt > ((await registry.attempt()) ?? 0) || found.id > (await registry.counter())))
      throw registryBehind(this.#snapshots.files.folder, found.metadata);
    // What wrote the snapshot is fenced by a larger attempt, wherever it lies (protocols 5).
    const behind = typeof restore === 'object' ? await this.#snapshots.attemptBehind(restore.from) : 0;
    const stored = restore === 'latest' && outcome !== 'cancelled' ? await registry.lineage() : undefined;
    // Without a question nothing is gone on with, and what there is ends.
    const standing =
      (await this.#internals.hosts?.standing?.({
        graph: this.#graph,
        lineage: stored ?? '',
        begun: outcome === 'running' && stored !== undefined ? ((await registry.begunIn?.()) ?? new Map()) : new Map(),
      })) ?? new Map<number, StandingRegion>();
    const regions = [...Array(this.#graph.regions).keys()];
    this.#attempt = await registry.nextAttempt(
      Math.max(found.attempt, behind),
      regions.filter((region) => !standing.has(region)),
    );
    await this.#io.step('job.attempt');
    const newest = standing.size === 0 ? undefined : (await registry.checkpoints()).findLast(({ lineage }) => lineage === stored)?.id;
    // `latest` goes on with the lineage that it finds; a start without a snapshot, or from a named one, begins a new one (protocols 5).
    this.#lineage = stored ?? randomBytes(8).toString('hex');
    const chosen =
      typeof restore === 'object'
        ? await this.#snapshots.from(restore.from, this.#attempt, {
            claim: restore.claim,
            keeps: restore.allowNonRestoredState === true ? (metadata) => claiming(this.#graph, metadata, this.#internals.operators) : undefined,
          })
        : stored === undefined
          ? undefined
          : await this.#snapshots.latest(this.#graph, this.#attempt, stored);
    // A start that is refused changes nothing: the next one finds the lineage as it was.
    if (chosen !== undefined) this.#check(chosen.metadata);
    this.#settleGroups(chosen?.metadata);
    await this.#goOnWith(standing, newest === undefined || newest === chosen?.info.id);
    const origin = typeof restore === 'object' ? chosen!.info.path : stored === undefined ? undefined : await registry.origin();
    await registry.begin(this.#lineage, origin, chosen?.claimed);
    await this.#snapshots.release();
    await this.#snapshots.sweep(Math.min(this.#attempt, ...[...this.#standing.values()].map(({ attempt }) => attempt)));
    this.#chosen = chosen;
    this.#restoredFrom = chosen?.info;
    if (this.#standing.size > 0)
      this.#log.info(
        { regions: [...this.#standing.keys()] },
        `The job '${this.name}' goes on under another leader: ${this.#standing.size} of its regions keep running.`,
      );
    else if (chosen !== undefined)
      this.#log.info({ checkpoint: chosen.info.id, path: chosen.info.path }, `The job '${this.name}' resumes from checkpoint ${chosen.info.id}.`);
    return undefined;
  }

  #chosen: Chosen | undefined;
  /** J5: by number, regions that this run has not opened. */
  #standing = new Map<number, StandingRegion>();

  /** J5. Not where the newest checkpoint cannot be used: those of before it are not theirs. */
  async #goOnWith(standing: ReadonlyMap<number, StandingRegion>, isNewest: boolean): Promise<void> {
    const fit = [...standing].filter(([, { maxParallelism }]) => isNewest && maxParallelism === this.#maxParallelism);
    const kept = await this.#internals.hosts?.settle?.(new Set(fit.map(([region]) => region)));
    this.#standing = new Map(fit.filter(([region]) => kept?.has(region) === true));
    const anew = [...standing.keys()].filter((region) => !this.#standing.has(region));
    if (anew.length > 0) this.#attempt = await this.#snapshots!.registry.nextAttempt(0, anew);
  }

  #check(metadata: CheckpointMetadata): void {
    const { restore } = this.#options;
    const dropsState = typeof restore === 'object' && restore.allowNonRestoredState === true;
    const astray = strayed(metadata, this.#graph);
    if (astray.size > 0 && !dropsState) {
      throw new MillraceError(
        'RESTORE_STATE_UNCLAIMED',
        `The checkpoint ${metadata.id} has records on their way to ${[...astray.keys()].map((uid) => `'${uid}'`).join(', ')}, by an exchange that the job '${this.name}' does not have any more.`,
        {
          todo: 'Bring the exchange back, start from a savepoint, which has no such records, or accept that they are dropped: restore: { from, allowNonRestoredState: true }.',
        },
      );
    }
    const pending = uncommitted(metadata, this.#graph);
    if (pending.size > 0 && !dropsState) {
      throw new MillraceError(
        'RESTORE_STATE_UNCLAIMED',
        `The checkpoint ${metadata.id} has records that ${[...pending.keys()].map((uid) => `'${uid}'`).join(', ')} had still to commit, and that sink of the job '${this.name}' is not transactional any more.`,
        {
          todo: 'Bring the transactional sink back until it has committed them, or accept that they are dropped: restore: { from, allowNonRestoredState: true }.',
        },
      );
    }
    const without = unclaimed(metadata, this.#graph);
    if (without.length > 0 && !dropsState) {
      throw new MillraceError(
        'RESTORE_STATE_UNCLAIMED',
        `The checkpoint ${metadata.id} has state of ${without.map((uid) => `'${uid}'`).join(', ')}, which the job '${this.name}' does not have any more.`,
        {
          todo: 'Bring the operators back, or accept that their state is dropped: restore: { from, allowNonRestoredState: true }.',
        },
      );
    }
  }

  #settleGroups(metadata: CheckpointMetadata | undefined): void {
    const largest = Math.max(...this.#graph.vertices.map((v) => v.parallelism));
    this.#maxParallelism = settleMaxParallelism({
      asked: this.#options.maxParallelism,
      stored: metadata?.maxParallelism,
      byDefault: defaultMaxParallelism(Math.max(largest, this.#internals.reaches ?? 0)),
      largest,
    });
  }

  #launch(): void {
    const { checkpoints } = this.#options;
    const on = checkpoints === false || checkpoints === undefined ? undefined : checkpoints;
    this.#coordinator = new Coordinator({
      job: this.name,
      lineage: this.#lineage,
      attempt: () => this.#attempt,
      maxParallelism: this.#maxParallelism,
      planHash: () => this.#graph.plan.hash,
      tasks: () => this.#graph.vertices.reduce((sum, v) => sum + v.parallelism, 0),
      storage: this.#snapshots?.files,
      registry: this.#snapshots?.registry,
      io: this.#io,
      log: this.#log,
      every: on?.every ?? 10_000,
      timeout: on?.timeout ?? 600_000,
      minPause: on?.minPause ?? 0,
      retain: on?.retain ?? 3,
      verify: on?.verify,
      release: () => this.#snapshots!.release(),
      tolerate: on?.tolerate ?? 0,
      unaligned: this.#patience,
      restored: this.#chosen?.info,
      onCompleted: (checkpoint) => this.#event({ type: 'checkpoint', checkpoint }),
      onFailed: (id, error) => {
        this.#log.warn({ checkpoint: id, error: error.message }, `Checkpoint ${id} failed.`);
        this.#event({ type: 'checkpoint-failed', id, error: error as JobError });
      },
      onIntolerable: (error) => this.#post(() => this.#failRegions(error)),
    });
    for (let number = 0; number < this.#graph.regions; number++)
      this.#slots.push({ number, attempt: undefined, ref: undefined, running: false, restarts: 0, wanted: 0 });
    this.#system = (this.#internals.createSystem ?? createSystem)({ name: 'host', random: () => this.#io.random(), onFailure: () => {} });
    const supervisorOfJob = defineActor<JobMail>(
      (context) => {
        this.#context = context;
        this.#coordinatorRef = context.spawn(this.#coordinator!.behaviour(), { name: 'coordinator' });
        context.watch(this.#coordinatorRef);
        return {
          receive: (mail) => {
            try {
              mail.fn();
            } catch (error) {
              this.#giveUp(asMillrace(error));
            }
          },
          onSignal: { terminated: (ref, reason) => this.#terminated(ref, reason) },
          inspect: () => ({ restarts: this.#restarts, snapshot: this.status, metrics: { lastCheckpoint: this.#coordinator!.completed?.id ?? null } }),
        };
      },
      { kind: 'supervisor' },
    );
    this.#system.spawn(supervisorOfJob, { name: this.name, shutdown: 'infinity' });
    this.#readyAgain = deferred();
    const counter = this.#snapshots === undefined ? Promise.resolve(0) : this.#snapshots.registry.counter();
    counter
      .then((n) => this.#coordinator!.floor(n))
      .then(() => Promise.all(this.#slots.map((slot) => this.#open(slot, this.#graph, this.#chosen))))
      .catch((error) =>
        this.#post(() =>
          this.#fail(
            this.#slots.filter((slot) => !slot.running),
            asMillrace(error),
          ),
        ),
      );
  }

  /** Protocols 24. The metric `clockBehindMs` shows it as long as it lasts. */
  #sayClock({ tasks }: CheckpointMetadata): void {
    const behind = tasks.reduce((latest, { processingTime }) => Math.max(latest, processingTime), 0) - this.#io.clock.now();
    if (behind < CLOCK_BEHIND_MS) return;
    this.#log.warn(
      { behindMs: Math.round(behind) },
      `The clock of this machine is ${Math.round(behind)} ms behind the restored one: processing time stands still until it has caught up.`,
    );
  }

  async #open(slot: RegionSlot, graph: Graph, chosen: Chosen | undefined): Promise<void> {
    const standing = this.#standing.get(slot.number);
    this.#standing.delete(slot.number);
    if (chosen !== undefined && standing === undefined) this.#sayClock(chosen.metadata);
    const { checkpoints } = this.#options;
    const wanted = standing?.attempt ?? this.#attempt;
    slot.wanted = wanted;
    const attempt = await RegionAttempt.open({
      job: this.name,
      number: slot.number,
      attempt: wanted,
      lineage: this.#lineage,
      graph,
      maxParallelism: this.#maxParallelism,
      backend: this.#backend,
      operators: this.#internals.operators,
      io: this.#io,
      log: this.#log,
      metrics: this.#metrics,
      storage: this.#snapshots?.files,
      blocking: !(typeof checkpoints === 'object' && checkpoints.mode === 'at-least-once'),
      watermarkEachBatch: this.#internals.watermarkEachBatch ?? false,
      alignment: this.#alignment,
      loses: this.#internals.loses,
      hosts: this.#internals.hosts,
      standing,
      room: this.#internals.room,
      metadata: chosen?.metadata,
      usedIds: { after: this.#snapshots?.registry.since, to: this.#coordinator!.usedId },
      lastCheckpoint: () => this.#coordinator?.completed?.id,
      reports: (task) => this.#reports(slot, task, wanted),
      onDeadLetter: (letter: DeadLetter) => this.#event({ type: 'dead-letter', deadLetter: letter }),
    });
    // Nobody reads mail any more.
    if (this.#ending !== undefined) return attempt.close();
    this.#post(() => {
      if (this.#ending !== undefined || this.#restarting.has(slot) || slot.wanted !== wanted) {
        // The job ends, or has begun to open this region anew because another one could not be opened.
        attempt.close().catch((error) => this.#log.warn({ error: messageOf(error) }, 'State could not be closed.'));
        return;
      }
      slot.attempt = attempt;
      slot.ref = this.#context!.spawn(attempt.behaviour(), { name: `region-${slot.number}`, shutdown: 'infinity' });
      this.#context!.watch(slot.ref);
      if (attempt.isOpen) this.#regionOpened();
    });
  }

  #reports(slot: RegionSlot, task: string, current: number) {
    const mine = (fn: () => void) => (): void =>
      this.#post(() => {
        if (slot.attempt?.attempt === current) fn();
      });
    const coordinator = (mail: CoordinatorMail): void => this.#coordinatorRef?.tell(mail);
    return {
      opened: ({ marker }: { marker: number }) =>
        mine(() => {
          if (slot.attempt!.opened(task, marker)) this.#regionOpened();
        })(),
      ack: (id: number, snapshot: never, pauseMs: number) => coordinator({ kind: 'ack', id, attempt: current, task, snapshot, pauseMs }),
      declined: (id: number, error: unknown) => coordinator({ kind: 'declined', id, attempt: current, task, error }),
      committed: (id: number) => coordinator({ kind: 'committed', id, task }),
      ended: () => coordinator({ kind: 'ended', attempt: current, task }),
      finished: () => {
        coordinator({ kind: 'finished', attempt: current, task });
        mine(() => this.#taskFinished(slot, task))();
      },
      failed: (failure: TaskFailure) => mine(() => this.#taskFailed(slot, failure))(),
      stopped: (failure: TaskFailure) => mine(() => this.#stopBecause(failure))(),
    };
  }

  /** Every task of every region must be open before any begins: the first id depends on all markers. */
  #regionOpened(): void {
    const pending = this.#slots.filter((s) => !s.running);
    // A region that still goes down has the attempt that was open before: those that are back wait for its next one.
    if (!pending.every((s) => !this.#restarting.has(s) && s.attempt !== undefined && s.attempt.markers.length === s.attempt.names.length)) return;
    const markers = this.#slots.flatMap((s) => s.attempt!.markers);
    for (const slot of pending) {
      slot.running = true;
      this.#coordinatorRef!.tell({ kind: 'tasks', tasks: slot.attempt!.coordinated(), markers, restoredId: slot.attempt!.restoredId });
      slot.attempt!.go({ usedId: this.#coordinator!.usedId, completed: this.#coordinator!.completed?.id });
    }
    if (this.status === 'starting' || this.status === 'restarting') this.#step('opened');
    this.#started.resolve();
    this.#readyAgain?.resolve();
    this.#regionRuns.resolve();
    this.#regionRuns = deferred();
  }

  // ── failures ──

  #taskFailed(slot: RegionSlot, failure: TaskFailure): void {
    if (failure.policy === 'escalate') this.#giveUp(failure.error);
    else if (failure.policy === 'stop') this.#end('stopped', failure.error.cause ?? failure.error);
    else this.#fail([slot], failure.error);
  }

  /** A source stands in front of the record that failed: the job stops as `stop()` does. */
  #stopBecause(failure: TaskFailure): void {
    this.#stop({ cause: failure.error.cause ?? failure.error }).catch((error) => this.#log.warn({ error: messageOf(error) }, 'The last checkpoint failed.'));
  }

  #failRegions(error: MillraceError): void {
    this.#fail(
      this.#slots.filter((slot) => slot.running),
      error,
    );
  }

  #restarting = new Map<RegionSlot, { afterMs: number; down: boolean; waited: boolean; timer: unknown }>();

  /** One error counts once, however many regions it takes down. */
  #fail(slots: readonly RegionSlot[], error: MillraceError): void {
    // With fewer instances everything begins anew.
    const failed = (this.#roomFor() < this.#parallelism ? this.#slots : slots).filter((slot) => !this.#restarting.has(slot));
    if (this.#ending !== undefined || failed.length === 0) return;
    const decision = decideRestart(this.#policy(), {
      now: this.#io.clock.now(),
      stamps: this.#stamps,
      losses: this.#losses,
      retryable: error.retryable,
      lost: this.#internals.hosts?.lost?.(error) ?? false,
      random: this.#io.random(),
    });
    if (decision.kind === 'give up') {
      this.#giveUp(
        this.#restarts === 0
          ? error
          : new MillraceError(error.code, `${error.sentence} The job gave up after ${this.#restarts} restarts.`, {
              cause: error.cause ?? error,
              retryable: error.retryable,
              todo: error.todo,
              uid: error.uid,
            }),
      );
      return;
    }
    this.#stamps = decision.stamps;
    this.#losses = decision.losses;
    this.#restarts += 1;
    this.#log.warn({ error: error.message, inMs: Math.round(decision.afterMs) }, `A region of '${this.name}' failed and restarts from the last checkpoint.`);
    this.#event({ type: 'restart', uid: error.uid ?? this.name, error: error as JobError, count: this.#restarts });
    if (this.status !== 'stopping') this.#step('restart');
    if (this.#readyAgain === undefined) this.#readyAgain = deferred();
    for (const slot of failed) this.#takeDown(slot, decision.afterMs);
  }

  #takeDown(slot: RegionSlot, afterMs: number): void {
    if (this.#restarting.has(slot)) return;
    slot.running = false;
    slot.restarts += 1;
    const plan = { afterMs, down: slot.ref === undefined, waited: false, timer: undefined as unknown };
    this.#restarting.set(slot, plan);
    if (slot.attempt !== undefined) this.#coordinatorRef!.tell({ kind: 'lost', tasks: slot.attempt.names, attempt: slot.attempt.attempt });
    if (slot.ref !== undefined) this.#context!.stop(slot.ref);
    plan.timer = this.#io.clock.setTimeout(
      () =>
        this.#post(() => {
          plan.waited = true;
          this.#mayReopen(slot);
        }),
      afterMs,
    );
  }

  /** J3. */
  #forgetRestarts(): void {
    for (const { timer } of this.#restarting.values()) this.#io.clock.clearTimeout(timer);
  }

  #terminated(ref: ActorRef<never>, reason: unknown): void {
    if (this.#ending !== undefined) return;
    if (ref === (this.#coordinatorRef as ActorRef<never> | undefined)) {
      this.#giveUp(new MillraceError('RUNTIME_FAILED', `The checkpoint coordinator of '${this.name}' ended: ${messageOf(reason)}.`, { cause: reason }));
      return;
    }
    const slot = this.#slots.find((s) => s.ref === ref);
    if (slot === undefined) return;
    slot.ref = undefined;
    const old = slot.attempt;
    slot.attempt = undefined;
    old?.close().catch((error) => this.#log.warn({ error: messageOf(error) }, 'The state of an old attempt could not be closed.'));
    const plan = this.#restarting.get(slot);
    if (plan !== undefined) {
      plan.down = true;
      this.#mayReopen(slot);
    } else if (old !== undefined)
      this.#fail(
        [slot],
        new MillraceError('RUNTIME_FAILED', `Region ${slot.number} of '${this.name}' ended unexpectedly: ${messageOf(reason)}.`, { cause: reason }),
      );
  }

  #mayReopen(slot: RegionSlot): void {
    const plan = this.#restarting.get(slot);
    if (plan === undefined || !plan.down || !plan.waited || this.#ending !== undefined) return;
    this.#reopening = this.#reopening
      .then(() => this.#reopen(slot))
      .catch((error) =>
        this.#post(() => {
          this.#restarting.delete(slot);
          this.#fail([slot], asMillrace(error));
        }),
      );
  }

  get #lossFacts(): LossFacts {
    const newest = this.#coordinator?.completed ?? this.#chosen?.info;
    return { checkpoint: newest?.id ?? 0, now: this.#io.clock.now(), breaksAfter: lossLimits(this.#options).breaksAfter };
  }

  /** Before what has killed them is opened anew. @throws HOST_LOST where that is hopeless */
  async #countLosses(): Promise<void> {
    this.#row = rowNow(this.#row, this.#lossFacts);
    const error = hopeless(this.name, this.#row, lossLimits(this.#options).max, this.#internals.hosts?.workers?.() ?? 1);
    if (error !== undefined) throw error;
    if (this.#row === this.#rowKept) return;
    await this.#internals.losses?.keep(this.#row);
    this.#rowKept = this.#row;
  }

  #reopening: Promise<void> = Promise.resolve();

  async #reopen(slot: RegionSlot): Promise<void> {
    if (this.#ending !== undefined) return;
    await this.#coordinator!.settled();
    if (this.#ending !== undefined) return;
    await this.#countLosses();
    const room = this.#roomFor();
    if (room < this.#parallelism && this.#slots.every((each) => this.#restarting.has(each))) {
      this.#log.warn({ from: this.#parallelism, to: room }, `There is room for ${room} instances only: '${this.name}' goes on with so many.`);
      this.#parallelism = room;
      this.#graph = this.#build();
    }
    const graph = this.#build();
    let chosen: Chosen | undefined;
    if (this.#snapshots !== undefined) {
      this.#attempt = await this.#snapshots.registry.nextAttempt(0, [slot.number]);
      chosen = await this.#snapshots.latest(graph, this.#attempt, this.#lineage);
      this.#coordinator!.wentBack(chosen?.info);
    } else this.#attempt += 1;
    this.#restarting.delete(slot);
    await this.#open(slot, graph, chosen);
  }

  #roomFor(): number {
    return Math.min(this.#parallelism, this.#internals.room?.() ?? this.#parallelism);
  }

  #policy(): RestartPolicy | false {
    const { restarts, checkpoints } = this.#options;
    if (restarts === undefined && (checkpoints === undefined || checkpoints === false)) return false;
    return policyOf(restarts);
  }

  // ── the end ──

  #taskFinished(slot: RegionSlot, task: string): void {
    slot.attempt!.finished.add(task);
    if (this.#slots.every((s) => s.attempt !== undefined && s.attempt.finished.size === s.attempt.names.length))
      this.#end(this.#stopping === undefined ? 'finished' : 'stopped', undefined);
  }

  #giveUp(error: MillraceError): void {
    if (isDeposed(error)) void this.abandon(error);
    else this.#end('failed', error);
  }

  #end(how: 'finished' | 'stopped' | 'cancelled' | 'failed', cause: unknown): void {
    this.#ending ??= this.#shutDown(how, cause);
  }

  async #shutDown(how: 'finished' | 'stopped' | 'cancelled' | 'failed', cause: unknown): Promise<void> {
    const checkpoint = this.#coordinator?.completed;
    let savepoint: SavepointInfo | undefined;
    let failure: unknown = how === 'failed' ? cause : undefined;
    this.#forgetRestarts();
    try {
      this.#internals.hosts?.cease?.();
      await this.#system!.stop();
      await this.#reopening;
      // All are closed, whatever becomes of one.
      const closed = await Promise.allSettled(this.#slots.map((slot) => slot.attempt?.close()));
      await this.#internals.hosts?.close();
      if (this.#snapshots !== undefined) await this.#coordinator?.concluded();
      for (const each of closed) if (each.status === 'rejected') throw each.reason;
      if (this.#snapshots !== undefined) {
        savepoint = how === 'stopped' ? await this.#lastSavepoint(checkpoint) : undefined;
        // A finished job is not started again: what no checkpoint names of this run goes now.
        if (how === 'finished') await this.#snapshots.sweep(this.#attempt + 1);
        if (how === 'finished')
          await this.#snapshots.registry.finish({
            status: 'finished',
            restarts: this.#restarts,
            ...(checkpoint === undefined ? {} : { checkpoint: bare(checkpoint) }),
          });
        else await this.#snapshots.registry.setOutcome(how);
      }
    } catch (error) {
      failure ??= asMillrace(error);
    }
    // Whatever went wrong before, the registry is let go: the next start must be able to open it.
    await this.#snapshots?.close().catch((error) => {
      failure ??= asMillrace(error);
    });
    this.#refuseAsked();
    for (const vertex of this.#graph.vertices) {
      const { step } = vertex.head;
      if (step.kind === 'source' && endsWithJob(step.source)) step.source.jobEnded();
    }
    if (failure !== undefined) {
      this.#step('give up');
      if (!isDeposed(failure)) this.#log.error({ error: messageOf(failure) }, `The job '${this.name}' failed.`);
      this.#started.reject(failure);
      this.#finished.reject(failure);
      return;
    }
    this.#step(how === 'finished' ? 'finished' : how === 'cancelled' ? 'cancel' : 'stopped');
    this.#started.resolve();
    this.#finished.resolve({
      status: how === 'failed' ? 'stopped' : how,
      restarts: this.#restarts,
      ...(cause === undefined ? {} : { cause }),
      ...(checkpoint === undefined ? {} : { checkpoint: bare(checkpoint) }),
      ...(savepoint === undefined ? {} : { savepoint }),
    });
  }

  /**
   * J4: it is another's from now on. Every task ends at once, a commit that runs is awaited for 5 s. Resolves when nothing of it is left; `finished` rejects with the cause,
   * since how the job ends is told elsewhere. An end that has begun goes on, as far as the registry lets it.
   */
  async abandon(cause: unknown): Promise<void> {
    this.#abandoned ??= asMillrace(cause);
    // Before the launch the start itself sees it.
    if (this.#system !== undefined) this.#ending ??= this.#leave(this.#abandoned, !this.#rescaling);
    await this.#finished.promise.catch(() => {});
  }

  /** `letsGo`: what runs elsewhere may go on under another leader. Sources that stand behind a last checkpoint do not. */
  async #leave(cause: MillraceError, letsGo: boolean): Promise<void> {
    this.#forgetRestarts();
    try {
      if (letsGo && isDeposed(cause)) this.#internals.hosts?.letGo?.(cause);
      this.#internals.hosts?.cease?.();
      await this.#system!.stop();
      await this.#reopening;
      for (const slot of this.#slots) await slot.attempt?.close();
      await this.#internals.hosts?.close();
      await this.#coordinator?.quiet();
      await this.#snapshots?.close();
    } catch (error) {
      this.#log.warn({ error: messageOf(error) }, `What this process ran of '${this.name}' did not end in order.`);
    }
    this.#refuseAsked();
    this.#step('give up');
    this.#started.reject(cause);
    this.#finished.reject(cause);
  }

  /** The newest checkpoint, which is taken where there is none yet, stays while it is read; undefined: there are none. */
  async readingNewest<T>(read: (newest: CheckpointInfo | undefined) => Promise<T>): Promise<T> {
    if (this.#coordinator === undefined) return read(undefined);
    if (this.#coordinator.completed === undefined && this.#snapshots !== undefined && this.status === 'running') await this.checkpoint();
    return this.#coordinator.reading(read);
  }

  /** A rescale or a hand-over is under way. */
  get rescaling(): boolean {
    return this.#rescaling;
  }

  #handing: Promise<boolean> | undefined;

  /**
   * As `abandon`, behind a checkpoint that sources stop at and its commits: whoever goes on has nothing to repeat. Where there can be none: without it, or, with
   * `orStay`, not at all: it resolves with false, and the job goes on from its newest checkpoint.
   */
  async handOver(cause: unknown, orStay = false): Promise<boolean> {
    for (;;) {
      if (this.#handing === undefined) {
        this.#handing = this.#handedOver(cause, orStay).finally(() => {
          this.#handing = undefined;
        });
        return this.#handing;
      }
      // Another one, which may have stayed.
      const done = await this.#handing;
      if (done || orStay) return done;
    }
  }

  async #handedOver(cause: unknown, orStay: boolean): Promise<boolean> {
    // In the middle of it there is no checkpoint to be had, and behind it there is.
    if (!orStay && this.#rescaling) await this.#rescaleOver(HAND_OVER_MS);
    if (this.status === 'running' && this.#snapshots !== undefined && this.#coordinatorRef !== undefined) {
      if (!this.#rescaling) {
        this.#rescaling = true;
        const done = deferred<CompletedCheckpoint | undefined>();
        this.#coordinatorRef.tell({ kind: 'request', request: { stop: true, drained: false, commits: true, resolve: done.resolve, reject: done.reject } });
        // Who stays has the time that a checkpoint has.
        const late = orStay ? undefined : this.#io.clock.setTimeout(() => done.reject(new Error(`it took longer than ${HAND_OVER_MS} ms`)), HAND_OVER_MS);
        try {
          await Promise.race([done.promise, this.finished]);
        } catch (error) {
          const without = orStay ? 'is not handed over, for want of' : 'is handed over without';
          this.#log.warn({ error: messageOf(error) }, `'${this.name}' ${without} a last checkpoint.`);
          if (orStay) {
            this.#rescaling = false;
            // Sources may stand behind a barrier that came to nothing.
            this.#post(() => this.#failRegions(asMillrace(error)));
            return false;
          }
        } finally {
          this.#io.clock.clearTimeout(late);
        }
      } else if (orStay) return false;
    }
    await this.abandon(cause);
    return true;
  }

  /** Of a job that has stopped: a failure here is none of the job, whose last checkpoint is whole. `stop` rejects with it. */
  async #lastSavepoint(checkpoint: CheckpointInfo | undefined): Promise<SavepointInfo | undefined> {
    const place = this.#savepointPlace;
    if (place === undefined || checkpoint === undefined) return undefined;
    try {
      return await this.#snapshots!.savepoint(checkpoint, place);
    } catch (error) {
      this.#savepointFailed = new MillraceError(
        'SAVEPOINT_FAILED',
        `The job '${this.name}' has stopped behind checkpoint ${checkpoint.id}, but its savepoint could not be written: ${messageOf(error)}`,
        { cause: error, todo: `Start it again, or elsewhere from that checkpoint: ${checkpoint.path}.` },
      );
      this.#log.error({ error: messageOf(error), folder: place.folder }, 'The savepoint could not be written.');
      return undefined;
    }
  }

  /** A last checkpoint, its commits, then the end; with `savepoint` what it holds also goes into that folder. */
  async stop({ savepoint, ...options }: { drain?: boolean; savepoint?: string } = {}): Promise<JobResult> {
    if (savepoint === undefined) return this.#stop(options);
    this.#refuseWithoutSnapshots();
    if (this.#savepointFolder !== undefined)
      throw new MillraceError('SAVEPOINT_FAILED', `The job '${this.name}' is stopping with a savepoint in ${this.#savepointFolder} already.`, {
        retryable: false,
        todo: 'Copy that folder.',
      });
    this.#savepointFolder = absolute(savepoint);
    let place: SavepointPlace;
    try {
      place = await this.#snapshots!.prepareSavepoint(this.#savepointFolder);
      // Before anybody else can end it.
      this.#refuseWithoutSnapshots();
      this.#savepointPlace = place;
    } catch (error) {
      this.#savepointFolder = undefined;
      throw error;
    }
    try {
      const result = await this.#stop(options);
      if (this.#savepointFailed !== undefined) throw this.#savepointFailed;
      if (result.savepoint === undefined) await this.#abandonSavepoint(place);
      return result;
    } catch (error) {
      await this.#abandonSavepoint(place);
      throw error;
    }
  }

  #refuseWithoutSnapshots(): void {
    if (this.#snapshots === undefined)
      throw new MillraceError('CHECKPOINTS_OFF', `The job '${this.name}' runs without checkpoints.`, { todo: 'Start it with checkpoints: { directory }.' });
    if (this.#ending !== undefined || this.#coordinatorRef === undefined) throw new MillraceError('JOB_ENDED', `The job '${this.name}' has ended.`);
  }

  /** All that the job holds, into a folder that is the caller's. */
  async savepoint(directory: string): Promise<SavepointInfo> {
    this.#refuseWithoutSnapshots();
    const place = await this.#snapshots!.prepareSavepoint(directory);
    try {
      this.#refuseWithoutSnapshots();
      return await this.#ask<SavepointInfo>(({ resolve, reject }) => ({ kind: 'savepoint', request: { place, resolve, reject } }));
    } catch (error) {
      await this.#abandonSavepoint(place);
      throw error;
    }
  }

  /** Nothing was written into it. */
  async #abandonSavepoint(place: SavepointPlace): Promise<void> {
    await this.#snapshots!.abandonSavepoint(place).catch((error) =>
      this.#log.warn({ folder: place.folder, error: messageOf(error) }, 'The folder could not be removed.'),
    );
  }

  // ── rescaling ──

  /**
   * A checkpoint behind which sources stop, and all regions anew from it, with that many instances of each operator that does not say otherwise. What is refused
   * changes nothing; what fails later goes back to the newest checkpoint, at the parallelism that was decided on.
   */
  async rescale(parallelism: number): Promise<{ readonly parallelism: number; readonly checkpoint: CheckpointInfo }> {
    this.#refuseWithoutSnapshots();
    const graph = buildGraph(this.#definition.build(), { parallelism, version: this.#options.version });
    const largest = Math.max(...graph.vertices.map((v) => v.parallelism));
    settleMaxParallelism({ asked: undefined, stored: this.#maxParallelism, byDefault: this.#maxParallelism, largest });
    if (this.#stopping !== undefined || this.#rescaling)
      throw new MillraceError('RESCALE_REFUSED', `The job '${this.name}' is ${this.#stopping === undefined ? 'rescaling' : 'stopping'} already.`, {
        todo: 'Wait until that is done.',
      });
    this.#rescaling = true;
    try {
      let checkpoint: CompletedCheckpoint | undefined;
      try {
        checkpoint = await this.#ask(({ resolve, reject }) => ({ kind: 'request', request: { stop: true, drained: false, commits: true, resolve, reject } }));
      } catch (error) {
        // Sources may stand behind a barrier that came to nothing.
        this.#post(() => this.#failRegions(asMillrace(error)));
        throw error;
      }
      const ready = deferred<void>();
      this.#post(() => {
        this.#parallelism = parallelism;
        this.#graph = graph;
        this.#readyAgain = ready;
        if (this.status !== 'stopping') this.#step('restart');
        for (const slot of this.#slots) this.#takeDown(slot, 0);
      });
      await Promise.race([ready.promise, this.finished.then(() => {})]);
      if (this.#ending !== undefined) throw new MillraceError('JOB_ENDED', `The job '${this.name}' ended while it was rescaled.`);
      return { parallelism, checkpoint: bare(checkpoint!) };
    } finally {
      this.#rescaling = false;
      for (const end of this.#rescaleEnds) end();
    }
  }

  #rescaling = false;
  readonly #rescaleEnds = new Set<() => void>();

  /** Resolves when the rescale that is under way is over, or the job, or after so many milliseconds. */
  async #rescaleOver(ms: number): Promise<void> {
    let end!: () => void;
    const over = new Promise<void>((resolve) => {
      end = resolve;
    });
    const late = this.#io.clock.setTimeout(end, ms);
    this.#rescaleEnds.add(end);
    await over;
    this.#rescaleEnds.delete(end);
    this.#io.clock.clearTimeout(late);
  }

  /** Who waits for an answer of the coordinator. */
  readonly #asked = new Set<(error: unknown) => void>();

  #stop(options: { drain?: boolean; cause?: unknown }): Promise<JobResult> {
    this.#stopping ??= this.#runStop(options);
    return this.#stopping;
  }

  async #runStop({ drain = false, cause }: { drain?: boolean; cause?: unknown }): Promise<JobResult> {
    if (this.#system === undefined) await this.#started.promise;
    if (this.#system === undefined) return this.finished; // it had finished before
    if (this.#ending === undefined) this.#step('stop');
    while (this.#ending === undefined) {
      await Promise.race([this.#readyAgain?.promise, this.finished.catch(() => {})]);
      if (this.#ending !== undefined) break;
      const done = deferred<CompletedCheckpoint | undefined>();
      this.#readyAgain = undefined;
      const drainAll = (): void => {
        for (const slot of this.#slots) slot.attempt?.drain();
      };
      this.#post(() =>
        this.#coordinatorRef!.tell({
          kind: 'request',
          request: { stop: true, drained: drain, ...(drain ? { drain: drainAll } : {}), commits: true, resolve: done.resolve, reject: done.reject },
        }),
      );
      try {
        await Promise.race([done.promise, this.finished.then(() => {})]);
        this.#post(() => this.#end('stopped', cause));
        break;
      } catch (error) {
        if (this.#ending !== undefined) break;
        // Sources have stopped behind a barrier that came to nothing: the region goes back to the last checkpoint, and the stop is tried again.
        this.#log.warn({ error: messageOf(error) }, 'The last checkpoint failed; trying again from the one before.');
        const again = deferred<void>();
        this.#readyAgain = again;
        this.#post(() => this.#failRegions(asMillrace(error)));
      }
    }
    return this.finished;
  }

  /** Ends at once; a commit that runs is awaited for 5 s. */
  cancel(): Promise<JobResult> {
    // Before the launch the start itself sees it; a job that had finished before is never launched. That every task runs is not waited for: they may have no room.
    if (this.#system === undefined) this.#cancelled = true;
    else this.#end('cancelled', undefined);
    return this.finished;
  }

  #cancelled = false;

  /** Takes a checkpoint now. */
  async checkpoint(): Promise<CheckpointInfo> {
    this.#refuseWithoutSnapshots();
    const asked = { stop: false, drained: false, commits: false };
    return (await this.#ask<CompletedCheckpoint | undefined>(({ resolve, reject }) => ({ kind: 'request', request: { ...asked, resolve, reject } })))!;
  }

  #refuseAsked(): void {
    for (const refuse of this.#asked) refuse(new MillraceError('JOB_ENDED', `The job '${this.name}' has ended.`));
  }

  /** Of the coordinator. What it has not heard, or is about to begin, when the job ends is refused by that. */
  async #ask<R>(mail: (answer: Deferred<R>) => CoordinatorMail): Promise<R> {
    const answer = deferred<R>();
    this.#asked.add(answer.reject);
    this.#coordinatorRef!.tell(mail(answer));
    try {
      return await answer.promise;
    } finally {
      this.#asked.delete(answer.reject);
    }
  }

  // ── looking ──

  async tree(): Promise<TreeNode> {
    if (this.#system === undefined || this.#ending !== undefined)
      return { name: 'host', path: '/', kind: 'system', state: 'stopped', restarts: 0, mailbox: 0, children: [] };
    const tree = this.#system.tree() as TreeNode;
    for (const job of tree.children) {
      for (const region of job.children) {
        const slot = this.#slots.find((s) => `region-${s.number}` === region.name);
        if (slot !== undefined) region.restarts = slot.restarts;
        const below = await slot?.attempt?.below();
        for (const child of region.children) child.children.push(...(below?.get(child.name) ?? []));
        if (slot !== undefined) for (const task of region.children) task.restarts = slot.restarts;
      }
    }
    return tree;
  }

  async metrics(): Promise<MetricSample[]> {
    const samples = this.#metrics.samples();
    for (const slot of this.#slots) {
      samples.push(...((await slot.attempt?.samples()) ?? []));
    }
    for (const [name, value] of Object.entries(this.#coordinator?.figures ?? {})) if (value !== null) samples.push({ name, labels: { job: this.name }, value });
    samples.push(...(await this.state.metrics()));
    return samples;
  }

  /** Live, of one key, or of state without one; see StateQueries. */
  async query<V>(uid: string, state: string, key?: Key): Promise<V | undefined> {
    return (await this.state.query(uid, state, key)) as V | undefined;
  }

  /** Completed and still retained, oldest first. */
  async checkpoints(): Promise<CheckpointInfo[]> {
    if (this.#snapshots === undefined || this.#system === undefined || this.#ending !== undefined) return [];
    return (await this.#snapshots.registry.checkpoints()).map(bare);
  }
}

/** Beginning anew beside checkpoints that nobody registered would repeat what their sinks have committed, and sweep them away. */
function registryLost(directory: string, metadata: string): MillraceError {
  return new MillraceError('CHECKPOINT_DIRECTORY', `The registry in ${directory} is empty, but there are checkpoints beside it.`, {
    retryable: false,
    todo: `If the registry was lost, restore the newest one by its path (restore: { from: '${metadata}' }, --restore ${metadata}); to begin anew, restore none.`,
  });
}

/** Attempts and ids are raised durably before anything carries them: writes to the registry were lost, or an older one was put in its place. */
function registryBehind(directory: string, metadata: string | undefined): MillraceError {
  return new MillraceError('CHECKPOINT_DIRECTORY', `The registry in ${directory} is older than what lies beside it.`, {
    retryable: false,
    todo:
      metadata === undefined
        ? 'Put back the one that belongs there, or begin anew with restore none.'
        : `Put back the one that belongs there, or restore the newest checkpoint by its path (restore: { from: '${metadata}' }, --restore ${metadata}).`,
  });
}

function asMillrace(error: unknown): MillraceError {
  if (error instanceof MillraceError) return error;
  const { retryable } = (error ?? {}) as { retryable?: unknown };
  const code = codeOf(error);
  return new MillraceError(code ?? 'RUNTIME_FAILED', code === undefined ? `The runtime failed: ${messageOf(error)}.` : messageOf(error), {
    cause: asError(error),
    ...(typeof retryable === 'boolean' ? { retryable } : {}),
  });
}
