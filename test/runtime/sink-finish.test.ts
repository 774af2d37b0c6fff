import { expect, it } from 'vitest';
import { TransactionalSinkRunner } from '../../src/runtime/transactional-sink.ts';
import { ANEW } from './sink-options.ts';

it('finishes a writer once, and never while it finishes or commits, when two checkpoints complete behind the last record', async () => {
  const calls: string[] = [];
  let busy = false;
  const call = async (name: string): Promise<void> => {
    if (busy) throw new Error(`${name} while another call runs`);
    busy = true;
    await new Promise((resolve) => setImmediate(resolve));
    busy = false;
    calls.push(name);
  };
  const sink = new TransactionalSinkRunner(
    {
      transactional: true,
      open: async () => ({ commit: (id) => call(`commit ${id}`), lastCommitted: async () => 0, finish: () => call('finish'), close: async () => {} }),
    },
    0,
    ANEW,
  );
  await sink.open();
  sink.add('last record', Number.NaN);
  sink.barrier(1);
  sink.barrier(2);
  await Promise.all([sink.complete(1).then(() => sink.finish()), sink.complete(2).then(() => sink.finish())]);
  expect(calls).toEqual(['commit 1', 'finish']);
});
