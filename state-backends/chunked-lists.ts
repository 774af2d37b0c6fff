// Lists by key and number: what a window holds, say. Adding to one encodes a chunk of it anew at the next checkpoint, not all of it.
//
// Layout: `name` (ordered; key, number) → [full chunks, the newest items …]; `name.full` (keyed; key, [number, chunk]) → the items of a chunk that is full.
// An item is `stride` places of its row: a value, and what belongs to it.
//
// Invariants:
//  C1  A list that is there has an item, and its newest item is in its open row.
//  C2  Rows with items that are not primitives are touched before these are handed out (protocols 3).

import type { Group, GroupedTable, Key, Row, TableOptions, TaskState } from './contract.ts';
import { CHUNK, isShared } from './kinds-current.ts';

export class ChunkedLists {
  readonly #open: GroupedTable;
  readonly #full: GroupedTable;
  readonly #stride: number;

  constructor(task: TaskState, uid: string, name: string, stride: number, options: TableOptions = {}) {
    const { version, migrate } = options;
    const each = (items: unknown, ...of: [from: number, key: Key, hash: number]): unknown[] => (items as unknown[]).map((item) => migrate!(item, ...of));
    const open = (row: unknown, ...of: [from: number, key: Key, hash: number]): unknown[] => [
      (row as unknown[])[0],
      ...each((row as unknown[]).slice(1), ...of),
    ];
    this.#open = task.ordered(uid, name, { ...(version === undefined ? {} : { version }), ...(migrate === undefined ? {} : { migrate: open }) });
    this.#full = task.keyed(uid, `${name}.full`, { ...(version === undefined ? {} : { version }), ...(migrate === undefined ? {} : { migrate: each }) });
    this.#stride = stride;
  }

  /** Adds an item; as many of its places count as the stride says. True where the list is new. */
  add(key: Key, hash: number, ns: number, value: unknown, second?: unknown, third?: unknown): boolean {
    const open = this.#open;
    const group = open.find(key, hash) ?? open.insert(key, hash);
    let row = open.row(group, ns);
    const stride = this.#stride;
    if (row === undefined) {
      open.insertRow(group, ns, stride === 1 ? [0, value] : stride === 2 ? [0, value, second] : [0, value, second, third]);
      return true;
    }
    open.touch(row);
    let items = row.value as unknown[];
    if (items.length > CHUNK * stride) {
      row = this.#close(group, row);
      items = row.value as unknown[];
    }
    items.push(value);
    if (stride > 1) items.push(second);
    if (stride > 2) items.push(third);
    open.put(row, items);
    return false;
  }

  /** The full items of an open row become a chunk. */
  #close({ key, hash }: Group, row: Row): Row {
    const [n, ...items] = row.value as [number, ...unknown[]];
    const full = this.#full;
    const group = full.find(key, hash) ?? full.insert(key, hash);
    full.insertRow(group, [row.ns as number, n], items);
    this.#open.put(row, [n + 1]);
    return row;
  }

  /** All places of all items, in order; undefined where there is no such list. */
  all(key: Key, hash: number, ns: number): unknown[] | undefined {
    const group = this.#open.find(key, hash);
    const row = group === undefined ? undefined : this.#open.row(group, ns);
    if (row === undefined) return undefined;
    if (hasShared(row.value as unknown[])) this.#open.touch(row);
    const open = row.value as unknown[];
    const chunks = open[0] as number;
    if (chunks === 0) return open.slice(1);
    const full = this.#full.find(key, hash)!;
    const out: unknown[] = [];
    for (let n = 0; n < chunks; n++) {
      const chunk = this.#full.row(full, [ns, n])!;
      if (hasShared(chunk.value as unknown[])) this.#full.touch(chunk);
      for (const item of chunk.value as unknown[]) out.push(item);
    }
    for (let i = 1; i < open.length; i++) out.push(open[i]);
    return out;
  }

  /** The last place of the newest item of all lists of the key, where these are numbers that rise; `none` where there is no list. */
  newest(key: Key, hash: number, none: number): number {
    let newest = none;
    for (const { value } of this.#open.find(key, hash)?.rows ?? []) {
      const items = value as unknown[];
      const last = items[items.length - 1] as number;
      if (last > newest) newest = last;
    }
    return newest;
  }

  /** In place of what the list has. */
  set(key: Key, hash: number, ns: number, places: readonly unknown[]): void {
    this.clear(key, hash, ns);
    if (places.length === 0) return;
    const width = CHUNK * this.#stride;
    const chunks = Math.ceil(places.length / width) - 1;
    if (chunks > 0) {
      const full = this.#full.find(key, hash) ?? this.#full.insert(key, hash);
      for (let n = 0; n < chunks; n++) this.#full.insertRow(full, [ns, n], places.slice(n * width, (n + 1) * width));
    }
    const open = this.#open.find(key, hash) ?? this.#open.insert(key, hash);
    this.#open.insertRow(open, ns, [chunks, ...places.slice(chunks * width)]);
  }

  clear(key: Key, hash: number, ns: number): void {
    const group = this.#open.find(key, hash);
    const row = group === undefined ? undefined : this.#open.row(group, ns);
    if (row === undefined) return;
    const chunks = (row.value as unknown[])[0] as number;
    this.#open.deleteRow(group!, row);
    if (chunks === 0) return;
    const full = this.#full.find(key, hash)!;
    for (let n = chunks - 1; n >= 0; n--) this.#full.deleteRow(full, this.#full.row(full, [ns, n])!);
  }
}

function hasShared(items: readonly unknown[]): boolean {
  for (let i = 0; i < items.length; i++) if (isShared(items[i])) return true;
  return false;
}
