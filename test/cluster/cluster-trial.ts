// A trial of a workload in a cluster: workers as processes of their own, and a leader in this one, which is a worker too.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { JobEvent, Logger, RunOptions } from 'millrace';
import { memory } from 'millrace';
import { onTestFinished } from 'vitest';
import { definitionOf } from '../../src/api/job.ts';
import { below } from '../../src/checkpoint/addresses.ts';
import { SnapshotFiles } from '../../src/checkpoint/storage.ts';
import type { TlsOptions } from '../../src/cluster/transport/certificates.ts';
import { planHashOf, Worker } from '../../src/cluster/worker.ts';
import { Workers } from '../../src/cluster/workers.ts';
import type { Client } from '../../src/cluster/zookeeper/client.ts';
import { Session } from '../../src/cluster/zookeeper/session.ts';
import { JobRun } from '../../src/execution/job-run.ts';
import { operatorOf } from '../../src/operators/operator-of.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { DirectoryStorage } from '../../src/storage/directory.ts';
import type { Input } from '../e2e/trial.ts';
import { Trial } from '../e2e/trial.ts';
import { jobOf } from '../e2e/workloads.ts';
import { Child } from '../protocols/processes.ts';
import { zookeeperForTests } from '../services/zookeeper.ts';
import type { WorkerSettings } from './worker-process.ts';
import { freshRoot } from './zookeeper/clients.ts';

/** The servers of the tests have ticks of half a second. */
const SESSION_MS = 2000;
export const DEAD_AFTER_MS = 1500;
export const SECRET = 'open sesame';

export interface LeaderOptions {
  readonly parallelism: number;
  readonly id?: string;
  readonly slots?: number;
  readonly deadAfter?: number;
  readonly options?: Partial<RunOptions>;
  readonly stallMs?: number;
  readonly tls?: TlsOptions;
  /** It does with as few instances as there are workers. */
  readonly shrinks?: boolean;
}

/** A line that was logged, with its fields. */
export interface Said {
  readonly level: string;
  readonly text: string;
  readonly fields: Record<string, unknown>;
}

export class ClusterTrial {
  readonly trial: Trial;
  readonly events: JobEvent[] = [];
  readonly said: Said[] = [];
  readonly #connect: string;
  readonly #root = freshRoot();
  readonly #waiting = new Set<() => void>();

  static async open(input: Input, settings: Partial<WorkerSettings> = {}): Promise<ClusterTrial> {
    return new ClusterTrial(new Trial(input, { every: 20, ...settings }), await zookeeperForTests());
  }

  private constructor(trial: Trial, connect: string) {
    this.trial = trial;
    this.#connect = connect;
  }

  /** The file that sources which are held wait for. */
  get #gate(): string {
    return join(this.trial.folder, 'go');
  }

  /** Held sources go on. */
  go(): void {
    writeFileSync(this.#gate, '');
  }

  /** A worker; resolves when it is a member. With `held` its sources stop after so many batches until `go`. */
  async worker({
    held,
    ...settings
  }: Partial<WorkerSettings> & { readonly held?: number } = {}): Promise<Child & { readonly id: string; readonly address: string }> {
    const all: WorkerSettings = {
      ...this.trial.settings,
      connect: this.#connect,
      root: this.#root,
      sessionMs: SESSION_MS,
      slots: 1,
      secret: SECRET,
      deadAfter: DEAD_AFTER_MS,
      ...(held === undefined ? {} : { hold: { after: held, until: this.#gate } }),
      ...settings,
    };
    const child = new Child('../cluster/worker-process.ts', [JSON.stringify(all)]);
    const [, id, address] = (await child.said(/^member /))?.split(' ') ?? [];
    if (id === undefined || address === undefined) throw new Error(`A worker is no member.\n${child.errors}`);
    return Object.assign(child, { id, address });
  }

  /** A worker in this process that has none of the tasks by default, and the run of the job as it leads it. */
  async lead({ parallelism, id, slots = 0, deadAfter = DEAD_AFTER_MS, options, shrinks, stallMs, tls }: LeaderOptions): Promise<JobRun> {
    const { workload, checkpoints, every } = this.trial.settings;
    const io = systemIo();
    const client: Client = new Session({ connect: this.#connect, root: this.#root, sessionTimeoutMs: SESSION_MS, connectTimeoutMs: 10_000 });
    const definition = definitionOf(jobOf(workload, this.trial.settings));
    const planHash = planHashOf(definition, undefined);
    const directory = new DirectoryStorage(checkpoints, io);
    const storage = new SnapshotFiles(directory, below(directory.root, workload), { io, verify: true });
    const log = this.#logger();
    const worker = await Worker.open({
      client,
      id,
      jobs: new Map([[workload, { definition, planHash, backend: memory(), storage }]]),
      operators: operatorOf,
      slots,
      secret: SECRET,
      tls,
      version: '0.0.0',
      epoch: () => 1,
      heard: () => {},
      io,
      log,
      deadAfter,
    });
    const hosts = new Workers({ worker, job: workload, planHash, epoch: 1, io, log, stallMs });
    const run = new JobRun(
      definition,
      {
        parallelism,
        checkpoints: { directory: checkpoints, every },
        restarts: { max: 50, within: 600_000, backoff: { initial: 10, max: 10 } },
        onEvent: (event) => {
          this.events.push(event);
          for (const look of [...this.#waiting]) look();
        },
        logger: log,
        ...options,
      },
      {
        operators: operatorOf,
        hosts,
        ...(shrinks === true
          ? {
              room: () =>
                Math.max(
                  1,
                  worker.members().reduce((sum, { id: each, slots: n }) => sum + (worker.reaches(each) ? n : 0), 0),
                ),
            }
          : {}),
      },
    );
    onTestFinished(async () => {
      await run.cancel().catch(() => {});
      await run.finished.catch(() => {});
      await worker.close();
      await client.close();
    });
    return run;
  }

  /** Codes of the errors that regions were restarted for. */
  get restarts(): string[] {
    return this.events.flatMap((event) => (event.type === 'restart' ? [event.error.code] : []));
  }

  /** Resolves with the next event, or log line, of which this holds; from now on. */
  next(is: (event: JobEvent) => boolean): Promise<void> {
    let from = this.events.length;
    return this.until(() => {
      for (; from < this.events.length; from++) if (is(this.events[from]!)) return true;
      return false;
    });
  }

  until(holds: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const look = (): void => {
        if (!holds()) return;
        this.#waiting.delete(look);
        resolve();
      };
      this.#waiting.add(look);
      look();
    });
  }

  #logger(): Logger {
    const at =
      (level: string) =>
      (first: unknown, second?: string): void => {
        const [fields, text] = typeof first === 'string' ? [{}, first] : [first as Record<string, unknown>, second ?? ''];
        this.said.push({ level, text, fields });
        for (const look of [...this.#waiting]) look();
      };
    return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
  }
}

export const THREAD_ENTRY = new URL('../../dist/src/thread-main.js', import.meta.url).href;
/** Whose threads die where the trial says. */
export const DYING_MODULE = new URL('./dying-job.ts', import.meta.url).href;
export const JOB_MODULE = fileURLToPath(new URL('./worker-job.ts', import.meta.url));
