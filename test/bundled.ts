// Programs of tests that run as processes of their own, each as one file of JavaScript: there are hundreds of those processes, and each took longer to load two hundred
// modules, and to strip the types of some, than for what it was started for.

import { spawnSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';

const made = new Map<string, string>();

/** For `node`: the path of the program as built, made again where anything that went into it has changed. Call it when `dist` is fresh. */
export function bundled(program: string): string {
  const before = made.get(program);
  if (before !== undefined) return before;
  const to = fileURLToPath(new URL(`../node_modules/.cache/millrace-bundled/${basename(program, '.ts')}.mjs`, import.meta.url));
  if (!isFresh(to)) {
    const { status, stderr } = spawnSync(process.execPath, [fileURLToPath(new URL('bundle.mjs', import.meta.url)), program, to], { encoding: 'utf8' });
    if (status !== 0) throw new Error(`${program} could not be bundled.\n${stderr}`);
  }
  made.set(program, to);
  return to;
}

function isFresh(file: string): boolean {
  try {
    const inputs = JSON.parse(readFileSync(`${file}.json`, 'utf8')) as [path: string, mtimeMs: number][];
    return inputs.every(([path, mtimeMs]) => statSync(path).mtimeMs === mtimeMs);
  } catch {
    return false;
  }
}
