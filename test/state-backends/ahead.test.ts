import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { hashKey, level, memory } from '../../state-backends/index.ts';

const ROWS = 40_000;

describe('the hint that rows will be asked for', () => {
  for (const kind of ['memory', 'level'] as const)
    it(`changes nothing: rows that are there, deleted, evicted or unknown are found as before, in ${kind}()`, async () => {
      const directory = mkdtempSync(join(tmpdir(), 'millrace-ahead-'));
      const backend = kind === 'memory' ? memory() : level({ directory, cacheBytes: 8 << 20 });
      const region = await backend.open({ name: 'ahead', tracked: true });
      try {
        const task = region.task({ maxParallelism: 128, range: { from: 0, to: 127 }, undo: false });
        const table = task.single('op', 'value');
        const hashes = Int32Array.from({ length: ROWS + 1000 }, (_, i) => hashKey(`key-${i}`));
        for (let i = 0; i < ROWS; i++) {
          table.insert(`key-${i}`, hashes[i]!, i % 2 === 0 ? i : { i });
          if (i % 512 === 0) {
            task.maintain();
            if (task.pressed) await task.relieve();
          }
        }
        for (let i = 0; i < ROWS; i += 10) table.delete(table.find(`key-${i}`, hashes[i]!)!);
        const before = { size: table.size, ...task.stats() };
        table.ahead(hashes, 0, hashes.length);
        table.ahead(hashes, 700, 701);
        table.ahead(hashes, 5, 5);
        expect({ size: table.size, ...task.stats() }).toEqual(before);
        let wrong = 0;
        for (let i = 0; i < hashes.length; i++) {
          const row = table.find(`key-${i}`, hashes[i]!);
          const there = i < ROWS && i % 10 !== 0;
          if ((row !== undefined) !== there) wrong++;
          else if (row !== undefined && (typeof row.value === 'object' ? (row.value as { i: number }).i : row.value) !== i) wrong++;
        }
        expect(wrong).toBe(0);
      } finally {
        await region.close();
        rmSync(directory, { recursive: true, force: true });
      }
    });
});
