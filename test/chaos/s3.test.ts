// Jobs whose checkpoints lie in S3, killed again and again at requests to it, and a server that fails at random: for hours, if you like (MILLRACE_S3_ROUNDS).

import { storageConformance } from 'millrace/testing';
import { describe, expect, it } from 'vitest';
import { S3Storage } from '../../src/storage/s3.ts';
import { heldUntil, startHere } from '../e2e/run-here.ts';
import { Random, SEED } from '../random.ts';
import { type KillAt, killedAtRequests } from '../storage/killed-at-requests.ts';
import { KEYS, NO_SERVER } from '../storage/s3-server.ts';
import { S3Trials } from '../storage/s3-trials.ts';

const ASKED_FOR = process.env.npm_lifecycle_event === 'test:chaos' || process.env.MILLRACE_S3_ROUNDS !== undefined;
const ROUNDS = Number(process.env.MILLRACE_S3_ROUNDS ?? 20);

describe.skipIf(NO_SERVER || !ASKED_FOR)('S3, for longer', () => {
  const trials = S3Trials.here();

  it(
    `${ROUNDS} rounds of kills at requests, seed ${SEED}: every row once, nothing left in the bucket`,
    async () => {
      const random = new Random(SEED);
      for (let round = 0; round < ROUNDS; round++) {
        const trial = trials.trial({ pace: 20, backend: random.next() < 0.5 ? 'memory' : 'level' });
        const kills: KillAt[] = Array.from({ length: 2 }, () => ({
          request: 1 + Math.floor(random.next() * 120),
          how: random.next() < 0.5 ? 'refuse' : 'lose',
          parallelism: 1 + Math.floor(random.next() * 3),
        }));
        const said = JSON.stringify({ round, kills });
        const { wrong } = await killedAtRequests(trial, trials.proxy, kills);
        expect(wrong, said).toEqual([]);
        await trial.finish({ parallelism: 4 });
        expect(await trial.complaints(), said).toEqual([]);
      }
    },
    ROUNDS * 60_000,
  );

  it('is restarted from them where too many fail, and still gives every row once', async () => {
    const trial = trials.trial({ parallelism: 2, every: 10 });
    let checkpoints = 0;
    let restarts = 0;
    const running = await startHere(trial, { pace: heldUntil(() => restarts > 0) }, (event) => {
      if (event.type === 'checkpoint') checkpoints += 1;
      // The next request of the next checkpoint fails, and what is tried again of it.
      if (event.type === 'checkpoint' && checkpoints === 2)
        trials.proxy.decide = ({ method }) => (method === 'PUT' ? { status: 503, code: 'SlowDown' } : undefined);
      if (event.type === 'restart') {
        restarts += 1;
        trials.proxy.decide = () => undefined;
      }
    });
    const { restarts: counted } = await running.finished;
    expect(counted).toBeGreaterThan(0);
    expect(await trial.complaints()).toEqual([]);
  });

  it('is restarted again and again where the server fails at random, and still gives every row once', async () => {
    const random = new Random(SEED);
    const trial = trials.trial({ parallelism: 3, every: 10, tolerate: 2 });
    let requests = 0;
    trials.proxy.decide = () => {
      requests += 1;
      // What a start needs goes through; then one in eight fails.
      if (requests < 20 || random.next() > 0.125) return undefined;
      return (['refuse', 'lose', { status: 503, code: 'SlowDown' }, { status: 500 }] as const)[Math.floor(random.next() * 4)];
    };
    const running = await startHere(trial, { pace: 5 });
    // Also the end needs the storage.
    const { status } = await running.finished;
    expect(status).toBe('finished');
    trials.proxy.decide = () => undefined;
    expect(await trial.complaints()).toEqual([]);
  }, 300_000);

  const [many] = storageConformance(
    () => new S3Storage({ bucket: trials.server.bucket, prefix: 'many', endpoint: trials.server.endpoint, credentials: KEYS }, {}),
    {
      manyFiles: 1205,
    },
  ).filter(({ name }) => name.includes('many files'));
  it(`${many!.name}: 1,205 of them, in two pages of a list`, many!.run, 300_000);
});
