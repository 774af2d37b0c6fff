import { expect, test } from 'vitest';
import { ActorError } from '../../actors/errors.ts';
import type { ExitReason } from '../../actors/exit-reason.ts';
import { backoffDelay, callsForRestart, countRestart, endsSupervisor, type RestartType, restartGroup, restartsInRow } from '../../actors/restart-policy.ts';

test.each<[RestartType, ExitReason, boolean]>([
  ['permanent', 'normal', true],
  ['permanent', 'shutdown', true],
  ['permanent', new Error('x'), true],
  ['transient', 'normal', false],
  ['transient', 'shutdown', false],
  ['transient', { shutdown: 'enough' }, false],
  ['transient', new Error('x'), true],
  ['transient', new ActorError('ERR_ACTOR_KILLED', 'x'), true],
  ['temporary', 'normal', false],
  ['temporary', new Error('x'), false],
])('a %s child that ended with %s calls for a restart: %s', (restart, reason, expected) => {
  expect(callsForRestart(restart, reason)).toBe(expected);
});

test.each([
  { stamps: [], now: 0, max: 1, counted: [0], exceeded: false },
  { stamps: [0], now: 5000, max: 1, counted: [0, 5000], exceeded: true },
  { stamps: [0], now: 5001, max: 1, counted: [5001], exceeded: false },
  { stamps: [0, 10, 20], now: 5010, max: 3, counted: [10, 20, 5010], exceeded: false },
  { stamps: [10, 20, 30], now: 5010, max: 3, counted: [10, 20, 30, 5010], exceeded: true },
  { stamps: [], now: 7, max: 0, counted: [7], exceeded: true },
])('stamps $stamps and a try at $now within 5,000 ms, at most $max: exceeded $exceeded', ({ stamps, now, max, counted, exceeded }) => {
  expect(countRestart(stamps, now, { max, within: 5000 })).toEqual({ stamps: counted, exceeded });
});

test.each([
  ['one-for-one', 1, [1]],
  ['one-for-all', 1, [0, 1, 2, 3]],
  ['rest-for-one', 0, [0, 1, 2, 3]],
  ['rest-for-one', 2, [2, 3]],
] as const)('%s of child %i restarts %j', (strategy, failed, group) => {
  expect(restartGroup(strategy, failed, 4)).toEqual(group);
});

const backoff = { initial: 100, max: 1000, factor: 2, jitter: 0.1 };

test.each([
  [1, 0.5, 100],
  [2, 0.5, 200],
  [4, 0.5, 800],
  [5, 0.5, 1000],
  [50, 0.5, 1000],
  [1, 0, 90],
  [1, 1, 110],
])('the wait before restart %i in a row with random %d is %d', (inRow, random, expected) => {
  expect(backoffDelay(backoff, inRow, () => random)).toBeCloseTo(expected);
});

test.each([
  [0, undefined, 1],
  [1, 999, 2],
  [7, 1000, 1],
  [3, undefined, 4],
])('after %i in a row and a run of %s ms this is restart %i in a row', (previous, ran, expected) => {
  expect(restartsInRow(previous, ran, backoff)).toBe(expected);
});

test.each([
  ['never', false, false],
  ['any-significant', true, true],
  ['all-significant', true, false],
  ['all-significant', false, true],
] as const)('autoShutdown %s with another significant child alive %s ends the supervisor: %s', (autoShutdown, others, expected) => {
  expect(endsSupervisor(autoShutdown, others)).toBe(expected);
});
