import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { LONG } from '../long.ts';
import { HELD, startHere } from './run-here.ts';
import { FOUR, Input, Trial } from './trial.ts';

// One savepoint, taken at parallelism 1 with memory(); goes on with each backend, from a copy of what was published then, at parallelism 4, and from a savepoint of
// that at 3.
describe.each(LONG ? (['wc', 'cpu', 'q4', 'q5'] as const) : (['wc', 'q5'] as const))('%s', (workload) => {
  const input = new Input(workload, { records: 16_000, files: FOUR });
  afterAll(() => input.remove());

  /** Stops with a savepoint behind the first checkpoint. */
  async function saved(trial: Trial, parallelism: number, restore?: string): Promise<string> {
    const folder = join(trial.folder, `saved-${parallelism}`);
    let stopping = false;
    const settings = { parallelism, pace: HELD, ...(restore === undefined ? {} : { restore }) };
    const running = await startHere(trial, settings, (event) => {
      if (event.type !== 'checkpoint' || stopping) return;
      stopping = true;
      setImmediate(() => void running.stop({ savepoint: folder }));
    });
    const { status, savepoint } = await running.finished;
    expect({ status, savepoint: savepoint?.path }).toEqual({ status: 'stopped', savepoint: folder });
    return folder;
  }

  it('gives the same from one savepoint with memory() and with level(), at parallelism 1, then 4, then 3', async () => {
    const first = new Trial(input, { backend: 'memory', every: 20 });
    const savepoint = await saved(first, 1);
    const outputs = new Map<string, string>();
    for (const backend of ['memory', 'level'] as const) {
      const trial = new Trial(input, { backend, every: 20, cacheBytes: 1 << 14 });
      cpSync(first.settings.output, trial.settings.output, { recursive: true });
      const second = await saved(trial, 4, savepoint);
      const running = await startHere(trial, { parallelism: 3, restore: second });
      expect((await running.finished).status).toBe('finished');
      expect(await trial.complaints()).toEqual([]);
      outputs.set(backend, trial.output());
      trial.remove();
    }
    expect(outputs.get('level') === outputs.get('memory')).toBe(true);
    first.remove();
  });
});
