// Checkpoints of a job that does not run, found where they lie: by the names of their metadata. Nothing is opened that a running job holds, and nothing changed.

import { absolute, below } from '../checkpoint/addresses.ts';
import { filesNamed, readMetadata } from '../checkpoint/metadata.ts';
import { storageOf } from '../checkpoint/places.ts';
import { MillraceError } from '../errors.ts';
import type { CheckpointInfo } from '../graph/job.ts';
import type { CheckpointStorage } from '../graph/storage.ts';
import { systemIo } from '../runtime/io.ts';

/** Where the command keeps them unless told otherwise. */
export const CHECKPOINT_DIRECTORY = '.millrace';

interface Found {
  readonly id: number;
  readonly attempt: number;
  readonly path: string;
}

/** All of a job, oldest first; `name` where there are several jobs in the folder. */
export async function storedCheckpoints(directory: string, name: string | undefined): Promise<CheckpointInfo[]> {
  const { storage, found } = await lookIn(directory, name);
  const infos: CheckpointInfo[] = [];
  for (const { path } of found) {
    const metadata = await readMetadata(storage, path);
    const bytes = filesNamed(metadata).reduce((sum, file) => sum + file.bytes, 0);
    infos.push({ id: metadata.id, path, bytes, startedAt: metadata.startedAt, durationMs: metadata.durationMs });
  }
  return infos;
}

/** The path of the checkpoint of that id, or of the newest. */
export async function storedCheckpoint(directory: string, name: string | undefined, id: number | undefined): Promise<string> {
  const { folder, found } = await lookIn(directory, name);
  const newest = found.findLast((each) => id === undefined || each.id === id);
  if (newest !== undefined) return newest.path;
  throw notFound(
    id === undefined ? 'latest' : String(id),
    `in ${folder}`,
    found.map((each) => each.id),
  );
}

async function lookIn(directory: string, name: string | undefined): Promise<{ storage: CheckpointStorage; folder: string; found: readonly Found[] }> {
  const root = absolute(directory);
  const storage = storageOf(root, systemIo());
  const jobs: string[] = [];
  for (const each of name === undefined ? await namesIn(storage, root) : [name])
    if ((await storage.find(below(root, each, 'checkpoints'))) === 'folder') jobs.push(each);
  const [job] = jobs;
  if (job === undefined || jobs.length > 1)
    throw new MillraceError(
      jobs.length > 1 ? 'JOB_AMBIGUOUS' : 'CHECKPOINT_NOT_FOUND',
      jobs.length > 1
        ? `There are checkpoints of several jobs in ${directory}: ${jobs.join(', ')}.`
        : `There are no checkpoints${name === undefined ? '' : ` of '${name}'`} in ${directory}.`,
      { todo: jobs.length > 1 ? 'Say which job is meant (--job).' : 'Name their folder with --checkpoints, or a snapshot by its path.' },
    );
  const folder = below(root, job, 'checkpoints');
  const found = (await namesIn(storage, folder)).flatMap((file) => {
    const [, checkpoint, attempt] = /^chk-(\d+)-a(\d+)$/.exec(file) ?? [];
    return checkpoint === undefined ? [] : [{ id: Number(checkpoint), attempt: Number(attempt), path: below(folder, file) }];
  });
  return { storage, folder, found: found.sort((one, other) => one.id - other.id || one.attempt - other.attempt) };
}

/** Whether there may be any where the command keeps them. */
export async function hasCheckpoints(): Promise<boolean> {
  const folder = absolute(CHECKPOINT_DIRECTORY);
  return (await storageOf(folder, systemIo()).find(folder)) === 'folder';
}

async function namesIn(storage: CheckpointStorage, folder: string): Promise<string[]> {
  const names: string[] = [];
  for await (const { name, unfinished } of storage.list(folder)) if (!unfinished) names.push(name);
  return names;
}

export function notFound(which: string, where: string, ids: readonly number[]): MillraceError {
  const have = ids.length === 0 ? 'there is none' : `there are ${[...ids].sort((one, other) => one - other).join(', ')}`;
  return new MillraceError('CHECKPOINT_NOT_FOUND', `There is no checkpoint '${which}' ${where}; ${have}.`, {
    todo: 'Name one of these, or the path of a snapshot.',
  });
}
