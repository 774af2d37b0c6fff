import { expect, it } from 'vitest';
import { sourceFiles } from '../rules/source-tree.ts';
import { CONNECTOR_STEPS, SAVEPOINT_STEPS, STEPS } from './steps.ts';

it('every step that the sources name can be killed at, or belongs to savepoints or another connector, and no other is listed', () => {
  // What millrace/testing names of its own is no step of a job.
  const files = sourceFiles('src', 'actors', 'state-backends').filter(({ path }) => !path.startsWith('src/testing/'));
  const calls = files.flatMap(({ text }) => [...text.matchAll(/\.step\(([^)]*)\)/g)].map(([, argument]) => argument!));
  const named = calls.flatMap((argument) => [...argument.matchAll(/'([^']+)'/g)].map(([, name]) => name!));
  expect([...STEPS.map(({ name }) => name), ...SAVEPOINT_STEPS, ...CONNECTOR_STEPS].sort()).toEqual([...new Set(named)].sort());
});
