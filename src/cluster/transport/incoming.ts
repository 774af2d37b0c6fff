// The receiver's end of a channel between hosts: the task's channel, fed from the link, and the credit that goes back. The invariants are remote-channel.ts's.
//
// Invariant B1: credit goes back for what the task has taken, in portions of half the window; what is taken while the gate withholds credit is given back when it
// no longer does.

import { Channel } from '../../runtime/channel.ts';

export interface InOptions {
  /** The same at both ends, unlike that of any other channel in that direction. */
  readonly name: string;
  readonly attempt: number;
  /** The receiving task's: something has entered. */
  readonly wake: () => void;
}

export class Incoming {
  readonly options: InOptions;
  readonly channel: Channel;
  /** What the sender calls it; undefined while there is none. */
  number: number | undefined;
  readonly #portion: number;
  readonly #grant: (number: number, batches: number) => void;
  /** Taken, and not given back. */
  #owed = 0;

  constructor(options: InOptions, window: number, grant: (number: number, batches: number) => void) {
    this.options = options;
    this.#portion = Math.max(1, window >> 1);
    this.#grant = grant;
    this.channel = new Channel(() => this.#give(), options.wake);
    this.channel.taken = () => {
      this.#owed += 1;
      if (this.#owed >= this.#portion) this.#give();
    };
  }

  #give(): void {
    if (this.number === undefined || this.#owed === 0 || this.channel.withheld) return;
    const batches = this.#owed;
    this.#owed = 0;
    this.#grant(this.number, batches);
  }
}
