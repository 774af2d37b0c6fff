// Random numbers from a seed (mulberry32), so that a run can be repeated.

/** Numbers in [0, 1); equal seeds and streams give equal numbers. */
export function seededRandom(seed: number, stream: number): () => number {
  let state = mix(Math.trunc(seed) | 0) ^ mix(Math.trunc(seed / 0x1_0000_0000) | 0) ^ mix(stream + 0x9e37_79b9);
  return () => {
    state = (state + 0x6d2b_79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}

/** Spreads neighbouring seeds over all bits. */
function mix(value: number): number {
  let mixed = Math.imul(value ^ (value >>> 16), 0x85eb_ca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2_ae35);
  return mixed ^ (mixed >>> 16);
}
