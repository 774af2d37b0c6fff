// A savepoint with another number of key groups, made of one without a job: `maxParallelism` is fixed by the first snapshot of a job, and this changes it.
//
// What: a key's group is its hash modulo the number of groups, and files hold keys. So files stay as they are but for rows that did not count under the old
// groups (state-backends/chain.ts, C4), which are left out; each task then names all files of its operator, for its share of the new groups.
//
// Invariant: what a restore of the one gives to a key, a restore of the other does, at any parallelism.

import {
  type BaseRef,
  chainOf,
  type DeltaRef,
  type FileRef,
  filesOf,
  groupOf,
  type Handle,
  type KeyGroupRange,
  rangeOf,
  rewritten,
} from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import type { SavepointInfo } from '../graph/job.ts';
import { systemIo } from '../runtime/io.ts';
import { type CheckpointMetadata, filesNamed } from './metadata.ts';
import { storageOf } from './places.ts';
import { copyFile, fillSavepoint, prepareSavepoint, writeFile } from './savepoint.ts';
import type { SnapshotFiles } from './storage.ts';
import { linkedAsRows } from './stored-rows.ts';

export async function repartition(
  { metadata, files: source }: { readonly metadata: CheckpointMetadata; readonly files: SnapshotFiles },
  folder: string,
  maxParallelism: number,
): Promise<SavepointInfo> {
  const io = systemIo();
  const largest = Math.max(...metadata.tasks.map((t) => t.parallelism));
  if (!Number.isInteger(maxParallelism) || maxParallelism < 1 || maxParallelism > 32_768)
    throw new MillraceError('OPTION_INVALID', `${maxParallelism} is no number of key groups.`, { todo: 'Write a whole number from 1 to 32,768.' });
  if (largest > maxParallelism)
    throw new MillraceError('MAX_PARALLELISM_CHANGED', `The snapshot was taken at parallelism ${largest}, which is more than ${maxParallelism} key groups.`, {
      todo: `Use at least ${largest}, or take the savepoint at a smaller parallelism (millrace rescale).`,
    });
  const place = { folder, storage: storageOf(folder, io) };
  await prepareSavepoint(place);
  return fillSavepoint(place, io, true, async (target, writing) => {
    const handles = new Map<string, Handle>();
    for (const uid of new Set(metadata.tasks.flatMap((t) => (t.keyed === undefined ? [] : [t.keyed.uid])))) {
      const chain = chainOf(metadata.tasks.flatMap((t) => (t.keyed?.uid === uid ? [t.keyed.handle] : [])));
      const remade = async (ref: BaseRef | DeltaRef): Promise<FileRef> => {
        const { name } = ref.file;
        writing(ref.file);
        const counts = counting(ref.ranges, metadata.maxParallelism);
        if ('tables' in ref) return writeFile(target, name, linkedAsRows(ref, source, maxParallelism, counts));
        // Names the file where it is damaged.
        await source.check(ref.file);
        return writeFile(target, name, rewritten(source.read(ref.file), counts, maxParallelism));
      };
      const bases: BaseRef[] = [];
      for (const base of chain.bases) bases.push({ kind: 'rows', file: await remade(base), b: base.b, n: base.n });
      const deltas: DeltaRef[] = [];
      for (const delta of chain.deltas) deltas.push({ id: delta.id, file: await remade(delta) });
      handles.set(uid, { bases, deltas });
    }
    const keyed = new Set(metadata.tasks.flatMap((task) => (task.keyed === undefined ? [] : filesOf(task.keyed.handle).map(({ name }) => name))));
    for (const file of filesNamed(metadata)) {
      if (keyed.has(file.name)) continue;
      writing(file);
      await copyFile(source, target, file, file.name);
    }
    const tasks = metadata.tasks.map((task) => {
      if (task.keyed === undefined) return task;
      const range = rangeOf(task.subtask, task.parallelism, maxParallelism);
      return { ...task, keyed: { ...task.keyed, range, handle: { ...handles.get(task.keyed.uid)!, range } } };
    });
    const edit = { at: io.clock.now(), what: `repartition: maxParallelism ${metadata.maxParallelism} → ${maxParallelism}` };
    return { ...metadata, maxParallelism, tasks, edits: [...(metadata.edits ?? []), edit] };
  });
}

function counting(ranges: readonly KeyGroupRange[] | undefined, maxParallelism: number): (hash: number) => boolean {
  if (ranges === undefined) return () => true;
  return (hash) => {
    const group = groupOf(hash, maxParallelism);
    return ranges.some(({ from, to }) => group >= from && group <= to);
  };
}
