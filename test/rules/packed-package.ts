// The package as a user gets it: built, packed, and unpacked into a project that has nothing but it and what it declares.

import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { ROOT } from './source-tree.ts';

export interface Manifest {
  readonly exports: Record<string, string | Record<string, string>>;
  readonly bin: Record<string, string>;
  readonly dependencies: Record<string, string>;
}

export const MANIFEST = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Manifest;

export interface Project {
  readonly folder: string;
  /** Paths inside of the package. */
  readonly packed: readonly string[];
  run(...command: string[]): { readonly output: string; readonly status: number | null };
  remove(): void;
}

/** `extra`: packages of the project itself, beside what millrace brings. */
export function projectWithPackage(extra: readonly string[] = []): Project {
  succeed([process.execPath, 'scripts/ensure.mjs'], ROOT);
  const folder = mkdtempSync(join(tmpdir(), 'millrace-package-'));
  const packed = JSON.parse(succeed(['npm', 'pack', '--json', '--ignore-scripts', '--loglevel=error', '--pack-destination', folder], ROOT)) as [
    { filename: string; files: { path: string }[] },
  ];
  const modules = join(folder, 'node_modules');
  mkdirSync(join(modules, 'millrace'), { recursive: true });
  succeed(['tar', '-xzf', join(folder, packed[0].filename), '-C', join(modules, 'millrace'), '--strip-components=1'], folder);
  for (const name of [...Object.keys(MANIFEST.dependencies), ...extra]) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules', name), join(modules, name), 'junction');
  }
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
  return {
    folder,
    packed: packed[0].files.map(({ path }) => path),
    run(...command) {
      const { stdout, stderr, status } = spawn(command, folder);
      return { output: `${stdout}${stderr}`, status };
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

function spawn(command: readonly string[], cwd: string) {
  const [program, ...rest] = command;
  const result = spawnSync(program!, rest, { cwd, encoding: 'utf8', maxBuffer: 64 * 1024 * 1024, shell: process.platform === 'win32' && program === 'npm' });
  if (result.error !== undefined) throw result.error;
  return result;
}

function succeed(command: readonly string[], cwd: string): string {
  const { stdout, stderr, status } = spawn(command, cwd);
  if (status !== 0) throw new Error(`${command.join(' ')} ended with ${status}:\n${stdout}${stderr}`);
  return stdout;
}
