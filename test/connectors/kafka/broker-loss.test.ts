import { setTimeout as sleep } from 'node:timers/promises';
import { Kafka, logLevel } from 'kafkajs';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { kafkajs } from '../../../src/connectors/kafka/kafkajs-client.ts';
import { platformatic } from '../../../src/connectors/kafka/platformatic-client.ts';
import { LONG } from '../../long.ts';
import { KafkaBroker, NO_KAFKA } from '../../services/kafka.ts';
import { throughTrouble } from './broker-loss.ts';
import { codeThrown, connect, type fetchOne, freshTopic, leaderOf, record } from './client-contract.ts';

const CLIENTS = [kafkajs(), platformatic()];

describe.skipIf(NO_KAFKA || !LONG)('Both clients', () => {
  let broker: KafkaBroker;
  beforeAll(async () => {
    broker = await KafkaBroker.start();
  });
  afterAll(() => broker?.close());

  it('go on through a broker that is killed and comes back', async () => {
    const trouble = (async () => {
      await sleep(500);
      await broker.kill();
      await sleep(300);
      await broker.up();
    })();
    await Promise.all(CLIENTS.map((client) => throughTrouble(client, broker.brokers, trouble)));
  });

  it.each(CLIENTS)('say that a topic was deleted, reading and writing: $kind', async (client) => {
    const cluster = await connect(client, broker.brokers, { timeoutMs: 1000 });
    const admin = new Kafka({ brokers: broker.brokers, logLevel: logLevel.NOTHING }).admin();
    try {
      const topic = await freshTopic(cluster);
      const leader = await leaderOf(cluster, topic);
      const producer = await cluster.producer({});
      await producer.send([record(topic, 0, 'x')]);
      await admin.connect();
      await admin.deleteTopics({ topics: [topic] });
      while ((await cluster.metadata([topic])).size > 0) await sleep(20);
      const [fetched] = await cluster.fetch(leader, [{ topic, partition: 0, offset: 1n }], { maxWaitMs: 10, minBytes: 1, maxBytes: 1000, committed: true });
      expect(fetched!.problem).toMatchObject({ kind: 'gone', error: { code: 'KAFKA_TOPIC_MISSING' } });
      expect(await codeThrown(producer.send([record(topic, 0, 'y')]))).toBe('KAFKA_TOPIC_MISSING');
      expect(await codeThrown(cluster.topicConfigs(topic))).toBe('KAFKA_TOPIC_MISSING');
    } finally {
      await admin.disconnect();
      await cluster.close();
    }
  });

  it.each(CLIENTS)('name a broker that is gone, and close at once all the same: $kind', async (client) => {
    const cluster = await connect(client, broker.brokers, { timeoutMs: 1500 });
    const topic = await freshTopic(cluster);
    const producer = await cluster.producer({});
    broker.pause();
    try {
      const { problem } = await fetchOneOf(cluster, topic);
      expect(problem).toMatchObject({ kind: 'moved', error: { code: 'KAFKA_UNREACHABLE', retryable: true } });
      expect(await codeThrown(cluster.offsets(topic, [0], 'latest', true))).toBe('KAFKA_UNREACHABLE');
      expect(await codeThrown(producer.send([record(topic, 0, 'x')]))).toBe('KAFKA_UNREACHABLE');
      await cluster.close();
    } finally {
      broker.resume();
      await takesTopics(client);
    }
  });

  /** A broker that has missed its heartbeats leads nothing until it has been heard of again. */
  async function takesTopics(client: (typeof CLIENTS)[number]): Promise<void> {
    const cluster = await connect(client, broker.brokers);
    try {
      await vi.waitFor(() => freshTopic(cluster), { timeout: 30_000, interval: 50 });
    } finally {
      await cluster.close();
    }
  }

  /** With the only broker, whose number is known. */
  async function fetchOneOf(cluster: Parameters<typeof fetchOne>[0], topic: string) {
    const [fetched] = await cluster.fetch(1, [{ topic, partition: 0, offset: 0n }], { maxWaitMs: 10, minBytes: 1, maxBytes: 1000, committed: true });
    return fetched!;
  }
});
