import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, it } from 'vitest';
import { level } from '../../state-backends/index.ts';
import { linking } from '../state-backends/model.ts';
import { holdsForAllHistories } from '../state-backends/properties.ts';

const ASKED_FOR = process.env.npm_lifecycle_event === 'test:chaos' || process.env.MILLRACE_CHAOS !== undefined;
const directory = mkdtempSync(join(tmpdir(), 'millrace-state-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe.runIf(ASKED_FOR)('random histories over bases by hard link agree with a plain Map', () => {
  for (const [what, cacheBytes] of [
    ['nothing', 1],
    ['a few rows', 3000],
    ['everything', 64 << 20],
  ] as const)
    it(`with room for ${what}`, { timeout: 120_000 }, () =>
      holdsForAllHistories(() => linking(level({ directory, cacheBytes })), 500, { empties: cacheBytes === 1 }),
    );
});
