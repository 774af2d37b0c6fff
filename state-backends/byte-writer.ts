// A growing buffer that values, keys and rows are appended to, and the cursor they are read with.
//
// Who owns what: whoever appends calls `need(n)` before it stores n bytes at `at`; `take()` gives the bytes away, `reset()` keeps the buffer.
// Strings are WTF-8: UTF-8 in which lone surrogates keep their three bytes, so that different strings never share their bytes (protocols 23).

const LONE_SURROGATE = /[\ud800-\udfff]/u;

export class ByteWriter {
  bytes: Buffer;
  view: DataView;
  at: number;

  constructor(capacity = 1 << 12) {
    this.bytes = Buffer.allocUnsafeSlow(capacity);
    this.view = new DataView(this.bytes.buffer, this.bytes.byteOffset, capacity);
    this.at = 0;
  }

  need(more: number): void {
    if (this.at + more > this.bytes.length) this.grow(more);
  }

  private grow(more: number): void {
    const bytes = Buffer.allocUnsafeSlow(Math.max(this.bytes.length * 2, this.at + more));
    this.bytes.copy(bytes, 0, 0, this.at);
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  reset(): void {
    this.at = 0;
  }

  /** A copy of what was written. */
  take(): Buffer {
    const out = Buffer.allocUnsafeSlow(this.at);
    this.moveTo(out);
    return out;
  }

  /** As `take()`, for what is given up soon: small ones are cut from a buffer that they share. */
  takeBriefly(): Buffer {
    const out = Buffer.allocUnsafe(this.at);
    this.moveTo(out);
    return out;
  }

  /** What was written goes to a place of that size. */
  moveTo(place: Buffer): void {
    this.bytes.copy(place, 0, 0, this.at);
    this.at = 0;
  }

  u8(value: number): void {
    if (this.at + 1 > this.bytes.length) this.grow(1);
    this.bytes[this.at++] = value;
  }

  /** Unsigned LEB128; up to 2^53. */
  varint(value: number): void {
    if (this.at + 8 > this.bytes.length) this.grow(8);
    let rest = value;
    while (rest > 0x7f) {
      this.bytes[this.at++] = (rest % 128) | 0x80;
      rest = Math.floor(rest / 128);
    }
    this.bytes[this.at++] = rest;
  }

  f64(value: number): void {
    if (this.at + 8 > this.bytes.length) this.grow(8);
    this.view.setFloat64(this.at, value);
    this.at += 8;
  }

  raw(content: Uint8Array): void {
    this.need(content.length);
    this.bytes.set(content, this.at);
    this.at += content.length;
  }

  /** WTF-8 without a length; returns how many bytes that were. */
  text(value: string): number {
    const { length } = value;
    this.need(length * 3);
    const start = this.at;
    if (length > 40) {
      // One native call for long strings; it turns lone surrogates into U+FFFD, so those are looked for first.
      if (!LONE_SURROGATE.test(value)) {
        this.at += this.bytes.write(value, start, 'utf8');
        return this.at - start;
      }
    }
    const { bytes } = this;
    let at = start;
    for (let i = 0; i < length; i++) {
      let code = value.charCodeAt(i);
      if (code < 0x80) {
        bytes[at++] = code;
        continue;
      }
      if (code < 0x800) {
        bytes[at++] = 0xc0 | (code >> 6);
        bytes[at++] = 0x80 | (code & 0x3f);
        continue;
      }
      if (code >= 0xd800 && code < 0xdc00 && i + 1 < length) {
        const low = value.charCodeAt(i + 1);
        if (low >= 0xdc00 && low < 0xe000) {
          i++;
          code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
          bytes[at++] = 0xf0 | (code >> 18);
          bytes[at++] = 0x80 | ((code >> 12) & 0x3f);
          bytes[at++] = 0x80 | ((code >> 6) & 0x3f);
          bytes[at++] = 0x80 | (code & 0x3f);
          continue;
        }
      }
      bytes[at++] = 0xe0 | (code >> 12);
      bytes[at++] = 0x80 | ((code >> 6) & 0x3f);
      bytes[at++] = 0x80 | (code & 0x3f);
    }
    this.at = at;
    return at - start;
  }
}

export class ByteReader {
  bytes: Buffer;
  view: DataView;
  at: number;
  end: number;

  constructor(bytes: Uint8Array, at = 0, end = bytes.length) {
    this.bytes = bytesOf(bytes);
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.at = at;
    this.end = end;
  }

  /** Reads other bytes from now on. */
  open(bytes: Uint8Array): void {
    this.bytes = bytesOf(bytes);
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.at = 0;
    this.end = bytes.length;
  }

  private has(n: number): void {
    if (this.at + n > this.end) throw new RangeError(`The bytes end at ${this.end}, ${this.at + n - this.end} too early.`);
  }

  u8(): number {
    this.has(1);
    return this.bytes[this.at++]!;
  }

  varint(): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 8; i++) {
      const byte = this.u8();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      scale *= 128;
    }
    throw new RangeError(`A length of more than 8 bytes at ${this.at}.`);
  }

  f64(): number {
    this.has(8);
    const value = this.view.getFloat64(this.at);
    this.at += 8;
    return value;
  }

  /** A view of the next n bytes. */
  raw(n: number): Buffer {
    this.has(n);
    const bytes = this.bytes.subarray(this.at, this.at + n);
    this.at += n;
    return bytes;
  }

  /** n bytes of WTF-8. */
  text(n: number): string {
    this.has(n);
    const { bytes, at } = this;
    const end = at + n;
    this.at = end;
    if (n <= 24) {
      let text = '';
      let i = at;
      for (; i < end; i++) {
        const byte = bytes[i]!;
        if (byte >= 0x80) break;
        text += String.fromCharCode(byte);
      }
      if (i === end) return text;
    }
    return decodeText(bytes, at, end);
  }
}

function bytesOf(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** The native decoder is right unless a surrogate's three bytes (ED A0…BF xx) occur: then it is done by hand. */
function decodeText(bytes: Buffer, from: number, end: number): string {
  for (let i = bytes.indexOf(0xed, from); i !== -1 && i < end - 1; i = bytes.indexOf(0xed, i + 1)) {
    if (bytes[i + 1]! >= 0xa0) return decodeByHand(bytes, from, end);
  }
  return bytes.toString('utf8', from, end);
}

function decodeByHand(bytes: Buffer, from: number, end: number): string {
  let text = '';
  for (let i = from; i < end; ) {
    const a = bytes[i++]!;
    if (a < 0x80) text += String.fromCharCode(a);
    else if (a < 0xe0) text += String.fromCharCode(((a & 0x1f) << 6) | (bytes[i++]! & 0x3f));
    else if (a < 0xf0) text += String.fromCharCode(((a & 0xf) << 12) | ((bytes[i++]! & 0x3f) << 6) | (bytes[i++]! & 0x3f));
    else text += String.fromCodePoint(((a & 7) << 18) | ((bytes[i++]! & 0x3f) << 12) | ((bytes[i++]! & 0x3f) << 6) | (bytes[i++]! & 0x3f));
  }
  return text;
}
