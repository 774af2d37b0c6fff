// Rows on their way to LevelDB, and what is to be done with those in memory once they are there.

import type { Level } from 'level';

export type Database = Level<Buffer, Buffer>;

const BATCH_ROWS = 2048;
const BATCH_BYTES = 1 << 20;

/** Rows on their way to LevelDB. */
export class Batch {
  rows = 0;
  bytes = 0;
  /** Bytes that memory gets back if nothing of it is touched meanwhile. */
  frees = 0;
  private readonly chain: ReturnType<Database['batch']>;
  private readonly settle: (() => number)[] = [];

  constructor(db: Database) {
    this.chain = db.batch();
  }

  get full(): boolean {
    return this.rows >= BATCH_ROWS || this.bytes >= BATCH_BYTES;
  }

  /** `settled` runs when the batch has resolved and says how many bytes were given back. */
  put(key: Buffer, value: Buffer, frees: number, settled: () => number): void {
    this.chain.put(key, value);
    this.bytes += key.length + value.length;
    this.count(frees, settled);
  }

  delete(key: Buffer, frees: number, settled: () => number): void {
    this.chain.del(key);
    this.bytes += key.length;
    this.count(frees, settled);
  }

  private count(frees: number, settled: () => number): void {
    this.rows++;
    this.frees += frees;
    this.settle.push(settled);
  }

  write(): Promise<void> {
    return this.chain.write();
  }

  resolved(): number {
    let freed = 0;
    for (const settled of this.settle) freed += settled();
    return freed;
  }
}
