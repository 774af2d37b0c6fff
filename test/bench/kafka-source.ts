// Records a second from a Kafka topic through the whole engine into a sink that counts: one JSON line a format and run.
//
// A broker of its own, one topic of four partitions, records of 100 bytes, all in the page cache. `bytes` hands the bytes over as they are, `json` decodes them. A run
// begins with `job.run()` and ends with the job: connecting and discovery are in it. `--records`, `--runs`, `--parallelism`, `--client kafkajs|platformatic`.

import { parseArgs } from 'node:util';
import { type Format, job, json } from 'millrace';
import { kafka, kafkajs, platformatic } from 'millrace/kafka';
import type { KafkaAdapter } from '../../src/connectors/kafka/client.ts';
import { SILENT } from '../../src/graph/context.ts';
import { FAST_JVM, KafkaBroker } from '../services/kafka.ts';
import { type Count, counting } from './harness/counting-sink.ts';
import { print, tell } from './harness/figures.ts';

const { values: given } = parseArgs({
  options: {
    records: { type: 'string', default: '2000000' },
    runs: { type: 'string', default: '3' },
    parallelism: { type: 'string', default: '1' },
    client: { type: 'string', default: 'kafkajs' },
  },
});
const records = Number(given.records);
const client = given.client === 'platformatic' ? platformatic() : kafkajs();
const PARTITIONS = 4;
const BATCH = 5_000;
const TOPIC = 'bench';

const broker = await KafkaBroker.start({ jvm: FAST_JVM });
try {
  const { brokers } = broker;
  await fill(brokers);
  const bytes: Format<unknown> = { decode: (value) => value, encode: (value) => value as Uint8Array };
  for (const [name, format] of [
    ['bytes', bytes],
    ['json', json<unknown>()],
  ] as const) {
    for (let run = 0; run < Number(given.runs); run++) {
      const count: Count = { results: 0, last: 0 };
      const source = kafka.source({ brokers, topic: TOPIC, format, until: 'end', client });
      const begun = performance.now();
      const cpu = process.cpuUsage();
      await job('bench', (env) => void env.source('in', source).sink('out', counting(count))).run({ parallelism: Number(given.parallelism) });
      const ms = performance.now() - begun;
      const { user, system } = process.cpuUsage(cpu);
      if (count.results !== records) throw new Error(`${count.results} records instead of ${records}`);
      const cpuMs = (user + system) / 1000;
      print({
        bench: 'kafka-source',
        format: name,
        client: client.kind,
        records,
        parallelism: Number(given.parallelism),
        recordsPerSecond: Math.round((records / ms) * 1000),
        ms,
        cpuMs,
      });
    }
  }
} finally {
  await broker.close();
}

async function fill(brokers: string[]): Promise<void> {
  const cluster = await (kafkajs() as KafkaAdapter).connect({ brokers, clientId: 'bench', timeoutMs: 30_000, log: SILENT });
  await cluster.createTopic(TOPIC, { partitions: PARTITIONS });
  const producer = await cluster.producer({});
  const value = (n: number): Buffer =>
    Buffer.from(JSON.stringify({ host: `host-${n % 1000}`, at: 1_700_000_000_000 + n, cpu: n % 100, mem: n % 32_000, zone: 'eu-west-1a' }).padEnd(100));
  for (let at = 0; at < records; at += BATCH) {
    const length = Math.min(BATCH, records - at);
    const partition = (at / BATCH) % PARTITIONS;
    await producer.send(Array.from({ length }, (_, i) => ({ topic: TOPIC, partition, key: null, value: value(at + i), timestamp: 1_700_000_000_000 })));
  }
  tell(`${records} records are written.`);
  await producer.close();
  await cluster.close();
}
