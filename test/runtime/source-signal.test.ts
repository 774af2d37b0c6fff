import { getEventListeners } from 'node:events';
import { job, type Source } from 'millrace';
import { expect, it } from 'vitest';

// Each look at event time, five a second, left a listener at the signal of the task, for as long as the job ran.
it('a source that runs for long gathers no listeners at its signal', async () => {
  let signal: AbortSignal | undefined;
  const source: Source<number, string, number> = {
    bounded: false,
    splits: async () => ['one'],
    splitId: (split) => split,
    async *read(_split, _from, context) {
      signal = context.signal;
      yield { values: [1], timestamps: [1], position: 1 };
      await new Promise<void>((resolve) => context.signal.addEventListener('abort', () => resolve()));
    },
  };
  const counts: number[] = [];
  let looked!: () => void;
  const often = new Promise<void>((resolve) => {
    looked = resolve;
  });
  const generator = () => ({
    onRecord: () => undefined,
    onPeriodic: () => {
      if (signal !== undefined) counts.push(getEventListeners(signal, 'abort').length);
      if (counts.length === 5) looked();
      return undefined;
    },
  });
  const running = await job('patient', (env) => {
    env.source('in', source, { generator }).forEach('out', () => {});
  }).start();
  await often;
  await running.cancel();
  expect(counts.at(-1)).toBe(counts[1]);
});
