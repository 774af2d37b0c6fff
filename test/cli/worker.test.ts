// `millrace worker`: what a user sees of it. What a cluster does stands in test/cluster and test/protocols/17-leaders.test.ts.

import { dirname, join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { isNamed, zookeeperOf } from '../../src/cli/where.ts';
import { rangeIn } from '../../src/cli/worker-command.ts';
import { authority } from '../cluster/transport/sockets.ts';
import { freshRoot } from '../cluster/zookeeper/clients.ts';
import { LONG } from '../long.ts';
import { certificate } from '../services/certificate.ts';
import { notHad } from '../services/not-had.ts';
import { freePorts } from '../services/ports.ts';
import { NO_ZOOKEEPER, ZooKeeperServer, zookeeperForTests } from '../services/zookeeper.ts';
import { build, Place, TICKING } from './millrace-process.ts';

let place: Place;
beforeAll(build, 180_000);
beforeEach(() => {
  place = new Place();
});
afterEach(() => place.remove());

describe.skipIf(NO_ZOOKEEPER || !LONG)('millrace worker', () => {
  it('joins with its jobs, is seen by the other commands, hands over at SIGTERM, and ends with its jobs', async () => {
    const connect = await zookeeperForTests();
    const module = place.write('ticking.mjs', TICKING);
    const root = freshRoot();
    const args = ['worker', '--zookeeper', connect, '--root', root, '--checkpoints', join(place.folder, 'checkpoints'), '--every', '200ms', module];
    const first = place.start(args);
    await first.said(/^ticking: joins$[\s\S]*^ticking: running$[\s\S]*^ticking: door at/m);
    await first.said(/^20 20$/m, 'stdout');
    const second = place.start(args);
    await second.said(/door at/);
    // One job, whichever of the two is asked.
    expect((JSON.parse((await place.run('jobs', '--json')).stdout) as object[]).length).toBe(1);
    const there = ['--zookeeper', connect, '--root', root];
    const [found, ...others] = JSON.parse((await place.run('jobs', ...there, '--json')).stdout) as { name: string; url: string }[];
    expect([found?.name, others]).toEqual(['ticking', []]);
    expect((await place.run('tree', 'ticking', ...there)).stdout).toMatch(/sum-0 +running/);
    expect((await place.run('tree', 'ticking', ...there, '--url', found!.url)).code).toBe(0);
    const elsewhere = await place.run('tree', '--zookeeper', connect, '--root', freshRoot());
    expect(elsewhere).toMatchObject({ code: 1, stderr: expect.stringMatching(/^JOB_NOT_FOUND: There is no member of a cluster below /) as string });
    first.child.kill('SIGTERM');
    const left = await first.ended;
    expect(left).toMatchObject({ code: 0, signal: null });
    expect(left.stderr).toMatch(/^leaving: [\s\S]*^ticking: goes on without this worker$/m);
    const [, n, count] = await second.said(/^(\d+) (\d+)$/m, 'stdout');
    expect(count).toBe(n);
    const tree = await place.run('tree');
    expect(tree.stdout, tree.stderr).toMatch(/sum-0 +running/);
    const stopped = await place.run('stop');
    expect(stopped.stdout).toMatch(/^ticking: stopped, checkpoint \d+\n$/);
    expect((await second.ended).code).toBe(0);
    // Every count was made once: the numbers go on where the first worker was.
    expect(Number(n)).toBeGreaterThan(20);
  });
});

describe.skipIf(NO_ZOOKEEPER || !LONG)('a cluster whose ZooKeeper wants TLS, and certificates of its clients', () => {
  it('is joined and looked at by those that show one, and not by others', async ({ skip }) => {
    const { keystore, password } = await certificate();
    const trusted = await authority();
    if (trusted === undefined) {
      notHad('openssl', 'it makes the certificates that clients of ZooKeeper show');
      return skip();
    }
    onTestFinished(() => trusted.remove());
    const client = await trusted.issue('client');
    const [port] = await freePorts(1);
    const server = await ZooKeeperServer.start({
      config: {
        secureClientPort: port!,
        serverCnxnFactory: 'org.apache.zookeeper.server.NettyServerCnxnFactory',
        'ssl.keyStore.location': keystore,
        'ssl.keyStore.password': password,
        'ssl.trustStore.location': client.ca,
        'ssl.clientAuth': 'need',
      },
    });
    onTestFinished(() => server.close());
    const there = ['--zookeeper', `localhost:${port}`, '--zookeeper-ca', join(dirname(keystore), 'ca.pem')];
    const shown = [...there, '--zookeeper-cert', client.cert, '--zookeeper-key', client.key];
    const worker = place.start(['worker', ...shown, '--checkpoints', join(place.folder, 'checkpoints'), place.write('ticking.mjs', TICKING)]);
    await worker.said(/door at/);
    const tree = await place.run('tree', 'ticking', ...shown);
    expect(tree.stdout, tree.stderr).toMatch(/sum-0 +running/);
    expect(await place.run('tree', 'ticking', ...there)).toMatchObject({ code: 1, stderr: expect.stringMatching(/^ZOOKEEPER_UNREACHABLE: /) });
    expect((await place.run('stop', ...shown)).stdout).toMatch(/^ticking: stopped/);
    expect((await worker.ended).code).toBe(0);
  });
});

describe('the command line of millrace worker', () => {
  it('says how ZooKeeper is reached: with credentials of the environment, and by TLS with files that are read', () => {
    const at = { zookeeper: 'zk:2281' };
    const pem = join(place.folder, place.write('ca.pem', '-----BEGIN CERTIFICATE-----\n'));
    const read = '-----BEGIN CERTIFICATE-----\n';
    process.env.MILLRACE_TEST_AUTH = 'shop:secret';
    onTestFinished(() => {
      delete process.env.MILLRACE_TEST_AUTH;
    });
    expect(zookeeperOf(at)).toEqual({ connect: 'zk:2281', tls: false });
    expect(zookeeperOf({ ...at, root: '/shop', auth: 'MILLRACE_TEST_AUTH', zookeeperTls: true })).toEqual({
      connect: 'zk:2281',
      root: '/shop',
      auth: { scheme: 'digest', credentials: 'shop:secret' },
      tls: true,
    });
    expect(zookeeperOf({ ...at, zookeeperCa: pem }).tls).toEqual({ ca: read });
    expect(zookeeperOf({ ...at, zookeeperCert: pem, zookeeperKey: pem }).tls).toEqual({ cert: read, key: read });
    expect(() => zookeeperOf({ ...at, zookeeperCert: pem })).toThrow(/--zookeeper-cert and --zookeeper-key/);
    expect(() => zookeeperOf({ ...at, zookeeperCa: 'nowhere' })).toThrow(/file of --zookeeper-ca, nowhere, cannot be used/);
    expect(() => zookeeperOf({ ...at, zookeeperCa: join(place.folder, place.write('none.pem', 'none')) })).toThrow(/it is not PEM/);
    expect(() => isNamed({ zookeeperCa: pem })).toThrow(/--zookeeper-ca is of a cluster/);
  });

  it('without servers, with a port that is none, or a secret that cannot be read, means nothing', async () => {
    const module = place.write('ticking.mjs', TICKING);
    for (const [args, said] of [
      [[module], /required option.*--zookeeper/i],
      [[module, '--zookeeper', 'localhost:1', '--port', '99999'], /'99999' is no port/],
      [[module, '--zookeeper', 'localhost:1', '--secret-file', 'nowhere'], /secret in nowhere cannot be read/],
    ] as const) {
      const ended = await place.run('worker', ...args);
      expect(ended.stderr).toMatch(said);
      expect(ended.code).toBe(2);
    }
  });

  it('has a parallelism, or a range of it', () => {
    expect([rangeIn('4'), rangeIn('2-8')]).toEqual([4, { min: 2, max: 8 }]);
    expect(() => rangeIn('8-2')).toThrow(/no range/);
    expect(() => rangeIn('x')).toThrow(/no number/);
  });
});
