// The snapshots of one task: what is frozen at a barrier is encoded in slices, uploaded and acknowledged; bases are swept in the background.
//
// Who owns what: this owns the chain of files, the deltas not yet saved, the uploads and the sweep. The task calls `take` inside its barrier step, `work` between
// chunks of records, and hears of the end of an upload through `acknowledge` and `decline`, which run as mail.
//
// Invariants:
//  P1  A checkpoint is acknowledged once everything its snapshot names is durable. Uploads of one task run one after another.
//  P2  The delta of an aborted or failed checkpoint stays in the chain, or is kept until its upload succeeds (protocols 2).
//  P3  Encoding, of rows and of what was in flight, and sweeping take bounded slices; the longest
//      uninterrupted stretch since the barrier is its pause.
//  P4  Where what was in flight is given up the checkpoint is neither acknowledged nor declined: whoever gave it up knows.
//  P5  A chain does not grow beyond C6 of chain.ts: a checkpoint that would make it longer waits for a base, and is declined where that fails.

import {
  at,
  type BaseRef,
  type Chain,
  chainOf,
  type Delta,
  type DeltaRef,
  filesOf,
  filesOfBase,
  type Handle,
  handleOf,
  type KeyGroupRange,
  type Loaded,
  overlong,
  releaseBlocks,
  type Sweep,
  type TaskState,
  wantsBase,
  withBase,
  withDelta,
} from '../../state-backends/index.ts';
import { MillraceError, messageOf } from '../errors.ts';
import type { Logger } from '../graph/context.ts';
import type { Step } from '../graph/node.ts';
import { withLetters } from './dead-letters.ts';
import type { Recording } from './in-flight.ts';
import type { Io } from './io.ts';
import { isProgramState, stateName } from './program-state.ts';
import type { BaseMember, RegionBases } from './region-bases.ts';
import type { SinkSnapshot } from './sink-runner.ts';
import type { InFlightSnapshot, OperatorSnapshot, SnapshotStorage, TaskSnapshot } from './snapshot.ts';

export interface TakenSnapshot {
  readonly id: number;
  readonly snapshot: Omit<TaskSnapshot, 'keyed' | 'operators' | 'inFlight'>;
  readonly operators: Readonly<Record<string, OperatorSnapshot>>;
  readonly sinks: readonly { readonly uid: string; readonly upload: () => Promise<SinkSnapshot> }[];
  /** Of an unaligned one. */
  readonly recording: Recording | undefined;
}

export interface TaskSnapshotsOptions {
  /** `<vertex>-<subtask>`, part of file names. */
  readonly task: string;
  /** Of the keyed operator at the head, where there is one. */
  readonly uid: string;
  readonly kind: Step['kind'];
  readonly attempt: number;
  readonly range: KeyGroupRange;
  readonly maxParallelism: number;
  readonly handles: readonly Handle[];
  readonly state: TaskState | undefined;
  readonly storage: SnapshotStorage | undefined;
  /** Where the tasks of the region make their bases together. */
  readonly bases?: RegionBases | undefined;
  readonly io: Io;
  readonly log: Logger;
  readonly post: (fn: () => void) => void;
  readonly wake: () => void;
  readonly acknowledge: (id: number, snapshot: TaskSnapshot, pauseMs: number) => void;
  readonly decline: (id: number, error: unknown) => void;
}

const ENCODE_SLICE_MS = 1;
const SWEEP_SLICE_MS = 1;
/** A sweep takes a slice, then leaves the task alone for this long. */
const SWEEP_PAUSE_MS = 6;

type BaseFile = Awaited<ReturnType<SnapshotStorage['open']>>;

interface Sweeping {
  readonly sweep: Sweep;
  readonly file: BaseFile;
  /** Nothing to do before a promise has settled. */
  waiting: boolean;
  /** When the next slice is due, by `io.elapsed()`. */
  next: number;
}

export class TaskSnapshots {
  readonly #options: TaskSnapshotsOptions;
  #files: Chain;
  #taken: TakenSnapshot[] = [];
  #encoding = false;
  #recording: Recording | undefined;
  readonly #unsaved: Delta[] = [];
  #uploading: Promise<void> = Promise.resolve();
  #uploads = 0;
  #pauseMs = 0;
  #sweeping: Sweeping | undefined;
  #sweepOpening = false;
  /** The timer of the next slice. */
  #again: unknown;
  /** Of the base that is made, from the moment it is open. */
  #baseFile: BaseFile | undefined;
  #closed = false;
  #deltaBytes: number | null = null;
  #baseBytes: number | null = null;
  #writtenBytes = 0;
  #sweeps = 0;
  #frozen = false;
  /** Whoever waits for the base that is swept. */
  #awaiting: { resolve(): void; reject(error: unknown): void }[] = [];
  readonly #member: BaseMember | undefined;

  constructor(options: TaskSnapshotsOptions) {
    this.#options = options;
    this.#files = chainOf(options.handles);
    const { state, uid } = options;
    if (state === undefined || options.bases === undefined) return;
    const chain = (): Chain => this.#files;
    const frozen = (): boolean => this.#frozen;
    this.#member = {
      uid,
      state,
      get chain() {
        return chain();
      },
      get frozen() {
        return frozen();
      },
      adopt: (base) => {
        this.#files = withBase(this.#files, base);
        this.#baseBytes = filesOfBase(base).reduce((sum, { bytes }) => sum + bytes, 0);
      },
    };
    options.bases.join(this.#member);
  }

  /** Loads what the task took over: bases, then deltas in order. */
  async load(): Promise<void> {
    const { state, storage, io, uid, kind } = this.#options;
    if (state === undefined || storage === undefined) return;
    for (const ref of [...this.#files.bases, ...this.#files.deltas]) {
      await io.step('restore.load');
      const { unknown } = await this.#loadFrom(ref, state, storage);
      // What the program has not declared any more would be in no later base, and come back half where it is declared again.
      const table = [...unknown.keys()].map((each) => each.slice(uid.length + 1)).find((each) => isProgramState(each, kind));
      if (table !== undefined)
        throw new MillraceError(
          'RESTORE_STATE_UNCLAIMED',
          `The snapshot has the state '${stateName(table)}' of '${uid}', which that operator does not declare any more.`,
          {
            uid,
            todo: 'Declare it again, or accept that it is dropped: restore: { from, allowNonRestoredState: true } (--restore … --allow-non-restored-state).',
          },
        );
    }
  }

  async #loadFrom(ref: BaseRef | DeltaRef, state: TaskState, storage: SnapshotStorage): Promise<Loaded> {
    const { bases, range } = this.#options;
    const { file, ranges } = ref;
    if ('tables' in ref) {
      const opened = await bases!.open(ref);
      try {
        return await state.loadLinked(opened, ref.tables, ranges);
      } finally {
        await bases!.release(ref);
      }
    }
    // Files of which others need more: of these a part is read. What is read whole is compared with its checksum, too.
    const others = ranges?.some(({ from, to }) => from < range.from || to > range.to) === true;
    return state.load(others ? { bytes: file.bytes, read: (range) => storage.read(file, range) } : storage.read(file), ranges);
  }

  /** The last part of the barrier step; `begunMs` is when the step began. */
  take(taken: TakenSnapshot, begunMs: number): void {
    if (this.#options.storage !== undefined) this.#options.state?.freeze(taken.id);
    this.#frozen = true;
    this.#taken.push(taken);
    // An earlier one has been given up by now: no two are made at once.
    if (taken.recording !== undefined) this.#recording = taken.recording;
    this.#encoding = true;
    this.#pauseMs = this.#options.io.elapsed() - begunMs;
  }

  /** True where `work` has something to do at once. */
  get busy(): boolean {
    const sweeping = this.#sweeping;
    return this.#encoding || this.#recording?.waits === true || (sweeping !== undefined && !sweeping.waiting && sweeping.next <= this.#options.io.elapsed());
  }

  work(deadline: number): void {
    if (this.#encoding) this.#encode(deadline);
    else if (this.#recording?.waits === true) this.#recording.encode(Math.min(deadline, performance.now() + ENCODE_SLICE_MS));
    if (this.#sweeping !== undefined) this.#sweep(this.#sweeping, deadline);
  }

  #encode(deadline: number): void {
    const { state, storage, io } = this.#options;
    const begun = io.elapsed();
    const done = state === undefined || storage === undefined || state.encode(Math.min(deadline, begun + ENCODE_SLICE_MS));
    this.#pauseMs = Math.max(this.#pauseMs, io.elapsed() - begun);
    if (!done) return;
    this.#encoding = false;
    if (state !== undefined && storage !== undefined) this.#unsaved.push(...state.takeDeltas());
    const taken = this.#taken;
    this.#taken = [];
    for (const one of taken) {
      const pauseMs = this.#pauseMs;
      this.#uploading = this.#uploading.then(() => this.#upload(one, pauseMs));
    }
  }

  async #upload(taken: TakenSnapshot, pauseMs: number): Promise<void> {
    const { task, uid, attempt, range, state, storage, io, post, acknowledge, decline } = this.#options;
    const { id } = taken;
    try {
      if (overlong(this.#files) && state !== undefined) await this.#baseMade();
      for (let delta = this.#unsaved[0]; delta !== undefined && delta.id <= id; delta = this.#unsaved[0]) {
        if (delta.rows > 0) {
          await io.step('checkpoint.delta.upload');
          this.#uploads += 1;
          const file = await storage!.write(`delta-${task}-a${attempt}-${delta.id}-${this.#uploads}`, delta.blocks);
          this.#files = withDelta(this.#files, { id: delta.id, file });
        }
        this.#deltaBytes = delta.rows > 0 ? delta.bytes : 0;
        this.#writtenBytes += this.#deltaBytes;
        this.#unsaved.shift();
        releaseBlocks(delta.blocks);
      }
      const operators: Record<string, OperatorSnapshot> = { ...taken.operators };
      for (const { uid: sink, upload } of taken.sinks) {
        const { writers, letters = [] } = await upload();
        if (writers !== undefined) operators[sink] = { ...operators[sink], writers };
        if (letters.length > 0) operators[sink] = withLetters(operators[sink] ?? {}, letters);
      }
      const inFlight = taken.recording === undefined ? undefined : await this.#uploadInFlight(taken.recording);
      this.#files = at(this.#files, id);
      if (inFlight === 'given up') return;
      const keyed = state === undefined ? undefined : { uid, range, handle: handleOf(this.#files, range) };
      await io.step('checkpoint.ack');
      post(() => {
        const pause = Math.max(pauseMs, taken.recording?.pauseMs ?? 0);
        acknowledge(id, { ...taken.snapshot, operators, keyed, ...(inFlight === undefined ? {} : { inFlight }) }, pause);
        this.#maySweep();
      });
    } catch (error) {
      post(() => decline(id, error));
    }
  }

  async #uploadInFlight(recording: Recording): Promise<InFlightSnapshot | 'given up' | undefined> {
    const { task, attempt, storage, io, maxParallelism } = this.#options;
    const recorded = await recording.file;
    if (this.#recording === recording) this.#recording = undefined;
    if (recorded === undefined || storage === undefined) return 'given up';
    await io.step('checkpoint.inflight.upload');
    if (recorded === 'nothing') return undefined;
    const file = await storage.write(`inflight-${task}-a${attempt}-${recording.id}`, recorded.blocks);
    return { file, maxParallelism, lanes: recorded.lanes };
  }

  // ── bases ──

  /** P5. */
  async #baseMade(): Promise<void> {
    const { bases, post } = this.#options;
    if (this.#files.next !== undefined) return;
    if (bases?.shared === true) {
      bases.ask();
      await bases.settled();
      return;
    }
    await new Promise<void>((resolve, reject) => {
      this.#awaiting.push({ resolve, reject });
      post(() => {
        this.#maySweep();
        // Not now: rows that were loaded are not settled yet, say. The next one waits again.
        if (this.#sweeping === undefined && !this.#sweepOpening) for (const each of this.#awaiting.splice(0)) each.resolve();
      });
    });
  }

  #maySweep(): void {
    const { task, attempt, state, storage, io, post, bases } = this.#options;
    if (bases?.shared === true) {
      bases.ask();
      return;
    }
    if (storage === undefined || state === undefined || this.#sweeping !== undefined || this.#sweepOpening || !wantsBase(this.#files)) return;
    if (state.unsettled) return;
    this.#sweeps += 1;
    this.#sweepOpening = true;
    const name = `base-${task}-a${attempt}-${this.#sweeps}`;
    const open = async (): Promise<BaseFile> => {
      await io.step('base.begin');
      const file = await storage.open(name);
      // Mail is dropped once the task has ended: then nobody else closes it.
      this.#baseFile = file;
      if (this.#closed) this.#abandonBase();
      return file;
    };
    open().then(
      (file) =>
        post(() => {
          this.#sweepOpening = false;
          this.#sweeping = { sweep: state.sweep(), file, waiting: false, next: 0 };
        }),
      (error) => post(() => this.#baseFailed(error)),
    );
  }

  #sweep(sweeping: Sweeping, deadline: number): void {
    const { io } = this.#options;
    const begun = io.elapsed();
    if (sweeping.waiting || sweeping.next > begun) return;
    const { sweep, file } = sweeping;
    const outcome = sweep.step(Math.min(deadline, begun + SWEEP_SLICE_MS));
    const ended = io.elapsed();
    this.#pauseMs = Math.max(this.#pauseMs, ended - begun);
    sweeping.next = ended + SWEEP_PAUSE_MS;
    const blocks = sweep.take();
    if (outcome === 'again' && blocks.length === 0) {
      this.#again = io.clock.setTimeout(this.#options.wake, SWEEP_PAUSE_MS);
      return;
    }
    sweeping.waiting = true;
    const save = async (): Promise<void> => {
      if (typeof outcome === 'object') await outcome;
      if (outcome === 'done') await this.#options.io.step('base.upload');
      if (blocks.length > 0) await file.append(blocks);
      releaseBlocks(blocks);
    };
    const saved = save();
    if (outcome === 'done') {
      saved
        .then(() => file.finish())
        .then(
          (ref) => this.#options.post(() => this.#baseDone({ kind: 'rows', file: ref, b: sweep.b, n: sweep.n })),
          (error) => this.#options.post(() => this.#baseFailed(error)),
        );
      return;
    }
    saved.then(
      () => {
        sweeping.waiting = false;
        this.#options.wake();
      },
      (error) => this.#options.post(() => this.#baseFailed(error)),
    );
  }

  #baseDone(base: BaseRef): void {
    this.#sweeping = undefined;
    this.#baseFile = undefined;
    this.#files = withBase(this.#files, base);
    this.#baseBytes = base.file.bytes;
    this.#writtenBytes += base.file.bytes;
    for (const { resolve } of this.#awaiting.splice(0)) resolve();
  }

  /** For metrics: of the last delta and the last base that this attempt has written, null where there is none; of all of them; and what a restore would read. */
  get figures(): Readonly<Record<string, number | null>> {
    const files = filesOf(handleOf(this.#files));
    return {
      stateDeltaBytes: this.#deltaBytes,
      stateBaseBytes: this.#baseBytes,
      stateWrittenBytes: this.#writtenBytes,
      stateLinkedBytes: this.#options.bases?.uploadedBytes ?? null,
      stateFiles: files.length,
      stateStoredBytes: files.reduce((sum, { bytes }) => sum + bytes, 0),
    };
  }

  /** A base that fails costs nothing but itself: the deltas stand. */
  #baseFailed(error: unknown): void {
    const { log, task } = this.#options;
    log.warn({ task, error: messageOf(error) }, 'A base could not be made; the deltas are kept.');
    this.#sweepOpening = false;
    this.#sweeping?.sweep.cancel();
    this.#abandonBase();
    this.#sweeping = undefined;
    for (const { reject } of this.#awaiting.splice(0)) reject(error);
  }

  #abandonBase(): void {
    const { log, task } = this.#options;
    const file = this.#baseFile;
    this.#baseFile = undefined;
    file?.abandon().catch((reason) => log.warn({ task, error: messageOf(reason) }, 'An unfinished base could not be removed.'));
  }

  /** No upload runs any more. */
  settled(): Promise<void> {
    return this.#uploading;
  }

  close(): void {
    this.#closed = true;
    if (this.#member !== undefined) this.#options.bases!.leave(this.#member);
    for (const { reject } of this.#awaiting.splice(0)) reject(new MillraceError('JOB_ENDED', 'The task ended while a base of its state was made.'));
    if (this.#again !== undefined) this.#options.io.clock.clearTimeout(this.#again);
    this.#sweeping?.sweep.cancel();
    this.#recording?.drop();
    this.#abandonBase();
    this.#sweeping = undefined;
  }
}
