import { existsSync } from 'node:fs';
import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { SecondNames } from '../../state-backends/level-names.ts';
import { temporaryFolder } from '../protocols/lab.ts';

it('every table has a second name until LevelDB has removed its own; what is no table has none', async () => {
  const folder = await temporaryFolder();
  const held = (): Promise<string[]> => readdir(join(folder, 'names'));
  const names = new SecondNames(folder);
  for (const name of ['000005.ldb', '000007.ldb', '000006.log', 'CURRENT']) await writeFile(join(folder, name), 'x');
  names.written();
  await vi.waitFor(async () => expect((await held()).sort()).toEqual(['000005.ldb', '000007.ldb']), 20_000);
  expect((await stat(join(folder, '000005.ldb'))).nlink).toBe(2);
  await rm(join(folder, '000005.ldb'));
  await writeFile(join(folder, '000009.ldb'), 'x');
  names.written();
  await vi.waitFor(async () => expect((await held()).sort()).toEqual(['000007.ldb', '000009.ldb']), 20_000);
  await names.close();
});

it('where names cannot be made there are none any more, and nothing fails', async () => {
  const folder = await temporaryFolder();
  await mkdir(join(folder, 'names', '000005.ldb'), { recursive: true });
  await writeFile(join(folder, '000005.ldb'), 'x');
  const names = new SecondNames(folder);
  names.written();
  await vi.waitFor(() => expect(existsSync(join(folder, 'names'))).toBe(false), 20_000);
  names.written();
  await names.close();
  expect(await readdir(folder)).toEqual(['000005.ldb']);
});
