// An operator inside a vertex: an object with one required method and harmless defaults.
//
// Who calls what: the vertex's generated chain calls `process`; the task calls everything else, never while `process` runs.

import type { Key as StateKey, TaskState } from '../../state-backends/index.ts';
import type { Logger, Metrics } from '../graph/context.ts';
import type { Key } from '../graph/job.ts';
import type { Node } from '../graph/node.ts';

export type Emit = (value: unknown, timestamp: number) => void;

export interface Operator {
  /** `key` and `hash` only at the head of a vertex behind a hash exchange. */
  process(value: unknown, timestamp: number, key: Key, hash: number): void;
  /** A hint: records with these hashes come next. Only at the head of a vertex behind a hash exchange. */
  ahead?(hashes: Int32Array, from: number, to: number): void;
  /** Before and after a slice of work: outside of it, contexts that users hold throw CONTEXT_USED_OUTSIDE_RECORD. */
  enter?(): void;
  leave?(): void;
  /** Once, when the task begins to run; restored or not. */
  start?(): void;
  /** Event-time timers up to `watermark`; 'more' where `deadline` (performance.now()) came first; a promise where timers must be read from disk. */
  advance?(watermark: number, deadline: number): 'done' | 'more' | Promise<void>;
  /** After all timers up to it have fired. */
  watermark?(time: number): void;
  /** Processing time of the earliest timer, Infinity where there is none. */
  readonly nextProcessingTime?: number;
  onProcessingTime?(now: number, deadline: number): 'done' | 'more' | Promise<void>;
  /** After the last record and the final watermark. */
  end?(): void;
  stop?(): void | Promise<void>;
  /** What this operator counts, for metrics. */
  readonly counts?: Readonly<Record<string, number>>;
}

/** What the runtime hands to the code that builds an operator. */
export interface OperatorEnvironment {
  readonly node: Node;
  readonly uid: string;
  readonly subtask: number;
  readonly parallelism: number;
  /** Of the vertex; only keyed operators may ask for it. */
  readonly state: () => TaskState;
  /** The output of that name; MAIN is the ordinary one. A name that nobody reads gives undefined. */
  readonly output: (name: string) => Emit | undefined;
  /** Current event time of the task. */
  readonly watermark: () => number;
  /** Processing time; never goes back. */
  readonly now: () => number;
  readonly random: () => number;
  readonly log: Logger;
  readonly metrics: Metrics;
  /**
   * Runs one timer or other callback as a unit (protocols 15). `subject` is what a dead letter of it names. False: it failed and was undone (`skip`).
   */
  readonly unit: (run: () => void, subject: () => unknown, key: Key | undefined, timestamp: number) => boolean;
  /** Tell the task that a processing-time timer may be due earlier than it knows. */
  readonly timersChanged: () => void;
}

export type OperatorFactory = (environment: OperatorEnvironment) => Operator;

export type { StateKey };
