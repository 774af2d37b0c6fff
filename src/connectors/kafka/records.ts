// From records as they lie in the log to what the source gives: values, or whole records with key, headers, partition and offset.
//
// Invariants:
//  V1  A batch that is handed over ends between two records of the log, and `next` stands behind everything that was looked at.
//  V2  A value that does not decode goes to `onBad` with its bytes (a copy), in its place in the order; a format that is misused fails.
//  V3  What is handed over keeps nothing of the answer it came in alive, other than what a format gives: keys and headers are copies.

import { asError, MillraceError, messageOf } from '../../errors.ts';
import { type Format, isFormatMisuse, prepared } from '../formats.ts';
import type { FetchedRecord } from './client.ts';

/** A record of a topic as `kafka.records()` gives it. */
export interface KafkaRecord<T> {
  readonly value: T;
  readonly key: Buffer | null;
  readonly headers: Readonly<Record<string, Buffer>>;
  readonly topic: string;
  readonly partition: number;
  /** A decimal number, which may be too large for a number of JavaScript. */
  readonly offset: string;
  /** Epoch milliseconds; NaN: none. */
  readonly timestamp: number;
}

export interface Piece<T> {
  readonly values: T[];
  readonly timestamps: number[];
  /** Index of the record that the next piece begins with. */
  readonly at: number;
}

export type OnBad = (bytes: Uint8Array, error: Error) => void;

export interface Decoder<T> {
  /** Before a batch is decoded: resolves when its format can; undefined: at once. */
  prepare(records: readonly FetchedRecord[]): Promise<void> | undefined;
  /** Of one batch of a partition, from `at` on: a piece of it. Records from `end` on are left out. */
  decode(place: Place, records: readonly FetchedRecord[], at: number, end: bigint | undefined, onBad: OnBad): Piece<T>;
}

/** What a source makes of the records of a topic. */
export type DecoderOf<T> = (topic: string) => Decoder<T>;

export interface Place {
  readonly topic: string;
  readonly partition: number;
}

/** What is handed over at once: what is left of it at a barrier goes into the snapshot. */
const PIECE_RECORDS = 1024;
const PIECE_BYTES = 64 * 1024;

/** Of `kafka.source()`: tombstones are passed over. */
export function valuesOf<T>(given: Format<T>): DecoderOf<T> {
  return (topic) => {
    const format = given.ofTopic?.(topic) ?? given;
    return { prepare: (records) => preparation(format, records), decode: decodeValues(format) };
  };
}

/** Of `kafka.records()`. */
export function recordsOf<T>(given: Format<T>): DecoderOf<KafkaRecord<T | null>> {
  return (topic) => {
    const format = given.ofTopic?.(topic) ?? given;
    return { prepare: (records) => preparation(format, records), decode: decodeRecords(format) };
  };
}

function preparation<T>(format: Format<T>, records: readonly FetchedRecord[]): Promise<void> | undefined {
  if (format.prepare === undefined) return undefined;
  return prepared(
    format,
    records.flatMap(({ value }) => (value === null ? [] : [value])),
  );
}

function decodeValues<T>(format: Format<T>): Decoder<T>['decode'] {
  return (place, records, start, end, onBad) => {
    const values: T[] = [];
    const timestamps: number[] = [];
    let bytes = 0;
    let at = start;
    for (; at < records.length && at - start < PIECE_RECORDS && bytes < PIECE_BYTES; at++) {
      const { value, offset, timestamp } = records[at]!;
      if (end !== undefined && offset >= end) break;
      if (value === null) continue;
      bytes += value.length;
      try {
        values.push(format.decode(value));
      } catch (error) {
        bad(place, offset, value, error, onBad);
        continue;
      }
      timestamps.push(timestamp === -1 ? Number.NaN : timestamp);
    }
    return { values, timestamps, at };
  };
}

function decodeRecords<T>(format: Format<T>): Decoder<KafkaRecord<T | null>>['decode'] {
  return (place, records, start, end, onBad) => {
    const { topic, partition } = place;
    const values: KafkaRecord<T | null>[] = [];
    const timestamps: number[] = [];
    let bytes = 0;
    let at = start;
    for (; at < records.length && at - start < PIECE_RECORDS && bytes < PIECE_BYTES; at++) {
      const { value: given, key, headers, offset, timestamp: stamped } = records[at]!;
      if (end !== undefined && offset >= end) break;
      let value: T | null = null;
      if (given !== null) {
        bytes += given.length;
        try {
          value = format.decode(given);
        } catch (error) {
          bad(place, offset, given, error, onBad);
          continue;
        }
      }
      const timestamp = stamped === -1 ? Number.NaN : stamped;
      values.push({ value, key: key === null ? null : Buffer.from(key), headers: copied(headers), topic, partition, offset: String(offset), timestamp });
      timestamps.push(timestamp);
    }
    return { values, timestamps, at };
  };
}

function copied(headers: Readonly<Record<string, Buffer>>): Record<string, Buffer> {
  const copies: Record<string, Buffer> = {};
  for (const name in headers) copies[name] = Buffer.from(headers[name]!);
  return copies;
}

function bad({ topic, partition }: Place, offset: bigint, bytes: Buffer, error: unknown, onBad: OnBad): void {
  if (isFormatMisuse(error)) throw error;
  const said = `The record at offset ${offset} of partition ${partition} of '${topic}': ${messageOf(error)}`;
  onBad(new Uint8Array(bytes), new MillraceError('RECORD_UNDECODABLE', said, { cause: asError(error) }));
}
