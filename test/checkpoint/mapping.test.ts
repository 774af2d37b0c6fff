// Semantics 10, as a table: which state finds its operator again when the program has changed. Everything goes by uids and names of state, nothing by position.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { job, list, type OperatorSettings, type RunOptions, type Stream, type StreamEnvironment, type, value } from 'millrace';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, rejection, Store, temporaryFolder } from '../protocols/lab.ts';

type Build = (env: StreamEnvironment, feed: Feed<string>, store: Store<string>) => OperatorSettings;

/** Counts each key, and keeps its records. */
const counted = (uid: string, stream: Stream<string>) =>
  stream
    .keyBy((v) => v[0]!)
    .process(uid, {
      emits: type<string>(),
      state: { n: value({ default: 0 }), all: list<string>() },
      onRecord(v, ctx) {
        ctx.state.n.update((n) => n + 1);
        ctx.state.all.add(v);
        ctx.emit(`${v[0]} ${uid}=${ctx.state.n.get()}/${ctx.state.all.all().length}`);
      },
    });
/** Adds the number of records of the key that it has seen. */
const again = (uid: string, stream: Stream<string>) =>
  stream
    .keyBy((v) => v[0]!)
    .process(uid, {
      emits: type<string>(),
      state: { n: value({ default: 0 }) },
      onRecord(v, ctx) {
        ctx.state.n.update((n) => n + 1);
        ctx.emit(`${v} ${uid}=${ctx.state.n.get()}`);
      },
    });
const base: Build = (env, feed, store) => again('b', counted('a', env.source('in', feed))).sink('out', store);

const accept = { allowNonRestoredState: true };
type Case = readonly [what: string, build: Build, options: { readonly parallelism?: number; readonly allowNonRestoredState?: boolean }, outcome: string];

/** The outcome: what a third record of a key gives after two before the checkpoint, or the code of the refusal. */
const CASES: readonly Case[] = [
  ['the same program goes on', base, {}, 'k a=3/3 b=3'],
  ['at another parallelism too', base, { parallelism: 3 }, 'k a=3/3 b=3'],
  [
    'with another chaining, and steps without state in between',
    (env, feed, store) =>
      again(
        'b',
        counted(
          'a',
          env
            .source('in', feed)
            .map((v) => v)
            .chain('never'),
        ).map((v) => v),
      )
        .chain('never')
        .sink('out', store),
    {},
    'k a=3/3 b=3',
  ],
  [
    'with operators that take records another way',
    (env, feed, store) =>
      again(
        'b',
        counted(
          'a',
          env
            .source('in', feed)
            .rebalance()
            .filter(() => true),
        ).parallelism(2),
      ).sink('out', store),
    {},
    'k a=3/3 b=3',
  ],
  [
    'in another order: by their names, not their places',
    (env, feed, store) => counted('a', again('b', env.source('in', feed))).sink('out', store),
    {},
    'k a=3/3',
  ],
  ['a new operator begins empty', (env, feed, store) => again('c', again('b', counted('a', env.source('in', feed)))).sink('out', store), {}, 'k a=3/3 b=3 c=1'],
  ['new state of an operator begins empty', (env, feed, store) => again('b', withMore(env.source('in', feed))).sink('out', store), {}, 'k a=3/3/1 b=3'],
  ['an operator that is gone', (env, feed, store) => counted('a', env.source('in', feed)).sink('out', store), {}, 'RESTORE_STATE_UNCLAIMED'],
  ['an operator that is gone, which is accepted', (env, feed, store) => counted('a', env.source('in', feed)).sink('out', store), accept, 'k a=3/3'],
  ['an operator under another name', (env, feed, store) => again('z', counted('a', env.source('in', feed))).sink('out', store), {}, 'RESTORE_STATE_UNCLAIMED'],
  [
    'an operator under another name, which is accepted: it is a new one',
    (env, feed, store) => again('z', counted('a', env.source('in', feed))).sink('out', store),
    accept,
    'k a=3/3 z=1',
  ],
  ['a source under another name', (env, feed, store) => again('b', counted('a', env.source('other', feed))).sink('out', store), {}, 'RESTORE_STATE_UNCLAIMED'],
  ['state that is gone', (env, feed, store) => again('b', again('a', env.source('in', feed))).sink('out', store), {}, 'RESTORE_STATE_UNCLAIMED'],
  ['state that is gone, which is accepted', (env, feed, store) => again('b', again('a', env.source('in', feed))).sink('out', store), accept, 'k3 a=3 b=3'],
  ['state of another kind', (env, feed, store) => again('b', swapped(env.source('in', feed))).sink('out', store), {}, 'SNAPSHOT_INCOMPATIBLE'],
  [
    'state of another kind, whatever is accepted',
    (env, feed, store) => again('b', swapped(env.source('in', feed))).sink('out', store),
    accept,
    'SNAPSHOT_INCOMPATIBLE',
  ],
  ['state of another version', (env, feed, store) => versioned(env.source('in', feed), undefined).sink('out', store), accept, 'SNAPSHOT_INCOMPATIBLE'],
  [
    'state of another version, migrated',
    (env, feed, store) => versioned(env.source('in', feed), (old) => `n${String(old)}`).sink('out', store),
    accept,
    'k n2',
  ],
  [
    'an operator that keeps nothing by key any more',
    (env, feed, store) => unkeyed(counted('a', env.source('in', feed))).sink('out', store),
    {},
    'RESTORE_STATE_UNCLAIMED',
  ],
];

const withMore = (stream: Stream<string>) =>
  stream
    .keyBy((v) => v[0]!)
    .process('a', {
      emits: type<string>(),
      state: { n: value({ default: 0 }), all: list<string>(), more: list<string>() },
      onRecord(v, ctx) {
        ctx.state.n.update((n) => n + 1);
        ctx.state.all.add(v);
        ctx.state.more.add(v);
        ctx.emit(`${v[0]} a=${ctx.state.n.get()}/${ctx.state.all.all().length}/${ctx.state.more.all().length}`);
      },
    });
const swapped = (stream: Stream<string>) =>
  stream.keyBy((v) => v[0]!).process('a', { emits: type<string>(), state: { n: list<number>(), all: value<string>() }, onRecord: (v, ctx) => ctx.emit(v) });
const versioned = (stream: Stream<string>, migrate: ((old: unknown) => string) | undefined) =>
  stream
    .keyBy((v) => v[0]!)
    .process('a', {
      emits: type<string>(),
      state: { n: value<string>({ version: 1, ...(migrate === undefined ? {} : { migrate }) }), all: list<string>() },
      onRecord: (v, ctx) => ctx.emit(`${v[0]} ${ctx.state.n.get()}`),
    });
const unkeyed = (stream: Stream<string>) => stream.process('b', { emits: type<string>(), onRecord: (v, ctx) => ctx.emit(v) });

describe('uids and state (semantics 10)', () => {
  let folder: string;
  let from: string;
  let records: readonly string[];
  beforeAll(async () => {
    const feed = new Feed<string>({ bounded: false });
    const store = new Store<string>();
    folder = await mkdtemp(join(tmpdir(), 'millrace-mapping-'));
    const running = await job('mapped', (env) => void base(env, feed, store)).start({ parallelism: 2, checkpoints: checkpointsIn(folder) });
    await feed.push(['k1', 'j1', 'k2']).taken();
    from = (await running.stop()).checkpoint!.path;
    records = store.records;
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it('begin with two records of the key', () => expect(records.filter((each) => each.startsWith('k'))).toEqual(['k a=1/1 b=1', 'k a=2/2 b=2']));

  it.each(CASES)('%s', async (_, build, { parallelism = 1, allowNonRestoredState = false }, outcome) => {
    const folder = await temporaryFolder();
    // The position of the source is in the snapshot: this one has the records of before in front.
    const feed = new Feed<string>({ bounded: false }).push(['k1', 'j1', 'k2']);
    const store = new Store<string>();
    const options: RunOptions = { parallelism, checkpoints: checkpointsIn(folder), restore: { from, allowNonRestoredState }, restarts: false };
    const start = job('mapped', (env) => void build(env, feed, store)).start(options);
    if (/^[A-Z_]+$/.test(outcome)) {
      expect(await rejection(start)).toMatchObject({ code: outcome });
      return;
    }
    const running = ends(await start);
    await feed.push(['k3']).taken();
    await running.stop();
    // What the snapshot held for the sink comes first, to a store that has not seen it.
    expect(store.records.filter((each) => !records.includes(each))).toEqual([outcome]);
  });

  it('a name that is used twice is refused when the plan is built', () => {
    const twice = job('mapped', (env) => void again('a', counted('a', env.source('in', new Feed<string>()))).sink('out', new Store<string>()));
    expect(() => twice.plan()).toThrow(expect.objectContaining({ code: 'UID_DUPLICATE', uid: 'a' }));
  });
});
