// Merges that the windows of a key share: a window that slides by one slice costs one or two merges, not one for each slice it covers.
//
// What: two stacks. `front` has, for each slice from the window's start to `middle`, the merge of that slice and of those behind it up to `middle`; `back`
// is the merge of the slices from `middle` to `until`. A window is its front merged with back; when its front is used up, all of it becomes front.
// It is kept with the key's group, is nowhere stored, and is made anew where it is missing.
//
// Invariants:
//  M1  Only for aggregates whose merge is exact in any grouping, as EXACT says of each accumulator: results do not depend on when it was made.
//  M2  Whoever changes a slice before `until` forgets it. Windows of a key come in the order of their ends.
//  M3  It is made of what is committed: never within the unit of a record.

import type { Group } from '../../state-backends/index.ts';
import type { AnyAggregate } from '../graph/node.ts';
import { fresh } from '../runtime/fresh.ts';

/** Slices in a window from which on sharing is worth it. */
export const WORTH_SHARING = 8;

export interface SharedMerges {
  /** Slice starts of `front`, the oldest last. */
  readonly starts: number[];
  readonly front: unknown[];
  middle: number;
  back: unknown;
  /** Slices in `back`. */
  behind: number;
  until: number;
}

interface Dependencies {
  readonly fn: AnyAggregate;
  readonly exact: (accumulator: unknown) => boolean;
  readonly none: symbol;
}

/** Free of outside names: see fresh.ts. */
const sharing = ({ fn, exact, none }: Dependencies) => {
  return (group: Group, start: number, end: number): unknown => {
    const { rows } = group;
    let shared = group.derived as SharedMerges | undefined;
    if (shared === undefined || end < shared.until) {
      shared = { starts: [], front: [], middle: start, back: undefined, behind: 0, until: start };
      group.derived = shared;
    }
    const { starts, front } = shared;
    while (starts.length > 0 && starts[starts.length - 1]! < start) {
      starts.pop();
      front.pop();
    }
    // Where the newest slices of the window begin: mostly one is new.
    let to = rows.length;
    if ((rows[to - 1]!.ns as number) >= end) {
      let low = 0;
      while (low < to) {
        const middle = (low + to) >>> 1;
        if ((rows[middle]!.ns as number) < end) low = middle + 1;
        else to = middle;
      }
    }
    if (starts.length === 0) {
      for (let i = to - 1; i >= 0; i--) {
        const { ns, value } = rows[i]!;
        if ((ns as number) < start) break;
        const merged = front.length === 0 ? value : fn.merge!(value, front[front.length - 1]);
        if (!exact(merged)) {
          group.derived = undefined;
          return none;
        }
        front.push(merged);
        starts.push(ns as number);
      }
      shared.middle = end;
      shared.back = undefined;
      shared.behind = 0;
    } else {
      let from = to;
      while (from > 0 && (rows[from - 1]!.ns as number) >= shared.until) from -= 1;
      for (; from < to; from++) {
        const { value } = rows[from]!;
        const merged = shared.behind === 0 ? value : fn.merge!(shared.back, value);
        if (!exact(merged)) {
          group.derived = undefined;
          return none;
        }
        shared.back = merged;
        shared.behind += 1;
      }
    }
    shared.until = end;
    if (front.length === 0) return undefined;
    const oldest = front[front.length - 1];
    if (shared.behind === 0) return oldest;
    const merged = fn.merge!(oldest, shared.back);
    return exact(merged) ? merged : none;
  };
};

/** Where an accumulator was not exact. */
export const INEXACT = Symbol('inexact');

/** The merge of the slices in [start, end), at least one of which exists; INEXACT where they must be merged in order. */
export function sharedMerges(fn: AnyAggregate, exact: (accumulator: unknown) => boolean, uid: string): (group: Group, start: number, end: number) => unknown {
  return fresh<Dependencies, (group: Group, start: number, end: number) => unknown>(sharing, `shared-${uid}`)({ fn, exact, none: INEXACT });
}
