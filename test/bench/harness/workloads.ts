// The workloads: what goes in, the program, and the hand-written loop that does the same.
//
// A loop is one function over the source's batches: a Map of the keys, one object a result into the same counting sink; no watermarks, no checkpoints, no
// lateness. Time goes on key by key: a window is over when a later record of its key comes, or at the end. That suffices for these inputs, whose
// keys are each in order, and it gives as many results as the program does (checked in every run).
//
//   wc, wc1m  running word count over 100,000 and 1,000,000 keys: one update a record
//   cpu5m     tumbling 5 min windows a host: sum, count and floor(sum / count) of `cpu`
//   cpu       the same, and sliding windows of 60 min each minute a host: the largest `mem` (each record belongs to 60 windows)
//
// The queries of Nexmark stand in nexmark.ts.

import {
  type AggregateFunction,
  max,
  minutes,
  type Sink,
  type Source,
  type Stream,
  type StreamEnvironment,
  seconds,
  sliding,
  tumbling,
  type WatermarkStrategy,
} from 'millrace';
import { type Input, type Metric, metrics, type Word, words } from './inputs.ts';
import { NEXMARK } from './nexmark.ts';

export type Batches<T> = AsyncIterable<{ readonly values: readonly T[] }>;

export interface Workload<T> {
  readonly name: string;
  input(records: number): Input<T>;
  build(env: StreamEnvironment, source: Source<T>, sink: Sink<unknown>): void;
  loop(batches: Batches<T>, write: (results: readonly unknown[]) => void): Promise<void>;
}

// ── words ──

interface Counted {
  word: string;
  count: number;
}

function wordCount(name: string, keys: number): Workload<Word> {
  return {
    name,
    input: (records) => words(records, keys),
    build(env, source, sink) {
      env
        .source('words', source)
        .map((w): Counted => ({ word: w.word, count: 1 }))
        .keyBy((w) => w.word)
        .reduce('counts', (left, right) => ({ word: left.word, count: left.count + right.count }))
        .sink('results', sink);
    },
    async loop(batches, write) {
      const counts = new Map<string, { count: number }>();
      for await (const { values } of batches) {
        const results: Counted[] = [];
        for (const { word } of values) {
          const held = counts.get(word);
          if (held === undefined) {
            counts.set(word, { count: 1 });
            results.push({ word, count: 1 });
          } else {
            held.count += 1;
            results.push({ word, count: held.count });
          }
        }
        write(results);
      }
    },
  };
}

// ── metrics ──

const MINUTE = minutes(1);
const FIVE = minutes(5);
const SLICES = 60;

interface Mean {
  sum: number;
  count: number;
  avg: number;
}

const mean: AggregateFunction<Metric, { sum: number; count: number }, Mean> = {
  create: () => ({ sum: 0, count: 0 }),
  add(held, metric) {
    held.sum += metric.cpu;
    held.count += 1;
    return held;
  },
  merge(left, right) {
    left.sum += right.sum;
    left.count += right.count;
    return left;
  },
  result: ({ sum, count }) => ({ sum, count, avg: Math.floor(sum / count) }),
};

const byMetricTime: WatermarkStrategy<Metric> = { timestamp: (metric) => metric.ts, outOfOrderness: seconds(20) };

function averages(all: Stream<Metric>, sink: Sink<unknown>): void {
  all
    .keyBy((metric) => metric.host)
    .window(tumbling(FIVE))
    .aggregate('avg5m', mean)
    .map(({ key, start, end, value }) => ({ kind: 'avg5m', host: key, windowStart: start, windowEnd: end, sum: value.sum, count: value.count, avg: value.avg }))
    .sink('averages', sink);
}

interface HostMean {
  start: number;
  sum: number;
  count: number;
}

const averageOf = (host: string, { start, sum, count }: HostMean): object => ({
  kind: 'avg5m',
  host,
  windowStart: start,
  windowEnd: start + FIVE,
  sum,
  count,
  avg: Math.floor(sum / count),
});

const cpu5m: Workload<Metric> = {
  name: 'cpu5m',
  input: metrics,
  build(env, source, sink) {
    averages(env.source('metrics', source, byMetricTime), sink);
  },
  async loop(batches, write) {
    const hosts = new Map<string, HostMean>();
    for await (const { values } of batches) {
      const results: object[] = [];
      for (const { host, cpu, ts } of values) {
        const start = ts - (ts % FIVE);
        const held = hosts.get(host);
        if (held === undefined) hosts.set(host, { start, sum: cpu, count: 1 });
        else {
          if (held.start !== start) {
            results.push(averageOf(host, held));
            held.start = start;
            held.sum = 0;
            held.count = 0;
          }
          held.sum += cpu;
          held.count += 1;
        }
      }
      write(results);
    }
    write(Array.from(hosts, ([host, held]) => averageOf(host, held)));
  },
};

interface HostSlices {
  readonly mean: HostMean;
  /** Start of the newest slice. */
  newest: number;
  /** The largest of each of the last 60 minutes, by minute mod 60; −1 where there was no record. */
  readonly largest: number[];
}

/** Emits the windows that end up to `until`, which is a whole minute; slices that are over are emptied. */
function slide(host: string, held: HostSlices, until: number, results: object[]): void {
  for (let end = held.newest + MINUTE; end <= until; end += MINUTE) {
    let most = -1;
    for (let i = 0; i < SLICES; i++) if (held.largest[i]! > most) most = held.largest[i]!;
    if (most !== -1) results.push({ kind: 'max60m', host, windowStart: end - SLICES * MINUTE, windowEnd: end, max: most });
    // The slice that begins now takes the place of the oldest.
    held.largest[(end / MINUTE) % SLICES] = -1;
  }
  held.newest = until;
}

const cpu: Workload<Metric> = {
  name: 'cpu',
  input: metrics,
  build(env, source, sink) {
    const all = env.source('metrics', source, byMetricTime);
    averages(all, sink);
    all
      .keyBy((metric) => metric.host)
      .window(sliding(minutes(60), minutes(1)))
      .aggregate(
        'max60m',
        max((metric) => metric.mem),
      )
      .map(({ key, start, end, value }) => ({ kind: 'max60m', host: key, windowStart: start, windowEnd: end, max: value }))
      .sink('largest', sink);
  },
  async loop(batches, write) {
    const hosts = new Map<string, HostSlices>();
    for await (const { values } of batches) {
      const results: object[] = [];
      for (const { host, cpu, mem, ts } of values) {
        const start = ts - (ts % FIVE);
        const minute = ts - (ts % MINUTE);
        let held = hosts.get(host);
        if (held === undefined) {
          held = { mean: { start, sum: 0, count: 0 }, newest: minute, largest: new Array<number>(SLICES).fill(-1) };
          hosts.set(host, held);
        }
        const { mean } = held;
        if (mean.start !== start) {
          results.push(averageOf(host, mean));
          mean.start = start;
          mean.sum = 0;
          mean.count = 0;
        }
        mean.sum += cpu;
        mean.count += 1;
        if (minute !== held.newest) slide(host, held, minute, results);
        const slice = (minute / MINUTE) % SLICES;
        if (mem > held.largest[slice]!) held.largest[slice] = mem;
      }
      write(results);
    }
    for (const [host, held] of hosts) {
      const results = [averageOf(host, held.mean)];
      slide(host, held, held.newest + SLICES * MINUTE, results);
      write(results);
    }
  },
};

export const WORKLOADS: Readonly<Record<string, Workload<unknown>>> = {
  wc: wordCount('wc', 100_000),
  wc1m: wordCount('wc1m', 1_000_000),
  cpu5m,
  cpu,
  ...NEXMARK,
};
