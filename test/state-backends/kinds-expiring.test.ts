import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import {
  aggregating,
  type Backend,
  type BoundKinds,
  bindKinds,
  hashKey,
  level,
  list,
  map,
  memory,
  reducing,
  type StateSpec,
  type TaskState,
  value,
} from '../../state-backends/index.ts';

const TTL = 10;

async function open(options: { undo?: boolean } = {}, backend: Backend = memory()): Promise<TaskState> {
  const region = await backend.open({ name: 'host/expiring', tracked: true });
  onTestFinished(() => region.close());
  return region.task({ maxParallelism: 128, range: { from: 0, to: 127 }, undo: options.undo ?? false });
}

/** State with a clock that the test moves; what is due is removed when it is told to. */
class Clocked<S extends StateSpec> {
  at = 0;
  readonly task: TaskState;
  readonly bound: BoundKinds<S>;

  constructor(task: TaskState, spec: S) {
    this.task = task;
    this.bound = bindKinds(task, 'op', spec, { now: () => this.at, changed: () => {} });
  }

  under(key: string): BoundKinds<S>['handles'] {
    this.bound.setCurrent(key, hashKey(key));
    return this.bound.handles;
  }

  /** Time passes, and timers fire as the engine would let them. */
  to(at: number): this {
    while (this.bound.nextExpiry <= at) {
      this.at = Math.max(this.at, this.bound.nextExpiry);
      expect(this.bound.expire(this.at, Number.POSITIVE_INFINITY)).toBe('done');
    }
    this.at = at;
    return this;
  }

  get rows(): number {
    return this.task.stats().rows;
  }
}

async function clocked<S extends StateSpec>(spec: S, options: { undo?: boolean } = {}): Promise<Clocked<S>> {
  return new Clocked(await open(options), spec);
}

/** What another task makes of the files of this one. */
async function restored<S extends StateSpec>(from: TaskState, spec: S, at: number): Promise<Clocked<S>> {
  from.freeze(1);
  from.encode(Number.POSITIVE_INFINITY);
  const task = await open();
  const again = new Clocked(task, spec);
  again.at = at;
  for (const delta of from.takeDeltas()) if (delta.rows > 0) await task.load(toAsync(delta.blocks));
  return again;
}
async function* toAsync(blocks: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* blocks;
}

const SPEC = {
  value: value<number>({ ttl: TTL }),
  initial: value<number>({ ttl: TTL, default: 7 }),
  list: list<number>({ ttl: TTL }),
  map: map<string, number>({ ttl: TTL }),
  reducing: reducing<number>((l, r) => l + r, { ttl: TTL }),
  aggregating: aggregating({ create: () => 0, add: (a: number, v: number) => a + v, result: (a: number) => a }, { ttl: TTL }),
};
type Spec = typeof SPEC;
type Use = { write(state: BoundKinds<Spec>['handles']): void; read(state: BoundKinds<Spec>['handles']): unknown; full: unknown; empty: unknown };
const USES: Record<keyof Spec, Use> = {
  value: { write: (s) => s.value.set(1), read: (s) => s.value.get(), full: 1, empty: undefined },
  initial: { write: (s) => s.initial.set(1), read: (s) => s.initial.get(), full: 1, empty: 7 },
  list: { write: (s) => s.list.set([1]), read: (s) => s.list.all(), full: [1], empty: [] },
  map: {
    write: (s) => s.map.set('a', 1),
    read: (s) => [s.map.get('a'), s.map.has('a'), s.map.size, [...s.map.keys()]],
    full: [1, true, 1, ['a']],
    empty: [undefined, false, 0, []],
  },
  reducing: {
    write(s) {
      s.reducing.clear();
      s.reducing.add(1);
    },
    read: (s) => s.reducing.get(),
    full: 1,
    empty: undefined,
  },
  aggregating: {
    write(s) {
      s.aggregating.clear();
      s.aggregating.add(1);
    },
    read: (s) => s.aggregating.get(),
    full: 1,
    empty: undefined,
  },
};

describe.each(Object.entries(USES))('%s with a ttl', (_name, { write, read, full, empty }) => {
  test('is there until its ttl has passed, and not at that very time', async () => {
    const state = await clocked(SPEC);
    write(state.under('k'));
    state.at = TTL - 1;
    expect(read(state.under('k'))).toEqual(full);
    state.at = TTL;
    expect(read(state.under('k'))).toEqual(empty);
  });

  test('begins anew when it is written', async () => {
    const state = await clocked(SPEC);
    write(state.under('k'));
    write(state.to(6).under('k'));
    expect(read(state.to(15).under('k'))).toEqual(full);
    expect(read(state.to(16).under('k'))).toEqual(empty);
  });

  test('leaves no row behind, whether or not anybody looks', async () => {
    const state = await clocked(SPEC);
    write(state.under('k'));
    write(state.under('other'));
    write(state.to(5).under('k'));
    state.to(100);
    expect(state.rows).toBe(0);
    expect(state.bound.nextExpiry).toBe(Number.POSITIVE_INFINITY);
  });

  test('keeps one timer a key, however often it is cleared and written', async () => {
    const state = await clocked(SPEC);
    for (let at = 0; at < 9; at++) {
      write(state.to(at).under('k'));
      (state.bound.handles[_name as keyof Spec] as { clear(): void }).clear();
    }
    write(state.under('k'));
    // The row, the timer, and for when it is set.
    expect(state.rows).toBe(3);
    expect(read(state.to(17).under('k'))).toEqual(full);
    expect(state.to(18).rows).toBe(0);
  });

  test('is restored with the time that it has left', async () => {
    const state = await clocked(SPEC);
    write(state.to(4).under('k'));
    const again = await restored(state.task, SPEC, 6);
    expect(read(again.under('k'))).toEqual(full);
    expect(read(again.to(13).under('k'))).toEqual(full);
    expect(read(again.to(14).under('k'))).toEqual(empty);
    expect(again.rows).toBe(0);
  });

  test('that expired during an outage is gone at the first read', async () => {
    const state = await clocked(SPEC);
    write(state.under('k'));
    const again = await restored(state.task, SPEC, 1000);
    expect(read(again.under('k'))).toEqual(empty);
    expect(again.to(1000).rows).toBe(0);
  });

  test('that a unit wrote and expired are taken back with it', async () => {
    const state = await clocked(SPEC, { undo: true });
    write(state.under('k'));
    state.at = 5;
    state.task.beginUnit();
    write(state.under('k'));
    write(state.under('new'));
    state.task.rollbackUnit();
    expect(read(state.under('k'))).toEqual(full);
    expect(read(state.under('new'))).toEqual(empty);
    expect(read(state.to(10).under('k'))).toEqual(empty);
    expect(state.rows).toBe(0);
  });
});

describe("ttlOn: 'read'", () => {
  const reads: [string, StateSpec, (s: never) => void, (s: never) => void, boolean][] = [
    [
      'get of a value',
      { s: value<number>({ ttl: TTL, ttlOn: 'read' }) },
      (s: { s: { set(n: number): void } }) => s.s.set(1),
      (s: { s: { get(): unknown } }) => s.s.get(),
      true,
    ],
    [
      'all of a list',
      { s: list<number>({ ttl: TTL, ttlOn: 'read' }) },
      (s: { s: { add(n: number): void } }) => s.s.add(1),
      (s: { s: { all(): unknown } }) => s.s.all(),
      true,
    ],
    [
      'iterating a list',
      { s: list<number>({ ttl: TTL, ttlOn: 'read' }) },
      (s: { s: { add(n: number): void } }) => s.s.add(1),
      (s: { s: Iterable<number> }) => [...s.s],
      true,
    ],
    [
      'get of an entry',
      { s: map<string, number>({ ttl: TTL, ttlOn: 'read' }) },
      (s: { s: Map<string, number> }) => s.s.set('a', 1),
      (s: { s: Map<string, number> }) => s.s.get('a'),
      true,
    ],
    [
      'iterating entries',
      { s: map<string, number>({ ttl: TTL, ttlOn: 'read' }) },
      (s: { s: Map<string, number> }) => s.s.set('a', 1),
      (s: { s: Map<string, number> }) => [...s.s.entries()],
      true,
    ],
    [
      'has of an entry',
      { s: map<string, number>({ ttl: TTL, ttlOn: 'read' }) },
      (s: { s: Map<string, number> }) => s.s.set('a', 1),
      (s: { s: Map<string, number> }) => s.s.has('a'),
      false,
    ],
    [
      'get of what was reduced',
      { s: reducing<number>((l, r) => l + r, { ttl: TTL, ttlOn: 'read' }) },
      (s: { s: { add(n: number): void } }) => s.s.add(1),
      (s: { s: { get(): unknown } }) => s.s.get(),
      true,
    ],
    [
      "get under ttlOn 'write'",
      { s: value<number>({ ttl: TTL, ttlOn: 'write' }) },
      (s: { s: { set(n: number): void } }) => s.s.set(1),
      (s: { s: { get(): unknown } }) => s.s.get(),
      false,
    ],
  ];
  test.each(reads)('%s renews: its ttl begins anew', async (_name, spec, write, read, renews) => {
    const state = await clocked(spec);
    write(state.under('k') as never);
    read(state.to(9).under('k') as never);
    state.to(12);
    expect(state.rows > 0).toBe(renews);
    expect(state.to(19).rows).toBe(0);
  });
});

describe('elements and entries', () => {
  test('of a list expire each by itself, over the borders of rows', async () => {
    const state = await clocked({ s: list<number>({ ttl: TTL }) });
    for (let i = 0; i < 300; i++)
      state
        .to(i / 30)
        .under('k')
        .s.add(i);
    for (const at of [10, 12.5, 15, 19.9]) {
      const left = Array.from({ length: 300 }, (_, i) => i).filter((i) => i / 30 + TTL > at);
      expect(state.to(at).under('k').s.all()).toEqual(left);
    }
    expect(state.to(20).rows).toBe(0);
  });

  test.each(['memory', 'level'])('of a map expire each by itself, also where it has many and some are renewed, deleted and put back: %s()', async (backend) => {
    const directory = mkdtempSync(join(tmpdir(), 'expiring-'));
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
    const task = await open({}, backend === 'memory' ? memory() : (level({ directory, cacheBytes: 1 << 10 }) as Backend));
    const state = new Clocked(task, { s: map<number, number>({ ttl: 1000 }) });
    const model = new Map<number, number>();
    let seed = 7;
    const random = (n: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return (seed >>> 8) % n;
    };
    for (let at = 0; at < 6000; at += 3) {
      state.to(at);
      const { s } = state.under('k');
      const key = random(400);
      if (random(4) === 0) {
        s.delete(key);
        model.delete(key);
      } else {
        s.set(key, at);
        model.set(key, at);
      }
      if (at % 30 === 0) {
        // Another key takes its place in memory.
        state.under('other').s.set(1, at);
        task.maintain();
        if (task.pressed) await task.relieve();
        state.under('k');
      }
      if (at % 300 === 0) {
        const live = [...model].filter(([, written]) => written + 1000 > at);
        expect(s.size).toBe(live.length);
        expect([...s.entries()].sort(([a], [b]) => a - b)).toEqual(live.sort(([a], [b]) => a - b));
      }
    }
    expect(state.to(8000).rows).toBe(0);
  });
});

describe('a ttl and what was stored', () => {
  const v0 = { s: value<number>({ ttl: TTL }) };
  const migrate = (old: unknown): string => `was ${String(old)}`;

  test('values are migrated, and keep the time that they have left', async () => {
    const state = await clocked({ v: value<number>({ ttl: TTL }), l: list<number>({ ttl: TTL }), m: map<string, number>({ ttl: TTL }) });
    const s = state.under('k');
    s.v.set(1);
    s.l.set([1, 2]);
    s.m.set('a', 3);
    const next = { version: 1, migrate, ttl: TTL };
    const again = await restored(state.task, { v: value<string>(next), l: list<string>(next), m: map<string, string>(next) }, 5);
    const after = again.under('k');
    expect([after.v.get(), after.l.all(), after.m.get('a')]).toEqual(['was 1', ['was 1', 'was 2'], 'was 3']);
    expect(again.to(10).rows).toBe(0);
  });

  test('another version without migrate is refused', async () => {
    const state = await clocked(v0);
    state.under('k').s.set(1);
    await expect(restored(state.task, { s: value<number>({ ttl: TTL, version: 1 }) }, 0)).rejects.toMatchObject({ code: 'SNAPSHOT_INCOMPATIBLE' });
  });

  test('a longer ttl counts for what is there; a shorter one too', async () => {
    for (const ttl of [20, 5]) {
      const state = await clocked(v0);
      state.under('k').s.set(1);
      const again = await restored(state.task, { s: value<number>({ ttl }) }, 4);
      expect(
        again
          .to(ttl - 0.5)
          .under('k')
          .s.get(),
      ).toBe(1);
      expect(again.to(ttl).under('k').s.get()).toBeUndefined();
      expect(again.to(30).rows).toBe(0);
    }
  });

  test('one that is taken away leaves the values', async () => {
    const timed = await clocked({ s: value<number>({ ttl: TTL }), l: list<number>({ ttl: TTL }) });
    timed.under('k').s.set(1);
    timed.under('k').l.set([1, 2]);
    const plain = await restored(timed.task, { s: value<number>(), l: list<number>() }, 5);
    expect([plain.under('k').s.get(), plain.under('k').l.all()]).toEqual([1, [1, 2]]);
    expect(plain.to(100).under('k').s.get()).toBe(1);
  });

  test('one that is new counts from the restore, for keys that nobody looks at too, and over the next restore', async () => {
    const plain = await clocked({ s: value<number>(), l: list<number>(), m: map<string, number>() });
    for (const key of ['k', 'silent']) {
      const state = plain.under(key);
      state.s.set(1);
      state.l.set(Array.from({ length: 100 }, (_, i) => i));
      state.m.set('a', 1);
    }
    const spec = { s: value<number>({ ttl: TTL }), l: list<number>({ ttl: TTL }), m: map<string, number>({ ttl: TTL }) };
    const again = await restored(plain.task, spec, 100);
    expect(again.bound.nextExpiry).toBeLessThanOrEqual(100);
    const after = again.to(109).under('k');
    expect([after.s.get(), after.l.all().length, after.m.get('a')]).toEqual([1, 100, 1]);
    expect(await restored(again.task, spec, 109).then((third) => third.to(110).rows)).toBe(0);
    expect(again.to(110).rows).toBe(0);
  });
});

test('timers of a long burst give control back', async () => {
  const state = await clocked({ s: value<number>({ ttl: TTL }) });
  for (let i = 0; i < 100; i++) state.under(`k${i}`).s.set(i);
  let turns = 1;
  while (state.bound.expire(TTL, 0) === 'more') turns += 1;
  expect(turns).toBeGreaterThan(2);
  expect(state.rows).toBe(0);
});
