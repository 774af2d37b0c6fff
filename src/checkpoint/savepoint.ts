// A savepoint: a checkpoint in a folder of its own, which belongs to whoever asked for it (docs/formats.md).
//
//   <folder>/
//     metadata, metadata.copy     as of a checkpoint; the files are named relative to the folder
//     files/<name>                every file that it names: row files and segments, whatever backend wrote them
//
// Invariants:
//  V1  Nothing but the folder is needed to restore it, wherever it is moved to.
//  V2  The metadata is written last: a folder without it is no savepoint.
//  V3  Nothing in it is changed or removed, unless a job has claimed it and has a checkpoint of its own.
//  V4  The folder was empty, or did not exist: nothing of the user's is overwritten. What is written of one that fails is removed again.

import { basename, dirname, join } from 'node:path';
import type { FileRef } from '../../state-backends/index.ts';
import { MillraceError, messageOf } from '../errors.ts';
import type { SavepointInfo } from '../graph/job.ts';
import type { Io } from '../runtime/io.ts';
import type { SnapshotStorage } from '../runtime/snapshot.ts';
import { type CheckpointMetadata, filesNamed, packMetadata, readMetadata } from './metadata.ts';
import { DirectoryStorage, syncFolder } from './storage.ts';

const METADATA = 'metadata';

/** The files of a savepoint, as a storage. */
export function savepointStorage(folder: string, io: Io, verify: boolean): DirectoryStorage {
  return new DirectoryStorage(folder, io, verify, folder);
}

/** Makes the folder, before anything depends on it. Of two that want it at once, one gets it (V4). */
export async function prepareSavepoint(folder: string, io: Io): Promise<void> {
  let names: string[];
  try {
    await io.fs.mkdir(folder, { recursive: true });
    names = await io.fs.readdir(folder);
    if (names.length === 0) await io.fs.mkdir(join(folder, 'files'));
  } catch (cause) {
    if ((cause as { code?: string }).code === 'EEXIST') throw exists(folder, false);
    throw new MillraceError('SAVEPOINT_FAILED', `The folder ${folder} cannot be written: ${messageOf(cause)}.`, {
      cause,
      todo: 'Make it writable for this user, or name another one.',
    });
  }
  if (names.length > 0) throw exists(folder, names.includes(METADATA));
}

function exists(folder: string, whole: boolean): MillraceError {
  return new MillraceError('SAVEPOINT_EXISTS', `The folder ${folder} is not empty${whole ? ': there is a savepoint in it' : ''}.`, {
    todo: 'Name a folder that does not exist yet; a savepoint has one of its own.',
  });
}

/** Copies what the metadata names from `source` into the folder, which `prepareSavepoint` has made. */
export function writeSavepoint(
  metadata: CheckpointMetadata,
  source: Pick<SnapshotStorage, 'read'>,
  folder: string,
  io: Io,
  verify: boolean,
): Promise<SavepointInfo> {
  return fillSavepoint(folder, io, verify, async (target, writing) => {
    for (const file of filesNamed(metadata)) {
      await io.step('savepoint.file');
      writing(file);
      await copyFile(source, target, file, file.name);
    }
    return metadata;
  });
}

/** V2, V4: `fill` writes the files, says of each before it does, and gives the metadata of what they make. */
export async function fillSavepoint(
  folder: string,
  io: Io,
  verify: boolean,
  fill: (target: DirectoryStorage, writing: (file: FileRef) => void) => Promise<CheckpointMetadata>,
): Promise<SavepointInfo> {
  const begun = io.clock.now();
  const target = savepointStorage(folder, io, verify);
  const written: FileRef[] = [];
  try {
    const filled = await fill(target, (file) => void written.push(file));
    await io.step('savepoint.metadata');
    const metadata: CheckpointMetadata = { ...filled, savepoint: true };
    await target.writeMetadata(METADATA, packMetadata(metadata));
    await syncFolder(io, dirname(folder));
    await io.step('savepoint.written');
    const bytes = filesNamed(metadata).reduce((sum, file) => sum + file.bytes, 0);
    return { id: metadata.id, path: folder, bytes, startedAt: metadata.startedAt, durationMs: metadata.durationMs + io.clock.now() - begun };
  } catch (cause) {
    await removeSavepoint(folder, written, io).catch(() => {
      // The folder may be what failed; the error that counts is the first.
    });
    // A file that is read for it and damaged says so, as at a restore.
    if ((cause as { code?: unknown }).code === 'SNAPSHOT_CORRUPT') throw cause;
    throw new MillraceError('SAVEPOINT_FAILED', `The savepoint in ${folder} could not be written: ${messageOf(cause)}.`, {
      cause,
      todo: 'Check the disk behind that folder, and take another one.',
    });
  }
}

/** The reference is what the reader has checked: a copy that differs from it is refused. */
export async function copyFile(source: Pick<SnapshotStorage, 'read'>, target: DirectoryStorage, file: FileRef, name: string): Promise<FileRef> {
  const copy = await target.open(name);
  try {
    for await (const part of source.read(file)) await copy.append([part]);
    return await copy.finish();
  } catch (error) {
    await copy.abandon();
    throw error;
  }
}

/** The folder of the savepoint that a path means: the folder itself, or its metadata file. Undefined: the path means something else. */
export async function savepointAt(path: string, io: Io): Promise<string | undefined> {
  if (await isFolder(path, io)) return path;
  const name = basename(path);
  if (name !== METADATA && name !== `${METADATA}.copy`) return undefined;
  return dirname(path);
}

async function isFolder(path: string, io: Io): Promise<boolean> {
  return io.fs.stat(path).then(
    (stat) => stat.isDirectory(),
    () => false,
  );
}

/** Reads the metadata; CHECKPOINT_NOT_FOUND where the folder holds none. */
export async function readSavepoint(folder: string, io: Io): Promise<CheckpointMetadata> {
  const names = await io.fs.readdir(folder);
  if (!names.includes(METADATA) && !names.includes(`${METADATA}.copy`))
    throw new MillraceError('CHECKPOINT_NOT_FOUND', `There is no savepoint in the folder ${folder}: it has no metadata.`, {
      todo: 'Name the folder of a savepoint that was completed, or the path of a metadata file.',
    });
  return readMetadata(io, join(folder, METADATA));
}

/** Removes the files named, then the metadata, then the folders where nothing else lies in them. May be repeated after a crash. */
export async function removeSavepoint(folder: string, files: readonly FileRef[], io: Io): Promise<void> {
  const storage = savepointStorage(folder, io, false);
  for (const { name } of files) {
    await io.step('savepoint.remove');
    await storage.remove(name);
  }
  await storage.removeMetadata(join(folder, METADATA));
  for (const emptied of [storage.files, folder]) {
    await io.fs.rmdir(emptied).catch((error) => {
      if (!['ENOENT', 'ENOTEMPTY', 'EEXIST'].includes((error as { code?: string }).code ?? '')) throw error;
    });
  }
}
