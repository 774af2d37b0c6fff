// Event-time windows of fixed size, by slices: tumbling and sliding, aggregated, fired at their end; one operator. All others: window.ts.
//
// What: time is cut into slices of gcd(size, slide) milliseconds. A record is added to the one slice it falls into, whatever size/slide is; when a
// window fires, the slices it covers are merged. Without `merge` a slice is a whole window and a record is added to each window it belongs to.
//
// Who owns what: `slices` rows (key, slice start) → accumulator; `timers` rows (key, time), ns FIRE, CLEANUP, AGAIN; `early` timers in processing time.
//
// Invariants:
//  W1  A window [start, end) of a key fires at watermark end − 1 where it has an element, and again at once for each element that comes later but
//      within the allowed lateness. Results carry timestamp end − 1.
//  W2  A record all of whose windows are past end − 1 + lateness changes nothing: it goes to the late output, or is counted.
//  W3  A slice is dropped when the last window that covers it is past end − 1 + lateness.
//  W4  For each key with slices there is a FIRE timer at the earliest window end that is still to fire and covers one of them.
//      Windows that had fired before a restore which event time begins in front of are none of them: one that has got another element since has an AGAIN.
//  W5  What leaves is never what stays: a result that is the accumulator is copied, a merge starts from a fresh accumulator (protocols 16).

import { copy, type Group, type GroupedTable, type Row, type TimerRow, type TimerTable } from '../../state-backends/index.ts';
import type { Key } from '../graph/job.ts';
import { type AnyAggregate, MAIN, type WindowSpec } from '../graph/node.ts';
import { fresh } from '../runtime/fresh.ts';
import { rejectThenable } from '../runtime/handlers.ts';
import type { Emit, Operator, OperatorEnvironment } from '../runtime/operator.ts';
import type { StatePart } from '../runtime/parts.ts';
import { dueTimers, fireTimers } from '../runtime/timers.ts';
import { isWhole, startOf } from '../time/windows.ts';
import { exactOf, isInOrder, isKept, isPure } from './aggregates.ts';
import { INEXACT, type SharedMerges, sharedMerges, WORTH_SHARING } from './shared-merges.ts';
import { LAST_TIME, noTimestamp, WindowDefinition } from './window-definition.ts';

const FIRE = 0;
const CLEANUP = 1;
const AGAIN = 2;
/** Part of the snapshot: how far event time had come. */
const REACHED = 'reached';

export function gcd(a: number, b: number): number {
  while (b !== 0) [a, b] = [b, a % b];
  return a;
}

interface AddDependencies {
  readonly slices: GroupedTable;
  readonly fn: AnyAggregate;
  readonly size: number;
  readonly slide: number;
  readonly width: number;
  readonly offset: number;
  readonly lateness: number;
  readonly sliced: boolean;
  readonly startOf: (timestamp: number, width: number, offset: number) => number;
  readonly watermark: () => number;
  readonly lastTime: number;
  readonly noTimestamp: (timestamp: number) => Error;
  readonly reject: (result: object) => void;
  /** Called when a slice of a key is new. */
  readonly opened: (group: Group, slice: number) => void;
  readonly late: (value: unknown, timestamp: number) => void;
  /** What else a record makes happen, once it has been added; undefined where nothing can. */
  readonly added: ((timestamp: number, lastStart: number, watermark: number, key: Key, hash: number) => void) | undefined;
}

/** The per-record path. Free of outside names: see fresh.ts. */
const adding = (dependencies: AddDependencies) => {
  const { slices, fn, size, slide, width, offset, lateness, sliced, startOf, watermark, lastTime, noTimestamp, reject, opened, late, added } = dependencies;
  // The slice of the record before, in which most records are too, and the start of the last window that covers it. With fractions no sum is exact.
  const exact = Number.isInteger(width) && Number.isInteger(offset);
  let slice = Number.NaN;
  let sliceEnd = Number.NaN;
  let lastStart = Number.NaN;
  // A key often comes several times in a row.
  let last: Group | undefined;
  const add = (value: unknown, key: Key, hash: number, ns: number): void => {
    let group = last;
    if (group === undefined || group.key !== key || !slices.holds(group)) {
      group = slices.find(key, hash) ?? slices.insert(key, hash);
      last = group;
    }
    let row = slices.row(group, ns);
    if (row === undefined) {
      row = slices.insertRow(group, ns, fn.create());
      opened(group, ns);
    } else slices.touch(row);
    if (group.derived !== undefined && ns < (group.derived as SharedMerges).until) group.derived = undefined;
    const held = fn.add(row.value, value);
    if (typeof held === 'object' && held !== null && 'then' in held) reject(held);
    row.value = held;
  };
  return (value: unknown, timestamp: number, key: Key, hash: number): void => {
    if (!(timestamp >= slice && timestamp < sliceEnd)) {
      // NaN neither.
      if (!(timestamp >= -lastTime && timestamp <= lastTime)) throw noTimestamp(timestamp);
      slice = startOf(timestamp, width, offset);
      sliceEnd = exact ? slice + width : Number.NaN;
      lastStart = width === slide ? slice : startOf(timestamp, slide, offset);
    }
    if (timestamp >= lastStart + size) return; // in the gap between windows
    const now = watermark();
    if (lastStart + size - 1 + lateness <= now) {
      late(value, timestamp);
      return;
    }
    if (sliced) add(value, key, hash, slice);
    else for (let start = lastStart; start > timestamp - size && start + size - 1 + lateness > now; start -= slide) add(value, key, hash, start);
    if (added !== undefined) added(timestamp, lastStart, now, key, hash);
  };
};

/** What fires by its timer, for whoever asks meanwhile. */
interface Firing {
  group: Group | undefined;
  start: number;
  time: number;
}

interface FireDependencies {
  readonly slices: GroupedTable;
  readonly timers: TimerTable;
  readonly fn: AnyAggregate;
  readonly size: number;
  readonly slide: number;
  readonly width: number;
  readonly offset: number;
  readonly lateness: number;
  readonly sliced: boolean;
  readonly all: boolean;
  readonly pure: boolean;
  readonly kept: boolean;
  readonly startOf: (timestamp: number, width: number, offset: number) => number;
  readonly copy: (value: unknown) => unknown;
  readonly reject: (result: unknown) => void;
  /** Where windows share merges; see shared-merges.ts. */
  readonly share: ((group: Group, start: number, end: number) => unknown) | undefined;
  readonly inexact: symbol;
  readonly emit: Emit;
  readonly firing: Firing;
  /** Runs a firing so that it can be undone; undefined: nothing is undone. */
  readonly unit: ((run: () => void) => void) | undefined;
  /** A slice is gone. */
  readonly dropped: ((key: Key, hash: number, lastStart: number) => void) | undefined;
}

interface Fires {
  /** `onTime`: by its timer, and so outside of any record's unit. Nothing happens where the window has no element. */
  readonly fire: (group: Group, start: number, onTime: boolean) => void;
  /** What becomes of a timer that is due. */
  readonly due: (timer: TimerRow) => void;
}

/** The path of each result. Free of outside names: see fresh.ts. */
const firings = (dependencies: FireDependencies): Fires => {
  const { slices, timers, fn, size, slide, width, offset, lateness, sliced, all, pure, kept } = dependencies;
  const { startOf, copy, reject, share, inexact, emit, firing, unit, dropped } = dependencies;
  const FIRE = 0;
  const CLEANUP = 1;
  // With fractions no sum is exact.
  const exact = Number.isInteger(width) && Number.isInteger(slide) && Number.isInteger(size) && Number.isInteger(offset);
  /** A window is one slice. */
  const whole = !sliced || width === size;

  const merged = (rows: readonly Row[], from: number, end: number): unknown => {
    let held = fn.create();
    for (let i = from; i < rows.length; i++) {
      const row = rows[i]!;
      if ((row.ns as number) >= end) break;
      const right = row.value;
      if (!pure) slices.touch(row);
      held = fn.merge!(held, right);
      if (typeof held === 'object' && held !== null) {
        if ('then' in held) reject(held);
        if (held === right && !kept) held = copy(held);
      }
    }
    return held;
  };

  const fire = (group: Group, start: number, onTime: boolean): void => {
    const { rows } = group;
    const end = start + size;
    // From the oldest: windows fire in order of time, and what is behind them is dropped.
    let from = 0;
    while (from < rows.length && (rows[from]!.ns as number) < start) from += 1;
    if (from === rows.length) return;
    const row = rows[from]!;
    let value: unknown;
    if (whole) {
      if (row.ns !== start) return;
      const held = row.value;
      if (typeof held === 'object' && !pure) slices.touch(row);
      value = fn.result(held);
      if (typeof value === 'object' && value !== null) {
        if ('then' in value) reject(value);
        if (value === held && !kept) value = copy(value);
      }
    } else {
      if ((row.ns as number) >= end) return;
      let held = onTime && share !== undefined ? share(group, start, end) : inexact;
      if (held === inexact) held = merged(rows, from, end);
      value = fn.result(held);
      if (typeof value === 'object' && value !== null && 'then' in value) reject(value);
    }
    emit({ key: all ? null : group.key, start, end, value }, end - 1);
  };

  /** Drops the slices whose last window ended (cleanup included) at or before `last` (W3). */
  const drop = (group: Group, last: number): void => {
    const { rows } = group;
    const { key, hash } = group;
    const lastOver = last + 1 - size;
    for (let row = rows[0]; row !== undefined; row = rows[0]) {
      const slice = row.ns as number;
      if (exact) {
        if (slice >= lastOver + slide) return;
      } else if ((sliced ? startOf(slice, slide, offset) : slice) + size - 1 > last) return;
      slices.deleteRow(group, row);
      if (dropped !== undefined) dropped(key, hash, sliced ? startOf(slice, slide, offset) : slice);
    }
  };

  /** After the window before `after` fired: the timer is for the next window of the key that covers a slice (W4). */
  const moveOn = (timer: TimerRow, group: Group, after: number): void => {
    const { rows } = group;
    let next = 0;
    while (next < rows.length && (rows[next]!.ns as number) < after) next += 1;
    if (next === rows.length) {
      timers.take(timer);
      return;
    }
    const slice = rows[next]!.ns as number;
    let first = slice;
    if (sliced) first = exact && slice < after + size ? after : Math.max(after, startOf(slice + width - 1 - size, slide, offset) + slide);
    timers.move(timer, first + size - 1);
  };

  const fireNow = (): void => fire(firing.group!, firing.start, true);

  const due = (timer: TimerRow): void => {
    const { time, key, hash, ns } = timer;
    const group = slices.find(key, hash);
    if (group === undefined) {
      timers.take(timer);
      return;
    }
    if (ns === CLEANUP) {
      timers.take(timer);
      drop(group, time - lateness);
      return;
    }
    const start = time + 1 - size;
    // The next firing is set first, so that a firing that fails and is skipped does not end the chain of firings (W4).
    if (ns === FIRE) moveOn(timer, group, start + slide);
    else timers.take(timer);
    firing.group = group;
    firing.start = start;
    firing.time = time;
    if (unit === undefined) fire(group, start, true);
    else unit(fireNow);
    if (lateness === 0) drop(group, time);
  };

  return { fire, due };
};

/** What the operator is built from: windows of event time, a function that accumulates, the plain trigger or `early()`. */
export interface SlicedSpec {
  readonly size: number;
  readonly slide: number;
  readonly offset: number;
  readonly lateness: number;
  readonly earlyEvery: number;
  readonly earlyCount: number;
  readonly fn: AnyAggregate;
  readonly lateOutput: string;
  readonly all: boolean;
}

/** Undefined where these windows cannot be kept by slices. */
export function slicedSpec({ shape, time, makes, plain, early, evictor, lateness, lateOutput, all }: WindowSpec): SlicedSpec | undefined {
  if (shape.kind !== 'fixed' || time !== 'event' || makes.kind !== 'aggregate' || evictor !== undefined || !(plain || early !== undefined)) return undefined;
  const { size, slide, offset } = shape;
  // Sums of slices must be exact.
  if (!isWhole(size, offset) || !isWhole(slide, offset)) return undefined;
  return { size, slide, offset, lateness, earlyEvery: early?.every ?? 0, earlyCount: early?.count ?? 0, fn: makes.fn, lateOutput, all };
}

class SlicedWindowOperator implements Operator {
  readonly #spec: SlicedSpec;
  /** Width of a slice; `sliced` says whether windows are merged from slices. */
  readonly #width: number;
  readonly #sliced: boolean;
  readonly #slices: GroupedTable;
  readonly #timers: TimerTable;
  readonly #early: TimerTable | undefined;
  readonly #earlyCounts: GroupedTable | undefined;
  readonly process: (value: unknown, timestamp: number, key: Key, hash: number) => void;
  readonly #fires: Fires;
  readonly #late: Emit | undefined;
  readonly #environment: OperatorEnvironment;
  readonly counts = { lateDropped: 0 };
  readonly #firing: Firing = { group: undefined, start: 0, time: 0 };
  readonly #window = (): unknown => ({ window: { start: this.#firing.start, end: this.#firing.start + this.#spec.size } });
  readonly #key = (): Key | undefined => this.#firing.group?.key;

  readonly #definition: WindowDefinition;
  /** What ends up to here had its firing before the restore. */
  readonly #reached: number;

  constructor(environment: OperatorEnvironment, windows: WindowSpec, spec: SlicedSpec) {
    const { uid } = environment;
    const { fn, size, slide, offset } = spec;
    this.#environment = environment;
    this.#spec = spec;
    this.#sliced = (fn.merge !== undefined && !isInOrder(fn)) || size === slide;
    this.#width = this.#sliced ? gcd(size, slide) : slide;
    this.#definition = new WindowDefinition(environment, windows, this.#sliced ? 'aggregated by slices' : 'aggregated');
    this.#reached = Math.max(Number.NEGATIVE_INFINITY, ...((environment.restored(REACHED) ?? []) as readonly number[]));
    const state = environment.state();
    this.#slices = state.ordered(uid, 'slices');
    this.#timers = state.timers(uid, 'timers', spec.lateness === 0);
    this.#early = spec.earlyEvery > 0 ? state.timers(uid, 'early') : undefined;
    this.#earlyCounts = spec.earlyCount > 0 ? state.ordered(uid, 'early-counts') : undefined;
    const reject = (result: object): void => rejectThenable(result, uid);
    const early = this.#early !== undefined || this.#earlyCounts !== undefined;
    this.process = fresh<AddDependencies, (value: unknown, timestamp: number, key: Key, hash: number) => void>(
      adding,
      `window-${uid}`,
    )({
      slices: this.#slices,
      fn,
      size,
      slide,
      width: this.#width,
      offset,
      lateness: spec.lateness,
      sliced: this.#sliced,
      startOf,
      watermark: environment.watermark,
      lastTime: LAST_TIME,
      noTimestamp: (timestamp) => noTimestamp(uid, timestamp),
      reject,
      opened: (group, slice) => this.#opened(group, slice),
      late: (value, timestamp) => {
        if (this.#late === undefined) this.counts.lateDropped += 1;
        else this.#late(value, timestamp);
      },
      added:
        spec.lateness === 0 && !early
          ? undefined
          : (timestamp, lastStart, watermark, key, hash) => {
              if (spec.lateness > 0) this.#fireLate(timestamp, lastStart, watermark, key, hash);
              if (early) this.#changed(lastStart, timestamp, watermark, key, hash);
            },
    });
    const exact = exactOf(fn);
    const firing = this.#firing;
    this.#fires = fresh<FireDependencies, Fires>(
      firings,
      `fire-${uid}`,
    )({
      slices: this.#slices,
      timers: this.#timers,
      fn,
      size,
      slide,
      width: this.#width,
      offset,
      lateness: spec.lateness,
      sliced: this.#sliced,
      all: spec.all,
      pure: isPure(fn),
      kept: isKept(fn),
      startOf,
      copy,
      reject: (result) => rejectThenable(result, uid),
      share: exact !== undefined && this.#sliced && size >= WORTH_SHARING * this.#width ? sharedMerges(fn, exact, uid) : undefined,
      inexact: INEXACT,
      emit: environment.output(MAIN)!,
      firing,
      unit: environment.together === undefined ? (run) => void environment.unit(run, this.#window, firing.group!.key, firing.time) : undefined,
      dropped: this.#earlyCounts === undefined ? undefined : (key, hash, lastStart) => this.#dropEarly(key, hash, lastStart),
    });
    this.#late = environment.output(spec.lateOutput);
  }

  /** Windows of a late element that have fired already and are still kept fire again at once (W1). */
  #fireLate(timestamp: number, lastStart: number, watermark: number, key: Key, hash: number): void {
    const { size, slide, lateness } = this.#spec;
    for (let start = lastStart; start > timestamp - size; start -= slide) {
      const last = start + size - 1;
      if (last > watermark) {
        if (last <= this.#reached) this.#timers.set(last, key, hash, AGAIN);
        continue;
      }
      if (last + lateness <= watermark) break;
      this.#fireAt(key, hash, start);
    }
  }

  /** A slice of a key is new: see that its windows will fire, and that it will be dropped (W3, W4). */
  #opened(group: Group, slice: number): void {
    const { size, slide, offset, lateness } = this.#spec;
    const { key, hash, rows } = group;
    // Without lateness an older slice that is still there has windows to fire, the next of them no later than this one's first: its timer is set (W4).
    if (lateness === 0 && rows[0]!.ns !== slice) return;
    const watermark = lateness > 0 ? Math.max(this.#environment.watermark(), this.#reached) : this.#environment.watermark();
    const firstStart = this.#sliced ? startOf(slice + this.#width - 1 - size, slide, offset) + slide : slice;
    let end = firstStart + size;
    if (end - 1 <= watermark) end += slide * Math.ceil((watermark - (end - 1) + 1) / slide);
    const lastStart = this.#sliced ? startOf(slice, slide, offset) : slice;
    if (end - size <= lastStart) this.#timers.set(end - 1, key, hash, FIRE);
    if (lateness > 0) this.#timers.set(lastStart + size - 1 + lateness, key, hash, CLEANUP);
  }

  snapshot(): Readonly<Record<string, StatePart>> {
    if (this.#spec.lateness === 0) return this.#definition.snapshot();
    return { ...this.#definition.snapshot(), [REACHED]: { mode: 'union', items: [Math.max(this.#reached, this.#environment.watermark())] } };
  }

  advance(watermark: number, deadline: number): 'done' | 'more' | Promise<void> {
    const { together } = this.#environment;
    if (together === undefined) return dueTimers(this.#timers, watermark, deadline, this.#fires.due);
    let how: 'done' | 'more' | Promise<void> = 'done';
    this.#firing.group = undefined;
    together(
      () => {
        how = dueTimers(this.#timers, watermark, deadline, this.#fires.due);
      },
      this.#window,
      this.#key,
    );
    return how;
  }

  #fireAt(key: Key, hash: number, start: number): void {
    const group = this.#slices.find(key, hash);
    if (group !== undefined) this.#fires.fire(group, start, false);
  }

  #dropEarly(key: Key, hash: number, lastStart: number): void {
    const counts = this.#earlyCounts;
    if (counts === undefined) return;
    for (;;) {
      const group = counts.find(key, hash);
      const row = group?.rows[0];
      if (group === undefined || row === undefined || (row.ns as number) > lastStart) return;
      counts.deleteRow(group, row);
    }
  }

  // ── early results ──

  #changed(lastStart: number, timestamp: number, watermark: number, key: Key, hash: number): void {
    const { size, slide, earlyEvery, earlyCount } = this.#spec;
    for (let start = lastStart; start > timestamp - size; start -= slide) {
      if (start + size - 1 <= watermark) continue;
      if (this.#early !== undefined) {
        // Rounded up, so that the keys that change together fire together and once.
        const due = (Math.floor(this.#environment.now() / earlyEvery) + 1) * earlyEvery;
        if (this.#early.set(due, key, hash, start)) this.#environment.timersChanged();
      }
      if (this.#earlyCounts !== undefined) {
        const counts = this.#earlyCounts;
        const group = counts.find(key, hash) ?? counts.insert(key, hash);
        const row = counts.row(group, start) ?? counts.insertRow(group, start, 0);
        const n = (row.value as number) + 1;
        counts.put(row, n % earlyCount);
        if (n === earlyCount) this.#fireAt(key, hash, start);
      }
    }
  }

  get nextProcessingTime(): number {
    return this.#early?.next ?? Number.POSITIVE_INFINITY;
  }

  onProcessingTime(now: number, deadline: number): 'done' | 'more' | Promise<void> {
    if (this.#early === undefined) return 'done';
    const { size } = this.#spec;
    return fireTimers(this.#early, now, deadline, ({ key, hash, ns: start, time }) => {
      if (start + size - 1 <= this.#environment.watermark()) return;
      this.#environment.unit(
        () => this.#fireAt(key, hash, start),
        () => ({ window: { start, end: start + size }, early: time }),
        key,
        start + size - 1,
      );
    });
  }
}

/** Undefined where these windows cannot be kept by slices. */
export function slicedWindowOperator(environment: OperatorEnvironment, spec: WindowSpec): Operator | undefined {
  const sliced = slicedSpec(spec);
  return sliced === undefined ? undefined : new SlicedWindowOperator(environment, spec, sliced);
}
