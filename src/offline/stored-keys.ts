// The keys of an operator with declared state, one after another: for reading, and for edits that go over all of them.
//
// Who owns what: the handles are those of handlers (state-backends/kinds-keyed.ts), bound to state in memory that holds a share of the keys.
//
// Invariant K1: what is given of a key is used before the next key: then its `state` and `timers` throw CONTEXT_USED_OUTSIDE_RECORD.

import { bindKinds, type Handles, type Key, keyBytes, type StateKind, type TimerTable } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import type { Key as GraphKey } from '../graph/job.ts';
import type { SharedState } from './changed-rows.ts';
import type { StoredClocks } from './stored-clocks.ts';

export type KeyedSpec = Record<string, StateKind<unknown, 'keyed'>>;

/** The timers of one key in one domain, as they are stored. */
export interface StoredTimers {
  /** Times in epoch milliseconds, earliest first. */
  all(): number[];
  set(at: number): void;
  delete(at: number): void;
}

/** What a snapshot has of one key. Use it before the next one is asked for. */
export interface StoredKey<K extends GraphKey, S extends KeyedSpec> {
  readonly key: K;
  /** The declared state, by name; the same handles as in handlers. */
  readonly state: Handles<S>;
  /** Of a process. */
  readonly timers: { readonly event: StoredTimers; readonly processing: StoredTimers };
}

export const TIMER_TABLES = { event: '.timers', processing: '.processing-timers' } as const;

export class StoredKeys<S extends KeyedSpec> {
  readonly #uid: string;
  readonly #shared: SharedState;
  readonly #names: readonly string[];
  readonly #kinds: ReturnType<typeof bindKinds<S>>;
  readonly #timers: Readonly<Record<keyof typeof TIMER_TABLES, TimersOfKeys>>;

  /** Declares the tables; `timers`: the operator has some. */
  constructor(uid: string, shared: SharedState, spec: S, options: { timers: boolean; clocks: StoredClocks }) {
    this.#uid = uid;
    this.#shared = shared;
    this.#kinds = bindKinds(shared.state, uid, spec, options.clocks.clock, options.clocks.eventClock);
    const tables = options.timers ? Object.values(TIMER_TABLES).map((name) => shared.state.timers(uid, name)) : [undefined, undefined];
    this.#timers = { event: new TimersOfKeys(uid, tables[0]), processing: new TimersOfKeys(uid, tables[1]) };
    this.#names = [...Object.keys(spec), ...(options.timers ? Object.values(TIMER_TABLES) : [])];
  }

  /** Every key that has something of the declared state, or a timer. */
  async *all(): AsyncGenerator<StoredKey<GraphKey, S>> {
    const keys = await this.#shared.keys(this.#uid, this.#names);
    for (const { key, hash } of keys) {
      this.#kinds.setCurrent(key, hash);
      const stored = new CurrentKey(this.#uid, key, hash, this.#kinds, this.#timers);
      try {
        yield stored;
      } finally {
        stored.over = true;
        this.#kinds.clearCurrent();
      }
    }
  }
}

class CurrentKey<S extends KeyedSpec> implements StoredKey<GraphKey, S> {
  readonly key: GraphKey;
  over = false;
  readonly #uid: string;
  readonly #kinds: { readonly handles: Handles<S> };
  readonly #timers: { readonly event: StoredTimers; readonly processing: StoredTimers };

  constructor(uid: string, key: Key, hash: number, kinds: { readonly handles: Handles<S> }, timers: Readonly<Record<'event' | 'processing', TimersOfKeys>>) {
    this.#uid = uid;
    this.key = key as GraphKey;
    this.#kinds = kinds;
    this.#timers = { event: timers.event.of(key, hash), processing: timers.processing.of(key, hash) };
  }

  get state(): Handles<S> {
    this.#demand();
    return this.#kinds.handles;
  }
  get timers(): { readonly event: StoredTimers; readonly processing: StoredTimers } {
    this.#demand();
    return this.#timers;
  }

  /** K1. */
  #demand(): void {
    if (!this.over) return;
    throw new MillraceError('CONTEXT_USED_OUTSIDE_RECORD', `What a snapshot has of a key of '${this.#uid}' was used behind its turn.`, {
      uid: this.#uid,
      todo: 'Take what you need of a key before you ask for the next one.',
    });
  }
}

/** Timers by key, of one domain. */
class TimersOfKeys {
  readonly #uid: string;
  readonly #table: TimerTable | undefined;
  #byKey: Map<string, Set<number>> | undefined;

  constructor(uid: string, table: TimerTable | undefined) {
    this.#uid = uid;
    this.#table = table;
  }

  of(key: Key, hash: number): StoredTimers {
    const id = keyBytes(key).toString('latin1');
    return {
      all: () => [...(this.#timers().get(id) ?? [])].sort((one, other) => one - other),
      set: (at) => {
        if (typeof at !== 'number' || Number.isNaN(at))
          throw new MillraceError('TIMER_INVALID', `A timer of '${this.#uid}' was set at ${String(at)}.`, {
            uid: this.#uid,
            todo: 'A timer needs a time in epoch milliseconds.',
          });
        if (this.#table === undefined)
          throw new MillraceError('STATE_MISUSED', `'${this.#uid}' keeps no timers that can be set.`, {
            uid: this.#uid,
            todo: 'Only processes have timers of their own; a new one gets them from records that are fed into it.',
          });
        this.#table.set(at, key, hash);
        const timers = this.#timers();
        timers.set(id, (timers.get(id) ?? new Set()).add(at));
      },
      delete: (at) => {
        this.#table?.delete(at, key, hash);
        this.#timers().get(id)?.delete(at);
      },
    };
  }

  #timers(): Map<string, Set<number>> {
    if (this.#byKey !== undefined) return this.#byKey;
    this.#byKey = new Map();
    for (const { key, time } of this.#table?.all() ?? []) {
      const id = keyBytes(key).toString('latin1');
      this.#byKey.set(id, (this.#byKey.get(id) ?? new Set()).add(time));
    }
    return this.#byKey;
  }
}
