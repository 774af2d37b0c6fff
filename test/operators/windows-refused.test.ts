import {
  aggregating,
  count,
  early,
  every,
  evictCount,
  evictTime,
  global,
  job,
  type KeyedStream,
  onCount,
  purging,
  type Stream,
  type StreamEnvironment,
  session,
  sliding,
  sum,
  tumbling,
  value,
  type WindowAssigner,
} from 'millrace';
import { describe, expect, it } from 'vitest';

interface Item {
  readonly at: number;
}
const timed = { timestamp: (item: Item): number => item.at };
const keyed = (env: StreamEnvironment): KeyedStream<string, Item> => env.fromArray<Item>('in', [], timed).keyBy(() => 'k');
const merges = session(10) as WindowAssigner<unknown, boolean> as WindowAssigner<unknown, false>;
const planOf = (build: (env: StreamEnvironment) => unknown) => (): unknown => job('refused', (env) => void build(env)).plan();

describe('windows are refused when the job is planned', () => {
  const cases: Record<string, [code: string, uid: string | undefined, build: (env: StreamEnvironment) => unknown]> = {
    'whose trigger has no onMerge, on sessions': [
      'PLAN_INVALID',
      'w',
      (env) =>
        keyed(env)
          .window(merges)
          .trigger({ onElement: () => 'fire' })
          .aggregate('w', count()),
    ],
    'whose trigger has none within purging': [
      'PLAN_INVALID',
      'w',
      (env) =>
        keyed(env)
          .window(merges)
          .trigger(purging({ onElement: () => 'fire' }))
          .aggregate('w', count()),
    ],
    'whose aggregate has no merge, on sessions': [
      'PLAN_INVALID',
      'w',
      (env) =>
        keyed(env)
          .window(merges)
          .aggregate('w', { create: () => 0, add: (n) => n + 1, result: (n) => n }),
    ],
    'whose trigger has state without merge, on sessions': [
      'PLAN_INVALID',
      'w',
      (env) =>
        keyed(env)
          .window(merges)
          .trigger({
            state: { n: aggregating({ create: () => 0, add: (n: number) => n + 1, result: (n: number) => n }) },
            onElement: () => 'fire',
            onMerge() {},
          })
          .aggregate('w', count()),
    ],
    'of all records, in parallel': [
      'PLAN_INVALID',
      'w',
      (env) => env.fromArray<Item>('in', [], timed).windowAll(tumbling(10)).aggregate('w', count()).parallelism(2),
    ],
    'with state of a window that has a ttl': [
      'PLAN_INVALID',
      'w',
      (env) =>
        keyed(env)
          .window(tumbling(10))
          .process('w', { windowState: { n: value({ ttl: 5 }) }, onFire: () => [] }),
    ],
    'with a function that is none': [
      'PLAN_INVALID',
      'w',
      (env) =>
        keyed(env)
          .window(tumbling(10))
          .process('w', {} as never),
    ],
    'of no assigner': [
      'PLAN_INVALID',
      undefined,
      (env) =>
        keyed(env)
          .window({ size: 10 } as never)
          .aggregate('w', count()),
    ],
    'joined with a stream that is not keyed': ['PLAN_INVALID', undefined, (env) => keyed(env).join(env.fromArray<Item>('other', [], timed) as never)],
    'of event time, of an array without timestamps': [
      'TIMESTAMP_MISSING',
      'w',
      (env) =>
        env
          .fromArray<Item>('in', [])
          .filter(() => true)
          .map((item) => item)
          .keyBy(() => 'k')
          .window(tumbling(10))
          .aggregate('w', count()),
    ],
    'of event time, where one of two inputs has no timestamps': [
      'TIMESTAMP_MISSING',
      'w',
      (env) =>
        keyed(env)
          .join(env.fromArray<Item>('other', [], { outOfOrderness: 5 }).keyBy(() => 'k'))
          .window(session(5))
          .apply('w', (left) => left),
    ],
    'of event time, of an async iterable without timestamps, through a running reduce': [
      'TIMESTAMP_MISSING',
      'w',
      (env) =>
        env
          .fromAsync<Item>('in', async function* () {})
          .keyBy(() => 'k')
          .reduce('r', (left) => left)
          .windowAll(sliding(10, 5))
          .aggregate('w', count()),
    ],
  };
  for (const [name, [code, uid, build]] of Object.entries(cases)) {
    it(name, () => expect(planOf(build)).toThrow(expect.objectContaining({ code, ...(uid === undefined ? {} : { uid }) })));
  }

  const fine: Record<string, (env: StreamEnvironment) => unknown> = {
    'timestamps() in between': (env) => env.fromArray<Item>('in', []).timestamps(timed).windowAll(tumbling(10)).aggregate('w', count()),
    'a process in between, which may give some': (env) =>
      env
        .fromArray<Item>('in', [])
        .process('p', { onRecord: (item: Item, ctx) => ctx.side('out', item, item.at) })
        .side<Item>('out')
        .windowAll(tumbling(10))
        .aggregate('w', count()),
    'windows of processing time, and global ones': (env) => {
      const stream: Stream<Item> = env.fromArray<Item>('in', []);
      stream.windowAll(tumbling(10, { time: 'processing' })).aggregate('a', count());
      stream.windowAll(session(10, { time: 'processing' })).aggregate('b', count());
      stream.windowAll(count(3)).aggregate('c', count());
      return stream.windowAll(global()).aggregate('d', count());
    },
    'the parallelism 1 for windows of all records': (env) =>
      env.fromArray<Item>('in', [], timed).windowAll(tumbling(10)).aggregate('w', count()).parallelism(1),
  };
  for (const [name, build] of Object.entries(fine)) it(`not with ${name}`, () => expect(planOf(build)).not.toThrow());
});

describe('arguments are refused by the call', () => {
  const calls: Record<string, () => unknown> = {
    'tumbling(0)': () => tumbling(0),
    'tumbling(10, { offset: 10 })': () => tumbling(10, { offset: 10 }),
    'sliding(10, 5, { offset: -5 })': () => sliding(10, 5, { offset: -5 }),
    'sliding(10, 0)': () => sliding(10, 0),
    'a time of neither kind': () => tumbling(10, { time: 'wall' as never }),
    'session(0)': () => session(0),
    'session(NaN)': () => session(Number.NaN),
    'count(0)': () => count(0),
    'count(2, 0.5)': () => count(2, 0.5),
    'onCount(0)': () => onCount(0),
    'every(0)': () => every(0, 'event'),
    'every without a time': () => every(5, undefined as never),
    'early({})': () => early({}),
    'evictCount(-1)': () => evictCount(-1),
    'evictTime(0)': () => evictTime(0),
  };
  for (const [name, call] of Object.entries(calls)) it(name, () => expect(call).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' })));
});

it('a changed size under the same uid is refused at the start, naming the uid', async () => {
  const { mkdtemp, rm } = await import('node:fs/promises');
  const { tmpdir } = await import('node:os');
  const { join } = await import('node:path');
  const directory = await mkdtemp(join(tmpdir(), 'millrace-'));
  try {
    const { ingress } = await import('millrace');
    const start = (size: number) => {
      const items = ingress<Item>();
      const running = job('changed', (env) => {
        env
          .source('in', items, timed)
          .keyBy(() => 'k')
          .window(tumbling(size))
          .aggregate(
            'w',
            sum((item) => item.at),
          )
          .forEach('out', () => {});
      }).start({ checkpoints: { directory }, restarts: false });
      return { items, running };
    };
    const first = start(10);
    const running = await first.running;
    await first.items.send({ at: 1 });
    await running.stop();
    const error = await start(20)
      .running.then(
        (run) => run.finished,
        (reason: unknown) => Promise.reject(reason),
      )
      .then(
        () => undefined,
        (reason: unknown) => reason,
      );
    expect(error).toMatchObject({ code: 'SNAPSHOT_INCOMPATIBLE', uid: 'w' });
  } finally {
    await rm(directory, { recursive: true, force: true, maxRetries: 3 });
  }
});
