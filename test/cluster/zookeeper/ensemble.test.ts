// An ensemble of three, a server with TLS, and leaders under pauses at random: only in long runs.

import { dirname, join } from 'node:path';
import { zookeeper } from 'millrace/zookeeper';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Client } from '../../../src/cluster/zookeeper/client.ts';
import { type Term, terms } from '../../../src/cluster/zookeeper/election.ts';
import { ZooKeeperError } from '../../../src/cluster/zookeeper/errors.ts';
import { join as joinCluster } from '../../../src/cluster/zookeeper/membership.ts';
import { MEMBERS } from '../../../src/cluster/zookeeper/paths.ts';
import { LONG } from '../../long.ts';
import { Random } from '../../random.ts';
import { certificate } from '../../services/certificate.ts';
import { freePorts } from '../../services/ports.ts';
import { NO_ZOOKEEPER, ZooKeeperEnsemble, ZooKeeperServer, zookeeperForTests } from '../../services/zookeeper.ts';
import { clientsForTests, freshRoot, text } from './clients.ts';
import { TcpProxy } from './proxy.ts';

describe.skipIf(NO_ZOOKEEPER || !LONG)('an ensemble of three', () => {
  const client = clientsForTests();

  it('loses any one of its servers: sessions, leadership, members and lease go on, and what is written is there', async () => {
    const ensemble = await ZooKeeperEnsemble.start();
    onTestFinished(() => ensemble.close());
    const root = freshRoot();
    const zk = await client({ connect: ensemble.connect, root, sessionTimeoutMs: 6000 });
    const other = await client({ connect: ensemble.connect, root, sessionTimeoutMs: 6000 });
    const ending = new AbortController();
    const elections = terms(zk, 'a', ending.signal);
    const term = (await elections.next()).value as Term;
    await joinCluster(zk, { id: 'a', address: 'a:1', slots: 1, version: '0', plans: {} });
    let least = Number.POSITIVE_INFINITY;
    const looking = setInterval(() => {
      least = Math.min(least, zk.leaseLeft());
    }, 20);
    for (const [i, node] of ensemble.nodes.entries()) {
      await node.kill();
      const deadline = performance.now() + 20_000;
      for (;;) {
        try {
          await zk.multi([term.check, { kind: 'create', path: `/n${i}`, value: text('') }]);
          break;
        } catch (error) {
          if (!(error instanceof ZooKeeperError) || (!error.retryable && error.reason !== 'node-exists') || performance.now() > deadline) throw error;
          if (error.reason === 'node-exists') break;
          if (error.unknown) await zk.settle();
        }
      }
      await other.settle();
      expect(await other.get(`/n${i}`)).toBeDefined();
      expect(await other.children(MEMBERS)).toEqual(['a']);
      await node.up();
    }
    clearInterval(looking);
    expect([zk.epoch, other.epoch, term.isLeader(), term.epoch]).toEqual([1, 1, true, 1]);
    expect(least).toBeGreaterThan(0);
    ending.abort();
    await elections.return();
  });
});

it.skipIf(NO_ZOOKEEPER || !LONG)('a server with TLS is spoken to where its certificate is trusted, and otherwise not', async () => {
  const { keystore, password, ca } = await certificate();
  const [port] = await freePorts(1);
  const server = await ZooKeeperServer.start({
    config: {
      secureClientPort: port!,
      serverCnxnFactory: 'org.apache.zookeeper.server.NettyServerCnxnFactory',
      'ssl.keyStore.location': keystore,
      'ssl.keyStore.password': password,
      'ssl.trustStore.location': join(dirname(keystore), 'ca.pem'),
      'ssl.clientAuth': 'none',
    },
  });
  onTestFinished(() => server.close());
  const zk = zookeeper({ connect: `localhost:${port}`, root: '/secure', tls: { ca } });
  await zk.register('s', { host: 'a', port: 1 });
  expect(await zk.lookup('s')).toEqual([{ host: 'a', port: 1 }]);
  await zk.close();
  const wary = zookeeper({ connect: `localhost:${port}`, tls: true, connectTimeout: 1000 });
  const error = (await wary.lookup('s').catch((caught) => caught)) as ZooKeeperError;
  expect([error.code, (error.cause as { code?: string }).code]).toEqual(['ZOOKEEPER_UNREACHABLE', expect.stringMatching(/SELF_SIGNED|UNABLE_TO_VERIFY/)]);
  await wary.close();
});

/** How long leaders may take to end whose lines are well. */
const END_MS = 60_000;

describe.skipIf(NO_ZOOKEEPER || !LONG)('leaders whose lines are cut, stalled and slow at random', () => {
  const client = clientsForTests();

  it.each([1, 2, 3])('are never two at a time, and write in the order of their epochs, seed %i', async (seed) => {
    const random = new Random(seed);
    const root = freshRoot();
    const target = await zookeeperForTests();
    const holding = new Map<string, Term>();
    const clients = new Map<string, Client>();
    const over = new Set<string>();
    const ending = new AbortController();
    const ends: Promise<void>[] = [];
    const proxies: TcpProxy[] = [];
    let two = 0;
    let led = 0;
    const log = await client({ root });
    await log.make('/log');
    const lead = async (zk: Client, name: string): Promise<void> => {
      clients.set(name, zk);
      for await (const term of terms(zk, name, ending.signal)) {
        led += 1;
        holding.set(name, term);
        for (let i = 0; term.isLeader() && !ending.signal.aborted; i++) {
          try {
            const path = `/log/${String(term.epoch).padStart(6, '0')}-${name}-${i}`;
            await zk.multi([
              term.check,
              { kind: 'set', path: '/log', value: text(String(term.epoch)), version: -1 },
              { kind: 'create', path, value: text('') },
            ]);
          } catch (error) {
            if (!(error instanceof ZooKeeperError)) throw error;
          }
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        if (random.next() < 0.3) await term.resign();
      }
      over.add(name);
    };
    const standing = (name: string): object => {
      const { connected, epoch: session } = clients.get(name)!;
      const term = holding.get(name);
      return { over: over.has(name), connected, session, lease: clients.get(name)!.leaseLeft(), term: term?.epoch, ended: term?.ended.aborted };
    };
    for (let i = 0; i < 4; i++) {
      const proxy = await TcpProxy.start(target);
      proxies.push(proxy);
      onTestFinished(() => proxy.close());
      ends.push(lead(await client({ root, connect: proxy.connect, sessionTimeoutMs: 1000, connectTimeoutMs: 3000 }), `n${i}`));
    }
    const looking = setInterval(() => {
      const leaders = [...holding.values()].filter((term) => term.isLeader());
      if (leaders.length > 1) two += 1;
    }, 2);
    const written: string[] = [];
    const until = performance.now() + 12_000;
    while (performance.now() < until) {
      // Whoever leads is met more often than the others.
      const leading = proxies.find((_, i) => holding.get(`n${i}`)?.isLeader() === true);
      const proxy = leading !== undefined && random.next() < 0.7 ? leading : random.of(proxies);
      if (random.next() < 0.5) proxy.stall();
      else proxy.cut();
      await new Promise((resolve) => setTimeout(resolve, 300 + random.next() * 1500));
      proxy.mend();
      written.push((await log.get('/log'))!.value.toString());
    }
    ending.abort();
    for (const proxy of proxies) proxy.mend();
    const late = new Promise<string>((resolve) => setTimeout(() => resolve(JSON.stringify([...clients.keys()].map(standing))), END_MS).unref());
    expect(await Promise.race([Promise.all(ends).then(() => 'over'), late])).toBe('over');
    clearInterval(looking);
    expect(two).toBe(0);
    expect(led).toBeGreaterThan(2);
    const epochs = written.filter((each) => each !== '').map(Number);
    expect(epochs).toEqual([...epochs].sort((a, b) => a - b));
    // Of each epoch one leader has written.
    const writers = new Set((await log.children('/log'))!.map((name) => name.split('-').slice(0, 2).join('-')));
    expect(new Set([...writers].map((each) => each.split('-')[0])).size).toBe(writers.size);
  });
});
