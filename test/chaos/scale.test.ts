// Not in npm test. npm run test:chaos: a job that runs with as many instances as there are slots, while workers come, leave and flap. The waits of elasticity
// (src/cluster/elasticity.ts) are the real ones.

import { beforeAll, expect, it } from 'vitest';
import { type Replica, Service } from '../cluster/replicas.ts';
import { ensureBuilt } from '../e2e/trial.ts';
import { NO_ZOOKEEPER } from '../services/zookeeper.ts';

const ASKED_FOR = process.env.npm_lifecycle_event === 'test:chaos' || process.env.MILLRACE_SCALE_CHAOS !== undefined;
const FLAPS = 10;

beforeAll(() => {
  if (ASKED_FOR) ensureBuilt();
}, 180_000);

/** What leaders have said of rescales. */
function rescales(service: Service): string[] {
  return service.replicas.flatMap((replica) => replica.of('log')).flatMap(({ text }) => (/ is rescaled from \d+ to \d+ /.test(text) ? [text] : []));
}

async function rescaled(service: Service, leader: Replica, from: number, to: number): Promise<number> {
  const text = new RegExp(` is rescaled from ${from} to ${to} `);
  await service.conditions.until(() => rescales(service).some((said) => text.test(said)));
  const begun = Date.now();
  const running = (): number => leader.of('status').filter(({ status }) => status === 'running').length;
  const before = running();
  await service.conditions.until(() => running() > before);
  return Date.now() - begun;
}

it.runIf(ASKED_FOR && !NO_ZOOKEEPER)(
  'from one worker to three, to two, and with one that flaps: every row once, and few rescales',
  { timeout: 600_000 },
  async () => {
    const service = await Service.held({ count: 24_000, pause: 40, options: { parallelism: { min: 1, max: 3 }, restarts: { max: 100, within: 600_000 } } });
    const leader = service.start();
    await leader.told('running');
    const [second, third] = [service.start(), service.start()];
    const up = await rescaled(service, leader, 1, 3);
    await Promise.all([second.told('running'), third.told('running')]);
    // In order: behind a last checkpoint it is given no tasks any more.
    const begun = Date.now();
    const running = leader.of('status').filter(({ status }) => status === 'running').length;
    third.process.kill('SIGTERM');
    await leader.told('status', leader.of('status').length + 1);
    await service.conditions.until(() => leader.of('status').filter(({ status }) => status === 'running').length > running);
    const down = Date.now() - begun;
    await third.ended;
    const before = rescales(service).length;
    for (let flap = 0; flap < FLAPS; flap++) {
      const flapping = service.start();
      await flapping.told('running');
      flapping.process.kill('SIGKILL');
      await flapping.ended;
    }
    const caused = rescales(service).length - before;
    service.release();
    const ends = await Promise.all([leader.told('ended'), second.told('ended')]);
    expect(ends.map(({ result }) => (result as { status: string }).status)).toEqual(['finished', 'finished']);
    expect(await service.complaints()).toEqual([]);
    console.log(
      `Rescaled from 1 to 3 in ${up} ms, from 3 to 2 in ${down} ms, from the decision until all tasks run; ${FLAPS} flaps caused ${caused} rescales.`,
    );
    expect(caused).toBeLessThanOrEqual(2);
  },
);
