// The process operator: user handlers with state, timers and side outputs, keyed or not.
//
// Invariants:
//  U1  The context is usable only while a handler runs: outside of it every member that depends on a record throws CONTEXT_USED_OUTSIDE_RECORD (protocols 10).
//  U2  A handler that returns a promise fails its record with HANDLER_IS_ASYNC.
//  U3  Timers are unique by key, time and domain; a timer set for a time that is due already fires in the same pass.

import { bindKinds, type StateSpec, type TimerTable } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import type { Logger, Metrics } from '../graph/context.ts';
import type { Key } from '../graph/job.ts';
import { MAIN, type ProcessSpec } from '../graph/node.ts';
import { fresh } from '../runtime/fresh.ts';
import { rejectThenable } from '../runtime/handlers.ts';
import type { Emit, Operator, OperatorEnvironment } from '../runtime/operator.ts';
import { fireTimers } from '../runtime/timers.ts';

type Scope = 'outside' | 'operator' | 'record';

class ProcessContext {
  readonly uid: string;
  readonly subtask: number;
  readonly parallelism: number;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly timers: { readonly event: TimerDomain; readonly processing: TimerDomain };
  readonly #environment: OperatorEnvironment;
  readonly #handles: object;
  readonly #emit: Emit | undefined;
  readonly #sides = new Map<string, Emit | undefined>();
  readonly #keyed: boolean;
  scope: Scope = 'outside';
  currentKey: Key = '';
  currentTimestamp = Number.NaN;

  constructor(environment: OperatorEnvironment, handles: object, keyed: boolean, timers: { event: TimerDomain; processing: TimerDomain }) {
    this.uid = environment.uid;
    this.subtask = environment.subtask;
    this.parallelism = environment.parallelism;
    this.log = environment.log;
    this.metrics = environment.metrics;
    this.timers = timers;
    this.#environment = environment;
    this.#handles = handles;
    this.#emit = environment.output(MAIN);
    this.#keyed = keyed;
  }

  get key(): Key {
    if (!this.#keyed || this.scope !== 'record') throw outside(this.uid);
    return this.currentKey;
  }
  get timestamp(): number {
    if (this.scope === 'outside') throw outside(this.uid);
    return this.currentTimestamp;
  }
  get watermark(): number {
    return this.#environment.watermark();
  }
  get state(): object {
    if (this.scope === 'outside' || (this.#keyed && this.scope !== 'record')) throw outside(this.uid);
    return this.#handles;
  }
  now(): number {
    return this.#environment.now();
  }
  random(): number {
    return this.#environment.random();
  }
  emit(value: unknown, timestamp: number = this.currentTimestamp): void {
    if (this.scope === 'outside') throw outside(this.uid);
    this.#emit!(value, timestamp);
  }
  side(output: { readonly name: string } | string, value: unknown, timestamp: number = this.currentTimestamp): void {
    if (this.scope === 'outside') throw outside(this.uid);
    const name = typeof output === 'string' ? output : output.name;
    if (!this.#sides.has(name)) this.#sides.set(name, this.#environment.output(name));
    this.#sides.get(name)?.(value, timestamp);
  }
}

interface TimerDomain {
  set(at: number): void;
  delete(at: number): void;
}

interface RecordDependencies {
  readonly context: ProcessContext;
  readonly onRecord: (value: unknown, context: unknown) => unknown;
  readonly setCurrent: (key: Key, hash: number) => void;
  readonly reject: (result: unknown) => void;
}

/** Free of outside names: see fresh.ts. */
const recording = ({ context, onRecord, setCurrent, reject }: RecordDependencies) => {
  return (value: unknown, timestamp: number, key: Key, hash: number): void => {
    setCurrent(key, hash);
    context.currentKey = key;
    context.currentTimestamp = timestamp;
    const result = onRecord(value, context);
    if (result !== undefined) reject(result);
  };
};

export function processOperator(environment: OperatorEnvironment, spec: ProcessSpec, keyed: boolean): Operator {
  const { uid } = environment;
  const state = keyed ? environment.state() : undefined;
  const kinds = state === undefined ? undefined : bindKinds(state, uid, spec.state as StateSpec);
  const event = state?.timers(uid, 'timers');
  const processing = state?.timers(uid, 'processing-timers');
  let currentHash = 0;
  const setCurrent = (key: Key, hash: number): void => {
    currentHash = hash;
    kinds?.setCurrent(key, hash);
  };
  const reject = (result: unknown): void => rejectThenable(result, uid);

  const domain = (table: TimerTable | undefined, changed: () => void): TimerDomain => {
    const valid = (at: number): number => {
      if (table === undefined || context.scope !== 'record') throw outside(uid);
      if (typeof at !== 'number' || Number.isNaN(at))
        throw new MillraceError('TIMER_INVALID', `'${uid}' sets a timer at ${String(at)}.`, {
          uid,
          todo: 'A timer needs a time in epoch milliseconds; does the record have a timestamp?',
        });
      return at;
    };
    return {
      set(at) {
        table!.set(valid(at), context.currentKey, currentHash);
        changed();
      },
      delete(at) {
        table!.delete(valid(at), context.currentKey, currentHash);
      },
    };
  };
  const guarded = (table: TimerTable | undefined, changed: () => void): TimerDomain => {
    const inner = domain(table, changed);
    if (table !== undefined) return inner;
    return {
      set: () => {
        throw outside(uid);
      },
      delete: () => {
        throw outside(uid);
      },
    };
  };
  const context: ProcessContext = new ProcessContext(environment, kinds?.handles ?? {}, keyed, {
    event: guarded(event, () => {}),
    processing: guarded(processing, () => environment.timersChanged()),
  });

  const record = fresh<RecordDependencies, Operator['process']>(
    recording,
    `process-${uid}`,
  )({ context, onRecord: (value, ctx) => spec.onRecord!(value, ctx), setCurrent, reject });
  const fire = (table: TimerTable, domainName: 'event' | 'processing', until: number, deadline: number): 'done' | 'more' | Promise<void> =>
    fireTimers(table, until, deadline, ({ time, key, hash }) => {
      if (spec.onTimer === undefined) return;
      const timer = { at: time, domain: domainName };
      const timestamp = domainName === 'event' ? time : Number.NaN;
      environment.unit(
        () => {
          setCurrent(key, hash);
          context.scope = 'record';
          context.currentKey = key;
          context.currentTimestamp = timestamp;
          reject(spec.onTimer!(timer, context));
        },
        () => ({ timer }),
        key,
        timestamp,
      );
    });
  const outsideRecord = (run: () => unknown, subject: () => unknown): void => {
    const before = context.scope;
    context.scope = 'operator';
    context.currentTimestamp = Number.NaN;
    kinds?.clearCurrent();
    try {
      environment.unit(() => reject(run()), subject, undefined, Number.NaN);
    } finally {
      context.scope = before;
    }
  };

  return {
    process: record,
    enter() {
      context.scope = 'record';
    },
    leave() {
      context.scope = 'outside';
      kinds?.clearCurrent();
    },
    start() {
      if (spec.onStart !== undefined)
        outsideRecord(
          () => spec.onStart!(context),
          () => ({ handler: 'onStart' }),
        );
    },
    advance(watermark, deadline) {
      return event === undefined ? 'done' : fire(event, 'event', watermark, deadline);
    },
    watermark(time) {
      if (spec.onWatermark !== undefined)
        outsideRecord(
          () => spec.onWatermark!(time, context),
          () => ({ handler: 'onWatermark', time }),
        );
    },
    get nextProcessingTime() {
      return processing?.next ?? Number.POSITIVE_INFINITY;
    },
    onProcessingTime(now, deadline) {
      return processing === undefined ? 'done' : fire(processing, 'processing', now, deadline);
    },
    end() {
      if (spec.onEnd !== undefined)
        outsideRecord(
          () => spec.onEnd!(context),
          () => ({ handler: 'onEnd' }),
        );
    },
    stop() {
      return spec.onStop?.();
    },
  };
}

function outside(uid: string): MillraceError {
  return new MillraceError('CONTEXT_USED_OUTSIDE_RECORD', `The context of '${uid}' was used outside of the handler it was given to.`, {
    uid,
    todo: 'Use ctx only while the handler runs and never after an await; unkeyed processes have no key and no timers.',
  });
}
