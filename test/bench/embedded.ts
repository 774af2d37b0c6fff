// A service that answers HTTP while the word count runs at full speed in the same thread: one JSON line with the event loop's delay, the latency of
// requests as another process sees it, and what is left of the speed. The same requests without a job running are printed beside it.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { Agent, createServer, get } from 'node:http';
import type { AddressInfo } from 'node:net';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { job, memory } from 'millrace';
import { type Count, counting } from './harness/counting-sink.ts';
import { delays, print, type Quantiles, quantiles, tell } from './harness/figures.ts';
import { inMemory } from './harness/measured-source.ts';
import { WORKLOADS } from './harness/workloads.ts';

const EVERY_MS = 5;
const MEASURED_MS = 10_000;
const WARM_UP_MS = 2000;
const RECORDS = 1_000_000;

/** In the other process: a request every few milliseconds for as long as is asked for, over kept connections. */
async function ask(port: number, ms: number): Promise<Quantiles | undefined> {
  const agent = new Agent({ keepAlive: true });
  const took: number[] = [];
  const open: Promise<void>[] = [];
  const until = performance.now() + ms;
  while (performance.now() < until) {
    const begun = performance.now();
    open.push(
      new Promise((resolve, reject) => {
        get({ port, host: '127.0.0.1', agent }, (response) => {
          response.resume();
          response.on('end', () => {
            took.push(performance.now() - begun);
            resolve();
          });
        }).on('error', reject);
      }),
    );
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
  await Promise.all(open);
  agent.destroy();
  return quantiles(took);
}

async function serve(): Promise<void> {
  const server = createServer((_request, response) => response.end('ok\n'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const client = fork(fileURLToPath(import.meta.url), ['client'], { execArgv: process.execArgv });
  await once(client, 'message');
  const measure = async (ms: number): Promise<Quantiles> => {
    client.send({ port, ms });
    const [answer] = (await once(client, 'message')) as [Quantiles];
    return answer;
  };

  tell('embedded: requests without a job');
  await measure(WARM_UP_MS);
  const idle = await measure(MEASURED_MS / 2);

  const workload = WORKLOADS.wc!;
  const input = workload.input(RECORDS);
  const held = Array.from({ length: RECORDS }, (_, i) => input.make(i));
  const count: Count = { results: 0, last: 0 };
  const running = await job('embedded', (env) => workload.build(env, inMemory(input, held, Number.MAX_SAFE_INTEGER, 1), counting(count))).start({
    state: memory(),
  });
  tell('embedded: requests beside a job at full speed');
  await measure(WARM_UP_MS);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const [before, begun] = [count.results, performance.now()];
  const busy = await measure(MEASURED_MS);
  delay.disable();
  const recordsPerSecond = Math.round(((count.results - before) * 1000) / (performance.now() - begun));
  await running.cancel();
  client.send('end');
  server.close();
  print({
    bench: 'embedded',
    backend: 'memory',
    workload: 'wc',
    recordsPerSecond,
    eventLoopDelayMs: delays(delay, 1),
    requestMs: busy,
    requestWithoutJobMs: idle,
  });
}

if (process.argv[2] === 'client') {
  process.on('message', (message: { port: number; ms: number } | 'end') => {
    if (message === 'end') process.disconnect();
    else ask(message.port, message.ms).then((answer) => process.send!(answer));
  });
  process.send!('ready');
} else await serve();
