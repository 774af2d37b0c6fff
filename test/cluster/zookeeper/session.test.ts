// The client port on a real server: what recipes count on (src/cluster/zookeeper/client.ts).

import { createServer, type Socket } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { VALUE_BYTES } from '../../../src/cluster/zookeeper/client.ts';
import type { ZooKeeperError } from '../../../src/cluster/zookeeper/errors.ts';
import { NO_ZOOKEEPER, zookeeperForTests } from '../../services/zookeeper.ts';
import { clientsForTests, freshRoot, text } from './clients.ts';
import { type Answer, garbage, half, OddServer, said } from './odd-server.ts';
import { TcpProxy } from './proxy.ts';

describe.skipIf(NO_ZOOKEEPER)('a client of ZooKeeper', () => {
  const client = clientsForTests();

  it('makes its root, and everything lies below it', async () => {
    const root = `${freshRoot()}/a/b`;
    const inside = await client({ root });
    await inside.create('/x', text('1'));
    const outside = await client({ root: '' });
    expect((await outside.get(`${root}/x`))?.value.toString()).toBe('1');
    expect(await inside.children('/')).toEqual(['x']);
  });

  it('reads what it wrote, with version and transaction', async () => {
    const zk = await client();
    expect(await zk.get('/x')).toBeUndefined();
    expect(await zk.children('/x')).toBeUndefined();
    await zk.create('/x', text('1'));
    const first = (await zk.get('/x'))!;
    expect({ value: first.value.toString(), version: first.stat.version, owner: first.stat.owner }).toEqual({ value: '1', version: 0, owner: 0n });
    await zk.set('/x', text('2'), 0);
    const second = (await zk.get('/x'))!;
    expect([second.value.toString(), second.stat.version, second.stat.czxid]).toEqual(['2', 1, first.stat.czxid]);
    await zk.remove('/x', 1);
    await zk.create('/x', text(''));
    const third = (await zk.get('/x'))!;
    expect(third.value.length).toBe(0);
    expect(third.stat.czxid > first.stat.czxid).toBe(true);
  });

  it('says what is refused, and that nothing of it is unknown', async () => {
    const zk = await client();
    await zk.make('/a/b');
    await zk.make('/a/b');
    const refusals = [zk.create('/a', text('')), zk.create('/none/x', text('')), zk.set('/a', text(''), 7), zk.remove('/a', -1), zk.remove('/none', -1)];
    const reasons = await Promise.all(
      refusals.map((each) => each.catch((error: ZooKeeperError) => [error.code, error.reason, error.unknown, error.retryable])),
    );
    expect(reasons).toEqual(['node-exists', 'no-node', 'bad-version', 'not-empty', 'no-node'].map((reason) => ['ZOOKEEPER_REFUSED', reason, false, false]));
  });

  it('does all of a transaction or nothing, checks version 0 too, and says which operation was refused', async () => {
    const zk = await client();
    await zk.create('/epoch', text(''));
    const check = { kind: 'check', path: '/epoch', version: 0 } as const;
    await zk.multi([check, { kind: 'create', path: '/a', value: text('1') }]);
    const again = zk.multi([check, { kind: 'create', path: '/b', value: text('') }, { kind: 'create', path: '/a', value: text('') }]);
    await expect(again).rejects.toMatchObject({ reason: 'node-exists', operation: 2 });
    expect(await zk.get('/b')).toBeUndefined();
    await zk.set('/epoch', text('1'), 0);
    const late = zk.multi([check, { kind: 'set', path: '/a', value: text('2'), version: -1 }]);
    await expect(late).rejects.toMatchObject({ reason: 'bad-version', operation: 0 });
    await expect(zk.multi([{ kind: 'remove', path: '/epoch', version: 0 }])).rejects.toMatchObject({ reason: 'bad-version', operation: 0 });
    expect((await zk.get('/a'))?.value.toString()).toBe('1');
  });

  it('wakes once for a change of a value, of a folder, and for a creation', async () => {
    const zk = await client();
    const woken: string[] = [];
    const wake = (name: string): Promise<() => void> =>
      new Promise((resolve) => {
        resolve(() => void woken.push(name));
      });
    await zk.get('/x', await wake('created'));
    await zk.children('/', await wake('root'));
    await zk.create('/x', text(''));
    await zk.get('/x', await wake('changed'));
    await zk.children('/x', await wake('child'));
    await zk.set('/x', text('1'), -1);
    await zk.set('/x', text('2'), -1);
    await zk.create('/x/y', text(''));
    await zk.settle();
    expect(woken).toEqual(['created', 'root', 'changed', 'child']);
  });

  it('gives many who watch one node a wake each, and none to who does not any more', async () => {
    const zk = await client();
    await zk.create('/x', text(''));
    let woken = 0;
    const never = (): void => {
      woken += 1000;
    };
    for (let i = 0; i < 30; i++) await zk.get('/x', () => void woken++);
    await zk.get('/x', never);
    zk.unwatch(never);
    await zk.set('/x', text('1'), -1);
    await zk.settle();
    expect(woken).toBe(30);
  });

  it('refuses what is no path, and does not wait for an answer to that', async () => {
    const zk = await client({ sessionTimeoutMs: 1000 });
    await zk.connect();
    await expect(zk.get('/a//b')).rejects.toThrow();
    let connections = 0;
    zk.on('connected', () => void connections++);
    // Longer than an answer may take, and then some heartbeats.
    await new Promise((resolve) => setTimeout(resolve, 700));
    await zk.settle();
    expect(connections).toBe(0);
  });

  it('refuses a value that is too large by itself, and takes the largest', async () => {
    const zk = await client();
    await expect(zk.create('/x', Buffer.alloc(VALUE_BYTES + 1))).rejects.toMatchObject({ code: 'ZOOKEEPER_VALUE_TOO_LARGE' });
    await zk.create('/x', Buffer.alloc(VALUE_BYTES, 1));
    const half = Buffer.alloc(VALUE_BYTES / 2 + 1);
    const both = zk.multi(['/a', '/b'].map((path) => ({ kind: 'create', path, value: half })));
    await expect(both).rejects.toMatchObject({ code: 'ZOOKEEPER_VALUE_TOO_LARGE' });
    expect((await zk.get('/x'))?.value.length).toBe(VALUE_BYTES);
  });

  it('has a lease from the first answer on, which renews itself, and none after its end', async () => {
    const zk = await client({ sessionTimeoutMs: 1000 });
    expect(zk.leaseLeft()).toBe(0);
    await zk.connect();
    expect(zk.sessionTimeoutMs).toBe(1000);
    let lapsed = 0;
    zk.on('lapsed', () => void lapsed++);
    const begun = performance.now();
    while (performance.now() - begun < 1500) {
      expect(zk.leaseLeft()).toBeGreaterThan(0);
      expect(zk.leaseLeft()).toBeLessThanOrEqual(750);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect(lapsed).toBe(0);
    await zk.close();
    expect([zk.leaseLeft(), lapsed]).toEqual([0, 1]);
    await expect(zk.get('/x')).rejects.toMatchObject({ code: 'ZOOKEEPER_CLOSED' });
  });

  it('keeps the process alive while something is asked or held, and not otherwise', async () => {
    const proxy = await TcpProxy.start(await zookeeperForTests());
    onTestFinished(() => proxy.close());
    const zk = await client({ connect: proxy.connect });
    await zk.connect();
    // Of the sockets that keep this process alive, those to the proxy.
    const { _getActiveHandles: handles } = process as unknown as { _getActiveHandles(): { remotePort?: number }[] };
    const alive = (): number => handles.call(process).filter(({ remotePort }) => `127.0.0.1:${remotePort}` === proxy.connect).length;
    expect(alive()).toBe(0);
    const least = async (work: Promise<unknown>): Promise<number> => {
      let found = Number.POSITIVE_INFINITY;
      let over = false;
      const end = work.then(() => {
        over = true;
      });
      while (!over) {
        found = Math.min(found, alive());
        await Promise.race([end, new Promise((resolve) => setImmediate(resolve))]);
      }
      return found;
    };
    expect(await least(zk.make('/a/b/c'))).toBe(1);
    expect(await least(zk.settle())).toBe(1);
    expect(await least(zk.children('/a'))).toBe(1);
    expect(alive()).toBe(0);
    const release = zk.hold();
    expect(alive()).toBe(1);
    release();
    expect(alive()).toBe(0);
  });

  it('leaves a connection that is over alone, however often it is held and let go meanwhile', async () => {
    const proxy = await TcpProxy.start(await zookeeperForTests());
    onTestFinished(() => proxy.close());
    const zk = await client({ connect: proxy.connect });
    await zk.connect();
    const warned: Error[] = [];
    const warn = (warning: Error): void => void warned.push(warning);
    process.on('warning', warn);
    onTestFinished(() => void process.off('warning', warn));
    proxy.cut();
    while (zk.connected) await new Promise((resolve) => setImmediate(resolve));
    for (let i = 0; i < 20; i++) zk.hold()();
    await new Promise((resolve) => setImmediate(resolve));
    expect(warned).toEqual([]);
    proxy.mend();
    await zk.settle();
  });

  it('lets nobody else at what it creates, where it has credentials', async () => {
    const root = freshRoot();
    const auth = { scheme: 'digest', credentials: 'someone:secret' };
    const ours = await client({ root, auth });
    await ours.create('/x', text('1'));
    await ours.multi([{ kind: 'create', path: '/y', value: text('2') }]);
    const same = await client({ root, auth });
    expect((await same.get('/y'))?.value.toString()).toBe('2');
    for (const other of [await client({ root }), await client({ root, auth: { scheme: 'digest', credentials: 'someone:else' } })]) {
      await expect(other.get('/x')).rejects.toMatchObject({ code: 'ZOOKEEPER_FORBIDDEN', retryable: false });
      await expect(other.set('/y', text(''), -1)).rejects.toMatchObject({ code: 'ZOOKEEPER_FORBIDDEN' });
      await expect(other.create('/z', text(''))).rejects.toMatchObject({ code: 'ZOOKEEPER_FORBIDDEN' });
      // The lease does not depend on what it may read.
      await other.settle();
      expect(other.leaseLeft()).toBeGreaterThan(0);
    }
  });

  it('is refused for good where the server does not know the scheme', async () => {
    const zk = await client({ auth: { scheme: 'none-such', credentials: 'x' } });
    await expect(zk.get('/x')).rejects.toMatchObject({ code: 'ZOOKEEPER_AUTHENTICATION', retryable: false });
  });

  it('says within its time that nobody answers, and tries again when it is asked again', async () => {
    const silent = createServer(() => {});
    const sockets = new Set<Socket>();
    silent.on('connection', (socket) => sockets.add(socket));
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const { port } = silent.address() as { port: number };
    try {
      const zk = await client({ connect: `127.0.0.1:${port}`, connectTimeoutMs: 600, sessionTimeoutMs: 1000 });
      await expect(zk.get('/x')).rejects.toMatchObject({ code: 'ZOOKEEPER_UNREACHABLE', unknown: false, retryable: true });
      await expect(zk.get('/x')).rejects.toMatchObject({ code: 'ZOOKEEPER_UNREACHABLE' });
      expect(sockets.size).toBeGreaterThan(1);
    } finally {
      for (const socket of sockets) socket.destroy();
      silent.close();
    }
    const gone = await client({ connect: `127.0.0.1:${port}`, connectTimeoutMs: 300 });
    const error = (await gone.get('/x').catch((caught) => caught)) as ZooKeeperError;
    expect([error.code, (error.cause as { code?: string }).code]).toEqual(['ZOOKEEPER_UNREACHABLE', 'ECONNREFUSED']);
  });

  it('goes from a server that is not there to the next', async () => {
    const zk = await client({ connect: `127.0.0.1:1,${await zookeeperForTests()}` });
    await zk.create('/x', text(''));
    expect(await zk.children('/')).toEqual(['x']);
  });
});

describe('a client whose server', () => {
  const client = clientsForTests();
  const oddServer = async (...answers: Answer[]): Promise<OddServer> => {
    const server = await OddServer.start(answers);
    onTestFinished(() => server.close());
    return server;
  };

  it('answers with a number that the library does not know loses the connection, and not the process', async () => {
    const server = await oddServer(said(-118), said(-118), said(-101));
    const zk = await client({ connect: server.connect, root: '' });
    await expect(zk.remove('/x', -1)).rejects.toMatchObject({ code: 'ZOOKEEPER_CONNECTION_LOST', unknown: true });
    // Of a read nothing is unknown, and it is asked again.
    expect(await zk.children('/x')).toBeUndefined();
    expect(server.connections).toBe(3);
  });

  it('ends connections before there is a session is told who we are once on each', async () => {
    const xids: number[] = [];
    const told: Answer = (xid, socket) => {
      xids.push(xid);
      said(0)(xid, socket);
    };
    const server = await oddServer(told, told, told);
    server.mute = 2;
    const zk = await client({ connect: server.connect, root: '', auth: { scheme: 'digest', credentials: 'a:b' } });
    await zk.remove('/x', -1);
    // -4 has the credentials.
    expect([server.connections, xids.slice(0, 2)]).toEqual([3, [-4, 0]]);
  });

  it('answers with garbage, or half and goes, is connected to anew, and what it says then is understood', async () => {
    const server = await oddServer(half, garbage);
    const zk = await client({ connect: server.connect, root: '' });
    for (let i = 0; i < 2; i++) await expect(zk.remove('/x', -1)).rejects.toMatchObject({ unknown: true });
    await zk.remove('/x', -1);
    expect([server.connections, zk.epoch]).toEqual([3, 1]);
  });
});
