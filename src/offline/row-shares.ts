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
  chainOf,
  type FileRef,
  groupOf,
  type Handle,
  hashKey,
  type KeyGroupRange,
  RowFileReader,
  RowFileWriter,
  type TableHeader,
  type TaskState,
} from '../../state-backends/index.ts';
import { corrupt } from '../checkpoint/storage.ts';
import { messageOf } from '../errors.ts';
import type { Io } from '../runtime/io.ts';

/** Bytes of files that make one share. */
const SHARE_BYTES = 16 << 20;
/** More files are not open at once. */
export const SHARES_MAX = 256;

/** Where files of snapshots are read from, and under which name they are known. */
export interface RowFiles {
  read(file: FileRef): AsyncIterable<Uint8Array>;
  pathOf(file: FileRef): string;
}

interface RowFile {
  readonly file: FileRef;
  readonly ranges?: readonly KeyGroupRange[];
}

export interface RowSharesOptions {
  readonly files: RowFiles;
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
  readonly #source: readonly RowFile[];
  /** Undefined: there is one share, which is the files themselves. */
  #folder: string | undefined;

  static async of(options: RowSharesOptions): Promise<RowShares> {
    const chain = chainOf(options.handles);
    const source = [...chain.bases, ...chain.deltas];
    const tables: TableHeader[] = [];
    for (const { file } of source) {
      for (const header of await tablesOf(options.files, file)) {
        if (!tables.some(({ name, version }) => name === header.name && version === header.version)) tables.push(header);
      }
    }
    const bytes = source.reduce((sum, { file }) => sum + file.bytes, options.besideBytes ?? 0);
    const shares = new RowShares(options, source, tables, sharesFor(bytes, options.shareBytes));
    if (shares.count > 1) await shares.#deal();
    return shares;
  }

  private constructor(options: RowSharesOptions, source: readonly RowFile[], tables: readonly TableHeader[], count: number) {
    this.#options = options;
    this.#source = source;
    this.tables = tables;
    this.count = count;
  }

  /** Loads a share into state that was opened for all key groups. */
  async load(share: number, state: TaskState): Promise<void> {
    const { files, io } = this.#options;
    if (this.#folder === undefined) {
      for (const { file, ranges } of this.#source) await naming(files.pathOf(file), () => state.load(files.read(file), ranges));
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
    const writers = Array.from({ length: this.count }, () => new RowFileWriter(this.tables));
    const open: Awaited<ReturnType<Io['fs']['open']>>[] = [];
    try {
      for (let share = 0; share < this.count; share++) open.push(await io.fs.open(join(this.#folder, String(share)), 'wx'));
      for (const { file, ranges } of this.#source) {
        let numbers: number[] = [];
        const reader = new RowFileReader(
          (headers) => {
            numbers = headers.map((header) => this.tables.findIndex(({ name, version }) => name === header.name && version === header.version));
          },
          (table, kind, key, ns, value) => {
            const hash = hashKey(key);
            const group = groupOf(hash, maxParallelism);
            if (ranges !== undefined && !ranges.some(({ from, to }) => group >= from && group <= to)) return;
            writers[shareOf(hash, this.count)]!.row(numbers[table]!, kind, key, ns, value);
          },
        );
        await naming(files.pathOf(file), async () => {
          for await (const chunk of files.read(file)) {
            reader.push(chunk);
            for (const [share, writer] of writers.entries()) for (const block of writer.take()) await open[share]!.writeFile(block);
          }
          reader.end();
        });
      }
      for (const [share, writer] of writers.entries()) for (const block of writer.finish()) await open[share]!.writeFile(block);
    } finally {
      for (const each of open) await each.close();
    }
  }
}

/** The header stands in front: no more of the file is read. */
async function tablesOf(files: RowFiles, file: FileRef): Promise<readonly TableHeader[]> {
  let tables: readonly TableHeader[] | undefined;
  const reader = new RowFileReader(
    (headers) => {
      tables = headers;
    },
    () => {},
  );
  await naming(files.pathOf(file), async () => {
    for await (const chunk of files.read(file)) {
      for (let at = 0; at < chunk.length && tables === undefined; at += 4096) reader.push(chunk.subarray(at, at + 4096));
      if (tables !== undefined) return;
    }
    reader.end();
  });
  return tables!;
}

/** A reader of rows does not know which file it reads. */
async function naming<R>(path: string, read: () => Promise<R>): Promise<R> {
  try {
    return await read();
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
