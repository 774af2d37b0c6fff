// An operator of a job that is replayed, watched: what reaches it of one key, and what it makes of that.
//
// Who owns what: the operator is the job's own, on the state of its task. This stands around it, sees each record and each timer of the key, reads the state in
// front of it and behind it, and lets nothing that is emitted go further.
//
// Invariants:
//  W1  Records and timers of other keys do not reach the operator: keys know nothing of each other. A broadcast side reaches it always.
//  W2  State is read as `query` reads it (state-views.ts); reading changes nothing.
//  W3  What a firing leaves behind is read when the operator has gone on from it: some clean up behind their function.

import { keyBytes, type Looking, type Key as StateKey, sameKey, type TaskState, type TimerTable } from '../../state-backends/index.ts';
import type { Key } from '../graph/job.ts';
import { DEAD_LETTERS, type Node, nameOf } from '../graph/node.ts';
import { queryableOf } from '../operators/state-views.ts';
import type { Operator, OperatorEnvironment, OperatorFactory } from '../runtime/operator.ts';
import { itemOf, itemsAsOne } from '../runtime/stored-items.ts';
import { TIMER_TABLES } from './stored-keys.ts';

/** A timer of a process. */
export interface ReplayedTimer {
  readonly at: number;
  readonly domain: 'event' | 'processing';
}

/** What a replay shows: one thing that reached the operator, and what came of it. */
export interface ReplayStep {
  /** From 0, which is the state in the snapshot. */
  readonly step: number;
  readonly kind: 'start' | 'record' | 'timer' | 'handler';
  /**
   * The record; of a timer what fired: `{ timer: { at, domain } }` of a process, `{ window: { start, end } }` of a window; of another handler of a process
   * without keys its name, `{ handler: 'onWatermark' }`.
   */
  readonly input: unknown;
  /** Of an operator with two inputs. */
  readonly side?: 'left' | 'right';
  /** Epoch milliseconds; NaN: none. */
  readonly timestamp: number;
  /** Event time of the operator, in epoch milliseconds. */
  readonly watermark: number;
  /** Processing time of the replay, which begins with that of the snapshot. */
  readonly now: number;
  /** Which instance it was; of state by key the one that has the key. */
  readonly subtask: number;
  /** What the operator had, by state, as `running.query` gives it; states with nothing in them are left out. */
  readonly before: Readonly<Record<string, unknown>>;
  readonly after: Readonly<Record<string, unknown>>;
  /** In their order; `output` is the name of a side output. */
  readonly outputs: readonly { readonly value: unknown; readonly timestamp: number; readonly output?: string }[];
  /** Timers of a process that were set, and those that were deleted without firing. */
  readonly timersSet: readonly ReplayedTimer[];
  readonly timersDeleted: readonly ReplayedTimer[];
  /** What the operator threw. */
  readonly error?: unknown;
}

export interface WatchOptions {
  readonly node: Node;
  /** Undefined: all records, of an operator without keys. */
  readonly key: { readonly key: StateKey; readonly hash: number } | undefined;
  /** Whether this instance has the key. */
  readonly mine: (subtask: number, parallelism: number) => boolean;
  readonly seen: (step: ReplayStep) => void;
  /** Timers up to the watermark have fired. */
  readonly reached: (watermark: number) => void;
  /** Event time that the replay does not go beyond. */
  readonly until: number;
}

type Writable<T> = { -readonly [N in keyof T]: T[N] };
type Output = ReplayStep['outputs'][number];

/** The same operator; the watch of each instance that may see something is given to `opened`. */
export function watched(factory: OperatorFactory, options: WatchOptions, opened: (watch: Watch) => void): OperatorFactory {
  return (environment) => {
    if (!options.mine(environment.subtask, environment.parallelism)) return factory({ ...environment, output: () => () => {} });
    const watch = new Watch(factory, environment, options);
    opened(watch);
    return watch.operator;
  };
}

export class Watch {
  readonly operator: Operator;
  readonly #options: WatchOptions;
  readonly #environment: OperatorEnvironment;
  readonly #inner: Operator;
  readonly #timers = new Map<string, TimerTable>();
  #state: TaskState | undefined;
  #outputs: Output[] = [];
  /** A firing that has not been told yet (W3). */
  #pending:
    | { step: Omit<ReplayStep, 'after' | 'step' | 'timersSet' | 'timersDeleted'>; timers: readonly ReplayedTimer[]; fired: readonly ReplayedTimer[] }
    | undefined;
  #steps = 0;

  constructor(factory: OperatorFactory, environment: OperatorEnvironment, options: WatchOptions) {
    this.#options = options;
    this.#environment = environment;
    this.#inner = factory({
      ...environment,
      state: () => this.#stateOf(environment.state()),
      output: (name) => (name === DEAD_LETTERS ? environment.output(name) : this.#outputOf(name)),
      unit: (run, subject, key, timestamp) => this.#unit(run, subject, key, timestamp),
      // Each callback by itself, so that it can be seen.
      together: undefined,
    });
    this.operator = this.#around(this.#inner);
  }

  #outputOf(name: string) {
    return (value: unknown, timestamp: number): void => {
      // Copies are not needed: what is emitted is not changed any more.
      this.#outputs.push({ value, timestamp, ...(name === '' ? {} : { output: name }) });
    };
  }

  #stateOf(own: TaskState): TaskState {
    this.#state = own;
    const noted = (...declared: Parameters<TaskState['timers']>): TimerTable => {
      const table = own.timers(...declared);
      this.#timers.set(declared[1], table);
      return table;
    };
    return new Proxy(own, {
      get: (target, name) => {
        if (name === 'timers') return noted;
        const member: unknown = Reflect.get(target, name, target);
        return typeof member === 'function' ? member.bind(target) : member;
      },
    });
  }

  #around(inner: Operator): Operator {
    const has = <N extends keyof Operator>(name: N): boolean => inner[name] !== undefined;
    const { key: wanted, node } = this.#options;
    const broadcast = node.step.kind === 'process' && node.step.inputs === 'broadcast';
    const isWanted = (key: Key): boolean => wanted === undefined || sameKey(key, wanted.key);
    const two = has('processRight');
    return {
      process: (value, timestamp, key, hash) => {
        if (isWanted(key)) this.#record(value, timestamp, two ? 'left' : undefined, () => inner.process(value, timestamp, key, hash));
      },
      ...(two
        ? {
            processRight: (value: unknown, timestamp: number, key: Key, hash: number) => {
              if (broadcast || isWanted(key)) this.#record(value, timestamp, 'right', () => inner.processRight!(value, timestamp, key, hash));
            },
          }
        : {}),
      enter: () => inner.enter?.(),
      leave: () => inner.leave?.(),
      start: () => {
        inner.start?.();
        this.#tell();
      },
      advance: (watermark, deadline) => {
        const outcome = inner.advance?.(watermark, deadline) ?? 'done';
        this.#tell();
        return outcome;
      },
      watermark: (time) => {
        inner.watermark?.(time);
        this.#tell();
        this.#options.reached(time);
      },
      get nextProcessingTime() {
        return inner.nextProcessingTime ?? Number.POSITIVE_INFINITY;
      },
      onProcessingTime: (now, deadline) => {
        const outcome = inner.onProcessingTime?.(now, deadline) ?? 'done';
        this.#tell();
        return outcome;
      },
      end: () => {
        inner.end?.();
        this.#tell();
      },
      stop: () => inner.stop?.(),
      ...(has('snapshot') ? { snapshot: () => inner.snapshot!() } : {}),
      ...(has('counts') ? { counts: inner.counts! } : {}),
    };
  }

  /** The snapshot has nothing of the key. */
  wasEmpty = false;

  /** The state in the snapshot, in front of everything. */
  begin(): void {
    const state = this.#view();
    this.wasEmpty = Object.keys(state).length === 0 && this.#pendingTimers().length === 0;
    const { watermark, now, subtask } = this.#environment;
    this.#options.seen({
      step: this.#steps++,
      kind: 'start',
      input: undefined,
      timestamp: Number.NaN,
      watermark: watermark(),
      now: now(),
      subtask,
      before: state,
      after: state,
      outputs: [],
      timersSet: this.#pendingTimers(),
      timersDeleted: [],
    });
  }

  #record(value: unknown, timestamp: number, side: 'left' | 'right' | undefined, run: () => void): void {
    this.#tell();
    this.#within('record', value, timestamp, side, [], run);
    this.#tell();
  }

  #unit(run: () => void, subject: () => unknown, key: Key | undefined, timestamp: number): boolean {
    const { key: wanted, until } = this.#options;
    const { unit } = this.#environment;
    // What sees no record, and what is beyond the end of the replay.
    this.#tell();
    if ((wanted !== undefined && (key === undefined || !sameKey(key, wanted.key))) || timestamp > until) return unit(run, subject, key, timestamp);
    return unit(
      () => {
        const input = subject();
        const { timer, handler } = (input ?? {}) as { timer?: ReplayedTimer; handler?: string };
        this.#within(handler === undefined ? 'timer' : 'handler', input, timestamp, undefined, timer === undefined ? [] : [timer], run);
      },
      subject,
      key,
      timestamp,
    );
  }

  #within(
    kind: 'record' | 'timer' | 'handler',
    input: unknown,
    timestamp: number,
    side: 'left' | 'right' | undefined,
    fired: readonly ReplayedTimer[],
    run: () => void,
  ): void {
    const { watermark, now, subtask } = this.#environment;
    const before = this.#view();
    const timers = this.#pendingTimers();
    this.#outputs = [];
    const facts = { kind, input, ...(side === undefined ? {} : { side }), timestamp, watermark: watermark(), now: now(), subtask, before } as const;
    let failure: { readonly error: unknown } | undefined;
    try {
      run();
    } catch (error) {
      failure = { error };
      throw error;
    } finally {
      this.#pending = { step: { ...facts, outputs: this.#outputs, ...failure }, timers, fired };
      this.#outputs = [];
      // A unit that failed is undone: what is behind it is told where it is seen next.
      if (failure !== undefined) this.#tell();
    }
  }

  /** W3. */
  #tell(): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    this.#pending = undefined;
    const { step, timers, fired } = pending;
    const now = this.#pendingTimers();
    const without = (of: readonly ReplayedTimer[], others: readonly ReplayedTimer[]): ReplayedTimer[] =>
      of.filter(({ at, domain }) => !others.some((other) => other.at === at && other.domain === domain));
    const told: Writable<ReplayStep> = {
      step: this.#steps++,
      ...step,
      after: this.#view(),
      timersSet: without(now, timers),
      timersDeleted: without(timers, [...now, ...fired]),
    };
    this.#options.seen(told);
  }

  // ── looking ──

  #view(): Record<string, unknown> {
    const { node, key } = this.#options;
    const { watermark, now } = this.#environment;
    const { states, without } = queryableOf(node);
    const out: Record<string, unknown> = {};
    if (key !== undefined && this.#state !== undefined) {
      const looking: Looking = this.#state.look();
      for (const { name, view } of states) {
        const rows = (table: string) => looking.rows(nameOf(node), table, key.key, key.hash);
        const value = view({ key: key.key as Key, rows, watermark: watermark(), now: now() });
        if (value !== undefined) out[name] = value;
      }
    }
    if (without.length > 0) {
      const parts = this.#inner.snapshot?.() ?? {};
      for (const { name } of without) {
        const value = itemsAsOne((parts[name]?.items ?? []).map(itemOf));
        if (value !== undefined) out[name] = value;
      }
    }
    return out;
  }

  /** Of a process. */
  #pendingTimers(): ReplayedTimer[] {
    const { node, key } = this.#options;
    if (node.step.kind !== 'process' || key === undefined) return [];
    const mine = keyBytes(key.key).toString('latin1');
    return (['event', 'processing'] as const).flatMap((domain) => {
      const timers = [...(this.#timers.get(TIMER_TABLES[domain])?.all() ?? [])].filter((timer) => keyBytes(timer.key).toString('latin1') === mine);
      return timers.map(({ time }) => ({ at: time, domain })).sort((one, other) => one.at - other.at);
    });
  }
}
