// A process whose job counts more keys than its heap and its cache hold: every key once, then every key again, each of which must then be at two.
// Arguments: number of keys, directory, bytes of cache. Says what it saw, as JSON.

import { join } from 'node:path';
import { job, level, type Source } from 'millrace';

const [keys, directory, cacheBytes] = [Number(process.argv[2]), process.argv[3]!, Number(process.argv[4])];
const BATCH = 1000;

interface Count {
  readonly key: number;
  readonly count: number;
}

const numbers: Source<number, string, number> = {
  bounded: true,
  splits: async () => ['numbers'],
  splitId: (split) => split,
  async *read(_split, from = 0) {
    for (let next = from; next < 2 * keys; next += BATCH) {
      const values = Array.from({ length: Math.min(BATCH, 2 * keys - next) }, (_, i) => (next + i) % keys);
      yield { values, position: next + values.length };
    }
  },
};

const seen = { first: 0, second: 0, wrong: 0 };
let checkpoints = 0;
let peak = 0;
const running = await job('counted-keys', (env) => {
  env
    .source('numbers', numbers)
    .map((key): Count => ({ key, count: 1 }))
    .keyBy(({ key }) => key)
    .reduce('count', (left, right) => ({ key: left.key, count: left.count + right.count }))
    .forEach('check', ({ count }) => {
      if (count === 1) seen.first += 1;
      else if (count === 2) seen.second += 1;
      else seen.wrong += 1;
    });
}).start({
  state: level({ directory: join(directory, 'state'), cacheBytes }),
  checkpoints: { directory: join(directory, 'checkpoints'), every: 2000 },
  onEvent: (event) => {
    if (event.type === 'checkpoint') checkpoints += 1;
    if (event.type === 'restart') console.error(event.error);
  },
});
const timer = setInterval(() => {
  peak = Math.max(peak, process.memoryUsage().rss);
}, 100);
const { status, restarts } = await running.finished;
clearInterval(timer);
process.stdout.write(JSON.stringify({ status, restarts, ...seen, checkpoints, peak }));
