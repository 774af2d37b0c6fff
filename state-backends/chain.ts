// The chain of a task's snapshot: which files, taken together, are its keyed state at a checkpoint (protocols 1, 2).
//
// What: immutable data and pure functions. A chain is bases ⊕ deltas; a handle is what a checkpoint stores of it.
// Invariants:
//  C1  A delta stays in the chain until a base replaces it; that its checkpoint was aborted changes nothing (protocols 2).
//  C2  A base (b, n) takes part only in handles of checkpoints m > n, with all deltas > b; until then the older bases and deltas stand.
//  C3  A handle only ever names files whose upload has finished before the checkpoint is acknowledged.
//  C5  The bases of a chain are disjoint in the rows that they count for.
//  C6  A chain has at most DELTAS_MAX deltas, whatever happens to its bases: `overlong` says when a checkpoint has to be given up for it.
//  C4  A file counts for the key groups of the task whose handle names it, and for no others: after a rescale two tasks name one file, and the one
//      may already have replaced it by a base of its own groups while the other still needs it for its groups.

import type { KeyGroupRange, NumberedTable } from './contract.ts';

export interface FileRef {
  readonly name: string;
  readonly bytes: number;
  readonly crc: number;
}
interface AnyBaseRef {
  /** By whose name the base goes. */
  readonly file: FileRef;
  readonly b: number;
  readonly n: number;
  /** The key groups that the file counts for (C4); undefined: all that are in it. */
  readonly ranges?: readonly KeyGroupRange[];
}
/** A row file. */
export interface RowsBaseRef extends AnyBaseRef {
  readonly kind: 'rows';
}
/** A table of a database, in a file. */
export interface LinkedFileRef extends FileRef {
  /** By which the database knows it. */
  readonly number: number;
}
/** A LevelDB that was linked while it was open: `file` is its MANIFEST. It has the rows of all tasks of a region. */
export interface LevelBaseRef extends AnyBaseRef {
  readonly kind: 'leveldb';
  readonly files: readonly LinkedFileRef[];
  /** Of the operator whose base it is: what else is in it does not count. */
  readonly tables: readonly NumberedTable[];
}
export type BaseRef = RowsBaseRef | LevelBaseRef;
export interface DeltaRef {
  readonly id: number;
  readonly file: FileRef;
  /** The key groups that the file counts for (C4); undefined: all that are in it. */
  readonly ranges?: readonly KeyGroupRange[];
}
export interface Handle {
  /** The key groups of the task whose state it is (C4). */
  readonly range?: KeyGroupRange;
  readonly bases: readonly BaseRef[];
  readonly deltas: readonly DeltaRef[];
}
export interface Chain extends Omit<Handle, 'range'> {
  /** A base that is complete but serves only checkpoints after its n. */
  readonly next: BaseRef | undefined;
}

export const EMPTY_CHAIN: Chain = { bases: [], deltas: [], next: undefined };

/**
 * A restored task starts with the files of all the handles it took over; deltas of several old tasks are disjoint in the keys that they count for,
 * so order by id is enough. Each file is loaded once, with its `ranges`: `load(file, ref.ranges)`.
 */
export function chainOf(handles: readonly Handle[]): Chain {
  const bases = handles.flatMap((h) => h.bases.map((ref) => within(ref, h.range)));
  const deltas = handles.flatMap((h) => h.deltas.map((ref) => within(ref, h.range))).sort((x, y) => x.id - y.id);
  return { bases: unique(bases), deltas: unique(deltas), next: undefined };
}

interface Ranged {
  readonly file: FileRef;
  readonly ranges?: readonly KeyGroupRange[];
}

function within<R extends Ranged>(ref: R, range: KeyGroupRange | undefined): R {
  if (range === undefined) return ref;
  if (ref.ranges === undefined) return { ...ref, ranges: [range] };
  const cut = ref.ranges.map(({ from, to }) => ({ from: Math.max(from, range.from), to: Math.min(to, range.to) }));
  return { ...ref, ranges: cut.filter(({ from, to }) => from <= to) };
}

/** One ref a file, for the groups of all that name it. */
function unique<R extends Ranged>(refs: readonly R[]): R[] {
  const byName = new Map<string, R>();
  for (const ref of refs) {
    const other = byName.get(ref.file.name);
    if (other === undefined) byName.set(ref.file.name, ref);
    else
      byName.set(ref.file.name, {
        ...other,
        ranges: other.ranges === undefined || ref.ranges === undefined ? undefined : joined([...other.ranges, ...ref.ranges]),
      });
  }
  return [...byName.values()];
}

/** The same groups, neighbours as one range. */
function joined(ranges: readonly KeyGroupRange[]): KeyGroupRange[] {
  const out: KeyGroupRange[] = [];
  for (const { from, to } of [...ranges].sort((x, y) => x.from - y.from)) {
    const last = out.at(-1);
    if (last !== undefined && from <= last.to + 1) out[out.length - 1] = { from: last.from, to: Math.max(last.to, to) };
    else out.push({ from, to });
  }
  return out;
}

export function withDelta(chain: Chain, delta: DeltaRef): Chain {
  return { ...chain, deltas: [...chain.deltas, delta] };
}

export function withBase(chain: Chain, base: BaseRef): Chain {
  return { ...chain, next: base };
}

/** The chain from which the handle of checkpoint `id` is taken: a base that is ready for it replaces what it covers (C2). */
export function at(chain: Chain, id: number): Chain {
  const { next } = chain;
  if (next === undefined || id <= next.n) return chain;
  return { bases: [next], deltas: chain.deltas.filter((d) => d.id > next.b), next: undefined };
}

/** What a checkpoint stores of a task with these key groups. */
export function handleOf(chain: Chain, range?: KeyGroupRange): Handle {
  return { range, bases: chain.bases, deltas: chain.deltas };
}

export function filesOf(handle: Handle): FileRef[] {
  return [...handle.bases.flatMap(filesOfBase), ...handle.deltas.map((d) => d.file)];
}

export function filesOfBase(base: BaseRef): FileRef[] {
  return base.kind === 'leveldb' ? [base.file, ...base.files] : [base.file];
}

/** The same ref with its files under other names. */
export function renamed<R extends BaseRef | DeltaRef>(ref: R, rename: (file: FileRef) => FileRef): R {
  const file = rename(ref.file);
  return 'files' in ref ? { ...ref, file, files: ref.files.map((each) => ({ ...rename(each), number: each.number })) } : { ...ref, file };
}

const LEAST_BYTES = 1 << 20;
const DELTAS_WANTED = 16;
/** C6. A base that takes long, or fails now and then, is far from it. */
export const DELTAS_MAX = 512;

/** Time for a new base: the deltas exceed half of the bases' bytes, or 16 files; tiny states wait for the second reason. */
export function wantsBase(chain: Chain, leastBytes = LEAST_BYTES): boolean {
  return wantBase([chain], leastBytes);
}

/** The same of tasks that make their base together: what their bases share counts once. */
export function wantBase(chains: readonly Chain[], leastBytes = LEAST_BYTES): boolean {
  if (chains.some(({ next }) => next !== undefined)) return false;
  if (chains.some(({ deltas }) => deltas.length > DELTAS_WANTED)) return true;
  const deltas = chains.flatMap((chain) => chain.deltas.map(({ file }) => file));
  return sum(deltas) > Math.max(leastBytes, sum(chains.flatMap(({ bases }) => bases.flatMap(filesOfBase))) / 2);
}

function sum(files: readonly FileRef[]): number {
  let bytes = 0;
  for (const file of new Map(files.map((each) => [each.name, each])).values()) bytes += file.bytes;
  return bytes;
}

/** C6. */
export function overlong(chain: Chain): boolean {
  return chain.deltas.length >= DELTAS_MAX;
}
