import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { count, early, job, level, memory, onCount, purging, session, sum, tumbling, value, type Windowed } from 'millrace';
import { collect } from 'millrace/connectors';
import { crashMarker, runJob } from 'millrace/testing';
import { describe, expect, it, onTestFinished } from 'vitest';

interface Item {
  readonly key: string;
  readonly at: number;
  readonly n: number;
}

/** Sessions, count windows, functions with state, and two inputs, all of one stream that is a little out of order. */
const all = job('windows', (env) => {
  const strategy = { timestamp: (item: Item): number => item.at, outOfOrderness: 15 };
  const items = env.fromArray<Item>('items', [], strategy).keyBy((item) => item.key);
  const others = env.fromArray<Item>('others', [], strategy).keyBy((item) => item.key);
  items
    .window(session(8))
    .allowedLateness(5)
    .aggregate(
      'sessions',
      sum((item) => item.n),
    )
    .sink('sessions-out', collect([]));
  items
    .window(count(5))
    .aggregate(
      'fives',
      sum((item) => item.n),
    )
    .sink('fives-out', collect([]));
  items
    .window(session(20))
    .trigger(purging(early({ count: 3 })))
    .process('parts', {
      state: { firings: value({ default: 0 }) },
      windowState: { part: value({ default: 0 }) },
      onFire(window, values) {
        window.state.firings.update((n) => n + 1);
        window.windowState.part.update((n) => n + 1);
        return [`${window.key} ${[...values].map((item) => item.n)} ${window.windowState.part.get()}/${window.state.firings.get()}`];
      },
    })
    .sink('parts-out', collect([]));
  items
    .coGroup(others)
    .window(tumbling(50))
    .apply('both', (key, left, right, { start }) => [`${key} ${start} ${left.length} ${right.reduce((total, item) => total + item.n, 0)}`])
    .sink('both-out', collect([]));
  items
    .map((item) => item)
    .windowAll(tumbling(100))
    .trigger(onCount(10))
    .aggregate('all', count())
    .sink('all-out', collect([]));
});

interface Sinks {
  'sessions-out': Windowed<string, number>[];
  'parts-out': string;
}

const script = (seed: number, crashes: boolean) =>
  Array.from({ length: 200 }, (_, i) => {
    const at = i * 3 - ((i * 7 + seed) % 5) * 3;
    const item = { value: { key: `k${(i * 11 + seed) % 6}`, at, n: i + 1 } };
    return crashes && i % 70 === 40 ? [crashMarker(), item] : [item];
  }).flat();

/** Results by sink, those of windows of all instances in no order between them. */
async function outcome(crashes: boolean, options: { parallelism: number; state?: ReturnType<typeof memory> }): Promise<Record<string, string[]>> {
  const { sinks, restarts } = await runJob<Sinks>(all, {
    sources: { items: script(1, crashes), others: script(3, false) },
    seed: 5,
    ...options,
  });
  if (crashes) expect(restarts).toBeGreaterThan(0);
  return Object.fromEntries(Object.entries(sinks).map(([uid, values]) => [uid, (values as unknown[]).map((each) => JSON.stringify(each)).sort()]));
}

describe('windows of every kind', () => {
  const backends = {
    'memory()': async () => memory(),
    'level()': async () => {
      const directory = await mkdtemp(join(tmpdir(), 'millrace-'));
      onTestFinished(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }));
      return level({ directory });
    },
  };
  for (const [name, backend] of Object.entries(backends)) {
    it(`give the same over crashes as without, in ${name}`, async () => {
      const straight = await outcome(false, { parallelism: 1, state: await backend() });
      expect(Object.values(straight).every((values) => values.length > 3)).toBe(true);
      expect(await outcome(true, { parallelism: 1, state: await backend() })).toEqual(straight);
    }, 60_000);
  }

  it('give the same over crashes as without, in three instances of each', async () => {
    const keyed = ({ 'all-out': _, ...rest }: Record<string, string[]>): Record<string, string[]> => rest;
    const straight = await outcome(false, { parallelism: 3 });
    const crashed = await outcome(true, { parallelism: 3 });
    expect(Object.keys(keyed(crashed))).toEqual(Object.keys(keyed(straight)));
    expect(crashed['both-out']).toEqual(straight['both-out']);
  }, 60_000);
});
