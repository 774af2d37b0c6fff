// Time travel: a job from one of its snapshots on, with its own sources and without its sinks, to see what becomes of one key step by step.
//
// What: the operator that is watched, and all that feeds it, run as a region of their own (execution/region.ts) on the engine as it is. Sinks and what stands
// behind the operator are not there, or are given sinks that keep nothing. The snapshot is read where it lies; of the operator's state only the key is loaded.
//
// Invariants:
//  R1  Nothing of the job is touched: no registry, no lock, no marker, nothing in its checkpoint directory, no writer of a sink; no source hears of a checkpoint.
//      So the job may run meanwhile.
//  R2  The end is exact: every record that was read has gone through the operator before the last step is given (a barrier behind them says so), or event time
//      there has reached the time that was asked for.
//  R3  Whatever way it ends, actors, state and reads of sources end with it.

import { createSystem } from '../../actors/index.ts';
import {
  canonicalKey,
  type FileRef,
  groupOf,
  hashKey,
  instanceOf,
  memory,
  rewritten,
  type StateBackend,
  type TableHeader,
} from '../../state-backends/index.ts';
import { definitionOf, type Job } from '../api/job.ts';
import { openSnapshot, type SnapshotInspector } from '../checkpoint/inspect.ts';
import { type CheckpointMetadata, withParts } from '../checkpoint/metadata.ts';
import { settleMaxParallelism, unclaimed } from '../checkpoint/restore.ts';
import { claiming } from '../checkpoint/verify.ts';
import { MillraceError } from '../errors.ts';
import { MetricRegistry } from '../execution/metrics.ts';
import { RegionAttempt } from '../execution/region.ts';
import { rowFilesOf, withTables } from '../execution/snapshots.ts';
import { SILENT } from '../graph/context.ts';
import type { Key } from '../graph/job.ts';
import { isKeyed, type Node, nameOf, type Step } from '../graph/node.ts';
import { buildGraph, type Graph, type Vertex } from '../graph/plan.ts';
import type { Sink } from '../graph/sink.ts';
import { operatorOf } from '../operators/operator-of.ts';
import { queryableOf } from '../operators/state-views.ts';
import { type Io, systemIo } from '../runtime/io.ts';
import type { Operator, OperatorFactory } from '../runtime/operator.ts';
import type { SnapshotStorage, TaskSnapshot } from '../runtime/snapshot.ts';
import { AlignmentGroups } from '../time/alignment-group.ts';
import { Allowance, refuseUnreplayable, replayedSource, withAllowedRest } from './replayed-sources.ts';
import { StepQueue } from './step-queue.ts';
import { type ReplayStep, type Watch, watched } from './watched-operator.ts';

/** What to replay, and how far. */
export interface ReplayOptions {
  /** The metadata file of a retained checkpoint (`CheckpointInfo.path`), or the folder of a savepoint. */
  from: string;
  /** The operator to look at: one that keeps state, by key or without. */
  uid: string;
  /** Which key; none of an operator that keeps no state by key. */
  key?: Key;
  /**
   * Where it ends: when event time at the operator has reached `time` (epoch milliseconds), or when so many records have been read of all sources together. By
   * default, and at the latest, at the end of the sources.
   */
  until?: { time?: number; records?: number };
  /** Milliseconds after which sources that never end count as read to the end when no record has come; 5,000 by default. */
  patience?: number;
  /** Instances of each operator that does not say otherwise; 1 by default. */
  parallelism?: number;
  /** Where the state of the operators in front of it is kept; `memory()` by default. */
  state?: StateBackend;
  /** Pass over the state of operators that the job does not have any more; false by default. */
  allowNonRestoredState?: boolean;
  /** Its abort ends the replay where it is. */
  signal?: AbortSignal;
}

/**
 * Replays a job from one of its snapshots: its sources read from there on, and each step of one key at one operator is given, first the state that the snapshot has
 * of it. Nothing is committed, and nothing of the job is touched, which may run meanwhile. Functions in front of the operator, and its own, are called as in the
 * job; sinks are not, nor anything behind it. Records of a key come in the order of their source; between sources and splits the order may be another one than it
 * was.
 *
 * @param job as `job()` gave it.
 * @throws CHECKPOINT_NOT_FOUND, SNAPSHOT_CORRUPT, STATE_NOT_FOUND, KEY_UNSUPPORTED, REPLAY_REFUSED, RESTORE_STATE_UNCLAIMED, MAX_PARALLELISM_CHANGED; and what
 * the job fails with. They reject the first step, or the one that would come next.
 * @example
 * const counts = job('counts', (env) => {
 *   env.fromArray('words', ['a', 'b', 'a', 'c', 'a']).keyBy((word) => word).process('count', {
 *     state: { n: value<number>({ default: 0 }) },
 *     onRecord: (_, ctx) => ctx.state.n.update((n) => n + 1),
 *   });
 * });
 * await newSavepoint('counts').feed('count', { job: counts, records: ['a', 'a'] }).write('before');
 * const seen: unknown[] = [];
 * for await (const { kind, before, after } of replay(counts, { from: 'before', uid: 'count', key: 'a' })) seen.push([kind, before.n, after.n]);
 * assert.deepEqual(seen, [['start', 2, 2], ['record', 2, 3], ['record', 3, 4], ['record', 4, 5]]);
 */
export function replay(job: Job, options: ReplayOptions): AsyncGenerator<ReplayStep, void, undefined> {
  return replayOf(definitionOf(job), options);
}

/** The same, of what a job is built from. */
export async function* replayOf(definition: { readonly name: string; build(): Node[] }, options: ReplayOptions): AsyncGenerator<ReplayStep, void, undefined> {
  const real = systemIo();
  const snapshot = await openSnapshot(options.from, real);
  const run = new ReplayRun(definition, snapshot, options, real);
  try {
    await run.start();
    yield* run.steps.taken();
  } finally {
    await run.close();
  }
}

const PATIENCE_MS = 5000;
const LOOK_MS = 20;

const KEEPS_NOTHING: Sink<unknown> = {
  open: async () => ({ write() {}, flush: async () => {}, close: async () => {} }),
};

class ReplayRun {
  readonly steps = new StepQueue<ReplayStep>();
  readonly #options: ReplayOptions;
  readonly #snapshot: SnapshotInspector;
  readonly #definition: { readonly name: string; build(): Node[] };
  readonly #io: Io;
  readonly #allowance: Allowance;
  readonly #watches: Watch[] = [];
  /** Operators that hold records back for a while. */
  readonly #holding: Operator[] = [];
  readonly #acks = new Map<number, { readonly waiting: Set<string>; readonly resolve: () => void }>();
  #system: ReturnType<typeof createSystem> | undefined;
  #attempt: RegionAttempt | undefined;
  #target: Vertex | undefined;
  #ended = new Set<string>();
  #barriers = 0;
  #over = false;
  #seen = 0;
  readonly #abort = (): void => this.#end();

  constructor(definition: { readonly name: string; build(): Node[] }, snapshot: SnapshotInspector, options: ReplayOptions, real: Io) {
    const { until = {} } = options;
    for (const [name, limit] of Object.entries({ 'until.time': until.time, 'until.records': until.records, patience: options.patience }))
      if (limit !== undefined && !(typeof limit === 'number' && limit >= 0))
        throw new MillraceError('OPTION_INVALID', `${name} ${String(limit)} is no limit.`, { todo: 'Give a number, not below 0.' });
    this.#definition = definition;
    this.#snapshot = snapshot;
    this.#options = options;
    // Processing time goes on where the snapshot has left it.
    const begun = real.clock.now();
    const base = Math.max(0, ...snapshot.metadata.tasks.map((task) => task.processingTime));
    this.#io = { ...real, clock: { ...real.clock, now: () => base + (real.clock.now() - begun) } };
    this.#allowance = new Allowance(
      until.records ?? Number.POSITIVE_INFINITY,
      () => real.clock.now(),
      () => this.steps.room(),
    );
  }

  async start(): Promise<void> {
    const { metadata } = this.#snapshot;
    const { parallelism = 1, signal, state = memory() } = this.#options;
    signal?.addEventListener('abort', this.#abort, { once: true });
    const nodes = this.#definition.build();
    for (const node of nodes) {
      const { step } = node;
      if (step.kind === 'sink' || step.kind === 'forEach') replaceStep(node, { kind: 'sink', sink: KEEPS_NOTHING });
    }
    const whole = buildGraph(nodes, { parallelism });
    const { uid } = this.#options;
    const node = this.#nodeOf(whole, uid);
    this.#refuseAnother(whole);
    const kept = feeding(whole, node);
    for (const each of kept) {
      refuseUnreplayable(each);
      if (each.step.kind === 'source') replaceStep(each, { ...each.step, source: replayedSource(each.step.source, this.#allowance) });
    }
    const graph = buildGraph(kept, { parallelism });
    this.#target = graph.vertices.find(({ nodes: own }) => own.includes(node))!;
    const wanted = this.#wanted(node);
    const { maxParallelism } = metadata;
    const factory = (of: Node): OperatorFactory => {
      const inner = operatorOf(of);
      if (of === node)
        return watched(
          inner,
          {
            node,
            key: wanted,
            mine: (subtask, count) => wanted === undefined || instanceOf(groupOf(wanted.hash, maxParallelism), count, maxParallelism) === subtask,
            seen: (step) => this.#step(step),
            reached: (watermark) => this.#reached(watermark),
            until: this.#options.until?.time ?? Number.POSITIVE_INFINITY,
          },
          (watch) => void this.#watches.push(watch),
        );
      return (environment) => {
        const operator = inner(environment);
        if (of.step.kind === 'asyncMap') this.#holding.push(operator);
        return operator;
      };
    };
    const sources = new Set(kept.filter(({ step }) => step.kind === 'source').map(nameOf));
    const claims = this.#options.allowNonRestoredState === true ? await claiming(whole, metadata, operatorOf) : undefined;
    const claimed = claims === undefined ? metadata : withParts(withTables(metadata, claims.table), claims.part);
    const restored = withAllowedRest(wanted === undefined ? claimed : this.#ofKey(claimed, wanted.hash), sources, this.#allowance);
    const attempt = await RegionAttempt.open({
      // No other attempt has such a name, also where its state lies in the job's own folder.
      job: `replay-${this.#definition.name}`,
      number: 0,
      attempt: 1,
      lineage: 'replay',
      graph,
      maxParallelism,
      backend: state,
      operators: factory,
      io: this.#io,
      log: SILENT,
      metrics: new MetricRegistry(),
      storage: this.#storage(restored, claims?.table),
      blocking: true,
      watermarkEachBatch: true,
      alignment: new AlignmentGroups(),
      metadata: restored,
      usedIds: { after: undefined, to: metadata.id },
      lastCheckpoint: () => metadata.id,
      reports: (task) => this.#reports(task),
      onDeadLetter: () => {},
    });
    this.#attempt = attempt;
    this.#system = createSystem({ name: 'replay', random: () => this.#io.random(), onFailure: () => {} });
    this.#system.spawn(attempt.behaviour(), { name: 'region', shutdown: 'infinity' });
    if (signal?.aborted === true) this.#end();
  }

  // ── what to run ──

  #nodeOf(graph: Graph, uid: string): Node {
    const nodes = graph.vertices.flatMap((vertex) => vertex.nodes);
    const node = nodes.find((each) => nameOf(each) === uid);
    const keeps = (each: Node): boolean => {
      const { states, without } = queryableOf(each);
      return states.length + without.length > 0;
    };
    if (node !== undefined && (keeps(node) || node.step.kind === 'process')) return node;
    const have = nodes.filter(keeps).map((each) => `'${nameOf(each)}'`);
    throw new MillraceError(
      'STATE_NOT_FOUND',
      `The job '${this.#definition.name}' has no operator '${String(uid)}'${node === undefined ? '' : ' that keeps state'}.`,
      { todo: have.length === 0 ? 'None of its operators keeps any.' : `Operators with state are ${have.join(', ')}.` },
    );
  }

  #wanted(node: Node) {
    const { uid, key } = this.#options;
    if (!isKeyed(node.step)) {
      if (key === undefined) return undefined;
      throw new MillraceError('KEY_UNSUPPORTED', `'${uid}' keeps no state by key.`, { uid, todo: 'Leave the key out.' });
    }
    if (node.step.kind === 'window' && node.step.spec.all) return { key: OF_ALL, hash: hashKey(OF_ALL) };
    try {
      const own = canonicalKey(key);
      return { key: own, hash: hashKey(own) };
    } catch (error) {
      const { message, todo } = error as { message: string; todo?: string };
      throw new MillraceError('KEY_UNSUPPORTED', `'${uid}' cannot be looked at for that key: ${message.replace(` ${todo}`, '')}`, {
        uid,
        cause: error,
        todo: todo ?? 'Use strings, numbers, bigints, booleans, or arrays of these.',
      });
    }
  }

  #refuseAnother(graph: Graph): void {
    const { metadata } = this.#snapshot;
    const { name } = this.#definition;
    if (metadata.job !== name)
      throw new MillraceError('REPLAY_REFUSED', `The snapshot ${metadata.id} is one of the job '${metadata.job}', not of '${name}'.`, {
        todo: 'Name a snapshot of that job, or the module of the other one.',
      });
    const largest = Math.max(...graph.vertices.map((vertex) => vertex.parallelism));
    settleMaxParallelism({ asked: undefined, stored: metadata.maxParallelism, byDefault: metadata.maxParallelism, largest });
    const without = unclaimed(metadata, graph);
    if (without.length > 0 && this.#options.allowNonRestoredState !== true)
      throw new MillraceError(
        'RESTORE_STATE_UNCLAIMED',
        `The snapshot ${metadata.id} has state of ${without.map((uid) => `'${uid}'`).join(', ')}, which the job '${name}' does not have any more.`,
        { todo: 'Replay it with the program that wrote it, or pass over that state: allowNonRestoredState (--allow-non-restored-state).' },
      );
  }

  /** R1: it reads, and what is to be written is forgotten. */
  #storage(metadata: CheckpointMetadata, claims: ((table: TableHeader) => boolean) | undefined): SnapshotStorage {
    const { files } = this.#snapshot;
    const rows = new Set(metadata.tasks.flatMap(({ keyed }) => (keyed === undefined ? [] : rowFilesOf(keyed.handle))));
    const forgotten = async (name: string): Promise<FileRef> => ({ name, bytes: 0, crc: 0 });
    return {
      write: forgotten,
      open: async (name) => ({ append: async () => {}, finish: () => forgotten(name), abandon: async () => {} }),
      remove: async () => {},
      read: (file, range) => {
        if (claims === undefined || range !== undefined || !rows.has(file.name)) return files.read(file, range);
        return rewritten(files.read(file), (_, table) => claims(table), metadata.maxParallelism);
      },
    };
  }

  /** Of the watched operator only the rows of the key's group are loaded. */
  #ofKey(metadata: CheckpointMetadata, hash: number): CheckpointMetadata {
    const { uid } = this.#options;
    const group = groupOf(hash, metadata.maxParallelism);
    const only = { from: group, to: group };
    const tasks = metadata.tasks.map((task): TaskSnapshot => {
      if (task.keyed?.uid !== uid) return task;
      const { from, to } = task.keyed.range;
      const { handle } = task.keyed;
      const cut = from <= group && group <= to ? { ...handle, range: only } : { ...handle, bases: [], deltas: [] };
      return { ...task, keyed: { ...task.keyed, handle: cut } };
    });
    return { ...metadata, tasks };
  }

  // ── while it runs ──

  #reports(task: string) {
    return {
      opened: () => {
        if (this.#attempt!.opened(task, 0)) this.#go();
      },
      ack: (id: number) => this.#acknowledged(id, task),
      declined: (_: number, error: unknown) => this.#end(error),
      committed: () => {},
      ended: () => {
        this.#ended.add(task);
        if (this.#attempt!.tasks.filter(({ vertex }) => vertex === this.#target).every(({ name }) => this.#ended.has(name))) this.#finish();
      },
      finished: () => {},
      failed: ({ error }: { readonly error: unknown }) => this.#end(error),
      stopped: ({ error }: { readonly error: unknown }) => this.#end(error),
    };
  }

  #go(): void {
    for (const watch of this.#watches) watch.begin();
    this.#attempt!.go({ usedId: 0, completed: undefined });
    this.#allowance.begin();
    this.#allowance.exhausted.then(() => this.#drain()).catch((error) => this.#end(error));
    if (Number.isFinite(this.#options.patience ?? PATIENCE_MS)) this.#lookForMore();
  }

  #lookForMore(): void {
    const { clock } = this.#io;
    const { patience = PATIENCE_MS } = this.#options;
    const look = (): void => {
      if (this.#over || this.#barriers > 0) return;
      if (this.#allowance.idleMs >= patience) this.#drain().catch((error) => this.#end(error));
      else clock.setTimeout(look, LOOK_MS);
    };
    look();
  }

  /** R2. What asynchronous functions have in hand comes first. */
  async #drain(): Promise<void> {
    if (this.#over || this.#barriers > 0) return;
    await this.#barrier();
    while (!this.#over && this.#holding.some(({ holding }) => holding === true))
      await new Promise<void>((resolve) => void this.#io.clock.setTimeout(resolve, LOOK_MS));
    if (this.#holding.length > 0 && !this.#over) await this.#barrier();
    this.#finish();
  }

  #barrier(): Promise<void> {
    const id = this.#snapshot.metadata.id + ++this.#barriers;
    const tasks = this.#attempt!.tasks;
    const done = new Promise<void>((resolve) => {
      this.#acks.set(id, { waiting: new Set(tasks.map(({ name }) => name)), resolve });
    });
    for (const task of tasks) {
      if (task.vertex.inputs.length === 0) task.ref.tell({ kind: 'trigger', barrier: { id, startedAt: this.#io.clock.now(), stop: true } });
    }
    return done;
  }

  #acknowledged(id: number, task: string): void {
    const pending = this.#acks.get(id);
    if (pending === undefined) return;
    pending.waiting.delete(task);
    if (pending.waiting.size === 0) pending.resolve();
  }

  #step(step: ReplayStep): void {
    if (this.#over) return;
    this.#seen += 1;
    this.steps.push(step);
  }

  #reached(watermark: number): void {
    const { until } = this.#options;
    if (until?.time !== undefined && watermark >= until.time) this.#finish();
  }

  #finish(): void {
    const [start] = this.#watches;
    if (this.#seen <= 1 && start !== undefined && this.#options.key !== undefined && start.wasEmpty) {
      const { uid, key } = this.#options;
      this.#end(
        new MillraceError('STATE_NOT_FOUND', `The key ${shownKey(key)} had nothing in '${uid}', and no record of it came.`, {
          uid,
          todo: `Is the key of that type? It was taken for a ${Array.isArray(key) ? 'list' : typeof key}.`,
        }),
      );
    } else this.#end();
  }

  #end(error?: unknown): void {
    if (this.#over) return;
    this.#over = true;
    this.steps.end(error);
  }

  /** R3. */
  async close(): Promise<void> {
    this.#options.signal?.removeEventListener('abort', this.#abort);
    this.#end();
    await this.#system?.stop();
    await this.#attempt?.close();
  }
}

/** What all of a `windowAll` lies under. */
const OF_ALL = 0;

/** The nodes of all vertices that something reaches the node from, its own included, in the order of the program. */
function feeding({ vertices }: Graph, node: Node): Node[] {
  const kept = new Set<Vertex>();
  const visit = (vertex: Vertex): void => {
    if (kept.has(vertex)) return;
    kept.add(vertex);
    for (const { from } of vertex.inputs) visit(from);
  };
  visit(vertices.find(({ nodes }) => nodes.includes(node))!);
  return [...kept].flatMap(({ nodes }) => nodes).sort((one, other) => one.index - other.index);
}

function replaceStep(node: Node, step: Step): void {
  (node as { step: Step }).step = step;
}

function shownKey(key: Key | undefined): string {
  return typeof key === 'bigint' ? `${key}n` : (JSON.stringify(key, (_, part) => (typeof part === 'bigint' ? `${part}n` : part)) ?? 'undefined');
}
