import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Level } from 'level';
import { expect, it } from 'vitest';
import { type Backend, hashKey, level } from '../../state-backends/index.ts';

// protocols 15: user code may catch what `find` throws; the unit must not count, and no barrier may pass.
it('a failure of the database that user code has caught is thrown again at the end of the unit, and by the next barrier', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-level-'));
  const region = await (level({ directory, cacheBytes: 1 }) as Backend).open({ name: 'job-0-1-abc', tracked: true });
  const task = region.task({ maxParallelism: 128, range: { from: 0, to: 127 }, undo: true });
  const table = task.single('op', 'value');
  for (let i = 0; i < 100; i++) table.insert(`key-${i}`, hashKey(`key-${i}`), { n: i });
  for (let i = 0; i < 6; i++) await task.relieve();
  expect(task.stats().residentRows).toBe(0);
  await (region as unknown as { readonly db: Level }).db.close();

  const failure = expect.objectContaining({ code: 'STATE_IO', retryable: true });
  const caught = (): void => {
    expect(() => table.find('key-1', hashKey('key-1'))).toThrow(failure);
  };
  task.beginUnit();
  caught();
  expect(() => task.commitUnit()).toThrow(failure);
  task.beginUnit();
  caught();
  expect(() => task.rollbackUnit()).toThrow(failure);
  expect(() => task.freeze(1)).toThrow(failure);
  await region.close();
  rmSync(directory, { recursive: true, force: true });
});
