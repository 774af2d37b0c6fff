import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, it } from 'vitest';
import { ensureBuilt, typescript } from './trial.ts';

beforeAll(ensureBuilt, 180_000);

it('counts a million keys, twice and with checkpoints inside, in a heap of 128 MB and a cache of 32 MB', () => {
  const keys = 1_000_000;
  const directory = mkdtempSync(join(tmpdir(), 'millrace-keys-'));
  const program = fileURLToPath(new URL('./counted-keys.ts', import.meta.url));
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--max-old-space-size=128', '--import', typescript, program, String(keys), directory, String(32 << 20)],
    { encoding: 'utf8' },
  );
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const said = JSON.parse(stdout) as { checkpoints: number };
  expect(said).toMatchObject({ status: 'finished', restarts: 0, first: keys, second: keys, wrong: 0 });
  expect(said.checkpoints).toBeGreaterThan(1);
  rmSync(directory, { recursive: true });
}, 120_000);
