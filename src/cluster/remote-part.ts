// What another host runs of a region's attempt, as the leader sees it: one child of the region's supervisor, which lives as long as the tasks over there.
//
// Invariants:
//  P1  Whoever waits for something of a part is answered: by its host, or by the loss of that. Its close is waited for no longer than CLOSE_MS: a disk may never answer, and
//      the job is to end all the same.
//  P2  A part that ends without being asked fails its child, and so the region.
//  P3  What breaks a part is told to the region once, whenever it comes: to whoever opens it, when its child starts, or at once.

import { type Behaviour, defineActor } from '../../actors/index.ts';
import { asError, MillraceError } from '../errors.ts';
import type { PartOptions, RegionPart } from '../execution/region-part.ts';
import type { AnswerTo, StateQuestion } from '../execution/state-questions.ts';
import type { MetricSample, TreeNode } from '../graph/job.ts';
import type { TaskMail } from '../runtime/task-contract.ts';
import { TaskFailure } from '../runtime/units.ts';
import { type ErrorData, errorOf, type HostMail, type LeaderMail, type PartRequest } from './host-mail.ts';

/** What a part uses of its host. */
export interface PartHost {
  readonly name: string;
  tell(mail: LeaderMail): void;
  ask(what: 'metrics' | 'tree'): Promise<readonly MetricSample[] | readonly TreeNode[]>;
  look(part: string, task: string, question: StateQuestion): Promise<AnswerTo<StateQuestion> | undefined>;
  /** That part is closed, or was never opened. */
  forget(part: RemotePart): void;
}

const CLOSE_MS = 15_000;

/** Answers that a part waits for. */
type Awaited = 'opened' | 'stopped' | 'closed';

export class RemotePart implements RegionPart {
  readonly name: string;
  readonly tasks = [];
  readonly #host: PartHost;
  readonly #request: PartRequest;
  readonly #number: number;
  readonly #options: PartOptions;
  readonly #isRunning: boolean;
  readonly #waiting = new Map<Awaited, { resolve(): void; reject(error: Error): void }>();
  #ended: (() => void) | undefined;
  #over = false;
  #lost: MillraceError | undefined;
  /** P3. */
  #broken: MillraceError | undefined;

  /** `isRunning`: it was opened and started by a leader that is gone, and is resumed. */
  constructor(host: PartHost, number: number, request: PartRequest, options: PartOptions, { isRunning = false }: { readonly isRunning?: boolean } = {}) {
    this.name = `${request.region}/${request.attempt}`;
    this.#host = host;
    this.#number = number;
    this.#request = request;
    this.#options = options;
    this.#isRunning = isRunning;
  }

  /** Rejects where it cannot be. */
  async open(): Promise<void> {
    const opened = this.#until('opened');
    this.#host.tell({ kind: 'open', part: this.name, request: this.#request });
    try {
      await opened;
    } catch (error) {
      this.#host.forget(this);
      throw error;
    }
    if (this.#broken === undefined) return;
    await this.close();
    throw this.#broken;
  }

  get children(): { id: string; start: Behaviour<never> }[] {
    const start = defineActor<'ended'>((context) => {
      // P2. Its task has said why, as far as it could.
      this.#ended = () => context.self.tell('ended');
      if (!this.#isRunning) this.#host.tell({ kind: 'start', part: this.name });
      if (this.#broken !== undefined) this.#tellFailure(this.#broken);
      if (this.#lost !== undefined) this.#ended();
      return {
        receive: () => {
          throw this.#lost ?? new MillraceError('RUNTIME_FAILED', `What ${this.#host.name} ran of the job '${this.#options.job}' has ended.`);
        },
        stopping: () => this.#stop(),
      };
    });
    return [{ id: this.#host.name, start: start as Behaviour<never> }];
  }

  /** Its tasks speak to this leader from now on. */
  resume(): void {
    this.#host.tell({ kind: 'resume', part: this.name });
  }

  async #stop(): Promise<void> {
    this.#ended = undefined;
    if (this.#over) return;
    const stopped = this.#until('stopped');
    this.#host.tell({ kind: 'stop', part: this.name });
    await stopped;
  }

  tell(task: string, mail: TaskMail): boolean {
    if (this.#request.placement.get(task) !== this.#number) return false;
    this.#host.tell({ kind: 'mail', part: this.name, task, mail });
    return true;
  }

  ask(task: string, question: StateQuestion): Promise<AnswerTo<StateQuestion> | undefined> | undefined {
    return this.#request.placement.get(task) === this.#number ? this.#host.look(this.name, task, question) : undefined;
  }

  // Figures are of the whole host, which has parts of other regions too, and has had tasks that are elsewhere by now: whose they are stands in their labels.
  async samples(): Promise<MetricSample[]> {
    const samples = (await this.#host.ask('metrics')) as readonly MetricSample[];
    return samples.filter(({ labels: { task, uid, subtask } }) => {
      // Those of user code name the vertex and the instance.
      const name = task ?? (uid === undefined || subtask === undefined ? undefined : `${uid}-${subtask}`);
      return name === undefined || this.#request.placement.get(name) === this.#number;
    });
  }

  async tree(): Promise<readonly TreeNode[]> {
    const parts = (await this.#host.ask('tree')) as readonly TreeNode[];
    return parts.find(({ name }) => name === this.name.replace('/', '-'))?.children ?? [];
  }

  async close(): Promise<void> {
    if (this.#lost === undefined) {
      const { io, log } = this.#options;
      const closed = this.#until('closed');
      const late = io.clock.setTimeout(
        () => this.#settle('closed', new Error(`${this.#host.name} has not closed what it ran of region ${this.name} within ${CLOSE_MS / 1000} s`)),
        CLOSE_MS,
      );
      this.#host.tell({ kind: 'close', part: this.name });
      await closed.catch((error) => log.warn({ error: asError(error).message }, 'State could not be closed.'));
      io.clock.clearTimeout(late);
    }
    this.#host.forget(this);
  }

  /** What its host says of it. */
  heard(mail: Exclude<HostMail, { kind: 'answer' | 'shown' | 'log' | 'unlinked' }>): void {
    switch (mail.kind) {
      case 'opened':
        this.#settle('opened');
        break;
      case 'refused':
        this.#settle('opened', errorOf(mail.error));
        break;
      case 'stopped':
        this.#over = true;
        this.#settle('stopped');
        this.#ended?.();
        break;
      case 'closed':
        this.#settle('closed', mail.error === undefined ? undefined : errorOf(mail.error));
        break;
      case 'letter':
        this.#options.onDeadLetter(mail.letter);
        break;
      case 'report': {
        const reports = this.#options.reports(mail.task) as unknown as Record<string, (...args: readonly unknown[]) => void>;
        const error = mail.report === 'declined' || mail.report === 'failed' || mail.report === 'stopped';
        reports[mail.report]!(...(error ? [...mail.args.slice(0, -1), errorOf(mail.args.at(-1) as ErrorData)] : mail.args));
      }
    }
  }

  /** P1. */
  hostLost(error: MillraceError): void {
    this.#lost = error;
    this.#over = true;
    const ended = this.#ended;
    this.#settle('opened', error);
    this.#settle('stopped');
    this.#settle('closed');
    this.fail(error);
    ended?.();
  }

  /** Whether it has tasks at the host of that number too. */
  spans(host: number): boolean {
    for (const each of this.#request.placement.values()) if (each === host) return true;
    return false;
  }

  /** P3. Its tasks cannot go on, and may not know it. */
  fail(error: MillraceError): void {
    if (this.#broken !== undefined) return;
    this.#broken = error;
    if (this.#ended !== undefined) this.#tellFailure(error);
  }

  #tellFailure(error: MillraceError): void {
    const [task] = [...this.#request.placement].find(([, host]) => host === this.#number) ?? [''];
    this.#options.reports(task).failed(new TaskFailure('restart', error));
  }

  #until(answer: Awaited): Promise<void> {
    if (this.#lost !== undefined) return answer === 'opened' ? Promise.reject(this.#lost) : Promise.resolve();
    return new Promise((resolve, reject) => this.#waiting.set(answer, { resolve, reject }));
  }

  #settle(answer: Awaited, error?: Error): void {
    const waiting = this.#waiting.get(answer);
    this.#waiting.delete(answer);
    if (error === undefined) waiting?.resolve();
    else waiting?.reject(error);
  }
}
