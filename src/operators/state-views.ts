// What the rows of a key mean: rows of tables → what a program knows as the state of that key. Pure.
//
// What: for each operator that keeps state by key, the states that can be asked for by name, the tables they lie in, and the value that is made of the rows
// that a key has there. The layouts are those of operators and of the kinds of state; a test for each keeps them in step.
//
// Invariants:
//  V1  A view is made of copies and gives nothing that an operator holds.
//  V2  What has expired is not in it, nor windows that are over, whether or not they have been removed.
//  V3  Undefined: the key has nothing there. An empty list or map is nothing; a default is none of what is stored.

import { type AnyKind, copy, type Declared, declaredOf, type HeldRow, isExpired, type Key } from '../../state-backends/index.ts';
import type { Node, WindowBounds, WindowSpec } from '../graph/node.ts';
import type { KeyRows, Queryable, QueryableState, UnkeyedState } from '../runtime/queryable.ts';
import { startOf } from '../time/windows.ts';
import { isInOrder } from './aggregates.ts';
import { type SlicedSpec, slicedSpec } from './window-slices.ts';

/** A window that is open, as results of windows are. */
interface OpenWindow {
  readonly key: Key | null;
  readonly start: number;
  readonly end: number;
  readonly value: unknown;
}

/** What of an operator can be asked for, in the order of its declaration. */
export function queryableOf(node: Node): Queryable {
  return { states: statesOf(node), without: stateWithoutKey(node) };
}

function statesOf(node: Node): QueryableState[] {
  const { step } = node;
  switch (step.kind) {
    case 'reduce':
      return [{ name: 'value', kind: 'reduce', table: 'value', tables: ['value'], view: ({ rows }) => rows('value')[0]?.value }];
    case 'aggregate': {
      const { fn } = step;
      const view = ({ rows }: KeyRows): unknown => {
        const row = rows('value')[0];
        return row === undefined ? undefined : fn.result(row.value);
      };
      return [{ name: 'value', kind: 'aggregate', table: 'value', tables: ['value'], view }];
    }
    case 'process':
      return step.keyed ? declaredStates(step.spec.state) : [];
    case 'window':
      return [windowsOf(step.spec), ...(step.spec.makes.kind === 'process' ? declaredStates(step.spec.makes.state) : [])];
    case 'intervalJoin':
      return ['left', 'right'].map((side) => ({
        name: side,
        kind: 'join',
        table: side,
        tables: [side, `${side}.full`],
        view: ({ rows }) => recordsOf(rows(side), rows(`${side}.full`), side === 'left' && step.spec.outer ? 2 : 1),
      }));
    default:
      return [];
  }
}

function stateWithoutKey({ step }: Node): UnkeyedState[] {
  if (step.kind !== 'process') return [];
  return Object.entries(step.spec.state as Record<string, AnyKind>).flatMap(([name, kind]) => {
    const declared = kind.scope === 'keyed' ? undefined : declaredOf(kind);
    return declared === undefined ? [] : [{ name, kind: declared.kind }];
  });
}

// ── declared state ──

function declaredStates(spec: Record<string, unknown>): QueryableState[] {
  return Object.entries(spec).flatMap(([name, kind]) => {
    const declared = (kind as AnyKind).scope === 'keyed' ? declaredOf(kind as AnyKind) : undefined;
    if (declared === undefined) return [];
    const tables = declared.options.ttl === undefined ? [name] : [name, `.expiry.${name}`, `.armed.${name}`];
    return [{ name, kind: declared.kind, table: name, tables, view: (of: KeyRows) => declaredView(declared, of.rows(name), of) }];
  });
}

function declaredView(declared: Declared, rows: readonly HeldRow[], time: Pick<KeyRows, 'now' | 'watermark'>): unknown {
  const { ttl, ttlClock } = declared.options;
  const now = ttlClock === 'event' ? time.watermark : time.now;
  const [first] = rows;
  if (first === undefined) return undefined;
  switch (declared.kind) {
    case 'list': {
      const all = rows.flatMap(({ value }) => (ttl === undefined ? (value as unknown[]) : liveElements(value as unknown[], ttl, now)));
      return all.length === 0 ? undefined : all;
    }
    case 'map': {
      const entries = rows.flatMap(({ ns, value }): [Key, unknown][] => {
        if (ttl === undefined) return [[ns as Key, value]];
        const [written, held] = value as [number, unknown];
        return isExpired(written, ttl, now) ? [] : [[ns as Key, held]];
      });
      return entries.length === 0 ? undefined : new Map(entries);
    }
    default: {
      let held = first.value;
      if (ttl !== undefined) {
        const [written, value] = held as [number, unknown];
        if (isExpired(written, ttl, now)) return undefined;
        held = value;
      }
      return declared.kind === 'aggregating' ? declared.fn.result(held) : held;
    }
  }
}

/** Of `[written, element, written, element, …]` the elements that have not expired. */
function liveElements(chunk: readonly unknown[], ttl: number, now: number): unknown[] {
  return chunk.filter((_, i) => i % 2 === 1 && !isExpired(chunk[i - 1] as number, ttl, now));
}

// ── records of windows and joins ──

/** Items of chunked lists (chunked-lists.ts) under one number; an item is `stride` places. */
function itemsOf({ ns, value }: HeldRow, full: readonly HeldRow[], stride: number): unknown[][] {
  const [, ...open] = value as [number, ...unknown[]];
  const chunks = full
    .filter((row) => (row.ns as [unknown, number])[0] === ns)
    .sort((one, other) => (one.ns as [unknown, number])[1] - (other.ns as [unknown, number])[1])
    .flatMap((row) => row.value as unknown[]);
  const places = [...chunks, ...open];
  const items: unknown[][] = [];
  for (let i = 0; i < places.length; i += stride) items.push(places.slice(i, i + stride));
  return items;
}

/** Records that wait for the other side, in order of time. */
function recordsOf(rows: readonly HeldRow[], full: readonly HeldRow[], stride: number): unknown {
  const records = rows.flatMap((row) => itemsOf(row, full, stride).map(([value]) => value));
  return records.length === 0 ? undefined : records;
}

// ── windows ──

function windowsOf(spec: WindowSpec): QueryableState {
  const sliced = slicedSpec(spec);
  const bounded = spec.shape.kind === 'session' || spec.shape.kind === 'assigned';
  const contents = isAccumulated(spec) ? ['.contents'] : ['.contents', '.contents.full'];
  const view = (rows: KeyRows): unknown => {
    const windows = (sliced === undefined ? heldWindows(spec, rows) : slicedWindows(spec, sliced, rows)).sort((one, other) => one.start - other.start);
    return windows.length === 0 ? undefined : windows;
  };
  if (sliced !== undefined) return { name: 'windows', kind: 'windows', table: 'slices', tables: ['slices', 'timers', 'early', 'early-counts'], view };
  const tables = [...contents, ...(bounded ? ['.windows'] : []), '.ends'];
  return { name: 'windows', kind: 'windows', table: '.contents', tables, view };
}

function isAccumulated({ makes, evictor }: WindowSpec): boolean {
  return makes.kind === 'aggregate' && evictor === undefined;
}

function isOver({ time, lateness }: WindowSpec, end: number, watermark: number): boolean {
  return time === 'event' && end - 1 + lateness <= watermark;
}

/** Each window that covers a slice. Without a merge, and where windows do not overlap, a slice is a whole window. */
function slicedWindows(spec: WindowSpec, { fn, size, slide, offset }: SlicedSpec, { key, rows, watermark }: KeyRows): OpenWindow[] {
  const slices = rows('slices');
  const merged = size !== slide && fn.merge !== undefined && !isInOrder(fn);
  const starts = new Set<number>();
  for (const { ns } of slices) {
    const slice = ns as number;
    if (!merged) starts.add(slice);
    else for (let start = startOf(slice, slide, offset); start > slice - size; start -= slide) starts.add(start);
  }
  return [...starts].flatMap((start): OpenWindow[] => {
    const end = start + size;
    if (isOver(spec, end, watermark)) return [];
    const covered = slices.filter(({ ns }) => (merged ? (ns as number) >= start && (ns as number) < end : ns === start));
    // A slice is part of several windows, and a merge may keep what it is given.
    const held = merged ? covered.reduce((sum, { value }) => fn.merge!(sum, copy(value)), fn.create()) : covered[0]!.value;
    return [{ key: spec.all ? null : key, start, end, value: fn.result(held) }];
  });
}

/** Windows of operators/window.ts: their contents by id, bounds by the id or by rows of their own. */
function heldWindows(spec: WindowSpec, { key, rows, watermark }: KeyRows): OpenWindow[] {
  const full = isAccumulated(spec) ? [] : rows('.contents.full');
  const bounds = boundsOf(spec, rows);
  return rows('.contents').flatMap((row): OpenWindow[] => {
    const window = bounds(row.ns as number);
    if (window === undefined || isOver(spec, window.end, watermark)) return [];
    return [{ key: spec.all ? null : key, start: window.start, end: window.end, value: contentsOf(spec, row, full) }];
  });
}

function boundsOf({ shape }: WindowSpec, rows: KeyRows['rows']): (id: number) => WindowBounds | undefined {
  switch (shape.kind) {
    case 'fixed':
      return (id) => ({ start: id, end: id + shape.size });
    case 'global':
      return () => ({ start: Number.NEGATIVE_INFINITY, end: Number.POSITIVE_INFINITY });
    default: {
      const stored = new Map(rows('.windows').map(({ ns, value }) => [ns as number, value as [start: number, end: number]]));
      return (id) => {
        const window = stored.get(id);
        return window === undefined ? undefined : { start: window[0], end: window[1] };
      };
    }
  }
}

/** The result of an aggregate; else the records, of two inputs by side. */
function contentsOf(spec: WindowSpec, row: HeldRow, full: readonly HeldRow[]): unknown {
  const { makes, evictor, merges } = spec;
  if (makes.kind === 'aggregate' && evictor === undefined) return makes.fn.result(row.value);
  const sided = makes.kind === 'join' || makes.kind === 'coGroup';
  const side = evictor === undefined ? 1 : 2;
  const items = itemsOf(row, full, 1 + (evictor === undefined ? 0 : 1) + (sided ? 1 : 0) + (merges ? 1 : 0));
  const valuesOf = (of: readonly unknown[][]): unknown[] => of.map(([value]) => value);
  if (sided) return { left: valuesOf(items.filter((item) => item[side] !== 1)), right: valuesOf(items.filter((item) => item[side] === 1)) };
  if (makes.kind !== 'aggregate') return valuesOf(items);
  const { fn } = makes;
  return fn.result(valuesOf(items).reduce((held, value) => fn.add(held, value), fn.create()));
}
