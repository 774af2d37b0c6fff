import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { filesIn, leftBehind, type Outcome, ofEachSort, trial } from '../checkpoint/damage.ts';
import { Random, SEED } from '../random.ts';

// Not in npm test. A bit of every byte of a file of each sort, of large ones of some hundred bytes.
const ASKED_FOR = process.env.npm_lifecycle_event === 'test:chaos' || process.env.MILLRACE_DAMAGE !== undefined;
const BYTES = Number(process.env.MILLRACE_DAMAGE ?? 300);

it.runIf(ASKED_FOR).each([
  ['memory', true],
  ['level', false],
] as const)(
  'whatever byte of a file is damaged, a restore gives the same outputs or is refused with its name: %s(), committed: %s',
  { timeout: 7_200_000 },
  async (backend, committed) => {
    const fixture = await leftBehind(backend, committed);
    const random = new Random(SEED);
    const outcomes = new Map<Outcome, number>();
    for (const name of ofEachSort(await filesIn(fixture.folder), random)) {
      const { size } = await stat(join(fixture.folder, name));
      for (let n = 0; n < Math.min(size, BYTES); n++) {
        const byte = size <= BYTES ? n : random.below(size);
        const outcome = await trial(fixture, name, { kind: 'flip', byte, bit: random.below(8) }, random).catch((cause: unknown) => {
          throw new Error(`seed ${SEED}: ${(cause as Error).message}`, { cause });
        });
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      }
    }
    console.log(`Damaged files, ${backend}(): ${JSON.stringify([...outcomes])}, seed ${SEED}.`);
    await fixture.remove();
    expect(outcomes.get('refused')).toBeGreaterThan(0);
    if (committed) expect(outcomes.get('fell back')).toBeUndefined();
  },
);
