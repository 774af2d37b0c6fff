// The source that the service around the job feeds: `await hits.send(hit)`.
//
// `send` resolves when the record is accepted: it stands in the source's queue, which has a bounded length, and will be handed over in order. While
// the queue is full, or no instance of a job reads yet (before the start, during a restart), `send` waits. When the job has ended it rejects with
// JOB_ENDED. What was accepted is not replayed after a crash of the job: the queue survives a restart, what has left it does not come again.

import { MillraceError } from '../errors.ts';
import type { EndsWithJob, Source } from '../graph/source.ts';
import { Arrivals } from './arrivals.ts';

interface Sent<T> {
  readonly value: T;
  readonly timestamp: number;
}

interface Waiting<T> extends Sent<T> {
  resolve(): void;
  reject(error: unknown): void;
}

const CAPACITY = 1024;

/**
 * A source that the program around the job feeds. `send` resolves when the record is accepted; while 1,024 accepted ones wait, or no job reads, it waits.
 * It rejects with JOB_ENDED when the job has ended. What was accepted is not replayed after a crash. `timestamp` is epoch milliseconds, none by default.
 *
 * @example
 * const hits = ingress<string>();
 * const seen = new Promise<string>((resolve) => {
 *   void job('hits', (env) => void env.source('hits', hits).forEach('seen', resolve)).run({ signal: AbortSignal.timeout(1_000) });
 * });
 * await hits.send('/index.html');
 * assert.equal(await seen, '/index.html');
 */
export function ingress<T>(): Source<T> & { send(value: T, timestamp?: number): Promise<void> } {
  return new Ingress<T>();
}

class Ingress<T> implements Source<T>, EndsWithJob {
  readonly bounded = false;
  /** Accepted, in order. */
  #queue: Sent<T>[] = [];
  /** Not yet accepted, in order. */
  #waiting: Waiting<T>[] = [];
  /** Of the read that is under way: told that there is something in the queue. */
  #bell: Arrivals<true> | undefined;
  #ended = false;

  send(value: T, timestamp = Number.NaN): Promise<void> {
    if (this.#ended) return Promise.reject(jobEnded());
    if (this.#bell !== undefined && this.#waiting.length === 0 && this.#queue.length < CAPACITY) {
      this.#queue.push({ value, timestamp });
      this.#ring();
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ value, timestamp, resolve, reject });
    });
  }

  jobEnded(): void {
    this.#ended = true;
    const refused = this.#waiting;
    this.#waiting = [];
    this.#queue = [];
    for (const { reject } of refused) reject(jobEnded());
  }

  async splits(): Promise<unknown[]> {
    return ['ingress'];
  }

  splitId(): string {
    return 'ingress';
  }

  async *read(_split: unknown, from: unknown, { signal }: { readonly signal: AbortSignal }) {
    this.#ended = false;
    let position = typeof from === 'number' ? from : 0;
    const bell = new Arrivals<true>(1);
    const stop = (): void => {
      bell.end();
      if ((signal.reason as Partial<MillraceError> | undefined)?.code === 'JOB_ENDED') this.jobEnded();
    };
    signal.addEventListener('abort', stop);
    if (signal.aborted) stop();
    this.#bell = bell;
    this.#accept();
    try {
      while (!signal.aborted) {
        if (this.#queue.length === 0) {
          await bell.take();
          // The bell rang for the first: the others that come in this turn of the loop go along.
          if (!signal.aborted) await new Promise((resolve) => setImmediate(resolve));
          continue;
        }
        const taken = this.#queue;
        this.#queue = [];
        this.#accept();
        position += taken.length;
        yield { values: taken.map(({ value }) => value), timestamps: taken.map(({ timestamp }) => timestamp), position };
      }
    } finally {
      signal.removeEventListener('abort', stop);
      bell.end();
      if (this.#bell === bell) this.#bell = undefined;
    }
  }

  #accept(): void {
    const room = CAPACITY - this.#queue.length;
    if (room <= 0 || this.#waiting.length === 0) return;
    const accepted = this.#waiting.slice(0, room);
    this.#waiting = this.#waiting.slice(room);
    for (const { value, timestamp, resolve } of accepted) {
      this.#queue.push({ value, timestamp });
      resolve();
    }
    this.#ring();
  }

  #ring(): void {
    if (this.#bell !== undefined && !this.#bell.full) this.#bell.push(true);
  }
}

function jobEnded(): MillraceError {
  return new MillraceError('JOB_ENDED', 'No job runs this ingress any more.', { todo: 'Start the job again before sending.' });
}
