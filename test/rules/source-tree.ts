// What the rules look at: the source files of the repository and what each imports, types included.

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

export interface SourceFile {
  /** Below the root, with forward slashes. */
  readonly path: string;
  readonly text: string;
  /** As written: './a.ts', 'node:fs', 'xstate'. */
  readonly specifiers: readonly string[];
  /** The files of this repository among them, below the root. */
  readonly files: readonly string[];
  /** The packages among them: 'node' for Node's own. */
  readonly packages: readonly string[];
}

export function sourceFiles(...folders: string[]): SourceFile[] {
  return folders.flatMap((folder) => {
    let names: string[];
    try {
      names = readdirSync(join(ROOT, folder), { recursive: true }) as string[];
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
    return names
      .filter((name) => name.endsWith('.ts'))
      .sort()
      .map((name) => sourceFile(posix.join(folder, name.split(sep).join('/'))));
  });
}

function sourceFile(path: string): SourceFile {
  const text = readFileSync(join(ROOT, path), 'utf8');
  const specifiers = [...new Set(ts.preProcessFile(text, true, true).importedFiles.map(({ fileName }) => fileName))];
  return {
    path,
    text,
    specifiers,
    files: specifiers.filter((specifier) => specifier.startsWith('.')).map((specifier) => posix.join(posix.dirname(path), specifier)),
    packages: specifiers
      .filter((specifier) => !specifier.startsWith('.'))
      .map((specifier) => (specifier.startsWith('node:') ? 'node' : specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/'))),
  };
}

export function below(path: string): string {
  return relative(ROOT, path).split(sep).join('/');
}
