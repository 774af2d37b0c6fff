// Operators that are keyed processes: definitions made here, run as any other.

import { value } from '../../state-backends/index.ts';
import type { Key } from '../graph/job.ts';
import type { KeyedContext, KeyedProcess } from './process.ts';
import type { Keyed } from './streams.ts';

/** `deduplicate()`: what was seen is a mark a key. */
export function deduplication<K extends Key, T>({ ttl }: { readonly ttl?: number }) {
  return {
    state: { seen: value<boolean>(ttl === undefined ? {} : { ttl }) },
    onRecord(record, ctx) {
      if (ctx.state.seen.get() === true) return;
      ctx.state.seen.set(true);
      ctx.emit(record);
    },
  } satisfies KeyedProcess<K, T, T, { seen: ReturnType<typeof value<boolean>> }>;
}

/** What is best so far: records, largest first, and what they were ranked by. */
interface Ranking<T> {
  readonly by: readonly number[];
  readonly records: readonly T[];
}

/** `topN()`: the ranking is replaced, never changed, since its records and lists are emitted. */
export function ranking<K extends Key, T>(n: number, by: (value: T) => number) {
  return {
    state: { best: value<Ranking<T>>({ default: { by: [], records: [] } }) },
    onRecord(record: T, ctx: KeyedContext<K, Keyed<K, T[]>, { readonly best: { get(): Ranking<T>; set(best: Ranking<T>): void } }>): undefined {
      const rank = by(record);
      if (typeof rank !== 'number' || Number.isNaN(rank)) throw new TypeError(`topN() ranks by numbers, and its function returned ${String(rank)}`);
      const best = ctx.state.best.get();
      let at = best.by.length;
      while (at > 0 && best.by[at - 1]! < rank) at -= 1;
      if (at >= n) return;
      const next = { by: inserted(best.by, at, rank, n), records: inserted(best.records, at, record, n) };
      ctx.state.best.set(next);
      ctx.emit({ key: ctx.key, value: [...next.records] });
    },
  };
}

function inserted<X>(list: readonly X[], at: number, value: X, n: number): X[] {
  const out = [...list.slice(0, at), value, ...list.slice(at)];
  if (out.length > n) out.length = n;
  return out;
}
