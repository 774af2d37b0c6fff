// The marker of a writer: a record in a compacted topic that says what it has committed, written in the same transaction as the records that it speaks of.
//
//   key    <uid>/<lineage>/<writer>
//   value  { "checkpoint": 7, "chunk": 2, "records": 4096, "whole": 6 }
//
// Of checkpoint 7 chunks 1 and 2 are committed, which are its first 4,096 records; checkpoint 6 is the newest of which all are. With the last chunk `whole` becomes 7.
//
// Invariants:
//  M1  Group offsets are no place for it: they expire, and vanish with their topic (protocols 6). A record of a compacted topic stays.
//  M2  It is read behind the fence only (protocols 5), with read_committed, up to the high watermark seen before the first fetch: where a transaction of somebody else
//      is open in front of that, the reader waits until it has been decided.
//  M3  A writer keeps to the partition that its marker lies in, also when the topic grows.

import { messageOf } from '../../errors.ts';
import type { Logger } from '../../graph/context.ts';
import { pause } from '../pause.ts';
import type { Cluster, WantedPartition } from './client.ts';
import { partitionOfKey } from './partitioner.ts';

/** Unless a sink has one of its own. */
export const MARKER_TOPIC = 'millrace-markers';

export interface Marker {
  readonly checkpoint: number;
  /** Of the checkpoint, from 1; 0: it was not begun. */
  readonly chunk: number;
  /** How many of the checkpoint's records are committed. */
  readonly records: number;
  /** The newest checkpoint that is committed as a whole. */
  readonly whole: number;
}

export const NO_MARKER: Marker = { checkpoint: 0, chunk: 0, records: 0, whole: 0 };

export interface MarkerPlace {
  readonly partition: number;
  /** The marker is here or behind. */
  readonly offset: bigint;
}

export interface FoundMarker {
  /** Undefined: there is none. */
  readonly marker: Marker | undefined;
  readonly place: MarkerPlace;
}

export function markerKey({ uid, lineage, writer }: { readonly uid: string; readonly lineage: string; readonly writer: string }): string {
  return `${uid}/${lineage}/${writer}`;
}

export function encodeMarker(marker: Marker): Buffer {
  return Buffer.from(JSON.stringify(marker));
}

/** Undefined: these bytes are no marker. */
export function decodeMarker(bytes: Uint8Array | null): Marker | undefined {
  if (bytes === null) return undefined;
  try {
    const { checkpoint, chunk, records, whole } = JSON.parse(Buffer.from(bytes).toString()) as Partial<Record<keyof Marker, unknown>>;
    return isCount(checkpoint) && isCount(chunk) && isCount(records) && isCount(whole) ? { checkpoint, chunk, records, whole } : undefined;
  } catch {
    // Whoever wrote that was no writer of ours.
    return undefined;
  }
}

function isCount(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0;
}

export interface MarkerSearch {
  readonly cluster: Cluster;
  readonly topic: string;
  readonly key: string;
  /** Where it was last; undefined: it is looked for in the whole topic. */
  readonly from: MarkerPlace | undefined;
  readonly signal: AbortSignal;
  readonly log: Logger;
  /** Ms since some instant. */
  readonly elapsed: () => number;
}

interface Reading {
  readonly partition: number;
  readonly end: bigint;
  next: bigint;
}

const FETCH = { maxWaitMs: 100, minBytes: 1, maxBytes: 1 << 20, committed: true } as const;
/** After which somebody is told what is waited for. */
const PATIENCE_MS = 5_000;

/** M2. Rejects when the signal is aborted. */
export async function findMarker({ cluster, topic, key, from, signal, log, elapsed }: MarkerSearch): Promise<FoundMarker> {
  const all = await partitionsOf(cluster, topic);
  const partitions = from === undefined ? [...all.keys()] : [from.partition].filter((partition) => all.has(partition));
  const ends = await cluster.offsets(topic, partitions, 'latest', false);
  const starts = await cluster.offsets(topic, partitions, 'earliest', false);
  const readings: Reading[] = partitions.map((partition) => ({
    partition,
    end: ends.get(partition) ?? 0n,
    next: beginning(starts.get(partition) ?? 0n, ends.get(partition) ?? 0n, from),
  }));
  let leaders = all;
  let marker: Marker | undefined;
  // Of a new writer; of one that was here, where it was.
  let place: MarkerPlace = from ?? { partition: partitionOfKey(Buffer.from(key), all.size), offset: 0n };
  if (from === undefined) place = { partition: place.partition, offset: readings.find(({ partition }) => partition === place.partition)?.end ?? 0n };
  const wantedKey = Buffer.from(key);
  const begun = elapsed();
  let said = false;
  for (;;) {
    const left = readings.filter(({ next, end }) => next < end);
    if (left.length === 0) return { marker, place };
    if (signal.aborted) throw new Error('its task ended while its marker was read');
    let moved = false;
    let ahead = false;
    for (const [leader, wanted] of byLeader(topic, left, leaders)) {
      const fetched = leader < 0 ? [] : await cluster.fetch(leader, wanted, FETCH);
      if (leader < 0) moved = true;
      for (const answer of fetched) {
        const reading = readings.find(({ partition }) => partition === answer.partition)!;
        const { records, next, problem } = answer;
        if (problem !== undefined) {
          moved = true;
          if (problem.kind === 'out of range')
            reading.next = (await cluster.offsets(topic, [reading.partition], 'earliest', false)).get(reading.partition) ?? reading.end;
          continue;
        }
        for (const record of records) {
          if (record.key === null || !wantedKey.equals(record.key)) continue;
          const found = decodeMarker(record.value);
          // A copy in another partition would be older: from there the writer has moved on.
          if (found === undefined || (marker !== undefined && isOlder(found, marker))) continue;
          marker = found;
          place = { partition: reading.partition, offset: record.offset };
        }
        if (next > reading.next) {
          reading.next = next;
          ahead = true;
        }
      }
    }
    if (!said && elapsed() - begun > PATIENCE_MS && readings.some(({ next, end }) => next < end)) {
      said = true;
      log.warn(
        { topic, marker: key },
        "The marker of a sink's writer cannot be read yet: another transaction is open in front of it, or its partition has no leader.",
      );
    }
    if (!moved && !ahead) await pause(FETCH.maxWaitMs / 5, signal);
    if (moved) {
      await pause(FETCH.maxWaitMs, signal);
      leaders = await partitionsOf(cluster, topic).catch((error) => {
        log.warn({ topic, error: messageOf(error) }, 'The leaders of the marker topic could not be looked up.');
        return leaders;
      });
    }
  }
}

function isOlder(found: Marker, than: Marker): boolean {
  return (
    found.whole < than.whole ||
    (found.whole === than.whole && (found.checkpoint < than.checkpoint || (found.checkpoint === than.checkpoint && found.chunk < than.chunk)))
  );
}

/** An offset that the partition does not have says that records were removed: then from the oldest on. */
function beginning(start: bigint, end: bigint, from: MarkerPlace | undefined): bigint {
  return from !== undefined && from.offset >= start && from.offset <= end ? from.offset : start;
}

/** Leaders by partition. */
async function partitionsOf(cluster: Cluster, topic: string): Promise<Map<number, number>> {
  const metadata = (await cluster.metadata([topic])).get(topic);
  return new Map((metadata?.partitions ?? []).map(({ partition, leader }) => [partition, leader]));
}

function byLeader(topic: string, readings: readonly Reading[], leaders: ReadonlyMap<number, number>): Map<number, WantedPartition[]> {
  const requests = new Map<number, WantedPartition[]>();
  for (const { partition, next } of readings) {
    const leader = leaders.get(partition) ?? -1;
    const wanted = requests.get(leader);
    if (wanted === undefined) requests.set(leader, [{ topic, partition, offset: next }]);
    else wanted.push({ topic, partition, offset: next });
  }
  return requests;
}
