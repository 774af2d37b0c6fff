// A link between two threads of one process: each end has one port of a MessageChannel of their own.
//
// A message is the bytes of all frames of a turn, transferred; or a number, the bytes that were taken over since the last one; or the end of the link.
//
// Invariant D1: a port says nothing of what the other side has not read yet, so each side tells the other; credits bound what can be on the way, and
// this bounds it in bytes.

import type { MessagePort } from 'node:worker_threads';
import { asError, codeOf, type MillraceError } from '../../errors.ts';
import { BUFFERED_MAX, FRAME_MAX, Gathered, type Link, linkLost, Scattered } from './link.ts';

/** What was taken over is told at the latest when it is so much. */
const TOLD_BYTES = BUFFERED_MAX / 4;

type Message = ArrayBuffer | number | { readonly ended: string | undefined };

export interface ThreadLinkOptions {
  /** The other thread, for messages. */
  readonly peer: string;
  readonly frameMax?: number | undefined;
  /** Frames end at the thread that has the other port, which does not send them on to another process. The same at both ends. */
  readonly within?: boolean | undefined;
}

/** The end of a link at this thread. The port is the link's from now on. */
export function threadLink(port: MessagePort, options: ThreadLinkOptions): Link {
  return new ThreadLink(port, options);
}

class ThreadLink implements Link {
  readonly peer: string;
  readonly frameMax: number;
  readonly within: boolean;
  readonly closed: Promise<MillraceError | undefined>;
  drained: (() => void) | undefined;
  readonly #port: MessagePort;
  readonly #gathered = new Gathered(() => this.#flush());
  #sent = 0;
  #waiting = false;
  /** Taken over since the other side was told. */
  #taken = 0;
  #open = true;
  #settle!: (error: MillraceError | undefined) => void;

  constructor(port: MessagePort, { peer, frameMax = FRAME_MAX, within = false }: ThreadLinkOptions) {
    this.peer = peer;
    this.within = within;
    this.frameMax = frameMax;
    this.#port = port;
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
    port.on('close', () => this.#end(linkLost(peer, 'its thread has ended')));
    port.on('messageerror', (cause) => this.close(linkLost(peer, 'a message cannot be read', cause)));
  }

  get buffered(): number {
    return this.#sent + this.#gathered.size;
  }

  get ready(): boolean {
    if (this.buffered < BUFFERED_MAX) return true;
    this.#waiting = true;
    return false;
  }

  send(frame: Uint8Array): void {
    if (this.#open) this.#gathered.add(frame);
  }

  receive(take: (frame: Buffer) => void): void {
    const frames = new Scattered(this.frameMax, (frame) => {
      if (this.#open) take(frame);
    });
    this.#port.on('message', (message: Message) => {
      if (!this.#open) return;
      if (typeof message === 'number') this.#told(message);
      else if (message instanceof ArrayBuffer) this.#took(frames, message);
      else {
        this.#end(message.ended === undefined ? undefined : linkLost(this.peer, message.ended));
        this.#port.close();
      }
    });
  }

  close(error?: MillraceError): void {
    if (!this.#open) return;
    this.#flush();
    this.#port.postMessage({ ended: error?.sentence } satisfies Message);
    this.#end(error);
    this.#port.close();
  }

  #flush(): void {
    const { size } = this.#gathered;
    if (size === 0 || !this.#open) return;
    this.#sent += size;
    const { buffer } = this.#gathered.take();
    this.#port.postMessage(buffer, [buffer]);
  }

  #told(bytes: number): void {
    this.#sent -= bytes;
    if (!this.#waiting || this.buffered >= BUFFERED_MAX) return;
    this.#waiting = false;
    this.drained?.();
  }

  #took(frames: Scattered, bytes: ArrayBuffer): void {
    try {
      frames.push(Buffer.from(bytes));
    } catch (cause) {
      this.close(codeOf(cause) === 'LINK_CORRUPT' ? (cause as MillraceError) : linkLost(this.peer, asError(cause).message, cause));
      return;
    }
    this.#taken += bytes.byteLength;
    if (this.#taken < TOLD_BYTES || !this.#open) return;
    this.#port.postMessage(this.#taken satisfies Message);
    this.#taken = 0;
  }

  #end(error: MillraceError | undefined): void {
    this.#open = false;
    this.#settle(error);
  }
}
