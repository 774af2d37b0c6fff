// Protocols 17 and 18 with real processes: leaders that die, stand still, or lose ZooKeeper. What a session and an election promise stands in test/cluster/zookeeper.

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { type Replica, Service } from '../cluster/replicas.ts';
import { ensureBuilt } from '../e2e/trial.ts';
import { LONG } from '../long.ts';
import { NO_ZOOKEEPER, ZooKeeperServer } from '../services/zookeeper.ts';

/** Of that many that are left. */
async function finished(service: Service, count: number): Promise<void> {
  const { stayed } = service;
  expect(stayed.length).toBe(count);
  await service.finishes(stayed);
}

beforeAll(ensureBuilt, 180_000);

describe.skipIf(NO_ZOOKEEPER)('protocols 17 A, B: a leader dies', () => {
  it('SIGKILL of who leads: another goes on from what was registered, every record is published once, and all are told the result', async () => {
    const service = await Service.held();
    const leader = await service.running(3);
    await leader.told('checkpoint', 3);
    leader.process.kill('SIGKILL');
    await leader.ended;
    const next = await service.elected(leader.epoch);
    expect(next).not.toBe(leader);
    await finished(service, 2);
  });

  for (const fault of ['checkpoint.registered=kill@3', 'job.finish=kill']) {
    it.skipIf(!LONG)(`SIGKILL at ${fault}: what was registered and not told is committed by the next, and no result is lost`, async () => {
      // In its middle the job waits for the checkpoint at which it is killed; its end it comes to by itself.
      const service = await (fault.startsWith('checkpoint.') ? Service.held({ count: 600 }) : Service.open({ count: 600 }));
      const first = service.start({}, fault);
      await first.told('running');
      service.start();
      service.start();
      expect(await first.ended).toBe('SIGKILL');
      await finished(service, 2);
    });
  }
});

describe.skipIf(NO_ZOOKEEPER)('protocols 17, step 6: a region whose every task is reported once keeps running', () => {
  /** Who leads runs no task, and two others run one of each vertex. */
  const beside = async (count: number, fault = ''): Promise<{ service: Service; leader: Replica }> => {
    const service = await Service.held({ count, options: { parallelism: 2 } });
    const leader = service.start({ options: { parallelism: 2, worker: { slots: 0 } } }, fault);
    await leader.told('leads');
    await Promise.all([service.start(), service.start()].map((each) => each.told('running')));
    return { service, leader };
  };
  const reads = (service: Service) => service.replicas.flatMap((each) => each.of('reads').map(({ split }) => split)).sort();
  const keepsRunning = (service: Service) =>
    service.conditions.until(() =>
      service.replicas.some((each) => each.of('log').some(({ text }) => text.includes('goes on under another leader: 1 of its regions'))),
    );

  it('when who leads is killed: nothing is read again, and every record is published once', async () => {
    const { service, leader } = await beside(2000);
    await leader.told('checkpoint', 3);
    leader.process.kill('SIGKILL');
    await leader.ended;
    const next = await service.elected(leader.epoch);
    await keepsRunning(service);
    await next.told('checkpoint', 2);
    await finished(service, 2);
    expect(reads(service)).toEqual(['a', 'b']);
  });

  for (const step of ['checkpoint.metadata.written', 'checkpoint.registered']) {
    it.skipIf(!LONG)(`when it is killed at ${step}: what was under way comes to nothing, and what was registered is told`, async () => {
      const { service, leader } = await beside(2000, `${step}=kill@4`);
      expect(await leader.ended).toBe('SIGKILL');
      const next = await service.elected(leader.epoch);
      await keepsRunning(service);
      await next.told('checkpoint', 2);
      await finished(service, 2);
      expect(reads(service)).toEqual(['a', 'b']);
    });
  }

  it.skipIf(!LONG)('when it stands still for longer than its session: its channels are closed, and it follows', async () => {
    const { service, leader } = await beside(2000);
    await leader.told('checkpoint', 3);
    leader.process.kill('SIGSTOP');
    const next = await service.elected(leader.epoch);
    await keepsRunning(service);
    leader.process.kill('SIGCONT');
    await next.told('checkpoint', 2);
    await finished(service, 3);
    expect(reads(service)).toEqual(['a', 'b']);
  });

  it.skipIf(!LONG)('but not where a task of it has died as well: it restarts from the newest checkpoint', async () => {
    const { service, leader } = await beside(2000);
    await leader.told('checkpoint', 3);
    const [, dies] = service.replicas as [Replica, Replica, Replica];
    service.start();
    await service.conditions.until(() => service.replicas[3]!.of('running').length > 0);
    leader.process.kill('SIGKILL');
    dies.process.kill('SIGKILL');
    await service.elected(leader.epoch);
    await finished(service, 2);
    expect(reads(service).length).toBeGreaterThan(2);
  });

  it.skipIf(!LONG)('and again under a third leader; a restart of it afterwards is one as any other', async () => {
    const { service, leader } = await beside(4000);
    await leader.told('checkpoint', 3);
    const second = service.start({ options: { parallelism: 2, worker: { slots: 0 } } });
    await second.told('running');
    const [, one, other] = service.replicas as [Replica, Replica, Replica];
    leader.process.kill('SIGKILL');
    const next = await service.elected(leader.epoch);
    await keepsRunning(service);
    await next.told('checkpoint', 2);
    if (next === second) {
      // Nobody of those that run tasks leads: it is killed too.
      second.process.kill('SIGKILL');
      await (await service.elected(second.epoch)).told('checkpoint', 2);
      expect(reads(service)).toEqual(['a', 'b']);
    }
    const dies = service.leader() === one ? other : one;
    dies.process.kill('SIGKILL');
    service.start();
    await service.conditions.until(() => reads(service).length >= 4);
    service.release();
    await service.conditions.until(() => service.replicas.some((each) => each.of('ended').length > 0));
    expect(await service.complaints()).toEqual([]);
  });
});

describe.skipIf(NO_ZOOKEEPER || !LONG)('protocols 17 D, 18: a leader stands still', () => {
  it('SIGSTOP for longer than its session, then SIGCONT: it registers and publishes nothing more, and follows', async () => {
    const service = await Service.held({ count: 4000 });
    const leader = await service.running(3);
    await leader.told('checkpoint', 3);
    leader.process.kill('SIGSTOP');
    const next = await service.elected(leader.epoch);
    await next.told('checkpoint', 3);
    const before = leader.of('checkpoint').length;
    leader.process.kill('SIGCONT');
    await finished(service, 3);
    expect(leader.of('checkpoint').length).toBe(before);
    expect(leader.epoch).toBeLessThan(next.epoch);
  });
});

describe.skipIf(NO_ZOOKEEPER || !LONG)('ZooKeeper goes away', () => {
  it('for longer than the session: the leader stands back in time, and who is elected afterwards goes on', async () => {
    const server = await ZooKeeperServer.start();
    onTestFinished(() => server.close());
    const service = await Service.held({ connect: `${server.connect}/c`, count: 4000 });
    const leader = await service.running(2);
    await leader.told('checkpoint', 3);
    server.pause();
    await service.conditions.until(() => leader.of('status').some(({ status }) => status === 'restarting'));
    const at = leader.of('checkpoint').length;
    server.resume();
    await service.elected(leader.epoch);
    await finished(service, 2);
    expect(at).toBeGreaterThan(2);
  });
});

describe.skipIf(NO_ZOOKEEPER || !LONG)('a wish outlives who was to fulfil it', () => {
  it('a stop whose leader dies meanwhile stops the job under the next one; what was started again goes on', async () => {
    const service = await Service.held({ count: 3000 });
    const leader = service.start();
    await leader.told('running');
    const follower = service.start();
    await follower.told('running');
    await leader.told('checkpoint', 2);
    leader.process.kill('SIGSTOP');
    const stopped = follower.asks('stop');
    await service.elected(leader.epoch);
    leader.process.kill('SIGKILL');
    const answer = await stopped;
    expect(answer, JSON.stringify(answer)).toMatchObject({ kind: 'answer', value: { status: 'stopped' } });
    service.release();
    const again = service.start();
    await again.told('running');
    expect((await again.told('ended')).result).toMatchObject({ status: 'finished' });
    expect(await service.complaints()).toEqual([]);
  });

  it('a process that is told to end leaves: the next leads within the moment, and nothing is repeated', async () => {
    const service = await Service.held({ count: 3000, sessionTimeout: 30_000 });
    const leader = await service.running(2);
    await leader.told('checkpoint', 2);
    leader.process.kill('SIGTERM');
    expect(await leader.told('ended')).toMatchObject({ code: 'CLUSTER_LEFT' });
    expect(await leader.ended).toBe(0);
    await finished(service, 1);
  });
});

describe.skipIf(NO_ZOOKEEPER || !LONG)('protocols 7 C: ids under several leaders', () => {
  it('every checkpoint has a name of its own, and none is registered by two attempts', async () => {
    const service = await Service.held({ count: 3000 });
    let leader = await service.running(2);
    for (let kills = 0; kills < 2; kills++) {
      await leader.told('checkpoint', 3);
      leader.process.kill('SIGKILL');
      await leader.ended;
      service.start();
      leader = await service.elected(leader.epoch);
    }
    service.release();
    await service.conditions.until(() => service.replicas.some((each) => each.of('ended').length > 0));
    const ids = service.replicas.flatMap((each) => each.of('checkpoint').map(({ id }) => id));
    expect(new Set(ids).size).toBe(ids.length);
    const names = await readdir(join(service.settings.folder, 'checkpoints', 'counting', 'checkpoints'));
    expect(new Set(names).size).toBe(names.length);
    await finished(service, 2);
  });
});
