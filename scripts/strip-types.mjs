// The load hook behind typescript.mjs: strips the types of .ts files, keeping lines and columns.

import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { transform } from '@swc/wasm-typescript';

export async function load(url, context, nextLoad) {
  if (!url.startsWith('file:') || !url.endsWith('.ts')) return nextLoad(url, context);
  const path = fileURLToPath(url);
  const { code } = await transform(await readFile(path, 'utf8'), { mode: 'strip-only', module: true, filename: path });
  return { format: 'module', source: code, shortCircuit: true };
}
