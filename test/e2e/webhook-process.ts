// A process that takes records by HTTP and writes them to files, from its newest checkpoint on. It is killed from outside; when its standard input ends, it stops in
// order. Its one argument is its settings.

import { job } from 'millrace';
import { files, http } from 'millrace/connectors';

export interface WebhookSettings {
  readonly port: number;
  readonly output: string;
  readonly checkpoints: string;
}

const { port, output, checkpoints } = JSON.parse(process.argv[2]!) as WebhookSettings;
const running = await job('webhook', (env) => {
  env
    .source('hooks', http.source<{ n: number }>({ port, path: '/in', acknowledge: 'checkpoint', idempotency: {} }))
    .sink('out', files.sink({ directory: output }));
}).start({ parallelism: 1, checkpoints: { directory: checkpoints, every: 20 } });
process.stdin.resume().once('end', () => void running.stop());
await running.finished;
