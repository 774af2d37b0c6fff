// A histogram: how values are distributed, in counts by bucket.
//
// What: with bounds a bucket is (bound before, bound]; without, buckets are so narrow that their middle is within 1 % of every value in them, and their
// number grows with the logarithm of the values' range.

import { extendCodec } from '../../state-backends/index.ts';

/** What is counted: plain data. */
export interface Samples {
  count: number;
  sum: number;
  min: number;
  max: number;
  /** Values by bucket. */
  readonly buckets: Map<number, number>;
}

/** Each bucket reaches this much further than the one before. */
const GAMMA = 1.01 / 0.99;
const LOG_GAMMA = Math.log(GAMMA);
/** Numbers of buckets of negative values are below −FAR, of positive ones above FAR; of 0 it is 0. |log| of a number is below 750, so |index| < 40,000. */
const FAR = 100_000;

function bucketOf(value: number, bounds: readonly number[] | undefined): number {
  if (bounds === undefined) {
    if (value === 0) return 0;
    const index = Math.ceil(Math.log(Math.abs(value)) / LOG_GAMMA);
    return value > 0 ? FAR + index : -FAR - index;
  }
  let low = 0;
  let high = bounds.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (bounds[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The result of `histogram()`. */
export class Histogram {
  readonly count: number;
  readonly sum: number;
  readonly #samples: Samples;
  readonly #bounds: readonly number[] | undefined;

  constructor(samples: Samples, bounds: readonly number[] | undefined) {
    this.count = samples.count;
    this.sum = samples.sum;
    this.#samples = samples;
    this.#bounds = bounds;
  }

  /** The value that a part `q` (0 … 1) of all values are not above; NaN where there are none. */
  quantile(q: number): number {
    const { count, min, max, buckets } = this.#samples;
    if (count === 0 || !(q >= 0 && q <= 1)) return Number.NaN;
    const rank = Math.max(1, Math.ceil(q * count));
    if (rank === count) return max;
    if (rank === 1) return min;
    let passed = 0;
    for (const [bucket, n] of [...buckets].sort(([one], [other]) => one - other)) {
      if (passed + n >= rank) return Math.min(max, Math.max(min, this.#within(bucket, (rank - passed) / n)));
      passed += n;
    }
    return max;
  }

  #within(bucket: number, part: number): number {
    const bounds = this.#bounds;
    if (bounds === undefined) {
      if (bucket === 0) return 0;
      const index = bucket > 0 ? bucket - FAR : -bucket - FAR;
      const middle = (2 * GAMMA ** index) / (GAMMA + 1);
      return bucket > 0 ? middle : -middle;
    }
    const { min, max } = this.#samples;
    const from = bucket === 0 ? min : Math.max(min, bounds[bucket - 1]!);
    const to = bucket === bounds.length ? max : Math.min(max, bounds[bucket]!);
    return from + (to - from) * part;
  }

  static create(): Samples {
    return { count: 0, sum: 0, min: Number.POSITIVE_INFINITY, max: Number.NEGATIVE_INFINITY, buckets: new Map() };
  }
  static add(samples: Samples, value: number, bounds: readonly number[] | undefined): Samples {
    if (typeof value !== 'number' || Number.isNaN(value)) return samples;
    const bucket = bucketOf(value, bounds);
    samples.count += 1;
    samples.sum += value;
    if (value < samples.min) samples.min = value;
    if (value > samples.max) samples.max = value;
    samples.buckets.set(bucket, (samples.buckets.get(bucket) ?? 0) + 1);
    return samples;
  }
  static merge(left: Samples, right: Samples): Samples {
    left.count += right.count;
    left.sum += right.sum;
    left.min = Math.min(left.min, right.min);
    left.max = Math.max(left.max, right.max);
    for (const [bucket, n] of right.buckets) left.buckets.set(bucket, (left.buckets.get(bucket) ?? 0) + n);
    return left;
  }

  static written(histogram: Histogram): unknown {
    return [histogram.#samples, histogram.#bounds];
  }
  static read(data: unknown): Histogram {
    const [samples, bounds] = data as [Samples, readonly number[] | undefined];
    return new Histogram(samples, bounds);
  }
}

extendCodec('histogram', Histogram, { write: Histogram.written, read: Histogram.read });
