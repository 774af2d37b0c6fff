// What one host runs of a region's attempt: its tasks, and the channels between them and to others.
//
// What: built anew for every start and restart, from a plan built anew, so that closures of user functions begin fresh (protocols 8). Nothing of an attempt
// is used by the next one. A job in one thread has one part; with several hosts each has its own, and channels that lead to another are joined (`Joints`).
//
// Invariant Q1: every name that leaves the process (files, writers, databases) carries the attempt.

import type { Behaviour } from '../../actors/index.ts';
import { type Backend, type RegionState, rangeOf, SHARED_ATTEMPT, type StateBackend } from '../../state-backends/index.ts';
import type { CheckpointMetadata } from '../checkpoint/metadata.ts';
import { restoreVertex } from '../checkpoint/restore.ts';
import { type MillraceError, messageOf } from '../errors.ts';
import type { Logger } from '../graph/context.ts';
import type { DeadLetter, MetricSample, TreeNode } from '../graph/job.ts';
import type { Node } from '../graph/node.ts';
import type { Edge, Graph, Vertex } from '../graph/plan.ts';
import { Channel } from '../runtime/channel.ts';
import type { Io } from '../runtime/io.ts';
import type { OperatorFactory } from '../runtime/operator.ts';
import { RegionBases } from '../runtime/region-bases.ts';
import type { SnapshotStorage } from '../runtime/snapshot.ts';
import { Task } from '../runtime/task.ts';
import type { TaskMail, TaskReports } from '../runtime/task-contract.ts';
import type { AlignmentGroups } from '../time/alignment-group.ts';
import type { MetricRegistry } from './metrics.ts';
import { nameOfTask, targets } from './region-tasks.ts';
import { type AnswerTo, StateAnswering, type StateQuestion } from './state-questions.ts';

export interface PartOptions {
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
  readonly metadata: CheckpointMetadata | undefined;
  /** Those that the lineage that runs has handed out; `after` undefined: that is not known. */
  readonly usedIds: { readonly after: number | undefined; readonly to: number };
  readonly lastCheckpoint: () => number | undefined;
  readonly reports: (task: string) => Omit<TaskReports, 'deadLetter'>;
  readonly onDeadLetter: (letter: DeadLetter) => void;
  /** How many instances there is room for now, where the job would do with fewer than it was planned with. */
  readonly room?: (() => number) | undefined;
  /** Other hosts have a share of the tasks; by default all are here. */
  readonly elsewhere?: Elsewhere;
}

/** What a host that has not all tasks needs of the others. */
export interface Elsewhere {
  here(vertex: Vertex, subtask: number): boolean;
  /** The end here of a channel whose receiver is not. */
  out(edge: Edge, from: number, to: number, wake: () => void, failed: (error: MillraceError) => void): Channel;
  /** The end here of a channel whose sender is not. */
  in(edge: Edge, from: number, to: number, wake: () => void): Channel;
  /** To a task that is not here. */
  tell(task: string, mail: TaskMail): void;
}

/** As the bookkeeping of a region (region.ts) sees a part. */
export interface RegionPart {
  /** What runs in this thread. */
  readonly tasks: readonly Task[];
  /** Children of the region's supervisor. */
  readonly children: readonly { readonly id: string; readonly start: Behaviour<never> }[];
  /** False: that task is of another part. */
  tell(task: string, mail: TaskMail): boolean;
  /** About the state of a task, as AskedTask.ask; undefined: it is of another part. */
  ask(task: string, question: StateQuestion): Promise<AnswerTo<StateQuestion> | undefined> | undefined;
  /** Of one that ran under a leader that is gone: what its tasks have to say is said to this one from now on. */
  resume?(): void;
  samples(): MetricSample[] | Promise<MetricSample[]>;
  /** What stands below its only child in another thread. */
  tree?(): Promise<readonly TreeNode[]>;
  /** After every task has ended. */
  close(): Promise<void>;
}

export class LocalPart implements RegionPart {
  readonly tasks: readonly Task[];
  readonly #byName: ReadonlyMap<string, Task>;
  readonly #answering = new StateAnswering();
  readonly #job: string;
  readonly #state: RegionState;
  readonly #bases: RegionBases | undefined;

  static async open(options: PartOptions): Promise<LocalPart> {
    const random = Math.floor(options.io.random() * 2 ** 32).toString(36);
    await options.io.step('restore.state.open');
    const state = await (options.backend as Backend).open({
      name: `${options.job}-${options.number}-${options.attempt}-${random}${options.elsewhere === undefined ? '' : SHARED_ATTEMPT}`,
      tracked: options.storage !== undefined,
    });
    try {
      return new LocalPart(options, state, `${options.number}-${random}`);
    } catch (error) {
      // Nobody else closes it: there is no attempt.
      await state
        .close()
        .catch((reason) => options.log.warn({ error: messageOf(reason) }, 'The state of a region that could not be built could not be closed.'));
      throw error;
    }
  }

  private constructor(options: PartOptions, state: RegionState, id: string) {
    this.#job = options.job;
    this.#state = state;
    const { attempt, storage, io, log, usedIds, metadata, elsewhere } = options;
    this.#bases = storage === undefined ? undefined : new RegionBases({ state, id, attempt, storage, io, log });
    const vertices = options.graph.vertices.filter((v) => v.region === options.number);
    const tasks = new Map<string, Task>();
    const wake = (vertex: Vertex, subtask: number) => {
      const name = nameOfTask(vertex, subtask);
      return (): void => tasks.get(name)?.wake();
    };
    const here = (vertex: Vertex, subtask: number): boolean => elsewhere?.here(vertex, subtask) ?? true;
    /** By edge, sender and place among its receivers; none where neither end is here. */
    const channels = new Map<Edge, (Channel | undefined)[][]>();
    for (const edge of vertices.flatMap(({ outputs }) => outputs)) {
      const between = (from: number, to: number): Channel | undefined => {
        const sends = here(edge.from, from);
        const takes = here(edge.to, to);
        if (sends && takes) return new Channel(wake(edge.from, from), wake(edge.to, to));
        if (sends) return elsewhere!.out(edge, from, to, wake(edge.from, from), (error) => tasks.get(nameOfTask(edge.from, from))?.fail(error));
        return takes ? elsewhere!.in(edge, from, to, wake(edge.to, to)) : undefined;
      };
      channels.set(
        edge,
        Array.from({ length: edge.from.parallelism }, (_, from) => targets(edge, from).map((to) => between(from, to))),
      );
    }
    for (const vertex of vertices) {
      const restored = metadata === undefined ? undefined : restoreVertex(vertex, metadata, options.maxParallelism);
      for (let subtask = 0; subtask < vertex.parallelism; subtask++) {
        if (!here(vertex, subtask)) continue;
        const name = nameOfTask(vertex, subtask);
        tasks.set(
          name,
          new Task({
            job: options.job,
            vertex,
            subtask,
            maxParallelism: options.maxParallelism,
            attempt,
            lineage: options.lineage,
            range: rangeOf(subtask, vertex.parallelism, options.maxParallelism),
            region: state,
            io,
            log: log.child?.({ job: options.job, task: name }) ?? log,
            metrics: options.metrics.of({ job: options.job, uid: vertex.id, subtask: String(subtask) }),
            storage,
            bases: this.#bases,
            blocking: options.blocking,
            watermarkEachBatch: options.watermarkEachBatch || (vertex.head.step.kind === 'source' && vertex.head.step.source.bounded),
            alignment: options.alignment,
            inputs: vertex.inputs.map((edge) => ({
              edge,
              channels: channels.get(edge)!.flatMap((row, from) => targets(edge, from).flatMap((to, k) => (to === subtask ? [row[k]!] : []))),
            })),
            outputs: vertex.outputs.map((edge) => ({ edge, channels: channels.get(edge)![subtask]!.map((channel) => channel!) })),
            operators: options.operators,
            restore: restored?.tasks[subtask],
            restoredId: metadata?.id ?? 0,
            usedIds: { after: usedIds.after ?? (metadata?.lineage === options.lineage ? 0 : usedIds.to), to: usedIds.to },
            lastCheckpoint: options.lastCheckpoint,
            tell: (instance, mail) => {
              const to = nameOfTask(vertex, instance);
              if (!this.tell(to, mail)) elsewhere!.tell(to, mail);
            },
            reports: { ...options.reports(name), deadLetter: options.onDeadLetter },
          }),
        );
      }
    }
    this.#byName = tasks;
    this.tasks = [...tasks.values()];
  }

  get children(): { id: string; start: Behaviour<never> }[] {
    return this.tasks.map((task) => ({ id: task.name, start: task.behaviour() as Behaviour<never> }));
  }

  tell(name: string, mail: TaskMail): boolean {
    const task = this.#byName.get(name);
    task?.ref.tell(mail);
    return task !== undefined;
  }

  ask(name: string, question: StateQuestion): Promise<AnswerTo<StateQuestion> | undefined> | undefined {
    const task = this.#byName.get(name);
    return task === undefined ? undefined : this.#answering.answer(task, question);
  }

  samples(): MetricSample[] {
    return this.tasks.flatMap((task) =>
      Object.entries(task.metrics()).flatMap(([name, value]) => (value === null ? [] : [{ name, labels: { job: this.#job, task: task.name }, value }])),
    );
  }

  async close(): Promise<void> {
    await this.#answering.close();
    try {
      await this.#bases?.close();
    } finally {
      await this.#state.close();
    }
  }
}
