// The mailbox: two lanes, control mail before messages.
//
// Who owns what: the mailbox orders; the cell decides when a lane is read and what an entry means.
// Invariants:
//  M1  Control mail goes first and is FIFO among itself; the reader takes at most CONTROL_BATCH of it, then serves a message.
//  M2  The message lane holds messages, due timers and notices in one order, so a notice stands behind what the dead had told before.
//  M3  `entries` counts the LaneEntry objects in the message lane: while it is 0, which is the common case, no message is tested.

import { Ring } from './ring.ts';

/** More control mail than this waits while one message or one slice of work runs. */
export const CONTROL_BATCH = 64;

/** What stands in the message lane without being a message: a due timer, a notice of an end. */
export abstract class LaneEntry {
  abstract readonly kind: 'timer' | 'terminated';
}

export class Mailbox<C> {
  readonly control = new Ring<C>();
  readonly messages = new Ring<unknown>();
  entries = 0;

  pushEntry(entry: LaneEntry): void {
    this.entries++;
    this.messages.push(entry);
  }

  removeEntry(entry: LaneEntry): void {
    if (this.messages.remove(entry)) this.entries--;
  }

  /** Drops timers and notices: they belong to an incarnation, messages to the actor. */
  dropEntries(): void {
    if (this.entries === 0) return;
    this.messages.retain((value) => !(value instanceof LaneEntry));
    this.entries = 0;
  }
}
