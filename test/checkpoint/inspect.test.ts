// Looking into checkpoints and savepoints without the program that made them.

import { readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
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
  process,
  type RunOptions,
  type Stream,
  session,
  sliding,
  splitList,
  tumbling,
  value,
} from 'millrace';
import { describe, expect, it } from 'vitest';
import { diffSnapshots, openSnapshot, type SnapshotEntry } from '../../src/checkpoint/inspect.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { checkpointsIn, ends, Feed, rejection, temporaryFolder } from '../protocols/lab.ts';

interface Change {
  readonly key: Key;
  readonly n: number;
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = [];
  for await (const item of items) out.push(item);
  return out;
}
const idOf = (key: Key): string => JSON.stringify(key, (_, part: unknown) => (typeof part === 'bigint' ? `${part}n` : part));
const asObject = (entries: readonly SnapshotEntry[]): Record<string, unknown> => Object.fromEntries(entries.map(({ key, value: held }) => [idOf(key!), held]));

/** Keeps a value, a list and a map a key; n < 0 clears them. */
const kept = process<Key, Change, never>()({
  state: { last: value<number>(), all: list<number>(), by: map<number, string>(), soon: value<number>({ ttl: 3_600_000 }) },
  onRecord({ n }, { state: s }) {
    if (n < 0) {
      s.last.clear();
      s.all.clear();
      s.by.clear();
      s.soon.clear();
      return;
    }
    s.last.set(n);
    s.all.add(n);
    s.by.set(n % 5, `n${n}`);
    if (n % 5 === 3) s.by.delete(2);
    s.soon.set(n);
  },
});

const KEYS: Key[] = [...Array.from({ length: 60 }, (_, i) => `key ${i}`), 1, 1n, true, ['a', 2n, true], -7.5];

/** What the process holds after these changes. */
function expected(changes: readonly Change[]) {
  const states: Record<'last' | 'all' | 'by' | 'soon', Record<string, unknown>> = { last: {}, all: {}, by: {}, soon: {} };
  for (const { key, n } of changes) {
    const id = idOf(key);
    if (n < 0) {
      for (const state of Object.values(states)) delete state[id];
      continue;
    }
    states.last[id] = n;
    states.soon[id] = n;
    states.all[id] = [...((states.all[id] as number[] | undefined) ?? []), n];
    const by = new Map(states.by[id] as Map<number, string> | undefined).set(n % 5, `n${n}`);
    if (n % 5 === 3) by.delete(2);
    states.by[id] = by;
  }
  return states;
}

describe.each<[string, (folder: string) => RunOptions]>([
  ['memory(), in one instance', () => ({})],
  ['level() with next to nothing in memory, in three', (folder) => ({ state: level({ directory: join(folder, 'state'), cacheBytes: 1 }), parallelism: 3 })],
])('checkpoints of state in %s', (_name, options) => {
  it('hold at each of them, over bases and deltas, what the program held, by key', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<Change>({ bounded: false });
    const program = job(
      'kept',
      (env) =>
        void env
          .source('in', feed)
          .keyBy(({ key }) => key)
          .process('kept', kept),
    );
    const running = ends(await program.start({ checkpoints: checkpointsIn(folder, { retain: 100 }), ...options(folder) }));
    const changes: Change[] = [];
    const history: { path: string; changes: readonly Change[] }[] = [];
    for (let round = 0; round < 24; round++) {
      const some = KEYS.filter((_, i) => (i + round) % 3 === 0).map((key, i) => ({ key, n: (i * 7 + round) % 11 === 0 ? -1 : i + round * 10 }));
      await feed.push(some).taken();
      changes.push(...some);
      history.push({ path: (await running.checkpoint()).path, changes: [...changes] });
    }
    const savepoint = await running.savepoint(join(folder, 'saved'));
    await running.cancel();
    const names = await readdir(join(history[0]!.path, '../../files'));
    expect(names.some((name) => /^(base|linked)-/.test(name))).toBe(true);
    for (const { path, changes: until } of [...history.filter((_, i) => i % 5 === 3), { path: savepoint.path, changes }]) {
      const snapshot = await openSnapshot(path, systemIo());
      const states = expected(until);
      for (const [state, held] of Object.entries(states)) {
        const entries = await all(snapshot.entries({ uid: 'kept', state }));
        expect(asObject(entries)).toEqual(held);
        expect(entries.length).toBe(Object.keys(held).length);
      }
      for (const key of KEYS.filter((_, i) => i % 18 === 0)) {
        for (const [state, held] of Object.entries(states)) expect(await snapshot.get('kept', state, key)).toEqual(held[idOf(key)]);
      }
      expect(await snapshot.get('kept', 'last', 'no such key')).toBeUndefined();
      const summaries = await snapshot.list();
      for (const [state, held] of Object.entries(states))
        expect(summaries.find((each) => each.uid === 'kept' && each.state === state)).toMatchObject({
          rows: Object.keys(held).length,
          bytes: expect.any(Number),
        });
    }
    // What differs between two of them is what the program did in between.
    const [one, other] = [history[4]!, history[9]!];
    const differences = await all(diffSnapshots(await openSnapshot(one.path, systemIo()), await openSnapshot(other.path, systemIo()), 'kept'));
    const [before, after] = [expected(one.changes).last, expected(other.changes).last];
    const wanted = [...new Set([...Object.keys(before), ...Object.keys(after)])].filter((id) => before[id] !== after[id]).sort();
    expect(
      differences
        .filter(({ state }) => state === 'last')
        .map(({ key }) => idOf(key!))
        .sort(),
    ).toEqual(wanted);
    for (const { state, key, change, ...sides } of differences) {
      if (state !== 'last') continue;
      const id = idOf(key!);
      expect(change).toBe(!(id in before) ? 'added' : !(id in after) ? 'removed' : 'changed');
      expect([sides.before, sides.after]).toEqual([before[id], after[id]]);
    }
    expect(await all(diffSnapshots(await openSnapshot(one.path, systemIo()), await openSnapshot(one.path, systemIo())))).toEqual([]);
  });

  it('show windows by what they hold, accumulators as they are stored, and what instances hold without a key', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<Change>({ bounded: false });
    const program = job('shown', (env) => {
      const changes: Stream<Change> = env.source('in', feed, { outOfOrderness: 0 });
      const byKey = changes.keyBy(({ key }) => key);
      const nowhere = (stream: Stream<unknown>, uid: string): void => void stream.forEach(uid, () => {});
      nowhere(
        byKey.aggregate(
          'mean',
          avg((change: Change) => change.n),
        ),
        'a',
      );
      nowhere(byKey.window(tumbling(100)).aggregate('tumbling', count()), 'b');
      nowhere(byKey.window(sliding(200, 100)).aggregate('sliding', count()), 'c');
      nowhere(byKey.window(session(50)).aggregate('session', count()), 'd');
      nowhere(byKey.window(tumbling(100)).process('records', { onFire: () => [] }), 'e');
      nowhere(
        byKey.intervalJoin('joined', byKey, { lower: -500, upper: 500 }, () => 0),
        'f',
      );
      changes.process('items', { state: { items: splitList<number>() }, onRecord: ({ n }, ctx) => ctx.state.items.add(n) });
      byKey.connect(changes.broadcast()).process('rules', {
        state: { rules: broadcastMap<Key, number>(), mean: aggregating(avg((n: number) => n)) },
        onLeft: ({ n }, ctx) => ctx.state.mean.add(n),
        onRight: ({ key, n }, ctx) => void ctx.state.rules.set(key, n),
      });
      byKey.process('timers', { state: {}, onRecord: (_, ctx) => ctx.timers.event.set(9_000), onTimer: () => {} });
    });
    const running = ends(await program.start({ checkpoints: checkpointsIn(folder), ...options(folder) }));
    await feed
      .push(
        [
          { key: 'a', n: 1 },
          { key: 'a', n: 2 },
          { key: 'b', n: 5 },
        ],
        [110, 120, 130],
      )
      .taken();
    const { path } = await running.checkpoint();
    await running.cancel();
    const snapshot = await openSnapshot(path, systemIo());
    const of = async (uid: string, state: string): Promise<Record<string, unknown>> => asObject(await all(snapshot.entries({ uid, state })));
    expect(Object.keys(await of('mean', 'value')).sort()).toEqual(['"a"', '"b"']);
    expect(await of('tumbling', 'windows')).toMatchObject({ '"a"': [{ start: 100, end: 200 }], '"b"': [{ start: 100, end: 200 }] });
    expect((await of('sliding', 'windows'))['"a"']).toMatchObject([{ start: 100 }]);
    expect(await of('session', 'windows')).toMatchObject({ '"a"': [{ start: 110, end: 170 }], '"b"': [{ start: 130, end: 180 }] });
    expect(await of('records', 'windows')).toEqual({
      '"a"': [
        {
          start: 100,
          end: 200,
          value: [
            { key: 'a', n: 1 },
            { key: 'a', n: 2 },
          ],
        },
      ],
      '"b"': [{ start: 100, end: 200, value: [{ key: 'b', n: 5 }] }],
    });
    expect((await of('joined', 'left'))['"b"']).toMatchObject([{ timestamp: 130 }]);
    expect((await all(snapshot.entries({ uid: 'items', state: 'items' }))).map(({ value: n }) => n).sort()).toEqual([1, 2, 5]);
    expect(await of('rules', 'rules')).toEqual({ '"a"': 2, '"b"': 5 });
    expect(await of('timers', '.timers')).toEqual({ '"a"': [9000], '"b"': [9000] });
    expect(await of('in', 'splits')).toEqual({ '"all"': { split: 'all', position: 1, finished: false } });
    const kinds = Object.fromEntries((await snapshot.list()).map(({ uid, state, kind }) => [`${uid}/${state}`, kind]));
    expect(kinds).toMatchObject({
      'mean/value': 'value',
      'session/windows': 'windows',
      'joined/left': 'join',
      'items/items': 'split',
      'rules/rules': 'broadcast',
      'timers/.timers': 'timers',
      'in/splits': 'source',
    });
  });
});

describe('looking into a snapshot', () => {
  async function one() {
    const folder = await temporaryFolder();
    const feed = new Feed<Change>({ bounded: false });
    const program = job(
      'one',
      (env) =>
        void env
          .source('in', feed)
          .keyBy(({ key }) => key)
          .process('kept', kept),
    );
    const running = ends(await program.start({ checkpoints: checkpointsIn(folder) }));
    await feed.push([{ key: 'a', n: 1 }]).taken();
    const { path } = await running.checkpoint();
    await running.cancel();
    return { folder, path };
  }

  it('says what there is where an operator, a state or the snapshot itself is not there', async () => {
    const { folder, path } = await one();
    const snapshot = await openSnapshot(path, systemIo());
    expect(await rejection(snapshot.get('lost', 'last', 'a'))).toMatchObject({ code: 'STATE_NOT_FOUND', todo: "There is state of 'in', 'kept'." });
    expect(await rejection(snapshot.get('kept', 'first', 'a'))).toMatchObject({
      code: 'STATE_NOT_FOUND',
      todo: expect.stringContaining('It has last, all, by, soon'),
    });
    expect(await rejection(all(snapshot.entries({ uid: 'kept', state: 'first' })))).toMatchObject({ code: 'STATE_NOT_FOUND' });
    expect(await rejection(all(snapshot.entries({ uid: 'lost' })))).toMatchObject({ code: 'STATE_NOT_FOUND' });
    expect(await rejection(all(diffSnapshots(snapshot, snapshot, 'lost')))).toMatchObject({ code: 'STATE_NOT_FOUND' });
    expect(await rejection(openSnapshot(join(folder, 'nothing'), systemIo()))).toMatchObject({ code: 'CHECKPOINT_NOT_FOUND' });
    expect(await rejection(openSnapshot(folder, systemIo()))).toMatchObject({ code: 'CHECKPOINT_NOT_FOUND' });
  });

  it('names the file that is damaged or gone, and goes by the copy of the metadata where the first is gone', async () => {
    const { path } = await one();
    await rm(path);
    expect(await (await openSnapshot(path, systemIo())).get('kept', 'last', 'a')).toBe(1);
    const files = join(path, '../../files');
    const name = (await readdir(files)).find((each) => each.startsWith('delta-'));
    const file = join(files, name!);
    const bytes = await readFile(file);
    const flipped = Buffer.from(bytes);
    flipped[bytes.length >> 1]! ^= 1;
    await writeFile(file, flipped);
    const damaged = { code: 'SNAPSHOT_CORRUPT', message: expect.stringContaining(name!) };
    expect(await rejection((await openSnapshot(path, systemIo())).list())).toMatchObject(damaged);
    await writeFile(file, bytes);
    await rename(file, `${file}.away`);
    expect(await rejection((await openSnapshot(path, systemIo())).get('kept', 'last', 'a'))).toMatchObject(damaged);
  });
});
