// The gate of a task: all its input channels. It picks the next element, blocks channels during alignment, merges watermarks.
//
// Who owns what: the gate owns channels' heads, the alignment and the valve; the task decides when to poll and does what the gate's events ask for. What
// enters a channel reaches the gate in the sender's turn: it notes that, and the task acts in its own.

import { Valve, type ValveOutput } from '../time/valve.ts';
import { type Alignment, type AlignmentAction, type Arrival, align, UNALIGNED } from './alignment.ts';
import type { Batch } from './batch.ts';
import type { Barrier, Channel, Event } from './channel.ts';

export interface GateOptions {
  readonly channels: readonly Channel[];
  readonly watermark: number;
  readonly blocking: boolean;
  /** By channel: true where what stands in it cannot be recorded. */
  readonly forced: readonly boolean[];
  /** A barrier has entered a channel; in the sender's turn. */
  readonly announced: (barrier: Barrier) => void;
  /** Nothing more of that id is recorded: it is whole, or dropped. May be in the sender's turn. */
  readonly recorded: (id: number, whole: boolean) => void;
}

export class Gate {
  readonly channels: readonly Channel[];
  readonly valve: Valve;
  /** Channel of the element that `poll` gave last. */
  channel = 0;
  /** A barrier that is to be taken without waiting, in the next turn. */
  hurried: Barrier | undefined;
  #next = 0;
  #alignment: Alignment = UNALIGNED;
  /** The newest barrier that has entered. */
  #announced: Barrier | undefined;
  readonly #open: Set<number>;
  readonly #endedData = new Set<number>();
  readonly #forced: ReadonlySet<number>;
  readonly #options: GateOptions;

  constructor(options: GateOptions) {
    const { channels, watermark, forced } = options;
    this.#options = options;
    this.channels = channels;
    this.valve = new Valve(channels.length, watermark);
    this.#open = new Set(channels.keys());
    this.#forced = new Set([...channels.keys()].filter((index) => forced[index]));
    for (const [index, channel] of channels.entries()) channel.entered = (event) => this.#entered(index, event);
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

  /** Barriers, cancel markers and ends of channels that were taken: says what the task must do. */
  align(event: Event & { kind: 'barrier' | 'cancel' | 'end' }): AlignmentAction[] {
    const channel = this.channel;
    if (event.kind === 'end') this.#open.delete(channel);
    return this.#align(
      event.kind === 'barrier'
        ? { kind: 'barrier' as const, channel, id: event.barrier.id }
        : event.kind === 'cancel'
          ? event
          : { kind: 'end' as const, channel },
    );
  }

  /** A barrier that comes by mail because no upstream task runs any more: it stands behind the ends of all channels. */
  trigger(barrier: Barrier): AlignmentAction[] {
    this.#note(barrier);
    return this.#align({ kind: 'trigger', id: barrier.id });
  }

  /** The barrier is taken without waiting for more than must be. */
  hurry(barrier: Barrier): AlignmentAction[] {
    this.hurried = undefined;
    this.#note(barrier);
    return this.#align({ kind: 'hurry', id: barrier.id });
  }

  /** Nobody wants a recording of that id, or of one before, any more; and what has not come of their barriers may never come. */
  abort(id: number): AlignmentAction[] {
    this.#align({ kind: 'cancel entered', id });
    const { pending, current } = this.#alignment;
    return pending && current <= id ? this.#align({ kind: 'cancel', id }) : [];
  }

  /** Of the barrier of that id, as it was announced. */
  barrierOf(id: number): Barrier {
    return this.#announced?.id === id ? this.#announced : { id, startedAt: 0, stop: false };
  }

  #align(arrival: Arrival): AlignmentAction[] {
    const { state, actions } = align(this.#alignment, arrival, this.#open, this.#options.blocking, this.#forced);
    this.#alignment = state;
    for (const action of actions) {
      if (action.kind === 'stop') this.channels[action.channel]!.recorder = undefined;
      else if (action.kind === 'drop') {
        for (const channel of this.channels) channel.recorder = undefined;
        this.#options.recorded(action.id, false);
      }
    }
    return actions;
  }

  #entered(channel: number, event: Event & { kind: 'barrier' | 'cancel' | 'end' }): void {
    if (event.kind === 'barrier') {
      const { barrier } = event;
      this.#note(barrier);
      this.#told(this.#align({ kind: 'barrier entered', channel, id: barrier.id }));
      this.#options.announced(barrier);
    } else if (event.kind === 'cancel') this.#align({ kind: 'cancel entered', id: event.id });
    else this.#told(this.#align({ kind: 'end entered', channel }));
  }

  #note(barrier: Barrier): void {
    if (this.#announced === undefined || barrier.id >= this.#announced.id) this.#announced = barrier;
  }

  #told(actions: readonly AlignmentAction[]): void {
    for (const action of actions) if (action.kind === 'recorded') this.#options.recorded(action.id, true);
  }

  block(channel: number): void {
    this.channels[channel]!.blocked = true;
  }

  unblock(): void {
    for (const channel of this.channels) channel.blocked = false;
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
