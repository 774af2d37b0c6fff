// A source that plays a script: records in their order, and markers at which the job crashes.
//
// What: at parallelism p the records are dealt out to p splits, r, r + p, …; a marker belongs to the split of the record behind it. One record is a batch, so that
// lateness is the same however often reading begins again. A record takes a millisecond of simulated time, so checkpoints fall between any two.
//
// Invariant R1: a marker crashes its region the first time it is reached, in whatever attempt that is, and never again.

import { MillraceError } from '../errors.ts';
import type { ReadContext, Source, SourceBatch } from '../graph/source.ts';

/** Made by `crashMarker()`. */
export interface CrashMarker {
  readonly crash: true;
}
/** What the sources of a job give, by uid. A `timestamp` is in epoch milliseconds, none by default; a `timestamp` function of the job's own source wins over it. */
export type SourceScript = Record<string, readonly ({ value: unknown; timestamp?: number } | CrashMarker)[]>;

/**
 * A place in the script of a source where the job crashes: the region of that source fails once, when the marker is reached, and is restored from its last checkpoint.
 *
 * @example
 * const doubled = job('doubled', (env) => void env.fromArray<number>('in', []).map((n) => n * 2).sink('out', collect([])));
 * const { sinks, restarts } = await runJob<{ out: number }>(doubled, { sources: { in: [{ value: 1 }, crashMarker(), { value: 2 }] } });
 * assert.deepEqual(sinks.out, [2, 4]);
 * assert.equal(restarts, 1);
 */
export function crashMarker(): CrashMarker {
  return Object.freeze({ crash: true });
}

export function isCrashMarker(item: object): item is CrashMarker {
  return 'crash' in item && item.crash === true;
}

interface Split {
  readonly r: number;
  readonly p: number;
}

type Item = { readonly kind: 'record'; readonly value: unknown; readonly timestamp: number } | { readonly kind: 'crash'; readonly marker: number };

export interface ScriptedOptions {
  readonly uid: string;
  readonly script: SourceScript[string];
  /** Markers that have been reached; it outlives attempts. */
  readonly reached: Set<string>;
  /** Waits between two records. */
  readonly pause: (signal: AbortSignal) => Promise<void>;
}

export function scriptedSource({ uid, script, reached, pause }: ScriptedOptions): Source<unknown, Split, number> {
  const itemsOf = ({ r, p }: Split): Item[] => {
    let records = 0;
    return script.flatMap((item, at): Item[] => {
      const mine = records % p === r;
      if (isCrashMarker(item)) return mine ? [{ kind: 'crash', marker: at }] : [];
      records += 1;
      return mine ? [{ kind: 'record', value: item.value, timestamp: item.timestamp ?? Number.NaN }] : [];
    });
  };
  return {
    bounded: true,
    async splits({ known, parallelism }) {
      const [first] = known;
      const p = first === undefined ? parallelism : Number(first.slice(first.indexOf('/') + 1));
      return Array.from({ length: p }, (_, r) => ({ r, p }));
    },
    splitId: ({ r, p }) => `${r}/${p}`,
    async *read(split: Split, from: number | undefined, { signal }: ReadContext): AsyncIterable<SourceBatch<unknown, number>> {
      const items = itemsOf(split);
      for (let at = from ?? 0; at < items.length && !signal.aborted; at++) {
        const item = items[at]!;
        await pause(signal);
        if (signal.aborted) return;
        if (item.kind === 'record') {
          yield { values: [item.value], timestamps: [item.timestamp], position: at + 1 };
          continue;
        }
        const marker = `${uid}/${item.marker}`;
        if (reached.has(marker)) continue;
        reached.add(marker);
        throw new MillraceError('FAULT_INJECTED', `The crash marker at place ${item.marker} of the script was reached.`, { uid });
      }
    },
  };
}
