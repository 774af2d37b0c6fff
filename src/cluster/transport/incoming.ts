// The receiver's end of a channel between hosts: the task's channel, fed from the link, and the credit that goes back. The invariants are remote-channel.ts's.
//
// Invariants:
//  B1  Credit goes back for what the task has taken, in portions; what is taken while the gate withholds credit is given back when it no longer does.
//  B2  The window follows the receiver, between its two bounds. Who empties the channel having taken half of a window since it was empty before would have taken more:
//      the window doubles. Who has not emptied it for LONG windows is the slower side, and gains nothing by batches that wait: credit is kept back until the window
//      is as it was, so that a barrier has no more in front of it than it must have.

import type { Batch } from '../../runtime/batch.ts';
import { Channel } from '../../runtime/channel.ts';

export interface InOptions {
  /** The same at both ends, unlike that of any other channel in that direction. */
  readonly name: string;
  readonly attempt: number;
  /** The receiving task's: something has entered. */
  readonly wake: () => void;
}

/** How many batches of the channel may be sent and not taken. */
export interface Window {
  /** At the beginning, and where the receiver is slow. */
  readonly least: number;
  /** Where it keeps up. */
  readonly most: number;
}

const LONG = 2;

export class Incoming {
  readonly options: InOptions;
  readonly channel: Channel;
  /** What the sender calls it; undefined while there is none. */
  number: number | undefined;
  readonly #portion: number;
  readonly #grant: (number: number, batches: number) => void;
  readonly #bounds: Window;
  #window: number;
  /** Taken, and not given back. */
  #owed = 0;
  #waiting = 0;
  /** Taken since none waited. */
  #inRow = 0;

  constructor(options: InOptions, window: Window, grant: (number: number, batches: number) => void) {
    this.options = options;
    this.#bounds = window;
    this.#window = window.least;
    this.#portion = Math.max(1, window.least >> 1);
    this.#grant = grant;
    this.channel = new Channel(() => this.#give(), options.wake);
    this.channel.taken = () => this.#taken();
  }

  /** Credit for as many batches as the window has, to a sender that is there from now on. */
  bind(number: number): void {
    this.number = number;
    this.#grant(number, this.#window);
  }

  batch(batch: Batch): void {
    this.#waiting += 1;
    this.channel.send(batch);
  }

  #taken(): void {
    const { least, most } = this.#bounds;
    this.#waiting -= 1;
    this.#inRow += 1;
    if (this.#inRow > LONG * most && this.#window > least) this.#window -= 1;
    else this.#owed += 1;
    if (this.#waiting === 0) {
      if (this.#inRow >= this.#window >> 1 && this.#window < most) this.#grow();
      this.#inRow = 0;
    }
    if (this.#owed >= this.#portion) this.#give();
  }

  #grow(): void {
    const more = Math.min(this.#window, this.#bounds.most - this.#window);
    this.#window += more;
    this.#owed += more;
  }

  #give(): void {
    if (this.number === undefined || this.#owed === 0 || this.channel.withheld) return;
    const batches = this.#owed;
    this.#owed = 0;
    this.#grant(this.number, batches);
  }
}
