import { expect, it } from 'vitest';
import { SILENT } from '../../src/graph/context.ts';
import type { SinkContext } from '../../src/graph/sink.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { TransactionalSinkRunner } from '../../src/runtime/transactional-sink.ts';

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
    {
      uid: 'out',
      lineage: 'lineage',
      context: (writer, lineage, restored): SinkContext => ({
        uid: 'out',
        job: 'job',
        writer,
        lineage,
        attempt: 1,
        restored,
        signal: new AbortController().signal,
        log: SILENT,
        metrics: { counter: () => ({ inc() {} }), gauge() {}, histogram: () => ({ record() {} }) },
      }),
      io: systemIo(),
      wake: () => {},
      failed: () => {},
      storage: undefined,
      fileName: () => '',
      restored: [],
      usedIds: { after: 0, to: 0 },
      restoredId: 0,
    },
  );
  await sink.open();
  sink.add('last record', Number.NaN);
  sink.barrier(1);
  sink.barrier(2);
  await Promise.all([sink.complete(1).then(() => sink.finish()), sink.complete(2).then(() => sink.finish())]);
  expect(calls).toEqual(['commit 1', 'finish']);
});
