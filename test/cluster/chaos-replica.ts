// A replica of a service in a process of its own, as a user would write it, for test/chaos/cluster.test.ts. Its one argument is its settings. It says, a line each and with
// the time: `at <ms> started`, `at <ms> hosts <beginnings of ids of workers that have tasks>`, `at <ms> restart <code>`, `at <ms> status <status>`, `at <ms> finished <status>`.

import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { memory, type RunningJob } from 'millrace';
import { zookeeper } from 'millrace/zookeeper';
import type { Settings } from '../e2e/job-process.ts';
import { jobOf } from '../e2e/workloads.ts';

export interface ReplicaSettings extends Settings {
  readonly connect: string;
  readonly root: string;
  readonly sessionMs: number;
  readonly host: string;
  readonly port: number;
  readonly advertise: string;
  readonly slots: number;
  /** Sources take `pace` for a batch until that file is there, and none from then on. */
  readonly gate: string;
}

const settings = JSON.parse(process.argv[2]!) as ReplicaSettings;
const { workload, connect, root, sessionMs, host, port, advertise, slots, gate, parallelism, checkpoints, every } = settings;
const say = (line: string): void => void process.stdout.write(`at ${Date.now()} ${line}\n`);

async function pace(signal: AbortSignal): Promise<void> {
  const until = Date.now() + settings.pace;
  while (Date.now() < until && !existsSync(gate) && !signal.aborted) await sleep(20);
}

let handle: RunningJob | undefined;
async function sayHosts(): Promise<void> {
  // Whoever leads may be gone by then: the next one says it.
  const tree = await handle?.tree().catch(() => undefined);
  const hosts = new Set([...JSON.stringify(tree ?? '').matchAll(/"worker-([0-9a-f]{8})-\d+"/g)].map(([, id]) => id));
  if (hosts.size > 0) say(`hosts ${[...hosts].join(' ')}`);
}

const zk = zookeeper({ connect, root, sessionTimeout: sessionMs });
const running = await jobOf(workload, { ...settings, pace }).start({
  cluster: zk,
  module: import.meta.url,
  worker: { slots, host, port, advertise, secret: 'open sesame' },
  parallelism,
  checkpoints: { directory: checkpoints, every },
  restarts: { max: 1000, within: 600_000, backoff: { initial: 50, max: 1000 } },
  state: memory(),
  onEvent: (event) => {
    if (event.type === 'restart') say(`restart ${event.error.code}`);
    if (event.type === 'status') say(`status ${event.status}`);
    if (event.type === 'status' && event.status === 'running') void sayHosts();
  },
  logger: { debug: () => {}, info: () => {}, warn: console.error, error: console.error },
});
say('started');
handle = running;
await sayHosts();
const { status } = await running.finished;
say(`finished ${status}`);
await zk.close();
