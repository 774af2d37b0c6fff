import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { Level } from 'level';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { damageOf, readLog, tableDamage } from '../../src/checkpoint/level-files.ts';
import type { Io } from '../../src/runtime/io.ts';
import { Random, SEED } from '../random.ts';

let folder = '';
const stored = new Map<string, Buffer>();

/** A database that was opened again, so that it has a table and a log. */
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-level-'));
  for (const from of [0, 40]) {
    const db = new Level<string, unknown>(folder, { valueEncoding: 'json' });
    for (let i = from; i < from + 40; i++) await db.put(`checkpoint/${i}`, { id: i, path: `chk-${i}`, lineage: 'abc' }, { sync: true } as object);
    await db.close();
  }
  for (const name of await readdir(folder)) if (!/^(LOG|LOG\.old|LOCK)$/.test(name)) stored.set(name, await readFile(join(folder, name)));
});
afterAll(() => rm(folder, { recursive: true }));

/** The same files with other content of one. */
function damaged(name: string, content: Buffer | undefined): Promise<{ file: string; why: string } | undefined> {
  const fs = {
    readFile: async (path: string) => {
      const bytes = basename(path) === name ? content : stored.get(basename(path));
      if (bytes === undefined) throw Object.assign(new Error('ENOENT'), { code: 'ENOENT' });
      return bytes;
    },
    readdir: async () => [...stored.keys()].filter((each) => each !== name || content !== undefined),
  };
  return damageOf(folder, { fs } as unknown as Io);
}

it('a database that nothing has happened to is whole', async () => {
  expect([...stored.keys()].map((name) => name.replace(/\d+/, '#')).sort()).toEqual(['#.ldb', '#.log', 'CURRENT', 'MANIFEST-#']);
  expect(await damaged('', undefined)).toBeUndefined();
});

it('a flipped bit is found in every byte of every file, but for those of the room in a footer', async () => {
  const random = new Random(SEED);
  for (const [name, bytes] of stored) {
    const unnoticed: number[] = [];
    for (let at = 0; at < bytes.length; at++) {
      const copy = Buffer.from(bytes);
      copy[at]! ^= 1 << random.below(8);
      const damage = await damaged(name, copy);
      if (damage === undefined) unnoticed.push(at);
    }
    const footer = bytes.length - 48;
    expect(
      unnoticed.filter((at) => !(name.endsWith('.ldb') && at > footer + 3)),
      `${name}, seed ${SEED}`,
    ).toEqual([]);
  }
});

it('a table that is cut off or gone is found; of a log what is left of a last record is none, as LevelDB has it', async () => {
  const table = [...stored].find(([name]) => name.endsWith('.ldb'))!;
  for (const length of [0, 1, 47, 48, table[1].length - 1]) expect(await damaged(table[0], table[1].subarray(0, length))).toMatchObject({ file: table[0] });
  expect(await damaged(table[0], undefined)).toMatchObject({ file: table[0], why: 'it is gone' });
  const [, log] = [...stored].find(([name]) => name.endsWith('.log'))!;
  const whole = readLog(log).records.length;
  expect(whole).toBe(40);
  for (let length = 0; length < log.length; length++) {
    const { records, damage } = readLog(log.subarray(0, length));
    expect(damage).toBeUndefined();
    expect(records.length).toBeLessThan(whole);
  }
});

it('a log of many blocks, whose records go over their ends, is read as it was written', async () => {
  const place = await mkdtemp(join(tmpdir(), 'millrace-level-'));
  const db = new Level<string, string>(place);
  for (let i = 0; i < 60; i++) await db.put(`k${i}`, 'x'.repeat(i * 97));
  await db.close();
  const name = (await readdir(place)).find((each) => each.endsWith('.log'))!;
  const log = await readFile(join(place, name));
  expect(log.length).toBeGreaterThan(4 * 32_768);
  expect(readLog(log)).toMatchObject({ damage: undefined });
  expect(readLog(log).records).toHaveLength(60);
  log[40_000]! ^= 4;
  expect(readLog(log).damage).toBeDefined();
  await writeFile(join(place, name), log);
  await rm(place, { recursive: true });
});

it('what is no table is none', () => {
  expect(tableDamage(Buffer.alloc(100))).toBe('it is no table');
});
