// `npm run example:kafka`: starts a broker, produces the metrics of three hosts over three hours, runs docs/examples/kafka-windows.ts over them and shows what is in its topics.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Kafka, logLevel } from 'kafkajs';
import { kafkaWindows, type Sample } from '../../docs/examples/kafka-windows.ts';
import { KafkaBroker, NO_KAFKA } from './kafka.ts';

interface Result {
  readonly key: string;
  readonly start: number;
  readonly end: number;
  readonly value: number;
}

const HOSTS = ['mill', 'weir', 'race'];
const MINUTE = 60_000;

if (NO_KAFKA) process.exit(1);
console.log('Starting Kafka …');
const broker = await KafkaBroker.start();
const folder = await mkdtemp(join(tmpdir(), 'millrace-example-'));
try {
  const { brokers } = broker;
  const kafka = new Kafka({ brokers, clientId: 'example', logLevel: logLevel.NOTHING });
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: ['metrics', 'cpu-5m', 'memory-60m'].map((topic) => ({ topic, numPartitions: 3 })) });
  await admin.disconnect();

  const samples = measured();
  const producer = kafka.producer();
  await producer.connect();
  const messages = samples.map((sample) => ({ key: sample.host, value: JSON.stringify(sample), timestamp: String(sample.at) }));
  await producer.send({ topic: 'metrics', messages });
  await producer.disconnect();
  console.log(`Produced ${samples.length} samples to 'metrics' on ${brokers.join(', ')}.`);

  const { status } = await kafkaWindows({ brokers, until: 'end' }).run({ checkpoints: { directory: folder, every: 500 } });
  console.log(`The job has ${status}.`);
  for (const topic of ['cpu-5m', 'memory-60m']) show(topic, await resultsIn(kafka, topic));
} finally {
  await broker.close();
  await rm(folder, { recursive: true, force: true });
}

/** One sample a host each 15 s, of the last three whole hours. */
function measured(): Sample[] {
  const end = Math.floor(Date.now() / (60 * MINUTE)) * 60 * MINUTE;
  const samples: Sample[] = [];
  for (let at = end - 180 * MINUTE; at < end; at += 15_000) {
    const minute = (at - end) / MINUTE;
    for (const [i, host] of HOSTS.entries()) {
      samples.push({
        host,
        at,
        cpu: Math.round(50 + 40 * Math.sin(minute / (10 + 5 * i))),
        memory: Math.round(2048 + 1024 * Math.sin(minute / (30 + 10 * i))),
      });
    }
  }
  return samples;
}

/** All that is committed by now. */
async function resultsIn(kafka: Kafka, topic: string): Promise<Result[]> {
  const consumer = kafka.consumer({ groupId: `example-${topic}`, maxWaitTimeInMs: 200 });
  const results: Result[] = [];
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  // As many windows as there are, of each host: 36 beside each other, and 180 + 59 that slide.
  const expected = HOSTS.length * (topic === 'cpu-5m' ? 36 : 239);
  await new Promise<void>((resolve, reject) => {
    consumer
      .run({
        eachMessage: async ({ message }) => {
          results.push(JSON.parse(String(message.value)) as Result);
          if (results.length === expected) resolve();
        },
      })
      .catch(reject);
  });
  await consumer.disconnect();
  return results;
}

function show(topic: string, results: readonly Result[]): void {
  console.log(`\n'${topic}' holds ${results.length} results; the last of each host:`);
  for (const host of HOSTS) {
    for (const { start, end, value } of results.filter(({ key }) => key === host).slice(-3))
      console.log(`  ${host}  ${clock(start)} – ${clock(end)}  ${Math.round(value * 10) / 10}`);
  }
}

function clock(ms: number): string {
  return new Date(ms).toISOString().slice(11, 16);
}
