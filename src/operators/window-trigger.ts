// A trigger at work: its context, its state and its timers for each key and window.
//
// Who owns what: this owns the trigger's state and the two tables of its timers. The window operator says which window is meant, takes the timers when they
// are due, and does what the trigger says.
//
// Invariants:
//  R1  Timers are unique by key, `timers` of the window, time and domain. Where windows merge the new one has other `timers`: those of the old find no window.
//  R2  The context is usable while one of the trigger's functions runs (protocols 10).

import { type BoundWindowKinds, bindWindowKinds, type Key, type StateSpec, type TimerTable } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import type { TriggerSpec, WindowBounds } from '../graph/node.ts';
import { rejectThenable } from '../runtime/handlers.ts';
import type { OperatorEnvironment } from '../runtime/operator.ts';

/** A window of a key: `id` names its state, `timers` its trigger's timers. */
export interface WindowOfKey {
  readonly bounds: WindowBounds;
  readonly id: number;
  readonly timers: number;
}

export interface Verdict {
  readonly fire: boolean;
  readonly purge: boolean;
}

const CONTINUE: Verdict = { fire: false, purge: false };
const VERDICTS: Readonly<Record<string, Verdict>> = {
  continue: CONTINUE,
  fire: { fire: true, purge: false },
  purge: { fire: false, purge: true },
  'fire-and-purge': { fire: true, purge: true },
};

export class RunningTrigger {
  readonly event: TimerTable;
  readonly processing: TimerTable;
  readonly kinds: BoundWindowKinds;
  readonly #trigger: TriggerSpec;
  readonly #uid: string;
  readonly #context: object;
  #key: Key = 0;
  #hash = 0;
  #window: WindowOfKey | undefined;

  constructor(environment: OperatorEnvironment, trigger: TriggerSpec) {
    const { uid } = environment;
    const state = environment.state();
    this.#trigger = trigger;
    this.#uid = uid;
    this.event = state.timers(uid, '.trigger-timers');
    this.processing = state.timers(uid, '.trigger-processing-timers');
    this.kinds = bindWindowKinds(state, uid, '.trigger.', trigger.state as StateSpec | undefined);
    const { handles } = this.kinds;
    const timers = { event: this.#domain(this.event, () => {}), processing: this.#domain(this.processing, environment.timersChanged) };
    const present = (): void => void this.#present();
    this.#context = {
      get watermark() {
        return environment.watermark();
      },
      get state() {
        present();
        return handles;
      },
      timers,
      now: environment.now,
    };
  }

  #present(): WindowOfKey {
    if (this.#window !== undefined) return this.#window;
    throw new MillraceError('CONTEXT_USED_OUTSIDE_RECORD', `The context of the trigger of '${this.#uid}' was used outside of the function it was given to.`, {
      uid: this.#uid,
      todo: 'Use it only while the function runs, and never after an await.',
    });
  }

  #domain(table: TimerTable, changed: () => void): object {
    const valid = (at: unknown): number => {
      if (typeof at === 'number' && !Number.isNaN(at)) return at;
      throw new MillraceError('TIMER_INVALID', `The trigger of '${this.#uid}' sets a timer at ${String(at)}.`, {
        uid: this.#uid,
        todo: 'A timer needs a time in epoch milliseconds; does the record have a timestamp?',
      });
    };
    return {
      set: (at: number): void => {
        if (table.set(valid(at), this.#key, this.#hash, this.#present().timers)) changed();
      },
      delete: (at: number): void => {
        table.delete(valid(at), this.#key, this.#hash, this.#present().timers);
      },
    };
  }

  #within<R>(key: Key, hash: number, window: WindowOfKey, run: (context: object) => R): R {
    this.#key = key;
    this.#hash = hash;
    this.#window = window;
    this.kinds.setCurrent(key, hash, window.id);
    try {
      return run(this.#context);
    } finally {
      this.#window = undefined;
      this.kinds.clearCurrent();
    }
  }

  #verdict(result: unknown): Verdict {
    rejectThenable(result, this.#uid);
    const verdict = typeof result === 'string' && Object.hasOwn(VERDICTS, result) ? VERDICTS[result] : undefined;
    if (verdict !== undefined) return verdict;
    throw new MillraceError('USER_FUNCTION_FAILED', `The trigger of '${this.#uid}' said ${String(result)}.`, {
      uid: this.#uid,
      todo: 'A trigger says continue, fire, purge or fire-and-purge.',
    });
  }

  onElement(value: unknown, timestamp: number, key: Key, hash: number, window: WindowOfKey): Verdict {
    return this.#verdict(this.#within(key, hash, window, (context) => this.#trigger.onElement(value, timestamp, window.bounds, context)));
  }
  onTimer(domain: 'event' | 'processing', time: number, key: Key, hash: number, window: WindowOfKey): Verdict {
    const handler = domain === 'event' ? this.#trigger.onEventTime : this.#trigger.onProcessingTime;
    if (handler === undefined) return CONTINUE;
    return this.#verdict(this.#within(key, hash, window, (context) => handler.call(this.#trigger, time, window.bounds, context)));
  }
  /** The windows `from`, in this order behind it, have become `window`. */
  onMerge(key: Key, hash: number, window: WindowOfKey, from: readonly number[]): void {
    this.kinds.merge(key, hash, window.id, from);
    rejectThenable(
      this.#within(key, hash, window, (context) => this.#trigger.onMerge!(window.bounds, context)),
      this.#uid,
    );
  }
  get clears(): boolean {
    return this.#trigger.onClear !== undefined;
  }
  onClear(key: Key, hash: number, window: WindowOfKey): void {
    const { onClear } = this.#trigger;
    if (onClear !== undefined)
      rejectThenable(
        this.#within(key, hash, window, (context) => onClear.call(this.#trigger, window.bounds, context)),
        this.#uid,
      );
  }
}
