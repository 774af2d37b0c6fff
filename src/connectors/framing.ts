// Framing: where records begin and end in a stream of bytes that arrives in blocks.
//
// What: a framer is pushed blocks, as they come from a file, a decompressor or a socket, and gives back regions that hold whole records, with the
// exact offset behind each. Lines end with a line feed; other formats stand behind their length (4 bytes, big-endian). `decodeLines` and
// `decodeFrames` turn a region into values.
//
// Invariants:
// R1  `offset` counts every byte of the regions given so far, and nothing else: reading again from there neither loses nor repeats a record.
// R2  a region never ends inside a record, so a character of several bytes is never cut. The last line may lack its line feed.
// R3  a record that does not decode is handed to `onBad` with its own bytes (a copy), in its place in the order.

import { asError, MillraceError } from '../errors.ts';
import { type Format, isFormatMisuse, type LineCodec, prepared } from './formats.ts';

const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;
/** Beyond this a missing line feed, or a wrong length, is more likely than a record. */
export const RECORD_BYTES_MAX = 64 * 1024 * 1024;

export type OnBad = (bytes: Uint8Array, error: Error) => void;

export interface Region {
  readonly bytes: Buffer;
  /** Of the first byte behind the region. */
  readonly offset: number;
}

export class Framer {
  readonly #ofLines: boolean;
  #offset: number;
  #kept: Buffer[] = [];
  #keptBytes = 0;
  /** Of frames: the bytes that complete the first one kept. */
  #needed = 4;

  /** `offset`: of the first byte that will be pushed. */
  constructor(ofLines: boolean, offset: number) {
    this.#ofLines = ofLines;
    this.#offset = offset;
  }

  /** All whole records there are by now, in one region; undefined: not one yet. The region may refer to `block`. */
  push(block: Buffer): Region | undefined {
    // What is kept holds no end of a record, so a long record costs one look at each of its blocks.
    if (this.#ofLines ? !block.includes(LINE_FEED) : this.#keptBytes + block.length < this.#needed) {
      this.#keep(block);
      return undefined;
    }
    const bytes = this.#keptBytes === 0 ? block : Buffer.concat([...this.#kept, block]);
    const end = this.#ofLines ? bytes.lastIndexOf(LINE_FEED) + 1 : endOfFrames(bytes);
    this.#kept = [];
    this.#keptBytes = 0;
    this.#keep(bytes.subarray(end));
    if (!this.#ofLines) this.#needed = this.#keptBytes < 4 ? 4 : 4 + bytes.readUInt32BE(end);
    if (end === 0) return undefined;
    this.#offset += end;
    return { bytes: bytes.subarray(0, end), offset: this.#offset };
  }

  /** What is left when the stream has ended: a line without its line feed, or a frame that was cut off. */
  rest(): Region | undefined {
    if (this.#keptBytes === 0) return undefined;
    const bytes = Buffer.concat(this.#kept);
    this.#kept = [];
    this.#keptBytes = 0;
    this.#offset += bytes.length;
    return { bytes, offset: this.#offset };
  }

  #keep(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#kept.push(bytes);
    this.#keptBytes += bytes.length;
    if (this.#keptBytes > RECORD_BYTES_MAX) {
      throw new MillraceError('RECORD_TOO_LARGE', `The record at offset ${this.#offset} is longer than ${RECORD_BYTES_MAX} bytes.`, {
        todo: 'Check that the format is the one the bytes were written in.',
      });
    }
  }
}

/** A region in pieces of about `size` bytes that end with a line feed: what a source hands over at once. */
export function* pieces(region: Region, size: number): Generator<Region> {
  const { bytes } = region;
  const start = region.offset - bytes.length;
  let at = 0;
  while (bytes.length - at > size) {
    let end = bytes.lastIndexOf(LINE_FEED, at + size - 1) + 1;
    if (end <= at) end = bytes.indexOf(LINE_FEED, at + size) + 1;
    if (end <= at || end === bytes.length) break;
    yield { bytes: bytes.subarray(at, end), offset: start + end };
    at = end;
  }
  yield at === 0 ? region : { bytes: bytes.subarray(at), offset: region.offset };
}

export function decodeLines<T>(region: Buffer, codec: LineCodec<T>, read: (line: string) => T, onBad: OnBad): T[] {
  const values: T[] = [];
  const all = region.toString('utf8');
  let at = 0;
  // The bytes of a bad line are looked up by its number; `seen` and `seenAt` spare a second walk from the start.
  let line = 0;
  let seen = 0;
  let seenAt = 0;
  while (at < all.length) {
    let next = all.indexOf('\n', at);
    if (next < 0) next = all.length;
    const end = next > at && all.charCodeAt(next - 1) === CARRIAGE_RETURN ? next - 1 : next;
    if (end > at || !codec.skipsBlank) {
      try {
        values.push(read(all.slice(at, end)));
      } catch (error) {
        if (isFormatMisuse(error)) throw error;
        for (; seen < line; seen += 1) seenAt = region.indexOf(LINE_FEED, seenAt) + 1;
        onBad(lineAt(region, seenAt), asError(error));
      }
    }
    at = next + 1;
    line += 1;
  }
  return values;
}

function lineAt(region: Buffer, start: number): Uint8Array {
  let end = region.indexOf(LINE_FEED, start);
  if (end < 0) end = region.length;
  if (end > start && region[end - 1] === CARRIAGE_RETURN) end -= 1;
  return new Uint8Array(region.subarray(start, end));
}

export function decodeFrames<T>(region: Buffer, format: Format<T>, onBad: OnBad): T[] {
  const values: T[] = [];
  let at = 0;
  while (at < region.length) {
    const end = at + 4 <= region.length ? at + 4 + region.readUInt32BE(at) : Number.POSITIVE_INFINITY;
    if (end > region.length) {
      onBad(new Uint8Array(region.subarray(at)), new MillraceError('RECORD_UNDECODABLE', 'The stream ends in the middle of a record.'));
      break;
    }
    const bytes = region.subarray(at + 4, end);
    try {
      values.push(format.decode(bytes));
    } catch (error) {
      if (isFormatMisuse(error)) throw error;
      onBad(new Uint8Array(bytes), asError(error));
    }
    at = end;
  }
  return values;
}

/** Resolves when the format can decode every frame of the region; undefined: at once. */
export function preparedFrames<T>(region: Buffer, format: Format<T>): Promise<void> | undefined {
  if (format.prepare === undefined) return undefined;
  const records: Buffer[] = [];
  for (let at = 0; at + 4 <= region.length; ) {
    const end = at + 4 + region.readUInt32BE(at);
    if (end > region.length) break;
    records.push(region.subarray(at + 4, end));
    at = end;
  }
  return prepared(format, records);
}

export function frame(bytes: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafe(bytes.length + 4);
  framed.writeUInt32BE(bytes.length, 0);
  framed.set(bytes, 4);
  return framed;
}

function endOfFrames(bytes: Buffer): number {
  let at = 0;
  for (;;) {
    if (at + 4 > bytes.length) return at;
    const length = bytes.readUInt32BE(at);
    if (length > RECORD_BYTES_MAX) {
      throw new MillraceError('RECORD_TOO_LARGE', `A record says that it has ${length} bytes, more than ${RECORD_BYTES_MAX}.`, {
        todo: 'Check that the format is the one the bytes were written in.',
      });
    }
    if (at + 4 + length > bytes.length) return at;
    at += 4 + length;
  }
}
