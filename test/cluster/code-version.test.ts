import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { codeVersionOf } from '../../src/cluster/code-version.ts';
import { temporaryFolder } from '../protocols/lab.ts';

const PROGRAM = {
  'job.ts':
    "import { factor } from './factor.js';\nimport type { Row } from './rows';\nimport { sum } from 'sums';\nimport { own } from '#lib/own.js';\nexport default factor;",
  'factor.ts': "export const factor = 2;\nexport const later = () => import('./later.mjs');",
  'rows/index.ts': 'export interface Row { n: number }',
  'later.mjs': "import limits from './limits.json' with { type: 'json' };",
  'limits.json': '{ "most": 5 }',
  'package.json': '{ "imports": { "#lib/*": { "node": "./lib/*", "default": "./elsewhere/*" } } }',
  'lib/own.ts': 'export const own = 1;',
  'unused.ts': 'export const nobody = 1;',
  'node_modules/sums/package.json': '{ "name": "sums", "version": "1.0.0", "dependencies": { "digits": "*" } }',
  'node_modules/sums/index.js': 'module.exports = 1;',
  'node_modules/digits/package.json': '{ "name": "digits", "version": "3.0.0" }',
};

/** Of the program with those files instead, in a folder of its own. */
async function versionOf(changed: Partial<Record<keyof typeof PROGRAM, string>> = {}): Promise<string> {
  const folder = await temporaryFolder();
  for (const [name, text] of Object.entries({ ...PROGRAM, ...changed })) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), text);
  }
  return codeVersionOf(join(folder, 'job.ts'));
}

describe('the version of a program’s code', () => {
  it('is the same for the same files, wherever they lie and however the module is named', async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, 'job.ts'), 'export default 1;');
    const version = await codeVersionOf(join(folder, 'job.ts'));
    expect(await codeVersionOf(pathToFileURL(join(folder, 'job.ts')))).toBe(version);
    expect(await codeVersionOf(pathToFileURL(join(folder, 'job.ts')).href)).toBe(version);
    expect(await versionOf()).toBe(await versionOf());
    expect(await versionOf()).toMatch(/^[0-9a-f]{16}$/);
  });

  for (const [what, changed] of [
    ['the module itself', { 'job.ts': `${PROGRAM['job.ts']} // 2` }],
    ['a constant in a file that it imports by its later name', { 'factor.ts': PROGRAM['factor.ts'].replace('2', '3') }],
    ['a file that is imported by its folder', { 'rows/index.ts': 'export interface Row { n: string }' }],
    ['a file that is imported while it runs', { 'later.mjs': `${PROGRAM['later.mjs']} // 2` }],
    ['data that is imported', { 'limits.json': '{ "most": 6 }' }],
    ['a file that has a name of its own in the package', { 'lib/own.ts': 'export const own = 2;' }],
    ['a package', { 'node_modules/sums/package.json': PROGRAM['node_modules/sums/package.json'].replace('1.0.0', '1.0.1') }],
    ['a package that a package depends on', { 'node_modules/digits/package.json': '{ "name": "digits", "version": "3.0.1" }' }],
  ] as const) {
    it(`is another one with another version of ${what}`, async () => {
      expect(await versionOf(changed)).not.toBe(await versionOf());
    });
  }

  it('stays where a file changes that is none of it', async () => {
    expect(await versionOf({ 'unused.ts': 'export const nobody = 2;', 'node_modules/sums/index.js': 'module.exports = 1; //' })).toBe(await versionOf());
  });

  it('is another one where two files have changed places, and follows links as the loader does', async () => {
    const swapped = async (a: string, b: string): Promise<string> => {
      const folder = await temporaryFolder();
      await mkdir(join(folder, 'c#/real'), { recursive: true });
      await writeFile(join(folder, 'c#/real/a.ts'), `export const a = ${a}; import './beside.ts';`);
      await writeFile(join(folder, 'c#/real/beside.ts'), `export const b = ${b};`);
      await symlink(join(folder, 'c#/real/a.ts'), join(folder, 'c#/a.ts'));
      await writeFile(join(folder, 'c#/b.ts'), `export const a = ${b};`);
      await writeFile(join(folder, 'c#/job.ts'), "import './a.ts?x=1'; import './b.ts'; // from 'file://elsewhere/x.ts'");
      return codeVersionOf(join(folder, 'c#/job.ts'));
    };
    expect(await swapped('1', '2')).toBe(await swapped('1', '2'));
    expect(await swapped('1', '2')).not.toBe(await swapped('2', '1'));
    expect(await swapped('1', '2')).not.toBe(await swapped('1', '3'));
  });

  it('takes a package that is linked from elsewhere by its code', async () => {
    const linked = async (constant: number): Promise<string> => {
      const folder = await temporaryFolder();
      await mkdir(join(folder, 'packages/shared/src'), { recursive: true });
      await mkdir(join(folder, 'app/node_modules/@acme'), { recursive: true });
      await writeFile(join(folder, 'packages/shared/package.json'), '{ "name": "@acme/shared", "version": "0.0.0" }');
      await writeFile(join(folder, 'packages/shared/src/index.ts'), `export const n = ${constant};`);
      await symlink(join(folder, 'packages/shared'), join(folder, 'app/node_modules/@acme/shared'), 'dir');
      await writeFile(join(folder, 'app/job.ts'), "import { n } from '@acme/shared/sub';");
      return codeVersionOf(join(folder, 'app/job.ts'));
    };
    expect(await linked(1)).toBe(await linked(1));
    expect(await linked(1)).not.toBe(await linked(2));
  });

  it('is that of its name where the module is no file, or none is there', async () => {
    expect(await codeVersionOf('data:text/javascript,1')).not.toBe(await codeVersionOf('data:text/javascript,2'));
    expect(await codeVersionOf('/nowhere/at/all.ts')).toMatch(/^[0-9a-f]{16}$/);
  });
});
