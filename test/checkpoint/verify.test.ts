import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Job, job, list, map, process, type RunOptions, reducing, type Stream, seconds, sliding, splitList, sum, tumbling, value } from 'millrace';
import { collect } from 'millrace/connectors';
import { describe, expect, it } from 'vitest';
import { VERIFY } from '../../src/api/job.ts';
import type { Verdict } from '../../src/checkpoint/verify.ts';
import { checkpointsIn, ends, Feed, rejection, Store, temporaryFolder } from '../protocols/lab.ts';

interface Click {
  readonly user: string;
  readonly at: number;
}
type Build = (clicks: Stream<Click>) => void;
const TOLD: unknown[] = [];
const INTO = collect(TOLD);

const visits =
  (uid = 'visits'): Build =>
  (clicks) => {
    const operator = process<string, Click, string>()({
      state: { last: value<number>(), pages: list<number>({ version: 1 }), seen: map<string, number>() },
      onRecord({ user, at }, ctx) {
        ctx.state.last.set(at);
        ctx.state.pages.add(at);
        ctx.state.seen.set(user, at);
        ctx.timers.event.set(at + 1_000_000);
      },
    });
    clicks
      .keyBy(({ user }) => user)
      .process(uid, operator)
      .sink('out', INTO);
  };
/** The operator `visits` with other state. */
const changed =
  (state: Record<string, unknown>, own: Build[] = [windows(), buffer]): Build =>
  (clicks) => {
    clicks
      .keyBy(({ user }) => user)
      .process('visits', { state, onRecord() {} } as never)
      .sink('out', INTO);
    for (const build of own) build(clicks);
  };
const windows =
  (of = tumbling(seconds(10))): Build =>
  (clicks) =>
    void clicks
      .keyBy(({ user }) => user)
      .window(of)
      .aggregate(
        'windows',
        sum((click: Click) => click.at),
      )
      .sink('counts', INTO);
const buffer: Build = (clicks) =>
  void clicks
    .process('buffer', {
      state: { waiting: splitList<number>() },
      onRecord({ at }: Click, ctx) {
        ctx.state.waiting.add(at);
      },
    })
    .sink('buffered', INTO);
const all =
  (...builds: Build[]): Build =>
  (clicks) => {
    for (const build of builds) build(clicks);
  };
const before = all(visits(), windows(), buffer);
const kept = { last: value<number>(), pages: list<number>({ version: 1 }), seen: map<string, number>() };

const program = (build: Build, feed = new Feed<Click>({ bounded: false })): Job =>
  job('clicks', (env) => build(env.source('in', feed, { timestamp: ({ at }) => at })));

async function saved(options: RunOptions = {}): Promise<{ folder: string; path: string }> {
  const folder = await temporaryFolder();
  const feed = new Feed<Click>({ bounded: false });
  const running = ends(await program(before, feed).start({ checkpoints: checkpointsIn(folder), ...options }));
  await feed.push(['ada', 'bob', 'cy'].map((user, at) => ({ user, at }))).taken();
  const { path } = await running.savepoint(join(folder, 'saved'));
  await running.cancel();
  return { folder, path };
}

function verified(path: string, to: Build, options: RunOptions = {}): Promise<Verdict> {
  return (program(to) as unknown as { [VERIFY](options: RunOptions, path: string): Promise<Verdict> })[VERIFY](options, path);
}
const told = ({ states }: Verdict) => Object.fromEntries(states.map(({ uid, state, outcome }) => [state === undefined ? uid : `${uid}/${state}`, outcome]));

/** What a start makes of it: undefined, or the code that it is refused with. */
async function started(folder: string, path: string, to: Build, options: RunOptions = {}, allowNonRestoredState = false): Promise<string | undefined> {
  const checkpoints = { ...checkpointsIn(folder), directory: join(folder, 'again') };
  try {
    const running = ends(await program(to).start({ checkpoints, restarts: false, restore: { from: path, allowNonRestoredState }, ...options }));
    await running.cancel();
    return undefined;
  } catch (error) {
    return (error as { code: string }).code;
  }
}

describe('what a program takes over of a snapshot', () => {
  it('the same program: all of it', async () => {
    const { folder, path } = await saved();
    const verdict = await verified(path, before);
    expect(verdict).toMatchObject({ takesOver: true, id: 1, job: 'clicks', maxParallelism: 128 });
    expect(told(verdict)).toEqual({
      'buffer/waiting': 'kept',
      'visits/last': 'kept',
      'visits/pages': 'kept',
      'visits/seen': 'kept',
      windows: 'kept',
    });
    expect(verdict.states.find(({ state }) => state === 'last')).toMatchObject({ rows: 3, sentence: '3 rows are taken over.' });
    expect(await started(folder, path, before)).toBeUndefined();
  });

  const REFUSED: [string, Build, RunOptions, string, RegExp, RegExp, string][] = [
    ['a missing operator', all(windows(), buffer), {}, 'visits', /no operator 'visits' any more/, /Bring it back/, 'RESTORE_STATE_UNCLAIMED'],
    [
      'an operator by another uid',
      all(visits('visitors'), windows(), buffer),
      {},
      'visits',
      /no operator 'visits'/,
      /Bring it back/,
      'RESTORE_STATE_UNCLAIMED',
    ],
    [
      'an operator that keeps nothing by key any more',
      all((clicks) => void clicks.process('visits', { onRecord() {} }).sink('out', INTO), windows(), buffer),
      {},
      'visits',
      /no keyed state any more/,
      /Bring it back/,
      'RESTORE_STATE_UNCLAIMED',
    ],
    [
      'removed state',
      changed({ last: kept.last, pages: kept.pages }),
      {},
      'visits/seen',
      /'visits' has no state 'seen' any more/,
      /Bring it back under that name, or accept/,
      'RESTORE_STATE_UNCLAIMED',
    ],
    [
      'another kind',
      changed({ ...kept, last: list<number>() }),
      {},
      'visits/last',
      /was stored as one value a key and is declared as a list/,
      /another name/,
      'SNAPSHOT_INCOMPATIBLE',
    ],
    [
      'another version without migrate',
      changed({ ...kept, pages: list<number>({ version: 2 }) }),
      {},
      'visits/pages',
      /version 1 and is declared in version 2/,
      /Declare `migrate`/,
      'SNAPSHOT_INCOMPATIBLE',
    ],
    [
      'migrate that throws',
      changed({
        ...kept,
        pages: list<number>({
          version: 2,
          migrate: () => {
            throw new RangeError('no such page');
          },
        }),
      }),
      {},
      'visits/pages',
      /threw: no such page/,
      /every value that was stored/,
      'USER_FUNCTION_FAILED',
    ],
    ['windows of another size', all(visits(), windows(tumbling(seconds(20))), buffer), {}, 'windows', /tumbling\(10000\)/, /uid/, 'SNAPSHOT_INCOMPATIBLE'],
    ['windows of another kind', all(visits(), windows(sliding(10_000, 5_000)), buffer), {}, 'windows', /sliding/, /uid/, 'SNAPSHOT_INCOMPATIBLE'],
    ['another maxParallelism', before, { maxParallelism: 256 }, 'clicks/maxParallelism', /128.*256/, /repartition/, 'MAX_PARALLELISM_CHANGED'],
    ['more instances than key groups', before, { parallelism: 129 }, 'clicks/maxParallelism', /129 is larger/, /repartition/, 'MAX_PARALLELISM_CHANGED'],
  ];
  it.each(REFUSED)('%s is refused with a sentence that says what to do, as a start is', async (_, to, options, which, sentence, todo, code) => {
    const { folder, path } = await saved();
    const verdict = await verified(path, to, options);
    expect(verdict.takesOver).toBe(false);
    const refused = verdict.states.filter(({ outcome }) => outcome === 'refused');
    expect(refused.map(({ uid, state }) => (state === undefined ? uid : `${uid}/${state}`))).toEqual([which]);
    expect(refused[0]!.sentence).toMatch(sentence);
    expect(refused[0]!.todo).toMatch(todo);
    expect(await started(folder, path, to, options)).toBe(code);
  });

  it('state that is gone may be dropped, where that is accepted; it does not come back when it is declared again', async () => {
    const { folder, path } = await saved();
    const less = changed({ last: kept.last }, [buffer]);
    const accepting = { restore: { from: path, allowNonRestoredState: true } };
    const verdict = await verified(path, less, accepting);
    expect(verdict.takesOver).toBe(true);
    expect(told(verdict)).toMatchObject({ 'visits/pages': 'dropped', 'visits/seen': 'dropped', windows: 'dropped', 'visits/last': 'kept' });
    const checkpoints = { ...checkpointsIn(folder), directory: join(folder, 'again') };
    await ends(await program(less).start({ checkpoints, ...accepting })).stop();
    // Its own checkpoints hold nothing of it any more: the next start asks for nothing to be accepted.
    const feed = new Feed<Click>({ bounded: false });
    const sizes = new Store<number>();
    const again = job('clicks', (env) => {
      const clicks = env.source('in', feed, { timestamp: ({ at }) => at });
      buffer(clicks);
      const operator = process<string, Click, number>()({ state: kept, onRecord: (_, ctx) => ctx.emit(ctx.state.seen.size) });
      clicks
        .keyBy(({ user }) => user)
        .process('visits', operator)
        .sink('sizes', sizes);
    });
    feed.push([{ user: 'none', at: 0 }]).push([{ user: 'ada', at: 1 }]);
    const running = ends(await again.start({ checkpoints }));
    await feed.taken();
    await running.stop();
    expect(sizes.records).toEqual([0]);
  });

  it('new operators and new state begin empty; a migrated one has every value of the new version', async () => {
    const { folder, path } = await saved();
    const to = all(
      changed({ ...kept, pages: list<string>({ version: 2, migrate: (old, from) => `${from}:${String(old)}` }), more: value<number>() }),
      (clicks) => void clicks.keyBy(({ user }) => user).reduce('new', (left) => left),
    );
    const verdict = await verified(path, to);
    expect(told(verdict)).toMatchObject({ 'visits/pages': 'migrated', 'visits/more': 'new', 'new/value': 'new' });
    expect(verdict.takesOver).toBe(true);
    expect(await started(folder, path, to)).toBeUndefined();
  });

  it('another chaining, another order and other parallelism change nothing', async () => {
    const { folder, path } = await saved({ parallelism: 2 });
    const to: Build = (clicks) =>
      all(
        buffer,
        windows(),
        visits(),
      )(
        clicks
          .map((click) => click)
          .chain('never')
          .rebalance(),
      );
    expect(await verified(path, to, { parallelism: 5 })).toMatchObject({ takesOver: true });
    expect(await started(folder, path, to, { parallelism: 5 })).toBeUndefined();
  });

  it('state of the same layout is the same to it: a value that becomes a reducing one', async () => {
    const { path } = await saved();
    expect(await verified(path, changed({ ...kept, last: reducing<number>((left, right) => left + right) }))).toMatchObject({ takesOver: true });
  });

  it('records that a sink has not committed are asked about where it is not transactional any more', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<Click>({ bounded: false });
    const running = ends(
      await job('clicks', (env) => void env.source('in', feed).sink('out', new Store<Click>())).start({ checkpoints: checkpointsIn(folder) }),
    );
    await feed.push([{ user: 'ada', at: 1 }]).taken();
    const { path } = await running.savepoint(join(folder, 'saved'));
    await running.cancel();
    const verdict = await verified(path, (clicks) => void clicks.sink('out', INTO));
    expect(verdict.states).toMatchObject([{ uid: 'out', outcome: 'refused', rows: 1, sentence: expect.stringContaining('not transactional') }]);
  });

  it('of a damaged snapshot is not said: the error names the file', async () => {
    const { path } = await saved();
    const [name] = (await readdir(join(path, 'files'))).filter((each) => each.startsWith('delta-visits'));
    const file = join(path, 'files', name!);
    const bytes = await readFile(file);
    bytes[bytes.length - 20]! ^= 1;
    await writeFile(file, bytes);
    expect(await rejection(verified(path, before))).toMatchObject({ code: 'SNAPSHOT_CORRUPT', message: expect.stringContaining(file) });
  });
});
