// Metrics of hosts from Kafka: mean CPU in windows of 5 minutes side by side, highest memory of the last 60 minutes each minute; both back to Kafka, exactly once.
//
// `npm run example:kafka` starts a broker, feeds this and shows what comes out. With a broker of your own (KAFKA_BROKERS, localhost:9092 by default) and the topics
// `metrics`, `cpu-5m` and `memory-60m` on it: `npx millrace run docs/examples/kafka-windows.ts`.

import { avg, job, max, minutes, seconds, sliding, tumbling } from 'millrace';
import { kafka } from 'millrace/kafka';

/** What stands in `metrics`, as JSON. */
export interface Sample {
  readonly host: string;
  /** Epoch ms. */
  readonly at: number;
  /** Percent. */
  readonly cpu: number;
  /** MB. */
  readonly memory: number;
}

export interface Places {
  readonly brokers: string[];
  readonly metrics?: string;
  readonly cpu?: string;
  readonly memory?: string;
  /** Until where `metrics` is read; for ever by default. */
  readonly until?: 'end' | { readonly offsets: Record<number, string> };
  /** For the sinks, such as a markerTopic of their own. */
  readonly sinks?: {
    readonly guarantee?: 'exactly-once' | 'at-least-once';
    readonly markerTopic?: string;
    readonly commitBytes?: number;
    readonly transactionTimeout?: number;
    readonly transactionalIdPrefix?: string;
  };
}

export function kafkaWindows({ brokers, metrics = 'metrics', cpu = 'cpu-5m', memory = 'memory-60m', until, sinks }: Places) {
  return job('kafka-windows', (env) => {
    const source = kafka.source<Sample>({ brokers, topic: metrics, ...(until === undefined ? {} : { until }) });
    const samples = env.source('samples', source, { timestamp: (sample) => sample.at, outOfOrderness: seconds(5), idleness: seconds(30) });
    const byHost = samples.keyBy((sample) => sample.host);
    byHost
      .window(tumbling(minutes(5)))
      .aggregate(
        'cpu-mean',
        avg((sample) => sample.cpu),
      )
      .sink('cpu', kafka.sink({ brokers, topic: cpu, key: (mean) => mean.key, ...sinks }));
    byHost
      .window(sliding(minutes(60), minutes(1)))
      .aggregate(
        'memory-max',
        max((sample) => sample.memory),
      )
      .sink('memory', kafka.sink({ brokers, topic: memory, key: (peak) => peak.key, ...sinks }));
  });
}

export default kafkaWindows({ brokers: (process.env.KAFKA_BROKERS ?? 'localhost:9092').split(',') });
