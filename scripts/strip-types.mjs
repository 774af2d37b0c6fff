// The load hook behind typescript.mjs: strips the types of .ts files, keeping lines and columns. What was stripped once is kept beside the packages, by the
// hash of what it was: tests start hundreds of processes, and the stripper takes longer to load than all of their programs.

import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const packages = new URL('../node_modules/', import.meta.url);
const stripper = await readFile(new URL('@swc/wasm-typescript/package.json', packages), 'utf8');
const folder = new URL('.cache/millrace-stripped/', packages);

export async function load(url, context, nextLoad) {
  if (!url.startsWith('file:') || !url.endsWith('.ts')) return nextLoad(url, context);
  const path = fileURLToPath(url);
  const text = await readFile(path, 'utf8');
  const name = createHash('sha256').update(`${stripper}\n${path}\n${text}`).digest('hex');
  const kept = new URL(`${name}.js`, folder);
  const source = await readFile(kept, 'utf8').catch(() => strip(text, path, kept));
  return { format: 'module', source, shortCircuit: true };
}

async function strip(text, path, kept) {
  const { transform } = await import('@swc/wasm-typescript');
  const { code } = await transform(text, { mode: 'strip-only', module: true, filename: path });
  // Others may write the same at the same time, and a process may be killed while it does.
  const own = new URL(`${kept.href}.${process.pid}`);
  await mkdir(folder, { recursive: true });
  await writeFile(own, code);
  await rename(own, kept);
  return code;
}
