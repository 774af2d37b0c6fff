// Frames: what stands on a link. Each is one message of one channel, or of the link itself, and says by a checksum that it is whole.
//
//   crc32 of all that follows (u32 LE), kind (u8), channel (u32 LE), content
//     BATCH     a batch
//     EVENT     what, and its numbers
//     OPEN      sender → receiver: attempt (varint), name: from now on the channel of that name in that attempt has this number
//     CREDIT    receiver → sender: how many batches more (varint)
//     CLOSED    sender → receiver: nothing follows
//     UNWANTED  receiver → sender: nobody takes any more
//     MAIL      no channel; a value
//
// Numbers of channels are the sender's: those of the two directions have nothing to do with each other.
//
// Invariants:
//  F1  A frame with any bit changed, cut off or prolonged is refused with LINK_CORRUPT. Only on a link within a process the checksum is 0 and nobody looks.
//  F2  A batch that takes more than SPLIT_BYTES, or has more than RECORDS_MAX records, goes as several. A record that takes more than `max` bytes is refused where it is sent.
//  F3  What a writer gives is valid until it is asked for the next frame.

import { crc32 } from 'node:zlib';
import { ByteReader, ByteWriter, decodeFrom, encodeInto } from '../../../state-backends/index.ts';
import { asError, MillraceError } from '../../errors.ts';
import type { Batch } from '../../runtime/batch.ts';
import type { Event } from '../../runtime/channel.ts';
import { RECORDS_MAX, readBatch, Unsendable, writeBatch } from './batch-codec.ts';

export const BATCH = 1;
export const EVENT = 2;
export const OPEN = 3;
export const CREDIT = 4;
export const CLOSED = 5;
export const UNWANTED = 6;
export const MAIL = 7;

/** Crc, kind, channel. */
const HEAD = 9;
/** A batch that takes more goes in several frames. */
const SPLIT_BYTES = 1 << 20;
/** A buffer that has grown beyond that is not kept. */
const KEPT_BYTES = 4 << 20;

const EVENTS = ['watermark', 'idle', 'active', 'barrier', 'cancel', 'end-of-data', 'end'] as const satisfies readonly Event['kind'][];
const STOP = 1;
const UNALIGNED = 2;

/** Writes frames, each over the one before (F3). */
export class FrameWriter {
  #out = new ByteWriter(1 << 16);
  readonly #max: number;
  readonly #within: boolean;

  /** `max`: what the other side takes, in bytes. `within` a process there are no checksums. */
  constructor(max: number, within = false) {
    this.#max = max;
    this.#within = within;
  }

  /** Gives the frames of a batch to `send`, one after the other. Throws Unsendable. */
  batch(channel: number, batch: Batch, send: (frame: Buffer) => void): void {
    try {
      let at = 0;
      do {
        this.#part(channel, batch, at, Math.min(batch.size, at + RECORDS_MAX), send);
        at += RECORDS_MAX;
      } while (at < batch.size);
    } finally {
      if (this.#out.bytes.length > KEPT_BYTES) this.#out = new ByteWriter(1 << 16);
    }
  }

  #part(channel: number, batch: Batch, from: number, to: number, send: (frame: Buffer) => void): void {
    const out = this.#begin(BATCH, channel);
    writeBatch(out, batch, from, to);
    const count = to - from;
    if (out.at > SPLIT_BYTES && count > 1) {
      const step = Math.ceil(count / Math.min(count, Math.ceil(out.at / SPLIT_BYTES)));
      for (let at = from; at < to; at += step) this.#part(channel, batch, at, Math.min(to, at + step), send);
      return;
    }
    if (out.at > this.#max) throw new Unsendable(from, this.#tooLarge('It', out.at));
    send(this.#seal());
  }

  event(channel: number, event: Event): Buffer {
    const out = this.#begin(EVENT, channel);
    out.u8(EVENTS.indexOf(event.kind));
    if (event.kind === 'watermark') out.f64(event.time);
    else if (event.kind === 'cancel') out.f64(event.id);
    else if (event.kind === 'barrier') {
      const { id, startedAt, stop, unaligned } = event.barrier;
      out.u8((stop ? STOP : 0) | (unaligned === undefined ? 0 : UNALIGNED));
      out.f64(id);
      out.f64(startedAt);
      if (unaligned !== undefined) out.f64(unaligned);
    }
    return this.#seal();
  }

  open(channel: number, name: string, attempt: number): Buffer {
    const out = this.#begin(OPEN, channel);
    out.varint(attempt);
    encodeInto(out, name);
    return this.#seal();
  }

  credit(channel: number, batches: number): Buffer {
    this.#begin(CREDIT, channel).varint(batches);
    return this.#seal();
  }

  closed(channel: number): Buffer {
    this.#begin(CLOSED, channel);
    return this.#seal();
  }

  unwanted(channel: number): Buffer {
    this.#begin(UNWANTED, channel);
    return this.#seal();
  }

  /** Throws STATE_NOT_SERIALIZABLE, and RECORD_TOO_LARGE. */
  mail(value: unknown): Buffer {
    const out = this.#begin(MAIL, 0);
    encodeInto(out, value);
    const { at } = out;
    if (out.bytes.length > KEPT_BYTES && at > this.#max) this.#out = new ByteWriter(1 << 16);
    if (at > this.#max) throw this.#tooLarge('A message to another host', at);
    return this.#seal();
  }

  #tooLarge(what: string, bytes: number): MillraceError {
    const max = Math.floor(this.#max / (1 << 20));
    return new MillraceError('RECORD_TOO_LARGE', `${what} takes ${Math.ceil(bytes / (1 << 20))} MiB, and a frame has ${max} at most.`, {
      todo: 'Split it, or keep large values elsewhere and pass references.',
    });
  }

  #begin(kind: number, channel: number): ByteWriter {
    const out = this.#out;
    out.at = 4;
    out.u8(kind);
    out.need(4);
    out.at = out.bytes.writeUInt32LE(channel, out.at);
    return out;
  }

  #seal(): Buffer {
    const { bytes, at } = this.#out;
    bytes.writeUInt32LE(this.#within ? 0 : crc32(bytes.subarray(4, at)), 0);
    return bytes.subarray(0, at);
  }
}

/** A cursor over frames that have come. */
export class FrameReader {
  kind = 0;
  channel = 0;
  readonly #from = new ByteReader(Buffer.alloc(0));
  readonly #within: boolean;

  constructor(within = false) {
    this.#within = within;
  }

  /** Looks at a frame: `kind` and `channel` are its. Throws LINK_CORRUPT where it is not whole. */
  open(frame: Buffer): void {
    if (frame.length < HEAD) throw corrupt('a frame is shorter than its head');
    if (!this.#within && crc32(frame.subarray(4)) !== frame.readUInt32LE(0)) throw corrupt('a checksum does not match');
    this.kind = frame[4]!;
    this.channel = frame.readUInt32LE(5);
    if (this.kind < BATCH || this.kind > MAIL) throw corrupt(`no frame is of kind ${this.kind}`);
    this.#from.open(frame);
    this.#from.at = HEAD;
  }

  batch(): Batch {
    return this.#whole(() => readBatch(this.#from));
  }

  event(): Event {
    return this.#whole(() => readEvent(this.#from));
  }

  offer(): { readonly attempt: number; readonly name: string } {
    return this.#whole(() => {
      const attempt = this.#from.varint();
      const name = decodeFrom(this.#from);
      if (typeof name !== 'string') throw new RangeError('a channel has no name');
      return { attempt, name };
    });
  }

  credit(): number {
    return this.#whole(() => this.#from.varint());
  }

  mail(): unknown {
    return this.#whole(() => decodeFrom(this.#from));
  }

  #whole<T>(read: () => T): T {
    let content: T;
    try {
      content = read();
    } catch (error) {
      throw corrupt(asError(error).message, error);
    }
    if (this.#from.at !== this.#from.end) throw corrupt('a frame holds more than it says');
    return content;
  }
}

function readEvent(from: ByteReader): Event {
  const kind = EVENTS[from.u8()];
  switch (kind) {
    case undefined:
      throw new RangeError('an event of no kind');
    case 'watermark':
      return { kind, time: from.f64() };
    case 'cancel':
      return { kind, id: from.f64() };
    case 'barrier': {
      const flags = from.u8();
      const id = from.f64();
      const startedAt = from.f64();
      return { kind, barrier: { id, startedAt, stop: (flags & STOP) !== 0, unaligned: (flags & UNALIGNED) !== 0 ? from.f64() : undefined } };
    }
    default:
      return { kind };
  }
}

export function corrupt(why: string, cause?: unknown): MillraceError {
  return new MillraceError('LINK_CORRUPT', `What came from another host cannot be read: ${why}.`, {
    cause,
    todo: 'Do all workers run the same release, and does nothing else write to their port?',
  });
}
