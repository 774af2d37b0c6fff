// What a checkpoint directory holds beyond what its registry names: orphans. Looked at while nobody runs the job.

import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { filesNamed, readMetadata } from '../../src/checkpoint/metadata.ts';
import { Registry } from '../../src/checkpoint/registry.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { DirectoryStorage } from '../../src/storage/directory.ts';

/** Sentences about files that should not be there, and about files that should. */
export async function kept(directory: string, retain = 3): Promise<string[]> {
  const io = systemIo();
  const registry = await Registry.open(directory, basename(directory), io, { wait: false });
  const wrong: string[] = [];
  try {
    const registered = await registry.checkpoints();
    if (registered.length > retain) wrong.push(`${registered.length} checkpoints are registered, and ${retain} are to be kept`);
    const metadata = new Set<string>();
    const files = new Set<string>();
    for (const { path } of registered) {
      metadata.add(basename(path)).add(`${basename(path)}.copy`);
      for (const { name } of filesNamed(await readMetadata(new DirectoryStorage('.', io), path))) files.add(name);
    }
    for (const [folder, named] of [
      ['checkpoints', metadata],
      ['files', files],
    ] as const) {
      const there = new Set(readdirSync(join(directory, folder)));
      for (const name of there) if (!named.has(name)) wrong.push(`${folder}/${name} is left`);
      for (const name of named) if (!there.has(name)) wrong.push(`${folder}/${name} is missing`);
    }
    return wrong;
  } finally {
    await registry.close();
  }
}
