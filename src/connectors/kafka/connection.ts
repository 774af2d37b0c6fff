// What every part of this connector is told about the brokers, and how it becomes a cluster.

import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../graph/context.ts';
import { type Cluster, isAdapter, type KafkaAdapter, type KafkaClient } from './client.ts';

/** Which brokers, and who we are. */
export interface KafkaConnection {
  /** `host:port`; some of the cluster are enough. */
  brokers: string[];
  /** What brokers see in their logs and quotas; 'millrace' by default. */
  clientId?: string;
  /** TLS: true, or the options of `tls.connect`. */
  ssl?: boolean | object;
  /** `{ mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512', username, password }`. */
  sasl?: { mechanism: string; [option: string]: unknown };
  /** `kafkajs()` by default. */
  client?: KafkaClient;
}

/** How long a call goes on trying before it fails. */
const TIMEOUT_MS = 30_000;

/** The library that the user chose, or that which is meant where nothing is said. Throws OPTION_INVALID; `who` is the function that was called. */
export function adapterOf(who: string, { brokers, client }: KafkaConnection, byDefault: () => KafkaAdapter): KafkaAdapter {
  if (!Array.isArray(brokers) || brokers.length === 0 || brokers.some((broker) => typeof broker !== 'string' || broker === '')) {
    throw new MillraceError('OPTION_INVALID', `${who} needs brokers.`, { todo: "Give addresses such as brokers: ['localhost:9092']." });
  }
  const adapter = client ?? byDefault();
  if (!isAdapter(adapter)) {
    throw new MillraceError('OPTION_INVALID', `${who} is given a client that is none of this package.`, {
      todo: 'Give kafkajs() or platformatic(), or leave it out.',
    });
  }
  return adapter;
}

/** Resolves once a broker has answered. */
export function connectTo(adapter: KafkaAdapter, { brokers, clientId = 'millrace', ssl, sasl }: KafkaConnection, log: Logger): Promise<Cluster> {
  return adapter.connect({ brokers, clientId, ssl, sasl, timeoutMs: TIMEOUT_MS, log });
}
