import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type Backend, hashKey, type Key, level, memory, type TaskState } from '../../state-backends/index.ts';

const directory = mkdtempSync(join(tmpdir(), 'millrace-looking-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

let regions = 0;
async function open(backend: Backend) {
  const region = await backend.open({ name: `looking-0-${++regions}-abc`, tracked: true });
  const task = region.task({ maxParallelism: 128, range: { from: 0, to: 127 }, undo: false });
  return { region, task, single: task.single('op', 'value'), ordered: task.ordered('op', 'list'), keyed: task.keyed('op', 'map') };
}
const settle = async (task: TaskState): Promise<void> => {
  for (let i = 0; i < 6; i++) await task.relieve();
};

async function walked(task: TaskState, name: string, between: () => void = () => {}): Promise<Key[]> {
  const walk = task.look().keys('op', name);
  const keys: Key[] = [];
  for (let step = walk.next(); step !== undefined; step = walk.next()) {
    keys.push(...(await step));
    between();
  }
  return keys;
}

describe.each<[string, () => Backend]>([
  ['memory()', () => memory()],
  ['level(), all of it in memory', () => level({ directory })],
  ['level(), next to nothing in memory', () => level({ directory, cacheBytes: 1 })],
])('looking at the state of %s', (_name, backend) => {
  it('gives copies of the rows of a key, in the order of the table', async () => {
    const { region, task, single, ordered, keyed } = await open(backend());
    const key = ['a', 1n, true];
    const hash = hashKey(key);
    single.insert(key, hash, { n: 1 });
    const list = ordered.insert(key, hash);
    for (const ns of [3, 1, 2]) ordered.insertRow(list, ns, [ns]);
    keyed.insertRow(keyed.insert(key, hash), 'entry', 7);
    for (const settled of [false, true]) {
      if (settled) await settle(task);
      const look = task.look();
      expect(look.rows('op', 'value', key, hash)).toEqual([{ ns: undefined, value: { n: 1 } }]);
      expect(look.rows('op', 'list', key, hash)).toEqual([1, 2, 3].map((ns) => ({ ns, value: [ns] })));
      expect(look.rows('op', 'map', key, hash)).toEqual([{ ns: 'entry', value: 7 }]);
      (look.rows('op', 'value', key, hash)[0]!.value as { n: number }).n = 2;
      expect(look.rows('op', 'value', key, hash)).toEqual([{ ns: undefined, value: { n: 1 } }]);
    }
    expect(task.look().rows('op', 'value', 'other', hashKey('other'))).toEqual([]);
    expect(task.look().rows('op', 'other', key, hash)).toEqual([]);
    await region.close();
  });

  it('changes nothing: no delta, no figure of the cache, nothing moves into memory', async () => {
    const { region, task, single, ordered } = await open(backend());
    for (let i = 0; i < 300; i++) {
      single.insert(i, hashKey(i), { n: i });
      ordered.insertRow(ordered.insert(i, hashKey(i)), 0, [i]);
    }
    await settle(task);
    task.freeze(1);
    task.encode(Number.POSITIVE_INFINITY);
    task.takeDeltas();
    const before = task.stats();
    for (let i = 0; i < 300; i++) {
      expect(task.look().rows('op', 'value', i, hashKey(i))).toEqual([{ ns: undefined, value: { n: i } }]);
      expect(task.look().rows('op', 'list', i, hashKey(i))).toEqual([{ ns: 0, value: [i] }]);
    }
    expect((await walked(task, 'value')).length).toBe(300);
    expect(task.stats()).toEqual(before);
    task.freeze(2);
    task.encode(Number.POSITIVE_INFINITY);
    expect(task.takeDeltas().map((delta) => delta.rows)).toEqual([0]);
    await region.close();
  });

  it('a deleted row is gone at once, also while the database still has it', async () => {
    const { region, task, single, ordered } = await open(backend());
    for (const key of ['a', 'b']) {
      single.insert(key, hashKey(key), 1);
      ordered.insertRow(ordered.insert(key, hashKey(key)), 0, [1]);
    }
    await settle(task);
    single.delete(single.find('a', hashKey('a'))!);
    const group = ordered.find('a', hashKey('a'))!;
    ordered.deleteRow(group, group.rows[0]!);
    for (const settled of [false, true]) {
      if (settled) await settle(task);
      for (const name of ['value', 'list']) {
        expect(task.look().rows('op', name, 'a', hashKey('a'))).toEqual([]);
        expect(task.look().rows('op', name, 'b', hashKey('b'))).toHaveLength(1);
      }
    }
    await region.close();
  });

  it('a walk meets every key that is there from its start to its end, while others come, go and move', async () => {
    const { region, task, single } = await open(backend());
    const KEYS = 5000;
    for (let i = 0; i < KEYS; i++) single.insert(i, hashKey(i), { n: i });
    await settle(task);
    // Half of them are in memory again, at places of their own.
    for (let i = 0; i < KEYS; i += 2) single.find(i, hashKey(i));
    let turn = 0;
    const found = await walked(task, 'value', () => {
      turn++;
      const added = `new ${turn}`;
      single.insert(added, hashKey(added), 1);
      const passing = single.find(KEYS - turn, hashKey(KEYS - turn));
      if (passing !== undefined) single.delete(passing);
      for (let i = turn; i < KEYS; i += 97) single.find(i % (KEYS - 100), hashKey(i % (KEYS - 100)));
      task.maintain();
    });
    const seen = new Set(found);
    const missing = Array.from({ length: KEYS - turn }, (_, i) => i).filter((i) => !seen.has(i));
    expect(missing).toEqual([]);
    await region.close();
  });

  it('says how many rows tables have, and about how large they are', async () => {
    const { region, task, single, keyed } = await open(backend());
    for (let i = 0; i < 1000; i++) single.insert(i, hashKey(i), 'x'.repeat(500));
    const group = keyed.insert('k', hashKey('k'));
    for (let i = 0; i < 10; i++) keyed.insertRow(group, i, i);
    task.timers('op', 'timers').set(5, 'k', hashKey('k'));
    const [value, list, map, timers] = task.look().tables();
    expect(value).toMatchObject({ uid: 'op', name: 'value', layout: 'single', version: 0, rows: 1000 });
    expect(value!.bytes).toBeGreaterThan(1000 * 1000);
    expect(value!.bytes).toBeLessThan(3 * 1000 * 1000);
    expect([list!.rows, list!.bytes, map!.rows, timers!.rows]).toEqual([0, 0, 10, 1]);
    await region.close();
  });
});
