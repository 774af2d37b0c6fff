// A link: the ordered way for frames between two hosts, in both directions. The port that threads and sockets implement, and how frames stand in what they carry.
//
//   length (u32 LE), frame, length, frame, … ; a length of 0 is no frame, and says that the other side is there
//
// Who owns what: a frame given to `send` is copied, and one given to the receiver is valid within that call; the link owns both copies.
//
// Invariants:
//  N1  Frames arrive whole, once, in the order sent, or the link closes: nothing behind a gap is ever delivered, nothing is repaired.
//  N2  `closed` settles once: with the error that broke it, or undefined where one side closed it. After that nothing is delivered, and `send` does nothing.
//  N3  `send` never waits and never refuses: whoever sends looks at `ready`, and is told by `drained` when it is true again.
//  N4  What is sent within one turn leaves together, at the latest when the turn is over.

import { MillraceError } from '../../errors.ts';
import { corrupt } from './frame.ts';

export interface Link {
  /** Whom it leads to, for messages. */
  readonly peer: string;
  /** True where frames never leave the memory of this process: they need no checksum. */
  readonly within?: boolean | undefined;
  /** Frames of more bytes are not taken. */
  readonly frameMax: number;
  /** Bytes that were given to `send` and have not been taken over there, as far as is known. */
  readonly buffered: number;
  /** False while so much is buffered that whoever can wait should. */
  readonly ready: boolean;
  /** Called when `ready` has become true again. */
  drained: (() => void) | undefined;
  readonly closed: Promise<MillraceError | undefined>;
  send(frame: Uint8Array): void;
  /** Begins to deliver. What `take` throws closes the link. */
  receive(take: (frame: Buffer) => void): void;
  close(error?: MillraceError): void;
}

/** Where nothing else is said: a record of 64 MiB and what is around it. */
export const FRAME_MAX = 72 << 20;
/** `ready` until then. */
export const BUFFERED_MAX = 4 << 20;
/** So much is handed over at once, within a turn. */
export const GATHERED = 1 << 16;

const LENGTH = 4;

/** Frames that wait to be handed over together: by `flush`, which is called when they are enough, or the turn is over (N4). */
export class Gathered {
  #bytes = Buffer.allocUnsafeSlow(GATHERED * 2);
  #at = 0;
  #flushing = false;
  readonly #flush: () => void;

  constructor(flush: () => void) {
    this.#flush = flush;
  }

  get size(): number {
    return this.#at;
  }

  add(frame: Uint8Array): void {
    const at = this.#at;
    const end = at + LENGTH + frame.length;
    if (end > this.#bytes.length) {
      const bytes = Buffer.allocUnsafeSlow(Math.max(end, this.#bytes.length * 2));
      bytes.set(this.#bytes.subarray(0, at));
      this.#bytes = bytes;
    }
    this.#bytes.writeUInt32LE(frame.length, at);
    this.#bytes.set(frame, at + LENGTH);
    this.#at = end;
    if (end >= GATHERED) this.#flush();
    else if (!this.#flushing) {
      this.#flushing = true;
      queueMicrotask(() => {
        this.#flushing = false;
        this.#flush();
      });
    }
  }

  /** All of it, in memory of its own. */
  take(): Buffer<ArrayBuffer> {
    const out = Buffer.allocUnsafeSlow(this.#at);
    out.set(this.#bytes.subarray(0, this.#at));
    this.#at = 0;
    if (this.#bytes.length > GATHERED * 16) this.#bytes = Buffer.allocUnsafeSlow(GATHERED * 2);
    return out;
  }
}

/** Cuts what comes in pieces of any size into frames; one that stands in one piece is not copied, one that stands in several is copied once. */
export class Scattered {
  readonly #max: number;
  readonly #take: (frame: Buffer) => void;
  /** The length, where it is not whole yet. */
  readonly #head = Buffer.alloc(LENGTH);
  #headSize = 0;
  /** The frame of which a part has come. */
  #frame: Buffer | undefined;
  #size = 0;

  /** Frames of more than `max` bytes are refused before anything is allocated for them. */
  constructor(max: number, take: (frame: Buffer) => void) {
    this.#max = max;
    this.#take = take;
  }

  /** Whether a frame has begun and not ended. */
  get within(): boolean {
    return this.#frame !== undefined || this.#headSize > 0;
  }

  /** Throws LINK_CORRUPT, and what `take` throws. */
  push(piece: Buffer): void {
    for (let at = 0; at < piece.length; ) {
      const frame = this.#frame;
      if (frame !== undefined) {
        const more = Math.min(frame.length - this.#size, piece.length - at);
        frame.set(piece.subarray(at, at + more), this.#size);
        this.#size += more;
        at += more;
        if (this.#size < frame.length) return;
        this.#frame = undefined;
        this.#take(frame);
        continue;
      }
      let length: number;
      if (this.#headSize > 0 || piece.length - at < LENGTH) {
        const more = Math.min(LENGTH - this.#headSize, piece.length - at);
        this.#head.set(piece.subarray(at, at + more), this.#headSize);
        this.#headSize += more;
        at += more;
        if (this.#headSize < LENGTH) return;
        this.#headSize = 0;
        length = this.#head.readUInt32LE(0);
      } else {
        length = piece.readUInt32LE(at);
        at += LENGTH;
      }
      if (length === 0) continue;
      if (length > this.#max) throw corrupt(`a frame says that it has ${length} bytes, and ${this.#max} are allowed`);
      if (piece.length - at >= length) {
        this.#take(piece.subarray(at, at + length));
        at += length;
      } else {
        this.#frame = Buffer.allocUnsafeSlow(length);
        this.#size = 0;
      }
    }
  }
}

export function linkLost(peer: string, why: string, cause?: unknown): MillraceError {
  return new MillraceError('LINK_LOST', `The link to ${peer} is gone: ${why}.`, {
    cause,
    todo: 'What went over it restarts from the newest checkpoint; look why that host was lost.',
  });
}
