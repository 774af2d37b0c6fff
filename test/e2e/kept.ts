// What a checkpoint directory or another storage holds beyond what the job's registry names: orphans. Looked at while nobody runs the job.

import { basename, dirname } from 'node:path';
import { below, nameIn } from '../../src/checkpoint/addresses.ts';
import { LocalRegistry } from '../../src/checkpoint/local-registry.ts';
import { filesNamed, readMetadata } from '../../src/checkpoint/metadata.ts';
import { SnapshotFiles } from '../../src/checkpoint/storage.ts';
import type { CheckpointStorage } from '../../src/graph/storage.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { DirectoryStorage } from '../../src/storage/directory.ts';

/** Sentences about files that should not be there, and about files that should. */
export async function kept(
  directory: string,
  retain = 3,
  storage: CheckpointStorage = new DirectoryStorage(dirname(directory), systemIo()),
): Promise<string[]> {
  const io = systemIo();
  const job = basename(directory);
  const stored = new SnapshotFiles(storage, below(storage.root, job), { io });
  const registry = await LocalRegistry.open(directory, job, io, { wait: false, files: stored });
  const wrong: string[] = [];
  try {
    const registered = await registry.checkpoints();
    if (registered.length > retain) wrong.push(`${registered.length} checkpoints are registered, and ${retain} are to be kept`);
    const metadata = new Set<string>();
    const files = new Set<string>();
    for (const { path } of registered) {
      metadata.add(nameIn(path)).add(`${nameIn(path)}.copy`);
      for (const { name } of filesNamed(await readMetadata(storage, path))) files.add(name);
    }
    for (const [folder, named] of [
      [stored.checkpoints, metadata],
      [stored.files, files],
    ] as const) {
      const there = new Set<string>();
      for await (const { name, unfinished } of storage.list(folder)) there.add(unfinished ? `${name}, unfinished,` : name);
      for (const name of there) if (!named.has(name)) wrong.push(`${nameIn(folder)}/${name} is left`);
      for (const name of named) if (!there.has(name)) wrong.push(`${nameIn(folder)}/${name} is missing`);
    }
    return wrong;
  } finally {
    await registry.close();
  }
}
