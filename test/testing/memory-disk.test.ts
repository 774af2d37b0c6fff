import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { SnapshotFiles } from '../../src/checkpoint/storage.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { DirectoryStorage } from '../../src/storage/directory.ts';
import { MemoryDisk, MemoryStore } from '../../src/testing/memory-disk.ts';

const folder = resolve('/checkpoints/job');
const bytes = (text: string): Uint8Array => Buffer.from(text);

describe('a disk in memory', () => {
  it('holds what the checkpoint storage writes, reads and sweeps', async () => {
    const disk = new MemoryDisk();
    const io = { ...systemIo(), fs: disk.fs };
    const storage = new SnapshotFiles(new DirectoryStorage('/', io), folder, { io, verify: true });
    await storage.prepare();
    const file = await storage.write('delta-x-a1-1', [bytes('one '), bytes('two')]);
    const parts: Uint8Array[] = [];
    for await (const part of storage.read(file)) parts.push(part);
    expect(Buffer.concat(parts).toString()).toBe('one two');
    const abandoned = await storage.open('base-x-a1-1');
    await abandoned.append([bytes('half')]);
    await abandoned.abandon();
    await storage.writeMetadata('chk-7-a1', bytes('meta'));
    expect(await storage.found()).toEqual({ attempt: 1, id: 7, metadata: join(folder, 'checkpoints', 'chk-7-a1') });
    expect((await storage.sweep(new Set(['chk-7-a1']), 2)).sort()).toEqual(['delta-x-a1-1']);
    await expect(storage.check(file)).rejects.toMatchObject({ code: 'SNAPSHOT_CORRUPT' });
  });

  it('refuses to write over a file, and to find what is not there', async () => {
    const { fs } = new MemoryDisk();
    await fs.mkdir(folder, { recursive: true });
    await fs.writeFile(join(folder, 'a'), 'text');
    await expect(fs.open(join(folder, 'a'), 'wx')).rejects.toMatchObject({ code: 'EEXIST' });
    expect(await fs.readFile(join(folder, 'a'), 'utf8')).toBe('text');
    for (const call of [
      fs.readFile(join(folder, 'b')),
      fs.unlink(join(folder, 'b')),
      fs.rename(join(folder, 'b'), 'c'),
      fs.stat('b'),
      fs.readdir('b'),
      fs.open('b', 'r'),
    ])
      await expect(call).rejects.toMatchObject({ code: 'ENOENT' });
    await fs.rm(join(folder, 'b'), { force: true });
    expect((await fs.stat(folder)).isFile()).toBe(false);
  });
});

describe('a store in memory', () => {
  it('gives values in the order of their keys, and copies of them', async () => {
    const store = new MemoryStore();
    const value = { id: 1 };
    await store.put('checkpoint/2', value);
    await store.batch([
      { type: 'put', key: 'checkpoint/1', value: { id: 0 } },
      { type: 'put', key: 'lineage', value: 'x' },
      { type: 'del', key: 'gone' },
    ]);
    value.id = 9;
    const found: unknown[] = [];
    for await (const each of store.values({ gt: 'checkpoint/', lt: 'checkpoint0' })) found.push(each);
    expect(found).toEqual([{ id: 0 }, { id: 1 }]);
    expect(await store.get('nothing')).toBeUndefined();
  });
});
