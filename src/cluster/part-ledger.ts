// What another leader has to know of a part to go on with it: kept by its host of what passes between the part and its leader (protocols 17, step 6).
//
// Invariants:
//  B1  A part is whole where every task of it was told to begin, none was told to stop or to drain, and none has failed. Any other is not gone on with: what a leader that is gone
//      had wanted of it is not known.
//  B2  What a task has said once and says no more is said again to the new leader: that it has seen its last record, and, of one that has finished, what it acknowledged last.
//      Acknowledgements and commits of the others are not: what was under way is aborted, and what is registered is announced anew.

import type { TaskMail } from '../runtime/task-contract.ts';
import type { HostMail, ReportName } from './host-mail.ts';

type Report = Extract<HostMail, { readonly kind: 'report' }>;

export class PartLedger {
  /** By task: what its sinks found committed when it was opened. */
  readonly markers = new Map<string, number>();
  readonly #part: string;
  readonly #tasks: readonly string[];
  readonly #gone = new Set<string>();
  readonly #ended = new Set<string>();
  readonly #finished = new Set<string>();
  readonly #acknowledged = new Map<string, readonly unknown[]>();
  #broken = false;

  constructor(part: string, tasks: readonly string[]) {
    this.#part = part;
    this.#tasks = tasks;
  }

  /** By its leader. */
  told(task: string, mail: TaskMail): void {
    if (mail.kind === 'go') this.#gone.add(task);
    else if (mail.kind === 'drain' || (mail.kind === 'trigger' && mail.barrier.stop)) this.#broken = true;
  }

  /** By a task of it. */
  said(task: string, report: ReportName, args: readonly unknown[]): void {
    switch (report) {
      case 'opened':
        this.markers.set(task, (args[0] as { readonly marker: number }).marker);
        break;
      case 'ack':
        this.#acknowledged.set(task, args);
        break;
      case 'ended':
        this.#ended.add(task);
        break;
      case 'finished':
        this.#finished.add(task);
        break;
      case 'failed':
      case 'stopped':
        this.#broken = true;
    }
  }

  /** That task was told to begin. */
  began(task: string): boolean {
    return this.#gone.has(task);
  }

  /** It ends, or cannot go on. */
  broken(): void {
    this.#broken = true;
  }

  /** B1. */
  get whole(): boolean {
    return !this.#broken && this.#tasks.every((task) => this.#gone.has(task));
  }

  /** B2. */
  again(): readonly Report[] {
    const report = (task: string, name: ReportName, args: readonly unknown[] = []): Report => ({ kind: 'report', part: this.#part, task, report: name, args });
    return this.#tasks.flatMap((task) => {
      const last = this.#acknowledged.get(task);
      return [
        ...(this.#ended.has(task) ? [report(task, 'ended')] : []),
        ...(this.#finished.has(task) ? [...(last === undefined ? [] : [report(task, 'ack', last)]), report(task, 'finished')] : []),
      ];
    });
  }
}
