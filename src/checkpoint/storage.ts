// The files of one job's checkpoints, or of one savepoint, in a storage: their names, their checksums, when they count as written, and what may be removed.
//
//   <folder>/
//     files/               deltas, bases, segments: named once, never overwritten
//     checkpoints/         chk-<id>-<attempt> and chk-<id>-<attempt>.copy: the metadata, twice
//
// Beside them lies what only a directory of this machine can hold: registry/ and owner.json (local-registry.ts).
//
// Invariants:
//  D1  A file is finished in the storage before anybody is told of it; with `verify` it is then read back.
//  D2  Names hold the attempt that wrote them, so that two attempts never write the same file.
//  D3  `sweep` deletes only what attempts before the given one wrote and what no registered checkpoint names.
//  D4  What is read whole is what was written, or SNAPSHOT_CORRUPT names the file. Of a range only the length is known here: what it holds has checksums of its own.
//  D5  Only what the storage says is not there counts as damage; one that cannot be reached says so, and no older checkpoint is taken for that.

import { crc32 } from 'node:zlib';
import type { FileRef } from '../../state-backends/index.ts';
import { MillraceError, messageOf } from '../errors.ts';
import type { ByteRange, CheckpointStorage } from '../graph/storage.ts';
import type { Io } from '../runtime/io.ts';
import type { SnapshotStorage } from '../runtime/snapshot.ts';
import { below } from './addresses.ts';

export interface SnapshotFilesOptions {
  readonly io: Io;
  /** Read back what is written; false by default. */
  readonly verify?: boolean;
  /** The folder of the metadata, where it is another one. */
  readonly checkpoints?: string;
}

export class SnapshotFiles implements SnapshotStorage {
  readonly storage: CheckpointStorage;
  readonly folder: string;
  readonly files: string;
  readonly checkpoints: string;
  readonly verify: boolean;
  readonly #io: Io;

  constructor(storage: CheckpointStorage, folder: string, { io, verify = false, checkpoints = below(folder, 'checkpoints') }: SnapshotFilesOptions) {
    this.storage = storage;
    this.folder = folder;
    this.files = below(folder, 'files');
    this.checkpoints = checkpoints;
    this.verify = verify;
    this.#io = io;
  }

  prepare(): Promise<void> {
    return this.storage.prepare([this.files, this.checkpoints]);
  }

  write(name: string, blocks: Iterable<Uint8Array>): Promise<FileRef> {
    return this.#write(this.files, name, blocks);
  }

  async #write(folder: string, name: string, blocks: Iterable<Uint8Array>): Promise<FileRef> {
    const file = await this.#begin(folder, name);
    try {
      await file.append(blocks);
      return await file.finish();
    } catch (error) {
      await file.abandon().catch(() => {
        // Swept later; the error that counts is the first.
      });
      throw error;
    }
  }

  open(name: string) {
    return this.#begin(this.files, name);
  }

  async #begin(folder: string, name: string) {
    const writer = await this.storage.create(below(folder, name));
    let bytes = 0;
    let crc = 0;
    return {
      append: async (blocks: Iterable<Uint8Array>): Promise<void> => {
        await writer.append(
          (function* () {
            for (const block of blocks) {
              bytes += block.byteLength;
              crc = crc32(block, crc);
              yield block;
            }
          })(),
        );
      },
      finish: async (): Promise<FileRef> => {
        await writer.finish();
        const ref = { name, bytes, crc };
        if (this.verify) await this.check(ref, folder);
        return ref;
      },
      abandon: (): Promise<void> => writer.abandon(),
    };
  }

  /** The whole file, or bytes of it (D4). */
  read(file: FileRef, range?: ByteRange): AsyncIterable<Uint8Array> {
    return range === undefined ? this.#whole(file, this.files) : this.#part(file, range);
  }

  /** Reads the whole file and throws SNAPSHOT_CORRUPT where it is not what was written. */
  async check(file: FileRef, folder = this.files): Promise<void> {
    for await (const _ of this.#whole(file, folder));
  }

  async *#whole(file: FileRef, folder: string): AsyncIterable<Uint8Array> {
    const address = below(folder, file.name);
    let crc = 0;
    let bytes = 0;
    for await (const part of this.#stored(address)) {
      crc = crc32(part, crc);
      bytes += part.byteLength;
      yield part;
    }
    if (bytes !== file.bytes) throw corrupt(address, `it has ${bytes} bytes instead of ${file.bytes}`);
    if (crc !== file.crc) throw corrupt(address, 'its checksum is wrong');
  }

  async *#part(file: FileRef, { from, to }: ByteRange): AsyncIterable<Uint8Array> {
    const address = below(this.files, file.name);
    if (!(from >= 0 && from <= to && to <= file.bytes)) throw new RangeError(`${address} has no bytes ${from} to ${to}: it has ${file.bytes}.`);
    if (from === to) return;
    let bytes = 0;
    for await (const part of this.#stored(address, { from, to })) {
      bytes += part.byteLength;
      yield part;
    }
    if (bytes !== to - from) throw corrupt(address, `it has ${from + bytes} bytes instead of ${file.bytes}`);
  }

  /** D5. */
  async *#stored(address: string, range?: ByteRange): AsyncIterable<Uint8Array> {
    try {
      yield* this.storage.read(address, range);
    } catch (error) {
      throw isDamage(error) ? corrupt(address, messageOf(error), error) : error;
    }
  }

  /** Twice, since without it nothing else of the checkpoint can be found. Gives the address of the first. */
  async writeMetadata(name: string, content: Uint8Array): Promise<string> {
    const address = below(this.checkpoints, name);
    await this.#write(this.checkpoints, name, [content]);
    try {
      await this.#io.step('checkpoint.metadata.copy');
      await this.#write(this.checkpoints, `${name}.copy`, [content]);
    } catch (error) {
      // Nobody has been told of it: on a full disk it is room that the next one needs.
      await this.storage.remove(address).catch(() => {
        // Swept later; the error that counts is the first.
      });
      throw error;
    }
    return address;
  }

  async removeMetadata(address: string): Promise<void> {
    await this.storage.remove(address);
    await this.storage.remove(`${address}.copy`);
  }

  async remove(name: string): Promise<void> {
    await this.storage.remove(below(this.files, name));
  }

  /** Number of the newest attempt that wrote anything here, and the newest metadata file; for a folder whose registry was lost, or is older than what is here. */
  async found(): Promise<{ attempt: number; id: number; metadata: string | undefined }> {
    let attempt = 0;
    let newest: { readonly id: number; readonly name: string } | undefined;
    for (const folder of [this.files, this.checkpoints]) {
      for await (const { name, unfinished } of this.storage.list(folder)) {
        attempt = Math.max(attempt, attemptOf(name.replace(/\.copy$/, '')) ?? 0);
        const id = unfinished ? undefined : /^chk-(\d+)-a\d+$/.exec(name)?.[1];
        if (id !== undefined && Number(id) > (newest?.id ?? -1)) newest = { id: Number(id), name };
      }
    }
    return { attempt, id: newest?.id ?? 0, metadata: newest === undefined ? undefined : below(this.checkpoints, newest.name) };
  }

  /** Deletes what older attempts left behind: what is unfinished, and files that `named` does not hold (D3). */
  async sweep(named: ReadonlySet<string>, attempt: number): Promise<string[]> {
    const removed: string[] = [];
    for (const folder of [this.files, this.checkpoints]) {
      for await (const { name, unfinished } of this.storage.list(folder)) {
        const bare = name.replace(/\.copy$/, '');
        if (named.has(bare) && !unfinished) continue;
        const wrote = attemptOf(bare);
        if (wrote === undefined || wrote >= attempt) continue;
        await this.#io.step('sweep.remove');
        await (unfinished ? this.storage.discard(below(folder, name)) : this.storage.remove(below(folder, name)));
        removed.push(name);
      }
    }
    return removed;
  }
}

/** Every name of this module's folders ends in `-a<attempt>`, or in that and numbers. */
export function attemptOf(name: string): number | undefined {
  const match = /-a(\d+)(?:-\d+)*$/.exec(name);
  return match === null ? undefined : Number(match[1]);
}

/** Gone, or unreadable on its disk. */
export function isDamage(error: unknown): boolean {
  return ['ENOENT', 'EIO', 'EISDIR', 'SNAPSHOT_CORRUPT'].includes((error as { code?: string } | null)?.code ?? '');
}

export function corrupt(address: string, why: string, cause?: unknown): MillraceError {
  return new MillraceError('SNAPSHOT_CORRUPT', `The snapshot file ${address} cannot be used: ${why}.`, {
    cause,
    todo: 'Restore from another checkpoint, or from a backup of this file.',
  });
}
