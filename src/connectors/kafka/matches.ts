// Repeated strings, which snappy and lz4 both stand on: where the next one begins when compressing, and its copy when unpacking.

const HASH_BITS = 14;

/** Bytes that unpacking fills; it grows, up to a limit. */
export class Unpacked {
  #bytes: Buffer;
  #at = 0;
  readonly #limit: number;

  constructor(expected: number, limit: number) {
    if (expected > limit) throw new RangeError(`it would become ${expected} bytes`);
    this.#bytes = Buffer.allocUnsafe(expected);
    this.#limit = limit;
  }

  get length(): number {
    return this.#at;
  }

  done(): Buffer {
    return this.#bytes.subarray(0, this.#at);
  }

  literal(from: Uint8Array, start: number, length: number): void {
    if (start + length > from.length) throw new RangeError('it ends too soon');
    this.#room(length);
    this.#bytes.set(from.subarray(start, start + length), this.#at);
    this.#at += length;
  }

  /** A copy may reach into what it writes: then it repeats. */
  match(distance: number, length: number): void {
    if (distance === 0 || distance > this.#at) throw new RangeError('it refers to what is not there');
    this.#room(length);
    const from = this.#at - distance;
    if (distance >= length) this.#bytes.copyWithin(this.#at, from, from + length);
    else for (let at = 0; at < length; at++) this.#bytes[this.#at + at] = this.#bytes[from + at]!;
    this.#at += length;
  }

  #room(more: number): void {
    const needed = this.#at + more;
    if (needed <= this.#bytes.length) return;
    if (needed > this.#limit) throw new RangeError(`it becomes more than ${this.#limit} bytes`);
    const larger = Buffer.allocUnsafe(Math.min(this.#limit, Math.max(needed, this.#bytes.length * 2)));
    this.#bytes.copy(larger, 0, 0, this.#at);
    this.#bytes = larger;
  }
}

/**
 * Greedy: at each place the newest with the same four bytes is taken, when it is not further away than 64 KiB. Tells of each stretch: bytes as they are from
 * `literal` to before `at`, then (where length is not 0) `length` bytes that stand `distance` before. The last `tail` bytes are never in a match.
 */
export function findMatches(
  bytes: Buffer,
  start: number,
  end: number,
  tail: number,
  tell: (literal: number, at: number, distance: number, length: number) => void,
): void {
  const newest = new Int32Array(1 << HASH_BITS).fill(-1);
  let literal = start;
  let at = start;
  // The longer nothing is found, the larger the steps: what cannot be compressed costs little.
  let misses = 0;
  while (at + 4 <= end - tail) {
    const word = bytes.readInt32LE(at);
    const hash = Math.imul(word, 0x9e3779b1) >>> (32 - HASH_BITS);
    const candidate = newest[hash]!;
    newest[hash] = at;
    if (candidate < 0 || at - candidate > 0xffff || bytes.readInt32LE(candidate) !== word) {
      at += 1 + (misses++ >> 5);
      continue;
    }
    misses = 0;
    let length = 4;
    while (at + length < end - tail && bytes[candidate + length] === bytes[at + length]) length++;
    tell(literal, at, at - candidate, length);
    at += length;
    literal = at;
  }
  tell(literal, end, 0, 0);
}
