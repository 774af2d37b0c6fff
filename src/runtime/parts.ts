// Parts: what operators keep outside of keyed state, in snapshots, and who gets what of it after a restore (semantics 11).
//
// What: pure functions. An operator gives named parts at a barrier; after a restore each new instance is given its share of what all old ones gave.
//
// Invariants:
//  R1  split: all items in order of the old instances; at the same parallelism each keeps its own; else floor(n / p) each, the remainder one each, and the
//      next part starts where the last remainder ended.
//  R2  union: everyone gets everything. broadcast: instance i gets what old instance i mod p had.
//  R3  keyed: each item goes to the instance that has its key group, in the order of each old instance.

import { groupOf, instanceOf } from '../../state-backends/index.ts';

export interface StatePart {
  readonly mode: 'split' | 'union' | 'broadcast' | 'keyed';
  /** Plain data; encoded later, so never changed from here on. */
  readonly items: readonly unknown[];
  /** Of `keyed`: the hash of each item's key. */
  readonly hashes?: readonly number[];
}

export interface Share {
  readonly subtask: number;
  readonly parallelism: number;
  readonly maxParallelism: number;
}

/** What instance `subtask` gets; `old` are the parts of the old instances in their order. */
export function redistribute(old: readonly Readonly<Record<string, StatePart>>[], share: Share): Record<string, readonly unknown[]> {
  const { subtask, parallelism } = share;
  const names = [...new Set(old.flatMap((parts) => Object.keys(parts)))].sort();
  const out: Record<string, readonly unknown[]> = {};
  let start = 0;
  for (const name of names) {
    const parts = old.map((each) => each[name]);
    const mode = parts.find((part) => part !== undefined)!.mode;
    switch (mode) {
      case 'union':
        out[name] = parts.flatMap((part) => part?.items ?? []);
        break;
      case 'broadcast':
        out[name] = parts[subtask % old.length]?.items ?? [];
        break;
      case 'keyed':
        out[name] = parts.flatMap((part) => (part?.items ?? []).filter((_, i) => ownerOf(part!.hashes![i]!, share) === subtask));
        break;
      case 'split': {
        if (old.length === parallelism) {
          out[name] = parts[subtask]?.items ?? [];
          break;
        }
        const items = parts.flatMap((part) => part?.items ?? []);
        const sizes = splitSizes(items.length, parallelism, start);
        start = (start + (items.length % parallelism)) % parallelism;
        const from = sizes.slice(0, subtask).reduce((sum, n) => sum + n, 0);
        out[name] = items.slice(from, from + sizes[subtask]!);
        break;
      }
    }
  }
  return out;
}

function ownerOf(hash: number, { parallelism, maxParallelism }: Share): number {
  return instanceOf(groupOf(hash, maxParallelism), parallelism, maxParallelism);
}

/** How many of `n` each instance gets; the remainder goes to the instances from `start` on. */
function splitSizes(n: number, parallelism: number, start: number): number[] {
  const sizes = new Array<number>(parallelism).fill(Math.floor(n / parallelism));
  for (let k = 0; k < n % parallelism; k++) sizes[(start + k) % parallelism]! += 1;
  return sizes;
}
