// Protocols 21 with real processes: replicas of two versions of a program in one cluster. Which version takes over when is decided in src/cluster/versions.ts, whose tables
// stand in test/cluster/versions.test.ts.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { type Replica, Service } from '../cluster/replicas.ts';
import { ensureBuilt } from '../e2e/trial.ts';
import { LONG } from '../long.ts';
import { NO_ZOOKEEPER } from '../services/zookeeper.ts';

const OLD = { options: { version: '1' } };
const NEW = { options: { version: '2' } };
/** Has no room for the job before there are two of it. */
const NEW_AND_WIDE = { options: { version: '2', parallelism: 2 } };
/** Cannot go on from what the old one has stored. */
const INCOMPATIBLE = { ...NEW, uid: 'tallies' };

function said(replica: Replica, text: RegExp): boolean {
  return replica.of('log').some((line) => text.test(line.text));
}

/** The old version runs the job, and has stored something of it. */
async function incompatibleJoins(service: Service): Promise<{ readonly old: Replica; readonly other: Replica }> {
  const old = service.start(OLD);
  await old.told('checkpoint', 3);
  const other = service.start(INCOMPATIBLE);
  await other.told('running');
  return { old, other };
}

beforeAll(ensureBuilt, 180_000);

describe.skipIf(NO_ZOOKEEPER)('protocols 21 A: a rolling upgrade waits for nobody', () => {
  it('a replica of another version is ready while the job runs without it; with slots enough its version takes over behind a last checkpoint', async () => {
    const service = await Service.held();
    const old = service.start(OLD);
    await old.told('checkpoint', 3);
    const first = service.start(NEW_AND_WIDE);
    await first.told('running');
    const before = old.of('checkpoint').length;
    await old.told('checkpoint', before + 3);
    expect(service.leader()).toBe(old);
    expect(said(first, /stands by/)).toBe(true);
    expect(said(old, /takes over/)).toBe(false);
    const second = service.start(NEW_AND_WIDE);
    const next = await service.elected(old.epoch);
    expect([first, second]).toContain(next);
    const last = old.of('checkpoint').length;
    await next.told('checkpoint', 2);
    // The old one stands by: told how the job goes on, and no part of it.
    await service.finishes([old, first, second]);
    expect(old.of('checkpoint').length).toBe(last);
    expect(next.of('checkpoint')[0]!.id).toBeGreaterThan(old.of('checkpoint').at(-1)!.id);
  });

  it('a version that cannot go on from the checkpoint does not take over, and both say why', async () => {
    const service = await Service.held();
    const { old, other } = await incompatibleJoins(service);
    await service.conditions.until(
      () => said(old, /cannot take over, and this one goes on: counts: /) && said(other, /cannot take over, and stands by: counts: /),
    );
    await old.told('checkpoint', old.of('checkpoint').length + 3);
    expect(other.of('checkpoint')).toEqual([]);
    await service.finishes([old, other]);
  });

  it.skipIf(!LONG)('before there is a checkpoint one is taken, which the other version then cannot go on from', async () => {
    const service = await Service.held();
    const old = service.start({ ...OLD, every: 1e9 });
    await old.told('running');
    const other = service.start({ ...INCOMPATIBLE, every: 1e9 });
    await other.told('running');
    await service.conditions.until(() => said(old, /cannot take over, and this one goes on/));
    expect([old.of('checkpoint').length, other.of('checkpoint').length]).toEqual([1, 0]);
    await service.finishes([old, other]);
  });

  it.skipIf(!LONG)('a version that cannot start where the old one ended gives the job back, says why, and is not given it again', async () => {
    const service = await Service.held();
    writeFileSync(join(service.settings.folder, 'no-folder'), '');
    const old = service.start(OLD);
    await old.told('checkpoint', 3);
    const other = service.start({ ...NEW, output: 'no-folder/out' });
    await service.conditions.until(() => said(other, /cannot start where the other one ended, which goes on/));
    const again = await service.elected(other.epoch);
    expect(again).toBe(old);
    await old.told('checkpoint', old.of('checkpoint').length + 5);
    expect(service.leader()).toBe(old);
    expect(other.of('leads').length).toBe(1);
    await service.finishes([old, other]);
  });

  it.skipIf(!LONG)('a leader that is told to end hands the job to the other version where its own has no room without it', async () => {
    const service = await Service.held({ sessionTimeout: 30_000 });
    // The newer one is there first: it would not be given the job but for the leader's end.
    const waiting = service.start(NEW_AND_WIDE);
    await waiting.told('leads');
    const second = service.start(NEW_AND_WIDE);
    await second.told('running');
    const older = service.start(OLD);
    await older.told('running');
    const leader = await service.elected(waiting.epoch);
    expect(leader).toBe(older);
    await older.told('checkpoint', 2);
    older.process.kill('SIGTERM');
    expect(await older.told('ended')).toMatchObject({ code: 'CLUSTER_LEFT' });
    expect(await older.ended).toBe(0);
    const next = await service.elected(leader.epoch);
    expect([waiting, second]).toContain(next);
    await service.finishes([waiting, second]);
  });

  it.skipIf(!LONG)('a leader that is killed is followed by one of its version, whoever stands first; the last of them by the other version', async () => {
    const service = await Service.held();
    const first = service.start(OLD);
    await first.told('checkpoint', 2);
    const other = service.start(NEW_AND_WIDE);
    await other.told('running');
    const second = service.start(OLD);
    await second.told('running');
    first.process.kill('SIGKILL');
    expect(await service.elected(first.epoch)).toBe(second);
    await second.told('checkpoint', 2);
    second.process.kill('SIGKILL');
    expect(await service.elected(second.epoch)).toBe(other);
    await service.conditions.until(() => said(other, /goes on with this one/));
    const another = service.start(NEW_AND_WIDE);
    await another.told('running');
    await service.finishes([other, another]);
  });

  it.skipIf(!LONG)(
    'where nobody has the old version any more and the new one cannot go on, the job stands still, says why, and goes on when the old one is back',
    async () => {
      const service = await Service.held();
      const { old, other } = await incompatibleJoins(service);
      old.process.kill('SIGKILL');
      await service.conditions.until(() => said(other, /stands still/));
      expect(other.of('checkpoint')).toEqual([]);
      const back = service.start(OLD);
      await back.told('running');
      expect(service.leader()).toBe(back);
      await service.finishes([back, other]);
    },
  );

  it.skipIf(!LONG)('a job that stands still goes on with a version that can, and can be cancelled', async () => {
    const service = await Service.held();
    const { old, other } = await incompatibleJoins(service);
    old.process.kill('SIGKILL');
    await service.conditions.until(() => said(other, /stands still/));
    const third = service.start({ options: { version: '3' } });
    await third.told('running');
    expect(service.leader()).toBe(third);
    await third.told('checkpoint', 2);
    third.process.kill('SIGKILL');
    await service.conditions.until(() => other.of('log').filter(({ text }) => /stands still/.test(text)).length === 2);
    expect(await other.asks('cancel')).toMatchObject({ kind: 'answer', value: { status: 'cancelled' } });
    expect((await other.told('ended')).result).toMatchObject({ status: 'cancelled' });
  });
});

describe.skipIf(NO_ZOOKEEPER)('protocols 21 B: equal plans, other code', () => {
  it('a replica whose module differs in a constant alone runs no part of the job beside the others', async () => {
    const service = await Service.held();
    const moduleOf = (factor: number): { options: { module: string } } => {
      const path = join(service.settings.folder, `program-${factor}.ts`);
      writeFileSync(path, `export default job('counting', (env) => env.source('in', numbers).map((v) => v * ${factor}));\n`);
      return { options: { module: path } };
    };
    const wide = (factor: number): { options: { module: string; parallelism: number } } => ({ options: { ...moduleOf(factor).options, parallelism: 2 } });
    const first = service.start(wide(1));
    const second = service.start(wide(2));
    await Promise.all([first.told('log'), second.told('log')]);
    const leader = await service.elected(0);
    await service.conditions.until(() => said(leader, /needs 2 slots and waits for workers: 1 are there/));
    const third = service.start(wide(leader === first ? 1 : 2));
    await Promise.all([first, second, third].map((each) => each.told('running')));
    expect(service.leader()).toBe(leader);
    await service.finishes([first, second, third]);
  });
});
