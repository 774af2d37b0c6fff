// A process that writes three segments to a file sink, as the runtime would after a restore, and is killed on its way by MILLRACE_FAULTS.
// Arguments: directory, attempt.

import { text } from '../../src/connectors/formats.ts';
import { files } from '../../src/connectors/index.ts';
import { SILENT } from '../../src/graph/context.ts';

const [directory, attempt] = process.argv.slice(2);
const sink = files.sink<string>({ directory: directory!, format: text(), bucket: (value) => value[0]!, roll: { bytes: 9 } });
const writer = await sink.open({
  uid: 'out',
  job: 'job',
  writer: '0',
  lineage: 'abc',
  attempt: Number(attempt),
  restored: undefined,
  signal: new AbortController().signal,
  log: SILENT,
  metrics: { counter: () => ({ inc() {} }), gauge() {}, histogram: () => ({ record() {} }) },
});
const marker = await writer.lastCommitted();
for (const checkpoint of [1, 2, 3]) {
  if (checkpoint <= marker) continue;
  const values = ['a', 'b', 'c'].map((bucket) => `${bucket}${checkpoint}`);
  await writer.commit(
    checkpoint,
    values.map((value) => writer.encode!(value, Number.NaN)),
  );
}
await writer.finish?.();
await writer.close();
