// asyncMap: asks somebody outside for each record, many at once, and emits the answers.
//
// Who owns what: the operator owns its queue (`async-queue.ts`), the calls that are open, their clocks and abort signals. The task owns the records that
// wait: it gives none while `blocked`. Whatever settles re-enters as mail of this attempt; that of an attempt that has ended reaches nobody.
//
// Invariants:
//  A1  A record stands in the queue from `process` until its result has been emitted or its failure has been dealt with: a barrier finds it in exactly one
//      of its snapshot and its output (protocols 8, 15). A restored one is asked again, in front of anything new.
//  A2  At most `capacity` records stand in the queue; of restored ones there may be more, and only `capacity` are asked at once.
//  A3  A record is stored with the watermark it came behind, and after a restore that stands in front of it again: upstream says its watermark once more, but
//      only behind what is restored, and a record that was late would have come back to life (protocols 13). At another parallelism no watermark is put in
//      front that is above what any old instance had heard: records of each of them may come here.
//  A4  A call is settled once: by its promise, by its last failure, or by its timeout; what comes later is ignored.

import { MillraceError } from '../errors.ts';
import type { Key } from '../graph/job.ts';
import type { AsyncMapOptions } from '../graph/node.ts';
import { MAIN } from '../graph/node.ts';
import type { Emit, Operator, OperatorEnvironment, TimeEvent } from '../runtime/operator.ts';
import type { StatePart } from '../runtime/parts.ts';
import { DEFAULT_WAITS, type Waits, waitBefore } from '../time/backoff.ts';
import { asyncQueue } from './async-queue.ts';

export const DEFAULT_CAPACITY = 100;
const OPEN = 'open';
const HEARD = 'heard';

type AsyncFn = (value: unknown, signal: AbortSignal) => Promise<unknown>;

/** A record in a snapshot. */
interface Stored {
  readonly value: unknown;
  readonly timestamp: number;
  readonly key: Key | undefined;
  readonly hash: number;
  /** The watermark it came behind; undefined in snapshots that do not know it. */
  readonly after?: number;
}

type Outcome = { readonly result: unknown } | { readonly error: unknown };

/** A record that stands in the queue. */
interface Call extends Stored {
  outcome: Outcome | undefined;
  /** Set while it is asked. */
  abort: AbortController | undefined;
  tries: number;
  deadline: unknown;
  pause: unknown;
}

export function asyncMapOperator(environment: OperatorEnvironment, fn: AsyncFn, options: AsyncMapOptions): Operator {
  return new AsyncMap(environment, fn, options);
}

class AsyncMap implements Operator {
  readonly counts = { asyncOpen: 0, asyncRetries: 0, asyncTimeouts: 0 };
  readonly #environment: OperatorEnvironment;
  readonly #fn: AsyncFn;
  readonly #options: AsyncMapOptions;
  readonly #capacity: number;
  readonly #waits: Waits;
  readonly #emit: Emit;
  readonly #keyed: boolean;
  readonly #queue;
  /** Not asked yet: restored records beyond the capacity. */
  readonly #unasked: Call[] = [];
  readonly #asked = new Set<Call>();
  /** Have their outcome; a turn of the task that deals with them is on its way. */
  #arrived: Call[] = [];
  /** A watermark is on its way out, and what stands behind it waits for that. */
  #passing = false;
  #stopped = false;
  /** The newest watermark of the input. */
  #heard: number;

  constructor(environment: OperatorEnvironment, fn: AsyncFn, options: AsyncMapOptions) {
    this.#environment = environment;
    this.#fn = fn;
    this.#options = options;
    this.#capacity = options.capacity ?? DEFAULT_CAPACITY;
    this.#waits = { ...DEFAULT_WAITS, ...options.retry?.backoff };
    this.#emit = environment.output(MAIN)!;
    this.#keyed = environment.node.inputs.some((input) => input.exchange === 'hash');
    this.#queue = asyncQueue<Call>(options.ordered ?? true);
    this.#heard = environment.watermark();
  }

  /** Asks again what was open (A1), each record behind its watermark (A3). */
  start(): void {
    const { restored, parallelism } = this.#environment;
    const heard = (restored(HEARD) ?? []) as readonly number[];
    const stored = (restored(OPEN) ?? []) as readonly Stored[];
    for (const { after, record } of behindWatermarks(stored, heard.length === parallelism ? Number.POSITIVE_INFINITY : Math.min(...heard))) {
      if (after > this.#heard) {
        this.#heard = after;
        this.#queue.time({ kind: 'watermark', time: after });
      }
      this.#unasked.push(this.#stand(record));
    }
    this.#askMore();
  }

  process(value: unknown, timestamp: number, key: Key | undefined, hash: number): void {
    const call = this.#stand({ value, timestamp, key, hash });
    if (this.#asked.size < this.#capacity) this.#ask(call);
    else this.#unasked.push(call);
    if (this.blocked) this.#environment.attention();
  }

  get blocked(): boolean {
    return this.#queue.size >= this.#capacity;
  }
  get holding(): boolean {
    return !this.#queue.empty || this.#passing;
  }

  onTime(event: TimeEvent): void {
    if (event.kind === 'watermark' && event.time > this.#heard) this.#heard = event.time;
    this.#queue.time(event);
    this.#emitWhatMay();
  }

  snapshot(): Record<string, StatePart> {
    const standing = this.#queue.standing();
    const items = standing.map(({ value, timestamp, key, hash, after }) => ({ value, timestamp, key, hash, after }));
    return {
      [OPEN]: this.#keyed ? { mode: 'keyed', items, hashes: items.map(({ hash }) => hash) } : { mode: 'split', items },
      [HEARD]: { mode: 'union', items: [this.#heard] },
    };
  }

  stop(): void {
    this.#stopped = true;
    for (const call of this.#asked) this.#release(call, true);
    this.#asked.clear();
  }

  // ── asking ──

  #stand({ value, timestamp, key, hash }: Stored): Call {
    const call: Call = {
      value,
      timestamp,
      key,
      hash,
      after: this.#heard,
      outcome: undefined,
      abort: undefined,
      tries: 0,
      deadline: undefined,
      pause: undefined,
    };
    this.#queue.add(call);
    return call;
  }

  #askMore(): void {
    while (this.#unasked.length > 0 && this.#asked.size < this.#capacity) this.#ask(this.#unasked.shift()!);
  }

  #ask(call: Call): void {
    const { clock } = this.#environment;
    const { timeout } = this.#options;
    this.#asked.add(call);
    this.counts.asyncOpen = this.#asked.size;
    call.abort = new AbortController();
    if (timeout !== undefined) call.deadline = clock.setTimeout(() => this.#expired(call, timeout), timeout);
    this.#try(call);
  }

  #try(call: Call): void {
    call.tries += 1;
    let promise: Promise<unknown>;
    try {
      // What is no promise counts as an answer that is there already.
      promise = Promise.resolve(this.#fn(call.value, call.abort!.signal));
    } catch (error) {
      this.#failed(call, error);
      return;
    }
    promise.then(
      (result) => this.#settle(call, { result }),
      (error) => this.#failed(call, error),
    );
  }

  #failed(call: Call, error: unknown): void {
    if (this.#stopped || call.outcome !== undefined) return;
    const last = this.#isLast(call, error);
    if (last !== undefined) {
      this.#settle(call, { error: last.error });
      return;
    }
    this.counts.asyncRetries += 1;
    const { clock, random } = this.#environment;
    // The function is called in turns of the task only.
    call.pause = clock.setTimeout(
      () =>
        this.#environment.post(() => {
          call.pause = undefined;
          if (!this.#stopped && call.outcome === undefined) this.#try(call);
        }),
      waitBefore(call.tries, this.#waits, random()),
    );
  }

  /** Undefined: it is tried again. */
  #isLast(call: Call, error: unknown): { readonly error: unknown } | undefined {
    const { retry } = this.#options;
    try {
      return retry === undefined || call.tries >= retry.attempts || retry.retryable?.(error) === false ? { error } : undefined;
    } catch (thrown) {
      return { error: thrown };
    }
  }

  #expired(call: Call, timeout: number): void {
    if (this.#stopped || call.outcome !== undefined) return;
    this.counts.asyncTimeouts += 1;
    const { uid } = this.#environment;
    const error = new MillraceError('ASYNC_TIMEOUT', `'${uid}' had no answer for a record within ${timeout} ms.`, {
      uid,
      todo: "Raise its timeout, or keep such records as dead letters with onError('skip').",
    });
    this.#settle(call, { error });
    call.abort!.abort(error);
  }

  /** May come in the middle of a record: it is dealt with in a turn of its own (A4). */
  #settle(call: Call, outcome: Outcome): void {
    if (this.#stopped || call.outcome !== undefined) return;
    call.outcome = outcome;
    this.#release(call, false);
    this.#arrived.push(call);
    if (this.#arrived.length === 1) this.#environment.post(() => this.#deal());
  }

  #release(call: Call, abort: boolean): void {
    const { clock } = this.#environment;
    if (call.deadline !== undefined) clock.clearTimeout(call.deadline);
    if (call.pause !== undefined) clock.clearTimeout(call.pause);
    call.deadline = undefined;
    call.pause = undefined;
    if (abort) call.abort?.abort(new MillraceError('JOB_ENDED', `The task of '${this.#environment.uid}' has ended.`, { uid: this.#environment.uid }));
  }

  // ── emitting ──

  #deal(): void {
    const arrived = this.#arrived;
    this.#arrived = [];
    for (const call of arrived) {
      this.#asked.delete(call);
      if ('result' in call.outcome!) {
        this.#queue.settled(call);
        continue;
      }
      this.#queue.dropped(call);
      // Ends the task unless the policy is to skip it.
      this.#environment.failed(call.outcome!.error, call.value, call.key, call.timestamp);
    }
    this.counts.asyncOpen = this.#asked.size;
    this.#askMore();
    this.#emitWhatMay();
  }

  #emitWhatMay(): void {
    const { unit, time, afterTime } = this.#environment;
    while (!this.#passing) {
      const leaving = this.#queue.next();
      if (leaving === undefined) return;
      if ('entry' in leaving) {
        const { value, timestamp, key, outcome } = leaving.entry;
        const { result } = outcome as { result: unknown };
        unit(
          () => this.#emit(result, timestamp),
          () => value,
          key,
          timestamp,
        );
        continue;
      }
      this.#passing = true;
      time(leaving.event);
      let here = true;
      afterTime(() => {
        this.#passing = false;
        if (!here) this.#emitWhatMay();
      });
      here = false;
    }
  }
}

/** Restored records in the order in which they stand, with the watermark in front of each, none above `limit`. Those of one old instance keep their order. */
function behindWatermarks(stored: readonly Stored[], limit: number): { readonly after: number; readonly record: Stored }[] {
  return stored.map((record) => ({ after: Math.min(record.after ?? Number.NEGATIVE_INFINITY, limit), record })).sort((a, b) => a.after - b.after || 0);
}
