import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ensureBuilt, FOUR, Input, Trial } from '../e2e/trial.ts';
import { LONG } from '../long.ts';
import type { ThreadSettings } from './thread-process.ts';
import { type Ended, endOf } from './trial-process.ts';

const program = fileURLToPath(new URL('./thread-process.ts', import.meta.url));
const typescript = fileURLToPath(new URL('../../scripts/typescript.mjs', import.meta.url));

interface Said {
  readonly status: string;
  readonly checkpoints: number;
  readonly restarts: readonly string[];
  readonly restoredFrom?: number;
}

function inThreads(trial: Trial, settings: Partial<ThreadSettings>, faults = ''): Promise<Ended<Said>> {
  return endOf(['--import', typescript, program], { ...trial.settings, threads: 2, parallelism: 2, ...settings }, faults);
}

beforeAll(ensureBuilt, 180_000);

describe.each(LONG ? (['wc', 'cpu', 'q4'] as const) : (['wc'] as const))('%s in threads', (workload) => {
  const input = new Input(workload, { records: 20_000, files: FOUR });
  afterAll(() => input.remove());

  it.each(LONG ? [1, 2, 3] : [])('gives what it gives in one, in %i threads', async (threads) => {
    const trial = new Trial(input, { backend: 'level' });
    expect(await inThreads(trial, { threads, parallelism: 3 })).toMatchObject({ code: 0, said: { status: 'finished', restarts: [] } });
    expect(await trial.complaints()).toEqual([]);
    trial.remove();
  });

  it.each(
    (
      [
        ['exits', 'HOST_LOST'],
        ['throws', 'USER_FUNCTION_FAILED'],
        ['fails outside', 'HOST_LOST'],
      ] as const
    ).slice(0, LONG ? 3 : 1),
  )('gives the same when one of its functions %s in the middle', async (how, code) => {
    const trial = new Trial(input, { pace: 20, every: 10 });
    const crash = { at: 1500, how, mark: join(trial.folder, 'crashed') };
    expect(await inThreads(trial, { crash })).toMatchObject({ code: 0, said: { status: 'finished', restarts: [code] } });
    expect(await trial.complaints()).toEqual([]);
    trial.remove();
  });

  it.runIf(LONG)('gives the same when the process is killed, and goes on in one thread, and in three', async () => {
    const trial = new Trial(input, { backend: 'level', pace: 20, every: 10 });
    expect((await inThreads(trial, {}, 'sink.commit=kill')).signal).toBe('SIGKILL');
    expect((await inThreads(trial, { threads: 0, parallelism: 1 }, 'restore.committed=kill')).signal).toBe('SIGKILL');
    expect(await inThreads(trial, { threads: 3, parallelism: 4, pace: 0 })).toMatchObject({ code: 0, said: { status: 'finished' } });
    expect(await trial.complaints()).toEqual([]);
    trial.remove();
  });
});
