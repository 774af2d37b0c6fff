import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LONG } from '../long.ts';
import { satisfies } from './node-range.ts';
import { MANIFEST, type Project, projectWithPackage } from './packed-package.ts';
import { ROOT } from './source-tree.ts';

describe('the packed package', () => {
  let project: Project;
  beforeAll(() => {
    project = projectWithPackage();
  }, 180_000);
  afterAll(() => project?.remove());

  it('has every file that its exports and commands name', () => {
    const named = [
      ...Object.values(MANIFEST.exports).flatMap((entry) => (typeof entry === 'string' ? [entry] : Object.values(entry))),
      ...Object.values(MANIFEST.bin),
    ];
    const missing = named.map((path) => path.replace(/^\.\//, '')).filter((path) => !project.packed.includes(path));
    expect(missing).toEqual([]);
  });

  it('has its licence, readme and changelog, and no tests', () => {
    expect(project.packed).toEqual(expect.arrayContaining(['LICENSE', 'README.md', 'CHANGELOG.md', 'package.json']));
    expect(project.packed.filter((path) => /(^|\/)test\//.test(path) || path.endsWith('.test.js'))).toEqual([]);
  });

  const subpaths = Object.keys(MANIFEST.exports).filter((path) => path !== './package.json');
  it.each(subpaths)('can be imported as %s, with what it declares alone', (subpath) => {
    const name = `millrace${subpath.slice(1)}`;
    writeFileSync(
      join(project.folder, 'use.mjs'),
      `const all = await import('${name}');\nif (Object.keys(all).length === 0) throw new Error('it exports nothing');\n`,
    );
    expect(project.run(process.execPath, 'use.mjs')).toEqual({ output: '', status: 0 });
  });
});

it.runIf(LONG)(
  'a clone that was never built is built when it is packed or published; npm run build builds anew, a command that can be run',
  () => {
    const clone = mkdtempSync(join(tmpdir(), 'millrace-clone-'));
    try {
      const sources = ['src', 'actors', 'state-backends', 'scripts', 'package.json', 'package-lock.json', 'tsconfig.json', 'tsconfig.build.json'];
      for (const name of sources) cpSync(join(ROOT, name), join(clone, name), { recursive: true });
      symlinkSync(join(ROOT, 'node_modules'), join(clone, 'node_modules'), 'junction');
      const { stdout, stderr } = spawnSync('npm', ['pack', '--json', '--dry-run', '--loglevel=error'], {
        cwd: clone,
        encoding: 'utf8',
        shell: process.platform === 'win32',
      });
      // npm 10 says before its JSON which script it runs.
      const [{ files }] = JSON.parse(stdout.slice(stdout.search(/^\[/m))) as [{ files: { path: string }[] }];
      expect({ built: files.map(({ path }) => path).filter((path) => /^dist\/src\/(index|cli\/main)\.js$/.test(path)), stderr }).toMatchObject({
        built: ['dist/src/cli/main.js', 'dist/src/index.js'],
      });
      const command = join(clone, 'dist', 'src', 'cli', 'main.js');
      const before = statSync(command).ino;
      expect(spawnSync('npm', ['run', '--silent', 'build'], { cwd: clone, shell: process.platform === 'win32' }).status).toBe(0);
      const { ino, mode } = statSync(command);
      expect({ anew: ino !== before, runs: process.platform === 'win32' || (mode & 0o111) !== 0 }).toEqual({ anew: true, runs: true });
    } finally {
      rmSync(clone, { recursive: true, force: true });
    }
  },
  180_000,
);

describe('package-lock.json', () => {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { engines?: { node?: string }; optional?: boolean; resolved?: string; optionalDependencies?: Record<string, string> }>;
  };

  it('has no package that excludes Node 20', () => {
    const excluding = Object.entries(packages)
      .filter(([, entry]) => entry.optional !== true && entry.engines?.node !== undefined && !satisfies('20.20.0', entry.engines.node))
      .map(([path, entry]) => `${path}: ${entry.engines?.node}`);
    expect(excluding).toEqual([]);
  });

  it('has the optional packages of every platform, without which npm ci refuses it', () => {
    const missing = Object.values(packages)
      .flatMap((entry) => Object.keys(entry.optionalDependencies ?? {}))
      .filter((name) => !Object.keys(packages).some((path) => path.endsWith(`node_modules/${name}`)));
    expect(missing).toEqual([]);
  });

  it('names no address that a package was fetched from', () => {
    expect(Object.entries(packages).filter(([, entry]) => entry.resolved !== undefined)).toEqual([]);
  });
});

describe('a range of Node versions', () => {
  it.each([
    ['>=20', true],
    ['>= 10.12.0', true],
    ['*', true],
    ['20 || >=22', true],
    ['^20.19.0 || >=22.12.0', true],
    ['^18.0.0 || ^20.0.0 || >= 21', true],
    ['>=18 <21', true],
    ['~20.20.0', true],
    ['20.x', true],
    ['>=22.12.0', false],
    ['^18 || >=22', false],
    ['>=18 <20', false],
    ['>20.20.0', false],
    ['~20.19.0', false],
  ])('%s takes 20.20.0: %s', (range, expected) => {
    expect(satisfies('20.20.0', range)).toBe(expected);
  });
});
