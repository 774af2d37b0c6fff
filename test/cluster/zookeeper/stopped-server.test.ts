// A server that stands still, is killed and comes back: protocols 18 and the issue's «expiry while disconnected», at a server of this file's own.

import { beforeAll, describe, expect, it } from 'vitest';
import { configSource } from '../../../src/cluster/zookeeper/config-source.ts';
import { type Term, terms } from '../../../src/cluster/zookeeper/election.ts';
import { followedMembers, join } from '../../../src/cluster/zookeeper/membership.ts';
import { readContext } from '../../connectors/reading.ts';
import { NO_ZOOKEEPER, type ZooKeeperServer } from '../../services/zookeeper.ts';
import { clientsForTests, freshRoot, ownServer, text, told, until } from './clients.ts';

describe.skipIf(NO_ZOOKEEPER)('a server of ZooKeeper that', () => {
  const client = clientsForTests();
  const own = ownServer();
  let server: ZooKeeperServer;
  beforeAll(async () => {
    if (!NO_ZOOKEEPER) server = await own();
  });

  it('stands still for longer than a session: the lease ends leadership before it goes on; then one is elected anew, and members are back', async () => {
    const options = { connect: server.connect, root: freshRoot(), sessionTimeoutMs: 1000 };
    const [a, b] = [await client(options), await client(options)];
    const endings = [new AbortController(), new AbortController()];
    const elections = [terms(a, 'a', endings[0]!.signal), terms(b, 'b', endings[1]!.signal)];
    const member = { id: 'a', address: 'a:1', slots: 1, version: '0', plans: {} };
    const membership = await join(a, member);
    const term = (await elections[0]!.next()).value as Term;
    const waiting = elections[1]!.next();
    let resumed = false;
    server.pause();
    const paused = performance.now();
    await new Promise((resolve) => term.ended.addEventListener('abort', resolve));
    // It was asked by a client that takes itself for connected: the sockets are open.
    expect([term.isLeader(), a.leaseLeft(), resumed]).toEqual([false, 0, false]);
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, paused + 1500 - performance.now())));
    resumed = true;
    server.resume();
    const again = elections[0]!.next();
    const next = (await Promise.race([waiting, again])).value as Term;
    expect([next.epoch, next.isLeader(), term.isLeader()]).toEqual([2, true, false]);
    const late = a.multi([term.check, { kind: 'create', path: '/late', value: text('') }]);
    await expect(late).rejects.toMatchObject({ reason: 'bad-version' });
    expect(await until(followedMembers(b, new AbortController().signal), (all) => all.length === 1)).toMatchObject([member]);
    for (const ending of endings) ending.abort();
    await Promise.all(elections.map((each) => each.return()));
    await membership.leave();
  });

  it('is killed and started again: the session goes on, watches too, and no last value of a configuration is lost', async () => {
    const options = { connect: server.connect, root: freshRoot(), sessionTimeoutMs: 8000 };
    const [reader, writer] = [await client(options), await client(options)];
    await writer.create('/limits', text('0'));
    const ending = new AbortController();
    const values = configSource(reader, '/limits')
      .read('/limits', undefined, readContext([], { signal: ending.signal }))
      [Symbol.asyncIterator]();
    expect((await values.next()).value.values).toEqual([0]);
    const next = values.next();
    const back = told(writer, 'connected');
    await server.kill();
    while (writer.connected || reader.connected) await new Promise((resolve) => setTimeout(resolve, 10));
    // What is asked now waits, and is done once.
    const setting = writer.create('/while-away', text('1'));
    const outcome = setting.then(
      () => 'done',
      (error: { code: string; unknown: boolean }) => `${error.code} ${error.unknown}`,
    );
    await server.up();
    await back;
    expect(await outcome).toBe('done');
    await writer.set('/limits', text('1'), -1);
    expect((await next).value.values).toEqual([1]);
    const last = values.next();
    await writer.set('/limits', text('2'), -1);
    await server.kill();
    while (reader.connected) await new Promise((resolve) => setTimeout(resolve, 10));
    await server.up();
    expect((await last).value.values).toEqual([2]);
    expect([reader.epoch, writer.epoch]).toEqual([1, 1]);
    ending.abort();
    await values.next();
  });
});
