// Replicas of a service as processes, which a test starts, asks, stops and kills, each by its own id.

import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFailed, onTestFinished } from 'vitest';
import { bundled } from '../bundled.ts';
import { Conditions, temporaryFolder } from '../protocols/lab.ts';
import { published } from '../protocols/processes.ts';
import { zookeeperForTests } from '../services/zookeeper.ts';
import type { ReplicaSettings, Said } from './cluster-process.ts';
import { freshRoot } from './zookeeper/clients.ts';

const here = dirname(fileURLToPath(import.meta.url));

type Kind<K extends Said['kind']> = Extract<Said, { kind: K }>;

export class Replica {
  readonly said: Said[] = [];
  readonly process: ChildProcess;
  readonly ended: Promise<NodeJS.Signals | number>;
  errors = '';
  #over = false;
  readonly #conditions: Conditions;

  constructor(settings: ReplicaSettings, conditions: Conditions, faults = '') {
    this.#conditions = conditions;
    this.process = spawn(process.execPath, [bundled(join(here, 'cluster-process.ts'))], {
      env: { ...process.env, MILLRACE_REPLICA: JSON.stringify(settings), MILLRACE_FAULTS: faults },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let rest = '';
    this.process.stdout!.on('data', (data: Buffer) => {
      const lines = (rest + data.toString()).split('\n');
      rest = lines.pop()!;
      this.said.push(...lines.map((line) => JSON.parse(line) as Said));
      conditions.changed();
    });
    this.process.stderr!.on('data', (data: Buffer) => {
      this.errors += data.toString();
    });
    // A replica that is gone takes no commands.
    this.process.stdin!.on('error', () => {});
    this.ended = new Promise((resolve) =>
      this.process.on('close', (code, signal) => {
        this.#over = true;
        resolve(signal ?? code ?? 0);
        conditions.changed();
      }),
    );
    onTestFinished(async () => {
      if (!this.#over) this.process.kill('SIGKILL');
      await this.ended;
    });
  }

  of<K extends Said['kind']>(kind: K): Kind<K>[] {
    return this.said.filter((each): each is Kind<K> => each.kind === kind);
  }
  get epoch(): number {
    return this.of('leads').at(-1)?.epoch ?? 0;
  }

  /** The n-th of a kind. @throws where the process ends before */
  async told<K extends Said['kind']>(kind: K, n = 1): Promise<Kind<K>> {
    await this.#conditions.until(() => this.#over || this.of(kind).length >= n);
    const found = this.of(kind)[n - 1];
    if (found === undefined)
      throw new Error(`A replica has ended without a word of '${kind}'.\n${this.errors}\n${JSON.stringify(this.said.slice(-20), null, 1)}`);
    return found;
  }

  async asks(command: string): Promise<Said> {
    const answers = (): Said[] => this.said.filter(({ kind }) => kind === 'answer' || kind === 'refused');
    const before = answers().length;
    this.process.stdin!.write(`${command}\n`);
    await this.#conditions.until(() => this.#over || answers().length > before);
    return answers()[before] ?? { kind: 'refused', code: undefined, message: `the replica has ended\n${this.errors}` };
  }
}

export class Service {
  readonly replicas: Replica[] = [];
  readonly settings: ReplicaSettings;
  readonly conditions = new Conditions();

  constructor(settings: ReplicaSettings) {
    this.settings = settings;
    onTestFailed(() => {
      for (const { process, said, errors } of this.replicas)
        console.error([`replica ${process.pid}`, ...said.slice(-40).map((each) => JSON.stringify(each)), errors].join('\n'));
    });
  }

  static async open(settings: Partial<ReplicaSettings> = {}): Promise<Service> {
    const connect = settings.connect ?? `${await zookeeperForTests()}${freshRoot()}`;
    return new Service({ folder: await temporaryFolder(), count: 2000, pause: 10, ...settings, connect });
  }

  /** The source stands still in its middle until `release()`. */
  static async held(settings: Partial<ReplicaSettings> = {}): Promise<Service> {
    const service = await Service.open(settings);
    writeFileSync(service.#held, '');
    return service;
  }
  release(): void {
    rmSync(this.#held, { force: true });
  }
  get #held(): string {
    return join(this.settings.folder, 'held');
  }

  start(changed: Partial<ReplicaSettings> = {}, faults = ''): Replica {
    const replica = new Replica({ ...this.settings, ...changed }, this.conditions, faults);
    this.replicas.push(replica);
    return replica;
  }

  /** Resolves when that many run the job, and gives who leads it. */
  async running(count: number): Promise<Replica> {
    const started = Array.from({ length: count }, () => this.start());
    await Promise.all(started.map((each) => each.told('running')));
    return this.leader();
  }

  /** Who was elected last. */
  leader(): Replica {
    return this.replicas.toSorted((a, b) => b.epoch - a.epoch)[0]!;
  }
  followers(): Replica[] {
    const leader = this.leader();
    return this.replicas.filter((each) => each !== leader);
  }
  /** Resolves when somebody leads in a later epoch. */
  async elected(after: number): Promise<Replica> {
    await this.conditions.until(() => this.leader().epoch > after);
    return this.leader();
  }

  /** Those that were not killed and have not left. */
  get stayed(): Replica[] {
    return this.replicas.filter((each) => each.process.signalCode === null && each.of('ended').every(({ code }) => code !== 'CLUSTER_LEFT'));
  }
  /** Goes on to the end: those are told that it has finished, and every record is published once. */
  async finishes(replicas: readonly Replica[]): Promise<void> {
    this.release();
    for (const replica of replicas) expect((await replica.told('ended')).result, replica.errors).toMatchObject({ status: 'finished' });
    expect(await this.complaints()).toEqual([]);
  }

  /** What is wrong with what was published: nothing, where every key was counted once to its end. */
  async complaints(): Promise<string[]> {
    const seen = (await published<{ key: string; n: number }>(join(this.settings.folder, 'out'))).map(({ key, n }) => `${key} ${n}`);
    const { count } = this.settings;
    const wanted = Array.from({ length: 7 }, (_, k) => Array.from({ length: Math.floor((count - 1 - k) / 7) + 1 }, (_, i) => `k${k} ${i + 1}`)).flat();
    const twice = seen.filter((each, i) => seen.indexOf(each) !== i);
    const there = new Set(seen);
    const missing = wanted.filter((each) => !there.has(each));
    return [
      ...twice.map((each) => `twice: ${each}`),
      ...missing.map((each) => `missing: ${each}`),
      ...(seen.length === wanted.length ? [] : [`${seen.length} of ${wanted.length}`]),
    ];
  }
}
