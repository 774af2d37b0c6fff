// A second name for each table of a database, so that LevelDB's removal of a table is the removal of a name only.
//
// What: behind a compaction LevelDB removes the tables that it has made obsolete while it holds its lock, and whoever reads or writes a row waits for that. The last name of a table takes
// its blocks along, tens of milliseconds for each. The names that are made here outlive LevelDB's, and go in a thread of the pool, where nobody waits.
//
// Invariants:
//  M1  It is for speed only: where a file system cannot link, or anything else fails, names are made no more and those that there are go, so that they hold no space; LevelDB then
//      removes its tables as it always does.
//  M2  Looked for is a while after something was written, one look at a time, and again until nothing has changed. A table that comes and goes between two looks is LevelDB's alone.

import { promises as fs } from 'node:fs';
import { join } from 'node:path';

const TABLE = /^\d+\.ldb$/;
const EVERY_MS = 100;

export class SecondNames {
  readonly #directory: string;
  readonly #folder: string;
  readonly #held = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #isOver = false;

  constructor(directory: string) {
    this.#directory = directory;
    this.#folder = join(directory, 'names');
  }

  /** M2. */
  written(): void {
    if (this.#isOver || this.#timer !== undefined || this.#looking !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#looking = this.#look().then(
        (changed) => {
          this.#looking = undefined;
          if (changed) this.written();
        },
        async () => {
          // M1.
          this.#isOver = true;
          await fs.rm(this.#folder, { recursive: true, force: true }).catch(() => {
            // With the directory, then.
          });
        },
      );
    }, EVERY_MS).unref();
  }

  async close(): Promise<void> {
    this.#isOver = true;
    clearTimeout(this.#timer);
    await this.#looking;
  }

  async #look(): Promise<boolean> {
    const tables = new Set((await fs.readdir(this.#directory)).filter((name) => TABLE.test(name)));
    let changed = false;
    if (this.#held.size === 0) await fs.mkdir(this.#folder, { recursive: true });
    for (const name of tables) {
      if (this.#held.has(name)) continue;
      try {
        await fs.link(join(this.#directory, name), join(this.#folder, name));
      } catch (error) {
        if ((error as { code?: unknown }).code === 'ENOENT') continue;
        throw error;
      }
      this.#held.add(name);
      changed = true;
    }
    for (const name of this.#held) {
      if (tables.has(name)) continue;
      await fs.unlink(join(this.#folder, name));
      this.#held.delete(name);
      changed = true;
    }
    return changed;
  }
}
