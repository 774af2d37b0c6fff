// What handlers of a process are given: where they run, the current record, state, timers, outputs.
//
// Who owns what: the operator says what runs now (`scope`, `visible`, the current key and timestamp); the context only answers, and refuses.
//
// Invariants:
//  U1  The context is usable only while a handler runs: outside of it every member that depends on a record throws CONTEXT_USED_OUTSIDE_RECORD (protocols 10).

import type { Current, TimerTable } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import type { Logger, Metrics } from '../graph/context.ts';
import type { Key } from '../graph/job.ts';
import { MAIN } from '../graph/node.ts';
import type { Emit, OperatorEnvironment } from '../runtime/operator.ts';

/** What runs: nothing, a handler of a record or a timer, one of the broadcast side, one that sees no record. */
export type Scope = 'outside' | 'record' | 'broadcast' | 'operator';

interface TimerDomain {
  set(at: number): void;
  delete(at: number): void;
}

export class ProcessContext {
  readonly uid: string;
  readonly subtask: number;
  readonly parallelism: number;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly timers: { readonly event: TimerDomain; readonly processing: TimerDomain };
  scope: Scope = 'outside';
  /** The state that what runs may use; undefined: none. */
  visible: object | undefined = undefined;
  currentTimestamp = Number.NaN;
  readonly #current: Current;
  readonly #keyed: boolean;
  readonly #environment: OperatorEnvironment;
  readonly #emit: Emit;
  readonly #sides = new Map<string, Emit | undefined>();

  constructor(environment: OperatorEnvironment, keyed: boolean, current: Current, tables: { event: TimerTable; processing: TimerTable } | undefined) {
    this.uid = environment.uid;
    this.subtask = environment.subtask;
    this.parallelism = environment.parallelism;
    this.log = environment.log;
    this.metrics = environment.metrics;
    this.#current = current;
    this.#keyed = keyed;
    this.#environment = environment;
    this.#emit = environment.output(MAIN)!;
    this.timers = {
      event: new KeyTimers(this, current, tables?.event, () => {}),
      processing: new KeyTimers(this, current, tables?.processing, () => environment.timersChanged()),
    };
  }

  get key(): Key {
    if (this.scope !== 'record' || !this.#keyed) throw outside(this);
    return this.#current.key;
  }
  get timestamp(): number {
    if (this.scope === 'outside') throw outside(this);
    return this.currentTimestamp;
  }
  get watermark(): number {
    return this.#environment.watermark();
  }
  get state(): object {
    if (this.visible === undefined) throw outside(this);
    return this.visible;
  }
  now(): number {
    return this.#environment.now();
  }
  random(): number {
    return this.#environment.random();
  }
  emit(value: unknown, timestamp: number = this.currentTimestamp): void {
    if (this.scope === 'outside') throw outside(this);
    this.#emit(value, timestamp);
  }
  side(output: { readonly name: string } | string, value: unknown, timestamp: number = this.currentTimestamp): void {
    if (this.scope === 'outside') throw outside(this);
    const name = typeof output === 'string' ? output : output.name;
    let emit = this.#sides.get(name);
    if (emit === undefined && !this.#sides.has(name)) {
      emit = name === MAIN ? undefined : this.#environment.output(name);
      this.#sides.set(name, emit);
    }
    if (emit !== undefined) emit(value, timestamp);
  }
}

/** The timers of the current key, in one domain. */
class KeyTimers implements TimerDomain {
  readonly #context: ProcessContext;
  readonly #current: Current;
  readonly #table: TimerTable | undefined;
  readonly #changed: () => void;

  constructor(context: ProcessContext, current: Current, table: TimerTable | undefined, changed: () => void) {
    this.#context = context;
    this.#current = current;
    this.#table = table;
    this.#changed = changed;
  }

  set(at: number): void {
    const table = this.#ready(at);
    const { next } = table;
    table.set(at, this.#current.key, this.#current.hash);
    if (table.next < next) this.#changed();
  }

  delete(at: number): void {
    this.#ready(at).delete(at, this.#current.key, this.#current.hash);
  }

  #ready(at: number): TimerTable {
    if (this.#table === undefined || this.#context.scope !== 'record') throw outside(this.#context);
    if (typeof at !== 'number' || Number.isNaN(at)) {
      const { uid } = this.#context;
      throw new MillraceError('TIMER_INVALID', `'${uid}' sets a timer at ${String(at)}.`, {
        uid,
        todo: 'A timer needs a time in epoch milliseconds; does the record have a timestamp?',
      });
    }
    return this.#table;
  }
}

function outside({ uid, scope }: ProcessContext): MillraceError {
  if (scope === 'broadcast' || scope === 'operator') {
    const who = scope === 'broadcast' ? `The broadcast side of '${uid}'` : `A handler of '${uid}' that sees no record`;
    return new MillraceError('CONTEXT_USED_OUTSIDE_RECORD', `${who} used a key, keyed state or timers, and has none.`, {
      uid,
      todo: 'Use them in the handlers of records and timers of the keyed side.',
    });
  }
  return new MillraceError('CONTEXT_USED_OUTSIDE_RECORD', `The context of '${uid}' was used outside of the handler it was given to.`, {
    uid,
    todo: 'Use ctx only while the handler runs and never after an await; unkeyed processes have no key and no timers.',
  });
}
