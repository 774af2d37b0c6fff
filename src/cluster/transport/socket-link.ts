// A link between two processes: frames over one TCP or TLS connection whose handshake is done.
//
// What is sent in a turn is one write; Node puts writes that wait together. A length of 0 is a heartbeat, a frame of one byte says goodbye: a connection that ends
// without it was lost, and so was one on which nothing has come for `deadAfter`.
//
// Invariants:
//  S1  Silence is counted in ticks of a timer, never by the clock: a host that was held up itself, by a long function or by SIGSTOP, has one tick behind it and
//      reads what has come meanwhile before the next one.
//  S2  A frame that says that it is larger than `frameMax` closes the connection before anything is allocated for it.

import type { Socket } from 'node:net';
import { asError, codeOf, type MillraceError, messageOf } from '../../errors.ts';
import { BUFFERED_MAX, FRAME_MAX, Gathered, type Link, linkLost, Scattered } from './link.ts';

export interface SocketLinkOptions {
  /** The worker at the other side, for messages. */
  readonly peer: string;
  readonly frameMax?: number | undefined;
  /** Milliseconds between two signs of life; default a second. */
  readonly heartbeat?: number | undefined;
  /** Milliseconds of silence after which the other side is taken for dead; default 15 s. */
  readonly deadAfter?: number | undefined;
  /** What was read behind the handshake. */
  readonly read?: Buffer | undefined;
}

const HEARTBEAT = Buffer.alloc(4);
const GOODBYE = Buffer.from([0]);
/** How long the other side may take to close, once both have said goodbye. */
const LINGER_MS = 1000;

/** The end of a link at this process. The socket is the link's from now on. */
export function socketLink(socket: Socket, options: SocketLinkOptions): Link {
  return new SocketLink(socket, options);
}

class SocketLink implements Link {
  readonly peer: string;
  readonly frameMax: number;
  readonly closed: Promise<MillraceError | undefined>;
  drained: (() => void) | undefined;
  readonly #socket: Socket;
  readonly #gathered = new Gathered(() => this.#flush());
  #read: Buffer | undefined;
  #waiting = false;
  #open = true;
  /** Since the last tick. */
  #wrote = false;
  #heard = true;
  #receiving = false;
  #silentTicks = 0;
  readonly #ticks: NodeJS.Timeout;
  #settle!: (error: MillraceError | undefined) => void;
  readonly #written = (): void => {
    if (!this.#waiting || !this.#open || this.buffered >= BUFFERED_MAX / 2) return;
    this.#waiting = false;
    this.drained?.();
  };

  constructor(socket: Socket, { peer, frameMax = FRAME_MAX, heartbeat = 1000, deadAfter = 15_000, read }: SocketLinkOptions) {
    this.peer = peer;
    this.frameMax = frameMax;
    this.#socket = socket;
    this.#read = read;
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
    socket.setNoDelay(true);
    socket.on('error', (error) => this.#end(linkLost(peer, messageOf(error), error)));
    socket.on('close', () => this.#end(linkLost(peer, 'the connection was closed')));
    this.#ticks = setInterval(() => this.#tick(Math.max(2, Math.ceil(deadAfter / heartbeat))), heartbeat);
  }

  get buffered(): number {
    return this.#gathered.size + this.#socket.writableLength;
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
      if (!this.#open) return;
      if (frame.length === GOODBYE.length) this.#goodbye();
      else take(frame);
    });
    const push = (bytes: Buffer): void => {
      if (!this.#open) return;
      this.#heard = true;
      try {
        frames.push(bytes);
      } catch (cause) {
        this.close(codeOf(cause) === 'LINK_CORRUPT' ? (cause as MillraceError) : linkLost(this.peer, asError(cause).message, cause));
      }
    };
    this.#receiving = true;
    const read = this.#read;
    this.#read = undefined;
    if (read !== undefined && read.length > 0) push(read);
    this.#socket.on('data', push);
    this.#socket.on('end', () => this.#end(linkLost(this.peer, frames.within ? 'the connection ended within a frame' : 'the connection ended')));
    this.#socket.resume();
  }

  close(error?: MillraceError): void {
    if (!this.#open) return;
    if (error === undefined) {
      this.send(GOODBYE);
      this.#flush();
      this.#socket.end();
    }
    this.#end(error);
  }

  #goodbye(): void {
    this.#socket.end();
    this.#end(undefined);
  }

  #flush(): void {
    if (this.#gathered.size === 0 || !this.#open) return;
    this.#wrote = true;
    this.#socket.write(this.#gathered.take(), this.#written);
  }

  /** S1. */
  #tick(deadTicks: number): void {
    if (!this.#wrote && this.#socket.writableLength === 0) this.#socket.write(HEARTBEAT);
    this.#wrote = false;
    this.#silentTicks = this.#heard || !this.#receiving ? 0 : this.#silentTicks + 1;
    this.#heard = false;
    if (this.#silentTicks >= deadTicks) this.close(linkLost(this.peer, 'nothing was heard for too long'));
  }

  /** Once. After an error at once; otherwise what was written goes out first. */
  #end(error: MillraceError | undefined): void {
    if (!this.#open) return;
    this.#open = false;
    clearInterval(this.#ticks);
    if (error !== undefined) this.#socket.destroy();
    else {
      this.#socket.resume();
      const late = setTimeout(() => this.#socket.destroy(), LINGER_MS);
      this.#socket.once('close', () => clearTimeout(late));
    }
    this.#settle(error);
  }
}
