// How fast the Kafka clients are: one JSON line a figure, of one broker on this machine and one partition, with records of 100 bytes.
//
//    npm run bench -- kafka [--records 2000000] [--runs 3] [--client kafkajs|platformatic]
//
// What is measured, for each library: raw fetches (what the port gives, values as bytes), fetches with JSON decode, idempotent produce by sends of 1,000 records with
// ten of them under way, and transactions of one record one after the other. The broker has the same cores. Not measured: sources and sinks around them.

import { parseArgs } from 'node:util';
import type { Cluster, KafkaAdapter, OutgoingRecord } from '../../src/connectors/kafka/client.ts';
import { kafkajs } from '../../src/connectors/kafka/kafkajs-client.ts';
import { platformatic } from '../../src/connectors/kafka/platformatic-client.ts';
import { SILENT } from '../../src/graph/context.ts';
import { FAST_JVM, KafkaBroker } from '../services/kafka.ts';

const BYTES = 100;
const SEND = 1000;
const UNDER_WAY = 10;
const TRANSACTIONS = 300;
const FETCH = { maxWaitMs: 100, minBytes: 1, maxBytes: 4 << 20, committed: true };

const { values } = parseArgs({ options: { records: { type: 'string' }, runs: { type: 'string' }, client: { type: 'string' } } });
const records = Number(values.records ?? 2_000_000);
const runs = Number(values.runs ?? 3);
const clients = [kafkajs(), platformatic()].filter(({ kind }) => values.client === undefined || values.client === kind) as KafkaAdapter[];

interface Took {
  readonly seconds: number;
  /** Of this process; on a machine with other work it says more than the clock does. */
  readonly cpuSeconds: number;
}

function print(client: string, name: string, count: number, { seconds, cpuSeconds }: Took): void {
  const figure = Math.round(count / seconds);
  console.log(JSON.stringify({ name: `kafka ${name}`, client, figure, unit: '/s', perCpuSecond: Math.round(count / cpuSeconds), node: process.versions.node }));
}

async function timed(work: () => Promise<void>): Promise<Took> {
  const begun = performance.now();
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return { seconds: (performance.now() - begun) / 1000, cpuSeconds: (user + system) / 1e6 };
}

function bytesFor(number: number): Buffer {
  const json = JSON.stringify({ host: `host-${number % 1000}`, cpu: number % 100, at: 1_700_000_000_000 + number, pad: '' });
  return Buffer.from(`${json.slice(0, -2)}${'x'.repeat(BYTES - json.length)}"}`);
}

async function produce(cluster: Cluster, topic: string): Promise<void> {
  const producer = await cluster.producer({});
  const under: Promise<void>[] = [];
  for (let number = 0; number < records; number += SEND) {
    const some: OutgoingRecord[] = [];
    for (let i = number; i < Math.min(records, number + SEND); i++)
      some.push({ topic, partition: 0, key: null, value: bytesFor(i), timestamp: 1_700_000_000_000 });
    if (under.length === UNDER_WAY) await under.shift();
    under.push(producer.send(some));
  }
  await Promise.all(under);
  await producer.close();
}

/** The next answer is on its way while one is looked at, as in the source. */
async function read(cluster: Cluster, topic: string, each: (value: Buffer) => void): Promise<void> {
  const leader = (await cluster.metadata([topic])).get(topic)!.partitions[0]!.leader;
  const fetch = (offset: bigint) => cluster.fetch(leader, [{ topic, partition: 0, offset }], FETCH);
  let count = 0;
  for (let next = fetch(0n); count < records; ) {
    const [fetched] = await next;
    if (fetched!.problem !== undefined) throw fetched!.problem.error;
    next = fetch(fetched!.next);
    for (const { value } of fetched!.records) each(value!);
    count += fetched!.records.length;
    if (count >= records) await next;
  }
}

const broker = await KafkaBroker.start({ jvm: FAST_JVM });
try {
  for (const client of clients) {
    const cluster = await client.connect({ brokers: broker.brokers, clientId: 'bench', timeoutMs: 30_000, log: SILENT });
    for (let run = 0; run < runs; run++) {
      const topic = `bench-${client.kind}-${run}`;
      await cluster.createTopic(topic, { partitions: 1 });
      print(client.kind, 'produce', records, await timed(() => produce(cluster, topic)));
      let bytes = 0;
      const raw = await timed(() =>
        read(cluster, topic, (value) => {
          bytes += value.length;
        }),
      );
      print(client.kind, 'raw fetch', records, raw);
      let cpu = 0;
      const decoded = await timed(() =>
        read(cluster, topic, (value) => {
          cpu += (JSON.parse(value.toString('latin1')) as { cpu: number }).cpu;
        }),
      );
      print(client.kind, 'fetch and JSON', records, decoded);
      if (bytes !== records * BYTES || cpu === 0) throw new Error('Not all of them were read.');
      const producer = await cluster.transactionalProducer({ transactionalId: topic, timeoutMs: 30_000 });
      await producer.fence();
      const transactions = await timed(async () => {
        for (let i = 0; i < TRANSACTIONS; i++) await producer.commit([{ topic, partition: 0, key: null, value: bytesFor(i), timestamp: 1_700_000_000_000 }]);
      });
      print(client.kind, 'transactions', TRANSACTIONS, transactions);
      await producer.close();
    }
    await cluster.close();
  }
} finally {
  await broker.close();
}
