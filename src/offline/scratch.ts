// Folders for what does not fit in memory while a snapshot is read or edited.

import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Io } from '../runtime/io.ts';

/** A folder among the system's for temporary files (TMPDIR), made when the first one is asked for, and removed with all that is in it. */
export class Scratch {
  readonly #io: Io;
  #made: Promise<string> | undefined;
  #folders = 0;

  constructor(io: Io) {
    this.#io = io;
  }

  readonly folder = async (): Promise<string> => {
    this.#made ??= mkdtemp(join(tmpdir(), 'millrace-snapshot-'));
    const folder = join(await this.#made, String(this.#folders++));
    await this.#io.fs.mkdir(folder, { recursive: true });
    return folder;
  };

  async remove(): Promise<void> {
    const made = this.#made;
    this.#made = undefined;
    if (made !== undefined) await this.#io.fs.rm(await made, { recursive: true, force: true });
  }
}
