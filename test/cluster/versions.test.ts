// Which version of the programs leads. A member is written `a:2@7 x1 y1`: its id, slots, when it joined, and per job the plan.

import { describe, expect, it } from 'vitest';
import { heirOf, yields } from '../../src/cluster/versions.ts';
import type { Member } from '../../src/cluster/zookeeper/membership.ts';

function plansIn(text: string): Record<string, string> {
  return Object.fromEntries(text.split(' ').flatMap((plan) => (plan === '' ? [] : [[plan[0]!, plan.slice(1)]])));
}

function members(...texts: readonly string[]): Member[] {
  return texts.map((text) => {
    const [, id, slots, born, plans] = /^(\w+):(\d+)@(\d+) ?(.*)$/.exec(text)!;
    return { id: id!, address: id!, slots: Number(slots), version: '1', plans: plansIn(plans!), born: Number(born) };
  });
}

function led(text: string): { name: string; plan: string }[] {
  return Object.entries(plansIn(text)).map(([name, plan]) => ({ name, plan }));
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
  const cases: readonly (readonly [what: string, led: string, members: readonly string[], leaves: boolean, heir: string | undefined])[] = [
    ['of nobody takes nothing over', 'x1', ['a:1@1 x1', 'b:1@2 x1'], false, undefined],
    ['takes over when it joined later', 'x1', ['a:1@1 x1', 'b:1@2 x2'], false, 'b'],
    ['that joined earlier does not', 'x1', ['a:1@5 x1', 'b:1@2 x2'], false, undefined],
    ['is as old as its oldest member', 'x1', ['a:1@1 x1', 'b:1@9 x1', 'c:1@5 x2'], false, 'c'],
    ['without slots does not', 'x1', ['a:1@1 x1', 'b:0@2 x2'], false, undefined],
    ['without one of the jobs does not', 'x1 y1', ['a:1@1 x1 y1', 'b:1@2 x2'], false, undefined],
    ['has what did not change in common with this one', 'x1 y1', ['a:1@1 x1 y1', 'b:1@2 x2 y1'], false, 'b'],
    ['that is newest goes first', 'x1', ['a:1@1 x1', 'b:1@2 x2', 'c:1@3 x3'], false, 'c'],
    ['is not needed by a leader that leaves where its own has room', 'x1', ['a:1@5 x1', 'b:1@6 x1', 'c:1@2 x2'], true, undefined],
    ['takes over from a leader that leaves where its own has none, though it is older', 'x1', ['a:1@5 x1', 'b:0@6 x1', 'c:1@2 x2'], true, 'c'],
    ['without slots takes nothing over from a leader that leaves', 'x1', ['a:1@1 x1', 'c:0@2 x2'], true, undefined],
    ['is none where no job is led', '', ['a:1@1 x1', 'b:1@2 x2'], false, undefined],
  ];
  for (const [what, jobs, there, leaves, heir] of cases) {
    it(what, () => {
      expect(heirOf(led(jobs), members(...there), { self: 'a', leaves })?.members[0]?.id).toBe(heir);
    });
  }

  it('needs as many slots as its program does', () => {
    const there = members('a:4@1 x1', 'b:1@2 x2', 'c:1@3 x2').map((member) => (member.id === 'a' ? member : { ...member, needs: { x: 3 } }));
    const heir = (slots: number): string | undefined =>
      heirOf(led('x1'), [...there, { ...there[2]!, id: 'd', slots }], { self: 'a', leaves: false })
        ?.members.map(({ id }) => id)
        .join('');
    expect(heir(0)).toBeUndefined();
    expect(heir(1)).toBe('bcd');
  });

  it('that was refused is not asked again, and the next newest is', () => {
    const there = members('a:1@1 x1', 'b:1@2 x2', 'c:1@3 x3');
    const first = heirOf(led('x1'), there, { self: 'a', leaves: false })!;
    expect(first.members[0]!.id).toBe('c');
    expect(heirOf(led('x1'), there, { self: 'a', leaves: false, refused: new Set([first.key]) })!.members[0]!.id).toBe('b');
  });
});
