// Which version of the programs leads. A member is written `a:2 x1 y1`: its id, slots, and per job the plan.

import { describe, expect, it } from 'vitest';
import { heirOf, type Led, type Reason, yields } from '../../src/cluster/versions.ts';
import type { Member } from '../../src/cluster/zookeeper/membership.ts';

function plansIn(text: string): Record<string, string> {
  return Object.fromEntries(text.split(' ').flatMap((plan) => (plan === '' ? [] : [[plan[0]!, plan.slice(1)]])));
}

function members(...texts: readonly string[]): Member[] {
  return texts.map((text) => {
    const [, id, slots, plans] = /^(\w+):(\d+) ?(.*)$/.exec(text)!;
    return { id: id!, address: id!, slots: Number(slots), version: '1', plans: plansIn(plans!) };
  });
}

/** Versions 1, 2 … were seen in that order; `x0` is led by nobody, `x2!3` has rejected 3. */
function led(text: string): (Led & { readonly plan: string })[] {
  return Object.entries(plansIn(text)).map(([name, plans]) => {
    const [plan, ...rejected] = plans.split('!') as [string, ...string[]];
    return { name, plan: (plan === '0' ? undefined : plan) as string, versions: ['1', '2', '3'], rejected };
  });
}

describe('who is first in the line', () => {
  for (const [what, own, inForce, others, passes] of [
    ['leads where nothing is in force', 'x2', '', ['x1'], false],
    ['leads where it has what is in force', 'x1', 'x1', ['x2'], false],
    ['lets those pass that have what is in force', 'x2', 'x1', ['x1'], true],
    ['leads where nobody has that any more', 'x2', 'x1', ['x3'], false],
    ['lets those pass that have all jobs', 'x1', 'x1 y1', ['x1 y1'], true],
    ['leads where nobody has all of them', 'x1', 'x1 y1', ['y1'], false],
    ['leads where a change of two jobs was cut in its middle', 'x1 y1', 'x2 y1', ['x2 y2'], false],
    ['looks at no job that nobody has', 'x1', 'x1 z9', ['x2'], false],
  ] as const) {
    it(what, () => {
      const plans = [own, ...others].map((text) => ({ plans: plansIn(text) }));
      expect(yields(plansIn(own), led(inForce), plans)).toBe(passes);
    });
  }
});

describe('another version', () => {
  const cases: readonly (readonly [what: string, led: string, members: readonly string[], why: Reason, heir: string | undefined])[] = [
    ['that nobody has takes nothing over', 'x1', ['a:1 x1', 'b:1 x1'], 'newer', undefined],
    ['takes over when it was seen later', 'x1', ['a:1 x1', 'b:1 x2'], 'newer', 'b'],
    ['that was seen earlier does not', 'x2', ['a:1 x2', 'b:1 x1'], 'newer', undefined],
    ['that was not seen yet does not', 'x1', ['a:1 x1', 'b:1 x9'], 'newer', undefined],
    ['that was rejected does not', 'x1!2', ['a:1 x1', 'b:1 x2'], 'newer', undefined],
    ['without slots does not', 'x1', ['a:1 x1', 'b:0 x2'], 'newer', undefined],
    ['without one of the jobs does not', 'x1 y1', ['a:1 x1 y1', 'b:1 x2'], 'newer', undefined],
    ['that is older for one of the jobs does not', 'x1 y2', ['a:1 x1 y2', 'b:1 x2 y1'], 'newer', undefined],
    ['has what did not change in common with this one', 'x1 y1', ['a:1 x1 y1', 'b:1 x2 y1'], 'newer', 'b'],
    ['that is newest goes first', 'x1', ['a:1 x1', 'b:1 x2', 'c:1 x3'], 'newer', 'c'],
    ['with a job that this one does not have takes over', 'x1 y0', ['a:1 x1', 'b:1 x1 y1'], 'newer', 'b'],
    ['takes a job over that stands still here', 'x0', ['a:1 x2', 'b:1 x1'], 'newer', 'b'],
    ['is not needed by a leader that leaves where its own has room', 'x2', ['a:1 x2', 'b:1 x2', 'c:1 x1'], 'leaving', undefined],
    ['takes over from a leader that leaves where its own has none, though it is older', 'x2', ['a:1 x2', 'b:0 x2', 'c:1 x1'], 'leaving', 'c'],
    ['takes over from a leader that leaves, though it was rejected', 'x1!2', ['a:1 x1', 'c:1 x2'], 'leaving', 'c'],
    ['without slots takes nothing over from a leader that leaves', 'x1', ['a:1 x1', 'c:0 x2'], 'leaving', undefined],
    ['gets back what this one could not start, whatever room that has', 'x2', ['a:1 x2', 'b:1 x2', 'c:1 x1'], 'failed', 'c'],
    ['that could not start either does not', 'x2!1', ['a:1 x2', 'c:1 x1'], 'failed', undefined],
    ['is none where no job is led', '', ['a:1 x1', 'b:1 x2'], 'newer', undefined],
  ];
  for (const [what, jobs, there, why, heir] of cases) {
    it(what, () => {
      const all = members(...there);
      expect(heirOf(led(jobs), all, { self: 'a', own: all[0]!.plans, why })?.members[0]?.id).toBe(heir);
    });
  }

  it('needs as many slots as its program does', () => {
    const there = members('a:4 x1', 'b:1 x2', 'c:1 x2').map((member) => (member.id === 'a' ? member : { ...member, needs: { x: 3 } }));
    const heir = (slots: number): string | undefined =>
      heirOf(led('x1'), [...there, { ...there[2]!, id: 'd', slots }], { self: 'a', own: { x: '1' }, why: 'newer' })
        ?.members.map(({ id }) => id)
        .join('');
    expect(heir(0)).toBeUndefined();
    expect(heir(1)).toBe('bcd');
  });

  it('that was refused is not asked again, and the next newest is', () => {
    const there = members('a:1 x1', 'b:1 x2', 'c:1 x3');
    const first = heirOf(led('x1'), there, { self: 'a', own: { x: '1' }, why: 'newer' })!;
    expect(first.members[0]!.id).toBe('c');
    expect(heirOf(led('x1'), there, { self: 'a', own: { x: '1' }, why: 'newer', refused: (key) => key === first.key })!.members[0]!.id).toBe('b');
  });
});
