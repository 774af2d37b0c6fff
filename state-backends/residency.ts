// What a table of level() asks of LevelDB. memory() has none of it: its tables hold `undefined` in its place.

import type { Key, TimerRow } from './contract.ts';
import type { MemoryGroup, MemoryRow } from './row.ts';

/** What looking asks of it; neither counts nor makes anything resident. */
export interface Peeking {
  /** What LevelDB has of a key that is not in memory. */
  peek(key: Key, hash: number): Uint8Array | undefined;
  /** The keys in LevelDB, page by page; undefined where everything is in memory. */
  storedKeys(): AsyncIterator<readonly Key[]> | undefined;
}

export interface SingleStore extends Peeking {
  /** After a miss in memory: the row from LevelDB, made resident; undefined where there is none. */
  fetch(key: Key, hash: number): MemoryRow | undefined;
  /** A row came into the table, by insertion. */
  arrived(row: MemoryRow): void;
  /** The row is newer than its stored version. */
  dirtied(row: MemoryRow): void;
  /** The value has another size. */
  resized(row: MemoryRow): void;
  /** The row is deleted. False where it has to stay as a tombstone. */
  leaves(row: MemoryRow): boolean;
}

export interface GroupedStore extends Peeking {
  fetch(key: Key, hash: number): MemoryGroup | undefined;
  arrived(group: MemoryGroup, row: MemoryRow): void;
  dirtied(group: MemoryGroup): void;
  resized(group: MemoryGroup, row: MemoryRow): void;
  /** A row left the group, which has others. */
  shrunk(group: MemoryGroup, row: MemoryRow): void;
  /** The last row left. False where the group has to stay as a tombstone. */
  leaves(group: MemoryGroup, row: MemoryRow): boolean;
}

export interface TimerStore {
  /** One that LevelDB has is in the table no more. */
  left(timer: TimerRow): void;
}

/** Takes rows of another database over as they are stored there, none of which the table has. */
export interface Adopting {
  put(rows: readonly (readonly [key: Buffer, hash: number, value: Buffer])[]): Promise<void>;
}
