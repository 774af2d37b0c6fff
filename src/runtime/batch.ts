// Batches: columns of records, handed from task to task by reference inside a thread.
//
// Invariants:
//  B1  The producer fills a batch, hands it over, and never touches it again; the consumer releases it once every record is processed.
//  B2  A keyed batch has `keys` and `hashes`, computed once by the producer; nothing downstream hashes a key again.
//  B3  A builder grows past BATCH_SIZE inside a unit (overdraft) and is handed over between units only (protocols 15).
//  B4  A batch that an unaligned checkpoint has captured is pinned: until it is encoded its arrays do not return to the pool (protocols 16).

import type { Key } from '../graph/job.ts';
import { limitOverdraft, OVERDRAFT_STEP } from './overdraft.ts';

/** Records a batch holds before it is handed over. */
export const BATCH_SIZE = 512;
const POOL_MAX = 64;

export class Batch {
  size = 0;
  capacity: number;
  values: unknown[];
  /** NaN where a record has none. */
  timestamps: Float64Array;
  readonly keyed: boolean;
  keys: Key[];
  hashes: Int32Array;
  /** How many captures wait to be encoded (B4), and whether the consumer has released it meanwhile. */
  pins = 0;
  released = false;

  constructor(keyed: boolean, capacity: number) {
    this.capacity = capacity;
    this.keyed = keyed;
    this.values = new Array<unknown>(capacity);
    this.timestamps = new Float64Array(capacity);
    this.keys = keyed ? new Array<Key>(capacity) : [];
    this.hashes = new Int32Array(keyed ? capacity : 0);
  }

  add(value: unknown, timestamp: number): void {
    const n = this.size;
    if (n === this.capacity) this.grow();
    this.values[n] = value;
    this.timestamps[n] = timestamp;
    this.size = n + 1;
  }

  addKeyed(value: unknown, timestamp: number, key: Key, hash: number): void {
    const n = this.size;
    if (n === this.capacity) this.grow();
    this.values[n] = value;
    this.timestamps[n] = timestamp;
    this.keys[n] = key;
    this.hashes[n] = hash;
    this.size = n + 1;
  }

  grow(): void {
    if (this.capacity >= OVERDRAFT_STEP) limitOverdraft(this.values, this.size);
    this.capacity *= 2;
    this.values.length = this.capacity;
    const timestamps = new Float64Array(this.capacity);
    timestamps.set(this.timestamps);
    this.timestamps = timestamps;
    if (!this.keyed) return;
    this.keys.length = this.capacity;
    const hashes = new Int32Array(this.capacity);
    hashes.set(this.hashes);
    this.hashes = hashes;
  }

  /** Drops what a failed unit added. */
  truncate(size: number): void {
    this.values.fill(undefined, size, this.size);
    this.size = size;
  }
}

const free: [Batch[], Batch[]] = [[], []];

export function takeBatch(keyed: boolean): Batch {
  return free[keyed ? 1 : 0].pop() ?? new Batch(keyed, BATCH_SIZE);
}

/** A capture of it has been encoded, or was given up. */
export function unpinBatch(batch: Batch): void {
  batch.pins -= 1;
  if (batch.pins > 0 || !batch.released) return;
  batch.released = false;
  releaseBatch(batch);
}

/** Batches that grew are left to the garbage collector. */
export function releaseBatch(batch: Batch): void {
  if (batch.pins > 0) {
    batch.released = true;
    return;
  }
  const pool = free[batch.keyed ? 1 : 0];
  if (batch.capacity !== BATCH_SIZE || pool.length >= POOL_MAX) return;
  batch.truncate(0);
  pool.push(batch);
}
