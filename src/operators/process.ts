// The process operator: user handlers with state, timers and side outputs, keyed or not, with one input or two.
//
// Who owns what: keyed state and timers are tables of the task; operator state is in memory here and goes into snapshots as parts.
//
// Invariants:
//  U2  A handler that returns a promise fails its record with HANDLER_IS_ASYNC.
//  U3  Timers are unique by key, time and domain; a timer set for a time that is due already fires in the same pass.
//  U4  Beside a broadcast stream the broadcast side has no key, no keyed state and no timers, and alone may change broadcast maps.
//  U5  What expires is no timer of the user's: it is neither a unit nor seen by handlers.
//  U6  What expires by event time is removed behind the timers of a watermark and before that goes on: a snapshot has no more of it.

import { type AnyKind, bindKinds, bindOperatorKinds, Current, EventClock, type StateSpec, type TimerTable } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import type { Key } from '../graph/job.ts';
import type { ProcessSpec, Step } from '../graph/node.ts';
import { fresh } from '../runtime/fresh.ts';
import { rejectThenable } from '../runtime/handlers.ts';
import type { Operator, OperatorEnvironment } from '../runtime/operator.ts';
import { fireTimers } from '../runtime/timers.ts';
import { ProcessContext } from './process-context.ts';

type ProcessStep = Extract<Step, { readonly kind: 'process' }>;
type Handle = (value: unknown, timestamp: number, key: Key, hash: number) => void;

interface RecordDependencies {
  readonly context: ProcessContext;
  readonly current: Current;
  readonly spec: ProcessSpec;
  readonly reject: (result: unknown) => void;
}

// The per-record paths. Free of outside names: see fresh.ts.

const keyedRecords = {
  onRecord: ({ context, current, spec, reject }: RecordDependencies): Handle => {
    return (value, timestamp, key, hash) => {
      current.key = key;
      current.hash = hash;
      current.serial++;
      current.present = true;
      context.currentTimestamp = timestamp;
      const result = spec.onRecord!(value, context);
      if (result !== undefined) reject(result);
    };
  },
  onLeft: ({ context, current, spec, reject }: RecordDependencies): Handle => {
    return (value, timestamp, key, hash) => {
      current.key = key;
      current.hash = hash;
      current.serial++;
      current.present = true;
      context.currentTimestamp = timestamp;
      const result = spec.onLeft!(value, context);
      if (result !== undefined) reject(result);
    };
  },
  onRight: ({ context, current, spec, reject }: RecordDependencies): Handle => {
    return (value, timestamp, key, hash) => {
      current.key = key;
      current.hash = hash;
      current.serial++;
      current.present = true;
      context.currentTimestamp = timestamp;
      const result = spec.onRight!(value, context);
      if (result !== undefined) reject(result);
    };
  },
};

const plainRecords = {
  onRecord: ({ context, spec, reject }: RecordDependencies): Handle => {
    return (value, timestamp) => {
      context.currentTimestamp = timestamp;
      const result = spec.onRecord!(value, context);
      if (result !== undefined) reject(result);
    };
  },
  onLeft: ({ context, spec, reject }: RecordDependencies): Handle => {
    return (value, timestamp) => {
      context.currentTimestamp = timestamp;
      const result = spec.onLeft!(value, context);
      if (result !== undefined) reject(result);
    };
  },
  onRight: ({ context, spec, reject }: RecordDependencies): Handle => {
    return (value, timestamp) => {
      context.currentTimestamp = timestamp;
      const result = spec.onRight!(value, context);
      if (result !== undefined) reject(result);
    };
  },
};

class ProcessOperator implements Operator {
  readonly process: Handle;
  readonly processRight?: Handle;
  readonly #environment: OperatorEnvironment;
  readonly #spec: ProcessSpec;
  readonly #context: ProcessContext;
  readonly #current: Current;
  readonly #kinds: ReturnType<typeof bindKinds> | undefined;
  readonly #operatorKinds: ReturnType<typeof bindOperatorKinds>;
  readonly #event: TimerTable | undefined;
  readonly #processing: TimerTable | undefined;
  /** What state expires by that counts event time. */
  readonly #eventClock: EventClock;
  /** State that handlers of records see, and those that see none. */
  readonly #ofRecords: object;
  readonly #ofOperator: object | undefined;
  readonly snapshot?: Operator['snapshot'];
  // The timer that fires; fields and bound functions, since timers can be as many as records.
  #timer: { at: number; domain: 'event' | 'processing' } = { at: 0, domain: 'event' };
  #timerKey: Key = '';
  #timerHash = 0;

  constructor(environment: OperatorEnvironment, step: ProcessStep) {
    const { uid } = environment;
    const { spec, keyed } = step;
    const state = keyed ? environment.state() : undefined;
    const clock = { now: () => environment.now(), changed: () => environment.timersChanged() };
    const kinds = Object.entries(spec.state) as [string, AnyKind][];
    const besideBroadcast = step.inputs === 'broadcast';
    this.#environment = environment;
    this.#spec = spec;
    const eventClock = new EventClock(() => this.#context.currentTimestamp);
    eventClock.advance(environment.watermark());
    this.#eventClock = eventClock;
    const ofKeys = Object.fromEntries(kinds.filter(([, k]) => k.scope === 'keyed')) as StateSpec;
    this.#kinds = state === undefined ? undefined : bindKinds(state, uid, ofKeys, clock, eventClock);
    this.#operatorKinds = bindOperatorKinds(uid, spec.state as Record<string, AnyKind>, { clock, eventClock, restored: environment.restored });
    this.#current = this.#kinds?.current ?? new Current();
    this.#event = state?.timers(uid, '.timers');
    this.#processing = state?.timers(uid, '.processing-timers');
    const { handles, reading, broadcast } = this.#operatorKinds;
    this.#ofRecords = Object.freeze({ ...this.#kinds?.handles, ...(besideBroadcast ? reading : handles) });
    this.#ofOperator = keyed && !besideBroadcast ? undefined : this.#ofRecords;
    const tables = state === undefined ? undefined : { event: this.#event!, processing: this.#processing! };
    this.#context = new ProcessContext(environment, keyed, this.#current, tables);
    if (kinds.some(([, kind]) => kind.scope !== 'keyed')) {
      this.snapshot = () => this.#operatorKinds.snapshot();
      environment.participate({ mark: () => this.#operatorKinds.mark(), rollback: () => this.#operatorKinds.rollback() });
    }

    const dependencies = { context: this.#context, current: this.#current, spec, reject: (result: unknown) => this.#reject(result) };
    const make = (which: 'onRecord' | 'onLeft' | 'onRight', from: typeof keyedRecords): Handle =>
      fresh<RecordDependencies, Handle>(from[which], `process-${uid}-${which}`)(dependencies);
    const records = keyed ? keyedRecords : plainRecords;
    if (step.inputs === 'one') {
      this.process = make('onRecord', records);
      return;
    }
    this.process = make('onLeft', records);
    this.processRight = besideBroadcast ? this.#broadcasts(make('onRight', plainRecords), broadcastOnly(uid, kinds, broadcast)) : make('onRight', records);
  }

  #reject(result: unknown): void {
    rejectThenable(result, this.#context.uid);
  }

  /** The broadcast side: no key, and only broadcast maps (U4). */
  #broadcasts(handle: Handle, visible: object): Handle {
    const context = this.#context;
    return (value, timestamp, key, hash) => {
      const { scope, visible: before } = context;
      context.scope = 'broadcast';
      context.visible = visible;
      this.#kinds?.clearCurrent();
      try {
        handle(value, timestamp, key, hash);
      } finally {
        context.scope = scope;
        context.visible = before;
      }
    };
  }

  // ── what the task calls ──

  ahead(hashes: Int32Array, from: number, to: number): void {
    this.#kinds?.ahead(hashes, from, to);
  }

  enter(): void {
    this.#context.scope = 'record';
    this.#context.visible = this.#ofRecords;
    this.#operatorKinds.open = true;
  }

  leave(): void {
    this.#context.scope = 'outside';
    this.#context.visible = undefined;
    this.#operatorKinds.open = false;
    this.#kinds?.clearCurrent();
  }

  start(): void {
    if (this.#spec.onStart !== undefined)
      this.#withoutRecord(
        () => this.#spec.onStart!(this.#context),
        () => ({ handler: 'onStart' }),
      );
  }

  watermark(time: number): void {
    if (this.#spec.onWatermark !== undefined)
      this.#withoutRecord(
        () => this.#spec.onWatermark!(time, this.#context),
        () => ({ handler: 'onWatermark', time }),
      );
  }

  end(): void {
    if (this.#spec.onEnd !== undefined)
      this.#withoutRecord(
        () => this.#spec.onEnd!(this.#context),
        () => ({ handler: 'onEnd' }),
      );
  }

  stop(): void | Promise<void> {
    return this.#spec.onStop?.();
  }

  #withoutRecord(run: () => unknown, subject: () => unknown): void {
    const context = this.#context;
    const { scope, visible } = context;
    context.scope = 'operator';
    context.visible = this.#ofOperator;
    context.currentTimestamp = Number.NaN;
    this.#kinds?.clearCurrent();
    try {
      this.#environment.unit(() => this.#reject(run()), subject, undefined, Number.NaN);
    } finally {
      context.scope = scope;
      context.visible = visible;
    }
  }

  // ── timers ──

  advance(watermark: number, deadline: number): 'done' | 'more' | Promise<void> {
    const fired = this.#event === undefined ? 'done' : this.#fire(this.#event, 'event', watermark, deadline);
    if (fired !== 'done') return fired;
    this.#eventClock.advance(watermark);
    // Behind the end of time nobody asks any more.
    if (watermark === Number.POSITIVE_INFINITY) return 'done';
    this.#operatorKinds.expireEvent();
    return this.#kinds?.expireEvent(deadline) ?? 'done';
  }

  get nextProcessingTime(): number {
    const timers = this.#processing?.next ?? Number.POSITIVE_INFINITY;
    return Math.min(timers, this.#kinds?.nextExpiry ?? Number.POSITIVE_INFINITY, this.#operatorKinds.nextExpiry);
  }

  onProcessingTime(now: number, deadline: number): 'done' | 'more' | Promise<void> {
    this.#operatorKinds.expire(now);
    const expired = this.#kinds?.expire(now, deadline) ?? 'done';
    if (expired !== 'done' || this.#processing === undefined) return expired;
    return this.#fire(this.#processing, 'processing', now, deadline);
  }

  /** Timers that users have set and that have not fired. */
  *timers(): Iterable<{ key: Key; at: number; domain: 'event' | 'processing' }> {
    if (this.#event !== undefined) for (const { key, time } of this.#event.all()) yield { key, at: time, domain: 'event' };
    if (this.#processing !== undefined) for (const { key, time } of this.#processing.all()) yield { key, at: time, domain: 'processing' };
  }

  readonly #onTimer = (): void => {
    const current = this.#current;
    current.key = this.#timerKey;
    current.hash = this.#timerHash;
    current.serial++;
    current.present = true;
    this.#context.currentTimestamp = this.#timer.domain === 'event' ? this.#timer.at : Number.NaN;
    const result = this.#spec.onTimer!(this.#timer, this.#context);
    if (result !== undefined) this.#reject(result);
  };

  readonly #subject = (): unknown => ({ timer: this.#timer });

  #fire(table: TimerTable, domain: 'event' | 'processing', until: number, deadline: number): 'done' | 'more' | Promise<void> {
    return fireTimers(table, until, deadline, ({ time, key, hash }) => {
      if (this.#spec.onTimer === undefined) return;
      if (domain === 'event') this.#eventClock.advance(time);
      this.#timer = { at: time, domain };
      this.#timerKey = key;
      this.#timerHash = hash;
      this.#environment.unit(this.#onTimer, this.#subject, key, domain === 'event' ? time : Number.NaN);
    });
  }
}

export function processOperator(environment: OperatorEnvironment, step: ProcessStep): Operator {
  return new ProcessOperator(environment, step);
}

/** The state of the broadcast side: whatever is no broadcast map says so when it is used. */
function broadcastOnly(uid: string, kinds: readonly [string, AnyKind][], handles: Readonly<Record<string, unknown>>): object {
  const visible: Record<string, unknown> = { ...handles };
  for (const [name, kind] of kinds) {
    if (kind.scope === 'broadcast') continue;
    visible[name] = new Proxy(
      {},
      {
        get() {
          throw new MillraceError('STATE_MISUSED', `The broadcast side of '${uid}' used the state ${name}, which is no broadcast map.`, {
            uid,
            todo: 'Use it in onLeft: the broadcast side runs in every instance, without a key.',
          });
        },
      },
    );
  }
  return Object.freeze(visible);
}
