// Time in a task: how far event time and processing time have come, and the timers of its operators.
//
// Who owns what: this owns the task's watermark, its processing time and its one alarm. The task says when time moves and when there is a turn to fire timers
// in; operators are entered here whenever control goes to their code.
//
// Invariants:
//  M1  A watermark leaves after every timer up to it has fired; what is to come behind it waits in `#after`, in order.
//  M2  Neither time goes back, also over a restore, processing time also on a machine whose clock is behind (protocols 24).
//  M3  One alarm is armed, for the earliest processing-time timer.

import type { Event } from './channel.ts';
import type { Clock } from './io.ts';
import type { Operator } from './operator.ts';

/** How firing timers went: all that were due; not all in this turn; or they wait for a promise. */
type Fired = 'done' | 'more' | Promise<void>;

export interface TaskTimeOptions {
  readonly watermark: number;
  /** Restored in the middle of its way. */
  readonly advancing: boolean;
  readonly processingTime: number;
  /** The task had ended before the snapshot: its operators hear of nothing. */
  readonly quiet: boolean;
  readonly clock: Clock;
  readonly signal: (event: Event) => void;
  /** Hands over what is full, after each operator's share of a turn. */
  readonly flush: () => void;
  readonly wake: () => void;
}

export class TaskTime {
  watermark: number;
  readonly #options: TaskTimeOptions;
  #operators: readonly Operator[] = [];
  #processingTime: number;
  #advancing: number | undefined;
  readonly #after: (() => void)[] = [];
  #armed = false;
  #alarm: { at: number; handle: unknown } | undefined;
  #depth = 0;

  constructor(options: TaskTimeOptions) {
    this.#options = options;
    this.watermark = options.watermark;
    if (options.advancing) this.#advancing = options.watermark;
    this.#processingTime = options.processingTime;
  }

  /** Operators are built with a task's time in their hands: they come after it. */
  of(operators: readonly Operator[]): void {
    this.#operators = operators;
  }

  // ── operators' code ──

  /** Control goes to user code: to all operators of the chain, since what one of them emits the next one handles. */
  enter(): void {
    if (this.#depth++ === 0) for (const operator of this.#operators) operator.enter?.();
  }
  leave(): void {
    if (--this.#depth === 0) for (const operator of this.#operators) operator.leave?.();
  }
  entered<R>(run: () => R): R {
    this.enter();
    try {
      return run();
    } finally {
      this.leave();
    }
  }

  // ── event time ──

  /** True while a watermark is on its way through the operators: records wait. */
  get advancing(): boolean {
    return this.#advancing !== undefined;
  }

  afterAdvancing(fn: () => void): void {
    if (this.#advancing === undefined) fn();
    else this.#after.push(fn);
  }

  advanceTo(watermark: number): void {
    if (watermark <= this.watermark && watermark !== Number.POSITIVE_INFINITY) return;
    this.watermark = watermark;
    this.#advancing = watermark;
  }

  /** Fires timers up to the watermark that is on its way; with 'done' it has left (M1). */
  advance(deadline: number): Fired {
    const { quiet, flush, signal } = this.#options;
    const watermark = this.#advancing!;
    if (!quiet) {
      for (const operator of this.#operators) {
        if (operator.advance === undefined) continue;
        const outcome = this.entered(() => operator.advance!(watermark, deadline));
        flush();
        if (outcome !== 'done') return outcome;
      }
      for (const operator of this.#operators) if (operator.watermark !== undefined) this.entered(() => operator.watermark!(watermark));
    }
    this.#advancing = undefined;
    signal({ kind: 'watermark', time: watermark });
    // One of them may send the next watermark: the others wait for that too.
    while (this.#after.length > 0 && this.#advancing === undefined) this.#after.shift()!();
    return 'done';
  }

  // ── processing time ──

  now(): number {
    const now = this.#options.clock.now();
    if (now > this.#processingTime) this.#processingTime = now;
    return this.#processingTime;
  }

  /** By how much the machine's clock is behind the time that has been here already: so long it stands still. Milliseconds, mostly 0. */
  get behind(): number {
    return Math.max(0, this.#processingTime - this.#options.clock.now());
  }

  /** True where a processing-time timer is due. */
  get due(): boolean {
    return this.#alarm !== undefined && !this.#options.quiet && this.#alarm.at <= this.now();
  }

  fireProcessing(deadline: number): Fired {
    const now = this.now();
    for (const operator of this.#operators) {
      if (operator.onProcessingTime === undefined || operator.nextProcessingTime! > now) continue;
      const outcome = this.entered(() => operator.onProcessingTime!(now, deadline));
      this.#options.flush();
      if (outcome !== 'done') return outcome;
    }
    this.#alarm = undefined;
    this.arm();
    return 'done';
  }

  /** M3. Before the task runs nothing is armed: `begin` does that. */
  arm(): void {
    let next = Number.POSITIVE_INFINITY;
    for (const operator of this.#operators) next = Math.min(next, operator.nextProcessingTime ?? Number.POSITIVE_INFINITY);
    if (next === Number.POSITIVE_INFINITY || !this.#armed || (this.#alarm !== undefined && this.#alarm.at <= next)) return;
    const { clock, wake } = this.#options;
    if (this.#alarm !== undefined) clock.clearTimeout(this.#alarm.handle);
    const rung = (): void => {
      // A timer of the machine may ring a little before the clock says so, or, for a far one, long before: then it is set again.
      if (this.now() < next) {
        this.#alarm = undefined;
        this.arm();
      }
      wake();
    };
    const handle = clock.setTimeout(rung, Math.min(2 ** 31 - 1, Math.max(0, next - this.now())));
    this.#alarm = { at: next, handle };
  }

  begin(): void {
    this.#armed = true;
    this.arm();
  }

  close(): void {
    this.#armed = false;
    if (this.#alarm !== undefined) this.#options.clock.clearTimeout(this.#alarm.handle);
  }
}
