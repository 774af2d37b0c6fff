// The checkpoint coordinator: the barrier actor. It triggers, counts acknowledgements, completes or aborts, and tells everybody.
//
// Who owns what: the coordinator owns the pending checkpoint, ids and what is retained; tasks own their snapshots; the storage and the registry own bytes and
// pointers. It runs beside the regions and survives their restarts.
//
// Order of a completion, and why: files (by the tasks, before they acknowledge) → metadata → registry → old ones removed → tasks told → sinks commit. A crash
// between any two leaves either the old checkpoint or the new one, never half of one.
//
// Invariants:
//  C1  At most one checkpoint is pending. An id is reserved before its first barrier leaves, and used once.
//  C2  An acknowledgement counts only for the pending id and a task that it waits for.
//  C3  Nothing is told to tasks before the pointer is registered. If the pointer's outcome is unknown the job fails over, and nothing is deleted.
//  C4  When every task of the job has seen its last record a checkpoint is taken at once; if it aborts, another one is.
//  C5  From the request of a drained checkpoint on no other is taken until that one is.
//  C7  A savepoint has an id and barriers as a checkpoint has, and nothing else: it is not registered, nobody is told, sinks commit nothing. The files that
//      it is copied from are not removed meanwhile.
//  C6  Commits are awaited of a checkpoint that a restart would begin from; those of one that has been fallen back from are refused.
//  C8  What a task has acknowledged for a checkpoint that came to nothing stays in its chain, and is named by the next (protocols 2): nothing of a task that
//      runs is deleted. What an attempt that is over has acknowledged is deleted with the next removal, unless a retained checkpoint names it.
//  C9  A checkpoint that belongs to no stop and is no savepoint may be unaligned. What was in flight is its alone: of one that came to nothing those files go
//      as those of an attempt that is over.

import { type ActorRefFrom, createActor, setup } from 'xstate';
import { type ActorContext, type Behaviour, defineActor } from '../../actors/index.ts';
import { MillraceError, messageOf } from '../errors.ts';
import type { Logger } from '../graph/context.ts';
import type { CheckpointInfo, SavepointInfo } from '../graph/job.ts';
import type { Barrier } from '../runtime/channel.ts';
import type { Io } from '../runtime/io.ts';
import type { TaskSnapshot } from '../runtime/snapshot.ts';
import type { TaskMail } from '../runtime/task-contract.ts';
import { below } from './addresses.ts';
import {
  chooseRequest,
  type FailureKind,
  failureCounts,
  isIntolerable,
  judgeAck,
  nextId,
  nextTrigger,
  remembered,
  superseded,
  type TaskFacts,
  triggerTargets,
  withFailure,
  withSuccess,
} from './decisions.ts';
import { type CheckpointMetadata, filesNamed, packMetadata, readMetadata, writersOf } from './metadata.ts';
import type { Registry } from './registry.ts';
import { type SavepointPlace, writeSavepoint } from './savepoint.ts';
import type { SnapshotFiles } from './storage.ts';

/** The life of a checkpoint, as data; drawn in docs/architecture.md. */
export const checkpointLifecycle = setup({
  types: { events: {} as { type: 'acknowledged' | 'written' | 'registered' | 'failed' | 'expired' | 'region lost' } },
}).createMachine({
  id: 'checkpoint',
  initial: 'acknowledging',
  states: {
    acknowledging: { on: { acknowledged: 'writing', failed: 'aborted', expired: 'aborted', 'region lost': 'aborted' } },
    writing: { on: { written: 'registering', failed: 'aborted' } },
    registering: { on: { registered: 'completed' } },
    completed: { type: 'final' },
    aborted: { type: 'final' },
  },
});

/** Timers of the machine go no further. */
const LONGEST_MS = 2 ** 31 - 1;

export interface CompletedCheckpoint extends CheckpointInfo {
  /** Longest uninterrupted stretch of checkpoint work in any task. */
  readonly pauseMs: number;
}

export interface CheckpointRequest {
  /** Sources stop behind the barrier. */
  readonly stop: boolean;
  readonly drained: boolean;
  /** Of a drained one: drives event time to the end in every source. Called when the request is heard, and again for tasks that came later. */
  drain?(): void;
  /** The checkpoint is complete; with `commits`, and every sink has committed it. */
  readonly commits: boolean;
  resolve(checkpoint: CompletedCheckpoint | undefined): void;
  reject(error: unknown): void;
}

/** C7. Into that place, which is prepared. */
export interface SavepointRequest {
  readonly place: SavepointPlace;
  resolve(savepoint: SavepointInfo): void;
  reject(error: unknown): void;
}

export type CoordinatorMail =
  | { readonly kind: 'run'; readonly fn: () => void }
  | { readonly kind: 'tasks'; readonly tasks: readonly CoordinatedTask[]; readonly markers: readonly number[]; readonly restoredId: number }
  | { readonly kind: 'lost'; readonly tasks: readonly string[]; readonly attempt: number }
  | { readonly kind: 'ack'; readonly id: number; readonly attempt: number; readonly task: string; readonly snapshot: TaskSnapshot; readonly pauseMs: number }
  | { readonly kind: 'declined'; readonly id: number; readonly attempt: number; readonly task: string; readonly error: unknown }
  | { readonly kind: 'committed'; readonly id: number; readonly task: string }
  | { readonly kind: 'ended'; readonly attempt: number; readonly task: string }
  | { readonly kind: 'finished'; readonly attempt: number; readonly task: string }
  | { readonly kind: 'request'; readonly request: CheckpointRequest }
  | { readonly kind: 'savepoint'; readonly request: SavepointRequest };

export interface CoordinatedTask extends Omit<TaskFacts, 'finished'> {
  readonly tell: (mail: TaskMail) => void;
  readonly attempt: number;
}

export interface CoordinatorOptions {
  readonly job: string;
  readonly lineage: string;
  readonly attempt: () => number;
  readonly maxParallelism: number;
  readonly planHash: () => string;
  /** How many tasks the plan has: nothing is triggered before all are there. */
  readonly tasks: () => number;
  /** Undefined: no checkpoints; only the last barrier, which commits the sinks. */
  readonly storage: SnapshotFiles | undefined;
  readonly registry: Registry | undefined;
  readonly io: Io;
  readonly log: Logger;
  readonly every: number;
  readonly timeout: number;
  readonly minPause: number;
  readonly retain: number;
  /** Whether the files of savepoints are read back; undefined: as their storage needs. */
  readonly verify: boolean | undefined;
  /** After completed checkpoints, behind the pointer: what is not needed any more goes. */
  readonly release: () => Promise<void>;
  readonly tolerate: number;
  /** Milliseconds after its trigger from which a checkpoint waits for no slow input any more; undefined: it always does. */
  readonly unaligned: number | undefined;
  readonly restored: CheckpointInfo | undefined;
  readonly onCompleted: (checkpoint: CompletedCheckpoint) => void;
  readonly onFailed: (id: number, error: MillraceError) => void;
  /** Too many failed in a row, or an outcome is unknown: the job must restart its regions. */
  readonly onIntolerable: (error: MillraceError) => void;
}

interface Entry {
  readonly task: CoordinatedTask;
  ended: boolean;
  finished: boolean;
  /** Of a finished task: it stands in every later checkpoint. */
  last: TaskSnapshot | undefined;
  committed: number;
}

interface Pending {
  readonly id: number;
  readonly barrier: Barrier;
  readonly startedAt: number;
  /** By `io.elapsed()`. */
  readonly begun: number;
  readonly waiting: Set<string>;
  readonly acked: Set<string>;
  readonly snapshots: TaskSnapshot[];
  readonly requests: readonly CheckpointRequest[];
  readonly savepoint: SavepointRequest | undefined;
  readonly drained: boolean;
  pauseMs: number;
  timer: unknown;
  readonly life: ActorRefFrom<typeof checkpointLifecycle>;
}

export class Coordinator {
  readonly #options: CoordinatorOptions;
  readonly #tasks = new Map<string, Entry>();
  readonly #requests: CheckpointRequest[] = [];
  readonly #savepoints: SavepointRequest[] = [];
  /** What savepoints are being copied from (C7). */
  readonly #copied = new Set<CheckpointMetadata>();
  /** Checkpoints that somebody reads: they stay until that is done. */
  readonly #read = new Set<{ readonly id: number }>();
  /** Files that only such a copy has kept. */
  readonly #outlived = new Set<string>();
  readonly #awaitingCommits: { id: number; request: CheckpointRequest; checkpoint: CompletedCheckpoint | undefined }[] = [];
  #context: ActorContext<CoordinatorMail> | undefined;
  #pending: Pending | undefined;
  #reserving = false;
  #startedAt = 0;
  #lastTrigger: number | undefined;
  #lastCompletion: number | undefined;
  #lastId = 0;
  #counter = 0;
  #markers: number[] = [];
  /** Ids that failed and count, since the last success. */
  #failures: ReadonlySet<number> = new Set();
  /** Ids that have ended, for acknowledgements that come late. */
  #ended: readonly number[] = [];
  /** Files of attempts that are over (C8). */
  readonly #orphans = new Set<string>();
  readonly #counts = { completed: 0, failed: 0, late: 0 };
  #last: CompletedCheckpoint | undefined;
  #timer: unknown;
  #completed: CheckpointInfo | undefined;
  /** The last checkpoint of a stop is complete: none follows unless its tasks are lost. */
  #stopped = false;
  /** Superseded checkpoints are removed one after another. */
  #pruning: Promise<void> = Promise.resolve();
  /** The actor has ended: what it has pending stays so. */
  #over = false;
  /** The completion that is being written; goes on when the actor ends. */
  #writing: Promise<unknown> = Promise.resolve();

  constructor(options: CoordinatorOptions) {
    this.#options = options;
    this.#completed = options.restored;
    this.#lastId = options.restored?.id ?? 0;
  }

  behaviour(): Behaviour<CoordinatorMail> {
    return defineActor<CoordinatorMail>((context) => {
      this.#context = context;
      this.#startedAt = this.#options.io.elapsed();
      return {
        receive: (mail) => this.#receive(mail),
        inspect: () => ({
          metrics: { lastCheckpoint: this.#completed?.id ?? null, pending: this.#pending?.id ?? null, failures: this.#failures.size, ...this.figures },
          snapshot: this.#phase ?? 'idle',
        }),
        stopping: () => {
          this.#over = true;
          const { clock } = this.#options.io;
          clock.clearTimeout(this.#timer);
          if (this.#pending !== undefined) clock.clearTimeout(this.#pending.timer);
          const over = new MillraceError('JOB_ENDED', `The job '${this.#options.job}' ended before the checkpoint was complete.`);
          const { requests = [], savepoint } = this.#pending ?? {};
          for (const request of [...requests, ...this.#requests, ...this.#awaitingCommits.map((a) => a.request)]) request.reject(over);
          for (const request of [...(savepoint === undefined ? [] : [savepoint]), ...this.#savepoints]) request.reject(over);
        },
      };
    });
  }

  /** Where the pending checkpoint stands in its life. */
  get #phase(): string | undefined {
    return this.#pending?.life.getSnapshot().value;
  }

  /** For metrics. Of the last checkpoint: its bytes are those of all files that it names, and null stands where there is none yet. */
  get figures(): Readonly<Record<string, number | null>> {
    const { completed, failed, late } = this.#counts;
    return {
      checkpointsCompleted: completed,
      checkpointsFailed: failed,
      acknowledgementsLate: late,
      lastCheckpointBytes: this.#last?.bytes ?? null,
      lastCheckpointMs: this.#last?.durationMs ?? null,
      lastCheckpointPauseMs: this.#last?.pauseMs ?? null,
    };
  }

  get completed(): CheckpointInfo | undefined {
    return this.#completed;
  }

  /** The newest checkpoint stays while it is read. */
  async reading<T>(read: (newest: CheckpointInfo | undefined) => Promise<T>): Promise<T> {
    const newest = this.#completed;
    const held = { id: newest?.id ?? 0 };
    this.#read.add(held);
    try {
      return await read(newest);
    } finally {
      this.#read.delete(held);
    }
  }

  #run(fn: () => void): void {
    this.#context!.self.tell({ kind: 'run', fn });
  }

  #receive(mail: CoordinatorMail): void {
    switch (mail.kind) {
      case 'run':
        mail.fn();
        break;
      case 'tasks':
        for (const task of mail.tasks) this.#tasks.set(task.name, { task, ended: false, finished: false, last: undefined, committed: mail.restoredId });
        this.#markers = [...mail.markers];
        for (const request of this.#requests) request.drain?.();
        this.#settleCommits();
        this.#schedule();
        this.#next();
        break;
      case 'lost':
        for (const name of mail.tasks) this.#tasks.delete(name);
        this.#stopped = false;
        this.#settleLost(mail.tasks);
        break;
      case 'ack':
        this.#ack(mail);
        break;
      case 'declined':
        if (this.#current(mail) && this.#phase === 'acknowledging' && this.#pending!.id === mail.id && this.#pending!.waiting.has(mail.task))
          this.#abort(
            new MillraceError('CHECKPOINT_FAILED', `Checkpoint ${mail.id} failed in '${mail.task}': ${messageOf(mail.error)}.`, { cause: mail.error }),
            'declined',
          );
        break;
      case 'committed':
        this.#committed(mail.id, mail.task);
        break;
      case 'ended':
        if (this.#current(mail)) this.#tasks.get(mail.task)!.ended = true;
        this.#next();
        break;
      case 'finished':
        if (this.#current(mail)) this.#finishedWhile(mail.task);
        break;
      case 'request':
        mail.request.drain?.();
        this.#requests.push(mail.request);
        this.#next();
        break;
      case 'savepoint':
        this.#savepoints.push(mail.request);
        this.#next();
        break;
    }
  }

  /** What an older attempt says is dropped. */
  #current(mail: { task: string; attempt: number }): boolean {
    return this.#tasks.get(mail.task)?.task.attempt === mail.attempt;
  }

  // ── triggering ──

  #schedule(): void {
    const { storage, io, every, minPause } = this.#options;
    if (storage === undefined) return;
    io.clock.clearTimeout(this.#timer);
    // Not by the clock of the machine, which may be set back.
    const due = nextTrigger({ every, minPause }, { startedAt: this.#startedAt, lastTrigger: this.#lastTrigger, lastCompletion: this.#lastCompletion });
    const wait = Math.max(0, due - io.elapsed());
    const fn = (): void => (wait > LONGEST_MS ? this.#schedule() : this.#trigger([], false, undefined));
    this.#timer = io.clock.setTimeout(() => this.#run(fn), Math.min(LONGEST_MS, wait));
  }

  /** All that asks for a checkpoint now: requests, and the end of all input (C4). */
  #next(): void {
    const alive = [...this.#tasks.values()].filter((e) => !e.finished);
    // Looked at before the requests are taken, which say it.
    const draining = this.#draining;
    const choice = chooseRequest({
      occupied: this.#pending !== undefined || this.#reserving || this.#stopped,
      savepoints: this.#savepoints.length,
      requests: this.#requests.length,
      draining,
      allEnded: this.#tasks.size === this.#options.tasks() && alive.length > 0 && alive.every((e) => e.ended),
    });
    if (choice === 'savepoint') this.#trigger([], false, this.#savepoints.shift());
    else if (choice === 'requests') this.#trigger(this.#requests.splice(0), draining, undefined);
    else if (choice === 'last') this.#trigger([], false, undefined);
  }

  /** While event time is driven to the end nothing is stored: sources would go on behind a watermark of +∞ after a restore (C5). */
  get #draining(): boolean {
    return this.#requests.some((r) => r.drained);
  }

  #trigger(requests: CheckpointRequest[], drained: boolean, savepoint: SavepointRequest | undefined): void {
    const { io, registry, storage } = this.#options;
    const alive = [...this.#tasks.values()].filter((e) => !e.finished);
    if (
      this.#pending !== undefined ||
      this.#reserving ||
      this.#stopped ||
      this.#tasks.size < this.#options.tasks() ||
      alive.length === 0 ||
      (!drained && this.#draining)
    ) {
      // Not now: requests wait, a periodic one is left out.
      this.#requests.unshift(...requests);
      if (savepoint !== undefined) this.#savepoints.unshift(savepoint);
      if (storage !== undefined && this.#pending === undefined) {
        this.#lastTrigger = io.elapsed();
        this.#schedule();
      }
      return;
    }
    this.#reserving = true;
    const id = nextId({
      counter: this.#counter,
      registered: this.#completed?.id ?? 0,
      restored: this.#options.restored?.id ?? 0,
      markers: this.#markers,
      last: this.#lastId,
    });
    this.#lastId = id;
    const reserve = async (): Promise<void> => {
      await io.step('checkpoint.trigger');
      await registry?.reserve(id);
    };
    reserve().then(
      () => this.#run(() => this.#triggered(id, requests, drained, savepoint)),
      (error) =>
        this.#run(() => {
          this.#reserving = false;
          const failed = new MillraceError('CHECKPOINT_FAILED', `Checkpoint ${id} could not begin: ${messageOf(error)}.`, { cause: error });
          savepoint?.reject(failed);
          this.#failed(id, failed, requests, failureCounts('not begun', savepoint !== undefined));
        }),
    );
  }

  #triggered(id: number, requests: readonly CheckpointRequest[], drained: boolean, savepoint: SavepointRequest | undefined): void {
    this.#reserving = false;
    const { io, timeout } = this.#options;
    const entries = [...this.#tasks.values()];
    if (entries.length < this.#options.tasks() || (!drained && this.#draining)) {
      this.#requests.unshift(...requests);
      if (savepoint !== undefined) this.#savepoints.unshift(savepoint);
      this.#next();
      return;
    }
    const startedAt = io.clock.now();
    const begun = io.elapsed();
    this.#lastTrigger = begun;
    const waiting = new Set(entries.filter((e) => !e.finished).map((e) => e.task.name));
    const snapshots = entries.flatMap((e) => (e.finished && e.last !== undefined ? [e.last] : []));
    const timer = this.#whenExpired(id, timeout);
    const stop = requests.some((r) => r.stop);
    const { unaligned } = this.#options;
    const barrier: Barrier = { id, startedAt, stop, ...(unaligned === undefined || stop || savepoint !== undefined ? {} : { unaligned }) };
    this.#pending = {
      id,
      barrier,
      startedAt,
      begun,
      waiting,
      acked: new Set(),
      snapshots,
      requests,
      savepoint,
      drained,
      pauseMs: 0,
      timer,
      life: createActor(checkpointLifecycle).start(),
    };
    for (const name of triggerTargets(entries.map((e) => ({ name: e.task.name, finished: e.finished, upstream: e.task.upstream }))))
      this.#tasks.get(name)!.task.tell({ kind: 'trigger', barrier });
    if (waiting.size === 0) this.#write();
  }

  #whenExpired(id: number, left: number): unknown {
    const { clock } = this.#options.io;
    if (left <= LONGEST_MS) return clock.setTimeout(() => this.#run(() => this.#expire(id)), left);
    return clock.setTimeout(
      () =>
        this.#run(() => {
          if (this.#pending?.id === id) this.#pending.timer = this.#whenExpired(id, left - LONGEST_MS);
        }),
      LONGEST_MS,
    );
  }

  #expire(id: number): void {
    if (this.#pending?.id !== id || this.#phase !== 'acknowledging') return;
    const late = [...this.#pending.waiting].join(', ');
    this.#abort(
      new MillraceError('CHECKPOINT_EXPIRED', `Checkpoint ${id} was not complete after ${this.#options.timeout} ms; still missing: ${late}.`, {
        todo: 'Raise `timeout`, or look for the operator that is behind.',
      }),
      'expired',
    );
  }

  // ── counting ──

  #ack(mail: Extract<CoordinatorMail, { kind: 'ack' }>): void {
    if (!this.#current(mail)) {
      this.#counts.late += 1;
      this.#abandonFiles(mail.snapshot);
      return;
    }
    const entry = this.#tasks.get(mail.task)!;
    entry.last = mail.snapshot;
    const pending = this.#pending;
    const outcome = judgeAck(pending, mail.id, mail.task, this.#ended);
    if (outcome === 'late') this.#counts.late += 1;
    if (outcome === 'late' || outcome === 'unknown') this.#abandonInFlight(mail.snapshot);
    if (pending === undefined || (outcome !== 'waiting' && outcome !== 'complete')) return;
    pending.waiting.delete(mail.task);
    pending.acked.add(mail.task);
    pending.snapshots.push(mail.snapshot);
    pending.pauseMs = Math.max(pending.pauseMs, mail.pauseMs);
    if (outcome === 'complete') this.#write();
  }

  /** C8. */
  #abandonFiles(snapshot: TaskSnapshot): void {
    for (const { name } of filesNamed({ tasks: [snapshot] })) this.#orphans.add(name);
  }

  /** C9. */
  #abandonInFlight({ inFlight }: TaskSnapshot): void {
    if (inFlight !== undefined) this.#orphans.add(inFlight.file.name);
  }

  /** What a finished task acknowledged last holds for every later checkpoint, also for one that is under way; those behind it hear of the barrier from here. */
  #finishedWhile(name: string): void {
    const entry = this.#tasks.get(name)!;
    entry.finished = true;
    const pending = this.#pending;
    if (pending === undefined || !pending.waiting.delete(name)) return;
    pending.acked.add(name);
    if (entry.last !== undefined) pending.snapshots.push(entry.last);
    if (pending.waiting.size === 0) {
      this.#write();
      return;
    }
    const facts = [...this.#tasks.values()].map((e) => ({ name: e.task.name, finished: e.finished, upstream: e.task.upstream }));
    for (const target of triggerTargets(facts)) {
      const { task } = this.#tasks.get(target)!;
      if (task.upstream.includes(name) && pending.waiting.has(target)) task.tell({ kind: 'trigger', barrier: pending.barrier });
    }
  }

  // ── completing ──

  #write(): void {
    const pending = this.#pending!;
    const { io, job, lineage, maxParallelism, planHash, storage, registry, attempt, verify } = this.#options;
    io.clock.clearTimeout(pending.timer);
    pending.life.send({ type: 'acknowledged' });
    if (storage === undefined || registry === undefined) {
      pending.life.send({ type: 'written' });
      this.#complete({
        id: pending.id,
        path: '',
        bytes: 0,
        startedAt: pending.startedAt,
        durationMs: io.elapsed() - pending.begun,
        pauseMs: pending.pauseMs,
      });
      return;
    }
    const metadata: CheckpointMetadata = {
      id: pending.id,
      job,
      lineage,
      attempt: attempt(),
      maxParallelism,
      planHash: planHash(),
      startedAt: pending.startedAt,
      durationMs: io.elapsed() - pending.begun,
      drained: pending.drained,
      tasks: pending.snapshots,
    };
    if (pending.savepoint !== undefined) {
      this.#copy(pending.id, pending.savepoint, metadata, storage, verify);
      return;
    }
    let registering = false;
    const name = `chk-${pending.id}-a${metadata.attempt}`;
    const write = async (): Promise<CheckpointInfo> => {
      await io.step('checkpoint.metadata.write');
      const path = await storage.writeMetadata(name, packMetadata(metadata));
      await io.step('checkpoint.metadata.written');
      registering = true;
      pending.life.send({ type: 'written' });
      const bytes = filesNamed(metadata).reduce((sum, f) => sum + f.bytes, 0);
      const info = { id: pending.id, path, bytes, startedAt: pending.startedAt, durationMs: io.elapsed() - pending.begun };
      await io.step('checkpoint.register');
      await registry.add({ ...info, writers: writersOf(metadata) }, lineage);
      await io.step('checkpoint.registered');
      return info;
    };
    const writing = write();
    this.#writing = Promise.all([this.#writing, writing.catch(() => undefined)]);
    writing.then(
      (info) => this.#run(() => this.#complete({ ...info, pauseMs: pending.pauseMs })),
      (error) =>
        this.#run(() => {
          const failed = new MillraceError(
            'CHECKPOINT_FAILED',
            `Checkpoint ${pending.id} could not be ${registering ? 'registered' : 'written'}: ${messageOf(error)}.`,
            { cause: error },
          );
          if (registering) {
            // C3: it may be registered, and somebody restore from it.
            this.#abort(failed, 'region lost', true);
            this.#options.onIntolerable(failed);
          } else {
            // Nobody knows of it: half of it, or all of it, goes.
            this.#removing(() => storage.removeMetadata(below(storage.checkpoints, name)));
            this.#abort(failed, 'not written');
          }
        }),
    );
  }

  /** C7. Checkpoints go on meanwhile. */
  #copy(id: number, request: SavepointRequest, metadata: CheckpointMetadata, storage: SnapshotFiles, verify: boolean | undefined): void {
    this.#pending = undefined;
    this.#ended = remembered(this.#ended, id);
    this.#lastCompletion = this.#options.io.elapsed();
    this.#copied.add(metadata);
    const written = writeSavepoint(metadata, storage, request.place, this.#options.io, verify);
    // Answered also where this actor has ended by then.
    const succeeded = (savepoint: SavepointInfo): void => {
      this.#failures = withSuccess(this.#failures, id);
      request.resolve(savepoint);
    };
    const settled = written.then(succeeded, request.reject).finally(() => this.#copied.delete(metadata));
    this.#writing = Promise.all([this.#writing, settled]);
    this.#schedule();
    this.#next();
  }

  #complete(checkpoint: CompletedCheckpoint): void {
    const pending = this.#pending!;
    pending.life.send({ type: 'registered' });
    this.#pending = undefined;
    this.#ended = remembered(this.#ended, checkpoint.id);
    this.#failures = withSuccess(this.#failures, checkpoint.id);
    this.#counts.completed += 1;
    this.#last = checkpoint;
    // Tasks that were lost while this was written begin to read again when they are back.
    this.#stopped = pending.requests.some((r) => r.stop) && this.#tasks.size === this.#options.tasks();
    this.#lastCompletion = this.#options.io.elapsed();
    if (checkpoint.path !== '') this.#completed = checkpoint;
    for (const request of pending.requests) {
      if (request.commits) this.#awaitingCommits.push({ id: checkpoint.id, request, checkpoint: checkpoint.path === '' ? undefined : checkpoint });
      else request.resolve(checkpoint);
    }
    for (const entry of this.#tasks.values()) if (!entry.finished) entry.task.tell({ kind: 'complete', id: checkpoint.id });
    if (checkpoint.path !== '') {
      this.#options.onCompleted(checkpoint);
      this.#removeSuperseded();
    }
    this.#settleCommits();
    this.#schedule();
    this.#next();
  }

  /** One removal at a time. */
  #removeSuperseded(): void {
    // What the job was forked from may be what somebody reads.
    this.#removing(async () => {
      if (this.#read.size === 0) await this.#options.release();
    });
    this.#removing(() => this.#prune());
  }

  #removing(remove: () => Promise<void>): void {
    this.#pruning = this.#pruning.then(remove).catch((error) => this.#options.log.warn({ error: messageOf(error) }, 'An old checkpoint could not be removed.'));
  }

  /** Pointers go first, then the files that no retained checkpoint names. */
  async #prune(): Promise<void> {
    const { registry, storage, retain, io } = this.#options;
    const registered = await registry!.checkpoints();
    const gone = new Set(
      superseded(
        registered.map((c) => c.id),
        retain,
      ).filter((id) => ![...this.#read].some((held) => held.id === id)),
    );
    // Before the lineage has one of its own it rests on what it was forked from, which nobody has registered.
    const orphans = registered.some((c) => c.lineage === this.#options.lineage) ? [...this.#orphans] : [];
    if (gone.size === 0 && orphans.length === 0) return;
    const kept = new Set<string>();
    const copied = new Set([...this.#copied].flatMap((metadata) => filesNamed(metadata).map(({ name }) => name)));
    const dropped = new Set<string>([...this.#outlived, ...orphans]);
    this.#outlived.clear();
    for (const name of orphans) this.#orphans.delete(name);
    for (const checkpoint of registered) {
      const names = await readMetadata(storage!.storage, checkpoint.path).then(filesNamed, (error) => {
        // Nothing is deleted on a guess: a kept checkpoint that cannot be read may name anything.
        if (!gone.has(checkpoint.id)) throw error;
        return [];
      });
      for (const { name } of names) (gone.has(checkpoint.id) ? dropped : kept).add(name);
    }
    for (const checkpoint of registered) {
      if (!gone.has(checkpoint.id)) continue;
      await io.step('checkpoint.prune');
      await registry!.remove(checkpoint.id);
      await storage!.removeMetadata(checkpoint.path);
    }
    // What is being written is not registered yet.
    for (const { name } of filesNamed({ tasks: this.#pending?.snapshots ?? [] })) kept.add(name);
    for (const name of dropped) {
      if (kept.has(name)) continue;
      if (copied.has(name)) {
        this.#outlived.add(name);
        continue;
      }
      await io.step('checkpoint.prune.file');
      await storage!.remove(name);
    }
  }

  #committed(id: number, task: string): void {
    const entry = this.#tasks.get(task);
    if (entry !== undefined) entry.committed = Math.max(entry.committed, id);
    this.#settleCommits();
  }

  #settleCommits(): void {
    // Of tasks that are lost nobody knows yet whether they have committed: they have when they are back.
    if (this.#tasks.size < this.#options.tasks()) return;
    for (const awaiting of [...this.#awaitingCommits]) {
      const all = [...this.#tasks.values()].every((e) => e.finished || e.committed >= awaiting.id);
      if (!all) continue;
      this.#awaitingCommits.splice(this.#awaitingCommits.indexOf(awaiting), 1);
      awaiting.request.resolve(awaiting.checkpoint);
    }
  }

  // ── aborting ──

  #abort(error: MillraceError, kind: FailureKind, mayBeRegistered = false): void {
    const pending = this.#pending!;
    pending.life.send({ type: kind === 'expired' || kind === 'region lost' ? kind : 'failed' });
    this.#pending = undefined;
    this.#ended = remembered(this.#ended, pending.id);
    this.#options.io.clock.clearTimeout(pending.timer);
    for (const entry of this.#tasks.values()) if (!entry.finished) entry.task.tell({ kind: 'abort', id: pending.id });
    if (!mayBeRegistered) for (const snapshot of pending.snapshots) this.#abandonInFlight(snapshot);
    pending.savepoint?.reject(error);
    this.#failed(pending.id, error, pending.requests, failureCounts(kind, pending.savepoint !== undefined));
  }

  #failed(id: number, error: MillraceError, requests: readonly CheckpointRequest[], counts: boolean): void {
    for (const request of requests) request.reject(error);
    this.#counts.failed += 1;
    this.#options.onFailed(id, error);
    if (counts) this.#failures = withFailure(this.#failures, id);
    if (counts && isIntolerable(this.#failures, this.#options.tolerate)) {
      this.#failures = new Set();
      this.#options.onIntolerable(error);
    } else this.#next();
    this.#schedule();
  }

  /** A region is going to restart: what is pending cannot complete. A completion that is being written is settled first by whoever restores. */
  #settleLost(tasks: readonly string[]): void {
    const pending = this.#pending;
    if (pending === undefined || this.#phase !== 'acknowledging' || !tasks.some((t) => pending.waiting.has(t) || pending.acked.has(t))) return;
    const over = pending.snapshots.filter((snapshot) => tasks.includes(`${snapshot.vertex}-${snapshot.subtask}`));
    this.#abort(new MillraceError('CHECKPOINT_FAILED', `Checkpoint ${pending.id} was given up: a region restarts.`), 'region lost');
    for (const snapshot of over) this.#abandonFiles(snapshot);
  }

  /** Resolves when no completion is being written, and the newest registered checkpoint is known (protocols 17 E), or when this actor has ended. */
  async settled(): Promise<void> {
    while (!this.#over && this.#pending !== undefined && this.#phase !== 'acknowledging')
      await new Promise<void>((resolve) => void this.#options.io.clock.setTimeout(resolve, 1));
  }

  /** After the actor has ended: a completion that was under way is on disk or given up, and what is superseded is removed. */
  async concluded(): Promise<void> {
    await this.#writing;
    if (this.#options.registry !== undefined) this.#removeSuperseded();
    await this.#pruning;
  }

  /** After the actor has ended: nothing is written any more. What is superseded stays where it is. */
  async quiet(): Promise<void> {
    await this.#writing;
    await this.#pruning;
  }

  /**
   * Tasks begin again from `checkpoint`, the newest there is now. Where that is an older one than completed last, whoever waits for commits of a later one waits
   * for what will never come.
   */
  wentBack(checkpoint: CheckpointInfo | undefined): void {
    const id = checkpoint?.id ?? 0;
    if (this.#completed?.id === checkpoint?.id) return;
    this.#completed = checkpoint;
    for (const awaiting of this.#awaitingCommits.filter((a) => a.id > id)) {
      this.#awaitingCommits.splice(this.#awaitingCommits.indexOf(awaiting), 1);
      awaiting.request.reject(
        new MillraceError(
          'CHECKPOINT_FAILED',
          `Checkpoint ${awaiting.id} cannot be used any more, and its sinks had not committed it: the job goes on from ${id}.`,
        ),
      );
    }
  }

  /** Newest id that was ever handed out. */
  get usedId(): number {
    return Math.max(this.#counter, this.#lastId);
  }

  /** Ids handed out by an older start of this lineage are never used again. */
  floor(counter: number): void {
    this.#counter = Math.max(this.#counter, counter);
  }
}
