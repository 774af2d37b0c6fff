// Savepoints that are made without a job: what a job restored from them goes on with.

import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import {
  aggregating,
  avg,
  broadcastMap,
  count,
  editSavepoint,
  hours,
  type Job,
  job,
  type Key,
  level,
  list,
  map,
  memory,
  newSavepoint,
  openSnapshot,
  process,
  reducing,
  type SavepointEditor,
  type Stream,
  splitList,
  tumbling,
  type,
  unionList,
  value,
} from 'millrace';
import { describe, expect, it } from 'vitest';
import { openSnapshot as inspectSnapshot } from '../../src/checkpoint/inspect.ts';
import { Editor } from '../../src/offline/savepoint-editor.ts';
import { SnapshotReading } from '../../src/offline/snapshot-reading.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { checkpointsIn, ends, Feed, rejection, Store, temporaryFolder } from '../protocols/lab.ts';

interface Entry {
  readonly key: Key;
  readonly n: number;
  readonly at: number;
}

const kinds = {
  last: value<number>(),
  all: list<number>(),
  by: map<number, { n: number }>(),
  total: reducing<number>((left, right) => left + right),
  mean: aggregating(avg((n: number) => n)),
  soon: value<number>({ ttl: hours(1000) }),
};
const holding = process<Key, Entry, unknown>()({
  state: kinds,
  onRecord({ n, at }, { state, timers }) {
    state.last.set(n);
    state.all.add(n);
    state.by.set(n % 3, { n });
    state.total.add(n);
    state.mean.add(n);
    state.soon.set(n);
    timers.event.set(at + 1000);
  },
  onTimer({ at }, ctx) {
    const { state } = ctx;
    ctx.emit([ctx.key, at, state.last.get(), [...state.all], [...state.by.entries()].sort(), state.total.get(), state.mean.get(), state.soon.get()]);
  },
});
const KEYS: Key[] = [...Array.from({ length: 90 }, (_, i) => `key ${i}`), 1, 1n, true, ['a', 2n, true], -7.5];
const round = (n: number): Entry[] => KEYS.map((key, i) => ({ key, n: n + i, at: n }));

function program(feed: Feed<Entry>, store: Store<unknown>, uid = 'held'): Job {
  return job('held', (env) => {
    env
      .source('in', feed, { timestamp: ({ at }) => at })
      .keyBy(({ key }) => key)
      .process(uid, holding)
      .sink('out', store);
  });
}

async function saved(folder: string, rounds = [1, 2]): Promise<string> {
  const feed = new Feed<Entry>({ bounded: false });
  const run = ends(await program(feed, new Store()).start({ checkpoints: checkpointsIn(folder), parallelism: 3 }));
  for (const n of rounds) {
    feed.push(round(n));
    await feed.taken();
    await run.checkpoint();
  }
  const { path } = await run.savepoint(join(folder, 'saved'));
  await run.cancel();
  return path;
}

/** What a job that goes on from there tells when all its timers fire. */
async function told(folder: string, path: string, { state = memory(), parallelism = 1, uid = 'held' } = {}): Promise<unknown[]> {
  const store = new Store<unknown>();
  const feed = new Feed<Entry>();
  feed.end();
  const directory = join(folder, `again-${parallelism}-${state.kind}`);
  await program(feed, store, uid).run({ checkpoints: { directory }, restore: { from: path }, state, parallelism });
  return store.records.sort((one, other) => (idOf(one) < idOf(other) ? -1 : 1));
}
const idOf = (told: unknown): string => JSON.stringify(told, (_, part: unknown) => (typeof part === 'bigint' ? `${part}n` : part));

/** An editor that works on some hundred bytes at a time. */
const tiny = (path: string): SavepointEditor => {
  const io = systemIo();
  return new Editor({ io, open: () => inspectSnapshot(path, io), shareBytes: 800, bufferBytes: 500 });
};

describe('a savepoint with edited keys', () => {
  it.each([
    ['whole in memory', editSavepoint],
    ['share by share', tiny],
  ])('%s: gives a job at any parallelism and backend what the edit has made of each key', async (_, edit) => {
    const folder = await temporaryFolder();
    const path = await saved(folder);
    const { edit: audit } = await edit(path)
      .each('held', {
        state: kinds,
        each({ key, state, timers }) {
          if (key === 'key 3') {
            for (const kind of Object.values(state)) kind.clear();
            for (const at of timers.event.all()) timers.event.delete(at);
            return;
          }
          if (typeof key !== 'string') return;
          expect(timers.event.all()).toEqual([1001, 1002]);
          timers.event.delete(1001);
          timers.event.set(5000);
          state.last.update((n) => n! * 10);
          state.all.set([...state.all, 7, 7]);
          const one = state.by.get(1);
          if (one !== undefined) one.n += 100;
          state.by.delete(2);
          state.by.set(9, { n: 9 });
          state.total.add(1000);
          state.mean.add(1);
          state.soon.set(5);
        },
      })
      .write(join(folder, 'edited'), { note: 'why', by: 'me' });
    expect(audit).toMatchObject({
      by: 'me',
      note: 'why',
      from: { id: 3, path: join(path, 'metadata'), checksum: expect.stringMatching(/^[0-9a-f]{64}$/) },
      operators: [{ uid: 'held', change: 'changed', states: ['all', 'by', 'last', 'mean', 'soon', 'timers', 'total'] }],
    });
    const edited = KEYS.flatMap((key, i) => (typeof key === 'string' && key !== 'key 3' ? [[(1 + i) % 3, (2 + i) % 3]] : []));
    const having = (n: number): number => edited.filter((mods) => mods.includes(n)).length;
    // last, all, a new entry, total, mean, soon and a timer of each, and the entry that was changed in place. Of key 3 everything is gone.
    expect(audit.operators![0]).toMatchObject({ written: edited.length * 7 + having(1), deleted: edited.length + having(2) + 9 });

    const expected = KEYS.flatMap((key, i): unknown[][] => {
      const [one, two] = [1 + i, 2 + i];
      const by = new Map([
        [one % 3, { n: one }],
        [two % 3, { n: two }],
      ]);
      const all = [one, two];
      if (typeof key !== 'string') return [1001, 1002].map((at) => [key, at, two, all, [...by].sort(), one + two, (one + two) / 2, two]);
      if (key === 'key 3') return [];
      if (by.has(1)) by.get(1)!.n += 100;
      by.delete(2);
      by.set(9, { n: 9 });
      return [1002, 5000].map((at) => [key, at, two * 10, [...all, 7, 7], [...by].sort(), one + two + 1000, (one + two + 1) / 3, 5]);
    }).sort((one, other) => (idOf(one) < idOf(other) ? -1 : 1));
    const elsewhere = edit === tiny ? { state: level({ directory: join(folder, 'state'), cacheBytes: 1 }), parallelism: 4 } : {};
    expect(await told(folder, join(folder, 'edited'), elsewhere)).toEqual(expected);
    expect(await readdir(join(folder, 'edited'))).toEqual(['files', 'metadata', 'metadata.copy']);
  });
});

/** Everything that a job can hold. */
const NAMES = { sums: 'sums', items: 'items', seen: 'seen' };
function wide(feed: Feed<Entry>, store: Store<unknown>, { sums, items, seen } = NAMES): Job {
  return job('wide', (env) => {
    const entries: Stream<Entry> = env.source('in', feed, { timestamp: ({ at }) => at });
    const byKey = entries.keyBy(({ key }) => key);
    byKey.reduce(sums, (l, r) => ({ key: l.key, at: r.at, n: l.n + r.n })).sink('summed', store);
    byKey.window(tumbling(100)).aggregate('windows', count()).sink('counted', store);
    entries
      .process(items, {
        emits: type<unknown>(),
        state: { mine: splitList<number>(), all: unionList<string>() },
        onRecord({ n }, { state }) {
          state.mine.add(n);
          state.all.add(`n${n}`);
        },
        onEnd: (ctx) => ctx.emit({ mine: [...ctx.state.mine], all: [...ctx.state.all] }),
      })
      .sink('listed', store);
    byKey
      .connect(entries.broadcast())
      .process('ruled', {
        emits: type<unknown>(),
        state: { rules: broadcastMap<string, number>(), [seen]: value<number>() },
        onLeft({ n }, ctx) {
          const held = ctx.state[seen] as unknown as { get(): number | undefined; set(n: number): void };
          const { rules } = ctx.state as unknown as { rules: { get(rule: string): number | undefined } };
          ctx.emit([ctx.key, held.get(), rules.get('more')]);
          held.set(n);
        },
        onRight: ({ key, n }, ctx) => (ctx.state.rules as unknown as { set(rule: string, n: number): undefined }).set(String(key), n),
      })
      .sink('ruling', store);
  });
}
const few = (n: number): Entry[] => ['a', 'b', 'c', 'd'].map((key, i) => ({ key, n: n + i, at: n }));

async function savedWide(folder: string): Promise<string> {
  const feed = new Feed<Entry>({ bounded: false });
  const run = ends(await wide(feed, new Store()).start({ checkpoints: checkpointsIn(folder), parallelism: 2 }));
  feed.push(few(1));
  await feed.taken();
  const { path } = await run.savepoint(join(folder, 'saved'));
  await run.cancel();
  return path;
}

describe('a savepoint with edited operators', () => {
  it('has lists, broadcast maps, a reduce and windows as they were changed, under their new names; a job goes on with them', async () => {
    const folder = await temporaryFolder();
    const path = await savedWide(folder);
    const before = await openSnapshot(path);
    const { edit } = await editSavepoint(path)
      .unkeyed('items', {
        state: { mine: splitList<number>(), all: unionList<string>() },
        change({ mine, all }) {
          mine.set([...mine].sort().map((n) => n * 10));
          all.clear();
          all.add('only');
        },
      })
      .unkeyed('ruled', { state: { rules: broadcastMap<string, number>() }, change: ({ rules }) => rules.set('more', 9) })
      .each('sums', {
        key: type<string>(),
        state: { value: value<Entry>() },
        each({ key, state }) {
          if (key === 'b') state.value.clear();
          else state.value.update((held) => ({ ...held!, n: held!.n + 1000 }));
        },
      })
      .drop<string>('windows', (key) => key === 'a' || key === 'c')
      .feed('windows', { job: wide(new Feed(), new Store()), records: [...few(10), ...few(150)], timestamp: ({ at }: Entry) => at })
      .rename('sums', 'totals')
      .rename('items', 'things')
      .renameState('ruled', 'seen', 'saw')
      .write(join(folder, 'edited'));
    expect(edit.operators).toEqual([
      { uid: 'items', change: 'changed', states: ['all', 'mine'], written: 5, deleted: 8 },
      { uid: 'ruled', change: 'changed', states: ['rules'], written: 1, deleted: 0 },
      { uid: 'sums', change: 'changed', states: ['value'], written: 3, deleted: 1 },
      // What there was of each, and its timer.
      { uid: 'windows', change: 'changed', states: ['windows'], written: 0, deleted: 4 },
      // Two counts, and two that begin, with their timers; four of the next window.
      { uid: 'windows', change: 'changed', states: ['windows'], written: 10, deleted: 0 },
      { uid: 'totals', change: 'renamed', from: 'sums', states: [], written: 0, deleted: 0 },
      { uid: 'things', change: 'renamed', from: 'items', states: [], written: 0, deleted: 0 },
      { uid: 'ruled', change: 'changed', states: ['seen → saw'], written: 0, deleted: 0 },
    ]);
    // The old one is as it was.
    expect((await openSnapshot(path)).edits).toEqual([]);
    expect(await (await openSnapshot(path)).states()).toEqual(await before.states());
    const after = await openSnapshot(join(folder, 'edited'));
    expect(after.uids).toEqual([...before.uids, 'things', 'totals'].filter((uid) => uid !== 'items' && uid !== 'sums').sort());
    expect(await after.get('things', 'mine')).toEqual([10, 20, 30, 40]);
    expect(await after.get('ruled', 'rules')).toEqual(new Map(Object.entries({ a: 1, b: 2, c: 3, d: 4, more: 9 })));

    const feed = new Feed<Entry>();
    const store = new Store<unknown>();
    feed.push([]).push(few(300)).end();
    const renamed = wide(feed, store, { sums: 'totals', items: 'things', seen: 'saw' });
    await renamed.run({ checkpoints: checkpointsIn(folder), restore: { from: join(folder, 'edited') }, parallelism: 3 });
    const of = (uid: string): unknown[] =>
      store.commits
        // What the savepoint has of records that were not committed is committed first.
        .filter((commit) => commit.uid === uid && commit.checkpoint > after.id)
        .flatMap(({ records }) => records)
        .sort((one, other) => (idOf(one) < idOf(other) ? -1 : 1));
    expect(of('summed')).toEqual([1301, 301, 1305, 1307].map((n, i) => ({ key: few(0)[i]!.key, at: 300, n })));
    const counts = (start: number, ...values: number[]) => values.map((held, i) => ({ key: few(0)[i]!.key, start, end: start + 100, value: held }));
    expect(of('counted')).toEqual(
      [...counts(0, 1, 2, 1, 2), ...counts(100, 1, 1, 1, 1), ...counts(300, 1, 1, 1, 1)].sort((l, r) => (idOf(l) < idOf(r) ? -1 : 1)),
    );
    const listed = of('listed') as { mine: number[]; all: string[] }[];
    expect(listed.flatMap(({ mine }) => mine).sort((l, r) => l - r)).toEqual([10, 20, 30, 40, 300, 301, 302, 303]);
    expect(listed.map(({ all }) => all[0])).toEqual(['only', 'only', 'only']);
    expect(of('ruling')).toEqual(few(1).map(({ key, n }) => [key, n, 9]));
  });
});

describe('a checkpoint of level()', () => {
  it('whose base is a linked database is edited and read as any other', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<Entry>({ bounded: false });
    const state = level({ directory: join(folder, 'state'), cacheBytes: 1 });
    const run = ends(await program(feed, new Store()).start({ checkpoints: checkpointsIn(folder), parallelism: 2, state }));
    const last = new Map<Key, number>();
    let path = '';
    for (let n = 0; n < 24; n++) {
      await feed.push(round(n)).taken();
      for (const { key, n: held } of round(n)) last.set(key, held);
      ({ path } = await run.checkpoint());
    }
    const names = (await readdir(join(folder, 'checkpoints', 'held', 'files'))).join(' ');
    expect(names).toMatch(/linked-/);
    const of = (held: ReadonlyMap<Key, number>): string[] => [...held].map(([key, n]) => idOf([key, n])).sort();
    for (const shareBytes of [undefined, 4000]) {
      const io = systemIo();
      const to = join(folder, `edited-${shareBytes}`);
      const editor = new Editor({ io, open: () => inspectSnapshot(path, io), ...(shareBytes === undefined ? {} : { shareBytes }) });
      await editor.each('held', { state: { last: kinds.last }, each: ({ key, state: s }) => void (key === 1n && s.last.set(-1)) }).write(to);
      const found = new Map<Key, number>();
      const reading = new SnapshotReading(await inspectSnapshot(to, io), io, shareBytes);
      for await (const { key, state: s } of reading.keys('held', { state: { last: kinds.last } })) found.set(key, s.last.get()!);
      expect(of(found)).toEqual(of(new Map(last).set(1n, -1)));
    }
  });
});

describe('a savepoint out of data', () => {
  it('gives a job that has not run yet its first state: timers, windows, lists, in any number of shares', async () => {
    const folder = await temporaryFolder();
    const records = [...round(1), ...round(2)];
    const io = systemIo();
    const shares = new Editor({ io, begin: { name: 'held', maxParallelism: 8 }, shareBytes: 500, bufferBytes: 300 });
    for (const [editor, name] of [
      [newSavepoint('held', { maxParallelism: 8 }), 'whole'],
      [shares, 'shares'],
    ] as const) {
      async function* drawn(): AsyncGenerator<Entry> {
        yield* records;
      }
      const { edit } = await editor
        .feed('held', { records: drawn(), key: ({ key }) => key, timestamp: ({ at }) => at, process: holding })
        .write(join(folder, name));
      expect(edit).toMatchObject({ operators: [{ uid: 'held', change: 'added', deleted: 0 }] });
      expect(edit.from).toBeUndefined();
    }
    const expected = KEYS.flatMap((key, i): unknown[][] => {
      const by = new Map([1 + i, 2 + i].map((n) => [n % 3, { n }]));
      return [1001, 1002].map((at) => [key, at, 2 + i, [1 + i, 2 + i], [...by].sort(), 3 + 2 * i, 1.5 + i, 2 + i]);
    }).sort((one, other) => (idOf(one) < idOf(other) ? -1 : 1));
    expect(await told(folder, join(folder, 'whole'), { parallelism: 3 })).toEqual(expected);
    expect(await told(folder, join(folder, 'shares'), { parallelism: 2 })).toEqual(expected);
  });
});

describe('an edit', () => {
  it('that cannot be is refused with what to do, and leaves nothing behind; the savepoint is as it was', async () => {
    const folder = await temporaryFolder();
    const path = await savedWide(folder);
    const to = join(folder, 'never');
    const refused = async (edit: (editor: SavepointEditor) => SavepointEditor): Promise<unknown> => {
      const error = await rejection(edit(editSavepoint(path)).write(to));
      expect(existsSync(to)).toBe(false);
      return error;
    };
    const failing = (): never => {
      throw new Error('no');
    };
    expect(await refused((e) => e.each('nobody', { each() {} }))).toMatchObject({
      code: 'STATE_NOT_FOUND',
      message: expect.stringMatching(/It has 'counted', 'in', /),
    });
    expect(await refused((e) => e.each('items', { each() {} }))).toMatchObject({ code: 'STATE_NOT_FOUND' });
    expect(await refused((e) => e.each('sums', { state: { value: value() }, each: failing }))).toMatchObject({
      code: 'USER_FUNCTION_FAILED',
      uid: 'sums',
      message: expect.stringMatching(/on key "/),
    });
    expect(await refused((e) => e.each('sums', { state: { value: value() }, each: (async () => {}) as never }))).toMatchObject({ code: 'HANDLER_IS_ASYNC' });
    expect(await refused((e) => e.each('sums', { state: { value: value({ version: 2 }) }, each() {} }))).toMatchObject({ code: 'SNAPSHOT_INCOMPATIBLE' });
    expect(await refused((e) => e.each('sums', { state: { value: list() }, each() {} }))).toMatchObject({ code: 'SNAPSHOT_INCOMPATIBLE' });
    expect(await refused((e) => e.each('sums', { state: { value: value<unknown>() }, each: ({ state }) => state.value.set(() => 1) }))).toMatchObject({
      code: 'STATE_NOT_SERIALIZABLE',
    });
    expect(await refused((e) => e.each('sums', { state: { value: value() }, each: ({ timers }) => timers.event.set(1) }))).toMatchObject({
      code: 'STATE_MISUSED',
    });
    expect(await refused((e) => e.rename('sums', 'items'))).toMatchObject({ code: 'STATE_EDIT_REFUSED' });
    expect(await refused((e) => e.rename('sums', 'A B'))).toMatchObject({ code: 'UID_INVALID' });
    expect(await refused((e) => e.rename('summed', 'other'))).toMatchObject({
      code: 'STATE_EDIT_REFUSED',
      message: expect.stringMatching(/^The sink 'summed'/),
    });
    expect(await refused((e) => e.renameState('ruled', 'seen', 'rules'))).toMatchObject({ code: 'STATE_EDIT_REFUSED' });
    expect(await refused((e) => e.remove('ruled', 'sin'))).toMatchObject({
      code: 'STATE_NOT_FOUND',
      message: expect.stringMatching(/It has (rules, seen|seen, rules)\./),
    });
    expect(await rejection(editSavepoint(path).write(path))).toMatchObject({ code: 'SAVEPOINT_EXISTS' });
    expect(await rejection(editSavepoint(to).write(join(folder, 'other')))).toMatchObject({ code: 'CHECKPOINT_NOT_FOUND' });
    expect(() => editSavepoint(path).feed('sums', { job: wide(new Feed(), new Store()), records: [], input: 'right' })).toThrow(/no right input/);
  });
});

describe('what a snapshot has of a key', () => {
  it('is of that key only while it is its turn', async () => {
    const folder = await temporaryFolder();
    const snapshot = await openSnapshot(await savedWide(folder));
    const kept = await collected(snapshot.keys('sums', { key: type<string>(), state: { value: value<Entry>() } }));
    expect(kept.map(({ key }) => key).sort()).toEqual(['a', 'b', 'c', 'd']);
    for (const key of kept) expect(() => key.state).toThrow(expect.objectContaining({ code: 'CONTEXT_USED_OUTSIDE_RECORD' }));
    expect(await rejection(collected(snapshot.keys('sums', { state: { other: value() } })))).toMatchObject({
      code: 'STATE_NOT_FOUND',
      message: expect.stringMatching(/It has value\./),
    });
    expect(snapshot.unkeyed('items', { state: { mine: splitList<number>() }, read: ({ mine }) => [...mine].sort() })).toEqual([1, 2, 3, 4]);
    expect((await collected(snapshot.entries<Entry>({ uid: 'sums' }))).map(({ value: held }) => held.n).sort()).toEqual([1, 2, 3, 4]);
  });
});

async function collected<V>(items: AsyncIterable<V>): Promise<V[]> {
  const out: V[] = [];
  for await (const item of items) out.push(item);
  return out;
}

describe('a program with a renamed, a removed, a new and a migrated state', () => {
  const old = process<string, Entry, never>()({
    state: { total: value<number>(), gone: list<number>(), shape: value<number>() },
    onRecord({ n }, { state }) {
      state.total.update((sum = 0) => sum + n);
      state.gone.add(n);
      state.shape.set(n);
    },
  });
  const now = process<string, Entry, unknown>()({
    state: {
      sum: value<number>({ default: 0 }),
      shape: value<{ n: number }>({ version: 1, migrate: (was) => ({ n: was as number }) }),
      seen: map<string, number>(),
    },
    onRecord({ key, n }, ctx) {
      ctx.state.sum.update((sum) => sum + n);
      const name = String(key);
      ctx.state.seen.set(name, (ctx.state.seen.get(name) ?? 0) + 1);
      ctx.emit([key, ctx.state.sum.get(), ctx.state.shape.get(), [...ctx.state.seen.entries()]]);
      ctx.state.shape.set({ n });
    },
  });
  const build = (feed: Feed<Entry>, store: Store<unknown>, definition: typeof old | typeof now): Job =>
    job('changed', (env) => {
      env
        .source('in', feed)
        .keyBy(({ key }) => key as string)
        .process('held', definition as typeof now)
        .sink('out', store);
    });

  it('takes over what has kept its name, migrated; the rest is dropped where that is accepted, or moved by an edit: in any backend, at any parallelism', async () => {
    const folder = await temporaryFolder();
    const strings = (n: number): Entry[] => round(n).filter(({ key }) => typeof key === 'string');
    const before = new Feed<Entry>({ bounded: false });
    const run = ends(await build(before, new Store(), old).start({ checkpoints: checkpointsIn(folder) }));
    await before.push(strings(1)).taken();
    const { path } = await run.savepoint(join(folder, 'saved'));
    await run.cancel();
    const { path: moved } = await editSavepoint(path).renameState('held', 'total', 'sum').remove('held', 'gone').write(join(folder, 'moved'));

    let courses = 0;
    /** What it tells of two rounds more, with a savepoint and another parallelism between them. */
    const course = async (from: string, state: () => ReturnType<typeof memory>, allowNonRestoredState: boolean): Promise<unknown[]> => {
      const store = new Store<unknown>();
      const directory = (of: number): string => join(folder, `course-${courses}-${of}`);
      courses += 1;
      const feed = new Feed<Entry>({ bounded: false });
      const first = ends(
        await build(feed, store, now).start({
          checkpoints: { directory: directory(4), every: 3_600_000 },
          restore: { from, allowNonRestoredState },
          parallelism: 4,
          state: state(),
        }),
      );
      await feed.push([]).push(strings(100)).taken();
      const { savepoint } = await first.stop({ savepoint: directory(0) });
      feed.push(strings(1000)).end();
      await build(feed, store, now).run({ checkpoints: { directory: directory(3) }, restore: { from: savepoint!.path }, parallelism: 3, state: state() });
      return store.records.sort((one, other) => (idOf(one) < idOf(other) ? -1 : 1));
    };
    const refusal = build(new Feed(), new Store(), now).start({ checkpoints: { directory: join(folder, 'refused') }, restore: { from: path } });
    expect(await rejection(refusal)).toMatchObject({ code: 'RESTORE_STATE_UNCLAIMED' });
    const expected = (sum: boolean): unknown[] =>
      strings(1)
        .flatMap(({ key, n }): unknown[] => [
          [key, (sum ? n : 0) + n + 99, { n }, [[key, 1]]],
          [key, (sum ? n : 0) + 2 * n + 99 + 999, { n: n + 99 }, [[key, 2]]],
        ])
        .sort((one, other) => (idOf(one) < idOf(other) ? -1 : 1));
    const backends = [() => memory(), () => level({ directory: join(folder, 'state'), cacheBytes: 1 })];
    for (const backend of backends) {
      expect(await course(path, backend, true)).toEqual(expected(false));
      expect(await course(moved, backend, false)).toEqual(expected(true));
    }
  });
});
