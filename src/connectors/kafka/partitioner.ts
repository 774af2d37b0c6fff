// Which partition a record goes to: as the Java client decides, so that a key lies where every other client expects it.
//
// With a key: murmur2 of its bytes, without the sign, modulo the number of partitions. Without one: a partition is kept for a while and then the next one is taken,
// so that batches are large.

const SEED = 0x9747b28c;
const M = 0x5bd1e995;
/** Bytes without a key that go to one partition before the next one is taken. */
const STICKY_BYTES = 64 * 1024;

/** Kafka's own, signed. */
export function murmur2(bytes: Uint8Array): number {
  const { length } = bytes;
  let h = SEED ^ length;
  let at = 0;
  for (; at + 4 <= length; at += 4) {
    let k = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    k = Math.imul(k, M);
    k = Math.imul(k ^ (k >>> 24), M);
    h = Math.imul(h, M) ^ k;
  }
  const left = length - at;
  if (left === 3) h ^= bytes[at + 2]! << 16;
  if (left >= 2) h ^= bytes[at + 1]! << 8;
  if (left >= 1) h = Math.imul(h ^ bytes[at]!, M);
  h = Math.imul(h ^ (h >>> 13), M);
  return h ^ (h >>> 15);
}

export function partitionOfKey(key: Uint8Array, partitions: number): number {
  return (murmur2(key) & 0x7fffffff) % partitions;
}

/** Where records without a key go: one partition of a topic after the other. */
export class Sticky {
  readonly #first: number;
  readonly #topics = new Map<string, { partition: number; bytes: number }>();

  /** Writers that begin at different partitions fill all of them. */
  constructor(first: number) {
    this.#first = first;
  }

  partition(topic: string, partitions: number, bytes: number): number {
    let at = this.#topics.get(topic);
    if (at === undefined) {
      at = { partition: this.#first, bytes: 0 };
      this.#topics.set(topic, at);
    } else if (at.bytes >= STICKY_BYTES) {
      at.partition += 1;
      at.bytes = 0;
    }
    at.bytes += bytes;
    return at.partition % partitions;
  }
}
