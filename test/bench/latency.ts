// Latency of a keyed running reduce at 50,000 records a second: one JSON line.
//
// `latencyMs` goes from the moment a record leaves the source to the moment its result reaches the sink. `behindMs` is how late records left after their
// planned time (the pace is kept by a timer of 1 ms); `totalMs` is both, from planned departure to result.

import { job, memory, type Sink, type Source } from 'millrace';
import { print, quantiles, tell } from './harness/figures.ts';

const RATE = 50_000;
const KEYS = 10_000;
const WARM_UP_MS = 2000;
const MEASURED_MS = 10_000;

interface Timed {
  key: string;
  count: number;
  /** Planned and real departure, in performance.now(). */
  due: number;
  left: number;
}

const keys = Array.from({ length: KEYS }, (_, i) => `key-${i}`);
let begun = 0;

const paced: Source<Timed, string, number> = {
  bounded: true,
  splits: async () => ['pace'],
  splitId: (split) => split,
  async *read() {
    const until = WARM_UP_MS + MEASURED_MS;
    let given = 0;
    begun = performance.now();
    for (;;) {
      const now = performance.now();
      if (now - begun > until) return;
      const values: Timed[] = [];
      for (const wanted = Math.floor(((now - begun) * RATE) / 1000); given < wanted; given++)
        values.push({ key: keys[given % KEYS]!, count: 1, due: begun + (given * 1000) / RATE, left: now });
      if (values.length > 0) yield { values, position: given };
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  },
};

const latency: number[] = [];
const behind: number[] = [];
const total: number[] = [];
const timing: Sink<Timed> = {
  async open() {
    return {
      write(values) {
        const now = performance.now();
        if (now - begun < WARM_UP_MS) return;
        for (const { due, left } of values) {
          latency.push(now - left);
          behind.push(left - due);
          total.push(now - due);
        }
      },
      async flush() {},
      async close() {},
    };
  },
};

tell(`latency: ${RATE} records a second for ${(WARM_UP_MS + MEASURED_MS) / 1000} s`);
await job('latency', (env) => {
  env
    .source('paced', paced)
    .keyBy((record) => record.key)
    .reduce('counts', (left, right) => ({ key: left.key, count: left.count + 1, due: right.due, left: right.left }))
    .sink('results', timing);
}).run({ state: memory() });
print({
  bench: 'latency',
  backend: 'memory',
  recordsPerSecond: RATE,
  records: latency.length,
  latencyMs: quantiles(latency, 3),
  behindMs: quantiles(behind, 3),
  totalMs: quantiles(total, 3),
});
