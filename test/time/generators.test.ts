import { describe, expect, it } from 'vitest';
import { mergeSplits, SplitClock } from '../../src/time/generators.ts';
import { IdleTimer } from '../../src/time/idle-timer.ts';

const NEVER = Number.NEGATIVE_INFINITY;

describe('watermarks of splits', () => {
  it('are the largest timestamp − bound − 1 and never go back', () => {
    const clock = new SplitClock({ outOfOrderness: 5 }, 0);
    clock.look(0, true);
    expect(clock.watermark).toBe(NEVER);
    clock.maxTimestamp = 100;
    clock.look(0, true);
    expect(clock.watermark).toBe(94);
    const again = new SplitClock({ outOfOrderness: 50 }, 0, clock.store());
    again.look(0, true);
    expect(again.watermark).toBe(94);
  });

  it('of a generator of one’s own come by record and by period', () => {
    const clock = new SplitClock({ generator: () => ({ onRecord: (_v, t) => (t % 2 === 0 ? t : undefined), onPeriodic: (now) => now }) }, 0);
    clock.onRecord(undefined, 4);
    clock.onRecord(undefined, 7);
    expect(clock.watermark).toBe(4);
    clock.look(3, true);
    expect(clock.watermark).toBe(4);
    clock.look(9, true);
    expect(clock.watermark).toBe(9);
  });

  it('are not moved by a generator that gives NaN or undefined, nor fall where it gives less', () => {
    const given: (number | undefined)[] = [5, Number.NaN, undefined, 3];
    const clock = new SplitClock({ generator: () => ({ onRecord: () => given.shift() }) }, 0);
    const seen = given.slice().map(() => {
      clock.onRecord(undefined, 0);
      clock.look(0, true);
      return clock.watermark;
    });
    expect(seen).toEqual([5, 5, 5, 5]);
  });

  it('merge to the least of those that are not idle; all idle: the largest, and idle; none: idle', () => {
    const at = (watermark: number, idle = false): SplitClock => Object.assign(new SplitClock({}, 0), { watermark, idle });
    expect(mergeSplits([at(5), at(3), at(1, true)])).toEqual({ watermark: 3, idle: false });
    expect(mergeSplits([at(5, true), at(3, true)])).toEqual({ watermark: 5, idle: true });
    expect(mergeSplits([])).toEqual({ watermark: NEVER, idle: true });
  });
});

describe('the clock of idleness', () => {
  type Step = [at: number, what: 'record' | 'hold' | 'run' | 'look'];
  const table: [string, Step[], boolean[]][] = [
    [
      'runs out after so long without a record',
      [
        [99, 'look'],
        [100, 'look'],
      ],
      [false, true],
    ],
    [
      'begins anew with each record',
      [
        [90, 'record'],
        [189, 'look'],
        [190, 'look'],
      ],
      [false, true],
    ],
    [
      'stands still while it is held',
      [
        [50, 'hold'],
        [500, 'look'],
        [500, 'run'],
        [549, 'look'],
        [550, 'look'],
      ],
      [false, false, true],
    ],
    [
      'counts what came before it was held, also twice',
      [
        [40, 'hold'],
        [100, 'run'],
        [140, 'hold'],
        [200, 'run'],
        [219, 'look'],
        [220, 'look'],
      ],
      [false, true],
    ],
    [
      'held twice, let go twice is once',
      [
        [40, 'hold'],
        [60, 'hold'],
        [100, 'run'],
        [120, 'run'],
        [159, 'look'],
        [160, 'look'],
      ],
      [false, true],
    ],
    [
      'stays idle while it is held',
      [
        [100, 'look'],
        [110, 'hold'],
        [120, 'look'],
      ],
      [true, true],
    ],
    [
      'a record while it is held begins anew',
      [
        [90, 'hold'],
        [95, 'record'],
        [200, 'run'],
        [299, 'look'],
        [300, 'look'],
      ],
      [false, true],
    ],
  ];
  for (const [name, steps, wanted] of table) {
    it(name, () => {
      const timer = new IdleTimer(100, 0);
      const looks: boolean[] = [];
      for (const [at, what] of steps) {
        if (what === 'record') timer.record(at);
        else if (what === 'look') looks.push(timer.idle(at));
        else timer.hold(what === 'hold', at);
      }
      expect(looks).toEqual(wanted);
    });
  }

  it('never runs out where no idleness is set', () => {
    expect(new IdleTimer(Number.POSITIVE_INFINITY, 0).idle(Number.MAX_SAFE_INTEGER)).toBe(false);
  });
});
