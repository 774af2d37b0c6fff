// Metrics of user code and connectors: counters, gauges and histograms by name, kept a job.

import type { Metrics } from '../graph/context.ts';
import type { MetricSample } from '../graph/job.ts';

const QUANTILES = [0.5, 0.99] as const;
/** Newest values a histogram keeps. */
const KEPT = 1024;

export class MetricRegistry {
  readonly #counters = new Map<string, { labels: Record<string, string>; name: string; value: number }>();
  readonly #gauges = new Map<string, { labels: Record<string, string>; name: string; read: () => number }>();
  readonly #histograms = new Map<string, { labels: Record<string, string>; name: string; values: number[]; next: number; count: number }>();

  /** The view of one task. */
  of(labels: Record<string, string>): Metrics {
    const id = (name: string): string => `${name}|${Object.values(labels).join('|')}`;
    return {
      counter: (name) => {
        const counter = this.#counters.get(id(name)) ?? { labels, name, value: 0 };
        this.#counters.set(id(name), counter);
        return {
          inc: (n = 1) => {
            counter.value += n;
          },
        };
      },
      gauge: (name, read) => {
        this.#gauges.set(id(name), { labels, name, read });
      },
      histogram: (name) => {
        const histogram = this.#histograms.get(id(name)) ?? { labels, name, values: [], next: 0, count: 0 };
        this.#histograms.set(id(name), histogram);
        return {
          record: (value) => {
            histogram.values[histogram.next] = value;
            histogram.next = (histogram.next + 1) % KEPT;
            histogram.count += 1;
          },
        };
      },
    };
  }

  samples(): MetricSample[] {
    const samples: MetricSample[] = [];
    for (const { name, labels, value } of this.#counters.values()) samples.push({ name, labels, value });
    for (const { name, labels, read } of this.#gauges.values()) samples.push({ name, labels, value: read() });
    for (const { name, labels, values, count } of this.#histograms.values()) {
      const sorted = [...values].sort((a, b) => a - b);
      samples.push({ name: `${name}_count`, labels, value: count });
      for (const q of QUANTILES)
        if (sorted.length > 0)
          samples.push({ name, labels: { ...labels, quantile: String(q) }, value: sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]! });
    }
    return samples;
  }
}
