// A process that writes three segments to a Postgres sink, as the runtime would after a restore. Its one argument is its settings. It is killed on its way by
// MILLRACE_FAULTS, or blocks its event loop there; it says how each commit ended.

import { postgresSink } from '../../../src/connectors/postgres/sink.ts';
import { type Io, systemIo } from '../../../src/runtime/io.ts';
import { sinkContext } from '../reading.ts';

export interface Settings {
  readonly url: string;
  readonly table: string;
  readonly lineage: string;
  readonly attempt: number;
  /** At this step, in the commit of 2, the event loop does nothing for so long. */
  readonly blocked?: { readonly step: string; readonly ms: number };
}

const { url, table, lineage, attempt, blocked } = JSON.parse(process.argv[2]!) as Settings;
const io = systemIo();
let committing = 0;
const blocking: Io = {
  ...io,
  step(name) {
    if (blocked?.step === name && committing === 2) {
      process.stdout.write('blocked\n');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, blocked.ms);
    }
    return io.step(name);
  },
};
const writer = await postgresSink<{ n: number }>({ url, table }, blocking).open(sinkContext({ lineage, attempt }));
const marker = await writer.lastCommitted();
try {
  for (const checkpoint of [1, 2, 3]) {
    if (checkpoint <= marker) continue;
    committing = checkpoint;
    await writer.commit(
      checkpoint,
      [0, 1, 2].map((i) => writer.encode!({ n: checkpoint * 10 + i }, Number.NaN)),
    );
    process.stdout.write(`committed ${checkpoint}\n`);
  }
} catch (error) {
  process.stdout.write(`failed ${(error as { code?: string }).code}\n`);
}
await writer.close();
