// The workloads that every way through the engine is compared with: the same jobs as a user would write them, with the outputs of another engine.
//
//   wc    running word count: one update for each record, so the k-th occurrence of a word gives the row (word, k), exactly once
//   cpu   metrics of hosts: tumbling 5 minutes of sum, count and average; sliding 60 minutes every minute of the maximum; two outputs
//
// `pace` slows the source down, so that checkpoints, kills and stops find the job in its middle.

import { join } from 'node:path';
import { hours, type Job, job, max, minutes, type RunOptions, type Source, sliding, tumbling } from 'millrace';
import { files } from 'millrace/connectors';

export type Workload = 'wc' | 'cpu';
export const WORKLOADS: readonly Workload[] = ['wc', 'cpu'];

export interface Places {
  /** The folder of the input files. */
  readonly input: string;
  /** The folder below which the outputs are written. */
  readonly output: string;
  /** Milliseconds between two batches of a file; none by default. A function is asked each time. */
  readonly pace?: number | (() => number);
  /** Called for each record by a function of the job; may throw. */
  readonly onRecord?: () => void;
}

interface Word {
  readonly word: string;
  readonly count: number;
}

interface Metric {
  readonly host: string;
  readonly cpu: number;
  readonly mem: number;
  readonly ts: number;
}

/** The folders that the workload's sinks write to, below `output`. */
export const OUTPUTS: Readonly<Record<Workload, readonly string[]>> = { wc: ['counts'], cpu: ['avg5m', 'max60m'] };

export function jobOf(workload: Workload, places: Places, defaults?: RunOptions): Job {
  return workload === 'wc' ? wc(places, defaults) : cpu(places, defaults);
}

function wc({ input, output, pace, onRecord }: Places, defaults?: RunOptions): Job {
  return job(
    'wc',
    (env) => {
      env
        .source('words', paced(files.source<{ word: string }>({ path: input }), pace))
        .map(({ word }): Word => {
          onRecord?.();
          return { word, count: 1 };
        })
        .keyBy(({ word }) => word)
        .reduce('count', (left, right) => ({ word: left.word, count: left.count + right.count }))
        .sink('out', files.sink({ directory: join(output, 'counts') }));
    },
    defaults,
  );
}

function cpu({ input, output, pace, onRecord }: Places, defaults?: RunOptions): Job {
  return job(
    'cpu',
    (env) => {
      const hosts = env
        .source('metrics', paced(files.source<Metric>({ path: input }), pace), { timestamp: ({ ts }) => ts, outOfOrderness: 20_000 })
        .keyBy(({ host }) => host);
      hosts
        .window(tumbling(minutes(5)))
        .aggregate('averages', {
          create: () => ({ sum: 0, count: 0 }),
          add: (total: { sum: number; count: number }, metric: Metric) => {
            onRecord?.();
            return { sum: total.sum + metric.cpu, count: total.count + 1 };
          },
          merge: (a, b) => ({ sum: a.sum + b.sum, count: a.count + b.count }),
          result: (total) => total,
        })
        .map(({ key, start, end, value: { sum, count } }) => {
          return { kind: 'avg5m', host: key, windowStart: start, windowEnd: end, sum, count, avg: Math.floor(sum / count) };
        })
        .sink('avg5m', files.sink({ directory: join(output, 'avg5m'), roll: { bytes: 50_000 } }));
      hosts
        .window(sliding(hours(1), minutes(1)))
        .aggregate(
          'maxima',
          max(({ mem }: Metric) => mem),
        )
        .map(({ key, start, end, value }) => ({ kind: 'max60m', host: key, windowStart: start, windowEnd: end, max: value }))
        .sink('max60m', files.sink({ directory: join(output, 'max60m'), roll: { bytes: 100_000 } }));
    },
    defaults,
  );
}

function paced<T>(source: Source<T>, pace: Places['pace']): Source<T> {
  if (pace === undefined || pace === 0) return source;
  return {
    ...source,
    async *read(split, from, context) {
      for await (const batch of source.read(split, from, context)) {
        yield batch;
        await new Promise((resolve) => setTimeout(resolve, typeof pace === 'function' ? pace() : pace));
        if (context.signal.aborted) return;
      }
    },
  };
}
