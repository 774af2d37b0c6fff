// A sink without transactions: batches go to its SinkWriter in order, one call at a time; a checkpoint waits until what came before its barrier is flushed.
//
// Invariants:
//  W1  Calls to the writer never overlap, and records keep their order.
//  W2  A barrier's part of the snapshot resolves when every record in front of it has been written, and a flush that began after that has resolved.
//  W3  The letter of a record in front of a barrier goes with that barrier, however late its call settles.
//  W4  A call that failed fails the task and everybody who waits for records to be written; nothing is written behind it.

import type { DeadLetter } from '../graph/job.ts';
import type { Sink, SinkWriter } from '../graph/sink.ts';
import { isThenable } from './handlers.ts';
import { limitOverdraft, OVERDRAFT_STEP } from './overdraft.ts';
import { type SinkOptions, type SinkRunner, sinkFailed } from './sink-runner.ts';
import { TaskFailure } from './units.ts';

/** Records that wait for a writer before the task takes no more. */
const WAITING_MAX = 4096;

export class PlainSink implements SinkRunner {
  readonly marker = 0;
  readonly #sink: Sink<unknown>;
  readonly #options: SinkOptions;
  readonly #writerName: string;
  #writer: SinkWriter<unknown> | undefined;
  #values: unknown[] = [];
  #timestamps: number[] = [];
  #closed = false;
  #mark = 0;
  #written = 0;
  /** Barriers that wait for records in front of them to be written, with the letters of those that were not. */
  #barriers: { readonly before: number; readonly letters: DeadLetter[] }[] = [];
  /** The call that runs; calls are never made at once. */
  #running: Promise<void> | undefined;
  /** Set by a call that failed: what waits for records to be written must not wait for ever. */
  #failure: { readonly error: unknown } | undefined;

  constructor(sink: Sink<unknown>, subtask: number, options: SinkOptions) {
    this.#sink = sink;
    this.#writerName = String(subtask);
    this.#options = options;
  }

  async open(): Promise<void> {
    try {
      this.#writer = await this.#sink.open(this.#options.context(this.#writerName, this.#options.lineage, undefined));
      if (this.#closed) {
        // Nobody else closes what comes now.
        await this.#writer.close();
        throw new Error('its task ended while it was opened');
      }
    } catch (error) {
      throw sinkFailed(this.#options.uid, error);
    }
  }

  records = 0;

  add(value: unknown, timestamp: number): void {
    this.records += 1;
    this.#values.push(value);
    this.#timestamps.push(timestamp);
    if (this.#values.length % OVERDRAFT_STEP === 0) limitOverdraft(this.#values, this.#values.length);
  }
  mark(): void {
    this.#mark = this.#values.length;
  }
  rollback(): void {
    this.records -= this.#values.length - this.#mark;
    this.#values.length = this.#mark;
    this.#timestamps.length = this.#mark;
  }

  get behind(): boolean {
    return this.#running !== undefined && this.#values.length >= WAITING_MAX;
  }

  drain(): void {
    if (this.#values.length === 0 || this.#running !== undefined) return;
    const [values, timestamps] = [this.#values, this.#timestamps];
    this.#values = [];
    this.#timestamps = [];
    let writing: void | Promise<void>;
    try {
      writing = this.#writer!.write(values, timestamps);
    } catch (error) {
      throw this.#failed(error);
    }
    if (isThenable(writing)) this.#run(Promise.resolve(writing), values.length);
    else this.#written += values.length;
  }

  #run(call: Promise<void>, records: number): void {
    const running = call.then(
      () => {
        this.#running = undefined;
        this.#written += records;
        this.#options.wake();
      },
      (error) => this.#options.failed(this.#failed(error)),
    );
    this.#running = running;
  }

  #failed(cause: unknown): unknown {
    const error = cause instanceof TaskFailure ? cause : sinkFailed(this.#options.uid, cause);
    this.#failure ??= { error };
    return error;
  }

  /** Hands over what waits, or awaits the call that runs; outside of the task's turns, so that what fails here must be said to the task. */
  async #proceed(): Promise<void> {
    this.#check();
    if (this.#running === undefined) {
      try {
        this.drain();
      } catch (error) {
        this.#options.failed(error);
        throw error;
      }
    }
    await this.#running;
    this.#check();
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Resolves when the first `count` records have been written. */
  async #writtenUpTo(count: number): Promise<void> {
    while (this.#written < count) await this.#proceed();
  }

  barrier(): () => Promise<{ readonly letters: readonly DeadLetter[] }> {
    // What was written before the barrier is safe once a flush that begins after it has resolved; records behind it may be in it too.
    const before = this.records;
    const letters: DeadLetter[] = [];
    this.#barriers = this.#barriers.filter((barrier) => barrier.before > this.#written);
    if (before > this.#written) this.#barriers.push({ before, letters });
    return async () => {
      await this.#flushed(before);
      return { letters };
    };
  }

  /** The writer has refused a record, the `index`-th that was added, and goes on behind it. */
  refused(index: number, letter: DeadLetter): void {
    for (const { before, letters } of this.#barriers) if (index < before) letters.push(letter);
  }

  async #flushed(count: number): Promise<void> {
    await this.#writtenUpTo(count);
    while (this.#running !== undefined) await this.#proceed();
    const flushing = this.#writer!.flush();
    this.#run(flushing, 0);
    await flushing;
  }

  async complete(): Promise<void> {}

  settled(): Promise<unknown> {
    return Promise.allSettled([this.#running]);
  }

  async finish(): Promise<void> {
    await this.#flushed(this.records);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#writer?.close();
  }
}
