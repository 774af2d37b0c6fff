// Latency of a keyed running reduce over two processes of a cluster, at 50,000 records a second: one JSON line.
// `latency-cluster.ts [--every 1000]`: milliseconds between checkpoints; none by default.
//
// Two replicas of a service with one slot each, and a ZooKeeper server. One of them reads; the key says where a record is counted. Latency goes from the moment a record leaves the
// source to the moment its result reaches the sink, by the clock of the machine: `crossing` of those that were counted in the other process, `staying` of the others.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { job, memory, type Sink, type Source } from 'millrace';
import { zookeeper } from 'millrace/zookeeper';
import { ZooKeeperServer } from '../services/zookeeper.ts';
import { print, quantiles, tell } from './harness/figures.ts';

const RATE = 50_000;
const KEYS = 10_000;
const WARM_UP_MS = 4000;
const MEASURED_MS = 10_000;

interface Timed {
  readonly key: string;
  readonly count: number;
  readonly host: number;
  /** By the clock that both processes share. */
  readonly left: number;
  /** It left when the warm-up was over. */
  readonly warm: boolean;
}

/** Milliseconds of the machine's monotonic clock. */
function machineMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}

const paced: Source<Timed, string, number> = {
  bounded: true,
  splits: async () => ['pace'],
  splitId: (split) => split,
  async *read(_split, from = 0) {
    const begun = machineMs();
    for (let given = from, sent = 0; ; ) {
      const left = machineMs();
      if (left - begun > WARM_UP_MS + MEASURED_MS) return;
      const values: Timed[] = [];
      const warm = left - begun > WARM_UP_MS;
      for (const wanted = Math.floor(((left - begun) * RATE) / 1000); sent < wanted; sent++, given++)
        values.push({ key: `key-${given % KEYS}`, count: 1, host: process.pid, left, warm });
      if (values.length > 0) yield { values, position: given };
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  },
};

const crossing: number[] = [];
const staying: number[] = [];
const timing: Sink<Timed> = {
  async open() {
    return {
      write(values) {
        const now = machineMs();
        for (const { host, left, warm } of values) if (warm) (host === process.pid ? staying : crossing).push(now - left);
      },
      async flush() {},
      async close() {},
    };
  },
};

const latency = job('latency-cluster', (env) => {
  env
    .source('paced', paced)
    .keyBy((record) => record.key)
    .reduce('counts', (left, right) => ({ ...right, count: left.count + 1 }))
    .sink('results', timing);
});
export default latency;

interface Figures {
  readonly crossing: readonly number[];
  readonly staying: readonly number[];
}

async function replica(connect: string, directory: string, every: number): Promise<void> {
  const zk = zookeeper({ connect });
  const running = await latency.start({
    cluster: zk,
    worker: { slots: 1 },
    module: import.meta.url,
    parallelism: 2,
    state: memory(),
    ...(every > 0 ? { checkpoints: { directory: join(directory, 'checkpoints'), every } } : {}),
    onEvent: (event) => {
      if (event.type === 'restart') tell(`latency-cluster: ${event.error.message}`);
    },
  });
  await running.finished;
  await zk.close();
  process.stdout.write(JSON.stringify({ crossing, staying } satisfies Figures));
}

function started(connect: string, directory: string, every: number): Promise<Figures> {
  const child = spawn(process.execPath, [...process.execArgv, fileURLToPath(import.meta.url), 'replica', connect, directory, String(every)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.on('data', (data: Buffer) => {
    said += data.toString();
  });
  return new Promise((resolve, reject) =>
    child.once('close', (code) => (code === 0 ? resolve(JSON.parse(said) as Figures) : reject(new Error(`A replica ended with ${code}.`)))),
  );
}

const [what, ...rest] = process.argv.slice(2);
if (what === 'replica') await replica(rest[0]!, rest[1]!, Number(rest[2]));
else {
  const every = what === '--every' ? Number(rest[0]) : 0;
  const server = await ZooKeeperServer.start();
  const directory = mkdtempSync(join(tmpdir(), 'millrace-latency-'));
  try {
    tell(`latency-cluster: ${RATE} records a second for ${(WARM_UP_MS + MEASURED_MS) / 1000} s, over two processes`);
    const both = await Promise.all([0, 1].map(() => started(`${server.connect}/latency`, directory, every)));
    const crossed = both.flatMap((each) => each.crossing);
    const stayed = both.flatMap((each) => each.staying);
    print({
      bench: 'latency-cluster',
      recordsPerSecond: RATE,
      every: every === 0 ? null : every,
      crossing: { records: crossed.length, ms: quantiles(crossed, 3) },
      staying: { records: stayed.length, ms: quantiles(stayed, 3) },
    });
  } finally {
    await server.close();
    rmSync(directory, { recursive: true, force: true });
  }
}
