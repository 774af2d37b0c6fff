import { join } from 'node:path';
import type { JobEvent, RunningJob, RunOptions } from 'millrace';
import { type CheckpointStorage, s3 } from 'millrace/storage';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { diffSnapshots, openSnapshot } from '../../src/checkpoint/inspect.ts';
import { repartition } from '../../src/checkpoint/repartition.ts';
import { snapshotAt } from '../../src/checkpoint/verification.ts';
import { storedCheckpoint, storedCheckpoints } from '../../src/cli/stored-checkpoints.ts';
import type { JobRun } from '../../src/execution/job-run.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { HELD, heldUntil, runHere, startHere } from '../e2e/run-here.ts';
import type { Trial } from '../e2e/trial.ts';
import { jobOf } from '../e2e/workloads.ts';
import { LONG } from '../long.ts';
import { rejection } from '../protocols/lab.ts';
import { killedAtRequests } from './killed-at-requests.ts';
import { KEYS, NO_SERVER } from './s3-server.ts';
import { S3Trials } from './s3-trials.ts';

describe.skipIf(NO_SERVER)('a job whose checkpoints lie in S3', () => {
  const trials = S3Trials.here();
  afterEach(() => vi.unstubAllEnvs());
  const storageOf = (trial: Trial): CheckpointStorage => s3(trial.settings.s3!);

  it('is killed behind the effect of a request, and finished at another parallelism: every row once, nothing left in the bucket', async () => {
    const trial = trials.trial({ pace: 20 });
    expect(await killedAtRequests(trial, trials.proxy, [{ request: 40, how: 'lose', parallelism: 2 }])).toEqual({ wrong: [], ended: false });
    await runHere(trial, { parallelism: 3, pace: 0 });
    expect(await trial.complaints()).toEqual([]);
  });

  it.runIf(LONG)('goes on while the server is gone, and takes checkpoints when it is back', async () => {
    const trial = trials.trial({ parallelism: 2, tolerate: 1000, every: 10 });
    const events: JobEvent[] = [];
    const seen = (type: JobEvent['type']): number => events.filter((event) => event.type === type).length;
    let back = 0;
    const running = await startHere(trial, { pace: heldUntil(() => back > 0 && seen('checkpoint') > back) }, (event) => void events.push(event));
    await vi.waitFor(() => expect(seen('checkpoint')).toBeGreaterThan(1), { timeout: 30_000 });
    await trials.server.kill();
    trials.proxy.cutAll();
    await vi.waitFor(() => expect(seen('checkpoint-failed')).toBeGreaterThan(1), { timeout: 30_000 });
    const failed = events.findLast((event) => event.type === 'checkpoint-failed');
    expect(failed).toMatchObject({ error: { code: 'CHECKPOINT_FAILED', retryable: true } });
    back = seen('checkpoint');
    await trials.server.up();
    expect(await running.finished).toMatchObject({ status: 'finished', restarts: 0 });
    expect(seen('checkpoint')).toBeGreaterThan(back);
    expect(await trial.complaints()).toEqual([]);
  });

  it('ends at once, with what is wrong, where another try cannot help', async () => {
    const trial = trials.trial({ every: 10 });
    let checkpoints = 0;
    const running = await startHere(trial, { pace: HELD }, (event) => {
      if (event.type === 'checkpoint' && ++checkpoints === 1)
        trials.proxy.decide = ({ method }) => (method === 'PUT' ? { status: 403, code: 'AccessDenied' } : undefined);
    });
    expect(await rejection(running.finished)).toMatchObject({ code: 'CHECKPOINT_FAILED', retryable: false, cause: { code: 'STORAGE_FORBIDDEN' } });
    trials.proxy.decide = () => undefined;
    await runHere(trial);
    expect(await trial.complaints()).toEqual([]);
  });

  it.runIf(LONG)('goes into savepoints there and elsewhere, which are looked into, made wider, claimed and restored at another parallelism', async () => {
    const trial = trials.trial({ parallelism: 2 });
    const storage = storageOf(trial);
    const start = (more: Partial<RunOptions>, pace: number | typeof HELD = 0): Promise<RunningJob> =>
      jobOf('wc', { ...trial.settings, pace }).start({ checkpoints: { directory: trial.settings.checkpoints, storage, every: 20 }, ...more });
    const first = await start({ parallelism: 2 }, HELD);
    const saved = await first.savepoint(`${storage.root}/saved`);
    expect(saved.path).toBe(`${storage.root}/saved`);
    expect(await rejection(first.savepoint(`${storage.root}/saved`))).toMatchObject({ code: 'SAVEPOINT_EXISTS' });
    const local = await first.savepoint(join(trial.folder, 'local'));
    const checkpoint = await (first as unknown as JobRun).checkpoint();
    expect(checkpoint.path).toMatch(new RegExp(`^${storage.root}/wc/checkpoints/chk-${checkpoint.id}-a1$`));
    await first.stop();

    const there = await openSnapshot(saved.path, systemIo(), storage);
    expect((await there.list()).map(({ uid, state }) => `${uid}/${state}`)).toContain('count/value');
    const here = await openSnapshot(local.path, systemIo());
    for await (const { change } of diffSnapshots(there, here, 'count')) expect(['added', 'changed']).toContain(change);

    // The command has its credentials from the environment.
    vi.stubEnv('AWS_ENDPOINT_URL_S3', trials.proxy.endpoint);
    vi.stubEnv('AWS_ACCESS_KEY_ID', KEYS.accessKeyId);
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', KEYS.secretAccessKey);
    expect((await storedCheckpoints(storage.root, 'wc')).map(({ path }) => path)).toContain(checkpoint.path);
    const latest = await storedCheckpoint(storage.root, 'wc', undefined);
    expect(await (await openSnapshot(latest, systemIo())).get('count', 'value', 'nobody says this')).toBeUndefined();
    const wider = await repartition(await snapshotAt(saved.path), `${storage.root}/wider`, 256);
    expect((await snapshotAt(wider.path)).metadata.maxParallelism).toBe(256);

    // Output of after the savepoint is another history's.
    const again = trials.trial({});
    const restored = await jobOf('wc', { ...again.settings, pace: 0 }).start({
      checkpoints: { directory: again.settings.checkpoints, storage: storageOf(again), every: 20 },
      parallelism: 3,
      restore: { from: wider.path, claim: true },
    });
    expect(await restored.finished).toMatchObject({ status: 'finished' });
    expect(await trials.server.objects(`${trial.settings.s3!.prefix}/wider`)).toEqual([]);
    expect(await trials.server.objects(`${trial.settings.s3!.prefix}/saved`)).not.toEqual([]);
    expect(again.output()).toBe(again.input.expected.final);
    expect(await again.leftovers()).toEqual([]);
  });

  it('whose directory is lost goes on from them by their address', async () => {
    const trial = trials.trial({ parallelism: 2 });
    const running = await startHere(trial, { pace: HELD });
    await (running as unknown as JobRun).checkpoint();
    const { checkpoint } = await running.stop();
    const moved = { ...trial.settings, checkpoints: join(trial.folder, 'another machine') };
    const start = (restore?: RunOptions['restore']): Promise<RunningJob> =>
      jobOf('wc', { ...moved, pace: 0 }).start({
        checkpoints: { directory: moved.checkpoints, storage: storageOf(trial) },
        parallelism: 3,
        ...(restore === undefined ? {} : { restore }),
      });
    expect(await rejection(start())).toMatchObject({ code: 'CHECKPOINT_DIRECTORY', message: expect.stringContaining(checkpoint!.path) });
    await (await start({ from: checkpoint!.path })).finished;
    expect(trial.output()).toBe(trial.input.expected.final);
  });

  it('does not start where it may not write, and says so', async () => {
    const trial = trials.trial({ s3: { ...trials.place(), bucket: 'nobodys' } });
    expect(await rejection(startHere(trial))).toMatchObject({ code: 'STORAGE_NO_BUCKET', retryable: false });
  });
});
