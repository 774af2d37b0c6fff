import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, test } from 'vitest';
import { level, memory } from '../../state-backends/index.ts';
import { LONG } from '../long.ts';
import { linking } from './model.ts';
import { holdsForAllHistories } from './properties.ts';

const directory = mkdtempSync(join(tmpdir(), 'millrace-state-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe('random histories of changes, aborted checkpoints, sweeps, restores and rescales agree with a plain Map', () => {
  test('memory()', () => holdsForAllHistories(() => memory(), LONG ? 300 : 25));
  test('level() with room for everything', () => holdsForAllHistories(() => level({ directory }), LONG ? 60 : 10));
  test('level() with room for nothing', () => holdsForAllHistories(() => level({ directory, cacheBytes: 1 }), LONG ? 200 : 12, { empties: true }));
  test('level() with room for a few rows', () => holdsForAllHistories(() => level({ directory, cacheBytes: 3000 }), LONG ? 200 : 12));
  test('level() whose bases are linked, with room for nothing', () =>
    holdsForAllHistories(() => linking(level({ directory, cacheBytes: 1 })), LONG ? 12 : 4, { empties: true }));
  test('level() whose bases are linked, with room for a few rows', () =>
    holdsForAllHistories(() => linking(level({ directory, cacheBytes: 3000 })), LONG ? 12 : 4));
});
