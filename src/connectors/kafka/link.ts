// A connection to one broker, as a client library makes it: the library's part of our client.
//
// Who: `kafkajs-client.ts` and `platformatic-client.ts` dial: they open the socket, speak TLS, authenticate, number requests and give each its answer.
// What the requests say, which broker gets them, and what is done when one fails is ours (requests.ts, brokers.ts, cluster.ts), and so it is the same
// under both libraries.
//
// Invariants:
//  L1  requests of one link are answered in the order they were sent: one that the broker holds back (a fetch that waits) holds back what comes behind it.
//  L2  a link that has failed is closed, every request under way on it throws, and it is never used again.
//  L3  `close` ends its socket and its timers in the same step, and does not wait for answers.

import type { ClientSettings } from './client.ts';

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface RawCall {
  readonly apiKey: number;
  readonly name: string;
  readonly version: number;
  /** Header with tagged fields, of request and answer. */
  readonly flexible: boolean;
  readonly body: Buffer;
}

export interface Link {
  readonly open: boolean;
  /** Gives the answer behind its header; throws a KafkaError, and is closed then. */
  request(call: RawCall): Promise<Buffer>;
  close(): void;
}

export interface DialOptions {
  readonly address: Address;
  readonly settings: ClientSettings;
  /** For the socket and who we are, each. */
  readonly timeoutMs: number;
  /** Aborted: the attempt is given up, with what it has opened. */
  readonly signal: AbortSignal;
}

/** Resolves when requests can be sent: connected, encrypted, authenticated. Throws a KafkaError. */
export type Dial = (options: DialOptions) => Promise<Link>;
