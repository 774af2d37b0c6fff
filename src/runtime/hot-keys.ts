// Which keys of a keyed operator get the most records, estimated: a space-saving sketch (Metwally, Agrawal, El Abbadi) over a sample.
//
// What: of each chunk of records one is looked at, and counts for all that have come since the last. So the records themselves cost nothing, and it is always on;
// in return the figures are rough, and say nothing of operators that have seen few records.
//
// Invariants:
//  K1  A key's weight is given at least, never too large by what it took over from the key whose place it got.
//  K2  What was long ago fades: each time that so many samples have come, all weights are halved.

import { type Key, sameKey } from '../../state-backends/index.ts';

/** Keys that are counted at a time. */
const PLACES = 64;
/** So many records are passed over at least, and twice as many at most, before one is looked at again. */
const STRIDE = 64;
const FADES_AFTER = 4096;

/** How much of what has come was of this key: 0 … 1. */
export interface HotKey {
  readonly key: Key;
  readonly share: number;
}

export interface WeighedKeys {
  /** Of all records, as far as they have not faded. */
  readonly total: number;
  readonly keys: readonly { readonly key: Key; readonly weight: number }[];
}

export class HotKeys {
  readonly #keys: Key[] = [];
  readonly #hashes = new Int32Array(PLACES);
  readonly #weights = new Float64Array(PLACES);
  /** What of a weight was another key's. */
  readonly #taken = new Float64Array(PLACES);
  #total = 0;
  #samples = 0;
  #passed = 0;
  #wanted = STRIDE;
  #random = 0;

  /** These records have been processed. */
  saw(keys: readonly Key[], hashes: Int32Array, from: number, to: number): void {
    this.#passed += to - from;
    if (this.#passed < this.#wanted) return;
    // Where and when follows no pattern of the input; a linear congruence is random enough for that.
    this.#random = (Math.imul(this.#random, 1664525) + 1013904223) >>> 0;
    const share = this.#random / 2 ** 32;
    const at = from + Math.floor(share * (to - from));
    this.#count(keys[at]!, hashes[at]!, this.#passed);
    this.#passed = 0;
    this.#wanted = STRIDE + (this.#random >>> 26);
  }

  #count(key: Key, hash: number, weight: number): void {
    if (++this.#samples === FADES_AFTER) this.#fade();
    this.#total += weight;
    const keys = this.#keys;
    let least = 0;
    for (let i = 0; i < keys.length; i++) {
      if (this.#hashes[i] === hash && sameKey(keys[i]!, key)) {
        this.#weights[i]! += weight;
        return;
      }
      if (this.#weights[i]! < this.#weights[least]!) least = i;
    }
    const free = keys.length < PLACES;
    const place = free ? keys.length : least;
    keys[place] = key;
    this.#hashes[place] = hash;
    this.#taken[place] = free ? 0 : this.#weights[place]!;
    this.#weights[place] = this.#taken[place]! + weight;
  }

  /** K2. */
  #fade(): void {
    this.#samples = 0;
    this.#total /= 2;
    for (let i = 0; i < PLACES; i++) {
      this.#weights[i]! /= 2;
      this.#taken[i]! /= 2;
    }
  }

  get weighed(): WeighedKeys {
    return { total: this.#total, keys: this.#keys.map((key, i) => ({ key, weight: this.#weights[i]! - this.#taken[i]! })) };
  }
}

const SHOWN = 5;
/** Below that nobody calls a key hot. */
const LEAST_SHARE = 0.01;

/** The hottest of an operator, from what its instances have counted: a key is in one of them. */
export function hottest(instances: readonly WeighedKeys[]): HotKey[] {
  const total = instances.reduce((sum, each) => sum + each.total, 0);
  return instances
    .flatMap(({ keys }) => keys.map(({ key, weight }) => ({ key, share: weight / total })))
    .filter(({ share }) => share >= LEAST_SHARE)
    .sort((one, other) => other.share - one.share)
    .slice(0, SHOWN);
}
