// What handlers see of timers. Types only.

/** Timers of the current key; they are part of checkpoints. */
export interface Timers {
  /** Fire when the watermark has reached their time. */
  readonly event: TimerDomain;
  /** Fire when the clock has. */
  readonly processing: TimerDomain;
}
/** Times are epoch milliseconds; TIMER_INVALID where they are none. */
export interface TimerDomain {
  /** Unique by key and time: setting it twice fires it once. */
  set(at: number): void;
  delete(at: number): void;
}
