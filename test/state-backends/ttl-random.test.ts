import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, test } from 'vitest';
import { level, memory } from '../../state-backends/index.ts';
import { rounds, SEED } from '../random.ts';
import { ttlHolds } from './ttl-random.ts';

const directory = mkdtempSync(join(tmpdir(), 'millrace-ttl-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe('state with a ttl is there until its time has come and never after, by either clock, over units, removal, bases, restores and another ttl', () => {
  for (const [name, backend, times] of [
    ['memory()', () => memory(), 25],
    ['level() with room for nothing', () => level({ directory, cacheBytes: 1 }), 5],
  ] as const)
    test(name, async () => {
      for (let round = 0; round < rounds(times); round++) {
        const seed = SEED + round;
        await ttlHolds(backend, seed, 120).catch((error: Error) => {
          error.message = `MILLRACE_SEED=${seed} MILLRACE_ROUNDS=1: ${error.message}`;
          throw error;
        });
      }
    });
});
