// Writers of Kafka sinks as tests open them.

import type { KafkaAdapter } from '../../../src/connectors/kafka/client.ts';
import type { KafkaRow } from '../../../src/connectors/kafka/rows.ts';
import { type KafkaSinkOptions, kafkaSink } from '../../../src/connectors/kafka/sink.ts';
import { SILENT } from '../../../src/graph/context.ts';
import type { SinkContext, TransactionalSink, TransactionalWriter } from '../../../src/graph/sink.ts';
import { systemIo, withFaults } from '../../../src/runtime/io.ts';

export function contextOf(options: Partial<SinkContext> = {}): SinkContext {
  return {
    uid: 'out',
    job: 'job',
    writer: '0',
    lineage: 'one',
    attempt: 1,
    restored: undefined,
    signal: new AbortController().signal,
    log: SILENT,
    metrics: { counter: () => ({ inc() {} }), gauge() {}, histogram: () => ({ record() {} }) },
    ...options,
  };
}

export type Writer<T> = TransactionalWriter<T, KafkaRow>;

export function exactlyOnce<T>(client: KafkaAdapter, options: Partial<KafkaSinkOptions<T>> = {}, faults?: string): TransactionalSink<T, KafkaRow> {
  const io = faults === undefined ? systemIo() : withFaults(systemIo(), faults);
  return kafkaSink<T>({ brokers: ['memory:1'], topic: 'out', ...options }, { client: () => client, io }) as TransactionalSink<T, KafkaRow>;
}

/** Encodes the values and commits them. */
export function commit<T>(writer: Writer<T>, checkpoint: number, values: readonly T[], timestamp = 1_000): Promise<void> {
  return writer.commit(
    checkpoint,
    values.map((value) => writer.encode!(value, timestamp)),
  );
}
