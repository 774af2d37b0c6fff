// The sender's end of a channel between hosts: the task's channel, and the pump that empties it into the link. The invariants are remote-channel.ts's.

import type { MillraceError } from '../../errors.ts';
import { MillraceError as Failure, messageOf } from '../../errors.ts';
import type { Key } from '../../graph/job.ts';
import { type Batch, releaseBatch } from '../../runtime/batch.ts';
import { Channel } from '../../runtime/channel.ts';
import { Unsendable } from './batch-codec.ts';
import type { FrameWriter } from './frame.ts';
import type { Link } from './link.ts';

export interface OutOptions {
  /** The same at both ends, unlike that of any other channel in that direction. */
  readonly name: string;
  readonly attempt: number;
  /** The uids of sender and receiver, for messages. */
  readonly from: string;
  readonly to: string;
  /** The sending task's: there is credit again. */
  readonly wake: () => void;
  /** A record cannot be sent: the sending task is to fail with that. */
  readonly failed: (error: MillraceError) => void;
}

/** What it uses of the link, and tells. */
export interface OutgoingLane {
  readonly link: Link;
  readonly writer: FrameWriter;
  sent(bytes: number): void;
}

export class Outgoing {
  readonly number: number;
  readonly options: OutOptions;
  readonly channel: Channel;
  readonly #lane: OutgoingLane;
  /** Below zero: a debt (R3). */
  #credit = 0;
  /** There is a receiver. */
  #wanted = false;
  /** Barriers, cancel markers and ends in the queue. */
  #urgent = 0;
  #pumping = false;
  #stopped = false;
  readonly #send: (frame: Buffer) => void;

  constructor(number: number, options: OutOptions, lane: OutgoingLane) {
    this.number = number;
    this.options = options;
    this.#lane = lane;
    this.channel = new Channel(options.wake, () => this.pump());
    this.channel.entered = () => {
      this.#urgent += 1;
    };
    this.#send = (frame) => {
      this.#credit -= 1;
      lane.sent(frame.length);
      lane.link.send(frame);
    };
  }

  granted(batches: number): void {
    this.#wanted = true;
    this.#credit += batches;
    this.pump();
    if (this.#credit >= 0 && this.channel.withheld) this.channel.release();
  }

  /** Sends what may be sent. Safe to call at any time. */
  pump(): void {
    if (!this.#wanted || this.#stopped || this.#pumping) return;
    this.#pumping = true;
    const { channel } = this;
    while (!this.#stopped && this.#may()) {
      const element = channel.take();
      if (element === undefined) break;
      if ('kind' in element) {
        if (element.kind === 'barrier' || element.kind === 'cancel' || element.kind === 'end') this.#urgent -= 1;
        this.#lane.link.send(this.#lane.writer.event(this.number, element));
      } else this.#batch(element);
    }
    this.#pumping = false;
    if (this.#credit < 0) channel.withheld = true;
  }

  /** Whether the next element, if there is one, may go. */
  #may(): boolean {
    if (this.#urgent > 0) return true;
    return this.#lane.link.ready && (this.#credit > 0 || this.channel.eventNext);
  }

  #batch(batch: Batch): void {
    try {
      this.#lane.writer.batch(this.number, batch, this.#send);
    } catch (cause) {
      this.#stopped = true;
      this.options.failed(unsendable(this.options, batch, cause));
    }
    releaseBatch(batch);
  }

  /** Nothing is sent any more, and what waits is dropped. */
  stop(): void {
    this.#stopped = true;
    for (let element = this.channel.take(); element !== undefined; element = this.channel.take()) if (!('kind' in element)) releaseBatch(element);
  }
}

function unsendable({ from, to }: OutOptions, batch: Batch, error: unknown): MillraceError {
  const cause = error instanceof Unsendable ? error.cause : error;
  const key = error instanceof Unsendable && batch.keyed ? `, with the key ${shown(batch.keys[error.index]!)},` : '';
  const tooLarge = cause instanceof Failure && cause.code === 'RECORD_TOO_LARGE';
  return new Failure(
    tooLarge ? 'RECORD_TOO_LARGE' : 'STATE_NOT_SERIALIZABLE',
    `A record of '${from}'${key} cannot be sent to '${to}', which runs on another host: ${messageOf(cause)}.`,
    { uid: from, cause, ...(tooLarge ? {} : { todo: 'Emit plain data: objects, arrays, Map, Set, Date, typed arrays, strings, numbers.' }) },
  );
}

function shown(key: Key): string {
  const text = typeof key === 'bigint' ? `${key}n` : JSON.stringify(key, (_, part: unknown) => (typeof part === 'bigint' ? `${part}n` : part));
  return text.length > 100 ? `${text.slice(0, 99)}…` : text;
}
