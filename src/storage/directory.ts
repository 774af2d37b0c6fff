// Checkpoint storage in directories of this machine, or of a network file system that it has mounted.
//
// A file is written under the hidden name `.<name>`, which is opened exclusively, and then renamed. What is synced, in which order, and what a crash of the machine
// can leave stands in docs/storage.md.
//
// Invariants:
//  D1  `finish`: the file is fsynced, renamed, its folder fsynced. A folder that is made is fsynced into the one around it.
//  D2  The hidden name is the lock of an address: whoever has opened it and finds no file of the name is its only writer.

import { basename, dirname, join, normalize, resolve } from 'node:path';
import { MillraceError, messageOf } from '../errors.ts';
import type { ByteRange, CheckpointStorage, StoredEntry, StoredFileWriter } from '../graph/storage.ts';
import { type Io, systemIo } from '../runtime/io.ts';

const READ_BYTES = 1 << 20;

/**
 * Bytes of checkpoints in that folder: for `checkpoints: { directory, storage }` where they are to lie elsewhere than the registry, which needs a local disk.
 * A folder that cannot be written is CHECKPOINT_DIRECTORY at the start.
 * @param root - Holds a folder for each job; made where it is not there.
 * @example
 * const seen: string[] = [];
 * const words = job('words', (env) => void env.fromArray('in', ['to', 'be']).forEach('out', (word) => void seen.push(word)));
 * await words.run({ checkpoints: { directory: './registry', storage: directory('./bytes') } });
 * assert.deepEqual(seen, ['to', 'be']);
 */
export function directory(root: string): CheckpointStorage {
  return new DirectoryStorage(root, systemIo());
}

export class DirectoryStorage implements CheckpointStorage {
  readonly kind = 'directory';
  readonly checksummed = false;
  readonly root: string;
  readonly #io: Io;

  constructor(root: string, io: Io) {
    this.root = resolve(root);
    this.#io = io;
  }

  owns(address: string): boolean {
    return !/^[a-z][a-z0-9+.-]+:\/\//i.test(address);
  }

  async prepare(folders: readonly string[]): Promise<void> {
    for (const folder of folders) {
      try {
        await this.#make(folder);
        // Attempt 0: swept where this process dies here.
        const probe = join(folder, `.probe-${process.pid}-a0`);
        await this.#io.fs.writeFile(probe, '');
        await this.#io.fs.unlink(probe);
      } catch (cause) {
        throw new MillraceError('CHECKPOINT_DIRECTORY', `The checkpoint directory ${folder} cannot be written: ${messageOf(cause)}.`, {
          cause,
          todo: 'Make it writable for this user, or name another one.',
        });
      }
    }
  }

  async create(address: string): Promise<StoredFileWriter> {
    const { fs } = this.#io;
    const final = normalize(address);
    const folder = dirname(final);
    const hidden = hiddenOf(final);
    const handle = await fs.open(hidden, 'wx').catch((cause) => {
      if (codeOf(cause) !== 'ENOENT') throw cause;
      // Made at the start and by nobody since: a restart would not find it either.
      throw new MillraceError('CHECKPOINT_DIRECTORY', `The folder ${folder} is gone: ${messageOf(cause)}.`, {
        cause,
        retryable: false,
        todo: 'Who removes it? Bring its files back, or start anew.',
      });
    });
    const abandon = async (): Promise<void> => {
      await handle.close();
      await fs.rm(hidden, { force: true });
    };
    // D2.
    const there = await this.find(final).catch(async (error) => {
      await abandon();
      throw error;
    });
    if (there !== undefined) {
      await abandon();
      throw Object.assign(new Error(`EEXIST: file already exists, create '${final}'`), { code: 'EEXIST' });
    }
    return {
      append: async (blocks) => {
        for (const block of blocks) await handle.writeFile(block);
      },
      finish: async () => {
        await handle.sync();
        await handle.close();
        await fs.rename(hidden, final);
        await this.#sync(folder);
      },
      abandon,
    };
  }

  async *read(address: string, range?: ByteRange): AsyncIterable<Uint8Array> {
    const path = normalize(address);
    const handle = await this.#io.fs.open(path, 'r').catch((cause) => {
      // Gone or unreadable on the disk is damage; too many open files or missing rights are not, and another checkpoint would not help.
      if (['ENOENT', 'EIO'].includes(codeOf(cause) ?? '')) throw cause;
      throw new MillraceError('CHECKPOINT_DIRECTORY', `The snapshot file ${path} cannot be opened: ${messageOf(cause)}.`, {
        cause,
        todo: 'Check the rights of the checkpoint directory, and how many files this process may open.',
      });
    });
    try {
      let at = range?.from ?? 0;
      const to = range?.to ?? Number.POSITIVE_INFINITY;
      while (at < to) {
        const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, to - at));
        const { bytesRead } = await handle.read(buffer, 0, buffer.length, at);
        if (bytesRead === 0) return;
        at += bytesRead;
        yield buffer.subarray(0, bytesRead);
      }
    } finally {
      await handle.close();
    }
  }

  async find(address: string): Promise<'file' | 'folder' | undefined> {
    try {
      return (await this.#io.fs.stat(normalize(address))).isDirectory() ? 'folder' : 'file';
    } catch (error) {
      if (['ENOENT', 'ENOTDIR'].includes(codeOf(error) ?? '')) return undefined;
      throw error;
    }
  }

  async *list(folder: string): AsyncIterable<StoredEntry> {
    let names: string[];
    try {
      names = await this.#io.fs.readdir(normalize(folder));
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return;
      throw error;
    }
    for (const name of names) yield name.startsWith('.') ? { name: name.slice(1), unfinished: true } : { name, unfinished: false };
  }

  async remove(address: string): Promise<void> {
    await this.#io.fs.rm(normalize(address), { force: true });
  }

  async discard(address: string): Promise<void> {
    await this.#io.fs.rm(hiddenOf(normalize(address)), { force: true });
  }

  async makeFolder(address: string): Promise<boolean> {
    const path = normalize(address);
    await this.#make(dirname(path));
    try {
      await this.#io.fs.mkdir(path);
    } catch (error) {
      if (codeOf(error) === 'EEXIST') return false;
      throw error;
    }
    await this.#sync(dirname(path));
    return true;
  }

  async removeFolder(address: string): Promise<void> {
    await this.#io.fs.rmdir(normalize(address)).catch((error) => {
      if (!['ENOENT', 'ENOTEMPTY', 'EEXIST'].includes(codeOf(error) ?? '')) throw error;
    });
  }

  /** By a hard link; false where the file system cannot. */
  async adopt(address: string, from: CheckpointStorage, source: string): Promise<boolean> {
    if (!(from instanceof DirectoryStorage)) return false;
    const path = normalize(address);
    try {
      await this.#io.fs.link(normalize(source), path);
    } catch (error) {
      if (['EXDEV', 'EPERM', 'EMLINK', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP'].includes(codeOf(error) ?? '')) return false;
      throw error;
    }
    await this.#sync(dirname(path));
    return true;
  }

  /** With all around it, each synced into the one around it. */
  async #make(folder: string): Promise<void> {
    const path = normalize(folder);
    const first = await this.#io.fs.mkdir(path, { recursive: true });
    if (first === undefined) return;
    const topmost = dirname(first);
    for (let made = path; made !== topmost && made !== dirname(made); made = dirname(made)) await this.#sync(dirname(made));
  }

  async #sync(folder: string): Promise<void> {
    const handle = await this.#io.fs.open(folder, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  }
}

function hiddenOf(path: string): string {
  return join(dirname(path), `.${basename(path)}`);
}

function codeOf(error: unknown): string | undefined {
  return (error as { code?: string }).code;
}
