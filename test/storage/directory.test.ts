import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { storageConformance } from 'millrace/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Io, systemIo } from '../../src/runtime/io.ts';
import { DirectoryStorage } from '../../src/storage/directory.ts';
import { MemoryDisk } from '../../src/testing/memory-disk.ts';

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'millrace-storage-'));
});
afterAll(() => rm(root, { recursive: true, force: true }));

describe('a directory as checkpoint storage', () => {
  for (const { name, run } of storageConformance(() => new DirectoryStorage(root, systemIo()), { largeBytes: 3 << 20 })) it(name, run);

  it('leaves nothing of all that', async () => {
    expect(await readdir(root)).toEqual([]);
  });

  it('syncs the file before its name, and then the folder; a folder it makes into the one around it', async () => {
    const log: string[] = [];
    const storage = new DirectoryStorage(root, noting(log));
    const folder = join(root, 'a', 'b');
    await storage.prepare([folder]);
    expect(log.splice(0).filter((each) => each.startsWith('sync'))).toEqual(['sync a', 'sync .']);
    const writer = await storage.create(join(folder, 'file'));
    await writer.append([Buffer.from('x')]);
    await writer.finish();
    expect(log).toEqual(['open a/b/.file', 'sync a/b/.file', 'rename a/b/.file a/b/file', 'open a/b', 'sync a/b']);
    await rm(join(root, 'a'), { recursive: true });
  });

  function noting(log: string[]): Io {
    const io = systemIo();
    const short = (path: unknown): string => String(path).slice(root.length + 1) || '.';
    const fs = new Proxy(io.fs, {
      get(target, name: keyof Io['fs']) {
        if (name === 'rename')
          return async (from: string, to: string) => {
            log.push(`rename ${short(from)} ${short(to)}`);
            await target.rename(from, to);
          };
        if (name !== 'open') return target[name];
        return async (path: string, flags: string) => {
          const handle = await target.open(path, flags);
          log.push(`open ${short(path)}`);
          const sync = handle.sync.bind(handle);
          handle.sync = async () => {
            log.push(`sync ${short(path)}`);
            await sync();
          };
          return handle;
        };
      },
    });
    return { ...io, fs };
  }
});

describe('a directory in memory, as simulated runs have it', () => {
  const disk = new MemoryDisk();
  for (const { name, run } of storageConformance(() => new DirectoryStorage('/disk', { ...systemIo(), fs: disk.fs }), { largeBytes: 1 << 20 })) it(name, run);
});
