// What a checkpoint or savepoint holds of the keys of the chaos program, read from its files and compared with the oracle, key by key.

import type { CheckpointMetadata } from '../../src/checkpoint/metadata.ts';
import type { SnapshotFiles } from '../../src/checkpoint/storage.ts';
import { visitRows } from '../../src/checkpoint/stored-rows.ts';
import { chainOf, groupOf, hashKey } from '../../state-backends/index.ts';
import { digestOf, ENTRIES, KEYS, type Oracle, SPLITS } from './state-model.ts';

/** How far each split was read. */
export function positionsOf(metadata: CheckpointMetadata): number[] {
  const positions = new Array<number>(SPLITS).fill(0);
  for (const task of metadata.tasks) {
    // Of one that was dealt out just then the instance that has it knows more, where it is there too: a snapshot of that has its word.
    for (const { id, position, rest } of (task.operators['operations']?.splits ?? []).filter(({ handed }) => handed !== true))
      positions[Number(id)] = ((position as number | undefined) ?? 0) - (rest?.values.length ?? 0);
  }
  return positions;
}

interface Stored {
  readonly rows: (Record<'n' | 'h' | 'expires', number> | undefined)[];
  readonly items: Map<number, Map<number, readonly number[]>>;
  readonly entries: Map<number, Map<string, number>>;
  /** Of most keys one; NaN: none. */
  readonly timers: Float64Array;
  readonly more: Map<number, Set<number>>;
}

async function storedIn(metadata: CheckpointMetadata, files: Pick<SnapshotFiles, 'read'>): Promise<Stored> {
  const stored: Stored = { rows: new Array(KEYS), items: new Map(), entries: new Map(), timers: new Float64Array(KEYS).fill(Number.NaN), more: new Map() };
  const chain = chainOf(metadata.tasks.flatMap(({ keyed }) => (keyed === undefined ? [] : [keyed.handle])));
  for (const ref of [...chain.bases, ...chain.deltas]) {
    let names: string[] = [];
    await visitRows(ref, files, {
      maxParallelism: metadata.maxParallelism,
      onTables: (tables) => {
        names = tables.map(({ name, layout }) => (layout === 'timers' ? 'timers' : name));
      },
      onRow: (table, kind, key, _, ns, value) => apply(stored, names[table]!, kind, key as number, ns, value),
    });
  }
  return stored;
}

function apply({ rows, items, entries, timers, more }: Stored, table: string, kind: number, key: number, ns: unknown, value: unknown): void {
  const set = <N, V>(of: Map<number, Map<N, V>>): void => {
    const there = of.get(key);
    if (kind === 2) of.delete(key);
    else if (kind === 1) there?.delete(ns as N);
    else if (there === undefined) of.set(key, new Map([[ns as N, value as V]]));
    else there.set(ns as N, value as V);
  };
  if (table === 'row') rows[key] = kind === 0 ? (value as Stored['rows'][number]) : undefined;
  else if (table === 'items') set(items);
  else if (table === 'entries') set(entries);
  else if (table !== 'timers') throw new Error(`What is the table ${table}?`);
  else if (kind === 1) {
    if (timers[key] === value) timers[key] = Number.NaN;
    more.get(key)?.delete(value as number);
  } else if (Number.isNaN(timers[key]!) || timers[key] === value) timers[key] = value as number;
  else more.set(key, (more.get(key) ?? new Set()).add(value as number));
}

/** What is wrong, as sentences; the oracle stands where the metadata does. */
export async function compared(metadata: CheckpointMetadata, files: Pick<SnapshotFiles, 'read'>, oracle: Oracle): Promise<string[]> {
  const { rows, items, entries, timers, more } = await storedIn(metadata, files);
  const ofKeys = metadata.tasks.filter(({ keyed }) => keyed !== undefined);
  const watermarks = new Float64Array(metadata.maxParallelism).fill(Number.NaN);
  for (const { keyed, watermark } of ofKeys) watermarks.fill(watermark, keyed!.range.from, keyed!.range.to + 1);
  const wrong: string[] = [];
  const counts = { lost: 0, resurrected: 0, other: 0, timers: 0 };
  const tell = (kind: keyof typeof counts, sentence: () => string): void => {
    counts[kind] += 1;
    if (counts[kind] === 1) wrong.push(sentence());
  };
  for (let key = 0; key < KEYS; key++) {
    const row = rows[key];
    const chunks = items.get(key);
    const list = chunks === undefined ? [] : [...chunks].sort(([a], [b]) => a - b).flatMap(([, chunk]) => chunk);
    const map = entries.get(key);
    const times = [...new Set([...(Number.isNaN(timers[key]!) ? [] : [timers[key]!]), ...(more.get(key) ?? [])])];
    const there = row !== undefined || list.length > 0 || (map?.size ?? 0) > 0 || times.length > 0;
    const expected = oracle.n[key]! > 0;
    if (!there) {
      // What has expired may be gone already.
      if (expected && oracle.expires[key]! > watermarks[groupOf(hashKey(key), metadata.maxParallelism)]!)
        tell('lost', () => `key ${key} is lost; it must hold ${oracle.n[key]} operations and expire at ${oracle.expires[key]}`);
      continue;
    }
    if (!expected) {
      tell('resurrected', () => `key ${key} is back: ${JSON.stringify({ row, list, map: [...(map ?? [])], times })}`);
      continue;
    }
    const got = row === undefined ? 0 : digestOf(row.n, row.h, row.expires, list, (place) => map?.get(`e${place}`));
    if (got !== oracle.digest(key) || (map?.size ?? 0) > ENTRIES)
      tell(
        'other',
        () => `key ${key} holds ${JSON.stringify({ row, list, map: [...(map ?? [])] })}, not ${oracle.n[key]} operations that expire at ${oracle.expires[key]}`,
      );
    if (times.length !== 1 || times[0] !== oracle.expires[key])
      tell('timers', () => `key ${key} has timers at ${times.join(', ')}, not at ${oracle.expires[key]}`);
  }
  const sums = Object.entries(counts).filter(([, count]) => count > 0);
  return sums.length === 0 ? [] : [`${sums.map(([kind, count]) => `${count} ${kind}`).join(', ')} of ${KEYS} keys at checkpoint ${metadata.id}`, ...wrong];
}
