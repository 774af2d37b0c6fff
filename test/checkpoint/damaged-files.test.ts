import { stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { LONG } from '../long.ts';
import { Random, rounds, SEED } from '../random.ts';
import { damageOf, type Fixture, filesIn, leftBehind, type Outcome, ofEachSort, trial } from './damage.ts';

// A file of each sort and one damage of it, of every second sort (in short of every fourth), of the registry each; test/chaos/damaged-files.test.ts has every byte of small files.
describe.each(
  (
    [
      ['memory', true],
      ['level', false],
    ] as const
  ).slice(0, LONG ? 2 : 1),
)('a checkpoint directory that was written with %s(), its newest checkpoint committed: %s', (backend, committed) => {
  let fixture: Fixture | undefined;
  afterAll(() => fixture?.remove());

  it('gives the outputs of an undamaged one, or is refused with a code and the name of the file, whatever file of it is damaged', async () => {
    fixture = await leftBehind(backend, committed);
    const outcomes = new Map<Outcome, number>();
    const files = await filesIn(fixture.folder);
    for (let seed = SEED; seed < SEED + rounds(1); seed++) {
      const random = new Random(seed);
      for (const name of ofEachSort(files, random)) {
        if (random.below(LONG ? 2 : 4) > 0 && !name.includes('registry')) continue;
        const { size } = await stat(join(fixture.folder, name));
        const beside = files.filter((other) => other !== name && dirname(other) === dirname(name));
        const outcome = await trial(fixture, name, damageOf(random, size, beside), random).catch((cause: unknown) => {
          throw new Error(`seed ${seed}: ${(cause as Error).message}`, { cause });
        });
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      }
    }
    expect(outcomes.get('refused')).toBeGreaterThan(0);
    // Where sinks have committed past the checkpoint before, nothing may fall back to it.
    if (committed) expect(outcomes.get('fell back')).toBeUndefined();
  });
});
