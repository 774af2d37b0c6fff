// A task: one parallel instance of a vertex, and an actor. Its mailbox holds control (triggers, completions, assigned splits, results of promises); its
// default action, `work`, processes input.
//
// Who owns what: the task owns its gate, chain, operators, outputs, sinks, reader and keyed state. It is told what to do by mail and tells the job through
// `TaskReports`. It knows no other task; channels carry everything.
//
// One turn of `work`, in this order, each step bounded in time:
//   encode what is frozen → sweep a base → wait for what must be waited for → fire timers → one chunk of records.
//
// Invariants:
//  T1  A barrier is one uninterrupted step: sinks closed, barrier out, state frozen, positions taken, channels unblocked. No record in between. One that is
//      hurried (alignment.ts) is taken in front of everything else, also without credit and between two timers; what stood in front of it is recorded.
//  T2  Everything asynchronous re-enters as mail of this attempt, or only wakes the task.
//  T3  Records wait while a watermark is on its way (task-time.ts).
//  T4  A task that has seen its last record lives on until a checkpoint begun after that is complete and its commits have resolved (protocols 20).
//  T5  What was in flight when the restored snapshot was taken comes before anything that upstream sends (restored-lanes.ts).

import { setMaxListeners } from 'node:events';
import { type ActorContext, type ActorRef, type Behaviour, defineActor } from '../../actors/index.ts';
import { groupOf, type Looking, type StateStats, type TaskState } from '../../state-backends/index.ts';
import { MillraceError, messageOf } from '../errors.ts';
import type { DeadLetter, Key } from '../graph/job.ts';
import { DEAD_LETTERS, isKeyed, type Node, nameOf } from '../graph/node.ts';
import type { Vertex } from '../graph/plan.ts';
import { isTransactional, type SinkContext } from '../graph/sink.ts';
import type { AlignmentAction } from './alignment.ts';
import { type Batch, releaseBatch } from './batch.ts';
import { buildChain, type Chain, type Columns } from './chain.ts';
import type { Barrier, Event } from './channel.ts';
import { DeadLetters, deadLetter } from './dead-letters.ts';
import { DOING, type Doing } from './doing.ts';
import { forEachSink } from './for-each.ts';
import { Gate } from './gate.ts';
import { rejectThenable } from './handlers.ts';
import { HotKeys, hottest, type WeighedKeys } from './hot-keys.ts';
import { Recording } from './in-flight.ts';
import { readInFlight } from './in-flight-file.ts';
import type { Operator, Participant, TimeEvent } from './operator.ts';
import { type Control, type LastKey, type Output, openOutput, refusePartition } from './output.ts';
import { PlainSink } from './plain-sink.ts';
import { type RestoredLane, RestoredLanes } from './restored-lanes.ts';
import type { SinkRunner } from './sink-runner.ts';
import type { InFlightShare, OperatorSnapshot } from './snapshot.ts';
import { type KnownSplits, SourceReader, type SplitReading } from './source-reader.ts';
import type { SeenTask, TaskMail, TaskOptions } from './task-contract.ts';
import { TaskSnapshots } from './task-snapshots.ts';
import { TaskTime } from './task-time.ts';
import { TransactionalSinkRunner } from './transactional-sink.ts';
import { needsUndo, TaskFailure, UnitRunner } from './units.ts';

type State = 'opening' | 'open' | 'running' | 'finished' | 'failed';

const WATERMARK_INTERVAL_MS = 200;
/** How long a builder that is not full may wait while the task is busy. */
const FLUSH_MS = 5;
/** A chunk of records is meant to take no longer. */
const CHUNK_MS = 1;
const CHUNK_MAX = 1024;
const SETTLE_MS = 5000;

export class Task {
  readonly name: string;
  readonly #options: TaskOptions;
  readonly #nodes: readonly Node[];
  readonly #control: Control = { full: false };
  readonly #gate: Gate | undefined;
  /** By channel of the gate: true where it brings records of the right input. */
  readonly #right: readonly boolean[];
  readonly #outputs: readonly Output[];
  readonly #sinks = new Map<Node, SinkRunner>();
  readonly #letters: DeadLetters;
  readonly #participants: Participant[] = [];
  readonly #units: UnitRunner;
  readonly #abort = new AbortController();
  /** Of the next look at event time. */
  #ticking: unknown;
  readonly #chain: Chain;
  readonly #operators: readonly Operator[];
  readonly #operatorOf: ReadonlyMap<Node, Operator>;
  /** The head, where it keeps event time in its own hands. */
  readonly #timekeeper: Operator | undefined;
  readonly #outputOf: (node: Node, name: string) => ((value: unknown, timestamp: number) => void) | undefined;
  readonly #reader: SourceReader | undefined;
  #keyed: TaskState | undefined;
  #context: ActorContext<TaskMail> | undefined;
  #state: State = 'opening';

  // records
  #batch: Batch | undefined;
  #columns: Columns | undefined;
  #batchRight = false;
  /** Where it came from, where it is of the gate's. */
  #batchChannel = 0;
  #at = 0;
  /** Until all of it has been processed. */
  #restored: RestoredLanes | undefined;
  #chunk = 256;
  #lastFlush = 0;
  /** Sinks are being handed what waits, in a turn of this task. */
  #draining = false;
  #withholding = false;
  #stalled = false;
  #sourceIdle = false;

  // time
  readonly #time: TaskTime;
  #ending: 'no' | 'advancing' | 'ended' = 'no';
  #drained = false;
  #quiet: boolean;
  #waiting = false;

  // snapshots
  readonly #snapshots: TaskSnapshots;
  readonly #endedAt = new Map<number, boolean>();
  /** By checkpoint: where the splits were at its barrier; of sources that want to hear of completed ones. */
  readonly #positionsAt = new Map<number, Map<string, unknown>>();
  /** Questions from outside about keyed state, to be answered between two turns; false: they come too late. */
  readonly #looks = new Set<(there: boolean) => void>();
  #aborted = 0;
  /** Of the newest unaligned checkpoint. */
  #recording: Recording | undefined;
  /** A barrier that came by mail to a source, while a watermark is on its way. */
  #held: Barrier | undefined;
  /** Ends the wait for slow inputs. */
  #patience: { readonly id: number; readonly handle: unknown } | undefined;

  readonly counts = { recordsIn: 0, deadLetters: 0 };
  /** Of a task with state by key. */
  readonly #hot: HotKeys | undefined;

  constructor(options: TaskOptions) {
    const { vertex, restore } = options;
    this.#options = options;
    // Each split that is read listens, and whatever a connector waits for.
    setMaxListeners(0, this.#abort.signal);
    this.name = `${vertex.id}-${options.subtask}`;
    this.#nodes = vertex.nodes;
    this.#quiet = restore?.ended ?? false;
    this.#time = new TaskTime({
      watermark: restore?.watermark ?? Number.NEGATIVE_INFINITY,
      advancing: restore?.advancing ?? false,
      processingTime: restore?.processingTime ?? 0,
      quiet: this.#quiet,
      clock: options.io.clock,
      signal: (event) => this.#signal(event),
      flush: () => this.#flush(false),
      wake: () => this.wake(),
    });
    this.#letters = new DeadLetters();
    this.#gate =
      vertex.inputs.length === 0
        ? undefined
        : new Gate({
            channels: options.inputs.flatMap((i) => i.channels),
            watermark: this.#time.watermark,
            blocking: options.blocking,
            forced: options.inputs.flatMap(({ edge, channels }) => channels.map(() => edge.address === undefined)),
            announced: (barrier) => this.#patient(barrier),
            recorded: (id, whole) => this.#recorded(id, whole),
          });
    this.#right = options.inputs.flatMap(({ edge, channels }) => channels.map(() => edge.port === 'right'));
    const keyed = options.outputs.filter(({ edge }) => edge.exchange === 'hash');
    const last: LastKey | undefined = keyed.length > 1 ? { key: Number.NaN, hash: 0 } : undefined;
    this.#outputs = options.outputs.map(({ edge, channels }) =>
      openOutput({
        exchange: edge.exchange,
        key: edge.key,
        partition: edge.partition,
        random: () => options.io.random(),
        channels,
        maxParallelism: options.maxParallelism,
        control: this.#control,
        name: `${vertex.id}-${edge.to.id}`,
        to: edge.to.id,
        last,
        first: edge === keyed[0]?.edge,
      }),
    );
    for (const node of this.#nodes) {
      if (node.step.kind === 'sink' || node.step.kind === 'forEach') this.#sinks.set(node, this.#openSink(node));
    }
    this.#hot = isKeyed(vertex.head.step) ? new HotKeys() : undefined;
    if (isKeyed(vertex.head.step)) {
      this.#keyed = options.region.task({ maxParallelism: options.maxParallelism, range: options.range, undo: needsUndo(this.#nodes) });
    }
    this.#snapshots = new TaskSnapshots({
      task: this.name,
      uid: nameOf(vertex.head),
      kind: vertex.head.step.kind,
      attempt: options.attempt,
      range: options.range,
      maxParallelism: options.maxParallelism,
      handles: restore?.handles ?? [],
      state: this.#keyed,
      storage: options.storage,
      bases: options.bases,
      io: options.io,
      log: options.log,
      post: (fn) => this.#post(fn),
      wake: () => this.wake(),
      acknowledge: (id, snapshot, pauseMs) => {
        if (this.#recording?.id === id) this.#recording = undefined;
        options.reports.ack(id, snapshot, pauseMs);
      },
      decline: (id, error) => options.reports.declined(id, error),
    });
    this.#participants.push(...this.#outputs, ...this.#sinks.values());
    this.#units = new UnitRunner({
      nodes: this.#nodes,
      state: this.#keyed,
      participants: this.#participants,
      attempt: options.attempt,
      skipped: (node, error, record, key, timestamp) => this.#skipped(node, error, record, key, timestamp),
    });
    const sinkEmits = new Map([...this.#sinks].map(([node, sink]) => [node, (value: unknown, timestamp: number): void => sink.add(value, timestamp)] as const));
    const built = buildChain({
      vertex,
      outputs: this.#outputs,
      sinks: sinkEmits,
      control: this.#control,
      units: this.#units.undoes ? this.#units : undefined,
      asyncHandler: (result) => {
        rejectThenable(result, nameOf(this.#nodes[this.#chain.at()]!));
        return Boolean(result);
      },
      operator: (node, index, output) => this.#openOperator(node, index, output),
    });
    this.#chain = built.chain;
    this.#outputOf = built.outputOf;
    this.#operators = [...built.operators.values()];
    this.#time.of(this.#operators);
    this.#operatorOf = built.operators;
    const head = built.operators.get(vertex.head);
    this.#timekeeper = head?.onTime === undefined ? undefined : head;
    this.#reader = this.#openReader();
    for (const node of this.#nodes) {
      const snapshot = restore?.operators[nameOf(node)];
      if (snapshot !== undefined) this.#letters.restore(nameOf(node), snapshot);
    }
  }

  // ── building ──

  #openSink(node: Node): SinkRunner {
    const options = this.#options;
    const uid = nameOf(node);
    const context = (writer: string, lineage: string, restored: unknown): SinkContext => ({
      uid,
      job: options.job,
      writer,
      lineage,
      attempt: options.attempt,
      restored,
      signal: this.#abort.signal,
      log: options.log,
      metrics: options.metrics,
    });
    const common = { uid, lineage: options.lineage, context, io: options.io, wake: () => this.wake(), failed: (error: unknown) => this.#failLater(error) };
    if (node.step.kind === 'forEach') {
      const each: PlainSink = new PlainSink(
        forEachSink(node.step.fn, (error, record, timestamp, index) => each.refused(index, this.#forEachFailed(node, error, record, timestamp))),
        options.subtask,
        common,
      );
      return each;
    }
    const { sink } = node.step as Extract<Node['step'], { kind: 'sink' }>;
    if (!isTransactional(sink)) return new PlainSink(sink, options.subtask, common);
    return new TransactionalSinkRunner(sink, options.subtask, {
      ...common,
      storage: options.storage,
      fileName: (writer, checkpoint) => `segment-${uid}-${writer}-a${options.attempt}-${checkpoint}`,
      restored: options.restore?.operators[uid]?.writers ?? [],
      restoredId: options.restoredId,
      usedIds: options.usedIds,
    });
  }

  #openOperator(node: Node, index: number, output: (name: string) => ((value: unknown, timestamp: number) => void) | undefined): Operator {
    const options = this.#options;
    const uid = nameOf(node);
    const given = options.restore?.parts[uid];
    const asked = new Set<string>();
    const operator = options.operators(node)({
      node,
      uid,
      subtask: options.subtask,
      parallelism: options.vertex.parallelism,
      state: () => this.#keyed!,
      output,
      watermark: () => this.#time.watermark,
      now: () => this.#time.now(),
      random: () => options.io.random(),
      log: options.log,
      metrics: options.metrics,
      unit: (run, subject, key, timestamp) => this.#unit(index, run, subject, key, timestamp),
      together: this.#units.undoes ? undefined : (run, subject, key) => this.#together(index, run, subject, key),
      timersChanged: () => this.#time.arm(),
      participate: (participant) => void this.#participants.push(participant),
      restored: (name) => {
        asked.add(name);
        return given?.[name];
      },
      time: (event) => this.#timePasses(event),
      afterTime: (fn) => this.#time.afterAdvancing(() => this.#time.entered(fn)),
      attention: () => {
        this.#control.full = true;
      },
      post: (fn) => this.#post(() => this.#time.entered(fn)),
      fail: (error) => this.#failLater(error),
      failed: (error, record, key, timestamp) => {
        const failure = this.#units.failure(error, node, record, key);
        if (failure !== undefined) throw failure;
        this.#skipped(node, error, record, key, timestamp);
      },
      clock: options.io.clock,
      timeEachBatch: options.watermarkEachBatch,
      backlog: () => this.#batch !== undefined || this.#restored !== undefined || this.#gate!.depth > 0 || !this.#outputs.every((output) => output.open),
      signal: this.#abort.signal,
    });
    const without = Object.keys(given ?? {}).find((name) => !asked.has(name) && given![name]!.length > 0);
    if (node.step.kind === 'process' && without !== undefined)
      throw new MillraceError(
        'RESTORE_STATE_UNCLAIMED',
        `The snapshot has the state '${without}' of '${uid}', which that operator does not declare any more.`,
        {
          uid,
          todo: 'Declare it again, or accept that it is dropped: restore: { from, allowNonRestoredState: true } (--restore … --allow-non-restored-state).',
        },
      );
    return operator;
  }

  #openReader(): SourceReader | undefined {
    const { vertex, subtask, log, metrics, restore } = this.#options;
    const { step } = vertex.head;
    if (step.kind !== 'source') return undefined;
    const uid = nameOf(vertex.head);
    const reader = new SourceReader({
      source: step.source,
      strategy: step.strategy,
      subtask,
      parallelism: vertex.parallelism,
      context: { uid, signal: this.#abort.signal, log, metrics, parallelism: vertex.parallelism },
      deadLetter: (record, error) => this.#skipped(vertex.head, error, record, undefined, Number.NaN),
      now: () => this.#time.now(),
      group: step.strategy?.align === undefined ? undefined : this.#options.alignment.of(step.strategy.align.group),
      wake: () => this.wake(),
      post: (fn) => this.#post(fn),
      failed: (error) => this.#failLater(sourceFailed(uid, error)),
      assign: (instance, splits, last) => this.#options.tell(instance, { kind: 'assign', splits, last }),
      arrived: (arrival) => this.#options.tell(0, { kind: 'arrived', arrival }),
    });
    reader.restore(restore?.operators[uid]?.splits ?? []);
    return reader;
  }

  // ── the actor ──

  behaviour(): Behaviour<TaskMail> {
    return defineActor<TaskMail>((context) => {
      this.#context = context;
      this.#open().then(
        () => this.#post(() => this.#opened()),
        (error) => this.#failLater(error),
      );
      return {
        receive: (mail) => this.#guard(() => this.#receive(mail)),
        work: (deadline) => this.#guard(() => this.#work(deadline)),
        inspect: () => ({ metrics: this.metrics(), ...(this.#state === 'opening' || this.#state === 'open' ? { state: 'starting' as const } : {}) }),
        stopping: () => this.#close(),
      };
    });
  }

  /** Once its behaviour has been started. */
  get ref(): ActorRef<TaskMail> {
    return this.#context!.self;
  }

  /** Asked while a function of the program does not come back. */
  [DOING](): Doing {
    return { task: this.name, operator: nameOf(this.#nodes[this.#chain.at()] ?? this.#nodes[0]!) };
  }

  /** Something a task waits for may have come: credit, an element, the end of a write. */
  wake(): void {
    this.#context?.ready();
  }

  #post(fn: () => void): void {
    this.#context!.self.tell({ kind: 'run', fn });
  }

  /** What it has sent cannot be carried to where it goes. */
  fail(error: MillraceError): void {
    this.#failLater(error);
  }

  #failLater(error: unknown): void {
    this.#post(() => {
      throw error;
    });
  }

  /** The one place where an error ends the task. */
  #guard<R>(run: () => R): R {
    try {
      return run();
    } catch (error) {
      this.#state = 'failed';
      this.#answerLooks(false);
      const node = this.#nodes[this.#chain.at()] ?? this.#nodes[0]!;
      // An error of a unit comes here as a TaskFailure, its policy asked. Any other is not of a record and has no policy: the region restarts.
      const failure = this.#units.failure(error, { ...node, onError: 'restart' }, undefined, undefined)!;
      this.#options.reports.failed(failure);
      throw failure.error;
    }
  }

  #receive(mail: TaskMail): void {
    if (this.#state === 'failed' || this.#state === 'finished') return;
    switch (mail.kind) {
      case 'run':
        mail.fn();
        break;
      case 'go':
        this.#go(mail.splits);
        break;
      case 'trigger':
        this.#triggered(mail.barrier);
        break;
      case 'complete':
        this.#complete(mail.id);
        break;
      case 'abort':
        this.#aborted = Math.max(this.#aborted, mail.id);
        if (this.#gate !== undefined) this.#follow(this.#gate.abort(mail.id));
        if (this.#recording !== undefined && this.#recording.id <= mail.id) this.#recording.drop();
        break;
      case 'assign':
        this.#reader!.assigned(mail.splits, mail.last);
        if (this.#strategy !== undefined && this.#ending === 'no' && !this.#quiet) this.#shareOfTime(mail.splits.length > 0);
        break;
      case 'arrived':
        this.#reader!.handedOver(mail.arrival);
        break;
      case 'drain':
        this.#drain();
        break;
    }
    this.wake();
  }

  // ── opening ──

  async #open(): Promise<void> {
    const { io } = this.#options;
    await this.#snapshots.load();
    await this.#loadInFlight(this.#options.restore?.inFlight ?? []);
    for (const sink of this.#sinks.values()) await sink.open();
    await io.step('restore.opened');
  }

  async #loadInFlight(shares: readonly InFlightShare[]): Promise<void> {
    const { io, storage, restore } = this.#options;
    const lanes: RestoredLane[] = [];
    for (const share of shares) {
      await io.step('restore.load');
      const { file, lanes: stored } = share.snapshot;
      const elements = await readInFlight(storage!.read(file), file.name, stored.length, this.#taking(share));
      for (const [index, { address, stage }] of stored.entries()) {
        const input = share.inputs[index];
        const right = input !== undefined && this.#options.inputs[input]!.edge.port === 'right';
        lanes.push({ from: share.from, stage, address, right, elements: elements[index]! });
      }
    }
    if (lanes.length > 0) this.#restored = new RestoredLanes(lanes, this.#time.watermark, restore!.moved);
  }

  /** Which records of an old instance's are this one's: by key where they have one, as the program's partition says, or in turn. */
  #taking({ from, inputs, whole }: InFlightShare): (lane: number, value: unknown, hash: number) => boolean {
    const { range, maxParallelism, subtask, vertex } = this.#options;
    let turn = from;
    return (lane, value, hash) => {
      const input = inputs[lane];
      if (input === undefined) return false;
      if (whole) return true;
      const { exchange, partition } = this.#options.inputs[input]!.edge;
      if (exchange === 'custom') {
        const target: unknown = partition!(value, vertex.parallelism);
        // Else no instance would take it.
        if (!Number.isInteger(target) || (target as number) < 0 || (target as number) >= vertex.parallelism)
          refusePartition(vertex.id, target, vertex.parallelism);
        return target === subtask;
      }
      if (exchange !== 'hash') return turn++ % vertex.parallelism === subtask;
      const group = groupOf(hash, maxParallelism);
      return group >= range.from && group <= range.to;
    };
  }

  #opened(): void {
    this.#state = 'open';
    this.#options.reports.opened({ marker: Math.max(0, ...[...this.#sinks.values()].map((s) => s.marker)) });
  }

  #go(splits: KnownSplits): void {
    this.#state = 'running';
    this.#answerLooks(true);
    if (!this.#quiet) for (const operator of this.#operators) if (operator.start !== undefined) this.#time.entered(() => operator.start!());
    // Nothing fires now: what was due had fired before the snapshot, and a timer set for the past waits for the next watermark, as it would have without a crash.
    if (this.#time.watermark > Number.NEGATIVE_INFINITY && !this.#time.advancing) this.#signal({ kind: 'watermark', time: this.#time.watermark });
    this.#time.begin();
    if (!this.#options.watermarkEachBatch && (this.#strategy !== undefined || this.#timekeeper?.tick !== undefined)) this.#tick();
    if (this.#reader === undefined) return;
    if (this.#quiet) {
      this.#reader.complete = true;
      // It was the one that tells the others that no more splits will come.
      const { subtask, vertex, tell } = this.#options;
      if (subtask === 0) for (let other = 1; other < vertex.parallelism; other++) tell(other, { kind: 'assign', splits: [], last: true });
    } else this.#reader.start(splits);
  }

  get #strategy() {
    const { step } = this.#options.vertex.head;
    return step.kind === 'source' ? step.strategy : undefined;
  }

  // ── working ──

  #work(deadline: number): boolean {
    if (this.#state !== 'running') return false;
    for (;;) {
      if (!this.#step(deadline)) return this.#snapshots.busy;
      if (performance.now() >= deadline) return true;
    }
  }

  /** One bounded piece of work; false where there is nothing to do but encode and sweep. */
  #step(deadline: number): boolean {
    if (this.#snapshots.busy) this.#snapshots.work(deadline);
    if (this.#waiting) return false;
    if (this.#gate?.hurried !== undefined) this.#hurry(this.#gate.hurried);
    for (const output of this.#outputs) if (!output.open) return this.#stall();
    // A watermark that is on its way goes on: a barrier may wait behind it, and the sink for that.
    if (this.#sinks.size > 0 && this.#sinksBehind() && !this.#time.advancing) return this.#stall();
    if (this.#stalled) {
      this.#stalled = false;
      this.#reader?.hold(false);
    }
    if (this.#keyed !== undefined) {
      this.#keyed.maintain();
      if (this.#keyed.pressed) return this.#wait(this.#keyed.relieve());
    }
    if (this.#time.advancing) return this.#fired(this.#time.advance(deadline));
    if (this.#ending !== 'ended' && this.#time.due) {
      const fired = this.#time.fireProcessing(deadline);
      if (fired !== 'done') return this.#fired(fired);
    }
    if (this.#ending === 'advancing' && this.#timekeeper?.holding !== true) return this.#endData();
    if (this.#timekeeper?.blocked === true) {
      this.#flush(true);
      // What stands behind no record passes: a barrier does not wait for an answer that may never come.
      const event = this.#batch === undefined && this.#restored === undefined ? this.#gate?.pollEvent() : undefined;
      if (event === undefined) return false;
      this.#onEvent(event);
      return true;
    }
    if (this.#batch !== undefined) return this.#processBatch();
    if (this.#reader !== undefined) return this.#readStep();
    if (this.#restored !== undefined) return this.#restoreStep(this.#restored);
    return this.#pollStep();
  }

  #fired(outcome: 'done' | 'more' | Promise<void>): boolean {
    return typeof outcome === 'string' || this.#wait(outcome);
  }

  /** No records are taken: a split that has none because of that is not idle. */
  #stall(): false {
    if (!this.#stalled) this.#reader?.hold(true);
    this.#stalled = true;
    return false;
  }

  /**
   * A sink that is behind takes no new records, but barriers must still pass, or no checkpoint could complete and let it commit (protocols 12): what stands in the
   * channels is processed, and their senders get no credit. True for a source, which simply waits: its barriers come by mail.
   */
  #sinksBehind(): boolean {
    let behind = false;
    for (const sink of this.#sinks.values()) behind ||= sink.behind;
    if (this.#gate === undefined) return behind;
    if (behind !== this.#withholding) {
      this.#withholding = behind;
      this.#gate.withhold(behind);
    }
    return false;
  }

  #wait(until: Promise<void>): boolean {
    this.#waiting = true;
    until.then(
      () => {
        this.#waiting = false;
        this.wake();
      },
      (error) => this.#failLater(error),
    );
    return false;
  }

  /** T5. */
  #restoreStep(restored: RestoredLanes): boolean {
    const next = restored.next();
    if (next === undefined) {
      this.#restored = undefined;
      this.#gate!.valve.raise(restored.watermark);
    } else if ('watermark' in next) this.#timeArrives({ kind: 'watermark', time: next.watermark });
    else {
      this.#begin(next.batch, next.right);
      this.#processBatch();
    }
    return true;
  }

  #begin(batch: Batch, right: boolean): void {
    this.#batch = batch;
    this.#columns = batch;
    this.#at = 0;
    this.#batchRight = right;
  }

  #pollStep(): boolean {
    const element = this.#gate!.poll();
    if (element === undefined) {
      this.#flush(true);
      return false;
    }
    if ('kind' in element) this.#onEvent(element);
    else {
      this.#batchChannel = this.#gate!.channel;
      this.#begin(element, this.#right[this.#batchChannel]!);
      this.#processBatch();
    }
    return true;
  }

  #processBatch(): boolean {
    const batch = this.#batch!;
    this.#at = this.#run(this.#columns!, this.#at, batch.size, undefined);
    if (this.#at < batch.size) return true;
    releaseBatch(batch);
    this.#batch = undefined;
    this.#columns = undefined;
    if (this.#options.watermarkEachBatch) this.#tickTimekeeper();
    return true;
  }

  /** Runs the chain over at most a chunk; gives the index of the first record not processed. */
  #run(columns: Columns, from: number, size: number, split: SplitReading | undefined): number {
    const to = Math.min(size, from + this.#chunk);
    const begun = this.#options.io.elapsed();
    this.#time.enter();
    let next: number;
    try {
      next = this.#batchRight ? this.#chain.runRight(columns, from, to) : this.#chain.run(columns, from, to, split?.clock);
    } catch (error) {
      const index = this.#chain.index();
      if (split !== undefined && error instanceof TaskFailure && error.policy === 'stop') {
        // Undone, and still ahead of the position: the last checkpoint keeps the record, and the next start meets it again.
        this.#reader!.stopped = true;
        this.#options.reports.stopped(error);
        return index;
      }
      throw this.#units.failure(error, this.#nodes[this.#chain.at()]!, columns.values[index], columns.keys?.[index]) ?? error;
    } finally {
      this.#time.leave();
    }
    this.counts.recordsIn += next - from;
    if (this.#hot !== undefined && next > from) this.#hot.saw(columns.keys, columns.hashes, from, next);
    const ended = this.#options.io.elapsed();
    if (ended - begun > 2 * CHUNK_MS) this.#chunk = Math.max(1, this.#chunk >> 1);
    else if (ended - begun < CHUNK_MS / 2 && this.#chunk < CHUNK_MAX) this.#chunk *= 2;
    this.#flush(ended - this.#lastFlush > FLUSH_MS, ended);
    return next;
  }

  #flush(all: boolean, now = 0): void {
    this.#control.full = false;
    for (const output of this.#outputs) output.flush(all);
    this.#draining = true;
    try {
      for (const sink of this.#sinks.values()) sink.drain();
    } finally {
      this.#draining = false;
    }
    if (all) this.#lastFlush = now === 0 ? this.#options.io.elapsed() : now;
  }

  #unit(index: number, run: () => void, subject: () => unknown, key: Key | undefined, timestamp: number): boolean {
    this.#chain.setAt(index);
    if (!this.#units.undoes) {
      this.#together(index, run, subject, () => key);
      return true;
    }
    this.#units.begin();
    try {
      run();
    } catch (error) {
      this.#units.failed(error, this.#chain.at(), subject(), key, timestamp);
      return false;
    }
    this.#units.commit();
    return true;
  }

  #together(index: number, run: () => void, subject: () => unknown, key: () => Key | undefined): void {
    this.#chain.setAt(index);
    try {
      run();
    } catch (error) {
      throw this.#units.failure(error, this.#nodes[this.#chain.at()]!, subject(), key()) ?? error;
    }
  }

  #skipped(node: Node, error: unknown, record: unknown, key: Key | undefined, timestamp: number): void {
    const uid = nameOf(node);
    const letter = deadLetter(uid, record, key, timestamp, error, this.#time.now(), this.#options.lastCheckpoint());
    const emit = this.#outputOf(node, DEAD_LETTERS);
    if (emit === undefined) this.#letters.keep(letter);
    this.#tellLetter(letter);
    // A unit of its own: whoever reads dead letters has a policy too.
    if (emit !== undefined)
      this.#time.entered(() =>
        this.#unit(
          this.#chain.at(),
          () => emit(letter, timestamp),
          () => letter,
          undefined,
          timestamp,
        ),
      );
  }

  #tellLetter(letter: DeadLetter): void {
    this.counts.deadLetters += 1;
    this.#options.reports.deadLetter(letter);
  }

  /** Nobody reads these letters as a stream. Kept at once, for every barrier from now on; the sink brings it to those that have passed and wait for the record. */
  #forEachFailed(node: Node, error: unknown, record: unknown, timestamp: number): DeadLetter {
    const failure = this.#units.failure(error, node, record, undefined);
    if (failure !== undefined) throw failure;
    const letter = deadLetter(nameOf(node), record, undefined, timestamp, error, this.#time.now(), this.#options.lastCheckpoint());
    this.#letters.keep(letter);
    if (this.#draining) this.#tellLetter(letter);
    else this.#post(() => this.#tellLetter(letter));
    return letter;
  }

  // ── sources ──

  #readStep(): boolean {
    const reader = this.#reader!;
    const reading = reader.ready();
    if (reading === undefined) {
      this.#flush(true);
      if (this.#ending === 'no' && !reader.stopped && reader.finished) return this.#endOfInput();
      return false;
    }
    const { values, timestamps } = reading as { values: readonly unknown[]; timestamps: readonly number[] | undefined };
    reading.at = this.#run({ values, timestamps, keys: NO_KEYS, hashes: NO_HASHES }, reading.at, values.length, reading);
    if (reading.at < values.length) return true;
    reader.consumed(reading);
    if (this.#options.watermarkEachBatch) this.#sourceTime();
    return true;
  }

  /** Lets the generators speak, and sends what changed. */
  #sourceTime(): void {
    if (this.#strategy === undefined || this.#ending !== 'no' || this.#quiet) return;
    // What a generator throws is named after its source.
    this.#chain.setAt(0);
    const { watermark, idle } = this.#reader!.time();
    if (this.#sourceIdle && !idle) {
      this.#sourceIdle = false;
      this.#time.afterAdvancing(() => this.#signal({ kind: 'active' }));
    }
    if (watermark > this.#time.watermark && !this.#time.advancing) this.#time.advanceTo(watermark);
    if (idle && !this.#sourceIdle) {
      this.#sourceIdle = true;
      this.#time.afterAdvancing(() => this.#signal({ kind: 'idle' }));
    }
  }

  /** An instance that has no split is idle at once, and one that has got one is not; generators speak at their times. */
  #shareOfTime(more: boolean): void {
    const idle = this.#sourceIdle ? !more : this.#reader!.empty;
    if (idle === this.#sourceIdle) return;
    this.#sourceIdle = idle;
    this.#time.afterAdvancing(() => this.#signal({ kind: idle ? 'idle' : 'active' }));
  }

  #tick(): void {
    const { clock } = this.#options.io;
    this.#ticking = clock.setTimeout(
      () =>
        this.#post(() => {
          if (this.#state !== 'running' || this.#ending === 'ended') return;
          if (this.#reader === undefined) this.#tickTimekeeper();
          else this.#sourceTime();
          this.#tick();
        }),
      WATERMARK_INTERVAL_MS,
    );
  }

  #tickTimekeeper(): void {
    const keeper = this.#timekeeper;
    if (keeper?.tick === undefined || this.#quiet) return;
    this.#chain.setAt(0);
    this.#time.entered(() => keeper.tick!(this.#time.now()));
  }

  #endOfInput(): boolean {
    this.#ending = 'advancing';
    // What an idle input says of time is not heard.
    if (this.#sourceIdle) this.#signal({ kind: 'active' });
    this.#sourceIdle = false;
    this.#time.advanceTo(Number.POSITIVE_INFINITY);
    return true;
  }

  #drain(): void {
    if (this.#reader === undefined || this.#ending !== 'no' || this.#drained) return;
    this.#reader.stopped = true;
    this.#drained = true;
    // A barrier that waits for a watermark to pass goes first: what it stores must know nothing of the end of time.
    this.#time.afterAdvancing(() => this.#endOfInput());
  }

  // ── events and time ──

  #signal(event: Event): void {
    for (const output of this.#outputs) output.signal(event);
  }

  #onEvent(event: Event): void {
    const gate = this.#gate!;
    switch (event.kind) {
      case 'watermark':
      case 'idle':
      case 'active': {
        const { watermark, idle } = event.kind === 'watermark' ? gate.watermark(event.time) : event.kind === 'idle' ? gate.idle() : gate.active();
        if (idle === false) this.#timeArrives({ kind: 'active' });
        if (watermark !== undefined) this.#timeArrives({ kind: 'watermark', time: watermark });
        if (idle === true) this.#timeArrives({ kind: 'idle' });
        break;
      }
      case 'end-of-data':
        if (gate.endOfData()) this.#ending = 'advancing';
        break;
      case 'barrier':
      case 'cancel':
      case 'end':
        this.#follow(gate.align(event));
        break;
    }
  }

  #follow(actions: readonly AlignmentAction[]): void {
    const gate = this.#gate!;
    for (const action of actions) {
      switch (action.kind) {
        case 'block':
          gate.block(action.channel);
          break;
        case 'unblock':
          gate.unblock();
          break;
        case 'abort':
          this.#signal({ kind: 'cancel', id: action.id });
          break;
        case 'snapshot':
          this.#barrier(gate.barrierOf(action.id), undefined);
          break;
        case 'record':
          this.#barrier({ ...gate.barrierOf(action.id), unaligned: 0 }, action);
          break;
        case 'recorded':
          this.#recorded(action.id, true);
          break;
        default:
          // The gate has done it.
          break;
      }
    }
  }

  #timeArrives(event: TimeEvent): void {
    if (this.#timekeeper === undefined || this.#quiet) this.#timePasses(event);
    else this.#time.entered(() => this.#timekeeper!.onTime!(event));
  }

  #timePasses(event: TimeEvent): void {
    if (event.kind === 'watermark') this.#time.advanceTo(event.time);
    else this.#time.afterAdvancing(() => this.#signal(event));
  }

  /** After the final watermark: `onEnd`, then no more records leave. */
  #endData(): boolean {
    if (!this.#quiet) for (const operator of this.#operators) if (operator.end !== undefined) this.#time.entered(() => operator.end!());
    this.#ending = 'ended';
    this.#signal({ kind: 'end-of-data' });
    this.#flush(true);
    this.#options.reports.ended();
    return true;
  }

  // ── snapshots ──

  /** A barrier by mail: nobody upstream runs. */
  #triggered(barrier: Barrier): void {
    const gate = this.#gate;
    if (gate === undefined) this.#held = barrier;
    // Not between the timers of one watermark, unless it is hurried: an aligned snapshot has all of them behind it, or none.
    this.#time.afterAdvancing(() => {
      if (gate === undefined) this.#takeHeld(barrier);
      else this.#follow(gate.trigger(barrier));
    });
    this.#patient(barrier);
  }

  #takeHeld(barrier: Barrier): void {
    if (this.#held !== barrier) return;
    this.#held = undefined;
    this.#barrier(barrier, undefined);
  }

  /** A barrier has come near: how long is to be waited for what is slow. Called in the turn of whoever sent it. */
  #patient(barrier: Barrier): void {
    const { id, startedAt, unaligned } = barrier;
    if (unaligned === undefined) return;
    const { clock } = this.#options.io;
    const left = startedAt + unaligned - clock.now();
    if (left <= 0) {
      this.#impatient(barrier);
      return;
    }
    if (this.#patience?.id === id) return;
    clock.clearTimeout(this.#patience?.handle);
    this.#patience = { id, handle: clock.setTimeout(() => this.#post(() => this.#impatient(barrier)), left) };
  }

  #impatient(barrier: Barrier): void {
    if (this.#gate === undefined) {
      this.#takeHeld(barrier);
      return;
    }
    this.#gate.hurried = barrier;
    this.wake();
  }

  #hurry(barrier: Barrier): void {
    this.#follow(this.#gate!.hurry(barrier));
  }

  #recorded(id: number, whole: boolean): void {
    if (this.#recording?.id !== id) return;
    if (whole) this.#recording.seal();
    else this.#recording.drop();
  }

  /** All that stands in front of the barrier in the inputs: what is restored and not yet processed, the rest of the batch in work, the channels' queues. */
  #record({ id, channels, until }: Extract<AlignmentAction, { kind: 'record' }>): Recording {
    const gate = this.#gate!;
    const { vertex, io } = this.#options;
    const recording = new Recording(id, nameOf(vertex.head), io, () => this.wake());
    const current = this.#batch === undefined ? undefined : { batch: this.#batch, at: this.#at };
    const stage = this.#restored?.record(current, (lane, heard) => recording.lane(lane, heard)) ?? 0;
    const addresses = this.#options.inputs.flatMap(({ edge, channels: all }) => all.map(() => edge.address));
    for (const [index, channel] of gate.channels.entries()) {
      const recorder = recording.lane({ address: addresses[index], stage }, gate.valve.heard(index));
      if (!channels.has(index)) continue;
      if (current !== undefined && this.#restored === undefined && index === this.#batchChannel) recorder.batch(current.batch, current.at);
      channel.record(recorder, until.has(index) ? id : undefined);
      if (!until.has(index)) channel.recorder = recorder;
    }
    return recording;
  }

  /** `record`: what stands in front of it is part of the snapshot. */
  #barrier(barrier: Barrier, record: Extract<AlignmentAction, { kind: 'record' }> | undefined): void {
    const { id } = barrier;
    const begun = this.#options.io.elapsed();
    if (id <= this.#aborted) {
      this.#signal({ kind: 'cancel', id });
      this.#gate?.abort(id);
      return;
    }
    this.#recording = record === undefined ? undefined : this.#record(record);
    this.#flush(false);
    const sinks = [...this.#sinks].map(([node, sink]) => ({ uid: nameOf(node), upload: sink.barrier(id) }));
    this.#signal({ kind: 'barrier', barrier });
    const ended = this.#ending === 'ended' && !this.#drained;
    const operators: Record<string, OperatorSnapshot> = {};
    for (const node of this.#nodes) {
      const uid = nameOf(node);
      const letters = this.#letters.snapshot(uid);
      const splits = node.step.kind === 'source' ? { splits: this.#reader!.snapshot(id) } : undefined;
      const parts = this.#operatorOf.get(node)?.snapshot?.();
      if (letters !== undefined || splits !== undefined || parts !== undefined)
        operators[uid] = { ...letters, ...splits, ...(parts === undefined ? {} : { parts }) };
    }
    const { vertex, subtask } = this.#options;
    this.#endedAt.set(id, this.#ending === 'ended');
    const head = vertex.head.step;
    if (head.kind === 'source' && head.source.onCheckpointComplete !== undefined) this.#positionsAt.set(id, this.#reader!.positions());
    if (barrier.stop && this.#reader !== undefined) this.#reader.stopped = true;
    const { watermark, advancing } = this.#time;
    const time = { watermark, ...(advancing ? { advancing: true as const } : {}), processingTime: this.#time.now() };
    const snapshot = { vertex: vertex.id, subtask, parallelism: vertex.parallelism, ...time, ended };
    this.#snapshots.take({ id, snapshot, operators, sinks, recording: this.#recording }, begun);
  }

  // ── completion ──

  #complete(id: number): void {
    const { reports, vertex } = this.#options;
    const ended = [...this.#endedAt].some(([at, was]) => at <= id && was);
    for (const at of [...this.#endedAt.keys()]) if (at <= id) this.#endedAt.delete(at);
    Promise.all([...this.#sinks.values()].map((sink) => sink.complete(id)))
      .then(async () => {
        if (ended) for (const sink of this.#sinks.values()) await sink.finish();
      })
      .then(
        () =>
          this.#post(() => {
            reports.committed(id);
            if (ended) this.#finish();
          }),
        (error) => this.#failLater(error),
      );
    const step = vertex.head.step;
    if (step.kind === 'source' && step.source.onCheckpointComplete !== undefined) {
      // What that checkpoint holds, not what was read since: who is told may tell others that it is safe. An error is logged, nothing here depends on it.
      const positions = this.#positionsAt.get(id);
      for (const at of [...this.#positionsAt.keys()]) if (at <= id) this.#positionsAt.delete(at);
      if (positions === undefined) return;
      const told = async (): Promise<void> => step.source.onCheckpointComplete!(positions);
      told().catch((error) => this.#options.log.warn({ uid: nameOf(vertex.head), error: messageOf(error) }, 'onCheckpointComplete failed.'));
    }
  }

  #finish(): void {
    if (this.#state === 'finished') return;
    this.#signal({ kind: 'end' });
    this.#state = 'finished';
    this.#options.reports.finished();
    this.#context!.exit('normal');
  }

  // ── the end ──

  async #close(): Promise<void> {
    this.#abort.abort();
    this.#answerLooks(this.#state === 'finished');
    const { clock } = this.#options.io;
    this.#time.close();
    if (this.#ticking !== undefined) clock.clearTimeout(this.#ticking);
    clock.clearTimeout(this.#patience?.handle);
    this.#reader?.close();
    this.#snapshots.close();
    const stopped = Promise.allSettled(this.#operators.map(async (operator) => operator.stop?.()));
    // What runs is awaited for a while; what has not settled by then is fenced by the attempt in every outside name (protocols 8).
    let late: unknown;
    await Promise.race([
      Promise.allSettled([this.#snapshots.settled(), ...[...this.#sinks.values()].map((sink) => sink.settled())]),
      new Promise<void>((resolve) => {
        late = clock.setTimeout(resolve, SETTLE_MS);
      }),
    ]);
    clock.clearTimeout(late);
    const closed = Promise.allSettled([...this.#sinks.values()].map((sink) => sink.close()));
    for (const outcome of [...(await stopped), ...(await closed)]) {
      if (outcome.status === 'rejected')
        this.#options.log.warn({ task: this.name, error: messageOf(outcome.reason) }, 'A handler or a sink could not be closed.');
    }
  }

  // ── looking ──

  get vertex(): Vertex {
    return this.#options.vertex;
  }

  /**
   * Reads state between two turns, so never within a unit; where the task has finished, what it left. Undefined: the attempt ended before. What `read`
   * throws goes to whoever asked.
   */
  look<R>(read: (seen: SeenTask) => R): Promise<{ readonly seen: R } | undefined> {
    return new Promise((resolve, reject) => {
      this.#looks.add((there) => {
        if (!there) return resolve(undefined);
        try {
          const parts: SeenTask['parts'] = (uid) => this.#operatorOf.get(this.#nodes.find((node) => nameOf(node) === uid)!)?.snapshot?.() ?? {};
          resolve({ seen: read({ state: this.#keyed?.look() ?? NO_STATE, parts, watermark: this.#time.watermark, now: this.#time.now() }) });
        } catch (error) {
          reject(error);
        }
      });
      if (this.#state === 'finished') this.#answerLooks(true);
      else if (this.#state === 'failed' || this.#abort.signal.aborted) this.#answerLooks(false);
      // Before that it holds a part of what it restores; `go` answers.
      else if (this.#state === 'running') this.#post(() => this.#answerLooks(true));
    });
  }

  #answerLooks(there: boolean): void {
    const looks = [...this.#looks];
    this.#looks.clear();
    for (const answer of looks) answer(there);
  }

  /** Which keys get the most records; undefined where there are none. */
  get hotKeys(): WeighedKeys | undefined {
    return this.#hot?.weighed;
  }

  get #hottest(): number | null {
    const [first] = hottest([this.#hot!.weighed]);
    return first?.share ?? null;
  }

  metrics(): Record<string, number | null> {
    return {
      recordsIn: this.counts.recordsIn,
      recordsOut: this.#outputs.reduce((sum, o) => sum + o.records, 0) + [...this.#sinks.values()].reduce((sum, s) => sum + s.records, 0),
      mailbox: this.#gate?.depth ?? 0,
      watermark: Number.isFinite(this.#time.watermark) ? this.#time.watermark : null,
      lastCheckpoint: this.#options.lastCheckpoint() ?? null,
      deadLetters: this.counts.deadLetters,
      clockBehindMs: this.#time.behind,
      ...Object.assign({}, ...this.#operators.map((o) => o.counts ?? {})),
      ...(this.#keyed === undefined ? {} : { ...stateFigures(this.#keyed.stats()), ...this.#snapshots.figures, hotKeyShare: this.#hottest }),
    };
  }
}

/** Hits and misses are of keys that were asked for; the rate is none where nothing was, and for what is all in memory. */
function stateFigures({ rows, residentBytes, hits, misses, writeMs, stallMs }: StateStats): Record<string, number | null> {
  return {
    stateRows: rows,
    stateBytes: residentBytes,
    stateCacheHits: hits,
    stateCacheMisses: misses,
    stateCacheHitRate: hits + misses === 0 ? null : hits / (hits + misses),
    stateWriteMs: writeMs,
    stateStallMs: stallMs,
  };
}

const NO_STATE: Looking = { tables: () => [], rows: () => [], keys: () => ({ next: () => undefined }) };
const NO_KEYS: readonly Key[] = [];
const NO_HASHES = new Int32Array(0);

/** An error that has a code keeps it. */
function sourceFailed(uid: string, error: unknown): MillraceError {
  if (error instanceof MillraceError && error.code !== 'FAULT_INJECTED')
    return new MillraceError(error.code, `The source '${uid}' failed: ${error.sentence}`, { uid, cause: error, todo: error.todo, retryable: error.retryable });
  return new MillraceError('SOURCE_FAILED', `The source '${uid}' failed: ${messageOf(error)}`, { uid, cause: error, ...retryableOf(error) });
}

function retryableOf(error: unknown): { retryable?: boolean } {
  const { retryable } = (error ?? {}) as { retryable?: unknown };
  return typeof retryable === 'boolean' ? { retryable } : {};
}
