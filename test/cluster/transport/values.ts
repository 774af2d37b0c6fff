// Random batches and events for the tests of the transport, and what is compared of them.

import type { Key } from '../../../src/graph/job.ts';
import { Batch } from '../../../src/runtime/batch.ts';
import type { Event } from '../../../src/runtime/channel.ts';
import { canonicalKey, hashKey } from '../../../state-backends/index.ts';
import type { Random } from '../../random.ts';

const STRINGS = ['', 'a', 'lorem ipsum dolor sit amet, consectetur adipiscing', 'é', '漢字', '😀', 'a\ud800', '\udbff', '\u0000', '__proto__', 'x'.repeat(300)];
const NUMBERS = [
  0,
  -0,
  1,
  -1,
  127,
  128,
  255,
  2 ** 31,
  -(2 ** 31),
  2 ** 31 - 1,
  2 ** 48,
  2 ** 53,
  -(2 ** 53),
  0.1,
  1e300,
  5e-324,
  Number.NaN,
  Infinity,
  -Infinity,
];

function primitive(random: Random): unknown {
  switch (random.below(8)) {
    case 0:
      return undefined;
    case 1:
      return null;
    case 2:
      return random.once(2);
    case 3:
      return random.of(NUMBERS);
    case 4:
      return random.next() * 1e6;
    case 5:
      return random.between(-1000, 100_000);
    case 6:
      return random.once(3) ? BigInt(random.between(-5, 5)) << 70n : random.of(STRINGS);
    default:
      return `key ${random.below(100)}`;
  }
}

/** Anything that can be stored. */
export function value(random: Random, depth = 3): unknown {
  if (depth === 0 || random.once(3)) return primitive(random);
  switch (random.below(10)) {
    case 0:
      return Array.from({ length: random.below(5) }, () => value(random, depth - 1));
    case 1:
      return new Map(Array.from({ length: random.below(4) }, () => [primitive(random), value(random, depth - 1)]));
    case 2:
      return new Set(Array.from({ length: random.below(4) }, () => primitive(random)));
    case 3:
      return new Date(random.between(0, 2 ** 31 - 1));
    case 4:
      return Float64Array.from({ length: random.below(5) }, () => random.next());
    case 5:
      return Buffer.from(`bytes ${random.below(1000)}`);
    case 6:
      return Object.assign(Object.create(null), { bare: primitive(random) });
    case 7: {
      const sparse: unknown[] = [1];
      sparse[3] = primitive(random);
      return sparse;
    }
    default:
      return Object.fromEntries(Array.from({ length: random.below(6) }, (_, i) => [`field${random.once(4) ? random.below(9) : i}`, value(random, depth - 1)]));
  }
}

export function key(random: Random, depth = 2): Key {
  switch (random.below(depth === 0 ? 4 : 5)) {
    case 0:
      return canonicalKey(random.of(NUMBERS));
    case 1:
      return random.of(STRINGS);
    case 2:
      return random.once(2);
    case 3:
      return BigInt(random.between(-9, 9)) ** 30n;
    default:
      return canonicalKey(Array.from({ length: random.below(3) }, () => key(random, depth - 1)));
  }
}

export interface Columns {
  readonly keyed: boolean;
  readonly values: readonly unknown[];
  readonly timestamps: readonly number[];
  readonly keys: readonly unknown[];
  readonly hashes: readonly number[];
}

export function columns(batch: Batch): Columns {
  const { size, keyed } = batch;
  return {
    keyed,
    values: batch.values.slice(0, size),
    timestamps: [...batch.timestamps.subarray(0, size)],
    keys: keyed ? batch.keys.slice(0, size) : [],
    hashes: keyed ? [...batch.hashes.subarray(0, size)] : [],
  };
}

/** Of values of one shape mostly, as streams are; of anything at all sometimes. */
export function batch(random: Random, size = random.once(8) ? random.between(500, 1500) : random.below(30)): Batch {
  const keyed = random.once(2);
  const out = new Batch(keyed, Math.max(1, size));
  const made = shape(random);
  const keys = random.below(4);
  for (let i = 0; i < size; i++) {
    const v = made();
    const timestamp = random.once(10) ? Number.NaN : random.once(10) ? -0 : random.next() * 2e12;
    if (!keyed) out.add(v, timestamp);
    else {
      const k = keys === 0 ? key(random) : keys === 1 ? random.below(1000) : keys === 2 ? random.next() : `word ${random.below(1000)}`;
      out.addKeyed(v, timestamp, k, hashKey(k));
    }
  }
  return out;
}

function shape(random: Random): () => unknown {
  if (random.once(3)) return () => value(random);
  if (random.once(6)) return () => primitive(random);
  const fields = Array.from({ length: random.between(1, 6) }, (_, i) => ({ name: random.once(9) ? random.of(STRINGS) : `f${i}`, kind: random.below(7) }));
  const exceptions = random.once(3) ? 20 : Number.POSITIVE_INFINITY;
  return () =>
    Object.fromEntries(
      fields.map(({ name, kind }) => [
        name,
        random.once(exceptions)
          ? value(random, 2)
          : kind === 0
            ? random.below(100)
            : kind === 1
              ? random.between(-(2 ** 31), 2 ** 31 - 1)
              : kind === 2
                ? random.next() * 100
                : kind === 3
                  ? `name ${random.below(50)}`
                  : kind === 4
                    ? random.once(2)
                    : kind === 5
                      ? random.of(STRINGS)
                      : primitive(random),
      ]),
    );
}

export const EVENTS: readonly Event[] = [
  { kind: 'watermark', time: 0 },
  { kind: 'watermark', time: Number.NEGATIVE_INFINITY },
  { kind: 'watermark', time: Number.POSITIVE_INFINITY },
  { kind: 'watermark', time: 1_700_000_000_000.5 },
  { kind: 'idle' },
  { kind: 'active' },
  { kind: 'barrier', barrier: { id: 1, startedAt: 1_700_000_000_000, stop: false } },
  { kind: 'barrier', barrier: { id: 2 ** 50, startedAt: 0, stop: true, unaligned: 0 } },
  { kind: 'barrier', barrier: { id: 3, startedAt: 5, stop: false, unaligned: 250 } },
  { kind: 'cancel', id: 7 },
  { kind: 'end-of-data' },
  { kind: 'end' },
];
