// What goes wrong with Kafka, as errors with codes: what brokers answer, and what client libraries throw while they connect.
//
// What: a broker's error is a number; TABLE says of each that we can meet what it means for a user (a code) and for us (`again`: what has to be done before the
// same is tried again). Libraries throw while they connect only (link.ts): why, is read from the chain of causes, since each wraps it differently.
//
// Invariant: an error that has `again` is transient. Whoever retries it to the end throws the last one, so its code says what is wrong for longer.

import { type ErrorCode, type ErrorDetails, MillraceError, messageOf } from '../../errors.ts';
import type { Address } from './link.ts';

/** What helps: nothing but time, to ask who leads the partition, or to ask who coordinates. */
export type Again = 'later' | 'metadata' | 'coordinator';

export class KafkaError extends MillraceError {
  readonly again: Again | undefined;
  /** The broker's error, where it was one: `NOT_LEADER_OR_FOLLOWER`. */
  readonly answer: string | undefined;

  constructor(code: ErrorCode, said: string, details: ErrorDetails & { readonly again?: Again | undefined; readonly answer?: string }) {
    super(code, said, { todo: TODO[code], ...details });
    this.again = details.again;
    this.answer = details.answer;
  }
}

const TODO: Partial<Record<ErrorCode, string>> = {
  KAFKA_UNREACHABLE: 'Do the brokers run, are `brokers` and their advertised listeners right, and do they want `ssl` or `sasl`?',
  KAFKA_AUTHENTICATION: 'Correct user and password in `sasl`, and look which mechanisms the listener takes.',
  KAFKA_FORBIDDEN: 'Give the user this right (an ACL).',
  KAFKA_TOPIC_MISSING: 'Create the topic, or correct its name.',
  KAFKA_OFFSET_LOST: 'Choose with `onOffsetLost` where to go on, or keep records longer.',
  KAFKA_FENCED: 'Nothing, where a restart overtook this writer; else stop the second process that writes under this identity.',
  KAFKA_RECORD_TOO_LARGE: 'Raise `max.message.bytes` of the topic, or write smaller records.',
  KAFKA_TIMESTAMP: 'Raise `message.timestamp.after.max.ms` or `before` of the topic, or set its `message.timestamp.type` to LogAppendTime.',
  KAFKA_COMPRESSION: 'Use another compression, or a Node version that has it.',
  KAFKA_CORRUPT: 'Look after the disk and the network of this broker.',
  KAFKA_VERSION: 'Use brokers from Kafka 3.1 on.',
  KAFKA_REFUSED: 'Look at the answer of the broker.',
  KAFKA_FAILED: 'Look at the state and the log of the brokers.',
};

interface Meaning {
  readonly name: string;
  readonly code: ErrorCode;
  readonly again?: Again;
}

const TABLE: Readonly<Record<number, Meaning>> = {
  [-1]: { name: 'UNKNOWN_SERVER_ERROR', code: 'KAFKA_FAILED', again: 'later' },
  1: { name: 'OFFSET_OUT_OF_RANGE', code: 'KAFKA_OFFSET_LOST' },
  2: { name: 'CORRUPT_MESSAGE', code: 'KAFKA_CORRUPT', again: 'later' },
  3: { name: 'UNKNOWN_TOPIC_OR_PARTITION', code: 'KAFKA_TOPIC_MISSING', again: 'metadata' },
  5: { name: 'LEADER_NOT_AVAILABLE', code: 'KAFKA_FAILED', again: 'metadata' },
  6: { name: 'NOT_LEADER_OR_FOLLOWER', code: 'KAFKA_FAILED', again: 'metadata' },
  7: { name: 'REQUEST_TIMED_OUT', code: 'KAFKA_FAILED', again: 'later' },
  8: { name: 'BROKER_NOT_AVAILABLE', code: 'KAFKA_FAILED', again: 'metadata' },
  9: { name: 'REPLICA_NOT_AVAILABLE', code: 'KAFKA_FAILED', again: 'metadata' },
  10: { name: 'MESSAGE_TOO_LARGE', code: 'KAFKA_RECORD_TOO_LARGE' },
  13: { name: 'NETWORK_EXCEPTION', code: 'KAFKA_FAILED', again: 'metadata' },
  14: { name: 'COORDINATOR_LOAD_IN_PROGRESS', code: 'KAFKA_FAILED', again: 'later' },
  15: { name: 'COORDINATOR_NOT_AVAILABLE', code: 'KAFKA_FAILED', again: 'coordinator' },
  16: { name: 'NOT_COORDINATOR', code: 'KAFKA_FAILED', again: 'coordinator' },
  17: { name: 'INVALID_TOPIC_EXCEPTION', code: 'KAFKA_REFUSED' },
  18: { name: 'RECORD_LIST_TOO_LARGE', code: 'KAFKA_RECORD_TOO_LARGE' },
  19: { name: 'NOT_ENOUGH_REPLICAS', code: 'KAFKA_FAILED', again: 'later' },
  20: { name: 'NOT_ENOUGH_REPLICAS_AFTER_APPEND', code: 'KAFKA_FAILED', again: 'later' },
  29: { name: 'TOPIC_AUTHORIZATION_FAILED', code: 'KAFKA_FORBIDDEN' },
  30: { name: 'GROUP_AUTHORIZATION_FAILED', code: 'KAFKA_FORBIDDEN' },
  31: { name: 'CLUSTER_AUTHORIZATION_FAILED', code: 'KAFKA_FORBIDDEN' },
  32: { name: 'INVALID_TIMESTAMP', code: 'KAFKA_TIMESTAMP' },
  33: { name: 'UNSUPPORTED_SASL_MECHANISM', code: 'KAFKA_AUTHENTICATION' },
  34: { name: 'ILLEGAL_SASL_STATE', code: 'KAFKA_AUTHENTICATION' },
  35: { name: 'UNSUPPORTED_VERSION', code: 'KAFKA_VERSION' },
  36: { name: 'TOPIC_ALREADY_EXISTS', code: 'KAFKA_REFUSED' },
  37: { name: 'INVALID_PARTITIONS', code: 'KAFKA_REFUSED' },
  38: { name: 'INVALID_REPLICATION_FACTOR', code: 'KAFKA_REFUSED' },
  39: { name: 'INVALID_REPLICA_ASSIGNMENT', code: 'KAFKA_REFUSED' },
  40: { name: 'INVALID_CONFIG', code: 'KAFKA_REFUSED' },
  41: { name: 'NOT_CONTROLLER', code: 'KAFKA_FAILED', again: 'metadata' },
  42: { name: 'INVALID_REQUEST', code: 'KAFKA_REFUSED' },
  44: { name: 'POLICY_VIOLATION', code: 'KAFKA_REFUSED' },
  45: { name: 'OUT_OF_ORDER_SEQUENCE_NUMBER', code: 'KAFKA_FAILED' },
  47: { name: 'INVALID_PRODUCER_EPOCH', code: 'KAFKA_FENCED' },
  48: { name: 'INVALID_TXN_STATE', code: 'KAFKA_FENCED' },
  49: { name: 'INVALID_PRODUCER_ID_MAPPING', code: 'KAFKA_FENCED' },
  50: { name: 'INVALID_TRANSACTION_TIMEOUT', code: 'KAFKA_REFUSED' },
  51: { name: 'CONCURRENT_TRANSACTIONS', code: 'KAFKA_FAILED', again: 'later' },
  53: { name: 'TRANSACTIONAL_ID_AUTHORIZATION_FAILED', code: 'KAFKA_FORBIDDEN' },
  54: { name: 'SECURITY_DISABLED', code: 'KAFKA_REFUSED' },
  56: { name: 'KAFKA_STORAGE_ERROR', code: 'KAFKA_FAILED', again: 'metadata' },
  58: { name: 'SASL_AUTHENTICATION_FAILED', code: 'KAFKA_AUTHENTICATION' },
  59: { name: 'UNKNOWN_PRODUCER_ID', code: 'KAFKA_FAILED' },
  74: { name: 'FENCED_LEADER_EPOCH', code: 'KAFKA_FAILED', again: 'metadata' },
  75: { name: 'UNKNOWN_LEADER_EPOCH', code: 'KAFKA_FAILED', again: 'metadata' },
  76: { name: 'UNSUPPORTED_COMPRESSION_TYPE', code: 'KAFKA_COMPRESSION' },
  78: { name: 'OFFSET_NOT_AVAILABLE', code: 'KAFKA_FAILED', again: 'later' },
  87: { name: 'INVALID_RECORD', code: 'KAFKA_REFUSED' },
  89: { name: 'THROTTLING_QUOTA_EXCEEDED', code: 'KAFKA_FAILED', again: 'later' },
  90: { name: 'PRODUCER_FENCED', code: 'KAFKA_FENCED' },
  100: { name: 'UNKNOWN_TOPIC_ID', code: 'KAFKA_TOPIC_MISSING', again: 'metadata' },
  103: { name: 'INCONSISTENT_TOPIC_ID', code: 'KAFKA_TOPIC_MISSING', again: 'metadata' },
};

/** What a broker answered to `what`, such as «produce to 'orders' 3»; `explained`: the broker's own words. */
export function answered(number: number, what: string, explained?: string | null): KafkaError {
  const { name, code, again } = TABLE[number] ?? { name: `error ${number}`, code: 'KAFKA_FAILED' as const };
  const words = explained === undefined || explained === null || explained === '' ? '' : `: ${explained}`;
  return new KafkaError(code, `Kafka answered ${name} to ${what}${words}.`, { again, answer: name });
}

export function unreachable(said: string, cause: unknown): KafkaError {
  // Also where the cause is a dial that we gave up ourselves.
  return new KafkaError('KAFKA_UNREACHABLE', said, { cause, again: 'metadata', retryable: true });
}

/** `missing`: rights as ACLs have them, each with what it is on. */
export function forbidden(who: string, missing: readonly string[], uid: string, cause?: unknown): MillraceError {
  return new MillraceError(
    'KAFKA_FORBIDDEN',
    `${who} has not all the rights that it needs: missing ${missing.length === 1 ? 'is' : 'are'} ${missing.join(', ')}.`,
    {
      todo: `Give ${missing.length === 1 ? 'it' : 'them'} to the user of \`sasl\` by ACLs.`,
      uid,
      ...(cause === undefined ? {} : { cause }),
    },
  );
}

export function closed(): KafkaError {
  return new KafkaError('KAFKA_CLOSED', 'The connection to Kafka was closed while it was in use.', {});
}

/** Certificates that do not fit are the same at every try. */
const TLS_CODES = /^(CERT_|ERR_TLS_|ERR_SSL_|ERR_OSSL|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|HOSTNAME_MISMATCH|EPROTO$)/;
const SASL_WORDS = /sasl|authentication/i;
/** Libraries also call it so when the connection breaks off in the middle; brokers that refuse somebody answer that they do. */
const BROKEN_OFF = /closed connection|connection (closed|error|timeout)|closed the connection|it was closed|timed out|ECONN|EPIPE/i;

/** Why a library could not connect. */
export function notConnected(error: unknown, { host, port }: Address): KafkaError {
  if (error instanceof KafkaError) return error;
  const at = `${host}:${port}`;
  const chain = causes(error);
  const tls = chain.find((one) => typeof codeOf(one) === 'string' && TLS_CODES.test(codeOf(one) as string));
  if (tls !== undefined) {
    return new KafkaError('KAFKA_UNREACHABLE', `No encrypted connection to ${at} came about: ${messageOf(tls)}.`, {
      cause: error,
      retryable: false,
      todo: 'Look at `ssl`: whether the listener speaks TLS, and whether `ca`, `cert`, `key` and the name of the host fit.',
    });
  }
  const refused = chain.find((one) => one instanceof Error && SASL_WORDS.test(`${one.name} ${one.message} ${String(codeOf(one))}`));
  if (refused !== undefined && !BROKEN_OFF.test(messageOf(refused)))
    return new KafkaError('KAFKA_AUTHENTICATION', `The broker at ${at} did not accept who we are: ${messageOf(refused)}.`, { cause: error });
  return unreachable(`No connection to ${at} came about: ${messageOf(chain.at(-1))}.`, error);
}

/** The outermost first; an error of several is followed into its first. */
function causes(error: unknown): unknown[] {
  const chain: unknown[] = [];
  for (let at = error, depth = 0; at !== undefined && at !== null && depth < 10; depth++) {
    chain.push(at);
    const { cause, errors } = at as { cause?: unknown; errors?: unknown };
    at = cause ?? (Array.isArray(errors) ? errors[0] : undefined);
  }
  return chain;
}

function codeOf(error: unknown): unknown {
  return typeof error === 'object' && error !== null ? (error as { code?: unknown }).code : undefined;
}
