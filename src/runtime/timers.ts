// Firing timers in bounded slices: a long burst gives control back (semantics 8).

import type { TimerRow, TimerTable } from '../../state-backends/index.ts';

/** How many timers fire between two looks at the clock. */
const STRIDE = 32;

/**
 * Fires every timer with time <= until, also those that a callback sets. 'more': `deadline` (performance.now()) came first; call again. A promise: due
 * timers are being read from disk.
 */
export function fireTimers(table: TimerTable, until: number, deadline: number, fire: (timer: TimerRow) => void): 'done' | 'more' | Promise<void> {
  for (let fired = 1; ; fired++) {
    if (!table.ready(until)) return table.load(until);
    const timer = table.pop(until);
    if (timer === undefined) return 'done';
    fire(timer);
    if (fired % STRIDE === 0 && performance.now() >= deadline) return 'more';
  }
}

/** The same, where `due` says what becomes of a timer: it calls `take` or `move`. */
export function dueTimers(table: TimerTable, until: number, deadline: number, due: (timer: TimerRow) => void): 'done' | 'more' | Promise<void> {
  for (let fired = 1; ; fired++) {
    if (!table.ready(until)) return table.load(until);
    const timer = table.first(until);
    if (timer === undefined) return 'done';
    due(timer);
    if (fired % STRIDE === 0 && performance.now() >= deadline) return 'more';
  }
}

/** The same over two tables, in order of time; of the same time those of the first come first. */
export function fireTimersOfTwo(
  first: TimerTable,
  fireFirst: (timer: TimerRow) => void,
  second: TimerTable,
  fireSecond: (timer: TimerRow) => void,
  until: number,
  deadline: number,
): 'done' | 'more' | Promise<void> {
  for (let fired = 1; ; fired++) {
    if (!first.ready(until)) return first.load(until);
    if (!second.ready(until)) return second.load(until);
    const isFirst = first.next <= second.next && first.size > 0;
    const timer = isFirst ? first.pop(until) : second.pop(until);
    if (timer === undefined) return 'done';
    if (isFirst) fireFirst(timer);
    else fireSecond(timer);
    if (fired % STRIDE === 0 && performance.now() >= deadline) return 'more';
  }
}
