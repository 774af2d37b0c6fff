// The hashes of the keys that are in LevelDB and not in memory, each as often as there are such keys: where a key's hash is not among them nobody need be
// asked for it. Four bytes a place, at most two thirds of them in use.
//
// Open addressing over 256 segments, each growing on its own, so that no addition pays for more than a few thousand moves. An empty place is 0, and the
// hash 0 is kept as 1: that says "perhaps" a little more often, which is never wrong.

const SEGMENTS = 256;
const SMALLEST = 16;

export class StoredHashes {
  private segments: Int32Array[] | undefined = undefined;
  private readonly used = new Int32Array(SEGMENTS);
  size = 0;

  /** False: no key with this hash is stored. */
  has(hash: number): boolean {
    const { segments } = this;
    if (this.size === 0 || segments === undefined) return false;
    const mark = hash === 0 ? 1 : hash;
    const x = spread(mark);
    const slots = segments[x >>> 24]!;
    const last = slots.length - 1;
    for (let i = x & last; ; i = (i + 1) & last) {
      const slot = slots[i]!;
      if (slot === mark) return true;
      if (slot === 0) return false;
    }
  }

  add(hash: number): void {
    this.segments ??= Array.from({ length: SEGMENTS }, () => new Int32Array(SMALLEST));
    const mark = hash === 0 ? 1 : hash;
    const segment = spread(mark) >>> 24;
    let slots = this.segments[segment]!;
    if (++this.used[segment]! * 3 > slots.length * 2) {
      const old = slots;
      slots = new Int32Array(old.length * 2);
      this.segments[segment] = slots;
      for (let i = 0; i < old.length; i++) if (old[i] !== 0) place(slots, old[i]!);
    }
    place(slots, mark);
    this.size++;
  }

  /** Takes one of them out; those behind it move up. Only after `add`. */
  delete(hash: number): void {
    const mark = hash === 0 ? 1 : hash;
    const x = spread(mark);
    const slots = this.segments![x >>> 24]!;
    const last = slots.length - 1;
    let hole = x & last;
    while (slots[hole] !== mark) {
      if (slots[hole] === 0) throw new Error(`The hash ${hash} is not stored.`);
      hole = (hole + 1) & last;
    }
    for (let i = (hole + 1) & last; slots[i] !== 0; i = (i + 1) & last) {
      const home = spread(slots[i]!) & last;
      // It may move into the hole unless its home lies cyclically behind the hole.
      if (((i - home) & last) >= ((i - hole) & last)) {
        slots[hole] = slots[i]!;
        hole = i;
      }
    }
    slots[hole] = 0;
    this.used[x >>> 24]!--;
    this.size--;
  }
}

function spread(mark: number): number {
  const x = Math.imul(mark ^ (mark >>> 16), 0x9e3779b1);
  return x ^ (x >>> 15);
}

function place(slots: Int32Array, mark: number): void {
  const last = slots.length - 1;
  let i = spread(mark) & last;
  while (slots[i] !== 0) i = (i + 1) & last;
  slots[i] = mark;
}
