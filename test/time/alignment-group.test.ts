import { describe, expect, it } from 'vitest';
import { AlignmentGroups, REPORT_MS } from '../../src/time/alignment-group.ts';

function group() {
  const of = new AlignmentGroups().of('g');
  const woken: string[] = [];
  const join = (name: string, maxDrift = 10) => {
    const member = of.join(maxDrift, () => void woken.push(name));
    return Object.assign(member, {
      at(watermark: number | undefined, now = 0) {
        member.report(watermark);
        of.settle(now);
        return watermark !== undefined && member.paused(watermark);
      },
    });
  };
  return { of, woken, join };
}

describe('an alignment group', () => {
  it('pauses who is more than maxDrift ahead of the slowest, and wakes it when that has moved', () => {
    const { woken, join } = group();
    const [slow, fast] = [join('slow'), join('fast')];
    expect(slow.at(0)).toBe(false);
    expect(fast.at(10)).toBe(false);
    expect(fast.at(11)).toBe(true);
    expect(woken).toEqual([]);
    slow.at(1);
    expect(woken).toEqual(['fast']);
    expect(fast.paused(11)).toBe(false);
  });

  it('lets each member have a drift of its own', () => {
    const { join } = group();
    const [slow, patient, hasty] = [join('slow'), join('patient', 5), join('hasty', 500)];
    slow.at(0);
    expect(patient.at(100)).toBe(true);
    expect(hasty.at(100)).toBe(false);
  });

  it('counts a member from its first watermark on', () => {
    const { join } = group();
    const [fresh, fast] = [join('fresh'), join('fast')];
    fresh.at(Number.NEGATIVE_INFINITY);
    expect(fast.at(1000)).toBe(false);
    fresh.at(0);
    expect(fast.paused(1000)).toBe(true);
  });

  const leaving: [string, (member: { at(w: number | undefined): boolean; leave(): void }) => void][] = [
    ['is idle', (member) => member.at(undefined)],
    ['has left', (member) => member.leave()],
  ];
  for (const [why, leave] of leaving) {
    it(`is not held by a member that ${why}`, () => {
      const { woken, join } = group();
      const [slow, fast] = [join('slow'), join('fast')];
      slow.at(0);
      expect(fast.at(1000)).toBe(true);
      leave(slow);
      expect(woken).toEqual(['fast']);
      expect(fast.paused(1000)).toBe(false);
    });
  }

  it('never pauses the slowest, nor a member that is alone', () => {
    const { join } = group();
    const only = join('only', 0);
    expect([only.at(0), only.at(1000), only.at(1_000_000)]).toEqual([false, false, false]);
  });

  it('that stands still while every member waits lets each have one batch, after three report intervals', () => {
    const { of, woken, join } = group();
    const [a, b] = [join('a'), join('b')];
    a.at(0);
    b.at(0);
    // Both have gone ahead of what they reported last.
    expect([a.paused(500), b.paused(500)]).toEqual([true, true]);
    expect(of.settle(3 * REPORT_MS - 1)).toBe(false);
    expect(of.settle(3 * REPORT_MS)).toBe(true);
    expect(woken).toEqual(['a', 'b']);
    expect([a.paused(500), b.paused(500)]).toEqual([false, false]);
    // The batch has been taken.
    a.released = false;
    expect([a.paused(600), b.paused(500)]).toEqual([true, false]);
    expect(of.settle(4 * REPORT_MS)).toBe(false);
  });

  it('is not released while one member does not wait', () => {
    const { of, join } = group();
    const [a, b] = [join('a'), join('b')];
    a.at(0);
    b.at(0);
    expect(a.paused(500)).toBe(true);
    expect(of.settle(100 * REPORT_MS)).toBe(false);
    expect(b.paused(0)).toBe(false);
  });

  it('is found by its name, and is apart from others', () => {
    const groups = new AlignmentGroups();
    expect(groups.of('a')).toBe(groups.of('a'));
    expect(groups.of('a')).not.toBe(groups.of('b'));
  });
});
