// The chain of a task's snapshot: which files, taken together, are its keyed state at a checkpoint (protocols 1, 2).
//
// What: immutable data and pure functions. A chain is bases ⊕ deltas; a handle is what a checkpoint stores of it.
// Invariants:
//  C1  A delta stays in the chain until a base replaces it; that its checkpoint was aborted changes nothing (protocols 2).
//  C2  A base (b, n) takes part only in handles of checkpoints m > n, with all deltas > b; until then the older bases and deltas stand.
//  C3  A handle only ever names files whose upload has finished before the checkpoint is acknowledged.

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
}
export interface DeltaRef {
  readonly id: number;
  /** Undefined where nothing changed. */
  readonly file: FileRef;
}
export interface Handle {
  readonly bases: readonly BaseRef[];
  readonly deltas: readonly DeltaRef[];
}
export interface Chain extends Handle {
  /** A base that is complete but serves only checkpoints after its n. */
  readonly next: BaseRef | undefined;
}

export const EMPTY_CHAIN: Chain = { bases: [], deltas: [], next: undefined };

/** A restored task starts with the files of all the handles it took over; deltas of several old tasks are disjoint in keys, so order by id is enough. */
export function chainOf(handles: readonly Handle[]): Chain {
  const bases = handles.flatMap((h) => h.bases);
  const deltas = handles.flatMap((h) => h.deltas).sort((x, y) => x.id - y.id);
  return { bases: unique(bases), deltas: unique(deltas), next: undefined };
}

function unique<R extends { file: FileRef }>(refs: readonly R[]): R[] {
  const seen = new Set<string>();
  return refs.filter((r) => !seen.has(r.file.name) && seen.add(r.file.name) !== undefined);
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

export function handleOf(chain: Chain): Handle {
  return { bases: chain.bases, deltas: chain.deltas };
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
