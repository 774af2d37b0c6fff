// A process that asks a job for its state, first in this thread and then in two others, which load this module and take the job from it. It prints the answers as JSON.
//
// MILLRACE_ASKED is a folder: checkpoints lie there, and once there is a file `fail` in it the job's source fails, once.

import { existsSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { isMainThread } from 'node:worker_threads';
import {
  aggregating,
  avg,
  broadcastMap,
  count,
  job,
  type Key,
  level,
  list,
  map,
  type RunningJob,
  reducing,
  type Source,
  session,
  sliding,
  splitList,
  sum,
  tumbling,
  unionList,
  value,
} from 'millrace';
import type { StateQueries } from '../../src/execution/state-queries.ts';
import { shown } from '../../src/observe/state-json.ts';

interface Item {
  readonly key: Key;
  readonly n: number;
}

const folder = process.env.MILLRACE_ASKED!;
const KEYS: readonly Key[] = ['a', 'b', 7n, ['c', 1], true, 'dull'];
const ITEMS: readonly Item[] = Array.from({ length: 600 }, (_, i) => ({ key: KEYS[i % KEYS.length]!, n: i }));
const LAST = 1000 + ITEMS.length;

const items: Source<Item> = {
  bounded: false,
  splits: async () => ['all'],
  splitId: String,
  async *read(_, from, { signal }) {
    if (from === undefined) yield { values: [...ITEMS], timestamps: ITEMS.map((_, i) => 1001 + i), position: ITEMS.length };
    while (!signal.aborted) {
      const fail = join(folder, 'fail');
      if (existsSync(fail)) {
        renameSync(fail, join(folder, 'failed'));
        throw new Error('The source was told to fail.');
      }
      await pause(10);
    }
  },
};

/** What no message carries. */
class Total {
  readonly of: number;
  constructor(of: number) {
    this.of = of;
  }
  get twice(): number {
    return 2 * this.of;
  }
}

const asked = job('asked', (env) => {
  const all = env.source('in', items, { outOfOrderness: 0 });
  const byKey = all.keyBy(({ key }) => key);
  byKey.reduce('sums', (l, r) => ({ key: r.key, n: l.n + r.n })).forEach('a', () => {});
  byKey
    .aggregate(
      'mean',
      avg(({ n }) => n),
    )
    .forEach('b', () => {});
  byKey.aggregate('total', { create: () => 0, add: (held, { n }) => held + n, result: (held) => new Total(held) }).forEach('c', () => {});
  byKey.process('kinds', {
    state: {
      last: value<number>(),
      some: list<number>(),
      by: map<Key, bigint>(),
      largest: reducing<number>((l, r) => Math.max(l, r)),
      mean: aggregating(avg((n: number) => n)),
    },
    onRecord({ n }, { state }) {
      state.last.set(n);
      if (n % 100 < 6) state.some.add(n);
      state.by.set([n % 3], BigInt(n));
      state.largest.add(n);
      state.mean.add(n);
    },
  });
  byKey.process('breaks', {
    state: {
      broken: aggregating({
        create: () => 0,
        add: (held: number, n: number) => held + n,
        result: () => {
          throw new RangeError('no result');
        },
      }),
    },
    onRecord: ({ n }, { state }) => state.broken.add(n),
  });
  byKey
    .window(tumbling(10_000))
    .aggregate(
      'tumbling',
      sum(({ n }: Item) => n),
    )
    .forEach('d', () => {});
  byKey
    .window(sliding(10_000, 5000))
    .aggregate('sliding', count())
    .forEach('e', () => {});
  byKey
    .window(session(50))
    .aggregate('session', count())
    .forEach('f', () => {});
  byKey.window(tumbling(10_000)).process('held', { onFire: () => [] });
  byKey
    .intervalJoin(
      'pairs',
      all.filter(({ n }) => n % 2 === 0).keyBy(({ key }) => key),
      { lower: -5, upper: 5 },
      () => 0,
    )
    .forEach('g', () => {});
  all
    .map((item) => item)
    .process('plain', {
      state: { mine: splitList<number>(), every: unionList<string>() },
      onRecord({ key, n }, { state }) {
        if (n % 100 !== 0) return;
        state.mine.add(n);
        state.every.add(String(key));
      },
    });
  byKey.connect(all.filter(({ n }) => n < 6).broadcast()).process('ruled', {
    state: { rules: broadcastMap<Key, number>(), last: value<number>() },
    onLeft: ({ n }, ctx) => ctx.state.last.set(n),
    onRight: ({ key, n }, ctx) => ctx.state.rules.set(key, n),
  });
});
export default asked;

type Question = readonly [uid: string, state: string, key?: unknown];
const BY_KEY: readonly Question[] = [
  ['sums', 'value'],
  ['mean', 'value'],
  ['kinds', 'last'],
  ['kinds', 'some'],
  ['kinds', 'by'],
  ['kinds', 'largest'],
  ['kinds', 'mean'],
  ['tumbling', 'windows'],
  ['sliding', 'windows'],
  ['session', 'windows'],
  ['held', 'windows'],
  ['pairs', 'left'],
  ['ruled', 'last'],
];
const QUESTIONS: readonly Question[] = [
  ...BY_KEY.flatMap(([uid, state]) => [...KEYS, 'nobody'].map((key): Question => [uid, state, key])),
  ['breaks', 'broken', 'a'],
  ['plain', 'mine'],
  ['plain', 'every'],
  ['ruled', 'rules'],
  ['ruled', 'rules', ['c', 1]],
  ['nothing', 'value', 'a'],
  ['sums', 'other', 'a'],
  ['sums', 'value', { an: 'object' }],
  ['in', 'value', 'a'],
];

async function answers(running: RunningJob): Promise<Record<string, unknown>> {
  const { state } = running as unknown as { readonly state: StateQueries };
  const out: Record<string, unknown> = {};
  for (const [uid, name, key] of QUESTIONS) {
    const answer = running.query(uid, name, key as Key).catch(({ code, message, uid: of, cause }) => ({ code, message, of, cause: String(cause?.message) }));
    out[`${uid} ${name} ${JSON.stringify(shown(key))}`] = shown(await answer);
  }
  const total = await running.query<Total>('total', 'value', 'a');
  out.twice = total?.twice;
  const sorted = (rows: readonly unknown[]): unknown => rows.map((row) => JSON.stringify(shown(row))).sort();
  // Hot keys are an estimate from a sample.
  out.list = sorted((await state.list()).map(({ hotKeys: _, ...of }) => of));
  out.scan = sorted(await state.scan('kinds'));
  out.prefix = sorted(await state.scan('sums', { prefix: 'd' }));
  out.largest = shown(await state.scan('kinds', { state: 'some', largest: 2 }));
  out.lists = sorted(await state.scan('plain'));
  const metrics = await running.metrics();
  out.metrics = sorted(metrics.filter(({ name }) => /^keyedState/.test(name)));
  out.hot = [...new Set(metrics.filter(({ name, labels }) => name === 'hotKeyShare' && labels.uid !== undefined).map(({ labels }) => labels.uid))].sort();
  return out;
}

/** All records have been worked on: their watermark stands everywhere. */
async function workedOn(running: RunningJob): Promise<void> {
  for (;;) {
    const samples = await running.metrics();
    const behind = samples.filter(({ name, labels }) => name === 'recordsIn' && !labels.task!.startsWith('in-'));
    const there = samples.filter(({ name, labels, value: at }) => name === 'watermark' && !labels.task!.startsWith('in-') && at >= LAST - 1);
    if (behind.length > 0 && there.length === behind.length) return;
    await pause(10);
  }
}

async function ask(threads: number): Promise<Record<string, unknown>> {
  let restarted!: () => void;
  const restart = new Promise<void>((resolve) => {
    restarted = resolve;
  });
  const running = await asked.start({
    threads,
    module: import.meta.url,
    parallelism: 3,
    state: level({ directory: join(folder, `state-${threads}`), cacheBytes: 1 }),
    checkpoints: { directory: join(folder, `checkpoints-${threads}`), every: 3_600_000 },
    restarts: { max: 3, within: 60_000, backoff: { initial: 1, max: 1 } },
    onEvent: ({ type }) => type === 'restart' && restarted(),
  });
  await workedOn(running);
  const out = await answers(running);
  await running.checkpoint();
  writeFileSync(join(folder, 'fail'), '');
  await restart;
  // Asked of regions that are down.
  out.restored = shown(await running.query('sums', 'value', 'b'));
  out.scanned = (await (running as unknown as { readonly state: StateQueries }).state.scan('sums')).length;
  const late = running.query('sums', 'value', 'a').then(
    () => 'answered',
    ({ code }) => code,
  );
  await running.cancel();
  out.late = await late;
  out.ended = await running.query('sums', 'value', 'a').catch(({ code }) => code);
  return out;
}

if (isMainThread) process.stdout.write(JSON.stringify({ here: await ask(0), threads: await ask(2) }));
