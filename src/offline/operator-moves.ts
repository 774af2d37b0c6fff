// Operators and states of a snapshot that are renamed or removed: metadata → metadata. Pure but for row files, in which names stand too.
//
// Invariants:
//  M1  A name is given to one operator only, and to one state of an operator.
//  M2  What a transactional sink has not committed is bound to its uid, which names its writers outside: such a sink cannot be renamed.
//  M3  Records that were in flight are bound to the uid that they were on their way to.

import { type FileRef, filesOf, type Handle, rewritten, type TableHeader } from '../../state-backends/index.ts';
import type { CheckpointMetadata } from '../checkpoint/metadata.ts';
import { MillraceError } from '../errors.ts';
import type { OperatorSnapshot, TaskSnapshot } from '../runtime/snapshot.ts';
import type { EditPlace } from './keyed-edit.ts';

/** Uids of what a snapshot has something of. */
export function uidsOf(metadata: CheckpointMetadata): string[] {
  const uids = metadata.tasks.flatMap((task) => [...(task.keyed === undefined ? [] : [task.keyed.uid]), ...Object.keys(task.operators)]);
  return [...new Set(uids)].filter((uid) => !uid.includes('.')).sort();
}

export function demandOperator(metadata: CheckpointMetadata, uid: string): void {
  const there = uidsOf(metadata);
  if (there.includes(uid)) return;
  throw new MillraceError('STATE_NOT_FOUND', `The snapshot has no operator '${uid}'.`, {
    uid,
    todo: there.length === 0 ? 'It has none at all.' : `It has ${there.map((each) => `'${each}'`).join(', ')}.`,
  });
}

function refuse(sentence: string, todo: string, uid: string): never {
  throw new MillraceError('STATE_EDIT_REFUSED', sentence, { uid, todo });
}

/** M3. */
function refuseInFlight(metadata: CheckpointMetadata, uid: string): void {
  const lanes = metadata.tasks.flatMap(({ inFlight }) => inFlight?.lanes ?? []);
  if (lanes.some(({ address, records }) => records > 0 && address?.startsWith(`${uid} `) === true))
    refuse(
      `'${uid}' cannot be renamed or removed: the snapshot is an unaligned checkpoint, in which records are on their way to it.`,
      'Take a savepoint, in which nothing is in flight.',
      uid,
    );
}

export function withoutOperator(metadata: CheckpointMetadata, uid: string): CheckpointMetadata {
  demandOperator(metadata, uid);
  refuseInFlight(metadata, uid);
  const tasks = metadata.tasks.map((task): TaskSnapshot => {
    const { [uid]: _, ...operators } = task.operators;
    return { ...task, operators, keyed: task.keyed?.uid === uid ? undefined : task.keyed };
  });
  // What runs fused with it stays in its tasks.
  return { ...metadata, tasks: tasks.filter(({ vertex, operators }) => vertex !== uid || Object.keys(operators).length > 0) };
}

export async function renamedOperator(metadata: CheckpointMetadata, uid: string, to: string, place: EditPlace): Promise<CheckpointMetadata> {
  demandOperator(metadata, uid);
  if (!/^[a-z0-9-]+$/.test(to))
    throw new MillraceError('UID_INVALID', `'${to}' is no uid.`, { uid, todo: 'A uid is made of lower-case letters, digits and hyphens.' });
  if (uidsOf(metadata).includes(to))
    refuse(`'${uid}' cannot be renamed: there is an operator '${to}' already.`, 'Remove that one first, or choose another name.', uid);
  refuseInFlight(metadata, uid);
  // M2.
  if (metadata.tasks.some(({ operators }) => operators[uid]?.writers !== undefined))
    refuse(
      `The sink '${uid}' cannot be renamed: under its uid it has committed, and has records that are yet to be.`,
      'Stop the job with a drain before the uid changes, or keep the uid.',
      uid,
    );
  const files = await remade(metadata, uid, place, (table) => ({ ...table, uid: to }));
  const tasks = metadata.tasks.map((task): TaskSnapshot => {
    const operators = Object.fromEntries(Object.entries(task.operators).map(([name, own]) => (name === uid ? [to, relettered(own, to)] : [name, own])));
    const vertex = task.vertex === uid ? to : task.vertex;
    const keyed = task.keyed?.uid === uid ? { ...task.keyed, uid: to, handle: withNames(task.keyed.handle, files) } : task.keyed;
    return { ...task, vertex, operators, keyed };
  });
  return { ...metadata, tasks };
}

function relettered(own: OperatorSnapshot, uid: string): OperatorSnapshot {
  return own.deadLetters === undefined ? own : { ...own, deadLetters: own.deadLetters.map((letter) => ({ ...letter, uid })) };
}

/** All tables that a declared state is made of. */
function tablesOfState(state: string): ReadonlySet<string> {
  return new Set([state, `.expiry.${state}`, `.armed.${state}`, `.window.${state}`]);
}

/** `to`: its new name; undefined: it is removed. `tables`: what the operator has stored by key. */
export async function movedState(
  metadata: CheckpointMetadata,
  { uid, state, to, tables }: { readonly uid: string; readonly state: string; readonly to: string | undefined; readonly tables: readonly TableHeader[] },
  place: EditPlace,
): Promise<CheckpointMetadata> {
  demandOperator(metadata, uid);
  const its = tablesOfState(state);
  const partNames = new Set(metadata.tasks.flatMap(({ operators }) => Object.keys(operators[uid]?.parts ?? {})));
  const names = new Set([...tables.map(({ name }) => name), ...partNames]);
  const visible = [...names].filter((name) => !name.startsWith('.'));
  if (![...its].some((name) => names.has(name)))
    throw new MillraceError('STATE_NOT_FOUND', `'${uid}' has no state '${state}' in the snapshot.`, {
      uid,
      todo: visible.length === 0 ? 'It has none at all.' : `It has ${visible.join(', ')}.`,
    });
  if (to !== undefined && (to.startsWith('.') || [...tablesOfState(to)].some((name) => names.has(name))))
    refuse(`The state '${state}' of '${uid}' cannot be called '${to}'.`, 'Choose a name that is not in use and does not begin with a dot.', uid);
  const renamed = (name: string): string => (to === undefined || !its.has(name) ? name : name.slice(0, name.length - state.length) + to);
  const files = tables.some(({ name }) => its.has(name))
    ? await remade(metadata, uid, place, (table) => (to === undefined && its.has(table.name) ? undefined : { ...table, name: renamed(table.name) }))
    : new Map<string, FileRef>();
  const tasks = metadata.tasks.map((task): TaskSnapshot => {
    const own = task.operators[uid];
    const keyed = task.keyed?.uid === uid ? { ...task.keyed, handle: withNames(task.keyed.handle, files) } : task.keyed;
    if (own?.parts === undefined) return { ...task, keyed };
    const parts = Object.entries(own.parts).flatMap(([name, part]) =>
      name !== state ? [[name, part] as const] : to === undefined ? [] : [[to, part] as const],
    );
    return { ...task, keyed, operators: { ...task.operators, [uid]: { ...own, parts: Object.fromEntries(parts) } } };
  });
  return { ...metadata, tasks };
}

/** Every row file of the operator anew. */
async function remade(
  metadata: CheckpointMetadata,
  uid: string,
  place: EditPlace,
  renamed: (table: TableHeader) => TableHeader | undefined,
): Promise<Map<string, FileRef>> {
  const old = new Map(metadata.tasks.flatMap(({ keyed }) => (keyed?.uid === uid ? filesOf(keyed.handle) : [])).map((file) => [file.name, file]));
  const made = new Map<string, FileRef>();
  for (const file of old.values()) {
    await place.io.step('savepoint.file');
    const out = await place.target.open(place.freshName());
    try {
      for await (const part of rewritten(place.files.read(file), () => true, metadata.maxParallelism, renamed)) await out.append([part]);
      made.set(file.name, await out.finish());
    } catch (error) {
      await out.abandon();
      throw error;
    }
  }
  return made;
}

function withNames(handle: Handle, files: ReadonlyMap<string, FileRef>): Handle {
  const renamed = <R extends { readonly file: FileRef }>(ref: R): R => ({ ...ref, file: files.get(ref.file.name) ?? ref.file });
  return { ...handle, bases: handle.bases.map(renamed), deltas: handle.deltas.map(renamed) };
}
