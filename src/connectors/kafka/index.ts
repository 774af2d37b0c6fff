// millrace/kafka: Kafka as source and sink, and the client libraries that it can stand on.

export type { KafkaClient } from './client.ts';
export type { KafkaConnection } from './connection.ts';
export { kafka } from './kafka.ts';
export { kafkajs } from './kafkajs-client.ts';
export { platformatic } from './platformatic-client.ts';
export type { KafkaRecord } from './records.ts';
export type { KafkaSinkOptions } from './sink.ts';
export type { KafkaSourceOptions } from './source.ts';
