// One edit of the state by key of one operator, share by share: what is done with a share, and what comes of it for the snapshot.
//
// Invariants:
//  E1  Memory holds one share, twice, and the records that are fed into it.
//  E2  Files that were there stay as they are; each task gets a file of changes behind its deltas (changed-rows.ts).
//  E3  An operator that was not there is given tasks of its own, whose event time has not begun.

import { type FileRef, type Handle, rangeOf, type TableHeader } from '../../state-backends/index.ts';
import type { CheckpointMetadata } from '../checkpoint/metadata.ts';
import type { SnapshotFiles } from '../checkpoint/storage.ts';
import type { StoredFiles } from '../checkpoint/stored-rows.ts';
import type { Io } from '../runtime/io.ts';
import type { StatePart } from '../runtime/parts.ts';
import type { TaskSnapshot } from '../runtime/snapshot.ts';
import { ChangedRows, type Counts, SharedState } from './changed-rows.ts';
import type { FedRecord, RecordShares } from './record-shares.ts';
import { RowShares } from './row-shares.ts';

/** What is done with one share of an operator's state. */
export interface ShareWork {
  run(records: AsyncIterable<FedRecord>): Promise<void>;
  /** What the operator keeps beside its tables, the same in every instance. */
  parts?(): Readonly<Record<string, StatePart>>;
}

export interface KeyedEdit {
  readonly uid: string;
  readonly records?: RecordShares | undefined;
  /** Declares the tables, in state that is loaded afterwards. `stored`: what the snapshot has. */
  readonly open: (shared: SharedState, stored: readonly TableHeader[]) => ShareWork;
}

export interface EditPlace {
  readonly io: Io;
  readonly files: StoredFiles;
  readonly target: Pick<SnapshotFiles, 'open'>;
  /** A name for a file that nobody has. */
  readonly freshName: () => string;
  /** Makes an empty folder for what does not fit in memory. */
  readonly folder: () => Promise<string>;
  readonly shareBytes?: number | undefined;
}

/** Bytes of records that a new operator gets a task for, where nothing says how many it is to have. */
const TASK_BYTES = 32 << 20;
const TASKS_MAX = 16;

export async function editKeyed(
  metadata: CheckpointMetadata,
  edit: KeyedEdit,
  place: EditPlace,
): Promise<{ readonly metadata: CheckpointMetadata; readonly counts: Counts; readonly added: boolean }> {
  const { uid, records } = edit;
  const { maxParallelism } = metadata;
  const stored = metadata.tasks.filter(({ keyed }) => keyed?.uid === uid);
  const tasks = stored.length > 0 ? stored : newTasks(metadata, uid, records?.bytes ?? 0);
  const shares = await RowShares.of({
    files: place.files,
    handles: stored.map(({ keyed }) => keyed!.handle),
    maxParallelism,
    io: place.io,
    folder: place.folder,
    besideBytes: records?.bytes ?? 0,
    shareBytes: place.shareBytes,
  });
  const changes = new ChangedRows({
    tasks: tasks.map(({ subtask, keyed }) => ({ subtask, range: keyed!.range })),
    maxParallelism,
    target: place.target,
    nameOf: place.freshName,
  });
  let parts: Readonly<Record<string, StatePart>> | undefined;
  try {
    for (let share = 0; share < shares.count; share++) {
      await place.io.step('savepoint.file');
      const edited = await SharedState.open(maxParallelism);
      const work = edit.open(edited, shares.tables);
      let before: SharedState | undefined;
      if (shares.tables.length > 0) {
        before = await SharedState.open(maxParallelism);
        edit.open(before, shares.tables);
        await shares.load(share, before.state);
        await shares.load(share, edited.state);
      }
      await work.run(records === undefined ? NONE : records.of(share, shares.count));
      await changes.add(edited, before);
      parts = work.parts?.();
    }
    const files = await changes.finish();
    const added = stored.length === 0;
    return { metadata: withChanges(metadata, added ? tasks : [], uid, files, parts), counts: changes.counts, added };
  } catch (error) {
    await changes.abandon();
    throw error;
  }
}

const NONE: AsyncIterable<FedRecord> = {
  [Symbol.asyncIterator]: () => ({ next: async () => ({ done: true, value: undefined }) }),
};

function newTasks(metadata: CheckpointMetadata, uid: string, bytes: number): TaskSnapshot[] {
  const { maxParallelism, tasks } = metadata;
  const largest = Math.max(0, ...tasks.map(({ parallelism }) => parallelism));
  const parallelism = largest > 0 ? largest : Math.min(TASKS_MAX, maxParallelism, Math.max(1, Math.ceil(bytes / TASK_BYTES)));
  const processingTime = Math.max(0, ...tasks.map((task) => task.processingTime));
  // Of an operator that has parts already, without state by key, tasks are there.
  const there = tasks.filter(({ vertex, keyed }) => vertex === uid && keyed === undefined).sort((one, other) => one.subtask - other.subtask);
  return Array.from({ length: there.length > 0 ? there.length : parallelism }, (_, subtask): TaskSnapshot => {
    const count = there.length > 0 ? there.length : parallelism;
    const range = rangeOf(subtask, count, maxParallelism);
    const own: TaskSnapshot = there[subtask] ?? {
      vertex: uid,
      subtask,
      parallelism: count,
      watermark: Number.NEGATIVE_INFINITY,
      processingTime,
      ended: false,
      operators: {},
      keyed: undefined,
    };
    return { ...own, keyed: { uid, range, handle: { range, bases: [], deltas: [] } } };
  });
}

function withChanges(
  metadata: CheckpointMetadata,
  added: readonly TaskSnapshot[],
  uid: string,
  files: ReadonlyMap<number, FileRef>,
  parts: Readonly<Record<string, StatePart>> | undefined,
): CheckpointMetadata {
  const others = added.length === 0 ? metadata.tasks : metadata.tasks.filter(({ vertex, keyed }) => vertex !== uid || keyed !== undefined);
  const tasks = [...others, ...added].map((task): TaskSnapshot => {
    if (task.keyed?.uid !== uid) return task;
    const { handle } = task.keyed;
    const file = files.get(task.subtask);
    const changed: Handle =
      file === undefined ? handle : { ...handle, range: handle.range ?? task.keyed.range, deltas: [...handle.deltas, { id: metadata.id, file }] };
    const own = task.operators[uid];
    const operators = parts === undefined ? task.operators : { ...task.operators, [uid]: { ...own, parts: { ...parts, ...own?.parts } } };
    return { ...task, operators, keyed: { ...task.keyed, handle: changed } };
  });
  return { ...metadata, tasks };
}
