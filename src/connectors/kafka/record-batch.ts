// Record batches, the form in which Kafka stores and sends records (magic 2): written for a producer, read from a fetch.
//
//    base offset 8 │ length 4 │ leader epoch 4 │ magic 1 │ CRC-32C 4 │ attributes 2 │ last delta 4 │ base time 8 │ largest time 8 │
//    producer 8 │ its epoch 2 │ base sequence 4 │ records 4 ║ records, compressed together where the attributes say so
//
// Both libraries can do this; neither does it fast enough for the targets in docs/benchmarks.md, and neither checks the sum of what it reads.
//
// Invariants:
//  B1  A batch whose CRC does not fit throws KAFKA_CORRUPT: nothing of it is handed on.
//  B2  `next` stands behind the last batch that was complete, whatever was in it: control records and aborted ones are passed over, not met again.
//  B3  With the aborted transactions of the answer (sorted by first offset), no record of them is given. What belongs to open ones the broker does not send.
//  B4  Keys, values and headers that were read are views of the answer's bytes.

import type { FetchedRecord, OutgoingRecord } from './client.ts';
import { type Codec, compressed, decompressed } from './compression.ts';
import { crc32c } from './crc32c.ts';
import { KafkaError } from './errors.ts';

const HEADER_BYTES = 61;
const CRC_AT = 17;
const ATTRIBUTES_AT = 21;
const COMPRESSION_BITS = 7;
const LOG_APPEND_TIME = 8;
const TRANSACTIONAL = 16;
const CONTROL = 32;
/** Of one record, beside its key, value and headers: every length and delta at its longest. */
const RECORD_OVERHEAD = 36;
const HEADER_OVERHEAD = 10;

const NO_HEADERS: Readonly<Record<string, Buffer>> = Object.freeze({});

export interface BatchWriter {
  readonly producerId: bigint;
  readonly epoch: number;
  readonly sequence: number;
  readonly transactional: boolean;
  readonly codec: Codec;
}

/** About what a record takes in a batch; never less, uncompressed. */
export function bytesOf(record: OutgoingRecord): number {
  let bytes = RECORD_OVERHEAD + (record.key?.length ?? 0) + (record.value?.length ?? 0);
  if (record.headers !== undefined) {
    for (const name in record.headers) bytes += HEADER_OVERHEAD + name.length * 3 + record.headers[name]!.length;
  }
  return bytes;
}

/** One batch of one partition; `bytes`: the sum of `bytesOf`. */
export function encodeBatch(records: readonly OutgoingRecord[], bytes: number, writer: BatchWriter): Buffer {
  const base = records[0]!.timestamp;
  let largest = base;
  const plain = Buffer.allocUnsafe(HEADER_BYTES + bytes);
  let at = HEADER_BYTES;
  for (let index = 0; index < records.length; index++) {
    const { timestamp } = records[index]!;
    if (timestamp > largest) largest = timestamp;
    at = writeRecord(plain, at, records[index]!, timestamp - base, index);
  }
  let batch = plain.subarray(0, at);
  if (writer.codec !== 0) {
    const packed = compressed(writer.codec, plain.subarray(HEADER_BYTES, at));
    batch = Buffer.allocUnsafe(HEADER_BYTES + packed.length);
    batch.set(packed, HEADER_BYTES);
  }
  batch.writeBigInt64BE(0n, 0);
  batch.writeInt32BE(batch.length - 12, 8);
  batch.writeInt32BE(-1, 12);
  batch.writeInt8(2, 16);
  batch.writeInt16BE(writer.codec | (writer.transactional ? TRANSACTIONAL : 0), ATTRIBUTES_AT);
  batch.writeInt32BE(records.length - 1, 23);
  batch.writeBigInt64BE(BigInt(base), 27);
  batch.writeBigInt64BE(BigInt(largest), 35);
  batch.writeBigInt64BE(writer.producerId, 43);
  batch.writeInt16BE(writer.epoch, 51);
  batch.writeInt32BE(writer.sequence, 53);
  batch.writeInt32BE(records.length, 57);
  batch.writeUInt32BE(crc32c(batch, ATTRIBUTES_AT, batch.length), CRC_AT);
  return batch;
}

function writeRecord(bytes: Buffer, start: number, record: OutgoingRecord, timeDelta: number, offsetDelta: number): number {
  const { key, value, headers } = record;
  const keyLength = key === null ? -1 : key.length;
  const valueLength = value === null ? -1 : value.length;
  let length = 1 + varintBytes(timeDelta) + varintBytes(offsetDelta) + varintBytes(keyLength) + varintBytes(valueLength);
  if (key !== null) length += keyLength;
  if (value !== null) length += valueLength;
  let headerCount = 0;
  if (headers !== undefined) {
    for (const name in headers) {
      headerCount++;
      const nameBytes = Buffer.byteLength(name);
      const headerBytes = headers[name]!.length;
      length += varintBytes(nameBytes) + nameBytes + varintBytes(headerBytes) + headerBytes;
    }
  }
  length += varintBytes(headerCount);
  let at = writeVarint(bytes, start, length);
  bytes[at++] = 0;
  at = writeVarint(bytes, at, timeDelta);
  at = writeVarint(bytes, at, offsetDelta);
  at = writeVarint(bytes, at, keyLength);
  if (key !== null) {
    bytes.set(key, at);
    at += keyLength;
  }
  at = writeVarint(bytes, at, valueLength);
  if (value !== null) {
    bytes.set(value, at);
    at += valueLength;
  }
  at = writeVarint(bytes, at, headerCount);
  if (headerCount > 0) {
    for (const name in headers) {
      at = writeVarint(bytes, at, Buffer.byteLength(name));
      at += bytes.write(name, at);
      const header = headers[name]!;
      at = writeVarint(bytes, at, header.length);
      bytes.set(header, at);
      at += header.length;
    }
  }
  return at;
}

/** Zigzag; of numbers up to 2^52, since times may be further apart than 31 bits tell. */
function writeVarint(bytes: Buffer, start: number, value: number): number {
  let at = start;
  let left = value < 0 ? -2 * value - 1 : 2 * value;
  while (left > 127) {
    bytes[at++] = (left % 128) | 128;
    left = Math.floor(left / 128);
  }
  bytes[at++] = left;
  return at;
}

function varintBytes(value: number): number {
  let left = value < 0 ? -2 * value - 1 : 2 * value;
  let bytes = 1;
  for (; left > 127; bytes++) left = Math.floor(left / 128);
  return bytes;
}

export interface AbortedTransaction {
  readonly producerId: bigint;
  readonly firstOffset: bigint;
}

export interface Decoded {
  readonly records: FetchedRecord[];
  readonly next: bigint;
}

/** The records of an answer from `wanted` on; `place` names the partition in errors. */
export function decodeBatches(bytes: Buffer, wanted: bigint, aborted: readonly AbortedTransaction[], place: string): Decoded {
  const records: FetchedRecord[] = [];
  const first = Number(wanted);
  let next = first;
  const waiting = aborted.length > 1 ? [...aborted].sort((a, b) => Number(a.firstOffset - b.firstOffset)) : [...aborted];
  const aborting = new Set<bigint>();
  let end = 0;
  for (let start = 0; start + HEADER_BYTES <= bytes.length; start = end) {
    if (bytes[start + 16] !== 2) {
      throw new KafkaError('KAFKA_VERSION', `There are records of format ${bytes[start + 16]} in ${place}, which brokers wrote before Kafka 0.11.`, {
        todo: 'Read them with another client, or wait until they have expired.',
      });
    }
    end = start + 12 + bytes.readInt32BE(start + 8);
    // The broker cuts off where its limit is.
    if (end > bytes.length) break;
    if (end < start + HEADER_BYTES || crc32c(bytes, start + ATTRIBUTES_AT, end) !== bytes.readUInt32BE(start + CRC_AT))
      throw corrupt(place, 'the checksum does not fit');
    const base = Number(bytes.readBigInt64BE(start));
    const last = base + bytes.readInt32BE(start + 23);
    if (last < first) continue;
    next = last + 1;
    const attributes = bytes.readInt16BE(start + ATTRIBUTES_AT);
    if ((attributes & TRANSACTIONAL) !== 0 && aborted.length > 0) {
      while (waiting.length > 0 && waiting[0]!.firstOffset <= last) aborting.add(waiting.shift()!.producerId);
      const producer = bytes.readBigInt64BE(start + 43);
      if ((attributes & CONTROL) !== 0) aborting.delete(producer);
      else if (aborting.has(producer)) continue;
    }
    if ((attributes & CONTROL) === 0) readRecords(bytes, start, end, attributes, base, first, records, place);
  }
  return { records, next: BigInt(next) };
}

function readRecords(bytes: Buffer, start: number, end: number, attributes: number, base: number, first: number, into: FetchedRecord[], place: string): void {
  const codec = (attributes & COMPRESSION_BITS) as Codec;
  const count = bytes.readInt32BE(start + 57);
  const baseTime = Number(bytes.readBigInt64BE(start + 27));
  // Where the broker sets the time, that is when it stored the batch.
  const appendTime = (attributes & LOG_APPEND_TIME) === 0 ? undefined : Number(bytes.readBigInt64BE(start + 35));
  const cursor = codec === 0 ? new Cursor(bytes, start + HEADER_BYTES, end) : plainCursor(codec, bytes.subarray(start + HEADER_BYTES, end), place);
  for (let index = 0; index < count; index++) {
    const length = cursor.varint();
    const behind = cursor.at + length;
    if (length < 1 || behind > cursor.end) throw corrupt(place, 'a record is longer than its batch');
    cursor.at++;
    const timestamp = appendTime ?? (baseTime === -1 ? -1 : baseTime + cursor.varint());
    if (appendTime !== undefined || baseTime === -1) cursor.varint();
    const offset = base + cursor.varint();
    if (offset >= first) {
      const key = cursor.bytesOrNull();
      const value = cursor.bytesOrNull();
      const headers = cursor.varint();
      into.push({ offset: BigInt(offset), timestamp, key, value, headers: headers === 0 ? NO_HEADERS : cursor.headers(headers) });
      if (cursor.at > behind) throw corrupt(place, 'a field is longer than its record');
    }
    cursor.at = behind;
  }
}

function plainCursor(codec: Codec, packed: Buffer, place: string): Cursor {
  const plain = decompressed(codec, packed, place);
  return new Cursor(plain, 0, plain.length);
}

class Cursor {
  readonly bytes: Buffer;
  at: number;
  readonly end: number;

  constructor(bytes: Buffer, start: number, end: number) {
    this.bytes = bytes;
    this.at = start;
    this.end = end;
  }

  varint(): number {
    const byte = this.bytes[this.at++]!;
    if (byte < 128) return (byte >>> 1) ^ -(byte & 1);
    let value = byte & 127;
    let weight = 128;
    for (;;) {
      // Beyond the end there are no more bytes: whoever uses the value finds it beyond the end.
      const more = this.bytes[this.at++] ?? 0;
      value += (more & 127) * weight;
      if (more < 128) return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
      weight *= 128;
    }
  }

  bytesOrNull(): Buffer | null {
    const length = this.varint();
    return length < 0 ? null : this.take(length);
  }

  take(length: number): Buffer {
    const from = this.at;
    this.at += length;
    return this.bytes.subarray(from, this.at);
  }

  /** Of several with one name the last counts. A header without a value is empty. */
  headers(count: number): Readonly<Record<string, Buffer>> {
    const headers: Record<string, Buffer> = {};
    for (let left = count; left > 0 && this.at < this.end; left--) {
      const name = this.take(this.varint()).toString('utf8');
      const value = this.bytesOrNull() ?? EMPTY;
      // A header may be called like anything, also `__proto__`.
      if (name === '__proto__') Object.defineProperty(headers, name, { value, enumerable: true, configurable: true, writable: true });
      else headers[name] = value;
    }
    return headers;
  }
}

const EMPTY = Buffer.alloc(0);

function corrupt(place: string, why: string): KafkaError {
  return new KafkaError('KAFKA_CORRUPT', `A record batch of ${place} is damaged: ${why}.`, { again: 'later' });
}
