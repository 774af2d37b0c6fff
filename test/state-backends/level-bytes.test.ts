import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type Backend, hashKey, level, type RegionState } from '../../state-backends/index.ts';
import { sizeOfKey } from '../../state-backends/value-size.ts';
import { expectCounted } from './recount.ts';

const directory = mkdtempSync(join(tmpdir(), 'millrace-level-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

let regions = 0;
const ALL = { maxParallelism: 128, range: { from: 0, to: 127 } };
const open = (cacheBytes: number): Promise<RegionState> =>
  (level({ directory, cacheBytes }) as Backend).open({ name: `bytes-0-${++regions}-abc`, tracked: true });

describe('what level() counts', () => {
  it('a key is as large the hundredth time as the first, also one of parts', () => {
    const key = ['a part', 7, ['another', 'part']];
    const first = sizeOfKey(key);
    for (let i = 0; i < 100; i++) expect(sizeOfKey(key)).toBe(first);
  });
});

describe('a unit that is undone', () => {
  it('leaves the bytes of what was there before it, whatever it had put in place', async () => {
    const region = await open(1 << 30);
    const task = region.task({ ...ALL, undo: true });
    const single = task.single('op', 'value');
    const ordered = task.ordered('op', 'slices');
    const hash = hashKey('k');
    const row = single.insert('k', hash, { text: 'x'.repeat(1000) });
    const group = ordered.insert('k', hash);
    const slice = ordered.insertRow(group, 1, 'y'.repeat(1000));
    const before = task.stats().residentBytes;
    for (const value of ['', { text: 'z'.repeat(50_000) }]) {
      task.beginUnit();
      single.put(row, value);
      ordered.put(slice, value);
      expect(task.stats().residentBytes).not.toBeCloseTo(before, 3);
      task.rollbackUnit();
      expect(task.stats().residentBytes).toBeCloseTo(before, 3);
      expectCounted(region, task);
    }
    await region.close();
  });
});

describe('a value that grows in the hands of whoever was handed it', () => {
  it('weighs what it has become once it has been frozen, also where it was changed again before it was written', async () => {
    const region = await open(1 << 30);
    const task = region.task({ ...ALL, undo: false });
    const single = task.single('op', 'value');
    const ordered = task.ordered('op', 'slices');
    const rows = [single.insert('k', hashKey('k'), [] as string[]), ordered.insertRow(ordered.insert('k', hashKey('k')), 1, [] as string[])];
    const tables = [single, ordered];
    let before = task.stats().residentBytes;
    for (let barrier = 1; barrier <= 4; barrier++) {
      for (const [i, row] of rows.entries()) {
        tables[i]!.touch(row);
        for (let n = 0; n < 1000; n++) (row.value as string[]).push(`an element ${n}`);
      }
      task.freeze(barrier);
      // Written when it is touched, and in a slice of encoding.
      if (barrier % 2 === 0) for (const [i, row] of rows.entries()) tables[i]!.touch(row);
      task.encode(Number.POSITIVE_INFINITY);
      const now = task.stats().residentBytes;
      // The weight follows where what is written is more than it: at least every second time here.
      if (barrier % 2 === 0) {
        expect(now).toBeGreaterThan(before + 50_000);
        before = now;
      }
      expectCounted(region, task);
    }
    for (const [i, row] of rows.entries()) {
      tables[i]!.touch(row);
      if (i === 0) single.delete(row);
      else ordered.deleteRow(ordered.find('k', hashKey('k'))!, row);
    }
    expect(task.stats().residentBytes).toBeLessThan(1000);
    expectCounted(region, task);
    await region.close();
  });
});

/** Inside the region: what it counts, and its clock. */
interface Probed {
  residentBytes: number;
  evict(): unknown;
}

describe('where nothing can leave memory', () => {
  it('relieve() gives the event loop back between two looks, ends, and holds the task back no more', async () => {
    const region = await open(1);
    const task = region.task({ ...ALL, undo: false });
    const table = task.single('op', 'value');
    // More places than the hand looks at in one go, all of them empty in the end.
    for (let i = 0; i < 70_000; i++) table.insert(i, hashKey(i), { n: i });
    while (task.stats().residentRows > 0) await task.relieve();
    expectCounted(region, task);
    const probed = region as unknown as Probed;
    probed.residentBytes += 1e6;
    expect(task.pressed).toBe(true);
    const evict = probed.evict.bind(region);
    let looks = 0;
    probed.evict = () => {
      // Else a loop that never ends would end no test.
      if (++looks > 1000) throw new Error('it looks for ever');
      return evict();
    };
    let turns = 0;
    const turning = (): void => {
      turns += 1;
      if (!done) setImmediate(turning);
    };
    let done = false;
    setImmediate(turning);
    await task.relieve();
    done = true;
    expect(looks).toBeGreaterThan(1);
    expect(turns).toBeGreaterThanOrEqual(looks - 1);
    expect(task.pressed).toBe(false);
    // What comes now leaves as before.
    probed.residentBytes -= 1e6;
    table.insert('new', hashKey('new'), 1);
    while (task.stats().residentRows > 0) await task.relieve();
    expectCounted(region, task);
    await region.close();
  });
});
