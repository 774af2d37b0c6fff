import { cpSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Project, projectWithPackage } from './packed-package.ts';
import { ROOT } from './source-tree.ts';

let project: Project;
beforeAll(() => {
  project = projectWithPackage(['@types/node']);
  cpSync(join(ROOT, 'test/api'), project.folder, { recursive: true });
}, 180_000);
afterAll(() => project?.remove());

it('programs compile against the packed package as they are, and wrong lines do not', () => {
  expect(readdirSync(join(project.folder, 'programs')).length).toBeGreaterThan(0);
  // Each wrong line stands under @ts-expect-error: one that compiles is an error too.
  const { output } = project.run(process.execPath, join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', '.');
  expect(output).toBe('');
}, 180_000);
