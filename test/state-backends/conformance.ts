// What every backend of keyed state has to do. A backend adopts it in two lines: import it, call `conformance(name, () => backend)`.
// Scenarios are named after the ways in which exactly-once breaks; `settle` lets level() write down and drop whatever it can.

import { describe, expect, test } from 'vitest';
import { type Backend, bindKinds, type Handle, hashKey, type Key, level, list, map, reducing, type TaskState, value } from '../../state-backends/index.ts';
import { contentsOf, Instance, MAX_PARALLELISM, reading, type Storage } from './model.ts';

const ALL = { from: 0, to: MAX_PARALLELISM - 1 };

interface Item {
  n: number;
  tags?: string[];
}

/** Everything that can leave memory leaves it: twice around the clock, batches resolved. */
async function settle(task: TaskState): Promise<void> {
  for (let i = 0; i < 6; i++) await task.relieve();
}

const item = (instance: Instance, key: Key): Item | undefined => instance.single.find(key, hashKey(key))?.value as Item | undefined;

function mutate(instance: Instance, key: Key, n: number): void {
  const row = instance.single.find(key, hashKey(key))!;
  instance.single.touch(row);
  (row.value as Item).n = n;
}

export function conformance(name: string, open: () => Backend): void {
  describe(name, () => {
    const storage: Storage = new Map();
    const start = (handles: readonly Handle[] = [], undo = false, index = 0, parallelism = 1): Promise<Instance> =>
      Instance.open(open(), storage, index, parallelism, handles, undo);
    const restored = async (handles: readonly Handle[]): Promise<Instance> => start(handles);

    test('protocols 1: a change after the barrier that left memory before the encoding is in the next delta only', async () => {
      const a = await start();
      a.single.insert('k', hashKey('k'), { n: 1 });
      a.freeze(1);
      mutate(a, 'k', 2);
      await settle(a.task);
      const first = a.handle(1);
      await a.sweepAll();
      a.freeze(2);
      const second = a.handle(2);
      await a.region.close();
      const at1 = await restored([first]);
      expect(item(at1, 'k')).toEqual({ n: 1 });
      const at2 = await restored([second]);
      expect(item(at2, 'k')).toEqual({ n: 2 });
      await at1.region.close();
      await at2.region.close();
    });

    test('protocols 1: a base serves later checkpoints only, together with the deltas after its b', async () => {
      const a = await start();
      for (let i = 0; i < 500; i++) a.single.insert(i, hashKey(i), { n: i });
      a.freeze(1);
      a.handle(1);
      await settle(a.task);
      await a.sweepSome();
      for (let i = 0; i < 500; i += 2) mutate(a, i, -i);
      for (let i = 1; i < 500; i += 10) a.single.delete(a.single.find(i, hashKey(i))!);
      await settle(a.task);
      await a.sweepAll();
      a.freeze(2);
      const handle = a.handle(2);
      expect(handle.bases).toHaveLength(1);
      expect(handle.bases[0]).toMatchObject({ b: 1, n: 1 });
      await a.region.close();
      const b = await restored([handle]);
      for (let i = 0; i < 500; i++) expect(item(b, i)?.n).toBe(i % 2 === 0 ? -i : i % 10 === 1 ? undefined : i);
      await b.region.close();
    });

    test.each([
      ['', false],
      [', nor when its tombstone leaves memory in mid-sweep', true],
    ])('protocols 1: what was deleted before the barrier does not come back with the base%s', async (_, between) => {
      const a = await start();
      const hash = hashKey('k');
      for (const table of [a.ordered, a.keyed]) {
        const group = table.insert('k', hash);
        for (const ns of [1, 2, 3]) table.insertRow(group, ns, { n: ns });
      }
      a.single.insert('gone', hashKey('gone'), { n: 1 });
      a.single.insert('away', hashKey('away'), { n: 1 });
      a.freeze(1);
      a.handle(1);
      await settle(a.task);
      for (const table of [a.ordered, a.keyed]) {
        const group = table.find('k', hash)!;
        table.deleteRow(group, table.row(group, 2)!);
      }
      a.single.delete(a.single.find('gone', hashKey('gone'))!);
      a.freeze(2);
      a.handle(2);
      if (between) {
        await a.sweepSome();
        await settle(a.task);
      }
      await a.sweepAll();
      a.freeze(3);
      const handle = a.handle(3);
      expect(handle.deltas).toHaveLength(0);
      await a.region.close();
      const b = await restored([handle]);
      for (const table of [b.ordered, b.keyed]) expect(table.find('k', hash)!.rows.map((row) => row.ns)).toEqual([1, 3]);
      expect([item(b, 'gone'), item(b, 'away')]).toEqual([undefined, { n: 1 }]);
      await b.region.close();
    });

    test('protocols 1: what is deleted, or deleted and made again, while it is being written down stays so', async () => {
      const a = await start();
      for (let i = 0; i < 100; i++) a.single.insert(i, hashKey(i), { n: i });
      for (let i = 0; i < 100; i++) a.ordered.insertRow(a.ordered.insert(i, hashKey(i)), 1, { n: i });
      // The first two rounds only find that everything was used lately.
      for (let i = 0; i < 3; i++) a.task.maintain();
      for (let i = 0; i < 100; i++) {
        a.single.delete(a.single.find(i, hashKey(i))!);
        const group = a.ordered.find(i, hashKey(i))!;
        a.ordered.deleteRow(group, group.rows[0]!);
        if (i % 2 === 0) continue;
        a.single.insert(i, hashKey(i), { n: -i });
        a.ordered.insertRow(a.ordered.insert(i, hashKey(i)), 2, { n: -i });
      }
      await settle(a.task);
      a.freeze(1);
      const b = await restored([a.handle(1)]);
      for (const instance of [a, b]) {
        for (let i = 0; i < 100; i++) {
          expect(item(instance, i)).toEqual(i % 2 === 0 ? undefined : { n: -i });
          expect(instance.ordered.find(i, hashKey(i))?.rows.map((row) => [row.ns, row.value])).toEqual(i % 2 === 0 ? undefined : [[2, { n: -i }]]);
        }
        expect([instance.single.size, instance.ordered.size]).toEqual([50, 50]);
        await instance.region.close();
      }
    });

    test.each([0, 1, 2, 3])('protocols 1: a row that leaves memory while a base is swept is in it (after %i steps)', async (steps) => {
      const a = await start();
      for (let i = 0; i < 300; i++) a.single.insert(i, hashKey(i), { n: i });
      for (let i = 0; i < 300; i++) a.keyed.insertRow(a.keyed.insert(i, hashKey(i)), 'e', { n: i });
      if (steps % 2 === 1) await settle(a.task);
      for (let i = 0; i < 300; i += 3) mutate(a, i, -i);
      // Everything comes back, so that all of it is in memory and in LevelDB when the sweep begins.
      if (steps === 3) for (let i = 0; i < 300; i++) expect([item(a, i)?.n, a.keyed.find(i, hashKey(i))?.rows.length]).toEqual([i % 3 === 0 ? -i : i, 1]);
      a.freeze(1);
      a.handle(1);
      if (steps !== 3) a.task.maintain();
      for (let i = 0; i < steps; i++) await a.sweepSome();
      await settle(a.task);
      await a.sweepSome();
      await settle(a.task);
      await a.sweepAll();
      a.freeze(2);
      const handle = a.handle(2);
      expect([handle.bases.length, handle.deltas.length]).toEqual([1, 0]);
      await a.region.close();
      const b = await restored([handle]);
      for (let i = 0; i < 300; i++) {
        expect(item(b, i)?.n).toBe(i % 3 === 0 ? -i : i);
        expect(b.keyed.find(i, hashKey(i))?.rows.map((row) => row.value)).toEqual([{ n: i }]);
      }
      await b.region.close();
    });

    test('protocols 1: a row made and deleted within one interval leaves a tombstone', async () => {
      const a = await start();
      a.freeze(1);
      a.single.insert('k', hashKey('k'), { n: 1 });
      a.single.delete(a.single.find('k', hashKey('k'))!);
      a.freeze(2);
      const handle = a.handle(2);
      expect(handle.deltas).toHaveLength(1);
      const b = await start();
      b.single.insert('k', hashKey('k'), { n: 9 });
      await b.task.load(reading(storage.get(handle.deltas[0]!.file.name)!));
      expect(item(b, 'k')).toBeUndefined();
      await a.region.close();
      await b.region.close();
    });

    test('protocols 2: what was frozen for aborted checkpoints is in the next one', async () => {
      const a = await start();
      const handles: Handle[] = [];
      const digests: unknown[] = [];
      let x = 7;
      const random = (n: number): number => {
        x = (Math.imul(x, 1103515245) + 12345) & 0x7fffffff;
        return (x >>> 8) % n;
      };
      const keys = Array.from({ length: 40 }, (_, i) => `key-${i}`);
      for (let id = 1; id <= 30; id++) {
        for (let i = 0; i < 20; i++) {
          const key = keys[random(40)]!;
          if (item(a, key) === undefined) a.single.insert(key, hashKey(key), { n: id });
          else mutate(a, key, id);
        }
        a.freeze(id);
        const now = contentsOf([a], keys, () => a);
        const fate = random(4);
        if (fate < 2) {
          handles.push(a.handle(id));
          digests.push(now);
        } else if (fate === 2) {
          a.encodeSome();
        }
        if (id % 5 === 0) await settle(a.task);
      }
      await a.region.close();
      for (const [i, handle] of handles.entries()) {
        const b = await restored([handle]);
        expect(contentsOf([b], keys, () => b)).toEqual(digests[i]);
        await b.region.close();
      }
    });

    test('protocols 3: get – mutate – set between the barrier and the encoding is not in the snapshot', async () => {
      const a = await start();
      const other = a.region.task({ maxParallelism: MAX_PARALLELISM, range: ALL, undo: false });
      const spec = {
        v: value<Item>(),
        l: list<Item>(),
        m: map<string, Item>(),
        r: reducing<Item>((left, right) => Object.assign(left, { n: left.n + right.n })),
      };
      const { handles, setCurrent, clearCurrent } = bindKinds(other, 'kinds', spec);
      setCurrent('k', hashKey('k'));
      handles.v.set({ n: 10 });
      handles.l.add({ n: 10 });
      handles.l.add({ n: 20 });
      handles.m.set('e', { n: 10 });
      handles.r.add({ n: 10 });
      other.freeze(1);
      setCurrent('k', hashKey('k'));
      const v = handles.v.get()!;
      v.n++;
      handles.v.set(v);
      for (const each of handles.l) each.n++;
      handles.l.all()[0]!.tags = ['late'];
      handles.m.get('e')!.n++;
      for (const [, each] of handles.m.entries()) each.n++;
      handles.r.add({ n: 1 });
      clearCurrent();
      while (!other.encode(0));
      const [first] = other.takeDeltas();
      other.freeze(2);
      other.encode(Number.POSITIVE_INFINITY);
      const [second] = other.takeDeltas();
      const look = async (deltas: readonly { blocks: readonly Uint8Array[] }[]): Promise<unknown> => {
        const b = await open().open({ name: `host/kinds-${Math.random().toString(36).slice(2)}`, tracked: true });
        const task = b.task({ maxParallelism: MAX_PARALLELISM, range: ALL, undo: false });
        const bound = bindKinds(task, 'kinds', spec);
        for (const delta of deltas) await task.load(reading(delta.blocks));
        bound.setCurrent('k', hashKey('k'));
        const seen = structuredClone([bound.handles.v.get(), bound.handles.l.all(), [...bound.handles.m.entries()], bound.handles.r.get()]);
        await b.close();
        return seen;
      };
      expect(await look([first!])).toEqual([{ n: 10 }, [{ n: 10 }, { n: 20 }], [['e', { n: 10 }]], { n: 10 }]);
      expect(await look([first!, second!])).toEqual([{ n: 11 }, [{ n: 11, tags: ['late'] }, { n: 21 }], [['e', { n: 12 }]], { n: 11 }]);
      await a.region.close();
    });

    test('protocols 3 and 15: a unit that is rolled back leaves values that were changed in place, rows and timers as they were', async () => {
      const a = await start([], true);
      const keys = ['a', 'b', 'c'];
      for (const key of keys) a.single.insert(key, hashKey(key), { n: 1, tags: ['x'] });
      const group = a.keyed.insert('a', hashKey('a'));
      for (let i = 0; i < 12; i++) a.keyed.insertRow(group, `e${i}`, { n: i });
      a.timers.set(5, 'a', hashKey('a'));
      a.timers.set(5, 'b', hashKey('b'));
      await settle(a.task);
      const order = (): unknown[] => a.keyed.find('a', hashKey('a'))!.rows.map((row) => row.ns);
      const before = [contentsOf([a], keys, () => a), order()];
      a.task.beginUnit();
      mutate(a, 'a', 2);
      (item(a, 'a') as Item).tags!.push('y');
      a.single.delete(a.single.find('a', hashKey('a'))!);
      a.single.insert('a', hashKey('a'), { n: 3 });
      a.single.delete(a.single.find('b', hashKey('b'))!);
      a.single.insert('d', hashKey('d'), 1);
      const found = a.keyed.find('a', hashKey('a'))!;
      for (const ns of ['e3', 'e0', 'e11']) a.keyed.deleteRow(found, a.keyed.row(found, ns)!);
      a.keyed.insertRow(found, 'new', { n: 1 });
      expect(a.timers.pop(10)?.key).toBe('a');
      a.timers.set(1, 'c', hashKey('c'));
      a.timers.delete(5, 'b', hashKey('b'));
      a.task.rollbackUnit();
      expect([contentsOf([a], [...keys, 'd'], () => a), order()]).toEqual(before);
      expect([a.timers.pop(10)?.key, a.timers.pop(10)?.key, a.timers.pop(10)]).toEqual(['a', 'b', undefined]);
      a.freeze(1);
      const b = await restored([a.handle(1)]);
      expect([...contentsOf([b], [...keys, 'd'], () => b)].filter(([id]) => !id.startsWith('t'))).toEqual(
        [...(before[0] as Map<string, unknown>)].filter(([id]) => !id.startsWith('t')),
      );
      await a.region.close();
      await b.region.close();
    });

    test('protocols 8: a region that restarts with the old one still writing sees nothing of it', async () => {
      const backend = open();
      const old = await Instance.open(backend, storage, 0, 1);
      for (let i = 0; i < 200; i++) old.single.insert(i, hashKey(i), { n: i });
      old.freeze(1);
      const handle = old.handle(1);
      for (let i = 0; i < 200; i++) mutate(old, i, -1);
      for (let i = 200; i < 400; i++) old.single.insert(i, hashKey(i), { n: -1 });
      for (let i = 0; i < 5; i++) old.task.maintain();
      const next = await Instance.open(backend, storage, 0, 1, [handle]);
      await Promise.all([old.region.close(), old.region.close()]);
      await settle(next.task);
      for (let i = 0; i < 400; i++) expect(item(next, i)?.n).toBe(i < 200 ? i : undefined);
      await next.region.close();
    });

    test('protocols 22: timers fired or deleted after the barrier are in its snapshot, and follow their key group when the job is rescaled', async () => {
      const a = await start();
      for (let i = 0; i < 300; i++) a.timers.set(i % 7, i, hashKey(i), i % 3);
      a.freeze(1);
      for (let i = 0; i < 100; i++) a.timers.pop(100);
      for (let i = 290; i < 300; i++) a.timers.delete(i % 7, i, hashKey(i), i % 3);
      a.timers.set(1, 'late', hashKey('late'));
      const handle = a.handle(1);
      await a.region.close();
      const fired: string[] = [];
      for (let index = 0; index < 3; index++) {
        const b = await start([handle], false, index, 3);
        let last = Number.NEGATIVE_INFINITY;
        for (let timer = b.timers.pop(100); timer !== undefined; timer = b.timers.pop(100)) {
          expect(timer.time).toBeGreaterThanOrEqual(last);
          last = timer.time;
          fired.push(`${String(timer.key)}:${timer.time}:${timer.ns}`);
        }
        expect([b.timers.size, b.timers.next]).toEqual([0, Number.POSITIVE_INFINITY]);
        await b.region.close();
      }
      expect(fired.sort()).toEqual(Array.from({ length: 300 }, (_, i) => `${i}:${i % 7}:${i % 3}`).sort());
    });

    test('protocols 22: one entry of a large map costs one row, and a cleared map stays cleared', async () => {
      const a = await start();
      const hash = hashKey('big');
      const group = a.keyed.insert('big', hash);
      for (let i = 0; i < 5000; i++) a.keyed.insertRow(group, `entry-${i}`, i);
      a.freeze(1);
      a.handle(1);
      await settle(a.task);
      const again = a.keyed.find('big', hash)!;
      a.keyed.put(a.keyed.row(again, 'entry-77')!, -77);
      a.freeze(2);
      while (!a.task.encode(0));
      const [delta] = a.task.takeDeltas();
      expect(delta!.rows).toBe(1);
      const rows = [...a.keyed.find('big', hash)!.rows];
      for (const row of rows) a.keyed.deleteRow(a.keyed.find('big', hash)!, row);
      expect(a.keyed.find('big', hash)).toBeUndefined();
      a.keyed.insertRow(a.keyed.insert('big', hash), 'entry-1', 'new');
      await settle(a.task);
      expect(a.keyed.find('big', hash)!.rows.map((row) => [row.ns, row.value])).toEqual([['entry-1', 'new']]);
      expect(a.keyed.size).toBe(1);
      await a.region.close();
    });

    test('protocols 23: keys that look alike are different rows, in memory, after leaving it, and after a restore', async () => {
      const keys: Key[] = ['a\uD800', 'a\uDBFF', 'a\uFFFD', ['a', 'bc'], ['ab', 'c'], 1, 1n, true, '1', [1], ['1'], '', [], 0, false];
      const a = await start();
      for (const [i, key] of keys.entries()) a.single.insert(key, hashKey(key), i);
      await settle(a.task);
      a.freeze(1);
      const b = await restored([a.handle(1)]);
      for (const instance of [a, b]) {
        for (const [i, key] of keys.entries()) expect(instance.single.find(key, hashKey(key))?.value).toBe(i);
        expect(instance.single.find(-0, hashKey(-0))?.value).toBe(13);
        expect(instance.single.find(Number.NaN, hashKey(Number.NaN))).toBeUndefined();
        await instance.region.close();
      }
    });

    test('a value that cannot be stored fails the encoding and names the state and the path', async () => {
      const a = await start();
      a.single.insert('k', hashKey('k'), { f: () => 1 });
      a.freeze(1);
      expect(() => a.task.encode(Number.POSITIVE_INFINITY)).toThrow(
        expect.objectContaining({ code: 'STATE_NOT_SERIALIZABLE', message: expect.stringMatching(/single of op.*value\.f/) }),
      );
      await a.region.close();
    });

    test('nothing is tracked where nothing is ever frozen', async () => {
      const region = await open().open({ name: `host/untracked-${Math.random().toString(36).slice(2)}`, tracked: false });
      const task = region.task({ maxParallelism: MAX_PARALLELISM, range: ALL, undo: false });
      const table = task.single('op', 'single');
      for (let i = 0; i < 300; i++) table.insert(i, hashKey(i), { n: i });
      await settle(task);
      for (let i = 0; i < 300; i += 3) table.delete(table.find(i, hashKey(i))!);
      await settle(task);
      for (let i = 0; i < 300; i++) expect((table.find(i, hashKey(i))?.value as Item | undefined)?.n).toBe(i % 3 === 0 ? undefined : i);
      expect(table.size).toBe(200);
      expect(() => task.freeze(1)).toThrow(expect.objectContaining({ code: 'STATE_MISUSED' }));
      await region.close();
    });

    test('tables that are not declared are counted, other ranges skipped, versions migrated', async () => {
      const a = await start();
      for (let i = 0; i < 100; i++) a.single.insert(i, hashKey(i), i);
      a.freeze(1);
      const file = a.handle(1).deltas[0]!.file.name;
      await a.region.close();
      const region = await open().open({ name: `host/other-${Math.random().toString(36).slice(2)}`, tracked: true });
      const load = async (declare: (task: TaskState) => void, range = ALL): ReturnType<TaskState['load']> => {
        const task = region.task({ maxParallelism: MAX_PARALLELISM, range, undo: false });
        declare(task);
        return task.load(reading(storage.get(file)!));
      };
      expect((await load(() => undefined)).unknown).toEqual(new Map([['op/single', 100]]));
      const { rows } = await load((task) => task.single('op', 'single'), { from: 0, to: 63 });
      expect(rows).toBeGreaterThan(20);
      expect(rows).toBeLessThan(80);
      await expect(load((task) => task.keyed('op', 'single'))).rejects.toMatchObject({ code: 'SNAPSHOT_INCOMPATIBLE' });
      await expect(load((task) => task.single('op', 'single', { version: 2 }))).rejects.toMatchObject({ code: 'SNAPSHOT_INCOMPATIBLE' });
      let table: ReturnType<TaskState['single']> | undefined;
      await load((task) => {
        table = task.single('op', 'single', { version: 2, migrate: (old, from) => [old, from] });
      });
      expect(table!.find(5, hashKey(5))?.value).toEqual([5, 0]);
      await region.close();
    });
  });
}

/** level() that keeps next to nothing in memory. */
export function tiny(directory: string): Backend {
  return level({ directory, cacheBytes: 1 });
}
