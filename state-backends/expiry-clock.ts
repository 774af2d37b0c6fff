// What a ttl is counted by: the processing time of the task, or event time.
//
// Event time here is the operator's own: the watermark, but while timers of event time fire only as far as the one that fires (as if each watermark had come
// by itself), so that what they see does not depend on how far apart watermarks are. What is written counts from the record's timestamp where that is ahead
// of the watermark: nothing is ever gone earlier than its ttl after the record that wrote it, however far watermarks lag behind.
//
// Invariants:
//  T1  `now` never goes back in an attempt, and is finite.
//  T2  What is written before there is any event time begins its ttl with the first watermark.

/** What the engine gives for processing time. */
export interface ExpiryClock {
  /** Never goes back. */
  now(): number;
  /** `nextExpiry` may be earlier than the engine knows. */
  changed(): void;
}

/** What state with a ttl asks. */
export interface TtlClock extends ExpiryClock {
  /** From when on what is written now is counted; `now` or later. */
  stamp(): number;
  readonly event: boolean;
}

/** Event time before the first watermark (T2). */
export const BEFORE_TIME = Number.MIN_SAFE_INTEGER;
/** Event time after the last one. */
const AFTER_TIME = Number.MAX_SAFE_INTEGER;

export function processingClock(clock: ExpiryClock): TtlClock {
  return { now: () => clock.now(), stamp: () => clock.now(), changed: () => clock.changed(), event: false };
}

/** The engine moves it. */
export class EventClock implements TtlClock {
  readonly event = true;
  #now = BEFORE_TIME;
  readonly #timestamp: () => number;

  /** `timestamp`: of what is processed; NaN where it has none. */
  constructor(timestamp: () => number) {
    this.#timestamp = timestamp;
  }

  advance(to: number): void {
    if (to > this.#now) this.#now = Math.min(to, AFTER_TIME);
  }

  now(): number {
    return this.#now;
  }

  stamp(): number {
    const timestamp = this.#timestamp();
    return timestamp > this.#now ? Math.min(timestamp, AFTER_TIME) : this.#now;
  }

  changed(): void {
    // No alarm is set for event time: it moves with watermarks.
  }
}

/** Whether what was written then is gone. */
export function isExpired(written: number, ttl: number, now: number): boolean {
  return written + ttl <= now && written !== BEFORE_TIME;
}
