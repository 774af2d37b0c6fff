// Paths to files: a plain path, a directory (all files below it) or a glob of `*`, `**` and `?`.
//
// What is found is sorted and named as it was asked for (a relative pattern finds relative paths), because that name is the split's in snapshots.
// Hidden files and directories (their name starts with a dot) are found only where the pattern itself writes the dot: a file sink that still writes
// into the directory keeps its open files there.

import { promises as fs } from 'node:fs';
import { join, sep } from 'node:path';
import { MillraceError, messageOf } from '../errors.ts';

/** All files that the pattern names by now; none where there is nothing. */
export async function filesOf(pattern: string): Promise<string[]> {
  const found: string[] = [];
  if (!/[*?]/.test(pattern)) {
    await addPath(pattern, found);
  } else {
    const parts = pattern.split(sep === '\\' ? /[\\/]/ : '/');
    const absolute = parts[0] === '';
    await walk(absolute ? sep : '', absolute ? parts.slice(1) : parts, found);
  }
  return [...new Set(found)].sort();
}

async function addPath(path: string, found: string[]): Promise<void> {
  const stat = await orMissing(path, fs.stat(path));
  if (stat === undefined) return;
  if (stat.isDirectory()) await walk(path, ['**', '*'], found);
  else found.push(path);
}

async function walk(directory: string, parts: readonly string[], found: string[]): Promise<void> {
  const [part, ...rest] = parts;
  if (part === undefined) return;
  if (part === '' || part === '.') return walk(directory, rest, found);
  if (!/[*?]/.test(part)) {
    const path = join(directory, part);
    if (rest.length === 0) await addPath(path, found);
    else await walk(path, rest, found);
    return;
  }
  if (part === '**') await walk(directory, rest.length === 0 ? ['*'] : rest, found);
  const matches = part === '**' ? visible : matcher(part);
  const entries = await orMissing(directory, fs.readdir(directory === '' ? '.' : directory, { withFileTypes: true }));
  for (const entry of entries ?? []) {
    if (!matches(entry.name)) continue;
    const path = join(directory, entry.name);
    // A link below `**` is not followed as a directory: it could lead round in a circle.
    const isDirectory = entry.isDirectory() || (entry.isSymbolicLink() && part !== '**' && (await orMissing(path, fs.stat(path)))?.isDirectory() === true);
    if (isDirectory) {
      if (part === '**') await walk(path, parts, found);
      else if (rest.length > 0) await walk(path, rest, found);
    } else if (part !== '**' && rest.length === 0) {
      found.push(path);
    }
  }
}

function visible(name: string): boolean {
  return !name.startsWith('.');
}

function matcher(part: string): (name: string) => boolean {
  const source = part
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replace(/\*+/g, '.*')
    .replaceAll('?', '.');
  const expression = new RegExp(`^${source}$`, 's');
  const dotted = part.startsWith('.');
  return (name) => (dotted || visible(name)) && expression.test(name);
}

async function orMissing<R>(path: string, answer: Promise<R>): Promise<R | undefined> {
  try {
    return await answer;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new MillraceError('FILE_UNREADABLE', `'${path}' cannot be looked at: ${messageOf(error)}.`, { cause: error });
  }
}
