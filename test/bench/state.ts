// How fast keyed state is. Prints one JSON line a figure; with the argument `squeezed [keys]` only the workload for a small heap.
//
// What is measured: find + touch + put of fresh objects and of numbers, delta encoding, sweep, level() misses, and whether level() survives a heap
// that is much smaller than its state. Not measured: restore, disks other than the one at hand.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { canonicalKey, hashKey, type Key, level, memory, type TaskState } from '../../state-backends/index.ts';

const ALL = { maxParallelism: 128, range: { from: 0, to: 127 }, undo: false };

function print(name: string, figure: number, unit: string, more: Record<string, unknown> = {}): void {
  console.log(JSON.stringify({ name, figure: Math.round(figure * 100) / 100, unit, ...more }));
}

function timed(work: () => void): number {
  const begun = performance.now();
  work();
  return (performance.now() - begun) / 1000;
}

function best(rounds: number, work: () => void): number {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < rounds; i++) least = Math.min(least, timed(work));
  return least;
}

function hashing(): void {
  const keys = Array.from({ length: 1000 }, (_, i) => `user-${1000 + i}`);
  let sum = 0;
  const seconds = best(5, () => {
    for (let r = 0; r < 5000; r++) for (let i = 0; i < 1000; i++) sum ^= hashKey(keys[i]!);
  });
  print('hash of 9-char strings', 5 / seconds, 'M/s', { sum });
}

async function hotPath(count: number, undo: boolean): Promise<void> {
  const region = await memory().open({ name: 'bench', tracked: true });
  const task = region.task({ ...ALL, undo });
  const table = task.single('op', 'value');
  const keys: Key[] = [];
  const hashes = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    keys.push(canonicalKey(`key-${i}`));
    hashes[i] = hashKey(keys[i]!);
  }
  const order = new Int32Array(1 << 20);
  let x = 12345;
  for (let i = 0; i < order.length; i++) {
    x = (Math.imul(x, 1103515245) + 12345) & 0x7fffffff;
    order[i] = x % count;
  }
  const load = timed(() => {
    for (let i = 0; i < count; i++) table.insert(keys[i]!, hashes[i]!, { sum: i, count: 1 });
  });
  print(`insert, ${count} keys`, count / 1e6 / load, 'M/s');
  const rounds = (): void => {
    for (let i = 0; i < order.length; i++) {
      const k = order[i]!;
      const row = table.find(keys[k]!, hashes[k]!)!;
      table.touch(row);
      const value = row.value as { sum: number; count: number };
      table.put(row, { sum: value.sum + 1, count: value.count + 1 });
    }
  };
  print(`find + touch + put, ${count} string keys${undo ? ', undo declared' : ''}`, order.length / 1e6 / best(5, rounds), 'M/s');
  print(
    `find + touch, in place, ${count} string keys${undo ? ', undo declared' : ''}`,
    order.length /
      1e6 /
      best(5, () => {
        for (let i = 0; i < order.length; i++) {
          const k = order[i]!;
          const row = table.find(keys[k]!, hashes[k]!)!;
          table.touch(row);
          (row.value as { count: number }).count++;
        }
      }),
    'M/s',
  );
  if (undo) return;
  const counts = task.single('op', 'count');
  for (let i = 0; i < count; i++) counts.insert(keys[i]!, hashes[i]!, 0);
  const counting = (): void => {
    for (let i = 0; i < order.length; i++) {
      const k = order[i]!;
      const row = counts.find(keys[k]!, hashes[k]!)!;
      counts.put(row, (row.value as number) + 1);
    }
  };
  print(`find + put of a number, ${count} string keys`, order.length / 1e6 / best(5, counting), 'M/s');
  let id = 0;
  const encoded: number[] = [];
  const paused: number[] = [];
  for (let r = 0; r < 4; r++) {
    for (let i = 0; i < count; i++) table.touch(table.find(keys[i]!, hashes[i]!)!);
    paused.push(timed(() => task.freeze(++id)) * 1000);
    encoded.push(timed(() => task.encode(Number.POSITIVE_INFINITY)));
    task.takeDeltas();
  }
  print(`freeze of ${count} changed rows`, Math.min(...paused.slice(1)), 'ms');
  print(`encode of ${count} objects of two numbers`, count / 1e6 / Math.min(...encoded), 'M rows/s');
  let longest = 0;
  for (let i = 0; i < count; i++) table.touch(table.find(keys[i]!, hashes[i]!)!);
  task.freeze(++id);
  for (let done = false; !done; ) longest = Math.max(longest, timed(() => (done = task.encode(performance.now() + 2))) * 1000);
  print(`longest encode slice of 2 ms, ${count} rows`, longest, 'ms');
  task.takeDeltas();
  const swept = timed(() => {
    const sweep = task.sweep();
    while (sweep.step(Number.POSITIVE_INFINITY) !== 'done') sweep.take();
    sweep.take();
  });
  print(`sweep of ${count} rows`, count / 1e6 / swept, 'M rows/s');
  await region.close();
}

async function timers(): Promise<void> {
  const region = await memory().open({ name: 'bench', tracked: true });
  const table = region.task(ALL).timers('op', 'timers');
  const keys = Array.from({ length: 100_000 }, (_, i) => `key-${i}`);
  const hashes = keys.map((key) => hashKey(key));
  const seconds = timed(() => {
    for (let i = 0; i < keys.length; i++) table.set((i * 7919) % 100_003, keys[i]!, hashes[i]!);
    for (let i = 0; i < keys.length; i++) {
      table.delete((i * 7919) % 100_003, keys[i]!, hashes[i]!);
      table.set(200_000 + ((i * 7919) % 100_003), keys[i]!, hashes[i]!);
    }
    while (table.pop(1e9) !== undefined);
  });
  print('timers at times of their own: set, delete, set, pop', 0.1 / seconds, 'M/s');
  const shared = timed(() => {
    for (let w = 0; w < 10; w++) for (let i = 0; i < keys.length; i++) table.set(w * 1000, keys[i]!, hashes[i]!);
    while (table.pop(1e9) !== undefined);
  });
  print('timers that share times: set, pop', 1 / shared, 'M/s');
  await region.close();
}

/** Room for the engine: what is allowed between two batches. */
async function keepUp(task: TaskState): Promise<void> {
  task.maintain();
  if (task.pressed) await task.relieve();
}

async function misses(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-bench-'));
  const region = await level({ directory, cacheBytes: 8 << 20 }).open({ name: 'bench', tracked: true });
  const task = region.task(ALL);
  const table = task.single('op', 'value');
  const count = 1_000_000;
  const begun = performance.now();
  for (let i = 0; i < count; i++) {
    const key = `key-${i}`;
    table.insert(key, hashKey(key), { sum: i, count: 1 });
    if (i % 512 === 0) await keepUp(task);
  }
  await task.relieve();
  print('level(): insert of 1 M rows beyond the cache', count / 1000 / (performance.now() - begun), 'M/s');
  let found = 0;
  const read = performance.now();
  for (let i = 0; i < 200_000; i++) {
    const key = `key-${(Math.imul(i, 2654435761) >>> 0) % count}`;
    if (table.find(key, hashKey(key)) !== undefined) found++;
    if (i % 512 === 0) await keepUp(task);
  }
  print('level(): find, mostly misses of memory', 200 / (performance.now() - read), 'M/s', { found });
  await region.close();
  rmSync(directory, { recursive: true, force: true });
}

/** In a process of its own with a heap of 256 MB. */
async function squeezed(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-bench-'));
  const region = await level({ directory }).open({ name: 'bench', tracked: true });
  const task = region.task(ALL);
  const table = task.single('op', 'value');
  const count = Number(process.argv[3] ?? 5_000_000);
  let heap = 0;
  let id = 0;
  const begun = performance.now();
  const run = async (update: boolean): Promise<void> => {
    for (let i = 0; i < count; i++) {
      const key = `customer-${i}`;
      const hash = hashKey(key);
      const row = update || i % 5 === 4 ? table.find(key, hash) : undefined;
      if (row === undefined) {
        table.insert(key, hash, { sum: i, count: 1 });
      } else {
        table.touch(row);
        (row.value as { count: number }).count++;
      }
      if (i % 512 === 511) {
        await keepUp(task);
        task.encode(performance.now() + 1);
        task.takeDeltas();
        // As the engine does every few milliseconds.
        if (i % 8192 === 8191) await new Promise((resolve) => setImmediate(resolve));
      }
      if (i % 200_000 === 0) {
        task.freeze(++id);
        heap = Math.max(heap, process.memoryUsage().heapUsed);
      }
    }
  };
  await run(false);
  const inserted = performance.now();
  await run(true);
  let bad = 0;
  for (let i = 0; i < 1000; i++) {
    const key = `customer-${(i * 4999) % count}`;
    if ((table.find(key, hashKey(key))?.value as { count: number } | undefined)?.count !== 2) bad++;
  }
  print(`level(): ${count} keys in a 256 MB heap, insert`, count / 1000 / (inserted - begun), 'M/s', {
    heapMB: Math.round(heap / 1e6),
    rssMB: Math.round(process.memoryUsage().rss / 1e6),
  });
  print(`level(): ${count} keys in a 256 MB heap, update`, count / 1000 / (performance.now() - inserted), 'M/s', { bad, ...task.stats() });
  await region.close();
  rmSync(directory, { recursive: true, force: true });
  if (bad > 0) process.exitCode = 1;
}

if (process.argv[2] === 'squeezed') {
  await squeezed();
} else {
  hashing();
  await hotPath(100_000, false);
  await hotPath(100_000, true);
  await hotPath(1_000_000, false);
  await timers();
  await misses();
  const child = spawnSync(process.execPath, ['--max-old-space-size=256', ...process.execArgv, process.argv[1]!, 'squeezed'], { stdio: 'inherit' });
  if (child.status !== 0) print('level(): in a 256 MB heap', Number.NaN, 'failed', { status: child.status, signal: child.signal });
}
