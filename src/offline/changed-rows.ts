// What an edit has changed of the rows of an operator: one file of changes for each task that held a part of its key groups.
//
// What: a share of the state is loaded twice. One is edited as a running operator would; its delta names the rows that were touched. Of these, those that the
// other one has with the same bytes are left out.
//
// Invariants:
//  G1  The files that were there, followed by the file of changes, are the edited state: for each key group, and in any version that tables have.
//  G2  A row is counted once, as written or as deleted; one that is as it was is neither written nor counted.

import {
  type Backend,
  encode,
  type FileRef,
  type Group,
  type GroupedTable,
  groupOf,
  hashKey,
  type Key,
  type KeyGroupRange,
  keyBytes,
  memory,
  RowFileReader,
  RowFileWriter,
  type RowKind,
  type SingleTable,
  type TableHeader,
  type TaskState,
  type TimerTable,
  TOMBSTONE,
  VALUE,
} from '../../state-backends/index.ts';
import type { SnapshotFiles } from '../checkpoint/storage.ts';

type AnyTable = { readonly layout: 'single'; readonly table: SingleTable } | { readonly layout: 'grouped'; readonly table: GroupedTable };

interface HeldTimer {
  readonly table: TimerTable;
  readonly time: number;
  readonly ns: number;
}

/** State in memory for all key groups, whose tables can be looked into by name. */
export class SharedState {
  readonly state: TaskState;
  readonly #tables = new Map<string, AnyTable>();
  readonly #timers = new Map<string, TimerTable>();
  #timersByKey: Map<string, HeldTimer[]> | undefined;

  static async open(maxParallelism: number): Promise<SharedState> {
    const region = await (memory() as Backend).open({ name: 'offline', tracked: true });
    return new SharedState(region.task({ maxParallelism, range: { from: 0, to: maxParallelism - 1 }, undo: false }));
  }

  private constructor(own: TaskState) {
    const grouped = (name: string, table: GroupedTable): GroupedTable => {
      this.#tables.set(name, { layout: 'grouped', table });
      return table;
    };
    // Everything else is the task's own.
    this.state = Object.assign(Object.create(own) as TaskState, {
      single: (...declared: Parameters<TaskState['single']>) => {
        const table = own.single(...declared);
        this.#tables.set(declared[1], { layout: 'single', table });
        return table;
      },
      ordered: (...declared: Parameters<TaskState['ordered']>) => grouped(declared[1], own.ordered(...declared)),
      keyed: (...declared: Parameters<TaskState['keyed']>) => grouped(declared[1], own.keyed(...declared)),
      timers: (...declared: Parameters<TaskState['timers']>) => {
        const table = own.timers(...declared);
        this.#timers.set(declared[1], table);
        return table;
      },
    });
  }

  has(name: string): boolean {
    return this.#tables.has(name) || this.#timers.has(name);
  }

  /** The value of a row, in a tuple; undefined where there is no such row. Of a timer it is its time. */
  held(name: string, key: Key, hash: number, ns: unknown, value: unknown): readonly [unknown] | undefined {
    const timers = this.#timers.get(name);
    // What was not set is now; nobody else looks.
    if (timers !== undefined) return timers.set(value as number, key, hash, ns as number) ? undefined : [value];
    const of = this.#tables.get(name);
    if (of === undefined) return undefined;
    if (of.layout === 'single') {
      const row = of.table.find(key, hash);
      return row === undefined ? undefined : [row.value];
    }
    const group: Group | undefined = of.table.find(key, hash);
    const row = group === undefined ? undefined : of.table.row(group, ns);
    return row === undefined ? undefined : [row.value];
  }

  /** Removes all that a key has in any table. */
  drop(key: Key, hash: number): void {
    for (const { table, time, ns } of this.#timersOf(key)) table.delete(time, key, hash, ns);
    for (const of of this.#tables.values()) {
      if (of.layout === 'single') {
        const row = of.table.find(key, hash);
        if (row !== undefined) of.table.delete(row);
      } else {
        const group = of.table.find(key, hash);
        for (const row of [...(group?.rows ?? [])].reverse()) of.table.deleteRow(group!, row);
      }
    }
  }

  /** Every key of these tables, once; of all tables where none are named. */
  async keys(uid: string, names: readonly string[] = [...this.#tables.keys(), ...this.#timers.keys()]): Promise<{ key: Key; hash: number }[]> {
    const found = new Map<string, Key>();
    const add = (key: Key): void => void found.set(keyBytes(key).toString('latin1'), key);
    const looking = this.state.look();
    for (const name of names) {
      const timers = this.#timers.get(name);
      if (timers !== undefined) for (const { key } of timers.all()) add(key);
      const walk = looking.keys(uid, name);
      for (let step = walk.next(); step !== undefined; step = walk.next()) for (const key of await step) add(key);
    }
    return [...found.values()].map((key) => ({ key, hash: hashKey(key) }));
  }

  /** Looked at once: for who only removes. */
  #timersOf(key: Key): readonly HeldTimer[] {
    if (this.#timersByKey === undefined) {
      this.#timersByKey = new Map();
      for (const table of this.#timers.values()) {
        for (const { key: of, time, ns } of table.all()) {
          const id = keyBytes(of).toString('latin1');
          const there = this.#timersByKey.get(id);
          if (there === undefined) this.#timersByKey.set(id, [{ table, time, ns }]);
          else there.push({ table, time, ns });
        }
      }
    }
    return this.#timersByKey.get(keyBytes(key).toString('latin1')) ?? [];
  }
}

/** Rows by state. */
export interface Counts {
  written: number;
  deleted: number;
  readonly states: Set<string>;
}

export interface ChangedTask {
  readonly subtask: number;
  readonly range: KeyGroupRange;
}

interface Changed {
  readonly table: number;
  readonly kind: RowKind;
  readonly key: Key;
  readonly ns: unknown;
  readonly value: unknown;
}

/** When something expires is no state of the program's. */
const UNCOUNTED = /^\.(?:expiry|armed)\./;

export class ChangedRows {
  readonly counts: Counts = { written: 0, deleted: 0, states: new Set() };
  readonly #tasks: readonly ChangedTask[];
  readonly #maxParallelism: number;
  readonly #target: Pick<SnapshotFiles, 'open'>;
  readonly #nameOf: (subtask: number) => string;
  readonly #outputs = new Map<number, { readonly rows: RowFileWriter; readonly file: Awaited<ReturnType<SnapshotFiles['open']>> }>();

  constructor(options: { tasks: readonly ChangedTask[]; maxParallelism: number; target: Pick<SnapshotFiles, 'open'>; nameOf: (subtask: number) => string }) {
    this.#tasks = options.tasks;
    this.#maxParallelism = options.maxParallelism;
    this.#target = options.target;
    this.#nameOf = options.nameOf;
  }

  /** `before`: the share as it was; undefined where nothing was stored. */
  async add(edited: SharedState, before: SharedState | undefined): Promise<void> {
    edited.state.freeze(1);
    edited.state.encode(Number.POSITIVE_INFINITY);
    const [delta] = edited.state.takeDeltas();
    if (delta === undefined || delta.rows === 0) return;
    let tables: readonly TableHeader[] = [];
    // What the delta says last of a row is what it is. Of an operator that is new each value stands once, and what is gone was never there.
    const rows = new Map<string | number, Changed>();
    const reader = new RowFileReader(
      (headers) => {
        tables = headers;
      },
      (table, kind, key, ns, value) => {
        if (before !== undefined) rows.set(placeOf(table, tables[table]!.layout === 'timers' ? value : undefined, key, ns), { table, kind, key, ns, value });
        else if (kind === VALUE) rows.set(rows.size, { table, kind, key, ns, value });
      },
    );
    for (const block of delta.blocks) {
      reader.push(block);
      for (const changed of rows.values()) if (before === undefined) await this.#write(changed, tables, undefined);
      if (before === undefined) rows.clear();
    }
    reader.end();
    for (const changed of rows.values()) await this.#write(changed, tables, before);
    for (const { rows: written, file } of this.#outputs.values()) await file.append(written.take());
  }

  async #write({ table, kind, key, ns, value }: Changed, tables: readonly TableHeader[], before: SharedState | undefined): Promise<void> {
    const { name } = tables[table]!;
    const hash = hashKey(key);
    const was = before?.held(name, key, hash, ns, value);
    if (kind === TOMBSTONE ? was === undefined : was !== undefined && same(was[0], value)) return;
    this.#count(name, kind);
    (this.#outputFor(hash) ?? (await this.#open(hash, tables))).rows.row(table, kind, key, hash, ns, value);
  }

  #count(name: string, kind: RowKind): void {
    if (UNCOUNTED.test(name)) return;
    this.counts.states.add(name);
    if (kind === VALUE) this.counts.written += 1;
    else this.counts.deleted += 1;
  }

  #subtaskOf(hash: number): number {
    const group = groupOf(hash, this.#maxParallelism);
    return this.#tasks.find(({ range: { from, to } }) => group >= from && group <= to)!.subtask;
  }

  #outputFor(hash: number) {
    return this.#outputs.get(this.#subtaskOf(hash));
  }

  async #open(hash: number, tables: readonly TableHeader[]) {
    const subtask = this.#subtaskOf(hash);
    const output = { rows: new RowFileWriter(tables, this.#maxParallelism), file: await this.#target.open(this.#nameOf(subtask)) };
    this.#outputs.set(subtask, output);
    return output;
  }

  /** The file of each task that has changes. */
  async finish(): Promise<Map<number, FileRef>> {
    const files = new Map<number, FileRef>();
    for (const [subtask, { rows, file }] of this.#outputs) {
      await file.append(rows.finish());
      files.set(subtask, await file.finish());
      this.#outputs.delete(subtask);
    }
    return files;
  }

  async abandon(): Promise<void> {
    for (const { file } of this.#outputs.values()) await file.abandon();
    this.#outputs.clear();
  }
}

/** By which a row is known in a delta. */
function placeOf(table: number, time: unknown, key: Key, ns: unknown): string {
  return `${table}/${ns === undefined ? '' : keyBytes(ns as Key).toString('latin1')}/${time === undefined ? '' : String(time)}/${keyBytes(key).toString('latin1')}`;
}

function same(one: unknown, other: unknown): boolean {
  if (typeof one !== 'object' || one === null) return Object.is(one, other);
  return Buffer.compare(encode(one), encode(other)) === 0;
}
