// millrace/kafka: Kafka as source and sink, and the client libraries that it can stand on.

export type { KafkaClient } from './client.ts';
export { kafkajs } from './kafkajs-client.ts';
export { platformatic } from './platformatic-client.ts';
