// split: each record goes to the first branch that wants it, whatever stands behind the branches and whether or not it runs in the same task.

import { job, type Stream, type } from 'millrace';
import { collect } from 'millrace/connectors';
import { crashMarker, harness, runJob } from 'millrace/testing';
import { describe, expect, it } from 'vitest';

const RECORDS = [1, 2, 3, 6, 9, 11, 13, 12, -4];
const BRANCHES = { even: (n: number) => n % 2 === 0, threes: (n: number) => n % 3 === 0, large: (n: number) => n > 10 };
const EXPECTED = { even: [2, 6, 12, -4], threes: [3, 9], large: [11, 13] };

type Behind = (branch: Stream<number>) => Stream<number>;
const BEHIND: Record<string, Behind> = {
  nothing: (branch) => branch,
  'a map': (branch) => branch.map((n) => n),
  'a filter': (branch) => branch.filter(() => true),
  'a flatMap': (branch) => branch.flatMap((n) => [n]),
  'a process': (branch) => branch.process('pass', { emits: type<number>(), onRecord: (n, ctx) => ctx.emit(n) }),
  'another split': (branch) => branch.split({ all: () => true }).all.map((n) => n),
  'a stage of its own': (branch) => branch.map((n) => n).chain('never'),
  'an exchange': (branch) => branch.rebalance().map((n) => n),
};

describe('split', () => {
  for (const [name, behind] of Object.entries(BEHIND))
    for (const branch of ['even', 'threes', 'large'] as const)
      it(`gives the first branch that matches its records, and drops what none wants: ${name} behind '${branch}'`, async () => {
        const got = { even: [] as number[], threes: [] as number[], large: [] as number[] };
        await job('splitting', (env) => {
          const branches = env.fromArray('in', RECORDS).split(BRANCHES);
          for (const other of ['even', 'threes', 'large'] as const)
            (other === branch ? behind(branches[other]) : branches[other]).sink(other, collect(got[other]));
        }).run();
        expect(got).toEqual(EXPECTED);
      });

  it('runs in one task with maps and sinks behind every branch, one branch read twice', async () => {
    const theJob = job('splitting', (env) => {
      const { even, threes, large } = env.fromArray<number>('in', []).split(BRANCHES);
      even.map((n) => n * 10).sink('even', collect([]));
      even.filter((n) => n > 2).sink('even-again', collect([]));
      threes.flatMap((n) => [n, n]).sink('threes', collect([]));
      large.sink('large', collect([]));
    });
    expect(theJob.plan().vertices).toHaveLength(1);
    const { sinks, restarts } = await runJob<Record<string, number>>(theJob, {
      sources: { in: [...RECORDS.slice(0, 4), undefined, ...RECORDS.slice(4)].map((value) => (value === undefined ? crashMarker() : { value })) },
    });
    expect(restarts).toBe(1);
    expect(sinks).toEqual({ even: [20, 60, 120, -40], 'even-again': [6, 12], threes: [3, 3, 9, 9], large: [11, 13] });
  });

  it('drops the record that a branch fails on under skip, keeps it as a dead letter, and goes on', async () => {
    const h = await harness((input: Stream<number>) => {
      const { odd, rest } = input
        .map((n) => n)
        .split({
          odd: (n) => {
            if (n === 4) throw new Error('four');
            return n % 2 === 1;
          },
          rest: () => true,
        });
      odd.onError('skip');
      return odd.map((n) => `odd ${n}`).union(rest.map((n) => `rest ${n}`));
    });
    for (const n of [1, 4, 6]) await h.push(n);
    expect(h.take().map(({ value }) => value)).toEqual(['odd 1', 'rest 6']);
    expect(h.deadLetters().map(({ record, error }) => [record, error.message])).toEqual([[4, 'four']]);
    await h.close();
  });
});
