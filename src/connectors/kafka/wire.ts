// The primitives of Kafka's protocol: what requests are written with and answers read with.
//
// What: big-endian numbers, strings and arrays with a length before them (`compact` ones with an unsigned varint of length + 1, in versions that are
// flexible), and tagged fields, of which we write none and pass over all. Record batches have a form of their own: record-batch.ts.
//
// Invariant: an answer that ends too soon throws a RangeError, and never gives half of a value.

export class WireWriter {
  #bytes: Buffer;
  #at = 0;

  constructor(bytes = 256) {
    this.#bytes = Buffer.allocUnsafe(bytes);
  }

  /** What was written; the writer is not used again. */
  done(): Buffer {
    return this.#bytes.subarray(0, this.#at);
  }

  int8(value: number): void {
    this.#room(1);
    this.#at = this.#bytes.writeInt8(value, this.#at);
  }

  boolean(value: boolean): void {
    this.int8(value ? 1 : 0);
  }

  int16(value: number): void {
    this.#room(2);
    this.#at = this.#bytes.writeInt16BE(value, this.#at);
  }

  int32(value: number): void {
    this.#room(4);
    this.#at = this.#bytes.writeInt32BE(value, this.#at);
  }

  int64(value: bigint): void {
    this.#room(8);
    this.#at = this.#bytes.writeBigInt64BE(value, this.#at);
  }

  unsignedVarint(value: number): void {
    this.#room(5);
    let left = value;
    while (left > 127) {
      this.#bytes[this.#at++] = (left & 127) | 128;
      left >>>= 7;
    }
    this.#bytes[this.#at++] = left;
  }

  string(value: string | null): void {
    if (value === null) {
      this.int16(-1);
    } else {
      const length = Buffer.byteLength(value);
      this.int16(length);
      this.#text(value, length);
    }
  }

  compactString(value: string | null): void {
    if (value === null) {
      this.unsignedVarint(0);
    } else {
      const length = Buffer.byteLength(value);
      this.unsignedVarint(length + 1);
      this.#text(value, length);
    }
  }

  /** As they are: a length, where one belongs before them, has been written. */
  raw(value: Uint8Array): void {
    this.#room(value.length);
    this.#bytes.set(value, this.#at);
    this.#at += value.length;
  }

  /** 16 bytes, given as metadata gives a topic's id. */
  uuid(hex: string): void {
    this.raw(Buffer.from(hex, 'hex'));
  }

  array<T>(values: readonly T[], write: (value: T) => void): void {
    this.int32(values.length);
    for (const value of values) write(value);
  }

  compactArray<T>(values: readonly T[], write: (value: T) => void): void {
    this.unsignedVarint(values.length + 1);
    for (const value of values) write(value);
  }

  noTags(): void {
    this.unsignedVarint(0);
  }

  #text(value: string, length: number): void {
    this.#room(length);
    this.#at += this.#bytes.write(value, this.#at, length);
  }

  #room(more: number): void {
    if (this.#at + more <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.#at + more));
    this.#bytes.copy(larger, 0, 0, this.#at);
    this.#bytes = larger;
  }
}

export class WireReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  int8(): number {
    this.#at += 1;
    return this.#bytes.readInt8(this.#at - 1);
  }

  boolean(): boolean {
    return this.int8() !== 0;
  }

  int16(): number {
    this.#at += 2;
    return this.#bytes.readInt16BE(this.#at - 2);
  }

  int32(): number {
    this.#at += 4;
    return this.#bytes.readInt32BE(this.#at - 4);
  }

  int64(): bigint {
    this.#at += 8;
    return this.#bytes.readBigInt64BE(this.#at - 8);
  }

  unsignedVarint(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.#bytes.readUInt8(this.#at++);
      value |= (byte & 127) << shift;
      if (byte < 128) return value >>> 0;
    }
    throw new RangeError('A varint of more than five bytes.');
  }

  /** Where null cannot be, '' stands for it. */
  string(): string {
    return this.nullableString() ?? '';
  }

  nullableString(): string | null {
    const length = this.int16();
    return length < 0 ? null : this.#slice(length).toString('utf8');
  }

  compactString(): string {
    const length = this.unsignedVarint();
    return length === 0 ? '' : this.#slice(length - 1).toString('utf8');
  }

  compactBytes(): Buffer {
    const length = this.unsignedVarint();
    return length === 0 ? EMPTY : this.#slice(length - 1);
  }

  uuid(): string {
    return this.#slice(16).toString('hex');
  }

  /** Null reads as empty. */
  array<T>(read: () => T): T[] {
    return this.#many(this.int32(), read);
  }

  compactArray<T>(read: () => T): T[] {
    return this.#many(this.unsignedVarint() - 1, read);
  }

  skipTags(): void {
    for (let left = this.unsignedVarint(); left > 0; left--) {
      this.unsignedVarint();
      this.#slice(this.unsignedVarint());
    }
  }

  #many<T>(count: number, read: () => T): T[] {
    const all: T[] = [];
    for (let left = count; left > 0; left--) all.push(read());
    return all;
  }

  #slice(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw new RangeError('The answer ends too soon.');
    const slice = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return slice;
  }
}

const EMPTY = Buffer.alloc(0);
