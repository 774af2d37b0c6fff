// A process that writes three segments to a Redis stream, as the runtime would after a restore, and is killed on its way by MILLRACE_FAULTS. Its one argument is its
// settings.

import { redisStream } from '../../../src/connectors/redis/stream-sink.ts';
import { sinkContext } from '../reading.ts';

const { url, stream, lineage, attempt } = JSON.parse(process.argv[2]!) as { url: string; stream: string; lineage: string; attempt: number };
const writer = await redisStream<number>({ url, stream }).open(sinkContext({ lineage, attempt }));
const marker = await writer.lastCommitted();
for (const checkpoint of [1, 2, 3]) {
  if (checkpoint <= marker) continue;
  // Two chunks each.
  const numbers = Array.from({ length: 600 }, (_, i) => (checkpoint - 1) * 600 + i);
  await writer.commit(
    checkpoint,
    numbers.map((n) => writer.encode!(n, Number.NaN)),
  );
}
await writer.close();
