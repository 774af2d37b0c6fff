// Jobs whose checkpoints lie in S3, killed again and again at requests to it, and a server that fails at random: for hours, if you like (MILLRACE_S3_ROUNDS).

import { storageConformance } from 'millrace/testing';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { S3Storage } from '../../src/storage/s3.ts';
import { slowUntil, startHere } from '../e2e/run-here.ts';
import { ensureBuilt, Input, Trial } from '../e2e/trial.ts';
import { Random, SEED } from '../random.ts';
import { FaultyProxy } from '../storage/faulty-proxy.ts';
import { type KillAt, killedAtRequests } from '../storage/killed-at-requests.ts';
import { KEYS, NO_SERVER, S3Server } from '../storage/s3-server.ts';

const ASKED_FOR = process.env.npm_lifecycle_event === 'test:chaos' || process.env.MILLRACE_S3_ROUNDS !== undefined;
const ROUNDS = Number(process.env.MILLRACE_S3_ROUNDS ?? 20);

describe.skipIf(NO_SERVER || !ASKED_FOR)('S3, for longer', () => {
  let server: S3Server;
  let proxy: FaultyProxy;
  let input: Input;
  beforeAll(async () => {
    ensureBuilt();
    input = new Input('wc', { records: 20_000, files: [0.5, 0.3, 0.2] });
    server = await S3Server.start();
    proxy = await FaultyProxy.start(server);
  }, 180_000);
  afterAll(async () => {
    await proxy.close();
    await server.close();
    input.remove();
  });
  afterEach(() => {
    proxy.decide = () => undefined;
  });

  let trials = 0;
  const trialWith = (settings: object): Trial => {
    trials += 1;
    const s3 = { bucket: server.bucket, prefix: `long-${trials}`, endpoint: proxy.endpoint, credentials: KEYS, retries: 2, backoff: { initial: 1, max: 5 } };
    const trial = new Trial(input, { every: 5, s3, ...settings });
    onTestFinished(() => trial.remove());
    return trial;
  };

  it(
    `${ROUNDS} rounds of kills at requests, seed ${SEED}: every row once, nothing left in the bucket`,
    async () => {
      const random = new Random(SEED);
      for (let round = 0; round < ROUNDS; round++) {
        const trial = trialWith({ pace: 20, backend: random.next() < 0.5 ? 'memory' : 'level' });
        const kills: KillAt[] = Array.from({ length: 2 }, () => ({
          request: 1 + Math.floor(random.next() * 120),
          how: random.next() < 0.5 ? 'refuse' : 'lose',
          parallelism: 1 + Math.floor(random.next() * 3),
        }));
        const said = JSON.stringify({ round, kills });
        const { wrong } = await killedAtRequests(trial, proxy, kills);
        expect(wrong, said).toEqual([]);
        await trial.finish({ parallelism: 4 });
        expect(await trial.complaints(), said).toEqual([]);
      }
    },
    ROUNDS * 60_000,
  );

  it('is restarted from them where too many fail, and still gives every row once', async () => {
    const trial = trialWith({ parallelism: 2, every: 10 });
    let checkpoints = 0;
    let restarts = 0;
    const running = await startHere(trial, { pace: slowUntil(() => restarts > 0) }, (event) => {
      if (event.type === 'checkpoint') checkpoints += 1;
      // The next request of the next checkpoint fails, and what is tried again of it.
      if (event.type === 'checkpoint' && checkpoints === 2) proxy.decide = ({ method }) => (method === 'PUT' ? { status: 503, code: 'SlowDown' } : undefined);
      if (event.type === 'restart') {
        restarts += 1;
        proxy.decide = () => undefined;
      }
    });
    const { restarts: counted } = await running.finished;
    expect(counted).toBeGreaterThan(0);
    expect(await trial.complaints()).toEqual([]);
  });

  it('is restarted again and again where the server fails at random, and still gives every row once', async () => {
    const random = new Random(SEED);
    const trial = trialWith({ parallelism: 3, every: 10, tolerate: 2 });
    let requests = 0;
    proxy.decide = () => {
      requests += 1;
      // What a start needs goes through; then one in eight fails.
      if (requests < 20 || random.next() > 0.125) return undefined;
      return (['refuse', 'lose', { status: 503, code: 'SlowDown' }, { status: 500 }] as const)[Math.floor(random.next() * 4)];
    };
    const running = await startHere(trial, { pace: 5 });
    // Also the end needs the storage.
    const { status } = await running.finished;
    expect(status).toBe('finished');
    proxy.decide = () => undefined;
    expect(await trial.complaints()).toEqual([]);
  }, 300_000);

  const [many] = storageConformance(() => new S3Storage({ bucket: server.bucket, prefix: 'many', endpoint: server.endpoint, credentials: KEYS }, {}), {
    manyFiles: 1205,
  }).filter(({ name }) => name.includes('many files'));
  it(`${many!.name}: 1,205 of them, in two pages of a list`, many!.run, 300_000);
});
