// Windows: any assigner, trigger, evictor and function, one operator. What `window-slices.ts` can do it does faster.
//
// What: a record goes into each of its windows that is not over: it is added to the contents, the trigger is asked, the window is given a timer for its end.
// Windows that merge are one step more in front of that: the window that a record brings grows together with those of its key that it touches.
//
// Who owns what: this owns the windows of a key and the timers of their ends; the contents (window-contents.ts), the program's function
// (window-function.ts) and the trigger (window-trigger.ts) own their tables. All name a window by an id: its start, or 0 for the global one, or, where an
// assigner says what it likes or windows merge, a number whose row `.windows` has (start, end, number of the trigger's timers). Both numbers are made of
// bounds: the id of those the window began with, the other one of those it has.
//
// Invariants:
//  X1  A window is over when its last millisecond + lateness is behind the watermark (of processing time: when its last millisecond has come). Then
//      contents, state and its row are gone; what is left of its timers finds no window, or one that is over, and does nothing.
//  X2  A window has a timer in `.ends` at or before the time at which it is over. A timer that comes early, because the window has grown meanwhile, is
//      set again.
//  X3  The plain trigger is run here: a timer of `.ends` at the last millisecond fires the window; a record that comes after it fires it at once.
//  X4  A firing is a unit of its own. One that fails and is skipped counts as fired; the contents stay until the window is over (protocols 15).
//  X5  Of timers with the same time the trigger's come first, the end of the window last.
//  X6  Windows of a key that merge neither overlap nor touch. Growing gives a window's trigger new timers, and asks it which.

import type { GroupedTable, Key, Row, TimerRow, TimerTable } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import { MAIN, type WindowBounds, type WindowSpec } from '../graph/node.ts';
import type { Emit, Operator, OperatorEnvironment } from '../runtime/operator.ts';
import type { StatePart } from '../runtime/parts.ts';
import { fireTimers, fireTimersOfTwo } from '../runtime/timers.ts';
import { startBefore, startOf } from '../time/windows.ts';
import { Accumulators, type Contents, Elements } from './window-contents.ts';
import { LAST_TIME, noTimestamp, WindowDefinition } from './window-definition.ts';
import { type Called, windowFunction } from './window-function.ts';
import { slicedWindowOperator } from './window-slices.ts';
import { RunningTrigger, type Verdict, type WindowOfKey } from './window-trigger.ts';

type Time = 'event' | 'processing';
/** start, end, number of the trigger's timers. */
type Stored = readonly [start: number, end: number, timers: number];

const ALL_TIME: WindowBounds = Object.freeze({ start: Number.NEGATIVE_INFINITY, end: Number.POSITIVE_INFINITY });

class WindowOperator implements Operator {
  readonly #environment: OperatorEnvironment;
  readonly #uid: string;
  readonly #spec: WindowSpec;
  readonly #event: boolean;
  readonly #lateness: number;
  readonly #contents: Contents;
  readonly #called: Called | undefined;
  /** Undefined: the plain trigger (X3). */
  readonly #trigger: RunningTrigger | undefined;
  readonly #ends: TimerTable;
  /** Undefined: the id says what the bounds are. */
  readonly #windows: GroupedTable | undefined;
  readonly #definition: WindowDefinition;
  readonly #late: Emit | undefined;
  readonly counts = { lateDropped: 0 };
  readonly #fixed: { readonly size: number; readonly slide: number; readonly offset: number } | undefined;
  // What fires by the timer of its end; fields, since there are as many firings as results.
  #firing: { key: Key; hash: number; id: number; bounds: WindowBounds } = { key: 0, hash: 0, id: 0, bounds: ALL_TIME };
  readonly #fireNow = (): void => this.#contents.fire(this.#firing.key, this.#firing.hash, this.#firing.id, this.#firing.bounds);
  /** Of the record that is added; NaN while timers fire. */
  #timestamp = Number.NaN;
  readonly #windowNow = (): unknown => ({ window: this.#firing.bounds });

  constructor(environment: OperatorEnvironment, spec: WindowSpec) {
    const { uid } = environment;
    const { shape, makes, evictor } = spec;
    const state = environment.state();
    const emit = environment.output(MAIN)!;
    this.#environment = environment;
    this.#uid = uid;
    this.#spec = spec;
    this.#event = spec.time === 'event';
    this.#lateness = this.#event ? spec.lateness : 0;
    this.#fixed = shape.kind === 'fixed' ? shape : undefined;
    if (makes.kind === 'aggregate' && evictor === undefined) {
      this.#contents = new Accumulators(environment, makes.fn, emit, spec.all);
      this.#called = undefined;
    } else {
      this.#called = windowFunction(environment, spec, emit, () => this.#timestamp);
      this.#contents = new Elements(environment, spec, this.#called.call);
    }
    this.#definition = new WindowDefinition(environment, spec, this.#contents.layout);
    this.#trigger = spec.plain ? undefined : new RunningTrigger(environment, spec.trigger);
    this.#ends = state.timers(uid, '.ends');
    this.#windows = shape.kind === 'session' || shape.kind === 'assigned' ? state.ordered(uid, '.windows') : undefined;
    this.#late = environment.output(spec.lateOutput);
  }

  // ── records ──

  process(value: unknown, timestamp: number, key: Key, hash: number): void {
    this.#timestamp = timestamp;
    this.#record(value, timestamp, false, key, hash);
  }
  processRight(value: unknown, timestamp: number, key: Key, hash: number): void {
    this.#timestamp = timestamp;
    this.#record(value, timestamp, true, key, hash);
  }

  #record(value: unknown, timestamp: number, right: boolean, key: Key, hash: number): void {
    const at = this.#event ? timestamp : this.#environment.now();
    if (this.#windows !== undefined) {
      this.#recordAssigned(value, timestamp, at, right, key, hash);
      return;
    }
    if (this.#fixed === undefined) {
      this.#element(value, timestamp, right, key, hash, 0, 0, ALL_TIME.start, ALL_TIME.end);
      return;
    }
    // NaN is none either.
    if (!(at >= -LAST_TIME && at <= LAST_TIME)) throw noTimestamp(this.#uid, at);
    const { size, slide, offset } = this.#fixed;
    const lastStart = startOf(at, slide, offset);
    if (at >= lastStart + size) return; // in the gap between windows
    if (this.#isOver(lastStart + size)) {
      this.#recordLate(value, timestamp);
      return;
    }
    for (let start = lastStart; at < start + size && !this.#isOver(start + size); start = startBefore(start, slide, offset))
      this.#element(value, timestamp, right, key, hash, start, start, start, start + size);
  }

  /** Windows of which the assigner says the bounds. */
  #recordAssigned(value: unknown, timestamp: number, at: number, right: boolean, key: Key, hash: number): void {
    // An own assigner may have a window for +∞; NaN is none for any.
    if (!(at >= -LAST_TIME && at <= LAST_TIME) && (this.#spec.shape.kind === 'session' || Number.isNaN(at))) throw noTimestamp(this.#uid, at);
    let assigned = false;
    let taken = false;
    // −0 is 0.
    for (const { start, end } of this.#spec.assign(value, at + 0)) {
      if (!(start < end))
        throw new MillraceError('USER_FUNCTION_FAILED', `The assigner of '${this.#uid}' gives a window from ${start} to ${end}.`, {
          uid: this.#uid,
          todo: 'A window begins before it ends.',
        });
      assigned = true;
      const row = this.#spec.merges ? this.#grown(start, end, key, hash) : this.#same(start, end, key, hash);
      if (row === undefined) continue;
      taken = true;
      const [from, to, timers] = row.value as Stored;
      this.#element(value, timestamp, right, key, hash, row.ns as number, timers, from, to);
    }
    if (assigned && !taken && timestamp + this.#lateness <= this.#environment.watermark()) this.#recordLate(value, timestamp);
  }

  #recordLate(value: unknown, timestamp: number): void {
    if (this.#late === undefined) this.counts.lateDropped += 1;
    else this.#late(value, timestamp);
  }

  /** X1, of a window that ends there. Windows of processing time end with their timers only: no record is late for them. */
  #isOver(end: number): boolean {
    return this.#event && end - 1 + this.#lateness <= this.#environment.watermark();
  }

  #element(value: unknown, timestamp: number, right: boolean, key: Key, hash: number, id: number, timers: number, start: number, end: number): void {
    const opened = this.#contents.add(value, timestamp, right, key, hash, id);
    const trigger = this.#trigger;
    const last = end - 1;
    if (trigger === undefined) {
      if (this.#event && last <= this.#environment.watermark()) {
        if (opened) this.#setEnd(last + this.#lateness, key, hash, id);
        this.#contents.fire(key, hash, id, { start, end });
      } else if (opened || this.#lateness > 0) {
        // With lateness, also for one that was there: after a restore event time may stand before an end for which it fired already.
        this.#setEnd(last, key, hash, id);
      }
      return;
    }
    const window = { bounds: end === Number.POSITIVE_INFINITY && start === Number.NEGATIVE_INFINITY ? ALL_TIME : { start, end }, id, timers };
    this.#obey(trigger.onElement(value, timestamp, key, hash, window), key, hash, window);
    if (opened && this.#spec.shape.kind !== 'global') this.#setEnd(last + this.#lateness, key, hash, id);
  }

  #obey({ fire, purge }: Verdict, key: Key, hash: number, { id, bounds }: WindowOfKey): void {
    if (fire) this.#contents.fire(key, hash, id, bounds);
    if (purge) this.#contents.clear(key, hash, id);
  }

  #setEnd(at: number, key: Key, hash: number, id: number): void {
    if (this.#ends.set(at, key, hash, id) && !this.#event) this.#environment.timersChanged();
  }

  // ── windows that an assigner says ──

  /** The row of exactly that window; undefined where it is over. */
  #same(start: number, end: number, key: Key, hash: number): Row | undefined {
    if (this.#isOver(end)) return undefined;
    const table = this.#windows!;
    for (const row of table.find(key, hash)?.rows ?? []) {
      const [from, to] = row.value as Stored;
      if (from === start && to === end) return row;
    }
    return this.#open(start, end, key, hash);
  }

  #open(start: number, end: number, key: Key, hash: number): Row {
    const table = this.#windows!;
    const group = table.find(key, hash) ?? table.insert(key, hash);
    const timers = numberOf(start, end);
    // No other window that is there began as this one: it would have been found, or have been touched.
    let id = timers;
    while (table.row(group, id) !== undefined) id += 1;
    return table.insertRow(group, id, [start, end, timers] satisfies Stored);
  }

  /** The row of the window that [start, end) is part of, grown together with those that it touches; undefined where it is over. */
  #grown(start: number, end: number, key: Key, hash: number): Row | undefined {
    const table = this.#windows!;
    const rows = table.find(key, hash)?.rows ?? [];
    let touched: Row | undefined;
    let more: Row[] | undefined;
    for (const row of rows) {
      const [from, to] = row.value as Stored;
      if (start > to || end < from) continue;
      if (touched === undefined) touched = row;
      else if (more === undefined) more = [touched, row];
      else more.push(row);
    }
    if (touched === undefined) return this.#isOver(end) ? undefined : this.#open(start, end, key, hash);
    if (more === undefined) {
      const [from, to] = touched.value as Stored;
      if (start >= from && end <= to) return touched;
    }
    const merged = (more ?? [touched]).sort((one, other) => (one.value as Stored)[0] - (other.value as Stored)[0]);
    const kept = merged[0]!;
    const before = kept.value as Stored;
    const from = Math.min(start, before[0]);
    const to = Math.max(end, (merged[merged.length - 1]!.value as Stored)[1]);
    const window = { bounds: { start: from, end: to }, id: kept.ns as number, timers: this.#trigger === undefined ? before[2] : numberOf(from, to) };
    const others = merged.slice(1);
    table.put(kept, [from, to, window.timers] satisfies Stored);
    const group = table.find(key, hash)!;
    for (const row of others) table.deleteRow(group, row);
    const ids = others.map((row) => row.ns as number);
    this.#trigger?.onMerge(key, hash, window, ids);
    if (ids.length > 0) {
      this.#contents.merge(key, hash, window.id, ids);
      this.#called?.windowKinds?.merge(key, hash, window.id, ids);
    }
    // The timer of the end that the window had before comes first, and finds that it has grown (X2); not where that end has been.
    if (this.#trigger === undefined && this.#event && before[1] - 1 <= this.#environment.watermark() && to - 1 > this.#environment.watermark())
      this.#setEnd(to - 1, key, hash, window.id);
    return kept;
  }

  // ── time ──

  advance(watermark: number, deadline: number): 'done' | 'more' | Promise<void> {
    this.#timestamp = Number.NaN;
    const fired = this.#fireTimers('event', watermark, deadline);
    const called = this.#called;
    if (fired !== 'done' || called?.kinds === undefined) return fired;
    called.eventClock.advance(watermark);
    // Behind the end of time nobody asks any more.
    return watermark === Number.POSITIVE_INFINITY ? 'done' : called.kinds.expireEvent(deadline);
  }

  get nextProcessingTime(): number {
    const next = Math.min(this.#event ? Number.POSITIVE_INFINITY : this.#ends.next, this.#trigger?.processing.next ?? Number.POSITIVE_INFINITY);
    return Math.min(next, this.#called?.kinds?.nextExpiry ?? Number.POSITIVE_INFINITY);
  }

  onProcessingTime(now: number, deadline: number): 'done' | 'more' | Promise<void> {
    this.#timestamp = Number.NaN;
    const fired = this.#fireTimers('processing', now, deadline);
    const kinds = this.#called?.kinds;
    return fired === 'done' && kinds !== undefined && kinds.nextExpiry <= now ? kinds.expire(now, deadline) : fired;
  }

  #fireTimers(domain: Time, until: number, deadline: number): 'done' | 'more' | Promise<void> {
    const ends = (domain === 'event') === this.#event ? this.#ends : undefined;
    const triggers = this.#trigger?.[domain];
    const clock = domain === 'event' ? this.#called?.eventClock : undefined;
    const end = (timer: TimerRow): void => {
      clock?.advance(timer.time);
      this.#onEnd(timer);
    };
    const asked = (timer: TimerRow): void => {
      clock?.advance(timer.time);
      this.#onTriggerTimer(domain, timer);
    };
    if (triggers === undefined) return ends === undefined ? 'done' : fireTimers(ends, until, deadline, end);
    return ends === undefined ? fireTimers(triggers, until, deadline, asked) : fireTimersOfTwo(triggers, asked, ends, end, until, deadline);
  }

  /** The bounds of the window of that id; undefined where there is none. */
  #boundsOf(key: Key, hash: number, id: number): WindowBounds | undefined {
    if (this.#fixed !== undefined) return { start: id, end: id + this.#fixed.size };
    if (this.#windows === undefined) return ALL_TIME;
    const group = this.#windows.find(key, hash);
    const row = group === undefined ? undefined : this.#windows.row(group, id);
    if (row === undefined) return undefined;
    const [start, end] = row.value as Stored;
    return { start, end };
  }

  #onEnd({ time, key, hash, ns: id }: TimerRow): void {
    const bounds = this.#boundsOf(key, hash, id);
    if (bounds === undefined) return;
    const last = bounds.end - 1;
    const over = last + this.#lateness;
    if (this.#trigger === undefined) {
      if (time < last) {
        this.#setEnd(last, key, hash, id);
        return;
      }
      if (time === last) {
        this.#firing = { key, hash, id, bounds };
        this.#environment.unit(this.#fireNow, this.#windowNow, key, last);
      }
    }
    if (time < over) this.#setEnd(over, key, hash, id);
    else this.#end(key, hash, id, bounds);
  }

  #onTriggerTimer(domain: Time, { time, key, hash, ns }: TimerRow): void {
    const window = this.#windowOfTimers(key, hash, ns);
    if (window === undefined || (this.#windows === undefined && this.#wasOver(domain, time, window.bounds.end))) return;
    const trigger = this.#trigger!;
    this.#environment.unit(
      () => this.#obey(trigger.onTimer(domain, time, key, hash, window), key, hash, window),
      () => ({ timer: { at: time, domain }, window: window.bounds }),
      key,
      domain === 'event' ? time : Number.NaN,
    );
  }

  #windowOfTimers(key: Key, hash: number, timers: number): WindowOfKey | undefined {
    if (this.#windows === undefined) return { bounds: this.#boundsOf(key, hash, timers)!, id: timers, timers };
    for (const row of this.#windows.find(key, hash)?.rows ?? []) {
      const [start, end, of] = row.value as Stored;
      if (of === timers) return { bounds: { start, end }, id: row.ns as number, timers };
    }
    return undefined;
  }

  /** Whether a window without a row was over when that timer was due: timers come in the order of time, the end last (X5). */
  #wasOver(domain: Time, time: number, end: number): boolean {
    const over = end - 1 + this.#lateness;
    if (domain === this.#spec.time) return time > over;
    return over <= (this.#event ? this.#environment.watermark() : this.#environment.now());
  }

  /** X1. What the program has to say at the end is a unit of its own; if that fails and is skipped, the window is over all the same. */
  #end(key: Key, hash: number, id: number, bounds: WindowBounds): void {
    const trigger = this.#trigger;
    const called = this.#called;
    const group = this.#windows?.find(key, hash);
    const row = group === undefined ? undefined : this.#windows!.row(group, id);
    if (trigger?.clears === true || called?.onClear !== undefined) {
      const timers = row === undefined ? id : (row.value as Stored)[2];
      this.#environment.unit(
        () => {
          trigger?.onClear(key, hash, { bounds, id, timers });
          called?.onClear?.(key, hash, id, bounds);
        },
        () => ({ handler: 'onClear', window: bounds }),
        key,
        bounds.end - 1,
      );
    }
    this.#contents.clear(key, hash, id);
    trigger?.kinds.drop(key, hash, id);
    called?.windowKinds?.drop(key, hash, id);
    if (row !== undefined) this.#windows!.deleteRow(group!, row);
  }

  // ── snapshots ──

  snapshot(): Readonly<Record<string, StatePart>> {
    return this.#definition.snapshot();
  }
}

const bits = new DataView(new ArrayBuffer(16));

/** A number of 53 bits that stands for these bounds. */
function numberOf(start: number, end: number): number {
  bits.setFloat64(0, start + 0);
  bits.setFloat64(8, end + 0);
  let a = 0x9e3779b9;
  let b = 0x85ebca6b;
  for (let i = 0; i < 16; i += 4) {
    const word = bits.getUint32(i);
    a = Math.imul(a ^ word ^ (a >>> 15), 0x2c1b3c6d);
    b = Math.imul(b ^ word ^ (b >>> 13), 0x297a2d39);
  }
  a = Math.imul(a ^ (a >>> 16), 0x7feb352d) ^ Math.imul(b ^ (b >>> 13), 0x846ca68b);
  b = Math.imul(b ^ (b >>> 16), 0x7feb352d) ^ Math.imul(a ^ (a >>> 13), 0x846ca68b);
  return (b & 0x1fffff) * 2 ** 32 + (a >>> 0);
}

export function windowOperator(environment: OperatorEnvironment, spec: WindowSpec): Operator {
  return slicedWindowOperator(environment, spec) ?? new WindowOperator(environment, spec);
}
