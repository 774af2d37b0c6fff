import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ensureBuilt, FOUR, Input, Trial } from '../e2e/trial.ts';
import { LONG } from '../long.ts';
import type { Death } from './dying-job.ts';
import { dying } from './dying-threads.ts';

beforeAll(ensureBuilt, 180_000);
const words = new Input('wc', { records: 20_000, files: FOUR });
const metrics = new Input('cpu', { records: 20_000, files: FOUR });
afterAll(() => {
  words.remove();
  metrics.remove();
});

it.runIf(LONG)('threads that end while LevelDB writes for them take no process down; the job goes on from its checkpoints', async () => {
  const trial = new Trial(words, { backend: 'level', pace: 100, every: 10 });
  const deaths: Death[] = ['exits', 'fails outside', 'has no memory left', 'exits', 'fails outside', 'has no memory left', 'exits'];
  const { code, signal, said, errors } = await dying(trial, { deaths, at: 200 });
  expect({ code, signal, errors: said === undefined ? errors : '' }).toEqual({ code: 0, signal: null, errors: '' });
  expect(said!.status).toBe('finished');
  expect(new Set(said!.restarts.map((restart) => restart.code))).toEqual(new Set(['HOST_LOST']));
  // Each of them has happened. Two at the same time cost one restart.
  expect(deaths.map((_, index) => existsSync(join(trial.folder, `died-${index}`)))).toEqual(deaths.map(() => true));
  expect(trial.wrongRows()).toEqual([]);
  trial.remove();
});

it.runIf(LONG)('a thread that hangs in a function of the job is ended, and the error names the operator, the place, the key and the record', async () => {
  const trial = new Trial(metrics, { pace: 20, every: 10 });
  const { said, errors } = await dying(trial, { deaths: ['hangs'], stallMs: 3000 });
  expect(said, errors).toMatchObject({ status: 'finished', restarts: [{ code: 'HOST_LOST', uid: 'averages' }] });
  expect(said!.restarts[0]!.message).toMatch(
    /thread-\d of this process gave no sign of life for 3 s: the operator 'averages' \(averages-\d\) hangs in die \(dying-job.ts:\d+\), key "host-\d+", record \{"type":"metric","host":"host-\d+",/,
  );
  expect(await trial.complaints()).toEqual([]);
  trial.remove();
});

it.runIf(LONG)('a thread that hangs where nobody can look is ended all the same', async () => {
  const trial = new Trial(metrics, { pace: 20, every: 10 });
  const { said, errors } = await dying(trial, { deaths: ['hangs in native code'], stallMs: 3000 });
  expect(said, errors).toMatchObject({ status: 'finished', restarts: [{ code: 'HOST_LOST' }] });
  expect(said!.restarts[0]!.message).toContain('gave no sign of life for 3 s');
  expect(await trial.complaints()).toEqual([]);
  trial.remove();
});
