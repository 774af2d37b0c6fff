import { beforeAll, expect, it } from 'vitest';
import { LONG } from '../long.ts';
import { countKeys } from './count-keys.ts';
import { ensureBuilt } from './trial.ts';

beforeAll(() => {
  if (LONG) ensureBuilt();
}, 180_000);

it.runIf(LONG)('counts a million keys, twice and with checkpoints inside, in a heap of 128 MB and a cache of 32 MB', { timeout: 180_000 }, () => {
  const keys = 1_000_000;
  const said = countKeys({ keys, heapMb: 128, cacheBytes: 32 << 20 });
  expect(said).toMatchObject({ status: 'finished', restarts: 0, first: keys, second: keys, wrong: 0 });
  expect(said.checkpoints).toBeGreaterThan(1);
});
