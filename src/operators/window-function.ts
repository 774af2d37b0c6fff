// What a program makes of the records of a window: an aggregate (where an evictor needs the records), a process, a join, a group of two inputs.
//
// Invariants:
//  F1  All results of a window carry the timestamp end − 1.
//  F2  The context of a process is usable while its function runs, until its last result was taken (protocols 10).

import { type BoundKinds, type BoundWindowKinds, bindKinds, bindWindowKinds, copy, EventClock, type Key, type StateSpec } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import type { Logger, Metrics } from '../graph/context.ts';
import type { WindowBounds, WindowFunction, WindowSpec } from '../graph/node.ts';
import { rejectThenable } from '../runtime/handlers.ts';
import type { Emit, OperatorEnvironment } from '../runtime/operator.ts';
import { isKept } from './aggregates.ts';
import type { WindowCall } from './window-contents.ts';

/** A window's function, and what it keeps itself. */
export interface Called {
  readonly call: WindowCall;
  /** The program's `onClear`; undefined where there is none. */
  readonly onClear: ((key: Key, hash: number, id: number, window: WindowBounds) => void) | undefined;
  /** State of the key, which may expire. */
  readonly kinds: BoundKinds | undefined;
  /** What of it expires by event time is counted by that. */
  readonly eventClock: EventClock;
  /** State of each window. */
  readonly windowKinds: BoundWindowKinds | undefined;
}

/** `timestamp`: of the record that is added; NaN while there is none. */
export function windowFunction(environment: OperatorEnvironment, { makes, all }: WindowSpec, emit: Emit, timestamp: () => number): Called {
  const eventClock = new EventClock(timestamp);
  eventClock.advance(environment.watermark());
  const without = (call: WindowCall): Called => ({ call, onClear: undefined, kinds: undefined, eventClock, windowKinds: undefined });
  const { uid } = environment;
  switch (makes.kind) {
    case 'aggregate': {
      const { fn } = makes;
      return without((values, _right, key, _hash, _id, { start, end }) => {
        let held = fn.create();
        for (const value of values) held = fn.add(held, value);
        const result = fn.result(held);
        rejectThenable(result, uid);
        // A reducer's result may be a record itself, which stays in the window.
        const value = typeof result === 'object' && result !== null && result === held && !isKept(fn) ? copy(result) : result;
        emit({ key: all ? null : key, start, end, value }, end - 1);
      });
    }
    case 'join': {
      const { fn } = makes;
      return without((left, right, _key, _hash, _id, window) => {
        for (const l of left) {
          for (const r of right) {
            const result = fn(l, r, window);
            rejectThenable(result, uid);
            emit(result, window.end - 1);
          }
        }
      });
    }
    case 'coGroup': {
      const { fn } = makes;
      return without((left, right, key, _hash, _id, window) => {
        const results = fn(key, left as unknown[], right as unknown[], window);
        rejectThenable(results, uid);
        for (const result of results as Iterable<unknown>) emit(result, window.end - 1);
      });
    }
    case 'process':
      return processing(environment, makes, emit, all, eventClock);
  }
}

function processing(
  environment: OperatorEnvironment,
  makes: Extract<WindowFunction, { kind: 'process' }>,
  emit: Emit,
  all: boolean,
  eventClock: EventClock,
): Called {
  const { uid } = environment;
  const clock = { now: environment.now, changed: environment.timersChanged };
  const kinds = bindKinds(environment.state(), uid, makes.state as StateSpec, clock, eventClock);
  const windowKinds = bindWindowKinds(environment.state(), uid, '.window.', makes.windowState as StateSpec);
  const context = new WindowContext(environment, kinds.handles, windowKinds.handles);
  const within = (key: Key, hash: number, id: number, window: WindowBounds, run: () => void): void => {
    kinds.setCurrent(key, hash);
    windowKinds.setCurrent(key, hash, id);
    context.open(all ? null : key, window);
    try {
      run();
    } finally {
      context.close();
      windowKinds.clearCurrent();
      kinds.clearCurrent();
    }
  };
  const { onFire, onClear } = makes;
  return {
    call(values, _right, key, hash, id, window) {
      within(key, hash, id, window, () => {
        const results = onFire(context, values);
        rejectThenable(results, uid);
        for (const result of results as Iterable<unknown>) emit(result, window.end - 1);
      });
    },
    onClear: onClear === undefined ? undefined : (key, hash, id, window) => within(key, hash, id, window, () => rejectThenable(onClear(context), uid)),
    kinds,
    eventClock,
    windowKinds,
  };
}

class WindowContext {
  readonly uid: string;
  readonly subtask: number;
  readonly parallelism: number;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly #environment: OperatorEnvironment;
  readonly #handles: object;
  readonly #windowHandles: object;
  readonly #sides = new Map<string, Emit | undefined>();
  #key: Key | null = null;
  #window: WindowBounds | undefined;

  constructor(environment: OperatorEnvironment, handles: object, windowHandles: object) {
    this.uid = environment.uid;
    this.subtask = environment.subtask;
    this.parallelism = environment.parallelism;
    this.log = environment.log;
    this.metrics = environment.metrics;
    this.#environment = environment;
    this.#handles = handles;
    this.#windowHandles = windowHandles;
  }

  open(key: Key | null, window: WindowBounds): void {
    this.#key = key;
    this.#window = window;
  }
  close(): void {
    this.#window = undefined;
  }
  #present(): WindowBounds {
    if (this.#window !== undefined) return this.#window;
    throw new MillraceError('CONTEXT_USED_OUTSIDE_RECORD', `The context of the window '${this.uid}' was used outside of the function it was given to.`, {
      uid: this.uid,
      todo: 'Use it only while the function runs, and never after an await.',
    });
  }

  get key(): Key | null {
    this.#present();
    return this.#key;
  }
  get start(): number {
    return this.#present().start;
  }
  get end(): number {
    return this.#present().end;
  }
  get watermark(): number {
    return this.#environment.watermark();
  }
  get state(): object {
    this.#present();
    return this.#handles;
  }
  get windowState(): object {
    this.#present();
    return this.#windowHandles;
  }
  now(): number {
    return this.#environment.now();
  }
  random(): number {
    return this.#environment.random();
  }
  side(output: { readonly name: string } | string, value: unknown): void {
    const { end } = this.#present();
    const name = typeof output === 'string' ? output : output.name;
    if (!this.#sides.has(name)) this.#sides.set(name, this.#environment.output(name));
    this.#sides.get(name)?.(value, end - 1);
  }
}
