// The gate of a task: all its input channels. It picks the next element, blocks channels during alignment, merges watermarks.
//
// Who owns what: the gate owns channels' heads, the alignment and the valve; the task decides when to poll and does what the gate's events ask for.

import { Valve, type ValveOutput } from '../time/valve.ts';
import { type Alignment, type AlignmentAction, align, UNALIGNED } from './alignment.ts';
import type { Batch } from './batch.ts';
import type { Channel, Event } from './channel.ts';

export class Gate {
  readonly channels: readonly Channel[];
  readonly valve: Valve;
  /** Channel of the element that `poll` gave last. */
  channel = 0;
  #next = 0;
  #alignment: Alignment = UNALIGNED;
  readonly #open: Set<number>;
  readonly #endedData = new Set<number>();
  readonly #blocking: boolean;

  constructor(channels: readonly Channel[], watermark: number, blocking: boolean) {
    this.channels = channels;
    this.valve = new Valve(channels.length, watermark);
    this.#open = new Set(channels.keys());
    this.#blocking = blocking;
  }

  /** The next event that stands behind no records, of a channel that is not blocked; undefined where there is none. */
  pollEvent(): Event | undefined {
    for (const [index, channel] of this.channels.entries()) {
      if (channel.blocked || !channel.eventNext) continue;
      this.channel = index;
      return channel.take() as Event;
    }
    return undefined;
  }

  /** The next element of a channel that is not blocked, round robin; undefined where there is none. */
  poll(): Batch | Event | undefined {
    const { channels } = this;
    for (let tried = 0; tried < channels.length; tried++) {
      const index = this.#next;
      this.#next = index + 1 === channels.length ? 0 : index + 1;
      const channel = channels[index]!;
      if (channel.blocked) continue;
      const element = channel.take();
      if (element === undefined) continue;
      this.channel = index;
      return element;
    }
    return undefined;
  }

  /** Barriers, cancel markers and ends of channels: says what the task must do; blocking is done here. */
  align(event: Event & { kind: 'barrier' | 'cancel' | 'end' }): AlignmentAction[] {
    const channel = this.channel;
    if (event.kind === 'end') {
      this.#open.delete(channel);
    }
    const arrival =
      event.kind === 'barrier'
        ? { kind: 'barrier' as const, channel, id: event.barrier.id }
        : event.kind === 'cancel'
          ? event
          : { kind: 'end' as const, channel };
    const { state, actions } = align(this.#alignment, arrival, this.#open, this.#blocking);
    this.#alignment = state;
    return actions;
  }

  block(channel: number): void {
    this.channels[channel]!.blocked = true;
  }

  unblock(): void {
    for (const channel of this.channels) channel.blocked = false;
  }

  /** A barrier that comes by mail because no upstream task runs any more. False: it had come by a channel. */
  passed(id: number): boolean {
    const { current, pending } = this.#alignment;
    if (current > id || (current === id && !pending)) return false;
    if (pending) this.unblock();
    this.#alignment = { current: id, pending: false, aligned: new Set() };
    return true;
  }

  watermark(time: number): ValveOutput {
    return this.valve.watermark(this.channel, time);
  }
  idle(): ValveOutput {
    return this.valve.idle(this.channel);
  }
  active(): ValveOutput {
    return this.valve.active(this.channel);
  }

  /** True once every channel has delivered its last record. */
  endOfData(): boolean {
    this.#endedData.add(this.channel);
    return this.#endedData.size === this.channels.length;
  }

  get depth(): number {
    return this.channels.reduce((sum, c) => sum + c.depth, 0);
  }

  withhold(yes: boolean): void {
    for (const channel of this.channels) {
      if (yes) channel.withheld = true;
      else if (channel.withheld) channel.release();
    }
  }
}
