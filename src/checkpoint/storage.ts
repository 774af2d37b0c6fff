// Checkpoint storage in a directory: where snapshot files and metadata lie, and when they count as written.
//
//   <directory>/<job>/
//     registry/            the local registry (registry.ts)
//     owner.json           who holds it: pid and since when; for messages only
//     files/               deltas, bases, segments: named once, never overwritten
//     checkpoints/         chk-<id>-<attempt> and chk-<id>-<attempt>.copy: the metadata, twice
//
// Invariants:
//  D1  A file is written under a hidden name, fsynced, renamed, and its folder fsynced, before anybody is told of it; with `verify` it is then read back.
//  D2  Names hold the attempt that wrote them, so that two attempts never write the same file.
//  D3  `sweep` deletes only what attempts before the given one wrote and what no registered checkpoint names.

import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { FileRef } from '../../state-backends/index.ts';
import { MillraceError, messageOf } from '../errors.ts';
import type { Io } from '../runtime/io.ts';
import type { SnapshotStorage } from '../runtime/snapshot.ts';

type Handle = Awaited<ReturnType<Io['fs']['open']>>;

export class DirectoryStorage implements SnapshotStorage {
  readonly directory: string;
  readonly files: string;
  readonly checkpoints: string;
  readonly #io: Io;
  readonly #verify: boolean;

  /** `checkpoints`: the folder of the metadata, where it is another one. */
  constructor(directory: string, io: Io, verify: boolean, checkpoints = join(directory, 'checkpoints')) {
    this.directory = directory;
    this.files = join(directory, 'files');
    this.checkpoints = checkpoints;
    this.#io = io;
    this.#verify = verify;
  }

  async prepare(): Promise<void> {
    try {
      await this.#io.fs.mkdir(this.files, { recursive: true });
      await this.#io.fs.mkdir(this.checkpoints, { recursive: true });
      const probe = join(this.directory, `.probe-${process.pid}`);
      await this.#io.fs.writeFile(probe, '');
      await this.#io.fs.unlink(probe);
    } catch (cause) {
      throw new MillraceError('CHECKPOINT_DIRECTORY', `The checkpoint directory ${this.directory} cannot be written: ${messageOf(cause)}.`, {
        cause,
        todo: 'Make it writable for this user, or name another one.',
      });
    }
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
      await file.abandon();
      throw error;
    }
  }

  open(name: string) {
    return this.#begin(this.files, name);
  }

  async #begin(folder: string, name: string) {
    const { fs } = this.#io;
    const hidden = join(folder, `.${name}`);
    const final = join(folder, name);
    let handle: Handle;
    try {
      handle = await fs.open(hidden, 'wx');
    } catch (cause) {
      if ((cause as { code?: string }).code !== 'ENOENT') throw cause;
      // Made at the start and by nobody since: a restart would not find it either.
      throw new MillraceError('CHECKPOINT_DIRECTORY', `The folder ${folder} is gone: ${messageOf(cause)}.`, {
        cause,
        retryable: false,
        todo: 'Who removes it? Bring its files back, or start anew.',
      });
    }
    let bytes = 0;
    let crc = 0;
    return {
      append: async (blocks: Iterable<Uint8Array>): Promise<void> => {
        for (const block of blocks) {
          await handle.writeFile(block);
          bytes += block.byteLength;
          crc = crc32(block, crc);
        }
      },
      finish: async (): Promise<FileRef> => {
        await handle.sync();
        await handle.close();
        await fs.rename(hidden, final);
        await syncFolder(this.#io, folder);
        const ref = { name, bytes, crc };
        if (this.#verify) await this.check(ref, folder);
        return ref;
      },
      abandon: async (): Promise<void> => {
        await handle.close();
        await fs.rm(hidden, { force: true });
      },
    };
  }

  async *read(file: FileRef): AsyncIterable<Uint8Array> {
    yield* this.#stream(file, this.files);
  }

  /** Reads the whole file and throws SNAPSHOT_CORRUPT where it is not what was written. */
  async check(file: FileRef, folder = this.files): Promise<void> {
    for await (const _ of this.#stream(file, folder));
  }

  async *#stream(file: FileRef, folder: string): AsyncIterable<Uint8Array> {
    const path = join(folder, file.name);
    let handle: Handle;
    try {
      handle = await this.#io.fs.open(path, 'r');
    } catch (cause) {
      // Gone or unreadable on the disk is damage; too many open files or missing rights are not, and another checkpoint would not help.
      if (['ENOENT', 'EIO'].includes((cause as { code?: string }).code ?? '')) throw corrupt(path, messageOf(cause), cause);
      throw new MillraceError('CHECKPOINT_DIRECTORY', `The snapshot file ${path} cannot be opened: ${messageOf(cause)}.`, {
        cause,
        todo: 'Check the rights of the checkpoint directory, and how many files this process may open.',
      });
    }
    try {
      let crc = 0;
      let bytes = 0;
      for (;;) {
        const buffer = Buffer.allocUnsafe(1 << 20);
        const { bytesRead } = await handle.read(buffer, 0, buffer.length);
        if (bytesRead === 0) break;
        const part = buffer.subarray(0, bytesRead);
        crc = crc32(part, crc);
        bytes += bytesRead;
        yield part;
      }
      if (bytes !== file.bytes) throw corrupt(path, `it has ${bytes} bytes instead of ${file.bytes}`);
      if (crc !== file.crc) throw corrupt(path, 'its checksum is wrong');
    } finally {
      await handle.close();
    }
  }

  /** Twice, since without it nothing else of the checkpoint can be found. Gives the path of the first. */
  async writeMetadata(name: string, content: Uint8Array): Promise<string> {
    await this.#write(this.checkpoints, name, [content]);
    await this.#io.step('checkpoint.metadata.copy');
    await this.#write(this.checkpoints, `${name}.copy`, [content]);
    return join(this.checkpoints, name);
  }

  async removeMetadata(path: string): Promise<void> {
    await this.#io.fs.rm(path, { force: true });
    await this.#io.fs.rm(`${path}.copy`, { force: true });
  }

  async remove(name: string): Promise<void> {
    await this.#io.fs.rm(join(this.files, name), { force: true });
  }

  /** Number of the newest attempt that wrote anything here, and the newest metadata file; for a directory whose registry was lost. */
  async found(): Promise<{ attempt: number; metadata: string | undefined }> {
    const names = (await Promise.all([this.files, this.checkpoints].map((folder) => this.#io.fs.readdir(folder)))).flat();
    const attempt = Math.max(0, ...names.map((name) => attemptOf(name.replace(/^\./, '').replace(/\.copy$/, '')) ?? 0));
    const ids = names.flatMap((name) => /^chk-(\d+)-a\d+$/.exec(name)?.[1] ?? []).map(Number);
    const newest = names.find((name) => name.startsWith(`chk-${Math.max(...ids)}-a`) && !name.endsWith('.copy'));
    return { attempt, metadata: newest === undefined ? undefined : join(this.checkpoints, newest) };
  }

  /** Deletes what older attempts left behind: hidden files, and files that `named` does not hold (D3). */
  async sweep(named: ReadonlySet<string>, attempt: number): Promise<string[]> {
    const removed: string[] = [];
    for (const folder of [this.files, this.checkpoints]) {
      for (const name of await this.#io.fs.readdir(folder)) {
        const bare = name.replace(/^\./, '').replace(/\.copy$/, '');
        if (named.has(bare) && !name.startsWith('.')) continue;
        const wrote = attemptOf(bare);
        if (wrote === undefined || wrote >= attempt) continue;
        await this.#io.step('sweep.remove');
        await this.#io.fs.rm(join(folder, name), { force: true });
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

export async function syncFolder(io: Io, folder: string): Promise<void> {
  const handle = await io.fs.open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export function corrupt(path: string, why: string, cause?: unknown): MillraceError {
  return new MillraceError('SNAPSHOT_CORRUPT', `The snapshot file ${path} cannot be used: ${why}.`, {
    cause,
    todo: 'Restore from another checkpoint, or from a backup of this file.',
  });
}
