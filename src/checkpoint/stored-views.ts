// What tables of a snapshot mean without the program that made them: tables of an operator → states by name, and what the rows of a key say.
//
// What: pure functions. A snapshot knows names, layouts and versions of tables, and how windows are defined; it does not know functions. So accumulators
// are shown as they are stored, windows by what they hold, and what has expired and was not yet removed is still there. What a running job shows of the same
// state stands in operators/state-views.ts.
//
// Invariants:
//  V1  Every table belongs to exactly one state.
//  V2  Names of states that a program declares are theirs here too, 'value' of a reduce or aggregate, 'windows' of a window, 'left' and 'right' of a join.

import { EXPIRING, type HeldRow, type Key, type TableHeader } from '../../state-backends/index.ts';

export interface StoredState {
  readonly name: string;
  /** value, list, map, windows, join, timers; internal: what an operator keeps for itself. */
  readonly kind: string;
  /** As it was declared. */
  readonly version: number;
  /** The table that has each key of this state. */
  readonly table: string;
  readonly tables: readonly string[];
  /** Undefined: the key has nothing there. */
  view(rows: (table: string) => readonly HeldRow[]): unknown;
}

/** `windows`: the definition of an operator's windows, as the snapshot has it; undefined where it has none. */
export function storedStates(tables: readonly TableHeader[], windows?: string): StoredState[] {
  const left = new Map(tables.map((table) => [table.name, table]));
  const take = (...names: string[]): string[] => names.filter((name) => left.delete(name));
  const states: StoredState[] = [];
  const has = (name: string, layout: TableHeader['layout']): boolean => left.get(name)?.layout === layout;
  if (has('slices', 'ordered') && has('timers', 'timers')) {
    states.push({ ...named('windows', 'windows', left.get('slices')!, take('slices', 'timers', 'early', 'early-counts')), view: slicesOf(windows) });
  } else if (has('.contents', 'ordered')) {
    const view = windowsOf(windows, left.has('.windows'), left.has('.contents.full'));
    const header = left.get('.contents')!;
    states.push({ ...named('windows', 'windows', header, take('.contents', '.contents.full', '.windows', '.ends')), view });
  } else if (has('left', 'ordered') && has('left.full', 'keyed')) {
    for (const side of ['left', 'right']) {
      const header = left.get(side);
      if (header !== undefined) states.push({ ...named(side, 'join', header, take(side, `${side}.full`)), view: sideOf(side) });
    }
  }
  for (const header of [...left.values()]) {
    const { name, layout, version } = header;
    if (!left.has(name) || name.startsWith('.')) continue;
    const own = { name, table: name, version: version % EXPIRING, tables: take(name, `.expiry.${name}`, `.armed.${name}`) };
    const timed = version >= EXPIRING;
    if (layout === 'single') states.push({ ...own, kind: 'value', view: (rows) => heldIn(rows(name)[0], timed) });
    else if (layout === 'ordered') states.push({ ...own, kind: 'list', view: (rows) => listOf(rows(name), timed) });
    else if (layout === 'keyed') states.push({ ...own, kind: 'map', view: (rows) => mapOf(rows(name), timed) });
    else states.push({ ...own, kind: 'timers', view: (rows) => timersOf(rows(name)) });
  }
  for (const header of [...left.values()]) {
    const { name, layout } = header;
    const view = (rows: (table: string) => readonly HeldRow[]): unknown =>
      layout === 'timers' ? timersOf(rows(name)) : layout === 'single' ? rows(name)[0]?.value : present(rows(name).map(({ ns, value }) => ({ ns, value })));
    states.push({ ...named(name, layout === 'timers' ? 'timers' : 'internal', header, take(name)), view });
  }
  return states;
}

function named(name: string, kind: string, header: TableHeader, tables: readonly string[]): Omit<StoredState, 'view'> {
  return { name, kind, version: header.version, table: header.name, tables };
}

function present<T>(items: readonly T[]): readonly T[] | undefined {
  return items.length === 0 ? undefined : items;
}

// ── declared state ──

function heldIn(row: HeldRow | undefined, timed: boolean): unknown {
  return row === undefined ? undefined : timed ? (row.value as [number, unknown])[1] : row.value;
}

function listOf(rows: readonly HeldRow[], timed: boolean): unknown {
  return present(rows.flatMap(({ value }) => (timed ? (value as unknown[]).filter((_, i) => i % 2 === 1) : (value as unknown[]))));
}

function mapOf(rows: readonly HeldRow[], timed: boolean): unknown {
  return rows.length === 0 ? undefined : new Map(rows.map((row) => [row.ns as Key, heldIn(row, timed)]));
}

/** Times in order; with what else tells timers of one key and time apart, where there is something. */
function timersOf(rows: readonly HeldRow[]): unknown {
  const timers = rows.map(({ ns, value }) => ({ at: value as number, ns: ns as number })).sort((one, other) => one.at - other.at || one.ns - other.ns);
  return present<unknown>(timers.every(({ ns }) => ns === 0) ? timers.map(({ at }) => at) : timers);
}

// ── windows and joins ──

/** Windows of a fixed size say it in their definition. */
function sizeOf(windows: string | undefined): number | undefined {
  const size = /^(?:tumbling|sliding)\(([\d.]+)/.exec(windows ?? '')?.[1];
  return size === undefined ? undefined : Number(size);
}

function slicesOf(windows: string | undefined) {
  // Of sliding windows a slice is a part of several: the program knows how to merge them.
  const size = windows?.startsWith('tumbling') === true || windows?.endsWith('aggregated') === true ? sizeOf(windows) : undefined;
  return (rows: (table: string) => readonly HeldRow[]): unknown =>
    present(rows('slices').map(({ ns, value }) => ({ start: ns, ...(size === undefined ? {} : { end: (ns as number) + size }), value })));
}

function windowsOf(windows: string | undefined, bounded: boolean, records: boolean) {
  const size = sizeOf(windows);
  const global = windows?.startsWith('global') === true;
  const sided = windows?.endsWith(' of two inputs') === true;
  const timed = windows?.includes('records with timestamps') === true;
  const numbered = windows !== undefined && (windows.startsWith('session') || windows.includes('that merges'));
  const stride = 1 + [timed, sided, numbered].filter(Boolean).length;
  return (rows: (table: string) => readonly HeldRow[]): unknown => {
    const stored = new Map(bounded ? rows('.windows').map(({ ns, value }) => [ns as number, value as readonly number[]]) : []);
    const full = records ? rows('.contents.full') : [];
    return present(
      rows('.contents').map((row) => {
        const id = row.ns as number;
        const start = bounded ? stored.get(id)?.[0] : global ? Number.NEGATIVE_INFINITY : id;
        const end = bounded ? stored.get(id)?.[1] : global ? Number.POSITIVE_INFINITY : size === undefined ? undefined : id + size;
        const places = records ? placesOf(row, full) : [];
        const side = (of: number): unknown[] => places.filter((_, i) => i % stride === 0 && places[i + (timed ? 2 : 1)] === of);
        const value = !records ? row.value : sided ? { left: side(0), right: side(1) } : places.filter((_, i) => i % stride === 0);
        return { start, end, value };
      }),
    );
  };
}

/** By timestamp what is stored of the records: with `outer`, on the left, each with whether it met anybody. */
function sideOf(side: string) {
  return (rows: (table: string) => readonly HeldRow[]): unknown => {
    const full = rows(`${side}.full`);
    return present(rows(side).map((row) => ({ timestamp: row.ns, records: placesOf(row, full) })));
  };
}

/** All places of a chunked list (state-backends/chunked-lists.ts). */
function placesOf({ ns, value }: HeldRow, full: readonly HeldRow[]): unknown[] {
  const chunks = full
    .filter((row) => (row.ns as readonly unknown[])[0] === ns)
    .sort((one, other) => (one.ns as [unknown, number])[1] - (other.ns as [unknown, number])[1]);
  return [...chunks.flatMap((row) => row.value as unknown[]), ...(value as unknown[]).slice(1)];
}
