import { cp, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { level, type RunOptions } from 'millrace';
import { describe, expect, it } from 'vitest';
import { VERIFY } from '../../src/api/job.ts';
import type { Verdict } from '../../src/checkpoint/verify.ts';
import { checkpointsIn, temporaryFolder } from '../protocols/lab.ts';
import { type Entry, FIRST, SECOND, storedProgram } from './stored-program.ts';

const SAVEPOINTS = new URL('../data/savepoints', import.meta.url).pathname;
const formats = await readdir(SAVEPOINTS);

async function* all(): AsyncGenerator<Entry> {
  yield* FIRST;
  yield* SECOND;
}
const places = () => ({ told: [] as unknown[], sums: [] as unknown[], raw: [] as unknown[], lists: [] as unknown[] });

describe.each(formats)('the savepoint of %s', (format) => {
  it.each([
    ['memory', 2],
    ['memory', 1],
    ['level', 3],
  ])('is restored into %s at parallelism %i, with all that it held', async (backend, parallelism) => {
    const folder = await temporaryFolder();
    const saved = join(folder, 'saved');
    await cp(join(SAVEPOINTS, format), saved, { recursive: true });
    const into = places();
    const state: Pick<RunOptions, 'state'> = backend === 'level' ? { state: level({ directory: join(folder, 'state') }) } : {};
    const result = await storedProgram(all, into).run({ parallelism, checkpoints: checkpointsIn(folder), restore: { from: saved }, ...state });
    expect(result.status).toBe('finished');
    // What the sink had not committed, and then what came.
    expect(into.raw).toHaveLength(FIRST.length + SECOND.length);
    expect(into.raw).toEqual(expect.arrayContaining([...FIRST, ...SECOND]));
    const big = (n: number): string => `n${n}=${BigInt(n) ** 70n}`;
    const told = into.told as { key: string; at: number }[];
    expect(told.filter(({ key }) => key === 'ada').sort((a, b) => a.at - b.at)).toEqual([
      { key: 'ada', at: 21_000, last: 5, since: 1000, all: [1, 3, 5], by: [big(1), big(3), big(5)], total: 9 },
      { key: 'ada', at: 23_000, last: 5, since: 1000, all: [1, 3, 5], by: [big(1), big(3), big(5)], total: 9 },
      { key: 'ada', at: 33_000, last: 5, since: 1000, all: [1, 3, 5], by: [big(1), big(3), big(5)], total: 9 },
    ]);
    expect(told.map(({ key, at }) => `${key} ${at}`).sort()).toEqual(
      ['ada 21000', 'ada 23000', 'ada 33000', 'bob 22000', 'bob 34000', 'é\u{1f600} 24000', 'é\u{1f600} 60000'].sort(),
    );
    const sums = (into.sums as { key: string; start: number; value: number }[]).map(({ key, start, value }) => `${key} ${start} ${value}`);
    expect(sums.sort()).toEqual(['ada 0 4', 'ada 10000 4', 'bob 0 2', 'bob 10000 6', 'é\u{1f600} 0 4', 'é\u{1f600} 40000 7'].sort());
    const lists = into.lists as { mine: number[]; all: string[] }[];
    expect(lists.flatMap(({ mine }) => mine).sort()).toEqual([...FIRST, ...SECOND].map(({ n }) => n).sort());
    // An instance without a split had ended before, with nothing.
    const names = lists.map(({ all: each }) => each).sort((a, b) => b.length - a.length)[0];
    expect(names).toEqual(expect.arrayContaining(FIRST.map(({ key }) => key)));
  });

  it('is what its program takes over, state by state', async () => {
    const verify = (storedProgram(all, places()) as unknown as { [VERIFY](options: RunOptions, path: string): Promise<Verdict> })[VERIFY];
    const { states, takesOver } = await verify({}, join(SAVEPOINTS, format));
    expect(takesOver).toBe(true);
    expect(states.map(({ uid, state, outcome }) => `${uid} ${state ?? '*'} ${outcome}`)).toEqual([
      'holding all kept',
      'holding by kept',
      'holding last kept',
      'holding since kept',
      'holding total kept',
      'lists all kept',
      'lists mine kept',
      'sums * kept',
    ]);
  });
});

describe('the newest format', () => {
  it('has a savepoint here', async () => {
    const versions = await Promise.all(formats.map(async (format) => (await readFile(join(SAVEPOINTS, format, 'metadata'))).readUInt8(4)));
    expect(Math.max(...versions)).toBe(1);
  });
});
