// The harness: a piece of a program under a test's control, on the real engine.
//
// What: the program runs as a job of its own, with a source that does what the test says in front and an operator that keeps what comes out behind. Each call is
// one step of the world, followed by everything that comes of it; then the next call begins.
//
// Invariants:
//  N1  Calls take effect one after another, in the order they were made, awaited or not.
//  N2  Time moves only by `processingTime`, event time only by `watermark`, `idle` and `end`.
//  N3  The first error that is not skipped ends the program: the call that it surfaced in rejects with it, and so does every call after that.

import type { StateBackend } from '../../state-backends/index.ts';
import type { Output } from '../api/process.ts';
import { from } from '../api/stream.ts';
import type { Stream } from '../api/streams.ts';
import { MillraceError } from '../errors.ts';
import { JobRun } from '../execution/job-run.ts';
import { GraphBuilder } from '../graph/builder.ts';
import type { DeadLetter, JobResult } from '../graph/job.ts';
import type { Node } from '../graph/node.ts';
import { operatorOf } from '../operators/operator-of.ts';
import { Captured, type PendingTimer, type Stamped } from './captured.ts';
import { CommandedSource } from './commanded-source.ts';
import { packSnapshot, unpackSnapshot } from './packed-snapshot.ts';
import { CHECKPOINTS, SimulatedHost } from './simulated-host.ts';

/** How a harness begins. */
export interface HarnessOptions {
  /** What `snapshot()` of another harness resolved with; event time begins at −∞ and processing time at 0 all the same. */
  restore?: Uint8Array;
  /** Instances of each operator that does not say otherwise, 1 by default; it need not be that of the snapshot. */
  parallelism?: number;
  /** `memory()` by default. */
  state?: StateBackend;
  /** Decides what runs first where the order is open, and feeds `ctx.random()`; 0 by default. */
  seed?: number;
}

/** One input. Each call resolves when all its effects are out; calls need not be awaited and take effect in the order they were made. */
export interface HarnessInput<T> {
  /** A record; `timestamp` in epoch milliseconds, none by default. Makes an idle input active. */
  push(value: T, timestamp?: number): Promise<void>;
  /** Event time of this input in epoch milliseconds; one that is not above the last is ignored. Makes an idle input active. */
  watermark(time: number): Promise<void>;
  /** The input no longer holds event time back. */
  idle(): Promise<void>;
  active(): Promise<void>;
  /** No more records: event time goes to its end, open calls of `asyncMap` are awaited. Processing-time timers that are not due do not fire. */
  end(): Promise<void>;
}

/** What is seen of the program, and what belongs to all of it. */
export interface HarnessOutput<R> {
  /** Moves the clock, which begins at 0, to that time in milliseconds; timers that are due fire in order. It does not go back. */
  processingTime(time: number): Promise<void>;
  /** What the program has emitted since the last call, in order. */
  take(): Stamped<R>[];
  /** What has gone to that side output since the last call, in order. */
  side<X>(output: Output<X> | string): Stamped<X>[];
  /** Records that were too late for their windows, since the last call. */
  late<X>(): Stamped<X>[];
  /** The watermarks that have reached the output since the last call, finite ones only. */
  watermarks(): number[];
  /** Records that failed under `onError('skip')` since the last call. */
  deadLetters(): DeadLetter[];
  /** The timers that processes have set and that have not fired, by time; those of windows are not among them. Looking changes nothing. */
  timers(): PendingTimer[];
  /** A checkpoint of the whole program, for `restore`. */
  snapshot(): Promise<Uint8Array>;
  /** Ends the program. */
  close(): Promise<void>;
}

/** A program with one input under a test's control. */
export interface Harness<T, R> extends HarnessInput<T>, HarnessOutput<R> {}
/** A program with two inputs under a test's control. */
export interface Harness2<L, U, R> extends HarnessOutput<R> {
  readonly left: HarnessInput<L>;
  readonly right: HarnessInput<U>;
}

const OUTPUT = 'harness-output';

/**
 * Runs a piece of a program under a test's control: the real engine, on a clock that the test moves. Records that were emitted are frozen, and values handed out of
 * state throw STATE_USED_AFTER_CALLBACK once their callback has ended.
 *
 * An error under the policy `restart` restarts nothing here: the call that it surfaced in rejects with it.
 *
 * @param build makes the stream to look at out of the stream that the test feeds.
 * @throws PLAN_INVALID, SNAPSHOT_CORRUPT, RESTORE_STATE_UNCLAIMED
 * @example
 * const h = await harness((clicks: Stream<{ user: string }>) => clicks.keyBy((c) => c.user).process('idle', {
 *   emits: type<string>(),
 *   onRecord: (_, ctx) => ctx.timers.event.set(ctx.timestamp + minutes(30)),
 *   onTimer: (_, ctx) => ctx.emit(`${ctx.key} is idle`),
 * }));
 * await h.push({ user: 'ada' }, 0);
 * assert.deepEqual(h.timers(), [{ key: 'ada', at: minutes(30), domain: 'event' }]);
 * await h.watermark(minutes(30));
 * assert.deepEqual(h.take(), [{ value: 'ada is idle', timestamp: minutes(30) }]);
 * await h.close();
 */
export async function harness<T, R>(build: (input: Stream<T>) => Stream<R>, options: HarnessOptions = {}): Promise<Harness<T, R>> {
  const run = new HarnessRun(['harness-input'], ([input]) => build(input as Stream<T>) as Stream<unknown>, options);
  await run.start();
  return { ...run.input<T>(0), ...run.output<R>() };
}

/**
 * As `harness`, of a program with two inputs: `h.left` and `h.right`.
 *
 * @param build makes the stream to look at out of the two that the test feeds.
 * @throws PLAN_INVALID, SNAPSHOT_CORRUPT, RESTORE_STATE_UNCLAIMED
 * @example
 * const h = await harness2((left: Stream<string>, right: Stream<number>) => left.union(right));
 * await h.left.push('a', 1);
 * await h.right.push(2, 2);
 * assert.deepEqual(h.take().map(({ value }) => value), ['a', 2]);
 * await h.left.watermark(5);
 * assert.deepEqual(h.watermarks(), []);
 * await h.right.watermark(3);
 * assert.deepEqual(h.watermarks(), [3]);
 * await h.close();
 */
export async function harness2<L, U, R>(build: (left: Stream<L>, right: Stream<U>) => Stream<R>, options: HarnessOptions = {}): Promise<Harness2<L, U, R>> {
  const run = new HarnessRun(['harness-left', 'harness-right'], ([left, right]) => build(left as Stream<L>, right as Stream<U>) as Stream<unknown>, options);
  await run.start();
  return { left: run.input<L>(0), right: run.input<U>(1), ...run.output<R>() };
}

class HarnessRun {
  readonly #uids: readonly string[];
  readonly #build: (inputs: readonly Stream<unknown>[]) => Stream<unknown>;
  readonly #sources: readonly CommandedSource[];
  readonly #captured = new Captured();
  readonly #host: SimulatedHost;
  readonly #run: JobRun;
  #last: Promise<unknown> = Promise.resolve();
  #failure: { readonly error: unknown } | undefined;
  #told = false;
  #result: JobResult | undefined;
  #closed = false;
  #closing: Promise<void> | undefined;

  constructor(uids: readonly string[], build: (inputs: readonly Stream<unknown>[]) => Stream<unknown>, options: HarnessOptions) {
    const { restore, parallelism = 1, state, seed = 0 } = options;
    this.#uids = uids;
    this.#build = build;
    this.#sources = uids.map(() => new CommandedSource());
    this.#host = new SimulatedHost({ seed, state });
    this.#run = new JobRun(
      this.#host.definition('harness', () => this.#nodes()),
      {
        parallelism,
        state: this.#host.state.backend,
        // Checkpoints are taken by snapshot() only, and one that fails is that call's failure alone.
        checkpoints: { directory: CHECKPOINTS, every: Number.POSITIVE_INFINITY, timeout: Number.POSITIVE_INFINITY, tolerate: Number.POSITIVE_INFINITY },
        restarts: false,
        ...(restore === undefined ? {} : { restore: { from: unpackSnapshot(this.#host, restore, uids) } }),
        onEvent: (event) => {
          if (event.type === 'dead-letter') this.#captured.deadLetters.push(event.deadLetter);
        },
      },
      this.#host.internals(this.#captured.operators(operatorOf)),
    );
  }

  #nodes(): Node[] {
    const builder = new GraphBuilder();
    const inputs = this.#uids.map((uid, i) => {
      const source = this.#sources[i]!;
      return from<unknown>(builder, builder.add(uid, { kind: 'source', source, strategy: source.strategy }, []));
    });
    const result = this.#build(inputs);
    if (typeof (result as Partial<Stream<unknown>> | undefined)?.process !== 'function' || 'reduce' in result)
      throw new MillraceError('PLAN_INVALID', 'A harness needs the stream that its function returns.', {
        todo: 'Return a Stream, not a sink or a keyed stream.',
      });
    result.process(OUTPUT, this.#captured.sink).parallelism(1).chain('never');
    return builder.nodes;
  }

  async start(): Promise<void> {
    this.#run.finished.then(
      (result) => {
        this.#result = result;
        if (result.cause !== undefined) this.#failure = { error: result.cause };
      },
      (error) => {
        this.#failure = { error };
      },
    );
    await this.#host.until(this.#run.start());
    await this.#host.settle();
  }

  input<T>(index: number): HarnessInput<T> {
    const source = this.#sources[index]!;
    const open = (): CommandedSource => {
      if (source.ended) throw new MillraceError('JOB_ENDED', 'This input of the harness has ended.', { todo: 'Call end() last.' });
      return source;
    };
    return {
      push: (value, timestamp = Number.NaN) => this.#call(() => open().push(value, timestamp)),
      watermark: (time) =>
        this.#call(() => {
          if (typeof time !== 'number' || Number.isNaN(time))
            throw new MillraceError('OPTION_INVALID', `watermark(${String(time)}): a time in epoch milliseconds is needed.`);
          open().watermark(time);
        }),
      idle: () => this.#call(() => open().idle()),
      active: () => this.#call(() => open().active()),
      end: () =>
        this.#call(async () => {
          if (!source.ended) source.end();
          await this.#host.settle();
          // What was asked outside is answered first.
          while (this.#host.waitsForCalls && this.#failure === undefined) await this.#host.settle();
        }),
    };
  }

  output<R>(): HarnessOutput<R> {
    const { results, watermarks, deadLetters } = this.#captured;
    return {
      processingTime: (time) =>
        this.#call(async () => {
          if (typeof time !== 'number' || !Number.isFinite(time))
            throw new MillraceError('OPTION_INVALID', `processingTime(${String(time)}): milliseconds are needed.`);
          if (time > this.#host.now) await this.#host.advance(time - this.#host.now);
        }),
      take: () => results.splice(0) as Stamped<R>[],
      side: <X>(output: Output<X> | string) => this.#captured.side(typeof output === 'string' ? output : output.name) as Stamped<X>[],
      late: <X>() => this.#captured.late() as Stamped<X>[],
      watermarks: () => watermarks.splice(0),
      deadLetters: () => deadLetters.splice(0),
      timers: () => this.#captured.timers(),
      snapshot: () => this.#call(() => this.#snapshot()),
      close: () => this.#close(),
    };
  }

  /** N1, N3. */
  #call<V>(run: () => V | Promise<V>): Promise<V> {
    const done = this.#last.then(async () => {
      this.#refuse();
      try {
        const value = await run();
        await this.#host.settle();
        return value;
      } finally {
        // What ended the program is the reason of whatever else went wrong.
        if (this.#run.ending) await this.#over();
        this.#refuse();
      }
    });
    // Whoever awaits the call has its rejection; one that nobody awaits shows in the next.
    this.#last = done.catch(() => {});
    return done;
  }

  #refuse(): void {
    if (this.#failure !== undefined) {
      this.#told = true;
      throw this.#failure.error;
    }
    if (this.#closed) throw new MillraceError('JOB_ENDED', 'The harness is closed.');
  }

  /** Waits for the end, also where that takes time: what does not settle is given up after a while. */
  #over(): Promise<void> {
    return this.#host.play(
      this.#run.finished.then(
        () => {},
        () => {},
      ),
    );
  }

  async #snapshot(): Promise<Uint8Array> {
    // A program that has ended has taken its last checkpoint itself.
    const { path } = this.#result?.checkpoint ?? (await this.#host.until(this.#run.checkpoint()));
    return packSnapshot(this.#host, path);
  }

  #close(): Promise<void> {
    if (this.#closing !== undefined) return this.#closing;
    this.#closing = this.#last.then(async () => {
      this.#closed = true;
      if (!this.#run.ending) this.#run.cancel().catch(() => {});
      await this.#over();
      // An error that no call has rejected with.
      if (this.#failure !== undefined && !this.#told) throw this.#failure.error;
    });
    this.#last = this.#closing.catch(() => {});
    return this.#closing;
  }
}
