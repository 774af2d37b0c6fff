import { expect, it } from 'vitest';
import { deposedRegistrations, type Registration } from './registrations.ts';

const of = (id: number, epoch: number, at: number): Registration => ({ id, epoch, at: BigInt(at) });
const begun = new Map([
  [1, 10n],
  [2, 20n],
  [3, 30n],
]);

it('registrations of a leader that had been succeeded are told by the epoch that stands in them', () => {
  expect(deposedRegistrations([of(1, 1, 11), of(2, 1, 15), of(5, 2, 21), of(7, 3, 31)], begun)).toEqual([]);
  expect(deposedRegistrations([of(1, 1, 11), of(2, 1, 25)], begun)).toEqual(['checkpoint 2 of epoch 1 was registered when epoch 2 had begun']);
  expect(deposedRegistrations([of(2, 1, 15), of(1, 2, 12)], begun)).toEqual(['checkpoint 2 was registered in epoch 1, behind checkpoint 1 of epoch 2']);
});
