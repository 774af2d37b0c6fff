import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Level } from 'level';
import { afterAll, describe, expect, it } from 'vitest';
import { seededRandom } from '../../actors/seeded-random.ts';
import { type Manifest, readManifest, tableName, writeManifest } from '../../state-backends/manifest.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-manifest-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const manifestIn = (directory: string): Buffer => readFileSync(join(directory, readFileSync(join(directory, 'CURRENT'), 'latin1').trim()));

/** A real database, with many tables on two levels, deletions and compactions, opened again between; nothing of it goes on when it is closed for the last time. */
async function database(): Promise<string> {
  const directory = join(folder, 'real');
  const random = seededRandom(7, 1);
  const open = async (): Promise<Level<string, string>> => {
    const db = new Level<string, string>(directory, { compression: false, writeBufferSize: 64 << 10, maxFileSize: 64 << 10 });
    await db.open();
    return db;
  };
  for (let opened = 0; opened < 3; opened++) {
    const db = await open();
    for (let round = 0; round < 25; round++) {
      const batch = db.batch();
      for (let i = 0; i < 400; i++) {
        const key = `key-${Math.floor(random() * 10_000)}`;
        if (random() < 0.2) batch.del(key);
        else batch.put(key, 'v'.repeat(Math.floor(random() * 2000)));
      }
      await batch.write();
    }
    const compacted = db as unknown as { compactRange(from: string, to: string): Promise<void> };
    if (opened === 1) await compacted.compactRange('key-0', 'key-3');
    if (opened === 2) await compacted.compactRange('key-', 'key-~');
    await db.close();
  }
  // The log of these becomes a table of level 0 when it is opened once more, alone and so without a compaction.
  const more = await open();
  for (let i = 0; i < 10; i++) await more.put(`key-${i}`, 'again');
  await more.close();
  await (await open()).close();
  return directory;
}

describe('the MANIFEST of a database', () => {
  it('names, edit after edit, exactly the tables that the database has, with their sizes', async () => {
    const directory = await database();
    const manifest = readManifest(manifestIn(directory))!;
    const there = readdirSync(directory).filter((name) => name.endsWith('.ldb'));
    expect(there.length).toBeGreaterThan(5);
    expect(manifest.tables.map(({ number }) => tableName(number)).sort()).toEqual(there.sort());
    for (const { number, bytes } of manifest.tables) expect(readFileSync(join(directory, tableName(number))).length).toBe(bytes);
    expect(new Set(manifest.tables.map(({ level }) => level)).size).toBeGreaterThan(1);
    expect(manifest.comparator).toBe('leveldb.BytewiseComparator');
  });

  it('written anew, beside the tables that it names and no others, opens as a database with the same rows, and says the same when it is read', async () => {
    const directory = join(folder, 'real');
    const all = async (): Promise<[string, string][]> => {
      const db = new Level<string, string>(directory, { compression: false });
      await db.open();
      try {
        return await db.iterator().all();
      } finally {
        await db.close();
      }
    };
    const rows = await all();
    const manifest = readManifest(manifestIn(directory))!;
    const again = writeManifest(manifest);
    expect(readManifest(again)).toEqual(manifest);
    const copy = join(folder, 'copy');
    const { cpSync, mkdirSync, writeFileSync } = await import('node:fs');
    mkdirSync(copy);
    for (const { number } of manifest.tables) cpSync(join(directory, tableName(number)), join(copy, tableName(number)));
    writeFileSync(join(copy, 'MANIFEST-000001'), again);
    writeFileSync(join(copy, 'CURRENT'), 'MANIFEST-000001\n');
    const db = new Level<string, string>(copy, { compression: false });
    await db.open();
    expect(await db.iterator().all()).toEqual(rows);
    await db.close();
  });

  it('of more than a block of its log is read and written in pieces', () => {
    const key = (n: number): Buffer => Buffer.from(`${'k'.repeat(200)}${n}`);
    const manifest: Manifest = {
      comparator: 'leveldb.BytewiseComparator',
      logNumber: 5,
      nextFile: 1002,
      lastSequence: 2 ** 40,
      tables: Array.from({ length: 260 }, (_, i) => ({ level: i % 7, number: i + 1, bytes: i * 1000, smallest: key(i), largest: key(i + 1) })),
    };
    const bytes = writeManifest(manifest);
    expect(bytes.length).toBeGreaterThan(3 * 32_768);
    expect(readManifest(bytes)).toEqual(manifest);
  });

  it('that is being written is to be read again, wherever it ends; one that is damaged before its end is refused', () => {
    const bytes = manifestIn(join(folder, 'real'));
    const whole = readManifest(bytes);
    let complete = 0;
    for (let end = 0; end < bytes.length; end += 1 + Math.floor(end / 64)) {
      const part = readManifest(bytes.subarray(0, end));
      // Between two edits it is a MANIFEST too, of an older state.
      if (part !== undefined) complete++;
      expect(part).not.toEqual(whole);
    }
    expect(complete).toBeLessThan(20);
    const flipped = Buffer.from(bytes);
    flipped[20]! ^= 1;
    expect(() => readManifest(flipped)).toThrow(RangeError);
  });
});
