import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  type FileRef,
  groupOf,
  hashKey,
  type LevelBaseRef,
  type Link,
  level,
  memory,
  openLinked,
  type RegionState,
  rangeOf,
  type TaskState,
} from '../../state-backends/index.ts';
import { overlapping } from '../../state-backends/linked-rows.ts';
import { Instance, linking, MAX_PARALLELISM, reading, type Storage } from './model.ts';

const directory = mkdtempSync(join(tmpdir(), 'millrace-linked-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const tiny = () => level({ directory, cacheBytes: 1 });
const ALL = { from: 0, to: MAX_PARALLELISM - 1 };
let regions = 0;

const open = (cacheBytes = 1): Promise<RegionState> => level({ directory, cacheBytes }).open({ name: `linked/${regions++}`, tracked: true });

/** All its steps; what it has stored, as a ref, for an operator. */
async function stored(link: Link, storage: Storage, between: () => void | Promise<void> = () => {}): Promise<(uid: string) => LevelBaseRef> {
  for (let outcome = link.step(0); outcome !== 'done'; outcome = link.step(0)) {
    await outcome;
    await between();
  }
  const files: (FileRef & { number: number | undefined })[] = [];
  for (const file of link.files) {
    const parts: Uint8Array[] = [];
    for await (const part of file.read()) parts.push(Buffer.from(part));
    const name = `${regions}-${file.number ?? 'manifest'}`;
    storage.set(name, parts);
    files.push({ name, bytes: file.bytes, crc: 0, number: file.number });
  }
  const { b, n } = link;
  const tables = new Map(['one', 'two'].map((uid) => [uid, link.tables(uid)]));
  await link.close();
  return (uid) => ({
    kind: 'leveldb',
    file: files.find(({ number }) => number === undefined)!,
    files: files.flatMap(({ number, ...file }) => (number === undefined ? [] : [{ ...file, number }])),
    tables: tables.get(uid)!,
    b,
    n,
  });
}

const source = (storage: Storage) => ({ read: (file: FileRef) => reading(storage.get(file.name)!) });

/** What a task that begins from the base alone has of these keys. */
async function loaded(base: LevelBaseRef, storage: Storage, keys: readonly string[], range = ALL): Promise<{ values: Record<string, unknown>; bytes: number }> {
  const region = await memory().open({ name: 'reader', tracked: true });
  const task = region.task({ maxParallelism: MAX_PARALLELISM, range, undo: false });
  const table = task.single(base.tables[0]!.uid, 'value');
  const opened = await openLinked(base, source(storage), { tables: base.tables, ranges: [range] });
  const { bytes } = await task.loadLinked(opened, base.tables, [range]);
  await opened.close();
  return { values: Object.fromEntries(keys.flatMap((key) => table.find(key, hashKey(key)) ?? []).map((row) => [row.key, row.value])), bytes };
}

async function settle(task: TaskState): Promise<void> {
  for (let i = 0; i < 6; i++) await task.relieve();
}

describe('a base that is linked', () => {
  it('protocols 1: serves checkpoints behind the highest barrier of its tasks only, with the deltas behind the lowest', async () => {
    const storage: Storage = new Map();
    const region = await open();
    const [a, b] = [
      region.task({ maxParallelism: MAX_PARALLELISM, range: ALL, undo: false }),
      region.task({ maxParallelism: MAX_PARALLELISM, range: ALL, undo: false }),
    ];
    const [ones, twos] = [a!.single('one', 'value'), b!.single('two', 'value')];
    ones.insert('k', hashKey('k'), 1);
    twos.insert('k', hashKey('k'), 10);
    for (const task of [a!, b!]) task.freeze(1);
    // The upstream task has passed barrier 2 and goes on; what it changes then leaves its memory. The other one is behind.
    a!.freeze(2);
    ones.put(ones.find('k', hashKey('k'))!, 2);
    await settle(a!);
    const ref = await stored(region.link!([a!, b!]), storage);
    expect(ref('one')).toMatchObject({ b: 1, n: 2 });
    // So neither checkpoint 1 nor 2 may name it: it holds what came behind the barrier.
    expect((await loaded(ref('one'), storage, ['k'])).values).toEqual({ k: 2 });
    expect((await loaded(ref('two'), storage, ['k'])).values).toEqual({ k: 10 });
    await region.close();
  });

  it('protocols 1: has what was on its way to LevelDB when it began, and what was changed before, whether or not it is in memory', async () => {
    const storage: Storage = new Map();
    const region = await open(20_000);
    const task = region.task({ maxParallelism: MAX_PARALLELISM, range: ALL, undo: false });
    const table = task.single('one', 'value');
    const keys = Array.from({ length: 3000 }, (_, i) => `key-${i}`);
    for (const key of keys) table.insert(key, hashKey(key), 'first');
    for (const key of keys.slice(0, 500)) table.put(table.find(key, hashKey(key))!, 'second');
    for (const key of keys.slice(2500)) table.delete(table.find(key, hashKey(key))!);
    task.freeze(1);
    // A batch is in flight from here on.
    for (let i = 0; i < 3; i++) task.maintain();
    let at = 0;
    const ref = await stored(region.link!([task]), storage, () => {
      // Behind the barrier: it may be in the base or not, and is in the next delta anyway.
      for (const key of keys.slice(at, at + 50)) table.put(table.find(key, hashKey(key))!, 'third');
      at += 50;
      task.maintain();
    });
    const { values } = await loaded(ref('one'), storage, keys);
    task.freeze(2);
    while (!task.encode(Number.POSITIVE_INFINITY));
    for (const [index, key] of keys.entries()) {
      if (index >= 2500) expect(values[key]).toBeUndefined();
      else if (index >= at) expect(values[key]).toBe(index < 500 ? 'second' : 'first');
      else expect(['first', 'second', 'third', undefined]).toContain(values[key]);
    }
    await region.close();
  });

  it('protocols 3: get – mutate – set while it is made changes nothing of the deltas, and no row is lost that is changed again and again', async () => {
    const storage: Storage = new Map();
    const instance = await Instance.open(linking(tiny()), storage, 0, 1);
    const keys = Array.from({ length: 200 }, (_, i) => `key-${i}`);
    for (const key of keys) instance.single.insert(key, hashKey(key), { n: 0 });
    for (let round = 1; round <= 8; round++) {
      instance.freeze(round);
      for (const [index, key] of keys.entries()) {
        if (index % 8 > round) continue;
        const row = instance.single.find(key, hashKey(key))!;
        instance.single.touch(row);
        (row.value as { n: number }).n = round;
        if (index % 40 === 0) await instance.sweepSome();
        if (index % 50 === 0) instance.task.maintain();
      }
      const handle = instance.handle(round);
      const again = await Instance.open(tiny(), storage, 0, 1, [handle]);
      const expected = (index: number): number => (index % 8 > round - 1 || round === 1 ? 0 : round - 1);
      expect(keys.map((key) => (again.single.find(key, hashKey(key))!.value as { n: number }).n)).toEqual(keys.map((_, index) => expected(index)));
      await again.region.close();
    }
    expect(instance.chain.bases.some(({ kind }) => kind === 'leveldb')).toBe(true);
    await instance.region.close();
  });

  it('protocols 22: has timers that were set before, none that was fired before it was begun, and those of one time for each key group', async () => {
    const storage: Storage = new Map();
    const instance = await Instance.open(linking(tiny()), storage, 0, 1);
    const keys = Array.from({ length: 60 }, (_, i) => `key-${i}`);
    // Ends that coincide, and far ones.
    for (const [index, key] of keys.entries()) instance.timers.set(index % 2 === 0 ? 100 : 1_000_000 + index, key, hashKey(key), index % 3);
    instance.freeze(1);
    instance.handle(1);
    await instance.sweepAll();
    instance.freeze(2);
    instance.handle(2);
    // Fired behind the barrier, and gone from LevelDB before the next base is made; one is set again.
    for (let timer = instance.timers.pop(100); timer !== undefined; timer = instance.timers.pop(100));
    instance.timers.set(100, 'key-0', hashKey('key-0'), 0);
    instance.timers.delete(1_000_001, 'key-1', hashKey('key-1'), 1);
    instance.freeze(3);
    instance.handle(3);
    await instance.sweepAll();
    instance.freeze(4);
    const handle = instance.handle(4);
    expect(handle).toMatchObject({ bases: [{ kind: 'leveldb', b: 3, n: 3 }], deltas: [] });
    const expected = [...instance.timers.all()].map(({ time, key, ns }) => `${time} ${key} ${ns}`).sort();
    expect(expected).toHaveLength(30);
    const shares = await Promise.all([0, 1, 2].map((index) => Instance.open(index === 1 ? memory() : tiny(), storage, index, 3, [handle])));
    expect(shares.flatMap((share) => [...share.timers.all()].map(({ time, key, ns }) => `${time} ${key} ${ns}`)).sort()).toEqual(expected);
    for (const [index, share] of shares.entries())
      for (const { hash } of share.timers.all()) {
        const { from, to } = rangeOf(index, 3, MAX_PARALLELISM);
        expect(groupOf(hash, MAX_PARALLELISM)).toBeGreaterThanOrEqual(from);
        expect(groupOf(hash, MAX_PARALLELISM)).toBeLessThanOrEqual(to);
      }
    for (const { region } of [instance, ...shares]) await region.close();
  });

  it('protocols 22: has lists and maps row by row, and nothing of those that were cleared', async () => {
    const storage: Storage = new Map();
    const instance = await Instance.open(linking(tiny()), storage, 0, 1);
    for (const key of ['kept', 'cleared']) {
      for (let ns = 0; ns < 300; ns++) {
        instance.ordered.insertRow(instance.ordered.find(key, hashKey(key)) ?? instance.ordered.insert(key, hashKey(key)), ns, { ns });
        instance.keyed.insertRow(instance.keyed.find(key, hashKey(key)) ?? instance.keyed.insert(key, hashKey(key)), `n${ns}`, { ns });
      }
    }
    instance.freeze(1);
    instance.handle(1);
    await settle(instance.task);
    for (const table of [instance.ordered, instance.keyed]) {
      const group = table.find('cleared', hashKey('cleared'))!;
      for (const row of [...group.rows]) table.deleteRow(group, row);
    }
    instance.freeze(2);
    instance.handle(2);
    await instance.sweepAll();
    instance.freeze(3);
    const handle = instance.handle(3);
    expect(handle.deltas).toEqual([]);
    await instance.region.close();
    for (const backend of [memory(), tiny()]) {
      const again = await Instance.open(backend, storage, 0, 1, [handle]);
      for (const table of [again.ordered, again.keyed]) {
        expect(table.find('cleared', hashKey('cleared'))).toBeUndefined();
        expect(
          table
            .find('kept', hashKey('kept'))!
            .rows.map((row) => (row.value as { ns: number }).ns)
            .sort((x, y) => x - y),
        ).toEqual(Array.from({ length: 300 }, (_, i) => i));
      }
      expect([again.ordered.size, again.keyed.size]).toEqual([300, 300]);
      await again.region.close();
    }
  });

  it('is read by key groups: of its bytes a task looks at those of its own, and of its tables those that overlap are copied', async () => {
    const storage: Storage = new Map();
    const region = await open();
    const task = region.task({ maxParallelism: MAX_PARALLELISM, range: ALL, undo: false });
    const [values, others] = [task.single('one', 'value'), task.single('two', 'other')];
    const keys = Array.from({ length: 4000 }, (_, i) => `key-${i}`);
    for (const key of keys) {
      values.insert(key, hashKey(key), 'v'.repeat(100));
      others.insert(key, hashKey(key), 'o'.repeat(1000));
    }
    task.freeze(1);
    const ref = (await stored(region.link!([task]), storage))('one');
    const whole = await loaded(ref, storage, keys);
    expect(Object.keys(whole.values)).toHaveLength(keys.length);
    let sum = 0;
    for (let index = 0; index < 4; index++) {
      const range = rangeOf(index, 4, MAX_PARALLELISM);
      const mine = keys.filter((key) => groupOf(hashKey(key), MAX_PARALLELISM) >= range.from && groupOf(hashKey(key), MAX_PARALLELISM) <= range.to);
      const { values, bytes } = await loaded(ref, storage, keys, range);
      expect(Object.keys(values).sort()).toEqual(mine.sort());
      expect(bytes).toBeLessThan(whole.bytes / 3);
      sum += bytes;
    }
    expect(sum).toBe(whole.bytes);
    await region.close();
    const key = (table: number, group: number): Buffer => Buffer.from([0, table, 0, group, 1, ...new Array<number>(8).fill(0)]);
    const live = [0, 1, 2, 3].map((number) => ({
      level: 1,
      number,
      bytes: 1,
      smallest: key(number >> 1, (number & 1) * 64),
      largest: key(number >> 1, (number & 1) * 64 + 63),
    }));
    const numbers = (tables: number[], ranges: { from: number; to: number }[] | undefined): number[] =>
      overlapping(live, { tables: tables.map((number) => ({ number, uid: 'one', name: 'value', layout: 'single', version: 0 })), ranges }).map(
        ({ number }) => number,
      );
    expect(numbers([0], [{ from: 0, to: 10 }])).toEqual([0]);
    expect(numbers([0], [{ from: 60, to: 70 }])).toEqual([0, 1]);
    expect(numbers([1], undefined)).toEqual([2, 3]);
    expect(numbers([0, 1], [{ from: 127, to: 127 }])).toEqual([1, 3]);
  });

  it('keeps its tables while the database goes on and removes its own, and leaves nothing behind', async () => {
    const own = join(directory, 'own');
    const region = await level({ directory: own, cacheBytes: 1 }).open({ name: 'r-0-1-x', tracked: true });
    const task = region.task({ maxParallelism: MAX_PARALLELISM, range: ALL, undo: false });
    const table = task.single('one', 'value');
    for (let i = 0; i < 2000; i++) table.insert(`k${i}`, hashKey(`k${i}`), i);
    task.freeze(1);
    const link = region.link!([task]);
    for (let outcome = link.step(0); outcome !== 'done'; outcome = link.step(0)) await outcome;
    expect(() => region.link!([task])).toThrow(expect.objectContaining({ code: 'STATE_MISUSED' }));
    const read = async (): Promise<Buffer> => {
      const parts: Uint8Array[] = [];
      for await (const part of link.files[0]!.read()) parts.push(part);
      return Buffer.concat(parts);
    };
    const before = await read();
    for (let i = 0; i < 2000; i++) table.put(table.find(`k${i}`, hashKey(`k${i}`))!, -i);
    await settle(task);
    const { db } = region as unknown as { db: { compactRange(from: Buffer, to: Buffer): Promise<void> } };
    await db.compactRange(Buffer.alloc(1), Buffer.from([255]));
    expect((await read()).equals(before)).toBe(true);
    await link.close();
    await link.close();
    const second = region.link!([task]);
    await second.step(0);
    // Given up half way, by the end of the region.
    await region.close();
    await second.close();
    expect(readdirSync(own)).toEqual([]);
    await expect(async () => (await region.link!([task]).step(0)) as void).rejects.toThrow();
  });
});
