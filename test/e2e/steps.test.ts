import { expect, it } from 'vitest';
import { sourceFiles } from '../rules/source-tree.ts';
import { STEPS } from './steps.ts';

it('every step that the sources name can be killed at, and no other is listed', () => {
  const calls = sourceFiles('src', 'actors', 'state-backends').flatMap(({ text }) => [...text.matchAll(/\.step\(([^)]*)\)/g)].map(([, argument]) => argument!));
  const named = calls.flatMap((argument) => [...argument.matchAll(/'([^']+)'/g)].map(([, name]) => name!));
  expect(STEPS.map(({ name }) => name).sort()).toEqual([...new Set(named)].sort());
});
