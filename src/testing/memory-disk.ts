// The disk of a simulated run: what the engine asks of the file system and of a store, in memory.
//
// What: the checkpoint storage runs on it unchanged, so a simulated run writes, renames, reads back and sweeps as a real one does. Everything resolves within
// promise jobs; nothing waits for the machine.
//
// Invariant M1: a file opened with `wx` must not exist; reading, renaming and removing what is not there fails with ENOENT, as on a disk.

import { dirname, sep } from 'node:path';
import type { Io, ValueStore } from '../runtime/io.ts';

type Content = Uint8Array;

export class MemoryDisk {
  readonly #files = new Map<string, Content>();
  readonly #folders = new Set<string>();
  readonly fs: Io['fs'];

  constructor() {
    const disk = {
      mkdir: async (path: string, options?: { recursive?: boolean }): Promise<undefined> => {
        if (options?.recursive !== true && (this.#folders.has(path) || this.#files.has(path))) throw failed('EEXIST: file already exists, mkdir', path);
        for (let folder = path; !this.#folders.has(folder) && folder !== dirname(folder); folder = dirname(folder)) this.#folders.add(folder);
        return undefined;
      },
      writeFile: async (path: string, content: string | Uint8Array): Promise<void> => this.write(path, bytesOf(content)),
      readFile: async (path: string, encoding?: BufferEncoding): Promise<Buffer | string> => {
        const content = Buffer.from(this.#read(path));
        return encoding === undefined ? content : content.toString(encoding);
      },
      unlink: async (path: string): Promise<void> => this.#remove(path, false),
      rm: async (path: string, options?: { force?: boolean }): Promise<void> => this.#remove(path, options?.force === true),
      rename: async (from: string, to: string): Promise<void> => {
        this.#files.set(to, this.#read(from));
        this.#files.delete(from);
      },
      readdir: async (path: string): Promise<string[]> => {
        if (!this.#folders.has(path)) throw missing('scandir', path);
        const inside = [...this.#files.keys(), ...this.#folders].filter((each) => dirname(each) === path && each !== path);
        return inside.map((each) => each.slice(path.length).replace(sep, ''));
      },
      rmdir: async (path: string): Promise<void> => {
        if (!this.#folders.has(path)) throw missing('rmdir', path);
        if ([...this.#files.keys(), ...this.#folders].some((each) => dirname(each) === path && each !== path))
          throw failed('ENOTEMPTY: directory not empty, rmdir', path);
        this.#folders.delete(path);
      },
      link: async (from: string, to: string): Promise<void> => {
        if (this.#files.has(to)) throw failed('EEXIST: file already exists, link', to);
        this.#files.set(to, this.#read(from));
      },
      stat: async (path: string) => {
        const isFile = this.#files.has(path);
        if (!isFile && !this.#folders.has(path)) throw missing('stat', path);
        return { isFile: () => isFile, isDirectory: () => !isFile, size: isFile ? this.#read(path).byteLength : 0 };
      },
      open: async (path: string, flags: string) => this.#open(path, flags),
    };
    // The engine uses no more than these of a checkpoint directory; anything else fails by name.
    this.fs = disk as unknown as Io['fs'];
  }

  write(path: string, content: Content): void {
    this.#files.set(path, content);
  }

  #read(path: string): Content {
    const content = this.#files.get(path);
    if (content === undefined) throw missing('open', path);
    return content;
  }

  #remove(path: string, force: boolean): void {
    if (!this.#files.delete(path) && !force) throw missing('unlink', path);
  }

  #open(path: string, flags: string) {
    const parts: Content[] = [];
    let at = 0;
    if (flags === 'wx') {
      if (this.#files.has(path)) throw failed('EEXIST: file already exists, open', path);
      this.#files.set(path, new Uint8Array(0));
    } else if (!this.#files.has(path) && !this.#folders.has(path)) throw missing('open', path);
    return {
      writeFile: async (content: string | Uint8Array): Promise<void> => {
        // What is given may be used again by whoever gave it.
        parts.push(Buffer.from(bytesOf(content)));
        this.#files.set(path, Buffer.concat(parts));
      },
      read: async (buffer: Uint8Array, offset: number, length: number, position?: number): Promise<{ bytesRead: number }> => {
        const from = position ?? at;
        const part = this.#read(path).subarray(from, from + length);
        buffer.set(part, offset);
        at = from + part.byteLength;
        return { bytesRead: part.byteLength };
      },
      sync: async (): Promise<void> => {},
      close: async (): Promise<void> => {},
    };
  }
}

/** The store of a registry. Values go through JSON, as those of the real one do. */
export class MemoryStore implements ValueStore {
  readonly #values = new Map<string, string>();

  async get(key: string): Promise<unknown> {
    const value = this.#values.get(key);
    return value === undefined ? undefined : JSON.parse(value);
  }
  async put(key: string, value: unknown): Promise<void> {
    this.#values.set(key, JSON.stringify(value));
  }
  async del(key: string): Promise<void> {
    this.#values.delete(key);
  }
  async batch(entries: ({ type: 'put'; key: string; value: unknown } | { type: 'del'; key: string })[]): Promise<void> {
    for (const entry of entries) await (entry.type === 'put' ? this.put(entry.key, entry.value) : this.del(entry.key));
  }
  async *values({ gt, lt }: { gt: string; lt: string }): AsyncIterable<unknown> {
    const keys = [...this.#values.keys()].filter((key) => key > gt && key < lt).sort();
    for (const key of keys) yield JSON.parse(this.#values.get(key)!);
  }
  async close(): Promise<void> {}
}

function bytesOf(content: string | Uint8Array): Content {
  return typeof content === 'string' ? Buffer.from(content) : content;
}

function missing(call: string, path: string): Error {
  return failed(`ENOENT: no such file or directory, ${call}`, path);
}

/** What a file system says, beginning with its code. */
function failed(said: string, path: string): Error {
  return Object.assign(new Error(`${said} '${path}'`), { code: said.slice(0, said.indexOf(':')) });
}
