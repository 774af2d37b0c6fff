import { describe, expect, it } from 'vitest';
import { hopeless, type LossFacts, type LossRow, lossLimits, NO_LOSSES, rowNow, withLoss } from '../../src/execution/losses.ts';

const facts: LossFacts = { checkpoint: 7, now: 1000, breaksAfter: undefined };
const lose = (workers: readonly string[], row: LossRow = NO_LOSSES, changed: Partial<LossFacts> = {}): LossRow =>
  workers.reduce((before, worker) => withLoss(before, worker, { ...facts, ...changed }), row);

describe('workers that are lost in a row', () => {
  it('are counted while no checkpoint completes between, each process once', () => {
    expect(lose(['a', 'b', 'a', 'c'])).toEqual({ workers: ['a', 'b', 'c'], checkpoint: 7, at: 1000 });
  });

  it('begin anew behind a newer checkpoint, and not behind one that was gone back to', () => {
    const row = lose(['a', 'b']);
    expect(lose(['c'], row, { checkpoint: 8 })).toEqual({ workers: ['c'], checkpoint: 8, at: 1000 });
    const back = lose(['c'], row, { checkpoint: 6 });
    expect(back).toEqual({ workers: ['a', 'b', 'c'], checkpoint: 7, at: 1000 });
    expect(rowNow(back, facts)).toBe(back);
    expect(rowNow(row, { ...facts, checkpoint: 8 })).toBe(NO_LOSSES);
    expect(rowNow(row, facts)).toBe(row);
  });

  it('are forgotten after a while without one where no checkpoints are taken by themselves, and there alone', () => {
    const row = lose(['a', 'b']);
    expect(rowNow(row, { ...facts, now: 1500, breaksAfter: 500 })).toBe(row);
    expect(rowNow(row, { ...facts, now: 1501, breaksAfter: 500 })).toBe(NO_LOSSES);
    expect(rowNow(row, { ...facts, now: 10 ** 12 })).toBe(row);
  });

  it.each([
    // lost, allowed beyond one of each, workers now, whether that is too many
    [[], 0, 0, false],
    [['a'], 0, 1, false],
    [['a', 'b'], 0, 1, true],
    [['a', 'b', 'c', 'd', 'e', 'f'], 0, 6, false],
    [['a', 'b', 'c', 'd', 'e', 'f'], 5, 1, false],
    [['a', 'b', 'c', 'd', 'e', 'f', 'g'], 5, 1, true],
  ])('end the job when they are more than there are workers and as many as it may restart: %j, %i, %i', (lost, max, workers, ends) => {
    const error = hopeless('orders', lose(lost), max, workers);
    expect(error === undefined).toBe(!ends);
    if (ends)
      expect(error).toMatchObject({
        code: 'HOST_LOST',
        retryable: false,
        sentence: expect.stringMatching(new RegExp(`^${lost.length} workers of the job 'orders'`)),
      });
  });

  it.each([
    [{ checkpoints: { directory: 'c' } }, { max: 5, breaksAfter: undefined }],
    [
      { checkpoints: { directory: 'c' }, restarts: { max: 2, within: 50 } },
      { max: 2, breaksAfter: undefined },
    ],
    [
      { checkpoints: { directory: 'c' }, restarts: false as const },
      { max: 5, breaksAfter: undefined },
    ],
    [{ checkpoints: { directory: 'c', every: Number.POSITIVE_INFINITY } }, { max: 5, breaksAfter: 600_000 }],
    [{ restarts: { max: 2, within: 50 } }, { max: 2, breaksAfter: 50 }],
  ])('are limited by what is said of restarts: %j', (options, limits) => {
    expect(lossLimits(options)).toEqual(limits);
  });
});
