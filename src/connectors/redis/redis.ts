// The parts of the Redis connector under one name. The package `redis` is loaded by the first of them that connects.

import type { Sink, TransactionalSink } from '../../graph/sink.ts';
import type { Source } from '../../graph/source.ts';
import type { Lookup } from '../lookup.ts';
import { type RedisLookupOptions, redisLookup } from './lookup.ts';
import { type RedisHashesOptions, type RedisKeysOptions, type RedisSinkOptions, redisHashes, redisKeys, redisSink } from './sinks.ts';
import { type RedisEntry, type RedisSourceOptions, type RedisStreamsOptions, redisEntries, redisSource } from './source.ts';
import { type RedisStreamOptions, redisStream } from './stream-sink.ts';

/**
 * Redis: streams as source and, exactly once, as sink; commands, keys and hashes; lookups for `asyncMap`. Install `redis` 6 beside Millrace.
 * @example
 * const url = 'redis://localhost';
 * const totals = job('totals', (env) => {
 *   env
 *     .source('orders', redis.source<{ customer: string; total: number }>({ url, stream: 'orders' }))
 *     .keyBy((order) => order.customer)
 *     .reduce('sum', (sum, order) => ({ ...sum, total: sum.total + order.total }))
 *     .sink('totals', redis.keys({ url, key: (sum) => `total:${sum.customer}` }));
 * });
 * assert.equal(totals.name, 'totals');
 */
export const redis = {
  /**
   * Reads streams, each from a position in our checkpoints, without a consumer group. The record is one field of an entry; the time in the entry's id its timestamp.
   *
   * @throws OPTION_INVALID; PACKAGE_MISSING, REDIS_UNREACHABLE, REDIS_REFUSED, STREAM_TRIMMED in the job. A record that does not decode is a dead letter.
   * @example
   * const orders = redis.source<{ total: number }>({ url: 'redis://localhost', stream: ['orders-eu', 'orders-us'], from: 'latest' });
   * assert.equal(orders.bounded, false);
   */
  source: <T>(options: RedisSourceOptions<T>): Source<T> => redisSource(options) as Source<T>,
  /**
   * Reads whole entries of streams, as text.
   *
   * @throws OPTION_INVALID; PACKAGE_MISSING, REDIS_UNREACHABLE, REDIS_REFUSED, STREAM_TRIMMED in the job.
   * @example
   * const entries = redis.entries({ url: 'redis://localhost', stream: 'orders', until: 'end' });
   * assert.equal(entries.bounded, true);
   */
  entries: (options: RedisStreamsOptions): Source<RedisEntry> => redisEntries(options) as Source<RedisEntry>,
  /**
   * Sends a command for each record, at least once: after a restart those since the last checkpoint come again.
   *
   * @throws OPTION_INVALID; PACKAGE_MISSING, REDIS_UNREACHABLE, REDIS_REFUSED in the job.
   * @example
   * const seen = redis.sink<{ host: string }>({ url: 'redis://localhost', command: ({ host }) => ['SADD', 'hosts', host] });
   * assert.equal(typeof seen.open, 'function');
   */
  sink: <T>(options: RedisSinkOptions<T>): Sink<T> => redisSink(options),
  /**
   * Sets a key for each record, at least once: a record that comes again sets the same.
   *
   * @throws OPTION_INVALID; PACKAGE_MISSING, REDIS_UNREACHABLE, REDIS_REFUSED in the job.
   * @example
   * const latest = redis.keys<{ host: string; cpu: number }>({ url: 'redis://localhost', key: ({ host }) => `cpu:${host}`, expire: minutes(5) });
   * assert.equal(typeof latest.open, 'function');
   */
  keys: <T>(options: RedisKeysOptions<T>): Sink<T> => redisKeys(options),
  /**
   * Sets fields of a hash for each record, at least once: a record that comes again sets the same.
   *
   * @throws OPTION_INVALID; PACKAGE_MISSING, REDIS_UNREACHABLE, REDIS_REFUSED, RECORD_UNENCODABLE in the job.
   * @example
   * const hosts = redis.hashes<{ host: string; cpu: number }>({ url: 'redis://localhost', key: ({ host }) => `host:${host}`, fields: ({ cpu }) => ({ cpu }) });
   * assert.equal(typeof hosts.open, 'function');
   */
  hashes: <T>(options: RedisHashesOptions<T>): Sink<T> => redisHashes(options),
  /**
   * Adds an entry to a stream for each record, exactly once: those of a checkpoint together with a marker, as long as Redis keeps what it has answered.
   *
   * @throws OPTION_INVALID; SINK_NEVER_COMMITS at the start of an unbounded job without checkpoints; PACKAGE_MISSING, REDIS_UNREACHABLE, REDIS_REFUSED,
   * WRITER_FENCED, MARKER_LOST in the job.
   * @example
   * const alerts = redis.stream<{ host: string; cpu: number }>({ url: 'redis://localhost', stream: 'alerts', maxLength: 100_000 });
   * assert.equal(alerts.transactional, true);
   */
  stream: <T>(options: RedisStreamOptions<T>): TransactionalSink<T> => redisStream(options) as TransactionalSink<T>,
  /**
   * Values of keys, for `asyncMap`: remembered for a while, that there is none too, and asked for together. Connects when it is first asked.
   *
   * @throws OPTION_INVALID; what it is asked for rejects with PACKAGE_MISSING, REDIS_UNREACHABLE, REDIS_REFUSED or RECORD_UNDECODABLE.
   * @example
   * const customers = redis.lookup<{ name: string }>({ url: 'redis://localhost', prefix: 'customer:', cache: { size: 1000 } });
   * const named = job('named', (env) => {
   *   env
   *     .fromArray('orders', [{ customer: 7, total: 12 }])
   *     .asyncMap('customer', async (order) => ({ ...order, name: (await customers.get(order.customer))?.name }))
   *     .sink('out', print());
   * });
   * assert.equal(named.name, 'named');
   */
  lookup: <R>(options: RedisLookupOptions<R>): Lookup<string | number, R> => redisLookup<R>(options),
};
