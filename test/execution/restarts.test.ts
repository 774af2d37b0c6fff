import { describe, expect, it } from 'vitest';
import { DEFAULT_RESTARTS, decideRestart } from '../../src/execution/restarts.ts';

const policy = { max: 3, within: 1000, backoff: { initial: 100, max: 350, factor: 2, jitter: 0 } };
const facts = { now: 5000, stamps: [] as number[], retryable: true, random: 0.5 };

describe('whether a region restarts', () => {
  it('restarts while no more than max fall into the period, the running one included', () => {
    expect(decideRestart(policy, { ...facts, stamps: [4500, 4600] })).toEqual({ kind: 'restart', stamps: [4500, 4600, 5000], losses: [], afterMs: 350 });
    expect(decideRestart(policy, { ...facts, stamps: [4500, 4600, 4700] })).toEqual({ kind: 'give up' });
  });

  it('forgets what is older than the period; what is exactly as old still counts', () => {
    expect(decideRestart(policy, { ...facts, stamps: [3999, 4000, 4001] })).toMatchObject({ kind: 'restart', stamps: [4000, 4001, 5000] });
  });

  it('waits longer each time, up to the largest', () => {
    const next = (stamps: number[]) => decideRestart({ ...policy, max: 9 }, { ...facts, stamps });
    expect([next([]), next([4900]), next([4900, 4901]), next([4900, 4901, 4902])]).toMatchObject([
      { afterMs: 100 },
      { afterMs: 200 },
      { afterMs: 350 },
      { afterMs: 350 },
    ]);
  });

  it('shakes the wait by the jitter', () => {
    const wait = (random: number) => decideRestart({ ...policy, backoff: { ...policy.backoff, jitter: 0.1 } }, { ...facts, random });
    expect(wait(0)).toMatchObject({ afterMs: 90 });
    expect(wait(0.5)).toMatchObject({ afterMs: 100 });
  });

  it('gives up at once on what cannot heal, without a policy, and with max 0', () => {
    expect(decideRestart(policy, { ...facts, retryable: false }).kind).toBe('give up');
    expect(decideRestart(false, facts).kind).toBe('give up');
    expect(decideRestart({ ...policy, max: 0 }, facts).kind).toBe('give up');
  });

  it.each([
    // what has been used up of the budget, losses before, what it is, what follows
    [[4500, 4600, 4700], [], { lost: true }, { kind: 'restart', stamps: [4500, 4600, 4700], losses: [5000], afterMs: 100 }],
    [[], [4998, 4999], { lost: true }, { kind: 'restart', stamps: [], losses: [4998, 4999, 5000], afterMs: 350 }],
    [[], [4997, 4998, 4999], { lost: false }, { kind: 'restart', stamps: [5000], losses: [4997, 4998, 4999], afterMs: 100 }],
    [[4500, 4600, 4700], [4999], { lost: false }, { kind: 'give up' }],
    [[], [], { lost: true, retryable: false }, { kind: 'give up' }],
  ] as const)('losses of machines use up no budget, and wait by how many there were of late: %j %j %j', (stamps, losses, what, decision) => {
    expect(decideRestart(policy, { ...facts, stamps, losses, ...what })).toEqual(decision);
  });

  it('forgets losses after a minute; a job that never restarts does not for them either', () => {
    const now = 100_000;
    expect(decideRestart(policy, { ...facts, now, losses: [39_999, 40_000], lost: true })).toMatchObject({ losses: [40_000, now], afterMs: 200 });
    expect(decideRestart({ ...policy, max: 0 }, { ...facts, lost: true }).kind).toBe('restart');
    expect(decideRestart(false, { ...facts, lost: true })).toEqual({ kind: 'give up' });
  });

  it('by default 5 in 10 minutes, from 100 ms to 10 s', () => {
    expect(DEFAULT_RESTARTS).toEqual({ max: 5, within: 600_000, backoff: { initial: 100, max: 10_000, factor: 2, jitter: 0.1 } });
  });
});
