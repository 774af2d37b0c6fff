// A cluster of replicas in one process, each with a session, a listener and a candidacy of its own: what a handle on the whole job does. What needs a death stands in
// test/protocols/17-leaders.test.ts.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { job } from 'millrace';
import type { ZooKeeperOptions } from 'millrace/zookeeper';
import { describe, expect, it, onTestFinished } from 'vitest';
import { membersNow } from '../../src/cluster/zookeeper/membership.ts';
import { clientOf } from '../../src/cluster/zookeeper/zookeeper.ts';
import { LONG } from '../long.ts';
import { Feed, rejection, temporaryFolder, Watch } from '../protocols/lab.ts';
import { certificate } from '../services/certificate.ts';
import { NO_ZOOKEEPER, zookeeperForTests } from '../services/zookeeper.ts';
import { Cluster, Lines } from './in-process.ts';
import { TcpProxy } from './zookeeper/proxy.ts';

describe.skipIf(NO_ZOOKEEPER)('a job of a cluster', () => {
  it('runs once, whoever started it; questions to any replica are answered by who leads, and a stop of any ends it for all', async () => {
    const cluster = await Cluster.open();
    const replicas = await cluster.replicas(3);
    expect(new Set(replicas.map(({ id }) => id)).size).toBe(1);
    expect(replicas.map(({ status }) => status)).toEqual(['running', 'running', 'running']);
    cluster.push([0, 1, 2, 3]);
    await cluster.counted(2);
    const follower = replicas[2]!;
    expect((await follower.tree()).children[0]!.name).toBe('counting');
    expect((await follower.metrics()).length).toBeGreaterThan(5);
    const { id } = await follower.checkpoint();
    expect((await follower.checkpoints()).map((each) => each.id)).toContain(id);
    const folder = join(cluster.folder, 'savepoint');
    expect((await follower.savepoint(folder)).path).toBe(folder);
    expect(await rejection(follower.savepoint(folder))).toMatchObject({ code: 'SAVEPOINT_EXISTS' });
    const results = await Promise.all([follower.stop(), ...replicas.map(({ finished }) => finished)]);
    expect(results.map(({ status }) => status)).toEqual(['stopped', 'stopped', 'stopped', 'stopped']);
    expect(new Set(results.map(({ checkpoint }) => checkpoint?.id)).size).toBe(1);
    expect(replicas.map(({ status }) => status)).toEqual(['stopped', 'stopped', 'stopped']);
    const again = await cluster.start();
    expect(again.restoredFrom?.id).toBe(results[0]!.checkpoint!.id);
    cluster.push([4, 5]);
    await cluster.counted(3);
    await again.cancel();
  });

  it('goes on behind a last checkpoint where the replica that leads leaves, and is none of that any more', async () => {
    const cluster = await Cluster.open();
    const leaving = new AbortController();
    const leader = await cluster.start({ signal: leaving.signal });
    const follower = await cluster.start();
    cluster.push([0, 1]);
    await cluster.counted(1);
    leaving.abort();
    expect(await rejection(leader.finished)).toMatchObject({ code: 'CLUSTER_LEFT', retryable: true });
    cluster.push([2, 3]);
    await cluster.counted(2);
    expect(follower.status).toBe('running');
    expect(await rejection(leader.checkpoint())).toMatchObject({ code: 'JOB_ENDED' });
    expect((await follower.cancel()).status).toBe('cancelled');
  });

  it('is moved off two workers that leave at the same time, one after the other', async () => {
    const cluster = await Cluster.open();
    const watch = new Watch();
    const leader = await cluster.start({ onEvent: watch.onEvent });
    const leaving = new AbortController();
    const lines = new Lines();
    const followers = [1, 2].map(() => cluster.start({ signal: leaving.signal, logger: lines.logger }));
    const left = (await Promise.all(followers)).map(({ finished }) => rejection(finished));
    leaving.abort();
    expect((await Promise.all(left)).map(({ code }) => code)).toEqual(['CLUSTER_LEFT', 'CLUSTER_LEFT']);
    expect(lines.lines.filter((line) => line.includes('could not hand over'))).toEqual([]);
    expect(watch.of('restart')).toEqual([]);
    await leader.cancel();
  });

  it('reaches ZooKeeper by TLS, where its options say so, with whoever trusts its certificate', async () => {
    const { keystore, password, ca } = await certificate();
    const proxy = await TcpProxy.start(await zookeeperForTests(), { pfx: readFileSync(keystore), passphrase: password });
    onTestFinished(() => proxy.close());
    const cluster = await Cluster.open();
    const secured = (tls: ZooKeeperOptions['tls']) => cluster.zookeeper({ connect: proxy.connect, tls, connectTimeout: 2000 });
    const leader = await cluster.start({ cluster: secured({ ca }) });
    const follower = await cluster.start({ cluster: secured({ ca }) });
    cluster.push([0, 1]);
    await cluster.counted(1);
    expect(await rejection(cluster.start({ cluster: secured(true) }))).toMatchObject({
      code: 'ZOOKEEPER_UNREACHABLE',
      message: expect.stringMatching(/the last one: .*certificate/),
    });
    await follower.cancel();
    expect((await leader.finished).status).toBe('cancelled');
  });

  it('goes on where who leads and a worker leave at the same time, which is asked of whoever leads by then', async () => {
    const cluster = await Cluster.open();
    const leaving = new AbortController();
    const lines = new Lines();
    const leader = await cluster.start({ signal: leaving.signal });
    const worker = await cluster.start({ signal: leaving.signal, logger: lines.logger });
    const staying = await cluster.start();
    cluster.push([0, 1]);
    await cluster.counted(1);
    leaving.abort();
    const left = [await rejection(leader.finished), await rejection(worker.finished)];
    expect(left.map(({ code }) => code)).toEqual(['CLUSTER_LEFT', 'CLUSTER_LEFT']);
    expect(lines.lines.filter((line) => line.includes('could not hand over'))).toEqual([]);
    cluster.push([2, 3]);
    await cluster.counted(2);
    expect((await staying.cancel()).restarts).toBe(0);
  });

  it('that has finished is not run again, and its result is told to whoever starts it later', async () => {
    const cluster = await Cluster.open();
    cluster.push([0, 1]);
    cluster.feed.end();
    const first = await cluster.start();
    const result = await first.finished;
    expect(result.status).toBe('finished');
    const later = await cluster.start();
    expect([later.status, await later.finished]).toEqual(['finished', result]);
    await cluster.counted(1);
  });

  it('is another one under another root of the same ensemble', async () => {
    const one = await Cluster.open();
    const other = await Cluster.open();
    const [a, b] = [await one.start(), await other.start()];
    expect(a.id).not.toBe(b.id);
    one.push([0, 1]);
    other.push([0, 1, 2, 3]);
    await Promise.all([one.counted(1), other.counted(2)]);
    await a.cancel();
    expect(b.status).toBe('running');
    await b.cancel();
  });

  it('a replica with other options joins, and that is said; one that fails tells all of them the same', async () => {
    const cluster = await Cluster.open();
    const watch = new Watch();
    const first = await cluster.start({ restarts: false, onEvent: watch.onEvent });
    const lines = new Lines();
    const second = await cluster.start({ parallelism: 2, logger: lines.logger });
    expect(lines.lines.join('\n')).toMatch(/another value of restarts, parallelism|another value of parallelism, restarts/);
    cluster.store.before = () => {
      throw new Error('the disk of the store is full');
    };
    cluster.push([0, 1]);
    const failures = [await rejection(first.finished), await rejection(second.finished)];
    expect(failures[0]).toMatchObject({ code: 'SINK_FAILED', uid: 'out' });
    expect(failures[1]).toMatchObject({ code: 'SINK_FAILED', uid: 'out', message: failures[0]!.message });
    expect([first.status, second.status]).toEqual(['failed', 'failed']);
    expect(watch.of('status').map(({ status }) => status)).toEqual(['running', 'failed']);
  });

  it('begins where its first start says, and goes on from there under whoever leads next', async () => {
    const cluster = await Cluster.open();
    const leaving = new AbortController();
    const leader = await cluster.start({ restore: 'none', signal: leaving.signal });
    const next = await cluster.start({ restore: 'none' });
    cluster.push([0, 1]);
    await cluster.counted(1);
    leaving.abort();
    await rejection(leader.finished);
    cluster.push([2, 3]);
    await cluster.counted(2);
    await next.cancel();
  });

  it.skipIf(!LONG)('runs with as many instances as there are slots, is rescaled when a worker comes to stay, and moved off one that leaves', async () => {
    const cluster = await Cluster.open();
    const watch = new Watch();
    const parallelism = { min: 1, max: 3 };
    const first = await cluster.start({ parallelism, onEvent: watch.onEvent });
    const instances = async (): Promise<number> => new Set(JSON.stringify(await first.tree()).match(/"counts-\d+"/g)).size;
    const runs = (): number => watch.of('status').filter(({ status }) => status === 'running').length;
    expect(await instances()).toBe(1);
    const leaving = new AbortController();
    const second = await cluster.start({ parallelism, signal: leaving.signal });
    cluster.push([0, 1]);
    await cluster.counted(1);
    expect(await instances()).toBe(1);
    await watch.until(() => runs() === 2);
    expect(await instances()).toBe(2);
    cluster.push([2, 3]);
    await cluster.counted(2);
    leaving.abort();
    expect(await rejection(second.finished)).toMatchObject({ code: 'CLUSTER_LEFT' });
    expect(await instances()).toBe(1);
    cluster.push([4, 5]);
    await cluster.counted(3);
    expect(watch.of('restart')).toEqual([]);
    expect(await rejection((first as unknown as { rescale(n: number): Promise<unknown> }).rescale(2))).toMatchObject({ code: 'RESCALE_REFUSED' });
    expect((await first.cancel()).restarts).toBe(0);
  });

  it('takes a stop with a savepoint of a follower; one that cannot be written stops nothing', async () => {
    const cluster = await Cluster.open();
    const [leader, follower] = await cluster.replicas(2);
    cluster.push([0, 1]);
    await cluster.counted(1);
    expect(await rejection(follower!.stop({ savepoint: cluster.folder }))).toMatchObject({ code: 'SAVEPOINT_EXISTS' });
    expect(leader!.status).toBe('running');
    const folder = join(cluster.folder, 'sp');
    const result = await follower!.stop({ savepoint: folder });
    expect([result.status, result.savepoint?.path, (await leader!.finished).savepoint?.path]).toEqual(['stopped', folder, folder]);
  });

  it('refuses a replica that has another folder under the same name', async () => {
    const cluster = await Cluster.open();
    const first = await cluster.start();
    const error = await rejection(cluster.start({ checkpoints: { directory: await temporaryFolder(), every: 20 } }));
    expect(error).toMatchObject({ code: 'STORAGE_NOT_SHARED', retryable: false });
    expect(error.message).toMatch(/share/);
    expect(first.status).toBe('running');
    await first.cancel();
  });

  it('is not started twice by one process, nor where an option means nothing', async () => {
    const cluster = await Cluster.open();
    const zk = cluster.zookeeper();
    const first = await cluster.start({ cluster: zk });
    expect(await rejection(cluster.start({ cluster: zk }))).toMatchObject({ code: 'JOB_ALREADY_RUNNING' });
    // The first one stays as it was: tasks are placed here.
    expect((await membersNow(clientOf(zk)!)).map(({ plans }) => Object.keys(plans))).toEqual([['counting']]);
    await first.cancel();
    const aligned = job('aligned', (env) => {
      const strategy = { timestamp: (n: number) => n, align: { group: 'g', maxDrift: 1 } };
      env.source('in', new Feed<number>(), strategy).forEach('out', () => {});
    });
    expect(await rejection(aligned.start({ cluster: zk, module: import.meta.url }))).toMatchObject({ code: 'PLAN_INVALID', uid: 'in' });
    for (const [options, said] of [
      [{ module: undefined as unknown as string, cluster: zk }, /module is not named/],
      [{ cluster: { kind: 'zookeeper' } }, /is none/],
      [{ cluster: zk, wait: true }, /waits for nobody/],
      [{ cluster: zk, worker: { slots: -1 } }, /worker.slots -1/],
      [{ cluster: zk, parallelism: { min: 3, max: 2 } }, /min: 3, max: 2/],
      [{ cluster: zk, checkpoints: { directory: 'none', retain: 0 } }, /retain: 0/],
    ] as const)
      expect(await rejection(cluster.job.start({ module: import.meta.url, ...options }))).toMatchObject({
        code: 'OPTION_INVALID',
        message: expect.stringMatching(said),
      });
  });
});
