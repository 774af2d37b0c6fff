// The registry in ZooKeeper, under the tests that every registry has to pass, and protocols 17 C: unknown outcomes.

import { describe, expect, it, onTestFinished } from 'vitest';
import type { Pointer } from '../../../src/checkpoint/registry.ts';
import type { Client } from '../../../src/cluster/zookeeper/client.ts';
import { type Term, terms } from '../../../src/cluster/zookeeper/election.ts';
import { registryOf } from '../../../src/cluster/zookeeper/paths.ts';
import { ZooKeeperRegistry } from '../../../src/cluster/zookeeper/registry.ts';
import { systemIo } from '../../../src/runtime/io.ts';
import { registryContract } from '../../checkpoint/registry-contract.ts';
import { NO_ZOOKEEPER, zookeeperForTests } from '../../services/zookeeper.ts';
import { clientsForTests, freshRoot, text } from './clients.ts';
import { TcpProxy } from './proxy.ts';

const FOLDER = '/checkpoints/job/checkpoints';
const pointer = (id: number): Pointer => ({ id, path: `${FOLDER}/chk-${id}-a1`, bytes: 1, startedAt: 1, durationMs: 1 });

async function lead(client: Client): Promise<Term> {
  const ending = new AbortController();
  const elections = terms(client, 'leader', ending.signal);
  onTestFinished(() => ending.abort());
  const { value } = await elections.next();
  return value as Term;
}

describe.skipIf(NO_ZOOKEEPER)('the registry in ZooKeeper', () => {
  const client = clientsForTests();
  const opened = async (zk: Client, term: Term): Promise<ZooKeeperRegistry> =>
    ZooKeeperRegistry.open({ client: zk, term, job: 'job', io: systemIo(), checkpoints: FOLDER });

  describe('as any registry', () => {
    registryContract(async () => {
      const zk = await client();
      const term = await lead(zk);
      return { open: () => opened(zk, term), folder: FOLDER };
    });
  });

  it('gives pointers below the folder of this machine', async () => {
    const zk = await client();
    const term = await lead(zk);
    const registry = await opened(zk, term);
    await registry.add({ ...pointer(1), path: '/elsewhere/checkpoints/chk-1-a1' }, 'one');
    expect((await registry.checkpoints())[0]?.path).toBe(`${FOLDER}/chk-1-a1`);
  });

  it('takes nothing from a leader that was deposed, whatever it is', async () => {
    const root = freshRoot();
    const old = await client({ root });
    const first = await lead(old);
    const registry = await opened(old, first);
    await registry.add(pointer(1), 'one');
    await registry.begin('one', undefined);
    await first.resign();
    const zk = await client({ root });
    const second = await lead(zk);
    const late: [string, () => Promise<unknown>][] = [
      ['add', () => registry.add(pointer(2), 'one')],
      ['remove', () => registry.remove(1)],
      ['attempt', () => registry.nextAttempt()],
      ['reserve', () => registry.reserve(40)],
      ['raise', () => registry.raise(90)],
      ['outcome', () => registry.setOutcome('failed')],
      ['begin', () => registry.begin('two', undefined)],
    ];
    for (const [name, work] of late)
      expect({ name, error: await work().catch(({ code }: { code: string }) => code) }).toEqual({ name, error: 'LEADER_DEPOSED' });
    const next = await opened(zk, second);
    expect([(await next.checkpoints()).map(({ id }) => id), await next.counter(), await next.lineage(), await next.outcome()]).toEqual([
      [1],
      0,
      'one',
      'running',
    ]);
  });

  it('protocols 17 C: a registration whose answer was lost is found by our id in the node, and is no failure', async () => {
    const root = freshRoot();
    const proxy = await TcpProxy.start(await zookeeperForTests());
    onTestFinished(() => proxy.close());
    const zk = await client({ root, connect: proxy.connect });
    const registry = await opened(zk, await lead(zk));
    const lost = proxy.loseAnswerTo('chk-7-a1');
    const adding = registry.add(pointer(7), 'one');
    await lost;
    await adding;
    expect((await registry.checkpoints()).map(({ id }) => id)).toEqual([7]);
    await expect(registry.add(pointer(7), 'one')).rejects.toMatchObject({ code: 'ZOOKEEPER_REFUSED' });
  });

  it('changes its state once, where the answer was lost', async () => {
    const root = freshRoot();
    const proxy = await TcpProxy.start(await zookeeperForTests());
    onTestFinished(() => proxy.close());
    const zk = await client({ root, connect: proxy.connect });
    const registry = await opened(zk, await lead(zk));
    const lost = proxy.loseAnswerTo('"attempt"');
    const attempt = registry.nextAttempt();
    await lost;
    expect(await attempt).toBe(1);
    expect((await zk.get(registryOf('job').state))?.stat.version).toBe(1);
  });

  it('protocols 17 C: what cannot be settled says that it is unknown, and was done', async () => {
    const root = freshRoot();
    const proxy = await TcpProxy.start(await zookeeperForTests());
    onTestFinished(() => proxy.close());
    const zk = await client({ root, connect: proxy.connect, connectTimeoutMs: 300, sessionTimeoutMs: 1000 });
    const registry = await opened(zk, await lead(zk));
    const lost = proxy.loseAnswerTo('chk-7-a1').then(() => proxy.cut());
    const adding = registry.add(pointer(7), 'one');
    await lost;
    await expect(adding).rejects.toMatchObject({ code: 'ZOOKEEPER_CONNECTION_LOST', unknown: true });
    const other = await client({ root });
    expect(await other.children(registryOf('job').checkpoints)).toEqual(['0000000000000000007']);
  });

  it('waits for servers that are away for as long as its term lasts', async () => {
    const root = freshRoot();
    const proxy = await TcpProxy.start(await zookeeperForTests());
    onTestFinished(() => proxy.close());
    const zk = await client({ root, connect: proxy.connect, connectTimeoutMs: 50, sessionTimeoutMs: 40_000 });
    const term = await lead(zk);
    const registry = await opened(zk, term);
    proxy.cut();
    let answered = 0;
    const asked = [registry.add(pointer(7), 'one'), registry.lineage(), opened(zk, term)].map((each) => each.finally(() => answered++));
    // Longer than a request waits for a connection.
    await expect(zk.settle()).rejects.toMatchObject({ code: 'ZOOKEEPER_UNREACHABLE' });
    await expect(zk.settle()).rejects.toMatchObject({ code: 'ZOOKEEPER_UNREACHABLE' });
    expect([answered, term.isLeader()]).toEqual([0, true]);
    proxy.mend();
    await Promise.all(asked);
    expect((await registry.checkpoints()).map(({ id }) => id)).toEqual([7]);
  });

  it('keeps pointers under names that sort as their ids do', async () => {
    const zk = await client();
    const registry = await opened(zk, await lead(zk));
    await registry.add(pointer(3), 'one');
    const { checkpoints } = registryOf('job');
    expect(await zk.children(checkpoints)).toEqual([String(3).padStart(19, '0')]);
    await zk.create(`${checkpoints}/${String(2).padStart(19, '0')}`, text(JSON.stringify({ stamp: 'x', value: { ...pointer(2), lineage: 'one' } })));
    expect((await registry.checkpoints()).map(({ id }) => id)).toEqual([2, 3]);
  });
});
