// From a path to the verdict on it: which snapshot is meant, and where its files lie.

import type { RunOptions } from '../graph/job.ts';
import type { Node } from '../graph/node.ts';
import { leastOf } from '../graph/parallelism.ts';
import { buildGraph } from '../graph/plan.ts';
import type { CheckpointStorage } from '../graph/storage.ts';
import { systemIo } from '../runtime/io.ts';
import type { OperatorFactory } from '../runtime/operator.ts';
import { absolute, folderOf } from './addresses.ts';
import { type CheckpointMetadata, readMetadata } from './metadata.ts';
import { storageOf } from './places.ts';
import { readSavepoint, savepointAt, savepointFiles } from './savepoint.ts';
import { SnapshotFiles } from './storage.ts';
import { type Verdict, verify } from './verify.ts';

/** The snapshot at that path: a savepoint's folder, or a metadata file. */
export async function snapshotAt(path: string, own?: CheckpointStorage): Promise<{ readonly metadata: CheckpointMetadata; readonly files: SnapshotFiles }> {
  const io = systemIo();
  const address = absolute(path);
  const storage = storageOf(address, io, own);
  const place = await savepointAt(address, storage);
  if (place !== undefined) return { metadata: await readSavepoint(place), files: savepointFiles(place, io) };
  return { metadata: await readMetadata(storage, address), files: new SnapshotFiles(storage, folderOf(folderOf(address)), { io }) };
}

export async function verifySnapshot(
  definition: { build(): Node[] },
  options: RunOptions,
  path: string,
  operators: (node: Node) => OperatorFactory,
): Promise<Verdict> {
  const { version, maxParallelism, restore, checkpoints } = options;
  const graph = buildGraph(definition.build(), { parallelism: leastOf(options.parallelism), version });
  const allowNonRestoredState = typeof restore === 'object' && restore.allowNonRestoredState === true;
  const own = typeof checkpoints === 'object' ? checkpoints.storage : undefined;
  return verify({ ...(await snapshotAt(path, own)), graph, operators, maxParallelism, allowNonRestoredState });
}
