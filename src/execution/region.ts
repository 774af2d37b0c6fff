// One attempt of a region, as the job sees it: which tasks it has, how far they are, and their supervisor. What runs the tasks are its parts (region-part.ts).

import { type Behaviour, type Supervising, supervisor } from '../../actors/index.ts';
import type { CoordinatedTask } from '../checkpoint/coordinator.ts';
import { restoreVertex } from '../checkpoint/restore.ts';
import type { MetricSample, TreeNode } from '../graph/job.ts';
import type { Graph } from '../graph/plan.ts';
import type { KnownSplits } from '../runtime/source-reader.ts';
import type { Task } from '../runtime/task.ts';
import type { TaskMail } from '../runtime/task-contract.ts';
import { LocalPart, type PartOptions, type RegionPart } from './region-part.ts';
import { type PlannedTask, tasksOfRegion } from './region-tasks.ts';
import type { AnswerTo, AskedTask, StateQuestion } from './state-questions.ts';

/** Of a job that another leader ran: what a region must be to be gone on with. */
export interface StandingQuestion {
  readonly graph: Graph;
  readonly lineage: string;
  /** By region, the attempt that was begun last. */
  readonly begun: ReadonlyMap<number, number>;
}

/** A region that goes on though its leader is gone. */
export interface StandingRegion {
  readonly attempt: number;
  readonly maxParallelism: number;
  /** By task: what its sinks found committed when it was opened. */
  readonly markers: ReadonlyMap<string, number>;
}

/** Where tasks run that do not run in this thread. */
export interface Hosts {
  parts(options: PartOptions): Promise<readonly RegionPart[]>;
  /** By number, regions that could be gone on with. Asked for once, before anything is opened; where it is not there, there are none. */
  standing?(question: StandingQuestion): Promise<ReadonlyMap<number, StandingRegion>>;
  /** Behind that: of these, the ones that are gone on with. Whatever else there was ends. */
  settle?(regions: ReadonlySet<number>): Promise<ReadonlySet<number>>;
  /** As `parts`, of a region that is gone on with. */
  kept?(options: PartOptions): readonly RegionPart[];
  /** Another one leads, and may go on with what runs. */
  letGo?(cause: Error): void;
  /** Whether that failure is the loss of a machine or of a network, for which no program is to blame. None is by default. */
  lost?(error: Error): boolean;
  /** Calls it with the id of each worker process that goes, for which no program is known to be to blame. Processes do not go by default. */
  onGone?(told: (worker: string) => void): void;
  /** How many worker processes there are that tasks can be placed on. */
  workers?(): number;
  /** The job ends: whoever waits for hosts is refused, and so is whoever asks for some. Parts that there are stay until they are closed. */
  cease?(): void;
  /** With the job. */
  close(): Promise<void>;
}

export interface RegionOptions extends PartOptions {
  /** Asked about each notice of a checkpoint's completion or abort: true where it gets lost. */
  readonly loses?: (() => boolean) | undefined;
  readonly hosts?: Hosts | undefined;
  /** It is gone on with. */
  readonly standing?: StandingRegion | undefined;
}

/** Longer than a task waits for its own calls to settle. */
export const SHUTDOWN_MS = 8000;

export class RegionAttempt {
  readonly number: number;
  readonly attempt: number;
  /** Of the checkpoint that it began from, 0 without one: up to it every sink has committed once its tasks are open. */
  readonly restoredId: number;
  readonly names: readonly string[];
  /** Those that run in this thread. */
  readonly tasks: readonly Task[];
  /** All of them, for questions about their state. */
  readonly asked: readonly AskedTask[];
  readonly markers: number[] = [];
  readonly finished = new Set<string>();
  readonly #planned: readonly PlannedTask[];
  readonly #parts: readonly RegionPart[];
  readonly #restored: ReadonlyMap<string, KnownSplits>;
  readonly #loses: () => boolean;
  readonly #opened = new Set<string>();
  readonly #isStanding: boolean;

  static async open(options: RegionOptions): Promise<RegionAttempt> {
    if (options.standing !== undefined) return new RegionAttempt(options, options.hosts!.kept!(options));
    return new RegionAttempt(options, options.hosts === undefined ? [await LocalPart.open(options)] : await options.hosts.parts(options));
  }

  private constructor(options: RegionOptions, parts: readonly RegionPart[]) {
    const { number, attempt, metadata, maxParallelism, loses, graph, standing } = options;
    this.#isStanding = standing !== undefined;
    this.number = number;
    this.attempt = attempt;
    this.restoredId = metadata?.id ?? 0;
    this.#planned = tasksOfRegion(graph, number);
    this.names = this.#planned.map(({ name }) => name);
    this.#parts = parts;
    for (const [task, marker] of standing?.markers ?? []) this.opened(task, marker);
    this.tasks = parts.flatMap(({ tasks }) => tasks);
    this.asked = this.#planned.map(({ name, vertex }) => ({ name, vertex, ask: (question) => this.#ask(name, question) }));
    this.#loses = loses ?? (() => false);
    const vertices = metadata === undefined ? [] : graph.vertices.filter(({ region }) => region === number);
    this.#restored = new Map(vertices.map((vertex) => [vertex.id, restoreVertex(vertex, metadata!, maxParallelism)]));
  }

  coordinated(): CoordinatedTask[] {
    return this.#planned.map(({ name, upstream }) => ({
      name,
      upstream,
      attempt: this.attempt,
      tell: (mail) => {
        // Triggers do not get lost, since a lost one is the same as a slow one.
        if ((mail.kind !== 'complete' && mail.kind !== 'abort') || !this.#loses()) this.#tell(name, mail);
      },
    }));
  }

  #tell(task: string, mail: TaskMail): void {
    this.#parts.find((part) => part.tell(task, mail));
  }

  async #ask<Q extends StateQuestion>(task: string, question: Q): Promise<AnswerTo<Q> | undefined> {
    for (const part of this.#parts) {
      const answer = part.ask(task, question);
      if (answer !== undefined) return (await answer) as AnswerTo<Q> | undefined;
    }
    return undefined;
  }

  /** one_for_all without a restart of its own: the first failure ends every task, and the job supervisor restores. */
  behaviour(): Behaviour<Supervising> {
    return supervisor({
      strategy: 'one-for-all',
      intensity: { max: 0, within: 1 },
      children: this.#parts.flatMap(({ children }) => children.map((child) => ({ ...child, restart: 'transient' as const, shutdown: SHUTDOWN_MS }))),
    });
  }

  /** True once every task has opened. */
  opened(task: string, marker: number): boolean {
    this.#opened.add(task);
    this.markers.push(marker);
    return this.isOpen;
  }

  get isOpen(): boolean {
    return this.#opened.size === this.#planned.length;
  }

  /** Of one that is gone on with: checkpoints that were under way, whose ids are all used, come to nothing, and of the newest there is its tasks may not have heard. */
  go({ usedId, completed }: { readonly usedId: number; readonly completed: number | undefined }): void {
    if (this.#isStanding) {
      for (const part of this.#parts) part.resume!();
      for (const { name } of this.#planned) {
        this.#tell(name, { kind: 'abort', id: usedId });
        if (completed !== undefined) this.#tell(name, { kind: 'complete', id: completed });
      }
      return;
    }
    for (const { name, vertex } of this.#planned) {
      const splits = this.#restored.get(vertex.id) ?? { known: new Set(), ended: new Map(), counts: new Array<number>(vertex.parallelism).fill(0) };
      this.#tell(name, { kind: 'go', splits });
    }
  }

  drain(): void {
    for (const { name } of this.#planned) if (!this.finished.has(name)) this.#tell(name, { kind: 'drain' });
  }

  async samples(): Promise<MetricSample[]> {
    return (await Promise.all(this.#parts.map((part) => part.samples()))).flat();
  }

  /** By the name of a supervisor's child: what stands below it in another thread. */
  async below(): Promise<ReadonlyMap<string, readonly TreeNode[]>> {
    const elsewhere = this.#parts.filter((part) => part.tree !== undefined);
    return new Map(await Promise.all(elsewhere.map(async (part) => [part.children[0]!.id, await part.tree!()] as const)));
  }

  /** After every task has ended. */
  async close(): Promise<void> {
    const closed = await Promise.allSettled(this.#parts.map((part) => part.close()));
    for (const each of closed) if (each.status === 'rejected') throw each.reason;
  }
}
