import { job, text } from 'millrace';
import { kafka, kafkajs } from 'millrace/kafka';
import { expect, it, onTestFinished } from 'vitest';
import type { KafkaAdapter } from '../../src/connectors/kafka/client.ts';
import { SILENT } from '../../src/graph/context.ts';
import { Topics } from '../connectors/kafka/topics.ts';
import { checkpointsIn, ends, RESTARTS, Store, temporaryFolder, Watch } from '../protocols/lab.ts';
import { Random, SEED } from '../random.ts';
import { KafkaCluster, NO_KAFKA } from '../services/kafka.ts';

// Not in npm test; MILLRACE_KAFKA_CHAOS asks for it alone.
const ASKED_FOR = process.env.npm_lifecycle_event === 'test:chaos' || process.env.MILLRACE_KAFKA_CHAOS !== undefined;
const ROUNDS = Number(process.env.MILLRACE_ROUNDS ?? 12);
const PARTITIONS = 6;
const EACH = 2_000;

it.runIf(ASKED_FOR && !NO_KAFKA)(
  'leaders move, brokers are killed and paused, the job crashes and goes on at another parallelism: each record once',
  async () => {
    console.log(`MILLRACE_SEED=${SEED}`);
    const random = new Random(SEED);
    const cluster = await KafkaCluster.start({ nodes: 3 });
    onTestFinished(() => cluster.close());
    const topics = await Topics.at(cluster.brokers);
    const topic = await topics.create(PARTITIONS);
    await topics.close();
    // A producer of plain kafkajs gives up where brokers come and go for long.
    const writing = await (kafkajs() as KafkaAdapter).connect({ brokers: cluster.brokers, clientId: 'writer', timeoutMs: 120_000, log: SILENT });
    onTestFinished(() => writing.close());
    const producer = await writing.producer({});
    const store = new Store<string>();
    const folder = await temporaryFolder();
    let armed = false;
    const define = () =>
      job('chaos', (env) => {
        env
          .source('in', kafka.source<string>({ brokers: cluster.brokers, topic, format: text(), discoverEvery: 500 }))
          .map((value) => {
            if (armed) {
              armed = false;
              throw new Error('a crash');
            }
            return value;
          })
          .rebalance()
          .sink('out', store);
      });
    const watch = new Watch();
    const start = async (parallelism: number) =>
      ends(await define().start({ parallelism, checkpoints: { ...checkpointsIn(folder), every: 200 }, restarts: RESTARTS, onEvent: watch.onEvent }));
    let running = await start(2);
    let written = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const node = cluster.nodes[random.below(3)]!;
      const paused = random.below(3) === 0;
      if (!paused) await node.kill();
      await producer.send(
        Array.from({ length: EACH }, (_, i) => ({ topic, partition: i % PARTITIONS, key: null, value: Buffer.from(`v${written + i}`), timestamp: Date.now() })),
      );
      written += EACH;
      // Behind it: a writer waits long for a broker that is stopped.
      if (paused) node.pause();
      if (random.below(2) === 0) armed = true;
      if (random.below(3) === 0) {
        await running.stop();
        running = await start(1 + random.below(4));
      }
      // Mostly before everything has been read, so that outages overlap with what comes next.
      const enough = random.below(2) === 0 ? written : written - EACH;
      await store.until((read) => read.length >= enough);
      if (paused) node.resume();
      else await node.up();
    }
    await store.until((read) => read.length >= written);
    await running.stop();
    expect(store.records.length).toBe(written);
    expect(new Set(store.records).size).toBe(written);
  },
  1_200_000,
);
