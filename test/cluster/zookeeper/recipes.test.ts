// Members, endpoints, locks, barriers and the job store, on a real server.

import { zookeeper } from 'millrace/zookeeper';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type Barrier, enter } from '../../../src/cluster/zookeeper/barrier.ts';
import type { Client } from '../../../src/cluster/zookeeper/client.ts';
import { type Term, terms } from '../../../src/cluster/zookeeper/election.ts';
import { JobStore } from '../../../src/cluster/zookeeper/job-store.ts';
import { lock } from '../../../src/cluster/zookeeper/lock.ts';
import { followedMembers, join, type Member } from '../../../src/cluster/zookeeper/membership.ts';
import { BARRIERS, JOBS, LOCKS, MEMBERS, SERVICES } from '../../../src/cluster/zookeeper/paths.ts';
import { lookup, register, watch } from '../../../src/cluster/zookeeper/services.ts';
import { NO_ZOOKEEPER, zookeeperForTests } from '../../services/zookeeper.ts';
import { clientsForTests, freshRoot, text, told, until } from './clients.ts';
import { TcpProxy } from './proxy.ts';

const member = (id: string, slots = 2): Member => ({ id, address: `${id}:7070`, slots, version: '0.1.0', plans: { wc: 'abc' } });

describe.skipIf(NO_ZOOKEEPER)('recipes of ZooKeeper', () => {
  const client = clientsForTests();

  it('members are listed with what they say, when they come, change and go; what is no member is not', async () => {
    const root = freshRoot();
    const [a, b, c] = [await client({ root }), await client({ root }), await client({ root })];
    const sets = followedMembers(c, new AbortController().signal);
    const settled = async (count: number): Promise<Member[]> =>
      (await until(sets, (all) => all.length === count && all.every(({ born }) => born !== undefined))).map(({ born: _, ...said }) => said);
    expect((await sets.next()).value).toEqual([]);
    const first = await join(a, member('a'));
    expect(await settled(1)).toEqual([member('a')]);
    await c.create(`${MEMBERS}/garbage`, text('not json'));
    const second = await join(b, member('b'));
    expect(await settled(2)).toEqual([member('a'), member('b')]);
    await first.update({ ...member('a'), plans: { wc: 'def' }, needs: { wc: 3 } });
    expect(await settled(2)).toEqual([{ ...member('a'), plans: { wc: 'def' }, needs: { wc: 3 } }, member('b')]);
    await second.leave();
    expect(await settled(1)).toEqual([{ ...member('a'), plans: { wc: 'def' }, needs: { wc: 3 } }]);
  });

  it('a member that joined later says so, also when its session has expired and another one has joined since', async () => {
    const root = freshRoot();
    const proxy = await TcpProxy.start(await zookeeperForTests());
    onTestFinished(() => proxy.close());
    const first = await client({ root, connect: proxy.connect, sessionTimeoutMs: 1000 });
    const other = await client({ root });
    const sets = followedMembers(other, new AbortController().signal);
    await join(first, member('z'));
    await join(other, member('a'));
    const older = ([a, z]: readonly Member[]): boolean => z !== undefined && z.born! < a!.born!;
    await until(sets, older);
    proxy.cut();
    await until(sets, (all) => all.length === 1);
    proxy.mend();
    expect(older(await until(sets, (all) => all.length === 2))).toBe(true);
  });

  it('what is kept comes back by itself where it is removed by hand, and after an expired session, once', async () => {
    const root = freshRoot();
    const proxy = await TcpProxy.start(await zookeeperForTests());
    onTestFinished(() => proxy.close());
    const zk = await client({ root, connect: proxy.connect, sessionTimeoutMs: 1000 });
    const other = await client({ root });
    const endpoint = { host: '10.0.0.1', port: 8080, zone: 'a' };
    const registered = await register(zk, 'a/b', endpoint);
    const lists = watch(other, 'a/b', new AbortController().signal);
    expect((await lists.next()).value).toEqual([endpoint]);
    const [service] = (await other.children(SERVICES))!;
    const [name] = (await other.children(`${SERVICES}/${service}`))!;
    await other.remove(`${SERVICES}/${service}/${name}`, -1);
    await until(lists, (all) => all.length === 1);
    const events: string[] = [];
    for (const event of ['lapsed', 'expired'] as const) zk.on(event, () => void events.push(event));
    proxy.cut();
    await until(lists, (all) => all.length === 0);
    proxy.mend();
    await until(lists, (all) => all.length === 1);
    expect([events, zk.epoch]).toEqual([['lapsed', 'expired'], 2]);
    expect(await lookup(other, 'a/b')).toEqual([endpoint]);
    await registered.close();
    expect(await lookup(other, 'a/b')).toEqual([]);
  });

  it('what is kept comes back where all of it is removed by hand, also when that happens as it does', async () => {
    const root = freshRoot();
    const [zk, other] = [await client({ root }), await client({ root })];
    await register(zk, 's', { host: 'a', port: 1 });
    const lists = watch(other, 's', new AbortController().signal);
    await until(lists, (all) => all.length === 1);
    const [service] = (await other.children(SERVICES))!;
    const folder = `${SERVICES}/${service}`;
    const { create } = zk;
    let removed = 0;
    zk.create = async (...args) => {
      if (removed++ === 0) for (const each of [folder, SERVICES]) await other.remove(each, -1);
      return create.apply(zk, args);
    };
    const [name] = (await other.children(folder))!;
    await other.remove(`${folder}/${name}`, -1);
    await until(lists, (all) => all.length === 1);
    expect([removed, (await other.children(folder))?.length]).toEqual([2, 1]);
  });

  it('a lock is held by one at a time, in the order of asking, with rising tokens', async () => {
    const root = freshRoot();
    let inside = 0;
    const order: number[] = [];
    const tokens: bigint[] = [];
    const first = await lock(await client({ root }), 'l');
    const watcher = await client({ root });
    const waiting: Promise<void>[] = [];
    for (let i = 0; i < 3; i++) {
      const zk = await client({ root });
      waiting.push(
        lock(zk, 'l').then(async (held) => {
          inside += 1;
          expect([inside, held.held()]).toEqual([1, true]);
          order.push(i);
          tokens.push(held.token);
          await zk.settle();
          inside -= 1;
          await held.release();
          expect([held.held(), held.signal.aborted]).toEqual([false, true]);
        }),
      );
      while ((await watcher.children(`${LOCKS}/l`))!.length < i + 2) await watcher.settle();
    }
    expect(order).toEqual([]);
    await first.release();
    await Promise.all(waiting);
    expect(order).toEqual([0, 1, 2]);
    expect([first.token, ...tokens].every((token, i, all) => i === 0 || token > all[i - 1]!)).toBe(true);
    expect(await watcher.children(`${LOCKS}/l`)).toEqual([]);
  });

  it('who gives up waiting for a lock leaves the line', async () => {
    const root = freshRoot();
    const zk = await client({ root });
    const held = await lock(zk, 'l');
    const other = await client({ root });
    const waiting = lock(other, 'l', AbortSignal.timeout(100));
    await expect(waiting).rejects.toMatchObject({ name: 'TimeoutError' });
    expect((await zk.children(`${LOCKS}/l`))?.length).toBe(1);
    await held.release();
  });

  it("a lock that is released while no server answers is the next one's as soon as servers do", async () => {
    const root = freshRoot();
    const proxy = await TcpProxy.start(await zookeeperForTests());
    onTestFinished(() => proxy.close());
    const zk = await client({ root, connect: proxy.connect, sessionTimeoutMs: 10_000, connectTimeoutMs: 300 });
    const held = await lock(zk, 'l');
    const next = lock(await client({ root }), 'l');
    proxy.cut();
    await expect(held.release()).rejects.toMatchObject({ code: 'ZOOKEEPER_UNREACHABLE' });
    expect([held.held(), held.signal.aborted]).toEqual([false, true]);
    proxy.mend();
    expect((await next).token > held.token).toBe(true);
    expect(zk.epoch).toBe(1);
  });

  it('a lock is lost in time where nobody answers, and the next gets it', async () => {
    const root = freshRoot();
    const proxy = await TcpProxy.start(await zookeeperForTests());
    onTestFinished(() => proxy.close());
    const zk = await client({ root, connect: proxy.connect, sessionTimeoutMs: 1000 });
    const held = await lock(zk, 'l');
    const next = lock(await client({ root }), 'l').then((got) => {
      expect(held.held()).toBe(false);
      return got;
    });
    proxy.cut();
    await new Promise((resolve) => held.signal.addEventListener('abort', resolve));
    expect((held.signal.reason as { code: string }).code).toBe('ZOOKEEPER_SESSION_EXPIRED');
    const got = await next;
    expect(got.token > held.token).toBe(true);
    await got.release();
    proxy.mend();
    await told(zk, 'expired');
    await held.release();
  });

  it('nobody passes a barrier before enough have come, nor leaves it before all have', async () => {
    const root = freshRoot();
    const clients = [await client({ root }), await client({ root }), await client({ root })];
    // One gives up: it does not count any more.
    await expect(enter(clients[2]!, 'b', 3, AbortSignal.timeout(50))).rejects.toMatchObject({ name: 'TimeoutError' });
    for (let round = 0; round < 2; round++) {
      let passed = 0;
      let left = 0;
      const entering = (zk: Client): Promise<Barrier> =>
        enter(zk, 'b', 3).then((barrier) => {
          passed += 1;
          return barrier;
        });
      const first = clients.slice(0, 2).map(entering);
      while (((await clients[2]!.children(`${BARRIERS}/b`)) ?? []).length < 2) await clients[2]!.settle();
      expect(passed).toBe(0);
      const all = await Promise.all([...first, entering(clients[2]!)]);
      const leaving = all.slice(0, 2).map((barrier) => barrier.leave().then(() => void left++));
      await clients[2]!.settle();
      expect(left).toBe(0);
      await all[2]!.leave();
      await Promise.all(leaving);
      expect(await clients[2]!.children(`${BARRIERS}/b`)).toEqual([]);
    }
  });

  it('a submission whose answer was lost, and that was changed since, is known by its run; a change that was lost is made again', async () => {
    const root = freshRoot();
    const proxy = await TcpProxy.start(await zookeeperForTests());
    onTestFinished(() => proxy.close());
    const [far, near] = [await client({ root, connect: proxy.connect }), await client({ root })];
    await near.make(JOBS);
    const [store, other] = [new JobStore(far), new JobStore(near)];
    const job = { name: 'wc', run: 'r', options: {}, until: { kind: 'end' } } as const;
    await far.settle();
    const answer = proxy.loseAnswerTo('"run":"r"').then(() => proxy.cut());
    const submitted = store.submit(job);
    await answer;
    expect(await other.until('wc', { kind: 'stop', drain: true }, 'r')).toBe(true);
    proxy.mend();
    expect(await submitted).toBe(true);
    const request = proxy.loseRequest('"kind":"cancel"');
    const cancelled = store.until('wc', { kind: 'cancel' }, 'r');
    await request;
    expect((await other.jobs())[0]?.until.kind).toBe('stop');
    proxy.mend();
    expect(await cancelled).toBe(true);
    expect((await other.jobs())[0]?.until.kind).toBe('cancel');
    expect(await other.submit(job)).toBe(false);
  });

  it('an end whose answer was lost ends no later run of the same name', async () => {
    const root = freshRoot();
    const proxy = await TcpProxy.start(await zookeeperForTests());
    onTestFinished(() => proxy.close());
    const [far, near] = [await client({ root, connect: proxy.connect, sessionTimeoutMs: 20_000 }), await client({ root })];
    const [store, other] = [new JobStore(far), new JobStore(near)];
    const ending = new AbortController();
    const elections = terms(far, 'far', ending.signal);
    const term = (await elections.next()).value as Term;
    const job = { name: 'wc', run: 'first', options: {}, until: { kind: 'end' } } as const;
    await other.submit(job);
    const answer = proxy.loseAnswerTo('"stopped"').then(() => proxy.cut());
    const ended = store.ended(term, { job: 'wc', at: 7, run: 'first', result: { status: 'stopped', restarts: 0 } });
    await answer;
    expect(await other.submit({ ...job, run: 'second' })).toBe(true);
    proxy.mend();
    await ended;
    expect([(await other.jobs()).map(({ run }) => run), (await other.end('wc'))?.run]).toEqual([['second'], 'first']);
    ending.abort();
    await elections.return();
  });

  it('a lock that is given up while nobody answers is free when somebody does, though its session lives', async () => {
    const root = freshRoot();
    const proxy = await TcpProxy.start(await zookeeperForTests());
    onTestFinished(() => proxy.close());
    const far = await client({ root, connect: proxy.connect, connectTimeoutMs: 100, sessionTimeoutMs: 40_000 });
    const held = await lock(far, 'l');
    const next = lock(await client({ root }), 'l');
    proxy.cut();
    await expect(held.release()).rejects.toMatchObject({ code: 'ZOOKEEPER_UNREACHABLE' });
    proxy.mend();
    const got = await next;
    expect([far.epoch, got.token > held.token]).toEqual([1, true]);
  });

  it('jobs are submitted once, told until when, and ended by the leader alone, with their result', async () => {
    const root = freshRoot();
    const [a, b] = [await client({ root }), await client({ root })];
    const [store, leading] = [new JobStore(a), new JobStore(b)];
    const seen = store.followed(new AbortController().signal);
    expect((await seen.next()).value).toEqual([]);
    const job = { name: 'wc', options: { parallelism: 2 }, until: { kind: 'end' } } as const;
    expect(await store.submit(job)).toBe(true);
    expect(await leading.submit({ ...job, options: {} })).toBe(false);
    expect((await seen.next()).value).toEqual([job]);
    const stop = { kind: 'stop', drain: true } as const;
    expect(await leading.until('wc', stop)).toBe(true);
    expect(await leading.until('none', stop)).toBe(false);
    expect((await seen.next()).value).toEqual([{ ...job, until: stop }]);
    const ending = new AbortController();
    const elections = terms(b, 'b', ending.signal);
    const term = (await elections.next()).value as Term;
    const end = { job: 'wc', at: 7, result: { status: 'stopped', restarts: 0 } } as const;
    await leading.ended(term, end);
    await leading.ended(term, end);
    expect((await seen.next()).value).toEqual([]);
    expect([await store.end('wc'), await store.end('none')]).toEqual([end, undefined]);
    ending.abort();
    await elections.return();
    await (await terms(a, 'a', new AbortController().signal)).next();
    await expect(leading.ended(term, { job: 'wc', at: 8, failure: { code: 'X', message: 'x' } })).rejects.toMatchObject({ code: 'LEADER_DEPOSED' });
    expect(await store.end('wc')).toEqual(end);
  });
});

describe.skipIf(NO_ZOOKEEPER)('what a leader notes of jobs', () => {
  const client = clientsForTests();
  const job = (name: string) => ({ name, run: `run of ${name}`, options: {}, until: { kind: 'end' }, plan: 'old' }) as const;
  const led = async () => {
    const leader = await client();
    const store = new JobStore(leader);
    for (const name of ['a', 'b']) await store.submit(job(name));
    const ending = new AbortController();
    const elections = terms(leader, 'leader', ending.signal);
    return { leader, store, elections, ending, term: (await elections.next()).value as Term };
  };

  it('is in force of all jobs at once, without those that are gone or were submitted anew, or of none', async () => {
    const { store, term, elections, ending } = await led();
    const plans = ['a', 'gone', 'b'].map((name) => ({ name, run: `run of ${name}`, plan: 'new' }));
    const force = async (): Promise<unknown> => (await store.jobs()).map(({ name, plan }) => [name, plan]).toSorted();
    // Read, and changed by another one before it is written: all of it is decided anew.
    await Promise.all([store.planned(term, plans), store.until('b', { kind: 'cancel' })]);
    expect(await force()).toEqual([
      ['a', 'new'],
      ['b', 'new'],
    ]);
    expect((await store.jobs()).find(({ name }) => name === 'b')!.until).toEqual({ kind: 'cancel' });
    expect(await store.planned(term, [{ name: 'a', run: 'an older run', plan: 'other' }])).toBe(false);
    const deposed = { ...term, check: { ...term.check, version: 99 } };
    await expect(
      store.planned(
        deposed,
        plans.map((each) => ({ ...each, plan: 'other' })),
      ),
    ).rejects.toMatchObject({ code: 'LEADER_DEPOSED' });
    expect(await force()).toEqual([
      ['a', 'new'],
      ['b', 'new'],
    ]);
    ending.abort();
    await elections.return();
  });

  it('keeps which workers it has lost in a row for whoever leads next', async () => {
    const { store, term, elections, ending } = await led();
    const losses = { by: 'leader', workers: ['x', 'y'], checkpoint: 3, at: 1000 };
    expect(await store.lost(term, 'a', 'run of a', losses)).toBe(true);
    expect((await store.jobs()).find(({ name }) => name === 'a')).toEqual({ ...job('a'), losses });
    ending.abort();
    await elections.return();
  });
});

describe.skipIf(NO_ZOOKEEPER)('zookeeper()', () => {
  it('registers, looks up and watches; closing ends what waits', async () => {
    const connect = `${await zookeeperForTests()}${freshRoot()}`;
    const [zk, other] = [zookeeper({ connect, root: '/inner/' }), zookeeper({ connect, root: '/inner', sessionTimeout: 4000 })];
    const lists = zk.watch('customers')[Symbol.asyncIterator]();
    expect((await lists.next()).value).toEqual([]);
    const registered = await other.register('customers', { host: 'b', port: 2 });
    await other.register('customers', { host: 'a', port: 1 });
    expect(await zk.lookup('customers')).toEqual([
      { host: 'a', port: 1 },
      { host: 'b', port: 2 },
    ]);
    await until({ [Symbol.asyncIterator]: () => lists }, (all) => all.length === 2);
    await registered.close();
    // The session ends with its owner, and what was registered goes at once.
    await other.close();
    expect(await zk.lookup('customers')).toEqual([]);
    const waiting = zk.watch('nobody')[Symbol.asyncIterator]();
    await waiting.next();
    const ended = expect(waiting.next()).rejects.toMatchObject({ code: 'ZOOKEEPER_CLOSED' });
    await zk.close();
    await ended;
    await expect(zk.lock('l')).rejects.toMatchObject({ code: 'ZOOKEEPER_CLOSED' });
  });
});

describe('what zookeeper() is told', () => {
  it.each([
    ['', /names no servers/],
    ['zk1:2181,', /names no servers/],
    ['http://zk1', /names no servers/],
    ['zk1:2181/a//b', /ends with no path/],
  ])('is refused where the servers are %j', (connect, message) => {
    expect(() => zookeeper({ connect })).toThrow(message);
  });

  it.each([
    [{ root: 'millrace' }, /no path/],
    [{ root: '/a/../b' }, /no path/],
    [{ auth: { scheme: 'digest', credentials: '' } }, /auth needs/],
    [{ sessionTimeout: 0 }, /sessionTimeout 0 is no time/],
    [{ connectTimeout: Number.NaN }, /connectTimeout NaN is no time/],
  ])('is refused where the options are %j', (options, message) => {
    expect(() => zookeeper({ connect: 'zk1', ...options })).toThrow(message);
  });

  it('is refused where a path, an endpoint, a name or a size means nothing, before it connects', async () => {
    const zk = zookeeper({ connect: 'localhost:1' });
    expect(() => zk.config('config')).toThrow(/no path/);
    expect(() => zk.watch('')).toThrow(/needs a name/);
    await expect(zk.register('s', { host: '', port: 1 })).rejects.toMatchObject({ code: 'OPTION_INVALID' });
    await expect(zk.barrier('b', 0)).rejects.toMatchObject({ code: 'OPTION_INVALID' });
    await zk.close();
  });
});
