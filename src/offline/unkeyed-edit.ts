// State without a key, offline: lists of instances and broadcast maps, as one list or map each.
//
// Invariants:
//  U1  A list is read as the items of all instances in their order, a broadcast map as the copy that every instance has.
//  U2  What is put back is dealt out as a restore at the same parallelism would find it: items of a `splitList` in equal parts, those of a `unionList` in the
//      first instance, a broadcast map in each. Instances that have ended are given nothing.

import { type AnyKind, bindOperatorKinds, type OperatorPart } from '../../state-backends/index.ts';
import type { CheckpointMetadata } from '../checkpoint/metadata.ts';
import { partsOf } from '../checkpoint/restore.ts';
import { MillraceError } from '../errors.ts';
import { redistribute } from '../runtime/parts.ts';
import type { OperatorSnapshot, TaskSnapshot } from '../runtime/snapshot.ts';
import type { Counts } from './changed-rows.ts';
import type { StoredClocks } from './stored-clocks.ts';

/** The handles of the declared lists and maps; usable while `run` runs. */
export function withUnkeyed<R>(
  metadata: CheckpointMetadata,
  uid: string,
  spec: Readonly<Record<string, AnyKind>>,
  clocks: StoredClocks,
  run: (handles: Readonly<Record<string, unknown>>) => R,
): { readonly result: R; readonly before: Readonly<Record<string, readonly unknown[]>>; readonly after: Readonly<Record<string, OperatorPart>> } {
  const given = partsOf(metadata, uid);
  const stored = given.length === 0 ? {} : redistribute(given, { subtask: 0, parallelism: 1, maxParallelism: metadata.maxParallelism });
  for (const [name, { scope }] of Object.entries(spec)) {
    if (scope !== 'keyed') continue;
    throw new MillraceError('STATE_MISUSED', `The state ${name} of '${uid}' is kept by key.`, { uid, todo: 'Use each() or keys() for it.' });
  }
  const kinds = bindOperatorKinds(uid, spec as Record<string, AnyKind>, { ...clocks, restored: (name) => stored[name] });
  kinds.open = true;
  try {
    const result = run(kinds.handles);
    return { result, before: stored, after: kinds.snapshot() };
  } finally {
    kinds.open = false;
  }
}

/** The snapshot with these parts in the place of those that were there. */
export function withParts(metadata: CheckpointMetadata, uid: string, parts: Readonly<Record<string, OperatorPart>>): CheckpointMetadata {
  const holders = metadata.tasks
    .filter((task) => !task.ended && (task.operators[uid] !== undefined || task.keyed?.uid === uid))
    .sort((one, other) => one.subtask - other.subtask);
  const none: TaskSnapshot = {
    vertex: uid,
    subtask: 0,
    parallelism: 1,
    watermark: Number.NEGATIVE_INFINITY,
    processingTime: Math.max(0, ...metadata.tasks.map((task) => task.processingTime)),
    ended: false,
    operators: {},
    keyed: undefined,
  };
  const given = holders.length > 0 ? holders : [none];
  const put = given.map((task, i): TaskSnapshot => {
    const own: OperatorSnapshot = task.operators[uid] ?? {};
    const shares = Object.entries(parts).map(([name, part]) => [name, { mode: part.mode, items: shareOfItems(part, i, given.length) }] as const);
    return { ...task, operators: { ...task.operators, [uid]: { ...own, parts: { ...own.parts, ...Object.fromEntries(shares) } } } };
  });
  const tasks = holders.length > 0 ? metadata.tasks.map((task) => put[holders.indexOf(task)] ?? task) : [...metadata.tasks, ...put];
  return { ...metadata, tasks };
}

function shareOfItems({ mode, items }: OperatorPart, instance: number, instances: number): readonly unknown[] {
  if (mode === 'broadcast') return items;
  if (mode === 'union') return instance === 0 ? items : [];
  return items.slice(Math.floor((items.length * instance) / instances), Math.floor((items.length * (instance + 1)) / instances));
}

/** Items that are there now and were not, and the other way round; an item that occurs twice counts twice. */
export function countItems(before: Readonly<Record<string, readonly unknown[]>>, after: Readonly<Record<string, OperatorPart>>): Counts {
  const counts: Counts = { written: 0, deleted: 0, states: new Set() };
  for (const [name, { items }] of Object.entries(after)) {
    const left = new Map<string, number>();
    const idOf = (item: unknown): string => Buffer.from(item as Uint8Array).toString('latin1');
    for (const item of before[name] ?? []) left.set(idOf(item), (left.get(idOf(item)) ?? 0) + 1);
    let [written, deleted] = [0, 0];
    for (const item of items) {
      const there = left.get(idOf(item)) ?? 0;
      if (there === 0) written += 1;
      else left.set(idOf(item), there - 1);
    }
    for (const there of left.values()) deleted += there;
    if (written + deleted > 0) counts.states.add(name);
    counts.written += written;
    counts.deleted += deleted;
  }
  return counts;
}
