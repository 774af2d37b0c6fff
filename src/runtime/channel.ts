// A channel: the ordered, credit-bounded lane from one task to another, inside a thread.
//
// Who owns what: the sender owns `send`; the receiver's gate owns the queue's head and whether the channel is blocked.
//
// Invariants:
//  H1  Elements arrive in the order sent; nothing overtakes. That a barrier, a cancel marker or the end has entered is told at once.
//  H2  Batches need credit, events do not. A sender looks at `open` between units; what it sends without credit is overdraft of the running unit.
//  H3  A receiver that takes a batch gives its credit back and wakes the sender.
//  H4  While the channel is recorded (semantics 2), what is sent is noted as it enters.

import type { Batch } from './batch.ts';

export type Event =
  | { readonly kind: 'watermark'; readonly time: number }
  | { readonly kind: 'idle' }
  | { readonly kind: 'active' }
  | { readonly kind: 'barrier'; readonly barrier: Barrier }
  | { readonly kind: 'cancel'; readonly id: number }
  /** No more records; barriers may follow. */
  | { readonly kind: 'end-of-data' }
  /** The sender has finished; nothing follows. */
  | { readonly kind: 'end' };

export interface Barrier {
  readonly id: number;
  /** When the coordinator triggered it, epoch milliseconds. */
  readonly startedAt: number;
  /** Sources stop reading behind it. */
  readonly stop: boolean;
  /** Milliseconds after `startedAt` from which nobody waits for slow inputs any more; undefined: they are waited for. */
  readonly unaligned?: number | undefined;
}

/** What of a channel's content is recorded, in order. */
export interface Recorder {
  batch(batch: Batch, from: number): void;
  event(event: Event): void;
}

/** Batches in flight before the sender waits. */
export const CREDIT = 4;

export class Channel {
  readonly #queue: (Batch | Event | undefined)[] = [];
  #head = 0;
  #batches = 0;
  /** Set by the receiver's gate while it waits for other channels' barriers. */
  blocked = false;
  /** Credit withheld by the receiver (a sink that is behind). */
  withheld = false;
  /** Set by the receiver while it records (H4). */
  recorder: Recorder | undefined;
  /** The receiver's, told of what enters (H1). */
  entered: ((event: Event & { kind: 'barrier' | 'cancel' | 'end' }) => void) | undefined;
  /** The sender's, told of each batch that is taken: where it is on another host, that gives its credit back. */
  taken: (() => void) | undefined;
  readonly #wakeSender: () => void;
  readonly #wakeReceiver: () => void;

  constructor(wakeSender: () => void, wakeReceiver: () => void) {
    this.#wakeSender = wakeSender;
    this.#wakeReceiver = wakeReceiver;
  }

  /** True while the sender may send batches. */
  get open(): boolean {
    return this.#batches < CREDIT && !this.withheld;
  }

  get depth(): number {
    return this.#queue.length - this.#head;
  }

  /** True where an event comes next. */
  get eventNext(): boolean {
    return this.#head < this.#queue.length && 'kind' in this.#queue[this.#head]!;
  }

  send(batch: Batch): void {
    this.#batches += 1;
    this.#queue.push(batch);
    this.recorder?.batch(batch, 0);
    this.#wakeReceiver();
  }

  signal(event: Event): void {
    this.#queue.push(event);
    if (event.kind === 'barrier' || event.kind === 'cancel' || event.kind === 'end') this.entered?.(event);
    else this.recorder?.event(event);
    this.#wakeReceiver();
  }

  /** Gives what waits to `recorder`, up to the barrier of that id, or all of it. */
  record(recorder: Recorder, until: number | undefined): void {
    for (let at = this.#head; at < this.#queue.length; at++) {
      const element = this.#queue[at]!;
      if (!('kind' in element)) recorder.batch(element, 0);
      else if (element.kind === 'barrier' && element.barrier.id === until) return;
      else recorder.event(element);
    }
  }

  take(): Batch | Event | undefined {
    const head = this.#head;
    if (head === this.#queue.length) return undefined;
    const element = this.#queue[head]!;
    this.#queue[head] = undefined;
    this.#head = head + 1;
    if (this.#head === this.#queue.length) {
      this.#queue.length = 0;
      this.#head = 0;
    }
    if (!('kind' in element)) {
      this.#batches -= 1;
      if (this.#batches === CREDIT - 1) this.#wakeSender();
      this.taken?.();
    }
    return element;
  }

  /** Gives withheld credit back. */
  release(): void {
    this.withheld = false;
    this.#wakeSender();
  }
}
