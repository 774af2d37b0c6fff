// An estimate of what a value takes in V8's heap, for the budget of level(). Measured against process.memoryUsage (test/bench/state.ts); rather too
// large than too small, since what is not counted is not evicted.

/** A row with its places in the dense array and in the index. */
export const ROW_BYTES = 160;
/** A group with its array of rows. */
export const GROUP_BYTES = 224;
const NODES_MAX = 64;

let nodes = 0;

export function sizeOf(value: unknown): number {
  nodes = 0;
  return sizeWithin(value);
}

function sizeWithin(value: unknown): number {
  switch (typeof value) {
    case 'string':
      return 24 + value.length * 2;
    case 'number':
      return (value | 0) === value ? 0 : 16;
    case 'bigint':
      return 32;
    case 'object':
      return value === null ? 0 : sizeOfObject(value);
    default:
      return 0;
  }
}

/** Of large collections a part is looked at, and the rest taken to be alike. */
function sizeOfObject(value: object): number {
  nodes++;
  if (Array.isArray(value)) {
    let sum = 48 + value.length * 8;
    let i = 0;
    let inner = 0;
    for (; i < value.length && nodes < NODES_MAX; i++) {
      inner += sizeWithin(value[i]);
      nodes++;
    }
    if (i > 0) sum += (inner / i) * value.length;
    return sum;
  }
  if (ArrayBuffer.isView(value)) return 200 + value.byteLength;
  if (value instanceof Map || value instanceof Set) {
    let inner = 0;
    let i = 0;
    for (const entry of value) {
      if (nodes >= NODES_MAX) break;
      inner += sizeWithin(entry);
      nodes++;
      i++;
    }
    return 200 + value.size * 40 + (i > 0 ? (inner / i) * value.size : 0);
  }
  let sum = 56;
  let i = 0;
  let inner = 0;
  // No array of keys is made of a small one: each change of a row weighs its value.
  for (const key in value) {
    if (nodes >= NODES_MAX) return sum + (inner / Math.max(1, i)) * Object.keys(value).length;
    inner += 8 + sizeWithin((value as Record<string, unknown>)[key]);
    nodes++;
    i++;
  }
  sum += inner;
  return sum;
}

export function sizeOfKey(key: unknown): number {
  return typeof key === 'string' ? 24 + key.length * (key.length < 64 ? 1 : 2) : sizeOf(key);
}
