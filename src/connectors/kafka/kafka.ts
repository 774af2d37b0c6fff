// The parts of the Kafka connector under one name.

import type { Sink, TransactionalSink } from '../../graph/sink.ts';
import type { Source } from '../../graph/source.ts';
import type { KafkaAdapter } from './client.ts';
import { kafkajs } from './kafkajs-client.ts';
import type { KafkaRecord } from './records.ts';
import { type KafkaSinkOptions, kafkaSink } from './sink.ts';
import { type KafkaSourceOptions, kafkaRecords, kafkaSource } from './source.ts';

const PORTS = { client: () => kafkajs() as KafkaAdapter };

/**
 * Kafka topics as source and as sink. What is read from Kafka and written to it is written exactly once, for readers with `read_committed`.
 * @example
 * const copy = job('copy', (env) => {
 *   const orders = env.source('orders', kafka.source<{ id: string; total: number }>({ brokers: ['localhost:9092'], topic: 'orders' }));
 *   orders.filter((order) => order.total > 100).sink('large', kafka.sink({ brokers: ['localhost:9092'], topic: 'large-orders', key: (order) => order.id }));
 * });
 * assert.equal(copy.name, 'copy');
 */
export const kafka = {
  /**
   * Reads the values of topics: every partition is a split, and where it goes on stands in our checkpoints. Unbounded without `until`; tombstones are passed over.
   *
   * @throws OPTION_INVALID; in the job KAFKA_UNREACHABLE, KAFKA_AUTHENTICATION, KAFKA_FORBIDDEN, KAFKA_TOPIC_MISSING, KAFKA_OFFSET_LOST, TOPIC_RECREATED. A record that does
   * not decode is a dead letter.
   * @example
   * const source = kafka.source<{ total: number }>({ brokers: ['localhost:9092'], topic: /^orders-/, until: 'end' });
   * assert.equal(source.bounded, true);
   */
  source: <T>(options: KafkaSourceOptions<T>): Source<T> => kafkaSource(options, PORTS) as Source<T>,
  /**
   * The same with whole records: key, headers, topic, partition, offset, timestamp; the value of a tombstone is null.
   *
   * @throws OPTION_INVALID, and in the job what `kafka.source()` throws.
   * @example
   * const source = kafka.records<{ total: number }>({ brokers: ['localhost:9092'], topic: ['orders', 'returns'], from: 'latest' });
   * assert.equal(source.bounded, false);
   */
  records: <T>(options: KafkaSourceOptions<T>): Source<KafkaRecord<T | null>> => kafkaRecords(options, PORTS) as Source<KafkaRecord<T | null>>,
  /**
   * Writes records, exactly once unless `guarantee` says otherwise: each checkpoint's in transactions of its own.
   *
   * @throws OPTION_INVALID; SINK_NEVER_COMMITS at the start of an unbounded job without checkpoints; in the job KAFKA_UNREACHABLE, KAFKA_AUTHENTICATION,
   * KAFKA_FORBIDDEN, KAFKA_TOPIC_MISSING, KAFKA_FENCED, KAFKA_RECORD_TOO_LARGE, KAFKA_COMPRESSION, KAFKA_MARKER_TOPIC, KAFKA_TRANSACTION_TIMEOUT, MARKER_LOST.
   * @example
   * const sink = kafka.sink<{ id: string }>({ brokers: ['localhost:9092'], topic: 'orders', key: (order) => order.id, compression: 'gzip' });
   * assert.ok(sink);
   */
  sink: <T>(options: KafkaSinkOptions<T>): Sink<T> | TransactionalSink<T> => kafkaSink(options, PORTS) as Sink<T> | TransactionalSink<T>,
};
