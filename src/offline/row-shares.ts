// The rows of an operator, in shares by the hash of their keys, so that one share at a time is in memory.
//
// What: where all files of the operator are small they are read as they are, and there is one share. Otherwise they are read once, in the order of a restore,
// and dealt out to a row file for each share, in a folder for as long as that takes.
//
// Invariants:
//  W1  All rows of a key are in one share, in the order in which a restore would load them; rows that do not count for their key group (chain C4) are in none.
//  W2  What is in memory is a share, and a block of each share's file while they are written.

import { join } from 'node:path';
import {
  type BaseRef,
  chainOf,
  type DeltaRef,
  filesOf,
  type Handle,
  type Loaded,
  RowFileWriter,
  type TableHeader,
  type TaskState,
} from '../../state-backends/index.ts';
import { corrupt } from '../checkpoint/storage.ts';
import { linkedAsRows, type StoredFiles, visitRows } from '../checkpoint/stored-rows.ts';
import { messageOf } from '../errors.ts';
import type { Io } from '../runtime/io.ts';

/** Bytes of files that make one share: small rows take twenty times as much in memory. */
const SHARE_BYTES = 2 << 20;
/** More files are not open at once. */
export const SHARES_MAX = 512;

export interface RowSharesOptions {
  readonly files: StoredFiles;
  readonly handles: readonly Handle[];
  readonly maxParallelism: number;
  readonly io: Io;
  /** Makes an empty folder for what does not fit in memory. */
  readonly folder: () => Promise<string>;
  /** Bytes that a share will hold beside its rows. */
  readonly besideBytes?: number;
  /** Bytes of a share; for tests. */
  readonly shareBytes?: number | undefined;
}

/** In how many shares so much is worked on: a power of two, so that shares of records that were dealt out finer can be put together. */
export function sharesFor(bytes: number, shareBytes = SHARE_BYTES): number {
  return Math.min(SHARES_MAX, 2 ** Math.ceil(Math.log2(Math.max(1, bytes / shareBytes))));
}

/** Which of `shares` a key with that hash is in. */
export function shareOf(hash: number, shares: number): number {
  return Math.floor(((hash >>> 0) / 2 ** 32) * shares);
}

export class RowShares {
  /** Of all tables, in every version that a file has; none where nothing is stored. */
  readonly tables: readonly TableHeader[];
  readonly count: number;
  readonly #options: RowSharesOptions;
  readonly #source: readonly (BaseRef | DeltaRef)[];
  /** Undefined: there is one share, which is the files themselves. */
  #folder: string | undefined;

  static async of(options: RowSharesOptions): Promise<RowShares> {
    const chain = chainOf(options.handles);
    const source = [...chain.bases, ...chain.deltas];
    const tables: TableHeader[] = [];
    for (const ref of source) {
      const onTables = (headers: readonly TableHeader[]): void => {
        for (const { uid, name, layout, version } of headers)
          if (!tables.some((table) => name === table.name && version === table.version)) tables.push({ uid, name, layout, version });
      };
      await visitRows(ref, options.files, { maxParallelism: options.maxParallelism, only: [], onTables, onRow() {} });
    }
    const stored = new Map(options.handles.flatMap(filesOf).map(({ name, bytes }) => [name, bytes]));
    const bytes = [...stored.values()].reduce((sum, each) => sum + each, options.besideBytes ?? 0);
    const shares = new RowShares(options, source, tables, sharesFor(bytes, options.shareBytes));
    if (shares.count > 1) await shares.#deal();
    return shares;
  }

  private constructor(options: RowSharesOptions, source: readonly (BaseRef | DeltaRef)[], tables: readonly TableHeader[], count: number) {
    this.#options = options;
    this.#source = source;
    this.tables = tables;
    this.count = count;
  }

  /** Loads a share into state that was opened for all key groups. */
  async load(share: number, state: TaskState): Promise<void> {
    const { files, io, maxParallelism } = this.#options;
    if (this.#folder === undefined) {
      for (const ref of this.#source) {
        const rows = 'tables' in ref ? linkedAsRows(ref, files, maxParallelism, () => true) : files.read(ref.file);
        await naming(`files/${ref.file.name}`, () => state.load(rows, ref.ranges));
      }
      return;
    }
    if (this.tables.length === 0) return;
    const path = join(this.#folder, String(share));
    await naming(path, () => state.load(stream(path, io)));
  }

  async #deal(): Promise<void> {
    const { files, maxParallelism, io, folder } = this.#options;
    this.#folder = await folder();
    if (this.tables.length === 0) return;
    const writers = Array.from({ length: this.count }, () => new RowFileWriter(this.tables, maxParallelism));
    const open: Awaited<ReturnType<Io['fs']['open']>>[] = [];
    let unwritten = 0;
    const write = async (last: boolean): Promise<void> => {
      unwritten = 0;
      for (const [share, writer] of writers.entries()) for (const block of last ? writer.finish() : writer.take()) await open[share]!.writeFile(block);
    };
    try {
      for (let share = 0; share < this.count; share++) open.push(await io.fs.open(join(this.#folder, String(share)), 'wx'));
      for (const ref of this.#source) {
        let numbers: number[] = [];
        await visitRows(
          ref,
          pausing(files, () => (unwritten > UNWRITTEN_ROWS ? write(false) : undefined)),
          {
            maxParallelism,
            onTables: (headers) => {
              numbers = headers.map((header) => this.tables.findIndex(({ name, version }) => name === header.name && version === header.version));
            },
            onRow: (table, kind, key, hash, ns, value) => {
              unwritten += 1;
              writers[shareOf(hash, this.count)]!.row(numbers[table]!, kind as 0 | 1 | 2, key, hash, ns, value);
            },
          },
        );
        await write(false);
      }
      await write(true);
    } finally {
      for (const each of open) await each.close();
    }
  }
}

/** Rows that are dealt out between two writes. */
const UNWRITTEN_ROWS = 4096;

/** The same files; `pause` is awaited before each part of them. */
function pausing(files: StoredFiles, pause: () => Promise<void> | undefined): StoredFiles {
  return {
    async *read(file, range) {
      for await (const part of files.read(file, range)) {
        await pause();
        yield part;
      }
    },
  };
}

/** A reader of rows does not know which file it reads. */
async function naming(path: string, read: () => Promise<Loaded>): Promise<void> {
  try {
    await read();
  } catch (error) {
    const { code, message = '' } = error as { code?: string; message?: string };
    if (code !== 'SNAPSHOT_CORRUPT' || message.includes(path)) throw error;
    throw corrupt(path, messageOf(error), error);
  }
}

async function* stream(path: string, io: Io): AsyncIterable<Uint8Array> {
  const handle = await io.fs.open(path, 'r');
  try {
    for (;;) {
      const buffer = Buffer.allocUnsafe(1 << 20);
      const { bytesRead } = await handle.read(buffer, 0, buffer.length);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await handle.close();
  }
}
