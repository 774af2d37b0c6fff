// The file of what was in flight at an unaligned checkpoint: records and event time, lane by lane, in order. Every byte is written down in docs/formats.md.
//
//   'MRIF', version (1), then frames: length (u32 LE), CRC-32 of the content (u32 LE), content. A frame's first byte says what it holds:
//     1  records: lane (varint), flags, count (u32 LE), then of each record its timestamp, its key where the lane has keys, its value
//     2  event time: lane (varint), what, a number
//     3  the end: how many frames and records there were before
//
// Invariants:
//  F1  Of a lane, frames stand in the order in which its elements stood. A batch that takes several frames says so in all but its first.
//  F2  A reader gives nothing of a file that is not whole.

import { crc32 } from 'node:zlib';
import { ByteReader, ByteWriter, decodeFrom, encodeInto, hashKey, readKey, writeKey } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import { Batch } from './batch.ts';
import type { TimeEvent } from './operator.ts';

const MAGIC = Buffer.from('MRIF', 'latin1');
export const IN_FLIGHT_VERSION = 1;
const RECORDS = 1;
const TIME = 2;
const END = 3;
const CONTINUES = 1;
const KEYED = 2;
const WHAT = ['watermark', 'idle', 'active'] as const;
/** A frame is closed when it has this many bytes. */
const FRAME_BYTES = 1 << 16;
const FRAME = 8;

/** What a lane holds, in order. */
export type LaneElement = Batch | TimeEvent;

export class InFlightWriter {
  readonly #out = new ByteWriter();
  readonly #blocks: Uint8Array[] = [Buffer.concat([MAGIC, Buffer.from([IN_FLIGHT_VERSION])])];
  #frames = 0;
  #records = 0;
  /** Of the frame that is open. */
  #countAt = 0;
  #count = 0;

  time(lane: number, event: TimeEvent): void {
    const out = this.#begin(TIME, lane);
    out.u8(WHAT.indexOf(event.kind));
    out.f64(event.kind === 'watermark' ? event.time : 0);
    this.#close();
  }

  /** Opens a frame for records of a batch. */
  begin(lane: number, keyed: boolean, continues: boolean): void {
    const out = this.#begin(RECORDS, lane);
    out.u8((continues ? CONTINUES : 0) | (keyed ? KEYED : 0));
    out.need(4);
    this.#countAt = out.at;
    out.at += 4;
    this.#count = 0;
  }

  /** True where the frame is full: `end` it, and `begin` another one that continues. */
  record(batch: Batch, index: number): boolean {
    const out = this.#out;
    out.f64(batch.timestamps[index]!);
    if (batch.keyed) writeKey(out, batch.keys[index]!);
    encodeInto(out, batch.values[index]);
    this.#count += 1;
    return out.at >= FRAME_BYTES;
  }

  end(): void {
    this.#out.bytes.writeUInt32LE(this.#count, this.#countAt);
    this.#records += this.#count;
    this.#close();
  }

  /** The whole file. */
  finish(): readonly Uint8Array[] {
    const out = this.#out;
    out.need(FRAME);
    out.at = FRAME;
    out.u8(END);
    out.varint(this.#frames);
    out.varint(this.#records);
    this.#close();
    return this.#blocks;
  }

  #begin(kind: number, lane: number): ByteWriter {
    const out = this.#out;
    out.need(FRAME);
    out.at = FRAME;
    out.u8(kind);
    out.varint(lane);
    return out;
  }

  #close(): void {
    const block = this.#out.take();
    block.writeUInt32LE(block.length - FRAME, 0);
    block.writeUInt32LE(crc32(block.subarray(FRAME)), 4);
    this.#blocks.push(block);
    this.#frames += 1;
  }
}

/** Reads the whole file, by lane. `takes` chooses records; of those that it refuses nothing is kept. `name` is said where the file is damaged. */
export async function readInFlight(
  file: AsyncIterable<Uint8Array>,
  name: string,
  lanes: number,
  takes: (lane: number, value: unknown, hash: number) => boolean,
): Promise<LaneElement[][]> {
  const parts: Uint8Array[] = [];
  for await (const part of file) parts.push(part);
  const bytes = Buffer.concat(parts);
  const elements = Array.from({ length: lanes }, () => [] as LaneElement[]);
  if (bytes.length <= MAGIC.length || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) throw damaged(name, 'it does not begin as such a file does');
  const version = bytes[MAGIC.length];
  if (version !== IN_FLIGHT_VERSION)
    throw new MillraceError('SNAPSHOT_INCOMPATIBLE', `The file ${name} has format ${version}, and this release reads ${IN_FLIGHT_VERSION}.`, {
      todo: 'Restore it with the release that wrote it.',
    });
  let frames = 0;
  let records = 0;
  let ended = false;
  for (let at = MAGIC.length + 1; at < bytes.length; ) {
    if (ended) throw damaged(name, 'bytes follow its end');
    const length = at + FRAME <= bytes.length ? bytes.readUInt32LE(at) : Number.POSITIVE_INFINITY;
    const end = at + FRAME + length;
    if (end > bytes.length) throw damaged(name, 'it is cut off');
    const content = bytes.subarray(at + FRAME, end);
    if (crc32(content) !== bytes.readUInt32LE(at + 4)) throw damaged(name, 'a checksum does not match');
    at = end;
    try {
      const from = new ByteReader(content);
      const kind = from.u8();
      if (kind === END) {
        if (from.varint() !== frames || from.varint() !== records) throw new RangeError('its counts do not match');
        ended = true;
        continue;
      }
      frames += 1;
      const lane = from.varint();
      const into = elements[lane];
      if (into === undefined) throw new RangeError(`no lane ${lane}`);
      if (kind === TIME) into.push(timeOf(from));
      else if (kind === RECORDS) records += readRecords(from, into, (value, hash) => takes(lane, value, hash));
      else throw new RangeError(`a frame of kind ${kind}`);
      if (from.at !== content.length) throw new RangeError('a frame holds more than it says');
    } catch (error) {
      if (error instanceof MillraceError) throw error;
      throw damaged(name, error instanceof Error ? error.message : 'a frame cannot be read', error);
    }
  }
  if (!ended) throw damaged(name, 'it is cut off');
  return elements.map((all) => all.filter((element) => 'kind' in element || element.size > 0));
}

function timeOf(from: ByteReader): TimeEvent {
  const kind = WHAT[from.u8()];
  const time = from.f64();
  if (kind === undefined) throw new RangeError('an event of no kind');
  return kind === 'watermark' ? { kind, time } : { kind };
}

function readRecords(from: ByteReader, into: LaneElement[], takes: (value: unknown, hash: number) => boolean): number {
  const flags = from.u8();
  const keyed = (flags & KEYED) !== 0;
  const head = from.raw(4);
  const count = head.readUInt32LE(0);
  const before = into.at(-1);
  let batch: Batch;
  if ((flags & CONTINUES) !== 0 && before !== undefined && !('kind' in before)) batch = before;
  else {
    batch = new Batch(keyed, Math.max(1, count));
    into.push(batch);
  }
  for (let i = 0; i < count; i++) {
    const timestamp = from.f64();
    const key = keyed ? readKey(from) : 0;
    const hash = keyed ? hashKey(key) : 0;
    const value = decodeFrom(from);
    if (!takes(value, hash)) continue;
    if (keyed) batch.addKeyed(value, timestamp, key, hash);
    else batch.add(value, timestamp);
  }
  return count;
}

function damaged(name: string, why: string, cause?: unknown): MillraceError {
  return new MillraceError('SNAPSHOT_CORRUPT', `The snapshot file ${name} cannot be used: ${why}.`, {
    cause,
    todo: 'Restore from another checkpoint, or from a backup of this file.',
  });
}
