// Both libraries under the contract, and who may connect at all.

import { describe, expect, it } from 'vitest';
import { notConnected } from '../../../src/connectors/kafka/errors.ts';
import { kafkajs } from '../../../src/connectors/kafka/kafkajs-client.ts';
import { platformatic } from '../../../src/connectors/kafka/platformatic-client.ts';
import { KAFKA_USER, kafkaForTests, NO_KAFKA, securedKafkaForTests } from '../../services/kafka.ts';
import { freePorts } from '../../services/ports.ts';
import { clientContract, codeThrown, connect, freshTopic, record, valuesFrom } from './client-contract.ts';

const CLIENTS = [kafkajs(), platformatic()];

describe.skipIf(NO_KAFKA)('against Kafka', () => {
  for (const client of CLIENTS) clientContract(client.kind, client, kafkaForTests);

  describe.skipIf(process.env.KAFKA_BROKERS !== undefined).each(CLIENTS)('secured listeners, with $kind:', (client) => {
    const writesAndReads = async (brokers: readonly string[], more: object): Promise<string[]> => {
      const cluster = await connect(client, brokers, more);
      try {
        const topic = await freshTopic(cluster);
        const producer = await cluster.producer({});
        await producer.send([record(topic, 0, 'x')]);
        return await valuesFrom(cluster, topic);
      } finally {
        await cluster.close();
      }
    };

    it('TLS', async () => {
      const { tls, ca } = await securedKafkaForTests();
      expect(await writesAndReads(tls, { ssl: { ca } })).toEqual(['x']);
    });

    it.each(['plain', 'scram-sha-256', 'scram-sha-512'])('TLS and %s', async (mechanism) => {
      const { saslTls, ca } = await securedKafkaForTests();
      expect(await writesAndReads(saslTls, { ssl: { ca }, sasl: { mechanism, ...KAFKA_USER } })).toEqual(['x']);
    });

    it.each(['plain', 'scram-sha-256'])('a wrong password by %s is told at once', async (mechanism) => {
      const { sasl } = await securedKafkaForTests();
      const refused = connect(client, sasl, { sasl: { mechanism, ...KAFKA_USER, password: 'wrong' }, timeoutMs: 60_000 });
      await expect(refused).rejects.toMatchObject({ code: 'KAFKA_AUTHENTICATION', retryable: false });
    });

    it('a mechanism that the listener does not take is told at once', async () => {
      const { sasl } = await securedKafkaForTests();
      const token = { mechanism: 'oauthbearer', oauthBearerProvider: async () => ({ value: 'token' }), token: 'token' };
      expect(await codeThrown(connect(client, sasl, { sasl: token, timeoutMs: 60_000 }))).toBe('KAFKA_AUTHENTICATION');
    });

    it('a certificate that nobody vouches for is told at once', async () => {
      const { tls } = await securedKafkaForTests();
      const refused = connect(client, tls, { ssl: true, timeoutMs: 60_000 });
      await expect(refused).rejects.toMatchObject({ code: 'KAFKA_UNREACHABLE', retryable: false });
    });

    it('a listener that wants TLS, or that does not, is unreachable without saying so', async () => {
      const { tls, ca } = await securedKafkaForTests();
      expect(await codeThrown(connect(client, tls, { timeoutMs: 1500 }))).toBe('KAFKA_UNREACHABLE');
      expect(await codeThrown(connect(client, await kafkaForTests(), { ssl: { ca }, timeoutMs: 1500 }))).toBe('KAFKA_UNREACHABLE');
    });
  });

  it.each(CLIENTS)('finds a broker that answers beside one that does not, with $kind', async (client) => {
    const [port] = await freePorts(1);
    const cluster = await connect(client, [`127.0.0.1:${port}`, ...(await kafkaForTests())]);
    expect(await cluster.topics()).toBeInstanceOf(Array);
    await cluster.close();
  });
});

it.each(CLIENTS)('nobody there is KAFKA_UNREACHABLE, with $kind', async (client) => {
  const [port] = await freePorts(1);
  await expect(connect(client, [`127.0.0.1:${port}`], { timeoutMs: 500 })).rejects.toMatchObject({ code: 'KAFKA_UNREACHABLE', retryable: true });
});

it.each(['localhost', 'localhost:0', 'localhost:x', ''])("'%s' is no address of a broker", async (broker) => {
  expect(await codeThrown(connect(kafkajs(), [broker]))).toBe('OPTION_INVALID');
});

it('a connection that breaks off while it says who we are is no wrong password: it is tried again', () => {
  const at = { host: 'broker', port: 9092 };
  const said = (message: string) => Object.assign(new Error(message), { name: 'KafkaJSSASLAuthenticationError' });
  expect(notConnected(said('SASL PLAIN authentication failed: Closed connection'), at)).toMatchObject({ code: 'KAFKA_UNREACHABLE', retryable: true });
  expect(notConnected(said('SASL PLAIN authentication failed: Authentication failed: Invalid username or password'), at)).toMatchObject({
    code: 'KAFKA_AUTHENTICATION',
    retryable: false,
  });
});
