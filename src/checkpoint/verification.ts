// From a path to the verdict on it: which snapshot is meant, and where its files lie.

import { dirname, resolve } from 'node:path';
import type { RunOptions } from '../graph/job.ts';
import type { Node } from '../graph/node.ts';
import { buildGraph } from '../graph/plan.ts';
import { systemIo } from '../runtime/io.ts';
import type { OperatorFactory } from '../runtime/operator.ts';
import { type CheckpointMetadata, readMetadata } from './metadata.ts';
import { readSavepoint, savepointAt, savepointStorage } from './savepoint.ts';
import { DirectoryStorage } from './storage.ts';
import { type Verdict, verify } from './verify.ts';

/** The snapshot at that path: a savepoint's folder, or a metadata file. */
export async function snapshotAt(path: string): Promise<{ readonly metadata: CheckpointMetadata; readonly storage: DirectoryStorage }> {
  const io = systemIo();
  const absolute = resolve(path);
  const folder = await savepointAt(absolute, io);
  if (folder !== undefined) return { metadata: await readSavepoint(folder, io), storage: savepointStorage(folder, io, false) };
  return { metadata: await readMetadata(io, absolute), storage: new DirectoryStorage(dirname(dirname(absolute)), io, false) };
}

export async function verifySnapshot(
  definition: { build(): Node[] },
  options: RunOptions,
  path: string,
  operators: (node: Node) => OperatorFactory,
): Promise<Verdict> {
  const { parallelism = 1, version, maxParallelism, restore } = options;
  const graph = buildGraph(definition.build(), { parallelism, version });
  const allowNonRestoredState = typeof restore === 'object' && restore.allowNonRestoredState === true;
  return verify({ ...(await snapshotAt(path)), graph, operators, maxParallelism, allowNonRestoredState });
}
