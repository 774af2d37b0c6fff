// `npm run services [kafka|zookeeper|redis|postgres …]`: starts them for a person, prints the addresses, and stops them at Ctrl-C. Without names: all that can be had.

import { KafkaBroker, NO_KAFKA } from './kafka.ts';
import { NO_OWN_POSTGRES, PostgresServer } from './postgres.ts';
import { NO_OWN_REDIS, RedisServer } from './redis.ts';
import { NO_ZOOKEEPER, ZooKeeperServer } from './zookeeper.ts';

interface Running {
  /** What a test run takes it from. */
  readonly variable: string;
  readonly address: string;
  close(): Promise<void>;
}

interface Service {
  readonly absent: boolean;
  start(): Promise<Running>;
}

const SERVICES: Readonly<Record<string, Service>> = {
  kafka: {
    absent: NO_KAFKA,
    async start() {
      const broker = await KafkaBroker.start();
      return { variable: 'KAFKA_BROKERS', address: broker.brokers.join(','), close: () => broker.close() };
    },
  },
  zookeeper: {
    absent: NO_ZOOKEEPER,
    async start() {
      const server = await ZooKeeperServer.start();
      return { variable: 'ZOOKEEPER_CONNECT', address: server.connect, close: () => server.close() };
    },
  },
  redis: {
    absent: NO_OWN_REDIS,
    async start() {
      const server = await RedisServer.start();
      return { variable: 'REDIS_URL', address: server.url, close: () => server.close() };
    },
  },
  postgres: {
    absent: NO_OWN_POSTGRES,
    async start() {
      const server = await PostgresServer.start();
      return { variable: 'POSTGRES_URL', address: server.url, close: () => server.close() };
    },
  },
};

const named = process.argv.slice(2);
const unknown = named.filter((name) => !(name in SERVICES));
if (unknown.length > 0) {
  console.error(`There is no service '${unknown[0]}'. There are: ${Object.keys(SERVICES).join(', ')}.`);
  process.exit(2);
}
const wanted = named.length > 0 ? named : Object.keys(SERVICES).filter((name) => !SERVICES[name]!.absent);
const running: Running[] = [];
let stopping = false;

async function stop(): Promise<void> {
  if (stopping) return;
  stopping = true;
  await Promise.all(running.map((server) => server.close()));
  process.exit(process.exitCode ?? 0);
}
process.on('SIGINT', () => void stop());
process.on('SIGTERM', () => void stop());

try {
  await Promise.all(
    wanted.map(async (name) => {
      const server = await SERVICES[name]!.start();
      running.push(server);
      console.log(`export ${server.variable}=${server.address}`);
    }),
  );
  console.log('# Ctrl-C stops them.');
  // Servers hold no process up.
  setInterval(() => {}, 1 << 30);
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
  await stop();
}
