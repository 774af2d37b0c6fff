// Looking into a checkpoint or a savepoint without the program that made it.
//
// What: the files that the metadata names are read, bases first and deltas in the order of their ids, each for the key groups that it counts for; later rows
// win (state-backends/chain.ts). Nothing is written, and the job may run meanwhile.
//
// Invariants:
//  N1  What is given of a key is what a restore would load.
//  N2  At most about PASS_BYTES of files are held at once: state that is larger is read several times, a share of the keys each time.
//  N3  Two snapshots are compared share by share, with the same keys in each.

import { isDeepStrictEqual } from 'node:util';
import {
  canonicalKey,
  chainOf,
  encode,
  filesOf,
  groupOf,
  type Handle,
  type HeldRow,
  hashKey,
  type KeyGroupRange,
  keyBytes,
  type Key as StateKey,
  sameKey,
  type TableHeader,
} from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import type { Key } from '../graph/job.ts';
import type { CheckpointStorage } from '../graph/storage.ts';
import type { Io } from '../runtime/io.ts';
import type { TaskSnapshot } from '../runtime/snapshot.ts';
import { itemOf, itemsAsOne } from '../runtime/stored-items.ts';
import { absolute, below, folderOf, nameIn } from './addresses.ts';
import { type CheckpointMetadata, headOf, readMetadata } from './metadata.ts';
import { storageOf } from './places.ts';
import { SnapshotFiles } from './storage.ts';
import { visitRows } from './stored-rows.ts';
import { type StoredState, storedStates } from './stored-views.ts';

/** Bytes of files whose rows are in memory together. */
const PASS_BYTES = 64 << 20;
const METADATA = 'metadata';
/** Kinds of rows (docs/formats-state.md). */
const TOMBSTONE = 1;
const KEY_TOMBSTONE = 2;

export interface SnapshotSummary {
  readonly uid: string;
  readonly state: string;
  readonly kind: string;
  /** Keys, or items where the state has no keys. */
  readonly rows: number;
  /** Of keys and values, encoded. */
  readonly bytes: number;
}

export interface SnapshotEntry {
  readonly uid: string;
  readonly state: string;
  /** None of what is an item of an instance's list. */
  readonly key?: Key;
  readonly value: unknown;
  /** Of the value, encoded. */
  readonly bytes: number;
}

export interface SnapshotChange {
  readonly uid: string;
  readonly state: string;
  readonly key?: Key;
  readonly change: 'added' | 'removed' | 'changed';
  readonly before?: unknown;
  readonly after?: unknown;
}

export interface EntryFilter {
  readonly uid?: string | undefined;
  readonly state?: string | undefined;
  /** Tests a key before anything is made of its rows. */
  readonly key?: ((key: Key) => boolean) | undefined;
}

/** What is known of the rows of a uid by table, by key. */
type Tables = Map<string, Map<string, { readonly key: StateKey; readonly hash: number; readonly rows: Map<string, HeldRow> }>>;

interface Share {
  readonly tables: Tables;
  readonly states: readonly StoredState[];
}

/** Where a checkpoint or savepoint lies: the path of its metadata, or the folder of a savepoint. `own`: the storage of its job, where that is known. */
export async function openSnapshot(path: string, io: Io, own?: CheckpointStorage): Promise<SnapshotInspector> {
  const address = absolute(path);
  const storage = storageOf(address, io, own);
  const metadataPath = (await storage.find(address)) === 'folder' ? below(address, METADATA) : address;
  const there = await Promise.all([metadataPath, `${metadataPath}.copy`].map((each) => storage.find(each)));
  if (!there.includes('file'))
    throw new MillraceError('CHECKPOINT_NOT_FOUND', `There is no checkpoint and no savepoint at ${path}.`, {
      todo: 'Name the metadata file of a checkpoint (millrace checkpoints --json says it), or the folder of a savepoint.',
    });
  const metadata = await readMetadata(storage, metadataPath);
  const folder = folderOf(metadataPath);
  return new SnapshotInspector(metadataPath, metadata, new SnapshotFiles(storage, nameIn(folder) === 'checkpoints' ? folderOf(folder) : folder, { io }));
}

export class SnapshotInspector {
  readonly path: string;
  readonly metadata: CheckpointMetadata;
  readonly #files: SnapshotFiles;

  constructor(path: string, metadata: CheckpointMetadata, files: SnapshotFiles) {
    this.path = path;
    this.metadata = metadata;
    this.#files = files;
  }

  /** Where its files are read from. */
  get files(): SnapshotFiles {
    return this.#files;
  }

  /** All operators that have something stored, in the order of their names. */
  get uids(): string[] {
    const uids = this.metadata.tasks.flatMap((task) => [
      ...(task.keyed === undefined ? [] : [task.keyed.uid]),
      ...Object.keys(task.operators),
      ...(task.inFlight?.lanes ?? []).flatMap(({ address, records }) => (address === undefined || records === 0 ? [] : [headOf(address)])),
    ]);
    // What has a dot in its name has no uid: it is made anew by every program.
    return [...new Set(uids)].filter((uid) => !uid.includes('.')).sort();
  }

  /** Every state of every operator, or of one. */
  async list(uid?: string): Promise<SnapshotSummary[]> {
    const sums = new Map<string, { uid: string; state: string; kind: string; rows: number; bytes: number }>();
    for (const each of this.#chosen(uid)) {
      for (const [state, { kind, items }] of this.#withoutKeys(each)) {
        const bytes = items.reduce((sum, { value }) => sum + encode(value).length, 0);
        if (items.length > 0) sums.set(`${each}/${state}`, { uid: each, state, kind, rows: items.length, bytes });
      }
      for await (const { tables, states } of this.#shares(each, () => true)) {
        for (const { name: state, kind, table, tables: its } of states) {
          const id = `${each}/${state}`;
          const sum = sums.get(id) ?? { uid: each, state, kind, rows: 0, bytes: 0 };
          sum.rows += tables.get(table)?.size ?? 0;
          for (const name of its) for (const { key, rows } of tables.get(name)?.values() ?? []) sum.bytes += sizeOf(key, rows.values());
          sums.set(id, sum);
        }
      }
    }
    // What operators keep for themselves is there in name everywhere.
    return [...sums.values()].filter(({ state, rows }) => rows > 0 || !state.startsWith('.'));
  }

  /** What one key has there; without a key, all items of state that has none: an array, or the Map of a broadcastMap. Undefined where there is nothing. */
  async get(uid: string, state: string, key?: Key): Promise<unknown> {
    this.#chosen(uid);
    if (key === undefined) return this.#all(uid, state);
    const own = canonicalKey(key);
    const { tables, states } = await this.share(uid, { pick: (other) => sameKey(other, own), only: hashKey(own) });
    const of = states.find(({ name }) => name === state);
    if (of !== undefined) return entriesOf(uid, of, tables)[0]?.value;
    const without = this.#withoutKeys(uid).get(state);
    if (without === undefined) throw this.#notFound(uid, state, states);
    return without.items.find((item) => item.key !== undefined && sameKey(item.key, own))?.value;
  }

  #all(uid: string, state: string): unknown {
    const without = this.#withoutKeys(uid).get(state);
    if (without === undefined)
      throw new MillraceError('STATE_NOT_FOUND', `'${uid}' has no state '${state}' without a key in ${this.path}.`, {
        uid,
        todo: 'Name the key, where it is state by key; millrace state ls lists what there is.',
      });
    return itemsAsOne(without.items);
  }

  /** Everything that the filter lets through, by operator, state and key. */
  async *entries(filter: EntryFilter = {}): AsyncGenerator<SnapshotEntry> {
    const pick = (key: StateKey): boolean => filter.key === undefined || filter.key(key as Key);
    let seen = false;
    let known: readonly StoredState[] = [];
    for (const uid of this.#chosen(filter.uid)) {
      for (const entry of this.itemsOf(uid)) {
        if (filter.state !== undefined && filter.state !== entry.state) continue;
        seen = true;
        if (filter.key === undefined || (entry.key !== undefined && pick(entry.key))) yield entry;
      }
      for await (const { tables, states } of this.#shares(uid, pick)) {
        known = states;
        for (const state of states) {
          if (filter.state !== undefined ? state.name !== filter.state : state.kind === 'internal') continue;
          seen = true;
          yield* entriesOf(uid, state, tables);
        }
      }
    }
    if (!seen && filter.uid !== undefined && filter.state !== undefined) throw this.#notFound(filter.uid, filter.state, known);
  }

  /** What of an operator lies in the metadata: items of its instances, splits, what a sink has pending. */
  itemsOf(uid: string): SnapshotEntry[] {
    return [...this.#withoutKeys(uid)].flatMap(([state, { items }]) => items.map((item) => ({ uid, state, ...item, bytes: encode(item.value).length })));
  }

  // ── reading ──

  #chosen(uid: string | undefined): string[] {
    if (uid === undefined) return this.uids;
    if (this.uids.includes(uid)) return [uid];
    throw new MillraceError('STATE_NOT_FOUND', `Nothing of an operator '${uid}' is in ${this.path}.`, {
      todo: this.uids.length === 0 ? 'It holds no state at all.' : `There is state of ${this.uids.map((each) => `'${each}'`).join(', ')}.`,
    });
  }

  #notFound(uid: string, state: string, states: readonly StoredState[]): MillraceError {
    const names = [...this.#withoutKeys(uid).keys(), ...states.map(({ name }) => name)];
    return new MillraceError('STATE_NOT_FOUND', `'${uid}' has no state '${state}' in ${this.path}.`, {
      uid,
      todo: names.length === 0 ? 'It has none at all.' : `It has ${names.join(', ')}.`,
    });
  }

  async *#shares(uid: string, pick: (key: StateKey) => boolean): AsyncGenerator<Share> {
    const shares = this.sharesOf(uid);
    for (let at = 0; at < shares; at++) yield this.share(uid, { pick, at, of: shares });
  }

  /** In how many shares the rows of an operator are read (N2). */
  sharesOf(uid: string): number {
    const files = new Map(
      this.#handles(uid)
        .flatMap(filesOf)
        .map(({ name, bytes }) => [name, bytes]),
    );
    return Math.max(1, Math.ceil([...files.values()].reduce((sum, bytes) => sum + bytes, 0) / PASS_BYTES));
  }

  /** The rows of share `at` of `of`; with `only`, of keys of that hash, and only the files of their key group are read. */
  async share(
    uid: string,
    { pick, at = 0, of = 1, only, by = 'groups' }: { pick: (key: StateKey) => boolean; at?: number; of?: number; only?: number; by?: 'groups' | 'hashes' },
  ): Promise<Share> {
    const handles = this.#handles(uid, only === undefined ? undefined : groupOf(only, this.metadata.maxParallelism));
    const { maxParallelism } = this.metadata;
    // By groups, so that a share of the rows is a share of the files; N3 needs shares that do not depend on the number of groups.
    const byGroups = by === 'groups' && of <= maxParallelism;
    const first = (share: number): number => Math.ceil((share * maxParallelism) / of);
    const group = only === undefined ? undefined : groupOf(only, maxParallelism);
    const groups = group !== undefined ? { from: group, to: group } : of > 1 && byGroups ? { from: first(at), to: first(at + 1) - 1 } : undefined;
    const mine = (hash: number): boolean => (only === undefined ? byGroups || Math.floor(((hash >>> 0) / 2 ** 32) * of) === at : hash === only);
    const { tables, headers } = await this.#load(handles, groups, (key, hash) => mine(hash) && pick(key));
    return { tables, states: storedStates(headers, windowsDefined(this.metadata.tasks, uid)) };
  }

  #handles(uid: string, group?: number): Handle[] {
    return this.metadata.tasks.flatMap(({ keyed }) => (keyed?.uid === uid && (group === undefined || within(keyed.range, group)) ? [keyed.handle] : []));
  }

  /** N1. */
  async #load(
    handles: readonly Handle[],
    groups: KeyGroupRange | undefined,
    pick: (key: StateKey, hash: number) => boolean,
  ): Promise<{ tables: Tables; headers: TableHeader[] }> {
    const chain = chainOf(handles);
    const tables: Tables = new Map();
    const headers = new Map<string, TableHeader>();
    for (const ref of [...chain.bases, ...chain.deltas]) {
      let here: readonly TableHeader[] = [];
      await visitRows(ref, this.#files, {
        maxParallelism: this.metadata.maxParallelism,
        only: groups === undefined ? undefined : [groups],
        onTables: (names) => {
          here = names;
          for (const header of names) headers.set(header.name, header);
        },
        onRow: (number, kind, key, hash, ns, value) => {
          if (pick(key, hash)) apply(tables, here[number]!, kind, key, hash, ns, value);
        },
      });
    }
    return { tables, headers: [...headers.values()] };
  }

  /** What of an operator lies in the metadata itself, by name of the state. */
  #withoutKeys(uid: string): Map<string, { kind: string; items: { key?: Key; value: unknown }[] }> {
    const out = new Map<string, { kind: string; items: { key?: Key; value: unknown }[] }>();
    const add = (state: string, kind: string, items: readonly { key?: Key; value: unknown }[]): void => {
      const there = out.get(state);
      if (there === undefined) out.set(state, { kind, items: [...items] });
      else there.items.push(...items);
    };
    for (const task of [...this.metadata.tasks].sort((one, other) => one.subtask - other.subtask)) {
      const { splits = [], writers = [], deadLetters = [], parts = {} } = task.operators[uid] ?? {};
      if (splits.length > 0)
        add(
          'splits',
          'source',
          splits.map(({ id, split, position, finished }) => ({ key: id, value: { split, position, finished } })),
        );
      if (writers.length > 0)
        add(
          'pending',
          'sink',
          writers.map(({ writer, segments }) => ({
            key: writer,
            value: segments.map(({ checkpoint, records, file }) => ({ checkpoint, records, bytes: file.bytes })),
          })),
        );
      if (deadLetters.length > 0)
        add(
          'dead-letters',
          'dead letters',
          deadLetters.map((value) => ({ value })),
        );
      for (const { address, records } of task.inFlight?.lanes ?? []) {
        if (address === undefined || records === 0 || headOf(address) !== uid) continue;
        add('in-flight', 'channel', [{ value: { instance: task.subtask, by: address.slice(uid.length + 1), records } }]);
      }
      for (const [name, { mode, items }] of Object.entries(parts)) {
        // Every instance has the same copy.
        if (mode === 'broadcast' && out.has(name)) continue;
        if (!(name === 'windows' && windowsDefined([task], uid) !== undefined)) add(name, mode, items.map(itemOf));
      }
    }
    return out;
  }
}

/** What differs between two snapshots, of one job or of two. */
export async function* diffSnapshots(one: SnapshotInspector, other: SnapshotInspector, uid?: string): AsyncGenerator<SnapshotChange> {
  const uids = [...new Set([...one.uids, ...other.uids])].sort();
  if (uid !== undefined && !uids.includes(uid)) await one.list(uid);
  for (const each of uid === undefined ? uids : [uid]) {
    const [before, after] = [one.itemsOf(each), other.itemsOf(each)];
    yield* changesBetween(before, after);
    // N3.
    const of = Math.max(one.sharesOf(each), other.sharesOf(each));
    const by = one.metadata.maxParallelism === other.metadata.maxParallelism ? 'groups' : 'hashes';
    for (let at = 0; at < of; at++) {
      const sides = [];
      for (const snapshot of [one, other]) {
        const { tables, states } = await snapshot.share(each, { pick: () => true, at, of, by });
        sides.push(states.filter(({ kind }) => kind !== 'internal').flatMap((state) => entriesOf(each, state, tables)));
      }
      yield* changesBetween(sides[0]!, sides[1]!);
    }
  }
}

/** Entries with a key by key; of those without, what is not on the other side as often. */
function* changesBetween(before: readonly SnapshotEntry[], after: readonly SnapshotEntry[]): Generator<SnapshotChange> {
  const idOf = ({ state, key, value }: SnapshotEntry): string =>
    key === undefined ? `${state}=${Buffer.from(encode(value)).toString('latin1')}` : `${state}/${keyBytes(key).toString('latin1')}`;
  const left = new Map<string, SnapshotEntry[]>();
  for (const entry of before) left.set(idOf(entry), [...(left.get(idOf(entry)) ?? []), entry]);
  for (const entry of after) {
    const { uid, state, key, value } = entry;
    const was = left.get(idOf(entry))?.shift();
    const place = { uid, state, ...(key === undefined ? {} : { key }) };
    if (was === undefined) yield { ...place, change: 'added', after: value };
    else if (!isDeepStrictEqual(was.value, value)) yield { ...place, change: 'changed', before: was.value, after: value };
  }
  for (const { uid, state, key, value } of [...left.values()].flat())
    yield { uid, state, ...(key === undefined ? {} : { key }), change: 'removed', before: value };
}

function apply(tables: Tables, { name, layout }: TableHeader, kind: number, key: StateKey, hash: number, ns: unknown, value: unknown): void {
  let table = tables.get(name);
  if (table === undefined) {
    table = new Map();
    tables.set(name, table);
  }
  const id = keyBytes(key).toString('latin1');
  if (kind === KEY_TOMBSTONE) {
    table.delete(id);
    return;
  }
  // A timer is known by its time too.
  const place = layout === 'timers' ? `${String(ns)}@${String(value)}` : layout === 'keyed' ? keyBytes(ns as StateKey).toString('latin1') : String(ns);
  const there = table.get(id);
  if (kind === TOMBSTONE) {
    there?.rows.delete(place);
    if (there?.rows.size === 0) table.delete(id);
    return;
  }
  if (there === undefined) table.set(id, { key, hash, rows: new Map([[place, { ns, value }]]) });
  else there.rows.set(place, { ns, value });
}

function entriesOf(uid: string, { name: state, table, view, tables: its }: StoredState, tables: Tables): SnapshotEntry[] {
  const rowsOf = (id: string, name: string): HeldRow[] => {
    const rows = [...(tables.get(name)?.get(id)?.rows.values() ?? [])];
    // Rows of an ordered table come in the order in which they were written.
    return rows.length > 1 && rows.every(({ ns }) => typeof ns === 'number') ? rows.sort((one, other) => (one.ns as number) - (other.ns as number)) : rows;
  };
  const keys = [...(tables.get(table) ?? [])].sort(([one, { hash: a }], [other, { hash: b }]) => (a >>> 0) - (b >>> 0) || (one < other ? -1 : 1));
  return keys.flatMap(([id, { key }]) => {
    const value = view((name) => (its.includes(name) ? rowsOf(id, name) : []));
    return value === undefined ? [] : [{ uid, state, key: key as Key, value, bytes: encode(value).length }];
  });
}

function sizeOf(key: StateKey, rows: Iterable<HeldRow>): number {
  let bytes = keyBytes(key).length;
  for (const { value } of rows) bytes += encode(value).length;
  return bytes;
}

function within({ from, to }: KeyGroupRange, group: number): boolean {
  return group >= from && group <= to;
}

/** How the windows of an operator are defined (operators/window-definition.ts). */
function windowsDefined(tasks: readonly TaskSnapshot[], uid: string): string | undefined {
  const item = tasks.flatMap((task) => task.operators[uid]?.parts?.windows?.items ?? [])[0];
  return typeof item === 'string' ? item : undefined;
}
