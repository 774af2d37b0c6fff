// One attempt of a region: its tasks, the channels between them, and their supervisor.
//
// What: built anew for every start and restart, from a plan built anew, so that closures of user functions begin fresh (protocols 8). Nothing of an attempt
// is used by the next one.
//
// Invariant Q1: every name that leaves the process (files, writers, databases) carries the attempt.

import { type ActorRef, type Behaviour, type Supervising, supervisor } from '../../actors/index.ts';
import { type Backend, type RegionState, rangeOf, type StateBackend } from '../../state-backends/index.ts';
import type { CoordinatedTask } from '../checkpoint/coordinator.ts';
import type { CheckpointMetadata } from '../checkpoint/metadata.ts';
import { restoreVertex } from '../checkpoint/restore.ts';
import type { Logger } from '../graph/context.ts';
import type { DeadLetter } from '../graph/job.ts';
import type { Node } from '../graph/node.ts';
import type { Edge, Graph, Vertex } from '../graph/plan.ts';
import { Channel } from '../runtime/channel.ts';
import type { Io } from '../runtime/io.ts';
import type { OperatorFactory } from '../runtime/operator.ts';
import { RegionBases } from '../runtime/region-bases.ts';
import type { SnapshotStorage } from '../runtime/snapshot.ts';
import type { KnownSplits } from '../runtime/source-reader.ts';
import { Task } from '../runtime/task.ts';
import type { TaskMail, TaskReports } from '../runtime/task-contract.ts';
import type { AlignmentGroups } from '../time/alignment-group.ts';
import type { MetricRegistry } from './metrics.ts';

export interface RegionOptions {
  readonly job: string;
  readonly number: number;
  readonly attempt: number;
  readonly lineage: string;
  readonly graph: Graph;
  readonly maxParallelism: number;
  readonly backend: StateBackend;
  readonly operators: (node: Node) => OperatorFactory;
  readonly io: Io;
  readonly log: Logger;
  readonly metrics: MetricRegistry;
  readonly storage: SnapshotStorage | undefined;
  readonly blocking: boolean;
  readonly watermarkEachBatch: boolean;
  readonly alignment: AlignmentGroups;
  /** Asked about each notice of a checkpoint's completion or abort: true where it gets lost. */
  readonly loses?: (() => boolean) | undefined;
  readonly metadata: CheckpointMetadata | undefined;
  /** Those that the lineage that runs has handed out; `after` undefined: that is not known. */
  readonly usedIds: { readonly after: number | undefined; readonly to: number };
  readonly lastCheckpoint: () => number | undefined;
  readonly reports: (task: string) => Omit<TaskReports, 'deadLetter'>;
  readonly onDeadLetter: (letter: DeadLetter) => void;
}

/** Which instances of the next vertex an instance sends to. */
function targets({ exchange, from, to }: Edge, sender: number): number[] {
  const all = Array.from({ length: to.parallelism }, (_, i) => i);
  if (exchange === 'forward') return [sender];
  if (exchange !== 'rescale') return all;
  // Each sender has a share of the receivers, or several senders share one.
  if (from.parallelism >= to.parallelism) return [Math.floor((sender * to.parallelism) / from.parallelism)];
  return all.filter((receiver) => Math.floor((receiver * from.parallelism) / to.parallelism) === sender);
}

/** The way to a task on which notices get lost; triggers do not, since a lost one is the same as a slow one. */
function losing(ref: ActorRef<TaskMail>, loses: () => boolean): ActorRef<TaskMail> {
  return {
    path: ref.path,
    tell: (mail) => {
      if ((mail.kind !== 'complete' && mail.kind !== 'abort') || !loses()) ref.tell(mail);
    },
    ask: (make, options) => ref.ask(make, options),
  };
}

/** Longer than a task waits for its own calls to settle. */
const SHUTDOWN_MS = 8000;

export class RegionAttempt {
  readonly number: number;
  readonly attempt: number;
  /** Of the checkpoint that it began from, 0 without one: up to it every sink has committed once its tasks are open. */
  readonly restoredId: number;
  readonly tasks: readonly Task[];
  readonly coordinated: () => CoordinatedTask[];
  readonly #state: RegionState;
  readonly #bases: RegionBases | undefined;
  readonly #opened = new Set<string>();
  readonly #restored = new Map<string, KnownSplits>();
  readonly #vertexOf = new Map<Task, Vertex>();
  readonly markers: number[] = [];
  readonly finished = new Set<string>();

  static async open(options: RegionOptions): Promise<RegionAttempt> {
    const random = Math.floor(options.io.random() * 2 ** 32).toString(36);
    await options.io.step('restore.state.open');
    const state = await (options.backend as Backend).open({
      name: `${options.job}-${options.number}-${options.attempt}-${random}`,
      tracked: options.storage !== undefined,
    });
    return new RegionAttempt(options, state, `${options.number}-${random}`);
  }

  private constructor(options: RegionOptions, state: RegionState, id: string) {
    this.number = options.number;
    this.attempt = options.attempt;
    const { usedIds } = options;
    this.restoredId = options.metadata?.id ?? 0;
    this.#state = state;
    const { attempt: number, storage, io, log } = options;
    this.#bases = storage === undefined ? undefined : new RegionBases({ state, id, attempt: number, storage, io, log });
    const vertices = options.graph.vertices.filter((v) => v.region === options.number);
    const tasksOf = new Map<Vertex, Task[]>(vertices.map((v) => [v, []]));
    const channels = new Map<Edge, Channel[][]>();
    for (const vertex of vertices) {
      for (const edge of vertex.outputs) {
        const wake = (v: Vertex, i: number) => (): void => tasksOf.get(v)![i]?.wake();
        channels.set(
          edge,
          Array.from({ length: vertex.parallelism }, (_, from) => targets(edge, from).map((to) => new Channel(wake(edge.from, from), wake(edge.to, to)))),
        );
      }
    }
    for (const vertex of vertices) {
      const restored = options.metadata === undefined ? undefined : restoreVertex(vertex, options.metadata, options.maxParallelism);
      if (restored !== undefined) this.#restored.set(vertex.id, restored);
      for (let subtask = 0; subtask < vertex.parallelism; subtask++) {
        const name = `${vertex.id}-${subtask}`;
        const task: Task = new Task({
          job: options.job,
          vertex,
          subtask,
          maxParallelism: options.maxParallelism,
          attempt: options.attempt,
          lineage: options.lineage,
          range: rangeOf(subtask, vertex.parallelism, options.maxParallelism),
          region: state,
          io: options.io,
          log: options.log.child?.({ job: options.job, task: name }) ?? options.log,
          metrics: options.metrics.of({ job: options.job, uid: vertex.id, subtask: String(subtask) }),
          storage: options.storage,
          bases: this.#bases,
          blocking: options.blocking,
          watermarkEachBatch: options.watermarkEachBatch || (vertex.head.step.kind === 'source' && vertex.head.step.source.bounded),
          alignment: options.alignment,
          inputs: vertex.inputs.map((edge) => ({
            edge,
            channels: channels.get(edge)!.flatMap((row, from) => targets(edge, from).flatMap((to, k) => (to === subtask ? [row[k]!] : []))),
          })),
          outputs: vertex.outputs.map((edge) => ({ edge, channels: channels.get(edge)![subtask]! })),
          operators: options.operators,
          restore: restored?.tasks[subtask],
          restoredId: this.restoredId,
          usedIds: { after: usedIds.after ?? (options.metadata?.lineage === options.lineage ? 0 : usedIds.to), to: usedIds.to },
          lastCheckpoint: options.lastCheckpoint,
          assign: (instance, splits, last) => tasksOf.get(vertex)![instance]!.ref.tell({ kind: 'assign', splits, last }),
          reports: { ...options.reports(name), deadLetter: options.onDeadLetter },
        });
        tasksOf.get(vertex)!.push(task);
        this.#vertexOf.set(task, vertex);
      }
    }
    this.tasks = [...tasksOf.values()].flat();
    this.coordinated = () =>
      this.tasks.map((task) => {
        const vertex = this.#vertexOf.get(task)!;
        const subtask = tasksOf.get(vertex)!.indexOf(task);
        const upstream = vertex.inputs.flatMap((edge) =>
          tasksOf
            .get(edge.from)!
            .filter((_, from) => targets(edge, from).includes(subtask))
            .map((t) => t.name),
        );
        return { name: task.name, ref: options.loses === undefined ? task.ref : losing(task.ref, options.loses), attempt: this.attempt, upstream };
      });
  }

  /** one_for_all without a restart of its own: the first failure ends every task, and the job supervisor restores. */
  behaviour(): Behaviour<Supervising> {
    return supervisor({
      strategy: 'one-for-all',
      intensity: { max: 0, within: 1 },
      children: this.tasks.map((task) => ({ id: task.name, start: task.behaviour(), restart: 'transient' as const, shutdown: SHUTDOWN_MS })),
    });
  }

  /** True once every task has opened. */
  opened(task: string, marker: number): boolean {
    this.#opened.add(task);
    this.markers.push(marker);
    return this.#opened.size === this.tasks.length;
  }

  go(): void {
    for (const task of this.tasks) {
      const { id, parallelism } = this.#vertexOf.get(task)!;
      const restored = this.#restored.get(id);
      task.ref.tell({ kind: 'go', splits: restored ?? { known: new Set(), ended: new Map(), counts: new Array<number>(parallelism).fill(0) } });
    }
  }

  drain(): void {
    for (const task of this.tasks) if (!this.finished.has(task.name)) task.ref.tell({ kind: 'drain' });
  }

  /** After every task has ended. */
  async close(): Promise<void> {
    await this.#bases?.close();
    await this.#state.close();
  }
}
