// The version of a program that says none of its own: a hash of the files that its module is made of. Two replicas have the same one where they run the same code, whatever
// their folders are called (protocols 21 B).
//
// What counts: the module and every file that it imports by a relative or absolute path, and those of theirs, by content; packages by name and version, and those that they
// depend on; packages that are linked from elsewhere (a monorepo's own) by the content of their code.
//
// Invariants:
//  V1  Imports are looked for in the text: one that stands in a comment counts too, which does no harm. A name that is made up while the program runs is not seen, nor is one
//      that a compiler alone understands (`paths` of TypeScript): whoever loads code so gives `version`.
//  V2  What cannot be found counts by its name. Nothing here fails for it: whether the module runs is seen when it is loaded.

import { createHash } from 'node:crypto';
import { readdir, readFile, realpath, stat } from 'node:fs/promises';
import { isBuiltin } from 'node:module';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const IMPORTS = /(?:\bfrom|\bimport|\brequire)\s*\(?\s*(["'`])([^"'`\n]+)\1/g;
const CODE = /\.[cm]?[jt]sx?$|\.json$/;
/** What TypeScript calls by the name that it will have: `./a.js` is a.ts. */
const WRITTEN: Readonly<Record<string, readonly string[]>> = { js: ['ts', 'tsx'], mjs: ['mts'], cjs: ['cts'], jsx: ['tsx'] };
/** What `require` adds. */
const ENDINGS = ['.ts', '.js', '.mjs', '.cjs', '.json', '/index.ts', '/index.js', '/index.mjs', '/index.cjs'];

const known = new Map<string, Promise<string>>();

/** Read once: as it was when this process first had it loaded. */
export function codeVersionOf(module: string | URL): Promise<string> {
  const address = typeof module === 'string' && !/^[a-z]{2,}:/i.test(module) ? pathToFileURL(module).href : String(module);
  let version = known.get(address);
  if (version === undefined) {
    version = read(address);
    known.set(address, version);
  }
  return version;
}

async function read(address: string): Promise<string> {
  const parts = new Set<string>();
  if (address.startsWith('file:')) await new Reading(parts, dirname(fileURLToPath(address))).file(fileURLToPath(address));
  else parts.add(address);
  return createHash('sha256')
    .update(JSON.stringify([...parts].sort()))
    .digest('hex')
    .slice(0, 16);
}

class Reading {
  readonly #parts: Set<string>;
  /** Files and folders of packages that were looked at. */
  readonly #seen = new Set<string>();

  /** Of the module: files are named from there. */
  readonly #folder: string;

  constructor(parts: Set<string>, folder: string) {
    this.#parts = parts;
    this.#folder = folder;
  }

  async file(named: string): Promise<void> {
    // As the loader does: what a linked file imports lies beside what it is a link to.
    const path = await realpath(named).catch(() => named);
    if (this.#seen.has(path)) return;
    this.#seen.add(path);
    const name = relative(this.#folder, named).replaceAll(sep, '/');
    const text = await readFile(path).catch(() => undefined);
    if (text === undefined) {
      // V2.
      this.#parts.add(`missing ${name}`);
      return;
    }
    this.#parts.add(`${name} ${createHash('sha256').update(text).digest('hex')}`);
    if (path.endsWith('.json')) return;
    const names = new Set([...text.toString('utf8').matchAll(IMPORTS)].map((match) => match[2]!));
    for (const name of names) await this.#imported(name, dirname(path));
  }

  async #imported(name: string, folder: string): Promise<void> {
    if (isBuiltin(name)) return;
    if (name.startsWith('.') || name.startsWith('/') || name.startsWith('file:')) {
      const path = pathOf(name, folder);
      const found = path === undefined ? undefined : await foundAt(path);
      // What only looks like an import.
      if (found !== undefined) await this.file(found);
    } else if (name.startsWith('#')) {
      for (const path of await ownImports(name, folder)) await this.#imported(path, folder);
    } else {
      const [, own] = /^((?:@[^/]+\/)?[^/]+)/.exec(name) ?? [];
      if (own !== undefined) await this.#package(own, folder);
    }
  }

  async #package(name: string, from: string): Promise<void> {
    const folder = await folderOf(name, from);
    if (folder === undefined || this.#seen.has(folder)) return;
    this.#seen.add(folder);
    const { version, dependencies = {} } = await manifestIn(folder);
    this.#parts.add(`${name}@${version}`);
    if (!folder.split(sep).includes('node_modules')) return this.#linked(folder);
    for (const other of Object.keys(dependencies)) await this.#package(other, folder);
  }

  async #linked(folder: string): Promise<void> {
    // V2.
    for (const entry of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
      if (entry.name === 'node_modules' || entry.name.startsWith('.')) continue;
      const path = join(folder, entry.name);
      if (entry.isDirectory()) await this.#linked(path);
      else if (entry.isFile() && CODE.test(entry.name)) await this.file(path);
    }
  }
}

/** Undefined: it is an address of another machine. */
function pathOf(name: string, folder: string): string | undefined {
  try {
    if (name.startsWith('file:')) return fileURLToPath(new URL(name));
  } catch {
    return undefined;
  }
  const bare = name.replace(/[?#].*$/, '');
  return bare.startsWith('.') ? join(folder, bare) : bare;
}

async function foundAt(path: string): Promise<string | undefined> {
  const [, stem, ending] = /^(.*)\.([a-z]+)$/.exec(path) ?? [];
  const written = (WRITTEN[ending ?? ''] ?? []).map((other) => `${stem}.${other}`);
  for (const each of [path, ...written, ...ENDINGS.map((end) => path + end)]) {
    const there = await stat(each).catch(() => undefined);
    if (there?.isFile() === true) return each;
  }
  return undefined;
}

/** What `imports` of the package that the folder belongs to says of that name, under whatever condition. */
async function ownImports(name: string, from: string): Promise<string[]> {
  for (let folder = from; ; folder = dirname(folder)) {
    const { imports = {}, found } = await manifestIn(folder);
    if (found) {
      const matching = Object.entries(imports).flatMap(([key, target]) => {
        const [before, after] = key.split('*') as [string, string?];
        const matches = after === undefined ? key === name : name.startsWith(before) && name.endsWith(after) && name.length >= key.length;
        return matches ? leavesOf(target).map((leaf) => leaf.replaceAll('*', name.slice(before.length, name.length - (after?.length ?? 0)))) : [];
      });
      return matching.map((target) => (target.startsWith('.') ? join(folder, target) : target));
    }
    if (folder === dirname(folder)) return [];
  }
}

function leavesOf(target: unknown): string[] {
  if (typeof target === 'string') return [target];
  return typeof target === 'object' && target !== null ? Object.values(target).flatMap(leavesOf) : [];
}

/** Where the package of that name is that a file in that folder sees; without its links. */
async function folderOf(name: string, from: string): Promise<string | undefined> {
  for (let folder = from; ; folder = dirname(folder)) {
    const at = await realpath(join(folder, 'node_modules', name)).catch(() => undefined);
    if (at !== undefined) return at;
    if (folder === dirname(folder)) return undefined;
  }
}

interface Manifest {
  readonly version?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly imports?: Readonly<Record<string, unknown>>;
}

async function manifestIn(folder: string): Promise<Manifest & { readonly found: boolean }> {
  try {
    return { ...(JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as Manifest), found: true };
  } catch {
    // V2.
    return { found: false };
  }
}
