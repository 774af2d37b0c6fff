// The longer tests of the Kafka clients: a broker that stands still, the contract on the older brokers, and clusters of three whose leaders change.

import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, it } from 'vitest';
import { kafkajs } from '../../src/connectors/kafka/kafkajs-client.ts';
import { platformatic } from '../../src/connectors/kafka/platformatic-client.ts';
import { throughTrouble } from '../connectors/kafka/broker-loss.ts';
import { clientContract } from '../connectors/kafka/client-contract.ts';
import { KafkaBroker, KafkaCluster, type KafkaVersion, NO_KAFKA } from '../services/kafka.ts';

// Not in npm test; MILLRACE_KAFKA_CHAOS asks for it alone.
const ASKED_FOR = process.env.npm_lifecycle_event === 'test:chaos' || process.env.MILLRACE_KAFKA_CHAOS !== undefined;
const LEFT_OUT = !ASKED_FOR || NO_KAFKA;
const CLIENTS = [kafkajs(), platformatic()];

describe.skipIf(LEFT_OUT)('Both clients', () => {
  it('go on through a broker that stands still for longer than a request may take', async () => {
    const broker = await KafkaBroker.start();
    try {
      const trouble = (async () => {
        await sleep(300);
        broker.pause();
        await sleep(7500);
        broker.resume();
      })();
      await Promise.all(CLIENTS.map((client) => throughTrouble(client, broker.brokers, trouble)));
    } finally {
      await broker.close();
    }
  });
});

describe.skipIf(LEFT_OUT)('Kafka 3.9.2:', () => {
  let broker: Promise<KafkaBroker> | undefined;
  const brokers = async (): Promise<readonly string[]> => {
    broker ??= KafkaBroker.start({ version: '3.9.2' });
    return (await broker).brokers;
  };
  afterAll(async () => (await broker)?.close());
  for (const client of CLIENTS) clientContract(client.kind, client, brokers);
});

describe.skipIf(LEFT_OUT).each<KafkaVersion>(['4.3.1', '3.9.2'])('Three brokers of Kafka %s', (version) => {
  it.each(CLIENTS)(
    'are killed in turn, and $kind goes on',
    async (client) => {
      const cluster = await KafkaCluster.start({ version });
      try {
        const trouble = (async () => {
          for (const node of [...cluster.nodes, ...cluster.nodes]) {
            await sleep(1500);
            await node.kill();
            await sleep(2500);
            await node.up();
          }
          await sleep(1000);
        })();
        await throughTrouble(client, cluster.brokers, trouble);
      } finally {
        await cluster.close();
      }
    },
    240_000,
  );
});
