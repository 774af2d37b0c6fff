// A worker in a process of its own, which has the job of a workload and waits for a leader. Its one argument is its settings. It says, a line each: `member <id>
// <address>` when it is one, what it logs as a warning, and `left` when it was told to leave (SIGTERM).

import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { level, memory } from 'millrace';
import { definitionOf } from '../../src/api/job.ts';
import { below } from '../../src/checkpoint/addresses.ts';
import { SnapshotFiles } from '../../src/checkpoint/storage.ts';
import type { ThreadData } from '../../src/cluster/thread-data.ts';
import type { TlsOptions } from '../../src/cluster/transport/certificates.ts';
import { planHashOf, Worker } from '../../src/cluster/worker.ts';
import { Session } from '../../src/cluster/zookeeper/session.ts';
import { operatorOf } from '../../src/operators/operator-of.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { DirectoryStorage } from '../../src/storage/directory.ts';
import type { Settings } from '../e2e/job-process.ts';
import { jobOf } from '../e2e/workloads.ts';

export interface WorkerSettings extends Settings {
  readonly connect: string;
  readonly root: string;
  readonly sessionMs: number;
  readonly id?: string;
  readonly slots: number;
  readonly secret: string;
  readonly host?: string;
  readonly port?: number;
  readonly advertise?: string;
  readonly deadAfter: number;
  /** Of the program. */
  readonly version?: string;
  /** Hosts run in so many threads, which take the job from that module. */
  readonly threads?: { readonly count: number; readonly entry: string; readonly module: string };
  readonly stallMs?: number;
  readonly tls?: TlsOptions;
  /** Sources read so many batches here, and no further one before that file is there. */
  readonly hold?: { readonly after: number; readonly until: string };
}

const settings = JSON.parse(process.argv[2]!) as WorkerSettings;
const { connect, root, sessionMs, slots, secret, deadAfter, hold, threads, workload } = settings;
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const io = systemIo();

let batches = 0;
async function pace(signal: AbortSignal): Promise<void> {
  batches += 1;
  if (settings.pace > 0) await sleep(settings.pace);
  while (hold !== undefined && batches > hold.after && !existsSync(hold.until) && !signal.aborted) await sleep(10);
}

const definition = definitionOf(jobOf(workload, { ...settings, pace }));
const directory = new DirectoryStorage(settings.checkpoints, io);
const client = new Session({ connect, root, sessionTimeoutMs: sessionMs, connectTimeoutMs: 10_000 });
const warn = (first: unknown, second?: string): void => say(`warn ${typeof first === 'string' ? first : `${second} ${JSON.stringify(first)}`}`);
const data: ThreadData | undefined =
  threads === undefined
    ? undefined
    : {
        job: workload,
        module: threads.module,
        state: { kind: 'memory', settings: {} },
        checkpoints: { directory: settings.checkpoints, storage: undefined, verify: undefined },
        hooks: true,
      };
const worker = await Worker.open({
  client,
  id: settings.id,
  jobs: new Map([
    [
      workload,
      {
        definition,
        planHash: planHashOf(definition, settings.version),
        backend: settings.backend === 'level' ? level({ directory: settings.state, cacheBytes: settings.cacheBytes ?? 1 << 20 }) : memory(),
        storage: new SnapshotFiles(directory, below(directory.root, workload), { io, verify: true }),
        data,
      },
    ],
  ]),
  operators: operatorOf,
  slots,
  ...(threads === undefined ? {} : { threads: { count: threads.count, entry: new URL(threads.entry) } }),
  host: settings.host,
  port: settings.port,
  advertise: settings.advertise,
  secret,
  version: '0.0.0',
  epoch: () => 1,
  heard: () => {},
  io,
  log: { debug: () => {}, info: () => {}, warn, error: warn },
  deadAfter,
  stallMs: settings.stallMs,
  tls: settings.tls,
});
say(`member ${worker.id} ${worker.member.address}`);
process.once('SIGTERM', async () => {
  await worker.close();
  await client.close();
  say('left');
});
