// Random numbers from a seed, so that a run can be repeated (mulberry32).

/** Numbers in [0, 1); the same seed gives the same ones. */
export function seeded(seed: number): () => number {
  let state = Math.imul(Math.trunc(seed) ^ 0x5bd1_e995, 0x85eb_ca6b) ^ Math.trunc(seed / 0x1_0000_0000);
  return () => {
    state = (state + 0x6d2b_79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}
