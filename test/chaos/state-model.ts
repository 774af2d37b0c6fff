// A program whose keyed state follows from how far its input was read, and the oracle that says what it must be. Everything is computed from the number of an
// operation, so that the parent of a killed process knows what each key must hold without having seen anything of it.
//
// Each split has keys of its own and times that ascend. What becomes of a key therefore does not depend on the other splits, but for when it expires: a key whose
// time is over is gone for the record that comes next, whether or not its timer has fired by then.

export const KEYS = 200_000;
export const SPLITS = 4;
/** Places of a key's map. */
export const ENTRIES = 4;
/** One operation in so many is answered with what its key holds. */
export const ANSWERED = 16;
export const PER_SPLIT = KEYS / SPLITS;
const ITEMS_MAX = 6;
const HOT = PER_SPLIT / 50;
const FOREVER = 1e12;

export interface Operation {
  readonly split: number;
  readonly i: number;
  readonly key: number;
  readonly at: number;
  readonly what: 'update' | 'item' | 'entry' | 'forget' | 'drop';
  readonly n: number;
  /** The key expires so many ms later. */
  readonly gap: number;
}

/** The i-th operation of a split. First every key is made once, then keys are hit at random, some much more often. */
export function operation(split: number, i: number): Operation {
  const random = mixed(mixed(i, split + 1), 77);
  const other = mixed(random, 13);
  const own = i < PER_SPLIT ? i : (other & 1) === 0 ? random % HOT : random % PER_SPLIT;
  const dice = other % 100;
  const what = i < PER_SPLIT || dice < 50 ? 'update' : dice < 65 ? 'item' : dice < 80 ? 'entry' : dice < 88 ? 'forget' : 'drop';
  const gap = mixed(other, 5) % 4 === 0 ? 1000 + (mixed(other, 9) % 60_000) : FOREVER;
  return { split, i, key: own * SPLITS + split, at: i, what, n: random % 1_000_000, gap };
}

/** A number from 0 to 2^32 − 1. */
export function mixed(a: number, b: number): number {
  let h = (Math.imul(a ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(b + 0x7f4a7c15, 0xc2b2ae35)) >>> 0;
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return (h ^ (h >>> 15)) >>> 0;
}

/** What a key holds, as one number. */
export function digestOf(n: number, h: number, expires: number, items: readonly number[], entry: (place: number) => number | undefined): number {
  let digest = mixed(mixed(n, h), expires % 2 ** 31);
  for (const item of items) digest = mixed(digest, item);
  for (let place = 0; place < ENTRIES; place++) digest = mixed(digest, entry(place) ?? -1);
  return digest;
}

export function withItem(items: readonly number[], n: number): number[] {
  return items.length === ITEMS_MAX ? [n] : [...items, n];
}

const NO_ITEMS: readonly number[] = [];

/** What every key holds behind the operations so far; 0 in `n`: nothing. */
export class Oracle {
  readonly positions = new Array<number>(SPLITS).fill(0);
  readonly n = new Int32Array(KEYS);
  readonly h = new Float64Array(KEYS);
  readonly expires = new Float64Array(KEYS);
  readonly items: (readonly number[])[] = new Array<readonly number[]>(KEYS).fill(NO_ITEMS);
  /** −1: not there. */
  readonly entries = new Int32Array(KEYS * ENTRIES).fill(-1);
  /** By split: the answer to each ANSWERED-th operation. */
  readonly answers: number[][] = Array.from({ length: SPLITS }, () => []);
  /** `<key>@<time>` of what has expired, or will have when time ends; counted. */
  readonly expired = new Map<string, number>();

  advance(split: number, to: number): void {
    if (to < this.positions[split]!) throw new Error(`The committed position of split ${split} went back from ${this.positions[split]} to ${to}.`);
    for (let i = this.positions[split]!; i < to; i++) this.#apply(operation(split, i));
    this.positions[split] = to;
  }

  #apply({ split, i, key, at, what, n, gap }: Operation): void {
    if (this.n[key]! > 0 && this.expires[key]! <= at) this.expire(key);
    if (what === 'drop') this.#clear(key);
    else {
      if (this.n[key] === 0) this.h[key] = 0;
      this.n[key]! += 1;
      this.h[key] = mixed(this.h[key]!, n);
      this.expires[key] = at + gap;
      if (what === 'item') this.items[key] = withItem(this.items[key]!, n);
      if (what === 'entry') this.entries[key * ENTRIES + (n % ENTRIES)] = n;
      if (what === 'forget') this.entries[key * ENTRIES + (n % ENTRIES)] = -1;
    }
    if (i % ANSWERED === 0) this.answers[split]!.push(this.digest(key));
  }

  expire(key: number): void {
    const name = `${key}@${this.expires[key]}`;
    this.expired.set(name, (this.expired.get(name) ?? 0) + 1);
    this.#clear(key);
  }

  #clear(key: number): void {
    this.n[key] = 0;
    this.h[key] = 0;
    this.expires[key] = 0;
    this.items[key] = NO_ITEMS;
    this.entries.fill(-1, key * ENTRIES, key * ENTRIES + ENTRIES);
  }

  digest(key: number): number {
    if (this.n[key] === 0) return 0;
    return digestOf(this.n[key]!, this.h[key]!, this.expires[key]!, this.items[key]!, (place) => {
      const n = this.entries[key * ENTRIES + place]!;
      return n === -1 ? undefined : n;
    });
  }
}
