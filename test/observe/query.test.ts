// `running.query`: the keyed state of a job that runs, of one key.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  aggregating,
  avg,
  broadcastMap,
  count,
  evictCount,
  global,
  ingress,
  job,
  type Key,
  level,
  list,
  map,
  memory,
  onCount,
  type RunningJob,
  reducing,
  type Stream,
  session,
  sliding,
  splitList,
  sum,
  tumbling,
  unionList,
  value,
} from 'millrace';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { jobsOf } from '../../src/api/job.ts';
import { arraySource } from '../../src/connectors/arrays.ts';
import { iterableSource } from '../../src/connectors/iterables.ts';
import { JobRun } from '../../src/execution/job-run.ts';
import { operatorOf } from '../../src/operators/operator-of.ts';
import { queryableOf } from '../../src/operators/state-views.ts';
import { systemIo } from '../../src/runtime/io.ts';

let folder: string;
const started: RunningJob[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'millrace-query-'));
});
afterEach(async () => {
  for (const running of started.splice(0)) await running.cancel().catch(() => {});
  rmSync(folder, { recursive: true, force: true });
});

/** Of a machine that does other things too. */
const PATIENT = { timeout: 60_000, interval: 10 };

interface Item {
  readonly key: Key;
  readonly n: number;
}

const backends = { 'memory()': () => memory(), 'level() with next to nothing in memory': () => level({ directory: join(folder, 'state'), cacheBytes: 1 }) };

/** `job` by another clock. */
function by(now: () => number): typeof job {
  if (now === Date.now) return job;
  const io = systemIo();
  return jobsOf({
    arraySource,
    iterableSource,
    async start(definition, options) {
      const run = new JobRun(definition, options, { operators: operatorOf, queryable: queryableOf, io: { ...io, clock: { ...io.clock, now } } });
      await run.start();
      return run as unknown as RunningJob;
    },
  });
}

/** A job whose records `send` gives; it waits until all have been worked on. */
async function start(build: (items: Stream<Item>) => void, { state = memory(), parallelism = 1, checkpoints = false, now = Date.now } = {}) {
  const source = ingress<Item>();
  const running = await by(now)('asked', (env) => build(env.source('in', source, { outOfOrderness: 0 }))).start({
    state,
    parallelism,
    checkpoints: checkpoints ? { directory: join(folder, 'checkpoints'), every: 3_600_000 } : false,
    ...(checkpoints ? { restarts: { max: 3, within: 60_000, backoff: { initial: 1, max: 1 } } } : {}),
  });
  started.push(running);
  let sent = 0;
  const send = async (...items: [key: Key, n: number, timestamp?: number][]): Promise<void> => {
    for (const [key, n, timestamp] of items) await source.send({ key, n }, timestamp);
    sent += items.length;
    await vi.waitFor(async () => {
      const got = (await running.metrics()).filter(({ name, labels }) => name === 'recordsIn' && !labels.task!.startsWith('in-'));
      expect(got.reduce((all, { value: n }) => all + n, 0)).toBeGreaterThanOrEqual(sent);
    }, PATIENT);
  };
  return { running, send, source };
}

describe.each(Object.entries(backends))('a query, with state in %s', (_name, state) => {
  it('gives the value of a running reduce and the result of a running aggregate, of keys of any kind', async () => {
    const { running, send } = await start(
      (items) => {
        const byKey = items.keyBy(({ key }) => key);
        byKey.reduce('sums', (l, r) => ({ key: l.key, n: l.n + r.n })).forEach('a', () => {});
        byKey
          .aggregate(
            'means',
            avg((item: Item) => item.n),
          )
          .forEach('b', () => {});
      },
      { state: state(), parallelism: 3 },
    );
    const keys: Key[] = ['a', 1, 1n, true, ['a', 1n, true], Number.NaN, ...Array.from({ length: 50 }, (_, i) => `k${i}`)];
    for (const key of keys) await send([key, 1], [key, 3]);
    await vi.waitFor(async () => {
      for (const key of keys) {
        expect(await running.query<Item>('sums', 'value', key)).toEqual({ key, n: 4 });
        expect(await running.query<number>('means', 'value', key)).toBe(2);
      }
    }, PATIENT);
    for (const key of ['b', 2, 2n, false, ['a', 1n]] as Key[]) expect(await running.query('sums', 'value', key)).toBeUndefined();
  });

  it('gives declared state as what it is: a value, an array, a Map, results', async () => {
    const { running, send } = await start(
      (items) =>
        void items
          .keyBy(({ key }) => key)
          .process('kinds', {
            state: {
              last: value({ default: 7 }),
              all: list<number>(),
              by: map<string, Item>(),
              most: reducing<number>((l, r) => Math.max(l, r)),
              mean: aggregating(avg((n: number) => n)),
            },
            onRecord({ key, n }, { state: s }) {
              if (n < 0) return;
              s.last.set(n);
              s.all.add(n);
              s.by.set(`n${n % 2}`, { key, n });
              s.most.add(n);
              s.mean.add(n);
            },
          }),
      { state: state(), parallelism: 2 },
    );
    const numbers = Array.from({ length: 150 }, (_, i) => i);
    await send(...numbers.map((n): [Key, number] => ['a', n]), ['untouched', -1]);
    await vi.waitFor(async () => expect(await running.query('kinds', 'last', 'a')).toBe(149));
    expect(await running.query('kinds', 'all', 'a')).toEqual(numbers);
    const by = await running.query<Map<string, Item>>('kinds', 'by', 'a');
    expect(by).toBeInstanceOf(Map);
    expect(new Map(by)).toEqual(new Map([149, 148].map((n) => [`n${n % 2}`, { key: 'a', n }])));
    expect(await running.query('kinds', 'most', 'a')).toBe(149);
    expect(await running.query('kinds', 'mean', 'a')).toBe(74.5);
    // A default is not what is stored.
    for (const name of ['last', 'all', 'by', 'most', 'mean']) expect(await running.query('kinds', name, 'untouched')).toBeUndefined();
  });

  it('leaves out what has expired, before anybody has removed it', async () => {
    let at = 1_000_000;
    const ttl = 3_600_000;
    const { running, send } = await start(
      (items) =>
        void items
          .keyBy(({ key }) => key)
          .process('kinds', {
            state: {
              last: value<number>({ ttl }),
              all: list<number>({ ttl }),
              by: map<number, number>({ ttl }),
              total: aggregating(
                sum((n: number) => n),
                { ttl },
              ),
            },
            onRecord({ n }, { state: s }) {
              if (n < 10) s.last.set(n);
              s.all.add(n);
              s.by.set(n, n);
              if (n < 10) s.total.add(n);
            },
          }),
      { state: state(), now: () => at },
    );
    const names = ['last', 'all', 'by', 'total'];
    const seen = (): Promise<unknown[]> => Promise.all(names.map((name) => running.query('kinds', name, 'a')));
    await send(['a', 1]);
    at += ttl - 1;
    await send(['a', 20]);
    expect(await seen()).toEqual([1, [1, 20], new Map([1, 20].map((n) => [n, n])), 1]);
    at += 1;
    expect(await seen()).toEqual([undefined, [20], new Map([[20, 20]]), undefined]);
  });

  it.each<[string, (items: Stream<Item>) => unknown, unknown]>([
    [
      'tumbling',
      (items) =>
        items
          .keyBy(({ key }) => key)
          .window(tumbling(100))
          .aggregate(
            'w',
            sum((i: Item) => i.n),
          ),
      [[200, 300, 12]],
    ],
    [
      'tumbling, kept for late records',
      (items) =>
        items
          .keyBy(({ key }) => key)
          .window(tumbling(100))
          .allowedLateness(150)
          .aggregate(
            'w',
            sum((i: Item) => i.n),
          ),
      [
        [100, 200, 2],
        [200, 300, 12],
      ],
    ],
    [
      'sliding',
      (items) =>
        items
          .keyBy(({ key }) => key)
          .window(sliding(200, 100))
          .aggregate(
            'w',
            sum((i: Item) => i.n),
          ),
      [
        [100, 300, 14],
        [200, 400, 12],
      ],
    ],
    [
      'sliding, without a merge',
      (items) =>
        items
          .keyBy(({ key }) => key)
          .window(sliding(200, 100))
          .aggregate('w', { create: () => [] as number[], add: (all, { n }) => [...all, n], result: (all) => all.length }),
      [
        [100, 300, 3],
        [200, 400, 2],
      ],
    ],
    [
      'sliding, reduced in order',
      (items) =>
        items
          .keyBy(({ key }) => key)
          .window(sliding(200, 100))
          .reduce('w', (_, right) => right),
      [
        [100, 300, { key: 'a', n: 8 }],
        [200, 400, { key: 'a', n: 8 }],
      ],
    ],
    [
      'of a size with a fraction',
      (items) =>
        items
          .keyBy(({ key }) => key)
          .window(tumbling(100.5))
          .aggregate('w', count()),
      [[201, 301.5, 2]],
    ],
    [
      'session',
      (items) =>
        items
          .keyBy(({ key }) => key)
          .window(session(20))
          .aggregate('w', count()),
      [[250, 272, 2]],
    ],
    [
      'global',
      (items) =>
        items
          .keyBy(({ key }) => key)
          .window(global())
          .trigger(onCount(100))
          .aggregate(
            'w',
            sum((i: Item) => i.n),
          ),
      [[Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, 15]],
    ],
    [
      'processed, with its records',
      (items) =>
        items
          .keyBy(({ key }) => key)
          .window(tumbling(100))
          .process('w', { onFire: () => [] }),
      [
        [
          200,
          300,
          [
            { key: 'a', n: 4 },
            { key: 'a', n: 8 },
          ],
        ],
      ],
    ],
    [
      'with an evictor, aggregated over what it holds',
      (items) =>
        items
          .keyBy(({ key }) => key)
          .window(tumbling(100))
          .evictor(evictCount(1))
          .aggregate(
            'w',
            sum((i: Item) => i.n),
          ),
      [[200, 300, 12]],
    ],
  ])('gives the open windows of a window that is %s, with what they hold, and none that is over', async (_what, window, expected) => {
    const { running, send } = await start((items) => void (window(items) as Stream<unknown>).forEach('out', () => {}), { state: state() });
    await send(['b', 100, 10], ['a', 1, 20], ['a', 2, 150], ['a', 4, 250], ['a', 8, 252]);
    const windows = (expected as [number, number, unknown][]).map(([start, end, value]) => ({ key: 'a', start, end, value }));
    await vi.waitFor(async () => expect(await running.query('w', 'windows', 'a')).toEqual(windows));
    expect(await running.query('w', 'windows', 'c')).toBeUndefined();
  });

  it('gives the sides of a window of two inputs, the one window of all, and the records that an interval join keeps', async () => {
    const { running, send } = await start(
      (items) => {
        const [odd, even] = [items.filter(({ n }) => n % 2 === 1), items.filter(({ n }) => n % 2 === 0)];
        const key = ({ key }: Item): Key => key;
        odd
          .keyBy(key)
          .join(even.keyBy(key))
          .window(tumbling(100))
          .apply('j', () => 0)
          .forEach('a', () => {});
        items
          .windowAll(tumbling(100))
          .aggregate('all', count())
          .forEach('b', () => {});
        odd
          .keyBy(key)
          .intervalJoin('i', even.keyBy(key), { lower: -1000, upper: 1000 }, () => 0)
          .forEach('c', () => {});
      },
      { state: state() },
    );
    const all = Array.from({ length: 140 }, (_, i): [Key, number, number] => ['a', i, 50]);
    await send(...all);
    const items = all.map(([key, n]) => ({ key, n }));
    const [odd, even] = [items.filter(({ n }) => n % 2 === 1), items.filter(({ n }) => n % 2 === 0)];
    await vi.waitFor(async () => {
      expect(await running.query('j', 'windows', 'a')).toEqual([{ key: 'a', start: 0, end: 100, value: { left: odd, right: even } }]);
      expect(await running.query('all', 'windows', 'whatever')).toEqual([{ key: null, start: 0, end: 100, value: 140 }]);
      expect(await running.query('i', 'left', 'a')).toEqual(odd);
      expect(await running.query('i', 'right', 'a')).toEqual(even);
    });
  });

  it('gives a copy, and leaves the next checkpoint as it is', async () => {
    const { running, send } = await start(
      (items) =>
        void items
          .keyBy(({ key }) => key)
          .reduce('sums', (l, r) => ({ key: l.key, n: l.n + r.n }))
          .forEach('out', () => {}),
      {
        state: state(),
        checkpoints: true,
      },
    );
    await send(['a', 1], ['a', 2]);
    await running.checkpoint();
    const { bytes } = await running.checkpoint();
    const seen = (await running.query<{ n: number }>('sums', 'value', 'a'))!;
    expect(seen.n).toBe(3);
    seen.n = 99;
    expect(await running.query('sums', 'value', 'a')).toEqual({ key: 'a', n: 3 });
    // One more delta without rows.
    expect((await running.checkpoint()).bytes - bytes).toBeLessThan(bytes);
  });
});

const counted = (items: Stream<Item>): unknown =>
  items
    .keyBy(({ key }) => key)
    .process('counted', {
      state: { n: value({ default: 0 }) },
      onRecord({ n }, { state: s }) {
        if (n === 13) throw new Error('thirteen');
        s.n.update((all) => all + 1);
      },
    });

describe('a query', () => {
  it('waits for a region that restarts, and sees what was restored', async () => {
    const { running, send, source } = await start((items) => void counted(items), { checkpoints: true });
    await send(['a', 1]);
    await running.checkpoint();
    await send(['a', 2]);
    expect(await running.query('counted', 'n', 'a')).toBe(2);
    const restarted = vi.waitFor(async () => {
      expect(running.status).not.toBe('starting');
      expect(await running.query('counted', 'n', 'a')).toBe(1);
    });
    // What it is counted by begins anew with the region.
    await source.send({ key: 'a', n: 13 });
    await restarted;
  });

  it.each<[what: string, uid: string, state: string, key: unknown, code: string, message: RegExp]>([
    [
      'an operator that is not there',
      'countless',
      'n',
      'a',
      'STATE_NOT_FOUND',
      /^The job 'asked' has no operator 'countless'\. Operators with state by key are 'counted'\.$/,
    ],
    ['state that is not there', 'counted', 'm', 'a', 'STATE_NOT_FOUND', /^'counted' has no state 'm'\. States of 'counted' that can be asked for: n\.$/],
    ['an operator without state by key', 'in', 'value', 'a', 'STATE_NOT_FOUND', /^'in' keeps no state by key\./],
    ['state that has no key', 'plain', 'items', 'a', 'STATE_NOT_FOUND', /^'plain' has the state 'items' without a key\./],
    ['what is no key', 'counted', 'n', { an: 'object' }, 'KEY_UNSUPPORTED', /^'counted' cannot be asked for that key: A key is an object\./],
    ['nothing as a key', 'counted', 'n', undefined, 'KEY_UNSUPPORTED', /^'counted' cannot be asked for that key: A key is undefined\./],
  ])('of %s is refused, and the job goes on', async (_what, uid, state, key, code, message) => {
    const { running } = await start((items) => {
      counted(items);
      items.process('plain', { state: { items: splitList<Item>() }, onRecord: () => {} });
    });
    await expect(running.query(uid, state, key as Key)).rejects.toMatchObject({ code, message: expect.stringMatching(message), retryable: false });
    expect(running.status).toBe('running');
  });

  it('gives lists of all instances and broadcast maps, as a whole and by entry; they are listed and scanned too', async () => {
    const { running, send } = await start(
      (items) => {
        items
          .map((item) => item)
          .process('plain', {
            state: { mine: splitList<number>(), all: unionList<string>() },
            onRecord({ key, n }, { state }) {
              state.mine.add(n);
              state.all.add(String(key));
            },
          });
        items
          .keyBy(({ key }) => key)
          .connect(items.broadcast())
          .process('ruled', {
            state: { rules: broadcastMap<Key, number>(), last: value<number>() },
            onLeft: ({ n }, ctx) => ctx.state.last.set(n),
            onRight: ({ key, n }, ctx) => ctx.state.rules.set(key, n),
          });
      },
      { parallelism: 3 },
    );
    await send(['a', 1], [['b', 2n], 2], [7n, 3]);
    await vi.waitFor(async () => {
      expect((await running.query<number[]>('plain', 'mine'))?.sort()).toEqual([1, 2, 3]);
      expect(await running.query('ruled', 'rules')).toEqual(
        new Map<Key, number>([
          ['a', 1],
          [['b', 2n], 2],
          [7n, 3],
        ]),
      );
    });
    expect((await running.query<string[]>('plain', 'all'))?.sort()).toEqual(['7', 'a', 'b,2']);
    expect(await running.query('ruled', 'rules', ['b', 2n])).toBe(2);
    expect(await running.query('ruled', 'rules', ['b', 2])).toBeUndefined();
    expect(await running.query('ruled', 'last', 'a')).toBe(1);
    const { state } = running as unknown as JobRun;
    expect(await state.list()).toEqual(
      expect.arrayContaining([
        { uid: 'plain', state: 'mine', kind: 'splitList', rows: 3, bytes: 3 },
        { uid: 'plain', state: 'all', kind: 'unionList', rows: 3, bytes: expect.any(Number) },
        { uid: 'ruled', state: 'rules', kind: 'broadcastMap', rows: 3, bytes: expect.any(Number) },
      ]),
    );
    expect((await state.scan('plain', { state: 'mine' })).map(({ value: n }) => n).sort()).toEqual([1, 2, 3]);
    expect(await state.scan('ruled', { state: 'rules', prefix: 'a' })).toEqual([{ state: 'rules', key: 'a', value: 1 }]);
    expect((await state.scan('ruled')).map(({ state: name }) => name).sort()).toEqual(['last', 'last', 'last', 'rules', 'rules', 'rules']);
  });

  it('whose result the program cannot make is refused with what it threw; the job goes on', async () => {
    const { running, send } = await start(
      (items) =>
        void items
          .keyBy(({ key }) => key)
          .process('p', {
            state: {
              mean: aggregating({
                create: () => 0,
                add: (all, n: number) => all + n,
                result: () => {
                  throw new Error('no result');
                },
              }),
            },
            onRecord: ({ n }, { state: s }) => s.mean.add(n),
          }),
    );
    await send(['a', 1]);
    await expect(running.query('p', 'mean', 'a')).rejects.toMatchObject({ code: 'USER_FUNCTION_FAILED', uid: 'p', cause: { message: 'no result' } });
    expect(running.status).toBe('running');
  });

  it('is refused with JOB_ENDED once the job has ended', async () => {
    const { running } = await start((items) => void counted(items));
    const late = running.cancel();
    await expect(running.query('counted', 'n', 'a')).rejects.toMatchObject({ code: 'JOB_ENDED' });
    await late;
    await expect(running.query('counted', 'n', 'a')).rejects.toMatchObject({ code: 'JOB_ENDED' });
  });

  it('of a part of the job that has finished, while others run, gives what it left', async () => {
    const source = ingress<Item>();
    const running = await job('asked', (env) => {
      env
        .fromArray('few', [1, 2, 3])
        .keyBy(() => 'all')
        .reduce('sum', (l, r) => l + r)
        .forEach('a', () => {});
      env.source('in', source).forEach('b', () => {});
    }).start();
    started.push(running);
    await vi.waitFor(async () => expect(await running.query('sum', 'value', 'all')).toBe(6));
  });

  it('is counted: rows and bytes of each state, hits and misses, time for writing and waiting are among the metrics', async () => {
    const { running, send } = await start((items) => void counted(items), { state: backends['level() with next to nothing in memory'](), parallelism: 2 });
    await send(...Array.from({ length: 100 }, (_, i): [Key, number] => [`k${i}`, 1]));
    const samples = await running.metrics();
    const total = (name: string): number => samples.filter((sample) => sample.name === name).reduce((all, { value: n }) => all + n, 0);
    expect(total('keyedStateRows')).toBe(100);
    expect(total('keyedStateBytes')).toBeGreaterThan(1000);
    expect(samples.find(({ name }) => name === 'keyedStateRows')!.labels).toMatchObject({ job: 'asked', uid: 'counted', state: 'n' });
    for (const name of ['stateCacheHits', 'stateCacheMisses', 'stateWriteMs', 'stateStallMs']) expect(samples.map((sample) => sample.name)).toContain(name);
  });
});
