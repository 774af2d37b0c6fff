// What a sink under test is given by its task.

import { SILENT } from '../../src/graph/context.ts';
import type { SinkContext } from '../../src/graph/sink.ts';
import { systemIo } from '../../src/runtime/io.ts';
import type { SinkOptions } from '../../src/runtime/sink-runner.ts';
import type { TransactionalOptions } from '../../src/runtime/transactional-sink.ts';

export const SINK_OPTIONS: SinkOptions = {
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
};

/** Of a transactional one that begins anew, in a job without checkpoints. */
export const ANEW: TransactionalOptions = {
  ...SINK_OPTIONS,
  storage: undefined,
  fileName: (writer, checkpoint) => `segment-out-${writer}-a1-${checkpoint}`,
  restored: [],
  usedIds: { after: 0, to: 0 },
  restoredId: 0,
};
