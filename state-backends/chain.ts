// The chain of a task's snapshot: which files, taken together, are its keyed state at a checkpoint (protocols 1, 2).
//
// What: immutable data and pure functions. A chain is bases ⊕ deltas; a handle is what a checkpoint stores of it.
// Invariants:
//  C1  A delta stays in the chain until a base replaces it; that its checkpoint was aborted changes nothing (protocols 2).
//  C2  A base (b, n) takes part only in handles of checkpoints m > n, with all deltas > b; until then the older bases and deltas stand.
//  C3  A handle only ever names files whose upload has finished before the checkpoint is acknowledged.
//  C4  A file counts for the key groups of the task whose handle names it, and for no others: after a rescale two tasks name one file, and the one
//      may already have replaced it by a base of its own groups while the other still needs it for its groups.

import type { KeyGroupRange } from './contract.ts';

export interface FileRef {
  readonly name: string;
  readonly bytes: number;
  readonly crc: number;
}
export interface BaseRef {
  /** How the file is read: `rows` is a row file; later also `leveldb`. */
  readonly kind: 'rows';
  readonly file: FileRef;
  readonly b: number;
  readonly n: number;
  /** The key groups that the file counts for (C4); undefined: all that are in it. */
  readonly ranges?: readonly KeyGroupRange[];
}
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
  return [...handle.bases.map((b) => b.file), ...handle.deltas.map((d) => d.file)];
}

/** Time for a new base: the deltas exceed half of the bases' bytes, or 16 files; tiny states wait for the second reason. */
export function wantsBase(chain: Chain, leastBytes = 1 << 20): boolean {
  if (chain.next !== undefined) return false;
  const bytes = (files: readonly { file: FileRef }[]): number => files.reduce((sum, f) => sum + f.file.bytes, 0);
  return chain.deltas.length > 16 || bytes(chain.deltas) > Math.max(leastBytes, bytes(chain.bases) / 2);
}
