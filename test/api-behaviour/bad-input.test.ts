import { chmod, mkdir, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { early, ingress, job, type RunOptions, type StreamEnvironment, sliding, tumbling } from 'millrace';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, rejection, Store, temporaryFolder } from '../protocols/lab.ts';

const numbers = (env: StreamEnvironment) => env.fromArray('in', [1, 2], { timestamp: (v) => v });
const keyed = (env: StreamEnvironment) => numbers(env).keyBy(() => 'k');

describe('a program that cannot be planned', () => {
  const cases: [string, string, (env: StreamEnvironment) => unknown][] = [
    ['a uid used twice', 'UID_DUPLICATE', (env) => [numbers(env), env.fromArray('in', [1])]],
    ['a sink with the uid of a source', 'UID_DUPLICATE', (env) => numbers(env).sink('in', new Store())],
    ...(['', 'Upper', 'with space', 'dot.ted', 'ünder', 'a/b', undefined, 7] as string[]).map((uid): [string, string, (env: StreamEnvironment) => unknown] => [
      `the uid ${String(uid)}`,
      'UID_INVALID',
      (env) => env.fromArray(uid, [1]),
    ]),
    ['no source at all', 'PLAN_EMPTY', () => {}],
    ['a source that is none', 'PLAN_INVALID', (env) => env.source('in', {} as never)],
    ['map without a function', 'PLAN_INVALID', (env) => numbers(env).map(undefined as never)],
    ['keyBy without a function', 'PLAN_INVALID', (env) => numbers(env).keyBy('k' as never)],
    ['an aggregate without result', 'PLAN_INVALID', (env) => keyed(env).aggregate('a', { create: () => 0, add: (a: number) => a } as never)],
    ['a process without onRecord', 'PLAN_INVALID', (env) => keyed(env).process('p', {} as never)],
    [
      'chain always across an exchange',
      'PLAN_INVALID',
      (env) =>
        keyed(env)
          .reduce('r', (a) => a)
          .chain('always'),
    ],
    [
      'a setting on a union',
      'PLAN_INVALID',
      (env) =>
        numbers(env)
          .union(env.fromArray('other', [1]))
          .onError('skip'),
    ],
    ['parallelism 0', 'OPTION_INVALID', (env) => numbers(env).parallelism(0)],
    ['parallelism 1.5', 'OPTION_INVALID', (env) => numbers(env).parallelism(1.5)],
    ['an unknown policy', 'OPTION_INVALID', (env) => numbers(env).onError('retry' as never)],
    ['a negative lateness', 'OPTION_INVALID', (env) => keyed(env).window(tumbling(10)).allowedLateness(-1)],
    ['negative out-of-orderness', 'OPTION_INVALID', (env) => env.fromArray('in', [1], { outOfOrderness: -1 })],
    ['idleness 0', 'OPTION_INVALID', (env) => env.fromArray('in', [1], { idleness: 0 })],
    ['a window of size 0', 'OPTION_INVALID', () => tumbling(0)],
    ['a window of size NaN', 'OPTION_INVALID', () => tumbling(Number.NaN)],
    ['a slide of 0', 'OPTION_INVALID', () => sliding(10, 0)],
    ['an offset as large as the slide', 'OPTION_INVALID', () => sliding(10, 5, { offset: 5 })],
    ['an offset below −size', 'OPTION_INVALID', () => tumbling(10, { offset: -10 })],
    ['early() without anything', 'OPTION_INVALID', () => early({})],
  ];
  for (const [name, code, build] of cases) {
    it(`${name} is ${code}, said when it is planned and when it is started`, async () => {
      const bad = job('bad', (env) => void build(env));
      const error = await rejection(bad.run());
      expect(error).toMatchObject({ code, retryable: false });
      expect(() => bad.plan()).toThrow(error.message);
    });
  }

  for (const name of ['', 'Job', 'a b', '../up', 'a/b', undefined]) {
    it(`the job name ${JSON.stringify(name)} is JOB_NAME_INVALID`, () => {
      expect(() => job(name as string, () => {})).toThrow(expect.objectContaining({ code: 'JOB_NAME_INVALID', todo: expect.any(String) }));
    });
  }

  it('a uid may look like the name that the runtime gives to an operator without one', async () => {
    const out: number[] = [];
    const named = job('named', (env) => {
      env
        .fromArray('map-1', [1, 2, 3])
        .rebalance()
        .map((v) => v + 1)
        .keyBy((v) => v % 2)
        .reduce('filter-3', (a, b) => a + b)
        .filter(() => true)
        .forEach('out', (v) => void out.push(v));
    });
    await named.run();
    expect(out).toEqual([2, 3, 6]);
    expect(new Set(named.plan().vertices.map((v) => v.id)).size).toBe(named.plan().vertices.length);
  });
});

describe('a job that cannot be started', () => {
  it('whose transactional sink would never commit is SINK_NEVER_COMMITS; bounded it may run', async () => {
    const build = (bounded: boolean) => job('never', (env) => void env.source('in', new Feed<number>({ bounded }).end()).sink('out', new Store()));
    expect(await rejection(build(false).start())).toMatchObject({ code: 'SINK_NEVER_COMMITS', uid: 'out', todo: expect.stringContaining('checkpoints') });
    expect((await build(true).run()).status).toBe('finished');
  });

  it('where a file stands in the place of the checkpoint directory', async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, 'checkpoints'), 'a file');
    const error = await rejection(job('file', (env) => void numbers(env)).run({ checkpoints: checkpointsIn(folder) }));
    expect(error).toMatchObject({ code: 'CHECKPOINT_DIRECTORY', todo: expect.any(String) });
    expect(error.message).toContain(join(folder, 'checkpoints'));
  });

  it.skipIf(process.getuid?.() === 0)('where the directory may not be written', async () => {
    const folder = await temporaryFolder();
    await mkdir(join(folder, 'checkpoints'));
    await chmod(join(folder, 'checkpoints'), 0o500);
    const error = await rejection(job('locked', (env) => void numbers(env)).run({ checkpoints: checkpointsIn(folder) }));
    expect(error).toMatchObject({ code: 'CHECKPOINT_DIRECTORY', todo: expect.any(String) });
  });

  it('where the directory vanishes while it runs, its checkpoints fail and say so; nothing is committed meanwhile', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const running = ends(
      await job('gone', (env) => void env.source('in', feed).sink('out', store)).start({ checkpoints: checkpointsIn(folder), restarts: false }),
    );
    await feed.push([1]).taken();
    await rm(join(folder, 'checkpoints', 'gone', 'files'), { recursive: true });
    const error = await rejection(running.checkpoint());
    expect(error).toMatchObject({ code: 'CHECKPOINT_FAILED' });
    expect(error.message).toContain('ENOENT');
    await rejection(running.finished);
    expect(store.records).toEqual([]);
  });

  const options: [string, RunOptions][] = [
    ['parallelism above maxParallelism', { parallelism: 9, maxParallelism: 8 }],
    ['maxParallelism above 32,768', { maxParallelism: 40_000 }],
    ['parallelism 0', { parallelism: 0 }],
    ['parallelism −1', { parallelism: -1 }],
    ['parallelism 1.5', { parallelism: 1.5 }],
    ['maxParallelism 0', { maxParallelism: 0 }],
    ['maxParallelism 12.5', { maxParallelism: 12.5 }],
  ];
  for (const [name, given] of options) {
    it(`${name} is OPTION_INVALID`, async () => {
      const error = await rejection(job('options', (env) => void numbers(env).forEach('out', () => {})).run(given));
      expect(error.code).toBe('OPTION_INVALID');
    });
  }
});

describe('a job that cannot be restored as asked', () => {
  const sums = (feed: Feed<number>, store: Store<number>, uid = 'sum') =>
    job('sums', (env) => {
      env
        .source('in', feed)
        .keyBy(() => 'k')
        .reduce(uid, (a, b) => a + b)
        .sink('out', store);
    });

  async function stopped(folder: string, feed: Feed<number>, store: Store<number>) {
    const running = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push([1]).taken();
    const first = await running.checkpoint();
    await feed.push([10]).taken();
    await running.stop();
    return first;
  }

  it('from an id or a path that does not exist: CHECKPOINT_NOT_FOUND, naming those that do', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    await stopped(folder, feed, new Store());
    for (const from of [99, '99', '/nowhere/chk-1', 'chk-1']) {
      const error = await rejection(sums(feed, new Store()).start({ checkpoints: checkpointsIn(folder), restore: { from } }));
      expect(error).toMatchObject({ code: 'CHECKPOINT_NOT_FOUND', todo: expect.any(String) });
      expect(error.message).toContain('retained are 1, 2');
    }
  });

  it('by a program without an operator that has state: RESTORE_STATE_UNCLAIMED, unless that is accepted', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const first = await stopped(folder, feed, store);
    for (const restore of ['latest', { from: first.id }] as const) {
      const error = await rejection(sums(feed, store, 'renamed').start({ checkpoints: checkpointsIn(folder), restore }));
      expect(error).toMatchObject({ code: 'RESTORE_STATE_UNCLAIMED', todo: expect.stringContaining('allowNonRestoredState') });
      expect(error.message).toContain("'sum'");
    }
    const running = ends(await sums(feed, store, 'renamed').start({ checkpoints: checkpointsIn(folder), restore: { from: 2, allowNonRestoredState: true } }));
    await feed.push([100]).taken();
    await running.stop();
    expect(store.records).toEqual([1, 11, 100]);
  });

  it('with another maxParallelism: MAX_PARALLELISM_CHANGED; one that is left out adopts the stored one', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    await stopped(folder, feed, store);
    const asked = await rejection(sums(feed, store).start({ checkpoints: checkpointsIn(folder), maxParallelism: 64 }));
    expect(asked).toMatchObject({ code: 'MAX_PARALLELISM_CHANGED', todo: expect.stringContaining('128') });
    const larger = await rejection(sums(feed, store).start({ checkpoints: checkpointsIn(folder), parallelism: 129 }));
    expect(larger).toMatchObject({ code: 'MAX_PARALLELISM_CHANGED', todo: expect.any(String) });
    const running = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder), parallelism: 7 }));
    await feed.push([100]).taken();
    await running.stop();
    expect(store.records).toEqual([1, 11, 111]);
  });

  it('a refused start changes nothing: the next one goes on from the newest checkpoint of the same lineage', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const first = await stopped(folder, feed, store);
    const options = { checkpoints: checkpointsIn(folder) };
    expect((await rejection(sums(feed, store, 'other').start({ ...options, restore: { from: first.id } }))).code).toBe('RESTORE_STATE_UNCLAIMED');
    expect((await rejection(sums(feed, store).start({ ...options, restore: { from: first.id }, maxParallelism: 7 }))).code).toBe('MAX_PARALLELISM_CHANGED');
    expect((await rejection(sums(feed, store).start({ ...options, restore: 'none', parallelism: 300, maxParallelism: 256 }))).code).toBe('OPTION_INVALID');
    const running = ends(await sums(feed, store).start(options));
    await feed.push([100]).taken();
    await running.stop();
    expect(store.records).toEqual([1, 11, 111]);
    expect(new Set(store.commits.map((c) => c.lineage)).size).toBe(1);
  });

  it('restore none begins anew, as a new lineage; a crash before its first checkpoint does not lead back into the old one', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    await stopped(folder, feed, store);
    const anew = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder), restore: 'none', restarts: false }));
    expect(anew.restoredFrom).toBeUndefined();
    await feed.taken();
    store.before = () => Promise.reject(new Error('down'));
    await anew.checkpoint();
    await rejection(anew.finished);
    store.before = () => {};
    const next = ends(await sums(feed, store).start({ checkpoints: checkpointsIn(folder) }));
    await next.stop();
    expect(store.records).toEqual([1, 11, 1, 11]);
    expect(new Set(store.commits.map((c) => c.lineage)).size).toBe(2);
  });

  for (const how of ['id', 'path'] as const) {
    it(`restore from the ${how} of a retained checkpoint forks a new lineage, which then goes its own way`, async () => {
      const folder = await temporaryFolder();
      const feed = new Feed<number>({ bounded: false });
      const store = new Store<number>();
      const first = await stopped(folder, feed, store);
      const options = { checkpoints: checkpointsIn(folder) };
      const fork = ends(await sums(feed, store).start({ ...options, restore: { from: how === 'id' ? first.id : first.path } }));
      expect(fork.restoredFrom?.id).toBe(first.id);
      await feed.taken();
      await fork.stop();
      const next = ends(await sums(feed, store).start(options));
      await feed.push([100]).taken();
      await next.stop();
      expect(store.records).toEqual([1, 11, 11, 111]);
      expect(new Set(store.commits.map((c) => c.lineage)).size).toBe(2);
    });
  }

  it('from the path of a damaged checkpoint in another directory: refused, and nothing half copied stays', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const { path } = await stopped(folder, feed, store);
    const files = join(dirname(dirname(path)), 'files');
    for (const name of await readdir(files)) await truncate(join(files, name), 5);
    const elsewhere = { checkpoints: checkpointsIn(join(folder, 'elsewhere')) };
    expect((await rejection(sums(feed, store).start({ ...elsewhere, restore: { from: path } }))).code).toBe('SNAPSHOT_CORRUPT');
    expect(await readdir(join(folder, 'elsewhere', 'checkpoints', 'sums', 'files'))).toEqual([]);
  });

  it('from the path of a checkpoint in another directory: its files are copied, and the next start needs the old ones no more', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const { path, id } = await stopped(folder, feed, store);
    const elsewhere = { checkpoints: checkpointsIn(join(folder, 'elsewhere')) };
    const fork = ends(await sums(feed, store).start({ ...elsewhere, restore: { from: path } }));
    expect(fork.restoredFrom?.id).toBe(id);
    await fork.cancel();
    await rm(dirname(dirname(path)), { recursive: true });
    const killed = ends(await sums(feed, store).start({ ...elsewhere, restore: { from: fork.restoredFrom!.path } }));
    await feed.push([100]).taken();
    await killed.stop();
    // The second 11 is the fork's own: it goes on behind the checkpoint, as a lineage of its own.
    expect(store.records).toEqual([1, 11, 11, 111]);
  });
});

describe('values that cannot be stored', () => {
  it('a record for a transactional sink that has no form as bytes names the sink', async () => {
    const error = await rejection(job('functions', (env) => void env.fromArray('in', [{ f: () => 1 }]).sink('out', new Store())).run());
    expect(error.uid).toBe('out');
    expect(error.message).toMatch(/function/);
  });

  it('a value of state that has none names its operator', async () => {
    const folder = await temporaryFolder();
    const error = await rejection(
      job('functions', (env) => {
        env
          .fromArray('in', [1, 2])
          .map((v) => ({ v, f: () => 1 }))
          .keyBy(() => 'k')
          .reduce('held', (_l, r) => r);
      }).run({ checkpoints: checkpointsIn(folder), restarts: false }),
    );
    expect(error.uid).toBe('held');
    expect(error.message).toMatch(/function/);
  });

  it('an ingress without a running job waits, and after its end rejects with JOB_ENDED', async () => {
    const hits = ingress<number>();
    const sent = hits.send(1);
    const seen: number[] = [];
    let came!: () => void;
    const arrived = new Promise<void>((resolve) => {
      came = resolve;
    });
    const running = ends(
      await job(
        'ingress',
        (env) =>
          void env.source('in', hits).forEach('out', (v) => {
            seen.push(v);
            if (seen.length === 2) came();
          }),
      ).start(),
    );
    await sent;
    await hits.send(2, 5);
    await arrived;
    await running.stop();
    expect(seen).toEqual([1, 2]);
    expect(await rejection(hits.send(3))).toMatchObject({ code: 'JOB_ENDED' });
  });
});
