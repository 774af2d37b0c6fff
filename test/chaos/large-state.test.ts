import { beforeAll, expect, it } from 'vitest';
import { countKeys } from '../e2e/count-keys.ts';
import { ensureBuilt } from '../e2e/trial.ts';

const ASKED_FOR = process.env.npm_lifecycle_event === 'test:chaos' || process.env.MILLRACE_CHAOS !== undefined;

beforeAll(() => {
  if (ASKED_FOR) ensureBuilt();
}, 180_000);

it.runIf(ASKED_FOR)('counts five million keys, twice and with checkpoints inside, in a heap of 256 MB and a cache of 64 MB', { timeout: 900_000 }, () => {
  const keys = 5_000_000;
  const said = countKeys({ keys, heapMb: 256, cacheBytes: 64 << 20 });
  expect(said).toMatchObject({ status: 'finished', restarts: 0, first: keys, second: keys, wrong: 0 });
  expect(said.checkpoints).toBeGreaterThan(1);
});
