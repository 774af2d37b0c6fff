// The random programs of test/state-backends/ttl-random.ts, many more of them.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, test } from 'vitest';
import { level, memory } from '../../state-backends/index.ts';
import { rounds, SEED } from '../random.ts';
import { ttlHolds } from '../state-backends/ttl-random.ts';

const ASKED_FOR = process.env.npm_lifecycle_event === 'test:chaos' || process.env.MILLRACE_CHAOS !== undefined;
const directory = mkdtempSync(join(tmpdir(), 'millrace-ttl-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe.runIf(ASKED_FOR)('state with a ttl, over long random programs', () => {
  for (const [name, backend, times] of [
    ['memory()', () => memory(), 1500],
    ['level() with room for nothing', () => level({ directory, cacheBytes: 1 }), 200],
    ['level() with room for a few rows', () => level({ directory, cacheBytes: 2000 }), 200],
  ] as const)
    test(name, async () => {
      for (let round = 0; round < rounds(times); round++) {
        const seed = SEED + round;
        await ttlHolds(backend, seed, 300).catch((error: Error) => {
          error.message = `MILLRACE_SEED=${seed} MILLRACE_ROUNDS=1: ${error.message}`;
          throw error;
        });
      }
    }, 1_800_000);
});
