// An operator inside a vertex: an object with one required method and harmless defaults.
//
// Who calls what: the vertex's generated chain calls `process`; the task calls everything else, never while `process` runs.

import type { Key as StateKey, TaskState } from '../../state-backends/index.ts';
import type { Logger, Metrics } from '../graph/context.ts';
import type { Key } from '../graph/job.ts';
import type { Node } from '../graph/node.ts';
import type { StatePart } from './parts.ts';

export type Emit = (value: unknown, timestamp: number) => void;

/** What an input says of event time. */
export type TimeEvent = { readonly kind: 'watermark'; readonly time: number } | { readonly kind: 'idle' } | { readonly kind: 'active' };

/** Something that takes part in a unit beside the state. */
export interface Participant {
  mark(): void;
  rollback(): void;
}

export interface Operator {
  /** `key` and `hash` only at the head of a vertex behind a hash exchange. */
  process(value: unknown, timestamp: number, key: Key, hash: number): void;
  /** Of an operator with two inputs: a record of the right one. */
  processRight?(value: unknown, timestamp: number, key: Key, hash: number): void;
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
  /**
   * Only of a head that keeps event time in its own hands: it is told what the input says instead of the task, and passes on what is to go on with
   * `environment.time`. The watermark +∞ must go on in the end.
   */
  onTime?(event: TimeEvent): void;
  /** Every 200 ms of processing time, or after each batch where time is to be repeatable. Only of one that has `onTime`. */
  tick?(now: number): void;
  /** True: no more records now; looked at again after each `post`. Barriers and time that stand behind a record wait with it, others pass. */
  readonly blocked?: boolean;
  /** True: something is still to come of what it was given; the end of data waits for it. */
  readonly holding?: boolean;
  /** What of it is kept outside of keyed state, at a barrier; see `parts.ts`. Immutable from then on. */
  snapshot?(): Readonly<Record<string, StatePart>>;
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
  /**
   * Undefined where a callback that fails may be undone: each is a `unit` then. Else it runs many of them together; `subject` and `key` tell of the one
   * that runs, and are asked where it throws.
   */
  readonly together: ((run: () => void, subject: () => unknown, key: () => Key | undefined) => void) | undefined;
  /** Tell the task that a processing-time timer may be due earlier than it knows. */
  readonly timersChanged: () => void;
  /** What the operator keeps outside of its state and must undo with a unit. */
  readonly participate: (participant: Participant) => void;
  /** What the old instances' `snapshot` gave under that name, redistributed to this one; undefined where nothing was restored. */
  readonly restored: (name: string) => readonly unknown[] | undefined;
  /** Only of an operator that has `onTime`: this goes on. */
  readonly time: (event: TimeEvent) => void;
  /** Runs `fn` once the watermark that was passed on last has left, at once where none is on its way: what is emitted then stands behind it. */
  readonly afterTime: (fn: () => void) => void;
  /** Leave the loop over records after the one that runs: `blocked` may have changed. */
  readonly attention: () => void;
  /** Something that came from outside is to be worked on: runs `fn` in a turn of this attempt's task, as a handler's code. */
  readonly post: (fn: () => void) => void;
  /** Ends the task: an error of no record, or one whose policy has been asked. */
  readonly fail: (error: unknown) => void;
  /** Asks the policy of this operator about a record that failed outside of the chain: 'skipped' has made its dead letter; else the task ends. */
  readonly failed: (error: unknown, record: unknown, key: Key | undefined, timestamp: number) => void;
  readonly clock: { setTimeout(fn: () => void, ms: number): unknown; clearTimeout(handle: unknown): void };
  /** True where time is told after each batch, not by the clock. */
  readonly timeEachBatch: boolean;
  /** True where input waits, or what is emitted finds no room: that no record comes then says nothing about the input. */
  readonly backlog: () => boolean;
  /** Aborted when the attempt ends. */
  readonly signal: AbortSignal;
}

export type OperatorFactory = (environment: OperatorEnvironment) => Operator;

export type { StateKey };
