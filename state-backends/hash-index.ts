// The index of a table: 32-bit hash → position of a row in the table's dense array. It never looks at rows and never hashes.
//
// Linear probing over Int32Array pairs [hash, position + 1], so that growing reads no row. A small index is one segment; a large one is 256 of
// them, each growing on its own: no insertion pays for more than a few thousand moves. A task holds only some of the hashes' low bits
// (S6: `hash % maxParallelism`), hence the mixing before masking.

const SEGMENT_SPLIT = 8192;

export class HashIndex {
  private segments: Int32Array[] = [new Int32Array(32)];
  private used = new Int32Array(1);
  /** 0 while there is one segment, then 255. */
  private mask = 0;
  // Where `first` found its answer, for `next`.
  private cursor = 0;
  size = 0;

  /** The position of the first entry with this hash, −1 where there is none. */
  first(hash: number): number {
    const x = Math.imul(hash ^ (hash >>> 16), 0x9e3779b1);
    const slots = this.segments[(x >>> 24) & this.mask]!;
    const last = slots.length - 2;
    let i = ((x ^ (x >>> 15)) << 1) & last;
    for (;;) {
      const position = slots[i + 1]!;
      if (position === 0) return -1;
      if (slots[i] === hash) {
        this.cursor = i;
        return position - 1;
      }
      i = (i + 2) & last;
    }
  }

  /** The next entry with this hash after the one that `first` or `next` gave. */
  next(hash: number): number {
    const x = Math.imul(hash ^ (hash >>> 16), 0x9e3779b1);
    const slots = this.segments[(x >>> 24) & this.mask]!;
    const last = slots.length - 2;
    let i = (this.cursor + 2) & last;
    for (;;) {
      const position = slots[i + 1]!;
      if (position === 0) return -1;
      if (slots[i] === hash) {
        this.cursor = i;
        return position - 1;
      }
      i = (i + 2) & last;
    }
  }

  add(hash: number, position: number): void {
    const x = Math.imul(hash ^ (hash >>> 16), 0x9e3779b1);
    let segment = (x >>> 24) & this.mask;
    let slots = this.segments[segment]!;
    if (++this.used[segment]! * 3 > slots.length) {
      // At most two thirds full: length counts pairs twice.
      if (this.mask === 0 && slots.length >= SEGMENT_SPLIT) {
        this.split();
        segment = x >>> 24;
        this.used[segment]!++;
      } else {
        this.double(segment);
      }
      slots = this.segments[segment]!;
    }
    this.size++;
    place(slots, hash, position + 1);
  }

  private double(segment: number): void {
    const old = this.segments[segment]!;
    const slots = new Int32Array(old.length * 2);
    for (let i = 0; i < old.length; i += 2) if (old[i + 1] !== 0) place(slots, old[i]!, old[i + 1]!);
    this.segments[segment] = slots;
  }

  private split(): void {
    const old = this.segments[0]!;
    this.mask = 255;
    this.segments = Array.from({ length: 256 }, () => new Int32Array(128));
    this.used = new Int32Array(256);
    for (let i = 0; i < old.length; i += 2) {
      if (old[i + 1] === 0) continue;
      const hash = old[i]!;
      const segment = Math.imul(hash ^ (hash >>> 16), 0x9e3779b1) >>> 24;
      if (++this.used[segment]! * 3 > this.segments[segment]!.length) this.double(segment);
      place(this.segments[segment]!, hash, old[i + 1]!);
    }
  }

  /** Removes the entry; those behind it move up, so that no marks of removed ones pile up. */
  remove(hash: number, position: number): void {
    const x = Math.imul(hash ^ (hash >>> 16), 0x9e3779b1);
    const segment = (x >>> 24) & this.mask;
    const slots = this.segments[segment]!;
    const last = slots.length - 2;
    let hole = ((x ^ (x >>> 15)) << 1) & last;
    while (slots[hole + 1] !== position + 1) {
      if (slots[hole + 1] === 0) throw new Error(`The index has no entry ${position} to remove.`);
      hole = (hole + 2) & last;
    }
    for (let i = (hole + 2) & last; slots[i + 1] !== 0; i = (i + 2) & last) {
      const other = slots[i]!;
      const y = Math.imul(other ^ (other >>> 16), 0x9e3779b1);
      const home = ((y ^ (y >>> 15)) << 1) & last;
      // It may move into the hole unless its home lies cyclically behind the hole.
      if (((i - home) & last) >= ((i - hole) & last)) {
        slots[hole] = other;
        slots[hole + 1] = slots[i + 1]!;
        hole = i;
      }
    }
    slots[hole] = 0;
    slots[hole + 1] = 0;
    this.used[segment]!--;
    this.size--;
  }
}

function place(slots: Int32Array, hash: number, mark: number): void {
  const x = Math.imul(hash ^ (hash >>> 16), 0x9e3779b1);
  const last = slots.length - 2;
  let i = ((x ^ (x >>> 15)) << 1) & last;
  while (slots[i + 1] !== 0) i = (i + 2) & last;
  slots[i] = hash;
  slots[i + 1] = mark;
}
