// One link for several pairs of hosts: its parts are links themselves. The main threads of two workers have one connection; each pair of their hosts a part of it,
// which the main threads relay without looking at what it says.
//
//   number of the part (u32 LE), frame; a frame of one byte ends the part: 0 in good order, 1 after an error
//
// Invariants:
//  G1  A part is used once, for as long as the link is; its number means the same at both ends. What comes before anybody receives is kept, up to EARLY_BYTES.
//      One that is over keeps its number and nothing else. When all numbers are used the link closes, as lost: whoever needs it makes a new one.
//  G2  A part that closes leaves the others alone; when the link closes, all do. What a part's receiver throws closes that part.

import { asError, codeOf, type MillraceError } from '../../errors.ts';
import { corrupt } from './frame.ts';
import { type Link, linkLost } from './link.ts';

/** Bytes that a part adds to a frame. */
export const PART_HEAD = 4;
const EARLY_BYTES = 4 << 20;
const PARTS_MAX = 1 << 16;
/** Of a part that has sent nothing; then so many bytes at least. */
const NONE = Buffer.alloc(0);
const SCRATCH = 1 << 10;
const ENDED = 0;
const FAILED = 1;

export class SharedLink {
  readonly closed: Promise<MillraceError | undefined>;
  readonly #link: Link;
  readonly #parts = new Map<number, Part>();

  constructor(link: Link) {
    this.#link = link;
    this.closed = link.closed;
    link.drained = () => {
      for (const part of this.#parts.values()) part.drained?.();
    };
    link.receive((frame) => {
      if (frame.length <= PART_HEAD) throw corrupt('a frame is of no part');
      this.#of(frame.readUInt32LE(0)).take(frame.subarray(PART_HEAD));
    });
    void link.closed.then((error) => {
      for (const part of this.#parts.values()) part.end(error);
    });
  }

  /** The part of that number; the same one each time. */
  part(number: number): Link {
    return this.#of(number);
  }

  close(error?: MillraceError): void {
    this.#link.close(error);
  }

  #of(number: number): Part {
    let part = this.#parts.get(number);
    if (part === undefined) {
      if (this.#parts.size >= PARTS_MAX) {
        const error = linkLost(this.#link.peer, `its ${PARTS_MAX} parts are used`);
        this.#link.close(error);
        throw error;
      }
      part = new Part(number, this.#link);
      this.#parts.set(number, part);
    }
    return part;
  }
}

class Part implements Link {
  readonly peer: string;
  readonly frameMax: number;
  readonly closed: Promise<MillraceError | undefined>;
  drained: (() => void) | undefined;
  readonly #link: Link;
  #scratch = NONE;
  readonly #number: number;
  #take: ((frame: Buffer) => void) | undefined;
  #early: Buffer[] = [];
  #earlyBytes = 0;
  #open = true;
  #settle!: (error: MillraceError | undefined) => void;

  constructor(number: number, link: Link) {
    this.peer = link.peer;
    this.frameMax = link.frameMax - PART_HEAD;
    this.#link = link;
    this.#number = number;
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  get buffered(): number {
    return this.#link.buffered;
  }
  get ready(): boolean {
    return this.#link.ready;
  }

  send(frame: Uint8Array): void {
    if (!this.#open) return;
    const size = PART_HEAD + frame.length;
    if (size > this.#scratch.length) this.#scratch = Buffer.alloc(Math.max(SCRATCH, size * 2));
    this.#scratch.writeUInt32LE(this.#number, 0);
    this.#scratch.set(frame, PART_HEAD);
    this.#link.send(this.#scratch.subarray(0, size));
    if (size > 1 << 21) this.#scratch = NONE;
  }

  receive(take: (frame: Buffer) => void): void {
    if (!this.#open) return;
    this.#take = take;
    const early = this.#early;
    this.#early = [];
    for (const frame of early) this.take(frame);
  }

  /** G2. */
  take(frame: Buffer): void {
    if (!this.#open) return;
    if (this.#take === undefined) {
      this.#earlyBytes += frame.length;
      if (this.#earlyBytes > EARLY_BYTES) throw corrupt('too much has come for a part that nobody receives');
      this.#early.push(Buffer.from(frame));
    } else if (frame.length === 1) this.end(frame[0] === ENDED ? undefined : linkLost(this.peer, 'the other host has closed it after an error'));
    else {
      try {
        this.#take(frame);
      } catch (cause) {
        this.close(codeOf(cause) === 'LINK_CORRUPT' ? (cause as MillraceError) : linkLost(this.peer, asError(cause).message, cause));
      }
    }
  }

  close(error?: MillraceError): void {
    if (!this.#open) return;
    this.send(Buffer.from([error === undefined ? ENDED : FAILED]));
    this.end(error);
  }

  end(error: MillraceError | undefined): void {
    this.#open = false;
    this.#early = [];
    this.#take = undefined;
    this.drained = undefined;
    this.#scratch = NONE;
    this.#settle(error);
  }
}

/**
 * Hands the frames of each to the other, unread, and closes both when one closes. What is under way is bounded by the credits of the channels in them, not by
 * this.
 */
export function relay(a: Link, b: Link): void {
  a.receive((frame) => b.send(frame));
  b.receive((frame) => a.send(frame));
  void a.closed.then((error) => b.close(error));
  void b.closed.then((error) => a.close(error));
}
