// Time travel: a job replayed from one of its snapshots, seen at one key of one operator.

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import {
  broadcastMap,
  count,
  ingress,
  type Job,
  job,
  level,
  type ReplayOptions,
  type ReplayStep,
  replay,
  type Source,
  splitList,
  tumbling,
  type,
  value,
} from 'millrace';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, rejection, Store, temporaryFolder } from '../protocols/lab.ts';

interface Move {
  readonly key: string;
  readonly by: number;
  readonly at: number;
}

/** A running balance: a timer tells it 10 after the last move. */
function balances(feed: Source<Move>, store: Store<unknown>): Job {
  return job('balances', (env) => {
    env
      .source('in', feed, { timestamp: ({ at }) => at })
      .filter(({ by }) => by !== 0)
      .keyBy(({ key }) => key)
      .process('held', {
        emits: type<unknown>(),
        state: { sum: value<number>({ default: 0 }), due: value<number>() },
        onRecord({ key, by, at }, ctx) {
          if (by > 1000) throw new RangeError(`${by} is too much`);
          ctx.state.sum.update((sum) => sum + by);
          const due = ctx.state.due.get();
          if (due !== undefined) ctx.timers.event.delete(due);
          ctx.timers.event.set(at + 10);
          ctx.state.due.set(at + 10);
          if (ctx.state.sum.get() < 0) ctx.side('overdrawn', key);
        },
        onTimer(_, ctx) {
          ctx.emit([ctx.key, ctx.state.sum.get()]);
          ctx.state.due.clear();
        },
      })
      .sink('out', store);
  });
}
const MOVES: Move[] = [
  { key: 'a', by: 5, at: 1 },
  { key: 'b', by: 7, at: 2 },
  { key: 'a', by: -9, at: 4 },
  { key: 'b', by: 0, at: 5 },
  { key: 'b', by: 1, at: 30 },
  { key: 'a', by: 3, at: 31 },
  { key: 'a', by: 4, at: 33 },
  { key: 'b', by: 4, at: 60 },
  { key: 'a', by: 1, at: 61 },
];

async function all(steps: AsyncIterable<ReplayStep>): Promise<ReplayStep[]> {
  const out: ReplayStep[] = [];
  for await (const step of steps) out.push(step);
  return out;
}
const brief = (steps: readonly ReplayStep[]) =>
  steps.map(({ kind, timestamp, before, after, outputs }) => [kind, timestamp, before.sum, after.sum, ...outputs.map((output) => output.value)]);

/** The job after its first two moves, with a checkpoint; and then it goes on. */
async function running(folder: string, parallelism = 1) {
  const feed = new Feed<Move>({ bounded: false });
  const store = new Store<unknown>();
  const program = balances(feed, store);
  const run = ends(await program.start({ checkpoints: checkpointsIn(folder), parallelism }));
  await feed.push(MOVES.slice(0, 2)).taken();
  const { path } = await run.checkpoint();
  for (const move of MOVES.slice(2)) feed.push([move]);
  await feed.taken();
  return { feed, store, program, run, path };
}

describe('a replay', () => {
  it('gives each record and timer of a key, with its state before and after, timers and outputs; beside the job that runs', async () => {
    const folder = await temporaryFolder();
    const { store, program, run, path } = await running(folder);
    const files = async () => (await readdir(join(folder, 'checkpoints'), { recursive: true })).sort();
    const [before, commits, opened] = [await files(), store.commits.length, store.opened.length];
    const steps = await all(replay(program, { from: path, uid: 'held', key: 'a', until: { records: 7 } }));
    expect(brief(steps)).toEqual([
      ['start', Number.NaN, 5, 5],
      ['record', 4, 5, -4, 'a'],
      // Another key has moved event time.
      ['timer', 14, -4, -4, ['a', -4]],
      ['record', 31, -4, -1, 'a'],
      ['record', 33, -1, 3],
      ['timer', 43, 3, 3, ['a', 3]],
      ['record', 61, 3, 4],
    ]);
    expect(steps[1]).toEqual({
      step: 1,
      kind: 'record',
      input: MOVES[2],
      timestamp: 4,
      watermark: expect.any(Number),
      now: expect.any(Number),
      subtask: 0,
      before: { sum: 5, due: 11 },
      after: { sum: -4, due: 14 },
      outputs: [{ value: 'a', timestamp: 4, output: 'overdrawn' }],
      timersSet: [{ at: 14, domain: 'event' }],
      timersDeleted: [{ at: 11, domain: 'event' }],
    });
    expect(steps[0]).toMatchObject({ before: { sum: 5, due: 11 }, timersSet: [{ at: 11, domain: 'event' }] });
    expect([await files(), store.commits.length, store.opened.length]).toEqual([before, commits, opened]);
    await run.checkpoint();
    expect(run.status).toBe('running');
  });

  it.each<[what: string, options: Partial<ReplayOptions>, until: number[]]>([
    ['so many records, at another parallelism', { until: { records: 4 }, parallelism: 3 }, [4, 14, 31]],
    ['records that are none', { until: { records: 0 } }, []],
    ['a time that event time reaches', { until: { time: 30 } }, [4, 14, 31]],
    ['a time of which a timer is behind', { until: { time: 40 } }, [4, 14, 31, 33]],
    ['the last record, of a source that does not end', { patience: 2000, parallelism: 2 }, [4, 14, 31, 33, 43, 61]],
  ])('ends with %s', async (_, options, until) => {
    const folder = await temporaryFolder();
    const { program, path } = await running(folder, 2);
    const state = level({ directory: join(folder, 'state'), cacheBytes: 1 });
    const [start, ...steps] = await all(replay(program, { from: path, uid: 'held', key: 'a', state, ...options }));
    expect(start).toMatchObject({ kind: 'start', before: { sum: 5, due: 11 } });
    expect(steps.map(({ timestamp }) => timestamp)).toEqual(until);
  });

  it('goes on to the end of sources that end, over windows, lists and broadcast maps', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<Move>();
    const program = job('shown', (env) => {
      const moves = env.source('in', feed, { timestamp: ({ at }) => at });
      const byKey = moves.keyBy(({ key }) => key);
      byKey.window(tumbling(10)).aggregate('counts', count()).sink('counted', new Store());
      byKey
        .connect(moves.filter(({ key }) => key === 'b').broadcast())
        .process('ruled', {
          emits: type<number>(),
          state: { rules: broadcastMap<string, number>(), last: value<number>() },
          onLeft: ({ by }, ctx) => ctx.state.last.set(by),
          onRight: ({ key, by }, ctx) => ctx.state.rules.set(key, by),
        })
        .sink('ruling', new Store());
      moves
        .process('listed', {
          emits: type<number>(),
          state: { all: splitList<number>() },
          onRecord({ by }, ctx) {
            ctx.state.all.add(by);
            ctx.emit(by);
          },
          onEnd: (ctx) => ctx.emit(-1),
        })
        .sink('list', new Store());
    });
    const run = ends(await program.start({ checkpoints: checkpointsIn(folder) }));
    await feed.push(MOVES.slice(0, 2)).taken();
    const { path } = await run.savepoint(join(folder, 'saved'));
    feed.push(MOVES.slice(2, 6)).end();
    await run.finished;
    const counted = await all(replay(program, { from: path, uid: 'counts', key: 'b' }));
    expect(
      counted.map(({ kind, input, before, after, outputs }) => [kind, input, before.windows, after.windows, outputs.map((output) => output.value)]),
    ).toEqual([
      ['start', undefined, ...Array(2).fill([{ key: 'b', start: 0, end: 10, value: 1 }]), []],
      ['record', MOVES[3], [expect.objectContaining({ value: 1 })], [expect.objectContaining({ value: 2 })], []],
      ['record', MOVES[4], [expect.objectContaining({ value: 2 })], [expect.anything(), { key: 'b', start: 30, end: 40, value: 1 }], []],
      ['timer', { window: { start: 0, end: 10 } }, expect.anything(), [expect.objectContaining({ start: 30 })], [{ key: 'b', start: 0, end: 10, value: 2 }]],
      ['timer', { window: { start: 30, end: 40 } }, undefined, undefined, [{ key: 'b', start: 30, end: 40, value: 1 }]],
    ]);
    const listed = await all(replay(program, { from: path, uid: 'listed' }));
    expect(listed.map(({ kind, input, after }) => [kind, (input as Move | undefined)?.by ?? input, after.all])).toEqual([
      ['start', undefined, [5, 7]],
      ['record', -9, [5, 7, -9]],
      ['record', 0, [5, 7, -9, 0]],
      ['record', 1, [5, 7, -9, 0, 1]],
      ['record', 3, [5, 7, -9, 0, 1, 3]],
      ['handler', { handler: 'onEnd' }, [5, 7, -9, 0, 1, 3]],
    ]);
    const ruled = await all(replay(program, { from: path, uid: 'ruled', key: 'a' }));
    expect(ruled.filter(({ side }) => side !== 'right').map(({ after }) => after.last)).toEqual([5, -9, 3]);
    expect(ruled.filter(({ side }) => side === 'right').map(({ after }) => (after.rules as Map<string, number>).get('b'))).toEqual([0, 1]);
  });

  it('gives what the operator throws, and fails with it', async () => {
    const folder = await temporaryFolder();
    const { feed, program, path } = await running(folder);
    feed.push([{ key: 'a', by: 2000, at: 70 }]);
    const steps: ReplayStep[] = [];
    const error = await rejection(
      (async () => {
        for await (const step of replay(program, { from: path, uid: 'held', key: 'a' })) steps.push(step);
      })(),
    );
    expect(error).toMatchObject({ code: 'USER_FUNCTION_FAILED', uid: 'held' });
    expect(steps.at(-1)).toMatchObject({ kind: 'record', input: { by: 2000 }, error: new RangeError('2000 is too much') });
  });

  it('ends with whoever looks, and leaves nothing behind', async () => {
    const folder = await temporaryFolder();
    const { program, path, feed } = await running(folder);
    for await (const { step } of replay(program, { from: path, uid: 'held', key: 'a' })) if (step === 2) break;
    const abort = new AbortController();
    const seen: number[] = [];
    for await (const { step } of replay(program, { from: path, uid: 'held', key: 'a', signal: abort.signal, patience: Number.POSITIVE_INFINITY })) {
      seen.push(step);
      if (step === 3) abort.abort();
    }
    expect(seen.slice(0, 4)).toEqual([0, 1, 2, 3]);
    // Reads that began have ended: the feed is free for the next one.
    expect(feed.reads.length).toBe(3);
  });

  it('is refused where it cannot be what was: with what to do', async () => {
    const folder = await temporaryFolder();
    const { program, path } = await running(folder);
    const refused = async (options: Partial<ReplayOptions>, of = program) =>
      rejection(all(replay(of, { from: path, uid: 'held', key: 'a', until: { records: 3 }, ...options })));
    expect(await refused({ from: join(folder, 'nowhere') })).toMatchObject({ code: 'CHECKPOINT_NOT_FOUND' });
    expect(await refused({ uid: 'hold' })).toMatchObject({ code: 'STATE_NOT_FOUND', message: expect.stringMatching(/Operators with state are 'held'\./) });
    expect(await refused({ uid: 'in' })).toMatchObject({ code: 'STATE_NOT_FOUND' });
    expect(await refused({ key: { no: 'key' } as never })).toMatchObject({ code: 'KEY_UNSUPPORTED' });
    expect(await refused({ key: 7 })).toMatchObject({
      code: 'STATE_NOT_FOUND',
      message: expect.stringMatching(/^The key 7 had nothing in 'held', and no record of it came\./),
    });
    expect(await refused({ until: { time: Number.NaN } })).toMatchObject({ code: 'OPTION_INVALID' });
    expect(await refused({}, balances(ingress<Move>(), new Store()))).toMatchObject({ code: 'REPLAY_REFUSED', uid: 'in' });
    expect(
      await refused(
        {},
        job('another', (env) => void env.source('in', new Feed<Move>()).process('held', { onRecord() {} })),
      ),
    ).toMatchObject({
      code: 'REPLAY_REFUSED',
    });
    const less = job('balances', (env) => void env.source('in', new Feed<Move>()).process('plain', { state: { all: splitList<number>() }, onRecord() {} }));
    expect(await refused({ uid: 'plain', key: undefined }, less)).toMatchObject({ code: 'RESTORE_STATE_UNCLAIMED' });
    expect(await all(replay(less, { from: path, uid: 'plain', until: { records: 0 }, allowNonRestoredState: true }))).toHaveLength(1);
  });
});
