// Runs the benchmarks of test/bench, all or those named (`npm run bench -- actors`), one after the other, each in a process of its own.

import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const folder = join(root, 'test', 'bench');
const all = readdirSync(folder)
  .filter((name) => name.endsWith('.ts') && !name.startsWith('_'))
  .map((name) => basename(name, '.ts'))
  .sort();
const wanted = process.argv.slice(2).filter((argument) => !argument.startsWith('-'));
const unknown = wanted.filter((name) => !all.includes(name));
if (unknown.length > 0) {
  console.error(`No benchmark is named ${unknown.join(', ')}. There are: ${all.join(', ')}.`);
  process.exit(1);
}
let failed = 0;
for (const name of wanted.length > 0 ? wanted : all) {
  const typescript = pathToFileURL(join(root, 'scripts', 'typescript.mjs')).href;
  const { status } = spawnSync(process.execPath, ['--expose-gc', '--import', typescript, join(folder, `${name}.ts`)], { cwd: root, stdio: 'inherit' });
  if (status !== 0) failed += 1;
}
process.exit(failed === 0 ? 0 : 1);
