// Items of state without a key as snapshots have them: what they hold. Pure.

import { decode, type Key } from '../../state-backends/index.ts';

const OPERATOR_KINDS: readonly unknown[] = ['splitList', 'unionList', 'broadcastMap'];

/** Items of declared state are stored encoded, as [kind, version, written, value, key of a map's entry]; others as they are. */
export function itemOf(item: unknown): { key?: Key; value: unknown } {
  if (!(item instanceof Uint8Array)) return { value: item };
  const stored = decode(item) as unknown[];
  if (!Array.isArray(stored) || !OPERATOR_KINDS.includes(stored[0])) return { value: stored };
  return stored[0] === 'broadcastMap' ? { key: stored[4] as Key, value: stored[3] } : { value: stored[3] };
}

/** All items of a state: the Map of a `broadcastMap`, an array of a list; undefined where there are none. */
export function itemsAsOne(items: readonly { readonly key?: Key; readonly value: unknown }[]): unknown {
  if (items.length === 0) return undefined;
  return items.every((item) => 'key' in item) ? new Map(items.map(({ key, value }) => [key, value])) : items.map(({ value }) => value);
}
