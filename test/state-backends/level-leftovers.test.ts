import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Level } from 'level';
import { expect, it } from 'vitest';
import { type Backend, level } from '../../state-backends/index.ts';

it('level() deletes what killed processes left of the same region, and nothing that is open, newer or of another', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-level-'));
  const abandoned = ['job-0-1-abc', 'job-0-2-def'];
  const others = ['job-0-4-jkl', 'job-1-1-abc', 'other-job-0-1-abc', 'job-0-1'];
  for (const name of [...abandoned, ...others]) {
    const db = new Level(join(directory, name));
    await db.put('key', 'value');
    await db.close();
  }
  const open = new Level(join(directory, 'job-0-2-open'));
  await open.open();
  const halfMade = join(directory, 'job-0-2-half');
  mkdirSync(halfMade);
  writeFileSync(join(halfMade, 'LOCK'), '');

  const region = await (level({ directory }) as Backend).open({ name: 'job-0-3-ghi', tracked: true });
  expect(readdirSync(directory).sort()).toEqual([...others, 'job-0-2-open', 'job-0-3-ghi'].sort());
  await region.close();
  await open.close();
  rmSync(directory, { recursive: true });
});
