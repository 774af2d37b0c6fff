// Channels between hosts: many over one link. A task does not know that its peer is elsewhere: its end is an ordinary channel, and a pump stands at the other end.
//
//   task → channel → Outgoing ═ link ═ Incoming → channel → task
//
// Who owns what: the sending task owns `send` of its channel and the pump behind it the head; at the receiving host the pump owns `send` and the task's gate the
// head. A number stands for (name, attempt) on one link, given out by the sender's end and never again. Both ends say that they are there, in any order.
//
// Invariants:
//  R1  Order is kept: batches and events of a channel leave in the order in which they entered, and nothing overtakes.
//  R2  Of a channel at most `window` batches are sent and not yet taken by the receiving task, but for R3; the window grows while the receiver keeps up, up to
//      `windowMax` (incoming.ts). Nothing is sent before there is a receiver.
//  R3  A barrier, a cancel marker or an end that enters takes everything in front of it along, without credit: none is ever stuck behind back-pressure. What went
//      without credit is a debt, and until it is paid the sender has no credit in its own channel: so there are never more than its own bound beyond R2. A batch
//      that is sent as several may make a debt too.
//  R4  Events need no credit.
//  R5  A batch is released to the pool once it is encoded; one that cannot be is told to the sending task, and stops that channel only.
//  R6  A channel belongs to an attempt. What comes for another than the receiver's, or for one that is closed, is dropped and counted.
//  R7  When the link is gone every channel stands still, and `lost` says so; nothing is healed.

import type { MillraceError } from '../../errors.ts';
import type { Channel } from '../../runtime/channel.ts';
import { BATCH, CLOSED, CREDIT, corrupt, EVENT, FrameReader, FrameWriter, MAIL, OPEN, UNWANTED } from './frame.ts';
import { Incoming, type InOptions, type Window } from './incoming.ts';
import type { Link } from './link.ts';
import { Outgoing, type OutgoingLane, type OutOptions } from './outgoing.ts';

/** Batches of a channel that may be sent and not taken. */
export const WINDOW = 8;
/** And where the receiver keeps up: what is sent while it, or this side, has its turn. */
export const WINDOW_MAX = 64;

export interface RemoteOptions {
  /** Default: 8 batches. */
  readonly window?: number | undefined;
  /** Default: 64 batches, or `window` where that is given. */
  readonly windowMax?: number | undefined;
  /** Given what `tell` sends at the other end. */
  readonly mail?: ((message: unknown) => void) | undefined;
}

/** One end of a channel. */
export interface RemoteEnd {
  /** The task's. */
  readonly channel: Channel;
  /** The attempt is over: what waits in an outgoing one is dropped, and what comes for an incoming one. */
  close(): void;
}

export interface RemoteFigures {
  /** Batches, and bytes of their frames, in each direction. */
  sent: number;
  sentBytes: number;
  received: number;
  receivedBytes: number;
  /** Batches and events for a channel that nobody has (R6). */
  dropped: number;
}

interface Offer {
  readonly number: number;
  readonly attempt: number;
}

/** All channels of one link. */
export class RemoteChannels {
  /** Settles once nothing goes any more: with the reason, or undefined where one side closed the link. */
  readonly lost: Promise<MillraceError | undefined>;
  readonly figures: Readonly<RemoteFigures>;
  readonly #figures: RemoteFigures = { sent: 0, sentBytes: 0, received: 0, receivedBytes: 0, dropped: 0 };
  readonly #link: Link;
  readonly #window: Window;
  readonly #mail: ((message: unknown) => void) | undefined;
  readonly #writer: FrameWriter;
  readonly #reader: FrameReader;
  readonly #lane: OutgoingLane;
  readonly #out = new Map<number, Outgoing>();
  readonly #outByName = new Map<string, RemoteEnd>();
  readonly #in = new Map<number, Incoming>();
  readonly #inByName = new Map<string, { readonly into: Incoming; readonly end: RemoteEnd }>();
  /** Channels that the other end has opened and nobody here wants yet. */
  readonly #offers = new Map<string, Offer>();
  #next = 1;

  constructor(link: Link, { window, windowMax = window ?? WINDOW_MAX, mail }: RemoteOptions = {}) {
    this.figures = this.#figures;
    this.#link = link;
    this.#window = { least: window ?? WINDOW, most: windowMax };
    this.#mail = mail;
    this.#writer = new FrameWriter(link.frameMax, link.within);
    this.#reader = new FrameReader(link.within);
    this.#lane = {
      link,
      writer: this.#writer,
      sent: (bytes) => {
        this.#figures.sent += 1;
        this.#figures.sentBytes += bytes;
      },
    };
    link.drained = () => {
      for (const out of [...this.#out.values()]) out.pump();
    };
    this.lost = link.closed.then((error) => {
      for (const out of this.#out.values()) out.stop();
      return error;
    });
    link.receive((frame) => this.#take(frame));
  }

  /** The sender's end. One of an older attempt under that name is closed. */
  out(options: OutOptions): RemoteEnd {
    const { name, attempt } = options;
    this.#outByName.get(name)?.close();
    const number = this.#next++;
    const out = new Outgoing(number, options, this.#lane);
    const end: RemoteEnd = {
      channel: out.channel,
      close: () => {
        out.stop();
        if (!this.#out.delete(number)) return;
        if (this.#outByName.get(name) === end) this.#outByName.delete(name);
        this.#link.send(this.#writer.closed(number));
      },
    };
    this.#out.set(number, out);
    this.#outByName.set(name, end);
    this.#link.send(this.#writer.open(number, name, attempt));
    return end;
  }

  /** The receiver's end. One of an older attempt under that name is closed. */
  in(options: InOptions): RemoteEnd {
    const { name, attempt } = options;
    this.#inByName.get(name)?.end.close();
    const into = new Incoming(options, this.#window, (number, batches) => this.#link.send(this.#writer.credit(number, batches)));
    const end: RemoteEnd = {
      channel: into.channel,
      close: () => {
        if (this.#inByName.get(name)?.into === into) this.#inByName.delete(name);
        if (into.number === undefined || this.#in.get(into.number) !== into) return;
        this.#in.delete(into.number);
        this.#link.send(this.#writer.unwanted(into.number));
      },
    };
    this.#inByName.set(name, { into, end });
    const offer = this.#offers.get(name);
    if (offer !== undefined && offer.attempt <= attempt) {
      this.#offers.delete(name);
      if (offer.attempt === attempt) this.#bind(offer.number, into);
    }
    return end;
  }

  /** A message to the other end, in order with what the channels hand over. Throws STATE_NOT_SERIALIZABLE and RECORD_TOO_LARGE. */
  tell(message: unknown): void {
    this.#link.send(this.#writer.mail(message));
  }

  #bind(number: number, into: Incoming): void {
    this.#in.set(number, into);
    into.bind(number);
  }

  #take(frame: Buffer): void {
    const reader = this.#reader;
    reader.open(frame);
    const { kind, channel: number } = reader;
    switch (kind) {
      case BATCH:
      case EVENT: {
        const into = this.#in.get(number);
        if (into === undefined) this.#figures.dropped += 1;
        else if (kind === EVENT) into.channel.signal(reader.event());
        else {
          this.#figures.received += 1;
          this.#figures.receivedBytes += frame.length;
          into.batch(reader.batch());
        }
        return;
      }
      case CREDIT:
        // Nobody is there to have it where the sender's end was closed meanwhile.
        this.#out.get(number)?.granted(reader.credit());
        return;
      case OPEN:
        this.#opened(number, reader.offer());
        return;
      case CLOSED: {
        this.#in.delete(number);
        for (const [name, offer] of this.#offers) if (offer.number === number) this.#offers.delete(name);
        return;
      }
      case UNWANTED:
        this.#out.get(number)?.stop();
        return;
      case MAIL:
        this.#mail?.(reader.mail());
    }
  }

  #opened(number: number, { name, attempt }: { readonly name: string; readonly attempt: number }): void {
    if (this.#in.has(number)) throw corrupt(`the channel ${number} is opened twice`);
    const into = this.#inByName.get(name)?.into;
    if (into?.options.attempt === attempt) {
      if (into.number === undefined) this.#bind(number, into);
      return;
    }
    // An older one than what runs here, or than what the other end has opened since, will never be wanted.
    if (attempt > Math.max(into?.options.attempt ?? -1, this.#offers.get(name)?.attempt ?? -1)) this.#offers.set(name, { number, attempt });
  }
}
