// A process that runs docs/examples/kafka-windows.ts, from its newest checkpoint on, and is killed or stopped on its way by MILLRACE_FAULTS or from outside. Its one
// argument is its settings; when its run ends by itself it says how, as JSON.

import { kafkaWindows, type Places } from '../../docs/examples/kafka-windows.ts';

export interface KafkaSettings {
  readonly places: Places;
  readonly checkpoints: string;
  readonly parallelism: number;
  readonly every: number;
  /** Restarts that are allowed; 20 by default. */
  readonly restarts?: number;
}

const { places, checkpoints, parallelism, every, restarts: max = 20 } = JSON.parse(process.argv[2]!) as KafkaSettings;
let restarts = 0;
let completed = 0;
const running = await kafkaWindows(places).start({
  parallelism,
  checkpoints: { directory: checkpoints, every },
  restarts: { max, within: 60_000, backoff: { initial: 50, max: 1000, factor: 2, jitter: 0.1 } },
  onEvent: (event) => {
    if (event.type === 'restart') restarts += 1;
    if (event.type === 'checkpoint') completed += 1;
  },
  logger: { ...console, debug: () => {}, info: () => {}, warn: console.error, error: console.error },
});
const { status } = await running.finished;
process.stdout.write(JSON.stringify({ status, restarts, checkpoints: completed }));
