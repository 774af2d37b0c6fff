// Units: one input event of a vertex, kept or undone as a whole (protocols 15).
//
// What: `skip` undoes one record (or one timer, one watermark callback): state, timers, results, everything in the fused chain, and keeps a dead letter.
// `restart` needs no undo, since the region forgets everything; so a vertex whose policies are all `restart` has no units at all.
//
// Invariants:
//  T1  Inside a unit nothing is handed over, written to a sink or evicted.
//  T2  Only an error of user code can be skipped. A failure of the runtime fails the task, whether or not user code caught it.

import type { TaskState } from '../../state-backends/index.ts';
import { asError, codeOf, MillraceError, messageOf } from '../errors.ts';
import type { ErrorPolicy, Key } from '../graph/job.ts';
import { type Node, nameOf } from '../graph/node.ts';
import type { Units } from './chain.ts';
import type { Participant } from './operator.ts';

/** Ends the task and tells the job what to do about it. */
export class TaskFailure extends Error {
  readonly policy: Exclude<ErrorPolicy, 'skip'>;
  readonly error: MillraceError;

  constructor(policy: Exclude<ErrorPolicy, 'skip'>, error: MillraceError) {
    super(error.message, { cause: error });
    this.name = 'TaskFailure';
    this.policy = policy;
    this.error = error;
  }
}

/** Codes of `state-backends` that are the runtime's own failures. */
const RUNTIME_CODES = new Set(['STATE_IO', 'STATE_CLOSED', 'SNAPSHOT_CORRUPT']);

export function isRuntimeFailure(error: unknown): boolean {
  return error instanceof Error && RUNTIME_CODES.has((error as { code?: string }).code ?? '');
}

export class UnitRunner implements Units {
  readonly #nodes: readonly Node[];
  readonly #state: TaskState | undefined;
  readonly #participants: readonly Participant[];
  readonly #skipped: (node: Node, error: unknown, record: unknown, key: Key | undefined, timestamp: number) => void;
  readonly #attempt: number;
  readonly undoes: boolean;

  constructor(options: {
    nodes: readonly Node[];
    state: TaskState | undefined;
    participants: readonly Participant[];
    attempt: number;
    skipped: (node: Node, error: unknown, record: unknown, key: Key | undefined, timestamp: number) => void;
  }) {
    this.#nodes = options.nodes;
    this.#state = options.state;
    this.#participants = options.participants;
    this.#skipped = options.skipped;
    this.#attempt = options.attempt;
    this.undoes = needsUndo(options.nodes);
  }

  begin(): void {
    this.#state?.beginUnit();
    for (const participant of this.#participants) participant.mark();
  }

  commit(): void {
    this.#state?.commitUnit();
  }

  failed(error: unknown, at: number, record: unknown, key: Key | undefined, timestamp: number): void {
    const node = this.#nodes[at]!;
    const failure = this.failure(error, node, record, key);
    if (failure !== undefined && failure.policy !== 'stop') throw failure;
    this.#state?.rollbackUnit();
    for (const participant of this.#participants) participant.rollback();
    if (failure !== undefined) throw failure;
    this.#skipped(node, error, record, key, timestamp);
  }

  /** How the task ends because of `error`; undefined: it does not, the unit is skipped. */
  failure(error: unknown, node: Node, record: unknown, key: Key | undefined): TaskFailure | undefined {
    if (error instanceof TaskFailure) return error;
    const described = describe(error, node, key);
    if (isRuntimeFailure(error)) return new TaskFailure('restart', described);
    const policy = typeof node.onError === 'function' ? this.#ask(node.onError, error, node, record, key) : node.onError;
    return policy === 'skip' ? undefined : new TaskFailure(policy, described);
  }

  #ask(fn: Exclude<Node['onError'], ErrorPolicy>, error: unknown, node: Node, record: unknown, key: Key | undefined): ErrorPolicy {
    return fn(error, { uid: nameOf(node), record, attempt: this.#attempt, ...(key === undefined ? {} : { key }) });
  }
}

export function needsUndo(nodes: readonly Node[]): boolean {
  return nodes.some((node) => node.onError !== 'restart');
}

function describe(error: unknown, node: Node, key: Key | undefined): MillraceError {
  const uid = nameOf(node);
  if (error instanceof MillraceError) {
    if (error.uid !== undefined) return error;
    return new MillraceError(error.code, `In '${uid}': ${error.sentence}`, { uid, cause: error.cause ?? error, retryable: error.retryable, todo: error.todo });
  }
  const of = key === undefined ? '' : ` on key ${typeof key === 'bigint' ? `${key}n` : JSON.stringify(key, (_, v) => (typeof v === 'bigint' ? `${v}n` : v))}`;
  if (isRuntimeFailure(error))
    return new MillraceError(codeOf(error) ?? 'RUNTIME_FAILED', `The state of '${uid}' failed: ${messageOf(error)}.`, { uid, cause: error });
  const code = error instanceof Error && error.name === 'StateError' ? codeOf(error) : undefined;
  if (code !== undefined) return new MillraceError(code, `'${uid}' failed${of}: ${messageOf(error)}`, { uid, cause: error });
  return new MillraceError('USER_FUNCTION_FAILED', `'${uid}' failed${of}: ${messageOf(error)}.`, {
    uid,
    cause: asError(error),
    todo: "Mend the function, or keep such records as dead letters with onError('skip').",
  });
}
