// Processes of a cluster that die one after the other: by a record that kills whoever meets it, and by what has nothing to do with the job.

import { beforeAll, describe, expect, it } from 'vitest';
import { ensureBuilt } from '../e2e/trial.ts';
import { LONG } from '../long.ts';
import { NO_ZOOKEEPER } from '../services/zookeeper.ts';
import { type Replica, Service } from './replicas.ts';

const restarts = { max: 0, within: 60_000, backoff: { initial: 10, max: 100 } };

beforeAll(ensureBuilt, 180_000);

describe.skipIf(NO_ZOOKEEPER)('workers that die one after the other', () => {
  it('by a record that kills its process end the job when there was no checkpoint between, whoever of them led, and it says so', async () => {
    const service = await Service.open({ poison: 100, every: 600_000, options: { restarts } });
    service.start();
    service.start();
    const replaced: Replica[] = [];
    const told = (): Replica | undefined => service.replicas.find((each) => each.of('ended').length > 0);
    const dead = (): Replica | undefined => service.replicas.find((each) => each.process.signalCode !== null && !replaced.includes(each));
    for (;;) {
      await service.conditions.until(() => told() !== undefined || dead() !== undefined);
      if (told() !== undefined) break;
      replaced.push(dead()!);
      service.start();
    }
    const { code, message } = await told()!.told('ended');
    expect(code).toBe('HOST_LOST');
    const lost = Number(
      /^(?:HOST_LOST: )?(\d+) workers of the job 'counting' died one after the other, and no checkpoint completed between\./.exec(message!)?.[1],
    );
    // One for each of those that there are, one or two, and one more.
    expect([2, 3], message).toContain(lost);
    expect(service.replicas.filter((each) => each.process.signalCode !== null).length).toBeGreaterThanOrEqual(lost);
  });

  it.skipIf(!LONG)('for other reasons, more often than that, end nothing while checkpoints complete between', async () => {
    const service = await Service.held({ options: { restarts, parallelism: 2 } });
    const leader = await service.running(2);
    for (let kills = 0; kills < 5; kills++) {
      await leader.told('checkpoint', leader.of('checkpoint').length + 2);
      const [killed] = service.followers().filter((each) => each.process.signalCode === null);
      killed!.process.kill('SIGKILL');
      await killed!.ended;
      await service.start().told('running');
    }
    await service.finishes(service.stayed);
    expect(leader.of('status').filter(({ status }) => status === 'restarting').length).toBeGreaterThanOrEqual(5);
  });
});
