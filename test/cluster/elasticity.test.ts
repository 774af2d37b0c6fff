import { describe, expect, it } from 'vitest';
import { decideScaling, type Room, seen, targetOf } from '../../src/cluster/elasticity.ts';

describe('how many instances there is room for', () => {
  it.each([
    [{ min: 2, max: 8 }, 0, undefined],
    [{ min: 2, max: 8 }, 1, undefined],
    [{ min: 2, max: 8 }, 2, 2],
    [{ min: 2, max: 8 }, 5, 5],
    [{ min: 2, max: 8 }, 12, 8],
    [{ min: 1, max: 1 }, 12, 1],
  ])('%j with %i slots: %s', (range, slots, target) => {
    expect(targetOf(range, slots)).toBe(target);
  });
});

describe('rescaling', () => {
  const facts = { current: 2, rescaledAt: 0, stabilisationMs: 10_000 };

  it.each<[string, Room, Partial<typeof facts> & { now: number }, object]>([
    ['stays where there are as many as there is room for', { target: 2, since: 0 }, { now: 90_000 }, { kind: 'stay' }],
    ['stays where there are fewer slots than min', { target: undefined, since: 0 }, { now: 90_000 }, { kind: 'stay' }],
    ['waits until the room has stayed the same for long enough', { target: 4, since: 85_000 }, { now: 90_000 }, { kind: 'wait', ms: 5000 }],
    ['waits until the last one lies back for long enough', { target: 4, since: 0 }, { now: 90_000, rescaledAt: 89_000 }, { kind: 'wait', ms: 9000 }],
    ['is due then', { target: 4, since: 80_000 }, { now: 90_000 }, { kind: 'rescale', to: 4 }],
    ['goes down as it goes up', { target: 1, since: 80_000 }, { now: 90_000 }, { kind: 'rescale', to: 1 }],
  ])('%s', (_, room, changed, decision) => {
    expect(decideScaling(room, { ...facts, ...changed })).toEqual(decision);
  });

  it('happens at most twice for a worker that flaps ten times, and never twice within the stabilisation time', () => {
    for (const every of [500, 3000, 9000, 11_000, 15_000]) {
      let room: Room | undefined;
      let current = 2;
      let rescaledAt = 0;
      const rescales: number[] = [];
      const flaps = Array.from({ length: 20 }, (_, i) => ({ at: 20_000 + i * every, slots: i % 2 === 0 ? 3 : 2 }));
      const last = flaps.at(-1)!.at;
      for (let now = 0; now < last + 60_000; now += 100) {
        const slots = flaps.findLast(({ at }) => at <= now)?.slots ?? 2;
        room = seen(room, { min: 1, max: 4 }, slots, now);
        const decision = decideScaling(room, { current, rescaledAt, now });
        if (decision.kind !== 'rescale') continue;
        current = decision.to;
        rescaledAt = now;
        rescales.push(now);
      }
      for (const [i, at] of rescales.entries()) expect(at - (rescales[i - 1] ?? 0)).toBeGreaterThanOrEqual(10_000);
      if (every < 10_000) expect(rescales.length).toBeLessThanOrEqual(2);
      expect(current).toBe(2);
    }
  });
});
