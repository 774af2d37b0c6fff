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
//  V5  Of a base that was linked it has the rows: no backend's own files.
//  V4  The folder was empty, or did not exist: nothing of the user's is overwritten. What is written of one that fails is removed again.

import { type BaseRef, chainOf, type FileRef, type LevelBaseRef } from '../../state-backends/index.ts';
import { MillraceError, messageOf } from '../errors.ts';
import type { SavepointInfo } from '../graph/job.ts';
import type { CheckpointStorage } from '../graph/storage.ts';
import type { Io } from '../runtime/io.ts';
import type { SnapshotStorage } from '../runtime/snapshot.ts';
import { below, folderOf, nameIn } from './addresses.ts';
import { type CheckpointMetadata, filesNamed, packMetadata, readMetadata } from './metadata.ts';
import { SnapshotFiles } from './storage.ts';
import { linkedAsRows } from './stored-rows.ts';

const METADATA = 'metadata';
/** A file that is read for it and damaged says so, as at a restore; and so does the code of an edit. */
const SAID_ALREADY: ReadonlySet<unknown> = new Set([
  'SNAPSHOT_CORRUPT',
  'SNAPSHOT_INCOMPATIBLE',
  'STATE_EDIT_REFUSED',
  'UID_INVALID',
  'STATE_NOT_FOUND',
  'STATE_NOT_SERIALIZABLE',
  'STATE_MISUSED',
  'KEY_UNSUPPORTED',
  'USER_FUNCTION_FAILED',
  'HANDLER_IS_ASYNC',
  'CONTEXT_USED_OUTSIDE_RECORD',
  'TIMER_INVALID',
  'TIMESTAMP_MISSING',
]);

/** The folder of a savepoint, and the storage that it lies in. */
export interface SavepointPlace {
  readonly folder: string;
  readonly storage: CheckpointStorage;
}

export function savepointFiles({ folder, storage }: SavepointPlace, io: Io, verify = false): SnapshotFiles {
  return new SnapshotFiles(storage, folder, { io, verify, checkpoints: folder });
}

/** Makes the folder, before anything depends on it. Of two that want it at once, one gets it (V4). */
export async function prepareSavepoint({ folder, storage }: SavepointPlace): Promise<void> {
  const names: string[] = [];
  let made = false;
  try {
    for await (const { name } of storage.list(folder)) names.push(name);
    if (names.length === 0) made = await storage.makeFolder(below(folder, 'files'));
  } catch (cause) {
    throw new MillraceError('SAVEPOINT_FAILED', `The folder ${folder} cannot be written: ${messageOf(cause)}.`, {
      cause,
      todo: 'Make it writable for this user, or name another one.',
    });
  }
  if (!made) throw exists(folder, names.includes(METADATA));
}

function exists(folder: string, whole: boolean): MillraceError {
  return new MillraceError('SAVEPOINT_EXISTS', `The folder ${folder} is not empty${whole ? ': there is a savepoint in it' : ''}.`, {
    todo: 'Name a folder that does not exist yet; a savepoint has one of its own.',
  });
}

/** Copies what the metadata names from `source` into the place, which `prepareSavepoint` has made. */
export function writeSavepoint(
  metadata: CheckpointMetadata,
  source: Pick<SnapshotStorage, 'read'>,
  place: SavepointPlace,
  io: Io,
  verify: boolean | undefined,
): Promise<SavepointInfo> {
  return fillSavepoint(place, io, verify, async (target, writing) => {
    const written = new Set<string>();
    const independent = await withoutLinks(metadata, async (base, name) => {
      await io.step('savepoint.file');
      writing({ name, bytes: 0, crc: 0 });
      written.add(name);
      return writeFile(
        target,
        name,
        linkedAsRows(base, source, metadata.maxParallelism, () => true),
      );
    });
    for (const file of filesNamed(independent)) {
      if (written.has(file.name)) continue;
      await io.step('savepoint.file');
      writing(file);
      await copyFile(source, target, file, file.name);
    }
    return independent;
  });
}

/**
 * V2, V4: `fill` writes the files, says of each before it does, and gives the metadata of what they make. What is written is read back unless the storage
 * compares checksums itself, or as `verify` says.
 */
export async function fillSavepoint(
  place: SavepointPlace,
  io: Io,
  verify: boolean | undefined,
  fill: (target: SnapshotFiles, writing: (file: FileRef) => void) => Promise<CheckpointMetadata>,
): Promise<SavepointInfo> {
  const begun = io.clock.now();
  const { folder, storage } = place;
  const target = savepointFiles(place, io, verify ?? !storage.checksummed);
  const written: FileRef[] = [];
  try {
    const filled = await fill(target, (file) => void written.push(file));
    await io.step('savepoint.metadata');
    const metadata: CheckpointMetadata = { ...filled, savepoint: true };
    await target.writeMetadata(METADATA, packMetadata(metadata));
    await io.step('savepoint.written');
    const bytes = filesNamed(metadata).reduce((sum, file) => sum + file.bytes, 0);
    return { id: metadata.id, path: folder, bytes, startedAt: metadata.startedAt, durationMs: metadata.durationMs + io.clock.now() - begun };
  } catch (cause) {
    await removeSavepoint(place, written, io).catch(() => {
      // The folder may be what failed; the error that counts is the first.
    });
    if (SAID_ALREADY.has((cause as { code?: unknown }).code)) throw cause;
    throw new MillraceError('SAVEPOINT_FAILED', `The savepoint in ${folder} could not be written: ${messageOf(cause)}.`, {
      cause,
      todo: 'Check the disk behind that folder, and take another one.',
    });
  }
}

/** V5. `convert` makes a row file of that name of a base that was linked, for all tasks of its operator. */
export async function withoutLinks(metadata: CheckpointMetadata, convert: (base: LevelBaseRef, name: string) => Promise<FileRef>): Promise<CheckpointMetadata> {
  const files = new Map<string, FileRef>();
  for (const uid of new Set(metadata.tasks.flatMap(({ keyed }) => keyed?.uid ?? []))) {
    const chain = chainOf(metadata.tasks.flatMap(({ keyed }) => (keyed?.uid === uid ? [keyed.handle] : [])));
    for (const base of chain.bases) {
      if (base.kind === 'leveldb') files.set(`${base.file.name}/${uid}`, await convert(base, `${base.file.name}-${files.size}`));
    }
  }
  const tasks = metadata.tasks.map((task) => {
    if (task.keyed === undefined) return task;
    const { uid, handle } = task.keyed;
    const bases = handle.bases.map((base): BaseRef => {
      if (base.kind !== 'leveldb') return base;
      const { b, n, ranges } = base;
      return { kind: 'rows', file: files.get(`${base.file.name}/${uid}`)!, b, n, ...(ranges === undefined ? {} : { ranges }) };
    });
    return { ...task, keyed: { ...task.keyed, handle: { ...handle, bases } } };
  });
  return { ...metadata, tasks };
}

/** The reference is what the reader has checked: a copy that differs from it is refused. */
export function copyFile(source: Pick<SnapshotStorage, 'read'>, target: SnapshotFiles, file: FileRef, name: string): Promise<FileRef> {
  return writeFile(target, name, source.read(file));
}

export async function writeFile(target: SnapshotFiles, name: string, content: AsyncIterable<Uint8Array>): Promise<FileRef> {
  const file = await target.open(name);
  try {
    for await (const part of content) await file.append([part]);
    return await file.finish();
  } catch (error) {
    await file.abandon().catch(() => {
      // Removed with the savepoint, or swept; the error that counts is the first.
    });
    throw error;
  }
}

/** The savepoint that an address means: its folder, or its metadata file. Undefined: it means something else. */
export async function savepointAt(address: string, storage: CheckpointStorage): Promise<SavepointPlace | undefined> {
  if ((await storage.find(address)) === 'folder') return { folder: address, storage };
  const name = nameIn(address);
  return name === METADATA || name === `${METADATA}.copy` ? { folder: folderOf(address), storage } : undefined;
}

/** Reads the metadata; CHECKPOINT_NOT_FOUND where the folder holds none. */
export async function readSavepoint({ folder, storage }: SavepointPlace): Promise<CheckpointMetadata> {
  const names: string[] = [];
  for await (const { name, unfinished } of storage.list(folder)) if (!unfinished) names.push(name);
  if (!names.includes(METADATA) && !names.includes(`${METADATA}.copy`))
    throw new MillraceError('CHECKPOINT_NOT_FOUND', `There is no savepoint in the folder ${folder}: it has no metadata.`, {
      todo: 'Name the folder of a savepoint that was completed, or the path of a metadata file.',
    });
  return readMetadata(storage, below(folder, METADATA));
}

/** Removes the files named, then the metadata, then the folders where nothing else lies in them. May be repeated after a crash. */
export async function removeSavepoint(place: SavepointPlace, files: readonly FileRef[], io: Io): Promise<void> {
  const { folder, storage } = place;
  const there = savepointFiles(place, io);
  for (const { name } of files) {
    await io.step('savepoint.remove');
    await there.remove(name);
  }
  await there.removeMetadata(below(folder, METADATA));
  for (const emptied of [there.files, folder]) await storage.removeFolder(emptied);
}
