// Snapshots as typed data: what stands in a checkpoint or savepoint, read with the state that a program declares.
//
// Invariants:
//  R1  Nothing is changed, neither the snapshot nor the job that it is of, which may run meanwhile.
//  R2  Memory holds a share of the keys (row-shares.ts). What does not fit lies in the system's folder for temporary files until the reading ends.
//  R3  What is given of a key is what a restore at this moment would give to its handlers: migrated, and without what has expired.

import type { Handles, StateKind } from '../../state-backends/index.ts';
import type { Type } from '../api/process.ts';
import { openSnapshot as inspectSnapshot, type SnapshotInspector } from '../checkpoint/inspect.ts';
import type { SavepointEdit } from '../checkpoint/metadata.ts';
import { MillraceError } from '../errors.ts';
import type { Key } from '../graph/job.ts';
import { type Io, systemIo } from '../runtime/io.ts';
import { SharedState } from './changed-rows.ts';
import { RowShares } from './row-shares.ts';
import { Scratch } from './scratch.ts';
import { storedClocks } from './stored-clocks.ts';
import { type KeyedSpec, type StoredKey, StoredKeys, TIMER_TABLES } from './stored-keys.ts';
import { withUnkeyed } from './unkeyed-edit.ts';

/** A state of a snapshot. */
export interface SnapshotState {
  readonly uid: string;
  readonly state: string;
  /** `value`, `list`, `map`, `windows`, `join`, `timers`; `split`, `union`, `broadcast` without a key; `source`, `sink`, `dead letters`. */
  readonly kind: string;
  /** Keys, or items where it has none. */
  readonly rows: number;
  /** Of keys and values, encoded. */
  readonly bytes: number;
}

/** What one key has in one state, or an item of a state without a key. */
export interface StoredEntry<V = unknown> {
  readonly uid: string;
  readonly state: string;
  readonly key?: Key;
  readonly value: V;
}

export type UnkeyedSpec = Record<string, StateKind<unknown, 'operator' | 'broadcast'>>;

/** A checkpoint or savepoint, open for reading. */
export interface Snapshot {
  /** Of the checkpoint that it is, or was made of. */
  readonly id: number;
  readonly job: string;
  /** Of its metadata. */
  readonly path: string;
  /** Epoch milliseconds. */
  readonly startedAt: number;
  readonly maxParallelism: number;
  /** Of the operators that have something in it. */
  readonly uids: readonly string[];
  /** What was done to it without a job, oldest first. */
  readonly edits: readonly SavepointEdit[];
  /** Every state, or those of one operator. */
  states(uid?: string): Promise<SnapshotState[]>;
  /**
   * What one key has there, as it is stored: the accumulator of an aggregate, the windows of a window. Without a key: the items of a list, the Map of a
   * `broadcastMap`. Undefined where there is nothing.
   */
  get<V>(uid: string, state: string, key?: Key): Promise<V | undefined>;
  /** Everything, or what of an operator or a state there is, as it is stored; see `get`. Of `broadcastMap` each entry has its key. */
  entries<V>(of?: { uid?: string; state?: string }): AsyncIterable<StoredEntry<V>>;
  /** Every key of an operator that has something of the declared state, or a timer. Use what is given of a key before the next one is asked for. */
  keys<K extends Key = Key, S extends KeyedSpec = {}>(uid: string, of?: { key?: Type<K>; state?: S }): AsyncIterable<StoredKey<K, S>>;
  /** Lists and broadcast maps of an operator, those of all instances together, for `read` to look at. */
  unkeyed<S extends UnkeyedSpec, R>(uid: string, of: { state: S; read(state: Handles<S>): R }): R;
}

/**
 * Opens a checkpoint or savepoint for reading, with or without the job that it is of.
 *
 * @param path the folder of a savepoint, or the metadata file of a checkpoint (`CheckpointInfo.path`).
 * @throws CHECKPOINT_NOT_FOUND, SNAPSHOT_CORRUPT; what it gives rejects with STATE_NOT_FOUND or SNAPSHOT_INCOMPATIBLE too.
 * @example
 * const counts = { n: value<number>({ default: 0 }) };
 * const words = job('words', (env) => {
 *   env.fromArray('in', ['a', 'b', 'a']).keyBy((word) => word).process('counts', {
 *     state: counts,
 *     onRecord: (_, ctx) => ctx.state.n.update((n) => n + 1),
 *   });
 * });
 * const { checkpoint } = await words.run({ checkpoints: { directory: 'checkpoints' } });
 * const snapshot = await openSnapshot(checkpoint!.path);
 * const found = new Map<string, number>();
 * for await (const { key, state } of snapshot.keys('counts', { key: type<string>(), state: counts })) found.set(key, state.n.get());
 * assert.deepEqual([...found].sort(), [['a', 2], ['b', 1]]);
 */
export async function openSnapshot(path: string): Promise<Snapshot> {
  const io = systemIo();
  return new SnapshotReading(await inspectSnapshot(path, io), io);
}

/** `shareBytes`: for tests. */
export class SnapshotReading implements Snapshot {
  readonly #inspector: SnapshotInspector;
  readonly #io: Io;
  readonly #shareBytes: number | undefined;

  constructor(inspector: SnapshotInspector, io: Io, shareBytes?: number) {
    this.#inspector = inspector;
    this.#io = io;
    this.#shareBytes = shareBytes;
  }

  get id(): number {
    return this.#inspector.metadata.id;
  }
  get job(): string {
    return this.#inspector.metadata.job;
  }
  get path(): string {
    return this.#inspector.path;
  }
  get startedAt(): number {
    return this.#inspector.metadata.startedAt;
  }
  get maxParallelism(): number {
    return this.#inspector.metadata.maxParallelism;
  }
  get uids(): readonly string[] {
    return this.#inspector.uids;
  }
  get edits(): readonly SavepointEdit[] {
    return this.#inspector.metadata.edits ?? [];
  }

  states(uid?: string): Promise<SnapshotState[]> {
    return this.#inspector.list(uid);
  }

  async get<V>(uid: string, state: string, key?: Key): Promise<V | undefined> {
    return (await this.#inspector.get(uid, state, key)) as V | undefined;
  }

  async *entries<V>({ uid, state }: { uid?: string; state?: string } = {}): AsyncGenerator<StoredEntry<V>> {
    for await (const { bytes: _, ...entry } of this.#inspector.entries({ uid, state })) yield entry as StoredEntry<V>;
  }

  async *keys<K extends Key, S extends KeyedSpec = {}>(uid: string, { state = {} as S }: { key?: Type<K>; state?: S } = {}): AsyncGenerator<StoredKey<K, S>> {
    const { metadata, files } = this.#inspector;
    this.#demand(uid);
    const scratch = new Scratch(this.#io);
    try {
      const shares = await RowShares.of({
        files,
        handles: metadata.tasks.flatMap(({ keyed }) => (keyed?.uid === uid ? [keyed.handle] : [])),
        maxParallelism: metadata.maxParallelism,
        io: this.#io,
        folder: scratch.folder,
        shareBytes: this.#shareBytes,
      });
      const unknown = Object.keys(state).find((name) => !shares.tables.some((table) => table.name === name));
      if (shares.tables.length > 0 && unknown !== undefined) {
        const have = [...new Set(shares.tables.map(({ name }) => name))].filter((name) => !name.startsWith('.'));
        throw new MillraceError('STATE_NOT_FOUND', `'${uid}' has no state '${unknown}' in ${this.path}.`, {
          uid,
          todo: have.length === 0 ? 'It has none at all.' : `It has ${have.join(', ')}.`,
        });
      }
      const timers = shares.tables.some(({ name }) => name === TIMER_TABLES.event);
      for (let share = 0; share < shares.count; share++) {
        const shared = await SharedState.open(metadata.maxParallelism);
        const keys = new StoredKeys(uid, shared, state, { timers, clocks: storedClocks(metadata, uid, this.#io) });
        await shares.load(share, shared.state);
        yield* keys.all() as AsyncGenerator<StoredKey<K, S>>;
      }
    } finally {
      await scratch.remove();
    }
  }

  unkeyed<S extends UnkeyedSpec, R>(uid: string, { state, read }: { state: S; read(state: Handles<S>): R }): R {
    this.#demand(uid);
    const { metadata } = this.#inspector;
    return withUnkeyed(metadata, uid, state, storedClocks(metadata, uid, this.#io), (handles) => read(handles as Handles<S>)).result;
  }

  #demand(uid: string): void {
    if (this.uids.includes(uid)) return;
    throw new MillraceError('STATE_NOT_FOUND', `Nothing of an operator '${uid}' is in ${this.path}.`, {
      uid,
      todo: this.uids.length === 0 ? 'It holds no state at all.' : `There is state of ${this.uids.map((each) => `'${each}'`).join(', ')}.`,
    });
  }
}
