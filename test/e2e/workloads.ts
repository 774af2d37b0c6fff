// The workloads that every way through the engine is compared with: the same jobs as a user would write them, with the outputs of another engine.
//
//   wc    running word count: one update for each record, so the k-th occurrence of a word gives the row (word, k), exactly once
//   cpu   metrics of hosts: tumbling 5 minutes of sum, count and average; sliding 60 minutes every minute of the maximum; two outputs
//   q0 …  the queries of Nexmark, as they stand in docs/examples/nexmark
//
// `pace` slows the source down, so that checkpoints, kills and stops find the job in its middle.

import { join } from 'node:path';
import { hours, type Job, job, max, minutes, type RunOptions, type Source, type Stream, sliding, tumbling } from 'millrace';
import { files, postgres } from 'millrace/connectors';
import { type Event, eventTime } from '../../docs/examples/nexmark/events.ts';
import { bids } from '../../docs/examples/nexmark/q0.ts';
import { inEuros } from '../../docs/examples/nexmark/q1.ts';
import { selectedBids } from '../../docs/examples/nexmark/q2.ts';
import { localItems } from '../../docs/examples/nexmark/q3.ts';
import { categoryPrices } from '../../docs/examples/nexmark/q4.ts';
import { hotItems } from '../../docs/examples/nexmark/q5.ts';
import { highestBids } from '../../docs/examples/nexmark/q7.ts';
import { newSellers } from '../../docs/examples/nexmark/q8.ts';

const QUERIES = {
  q0: bids,
  q1: inEuros,
  q2: selectedBids,
  q3: localItems,
  q4: categoryPrices,
  q5: hotItems,
  q7: highestBids,
  q8: newSellers,
} as const satisfies Record<string, (events: Stream<Event>) => Stream<unknown>>;

export type Query = keyof typeof QUERIES;
/** Each query, from its events to its results. */
export const QUERY: Readonly<Record<Query, (events: Stream<Event>) => Stream<unknown>>> = QUERIES;
export type Workload = 'wc' | 'cpu' | Query;
export const WORKLOADS = ['wc', 'cpu'] as const satisfies readonly Workload[];
export const NEXMARK = Object.keys(QUERIES) as readonly Query[];

export interface Places {
  /** The folder of the input files. */
  readonly input: string;
  /** The folder below which the outputs are written. */
  readonly output: string;
  /** Where wc writes instead: a table with the columns word and count. */
  readonly postgres?: { readonly url: string; readonly table: string };
  /** Milliseconds between two batches of a file; none by default. A function is asked each time. */
  readonly pace?: number | ((signal: AbortSignal) => Promise<void>);
  /** Called for each record by a function of the job; may throw. */
  readonly onRecord?: () => void;
  /** Microseconds that a keyed operator takes for a record, in wc and cpu: with it records wait in channels. None by default. */
  readonly slow?: number | undefined;
}

function busy(microseconds = 0): void {
  if (microseconds === 0) return;
  for (const end = performance.now() + microseconds / 1000; performance.now() < end; );
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
export function outputsOf(workload: Workload): readonly string[] {
  if (workload === 'cpu') return ['avg5m', 'max60m'];
  return workload === 'wc' ? ['counts'] : ['results'];
}

export function jobOf(workload: Workload, places: Places, defaults?: RunOptions): Job {
  if (workload === 'wc') return wc(places, defaults);
  return workload === 'cpu' ? cpu(places, defaults) : nexmark(workload, places, defaults);
}

function nexmark(query: Query, { input, output, pace, onRecord }: Places, defaults?: RunOptions): Job {
  return job(
    query,
    (env) => {
      const events = env.source('events', paced(files.source<Event>({ path: input }), pace), eventTime).map((event) => {
        onRecord?.();
        return event;
      });
      QUERY[query](events).sink('results', files.sink({ directory: join(output, 'results') }));
    },
    defaults,
  );
}

function wc({ input, output, postgres: database, pace, onRecord, slow }: Places, defaults?: RunOptions): Job {
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
        .reduce('count', (left, right) => {
          busy(slow);
          return { word: left.word, count: left.count + right.count };
        })
        .sink('out', database === undefined ? files.sink<Word>({ directory: join(output, 'counts') }) : postgres.sink<Word>(database));
    },
    defaults,
  );
}

function cpu({ input, output, pace, onRecord, slow }: Places, defaults?: RunOptions): Job {
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
            busy(slow);
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
        await (typeof pace === 'function' ? pace(context.signal) : new Promise((resolve) => setTimeout(resolve, pace)));
        if (context.signal.aborted) return;
      }
    },
  };
}
