// Which worker runs which task, and which of its hosts. Pure, and the same for the same arguments.
//
// A column is what one slot of a worker takes: the instances of the same number, one of each vertex, so that what goes straight on from operator to operator stays within
// a host. A region has as many columns as its widest vertex has instances; a vertex with fewer begins at another column than the others.
//
// Columns are spread: no worker has more than its share, which is as small as the slots of all allow. Within its share a worker keeps what it last had.

import type { PlannedTask } from '../execution/region-tasks.ts';

export interface Room {
  /** The worker's id. */
  readonly worker: string;
  readonly slots: number;
  /** Threads that its tasks are dealt out to; default 1. */
  readonly hosts?: number | undefined;
}

export interface Spot {
  readonly worker: string;
  /** Among the worker's hosts. */
  readonly index: number;
}

/** By task. Undefined: there are not slots enough. `last`: the worker that a task ran on before. */
export function placeOnWorkers(
  tasks: readonly PlannedTask[],
  rooms: readonly Room[],
  last: ReadonlyMap<string, string> = new Map(),
): ReadonlyMap<string, Spot> | undefined {
  const columns = columnsOf(tasks);
  const shares = sharesOf(columns.length, rooms);
  if (shares === undefined) return undefined;
  const taken = new Map<string, number>();
  const workers = new Array<string | undefined>(columns.length).fill(undefined);
  const take = (column: number, worker: string): void => {
    workers[column] = worker;
    taken.set(worker, (taken.get(worker) ?? 0) + 1);
  };
  const left = (worker: string): number => (shares.get(worker) ?? 0) - (taken.get(worker) ?? 0);
  for (const [column, held] of columns.entries()) {
    const before = held.map(({ name }) => last.get(name)).find((worker) => worker !== undefined);
    if (before !== undefined && left(before) > 0) take(column, before);
  }
  for (const column of columns.keys()) {
    if (workers[column] !== undefined) continue;
    // The one that has the fewest so far; of equals the first.
    let best: string | undefined;
    for (const worker of shares.keys()) {
      if (left(worker) > 0 && (best === undefined || (taken.get(worker) ?? 0) < (taken.get(best) ?? 0))) best = worker;
    }
    take(column, best!);
  }
  const hostsOf = new Map(rooms.map(({ worker, hosts = 1 }) => [worker, Math.max(1, hosts)]));
  const dealt = new Map<string, number>();
  const placement = new Map<string, Spot>();
  for (const [column, held] of columns.entries()) {
    const worker = workers[column]!;
    const nth = dealt.get(worker) ?? 0;
    dealt.set(worker, nth + 1);
    for (const { name } of held) placement.set(name, { worker, index: nth % hostsOf.get(worker)! });
  }
  return placement;
}

/** How many slots a region needs. */
export function widthOf(tasks: readonly PlannedTask[]): number {
  return Math.max(...tasks.map(({ vertex }) => vertex.parallelism));
}

/** Slots of all. */
export function slotsOf(rooms: readonly Room[]): number {
  return rooms.reduce((sum, { slots }) => sum + slots, 0);
}

/**
 * The workers that are left when of each pair that cannot reach each other one is left out: first whoever is in most of these pairs, of equals the one with the fewest slots,
 * then the one with the larger id.
 */
export function withoutConflicts<R extends Room>(rooms: readonly R[], apart: readonly (readonly [string, string])[]): readonly R[] {
  let kept = [...rooms];
  for (;;) {
    const there = new Set(kept.map(({ worker }) => worker));
    const pairs = apart.filter(([a, b]) => there.has(a) && there.has(b));
    if (pairs.length === 0) return kept;
    const worst = kept
      .map((room) => ({ room, count: pairs.filter((pair) => pair.includes(room.worker)).length }))
      .sort((a, b) => b.count - a.count || a.room.slots - b.room.slots || (a.room.worker < b.room.worker ? 1 : -1))[0]!;
    kept = kept.filter((room) => room !== worst.room);
  }
}

function columnsOf(tasks: readonly PlannedTask[]): readonly (readonly PlannedTask[])[] {
  const columns = Array.from({ length: widthOf(tasks) }, (): PlannedTask[] => []);
  for (const task of tasks) {
    const { vertex, subtask } = task;
    columns[(subtask + (vertex.parallelism < columns.length ? vertex.index : 0)) % columns.length]!.push(task);
  }
  // The widest first, so that it says where the column was.
  for (const column of columns) column.sort((a, b) => b.vertex.parallelism - a.vertex.parallelism);
  return columns;
}

/** The same number for each worker, as far as it has slots; undefined: there are not enough. */
function sharesOf(columns: number, rooms: readonly Room[]): ReadonlyMap<string, number> | undefined {
  if (slotsOf(rooms) < columns) return undefined;
  for (let level = 1; ; level += 1) {
    const shares = new Map(rooms.map(({ worker, slots }) => [worker, Math.min(slots, level)]));
    if ([...shares.values()].reduce((sum, share) => sum + share, 0) >= columns) return shares;
  }
}
