// Quantiles, and how figures are printed.

import type { IntervalHistogram } from 'node:perf_hooks';

export interface Quantiles {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export const rounded = (figure: number, digits = 2): number => Number(figure.toFixed(digits));

/** The value at or above which `1 − q` of them lie; NaN where there are none. */
export function quantile(sorted: readonly number[] | Float64Array, q: number): number {
  return sorted.length === 0 ? Number.NaN : sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)]!;
}

export function quantiles(values: readonly number[], digits = 2): Quantiles | undefined {
  if (values.length === 0) return undefined;
  const sorted = Float64Array.from(values).sort();
  return { p50: rounded(quantile(sorted, 0.5), digits), p99: rounded(quantile(sorted, 0.99), digits), max: rounded(sorted[sorted.length - 1]!, digits) };
}

export const median = (values: readonly number[]): number =>
  quantile(
    [...values].sort((a, b) => a - b),
    0.5,
  );

/** Delay of the event loop beyond the sampling interval of `resolution` milliseconds. */
export function delays(histogram: IntervalHistogram, resolution: number): Quantiles {
  const over = (nanoseconds: number): number => rounded(Math.max(0, nanoseconds / 1e6 - resolution));
  return { p50: over(histogram.percentile(50)), p99: over(histogram.percentile(99)), max: over(histogram.max) };
}

export function print(figures: object): void {
  process.stdout.write(`${JSON.stringify(figures)}\n`);
}

export function tell(sentence: string): void {
  process.stderr.write(`${sentence}\n`);
}
