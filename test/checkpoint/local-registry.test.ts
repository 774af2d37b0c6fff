// The registry in a directory, under the tests that every registry has to pass.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { LocalRegistry } from '../../src/checkpoint/local-registry.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { type RegistryTrial, registryContract } from './registry-contract.ts';

async function trial(): Promise<RegistryTrial> {
  const root = await mkdtemp(join(tmpdir(), 'millrace-'));
  onTestFinished(() => rm(root, { recursive: true, force: true, maxRetries: 3 }));
  const directory = join(root, 'job');
  return { open: () => LocalRegistry.open(directory, 'job', systemIo(), { wait: false }), folder: join(directory, 'checkpoints') };
}

describe('the registry in a directory', () => {
  registryContract(trial);

  it('is held by one at a time', async () => {
    const { open } = await trial();
    const held = await open();
    await expect(open()).rejects.toMatchObject({ code: 'JOB_ALREADY_RUNNING' });
    await held.close();
    await (await open()).close();
  });
});
