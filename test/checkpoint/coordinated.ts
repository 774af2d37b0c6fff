// A coordinator without a job: tasks that only note what they are told, a clock and a disk of the test's own.

import { testSystem } from '../../actors/testing.ts';
import { Coordinator, type CoordinatorMail, type CoordinatorOptions } from '../../src/checkpoint/coordinator.ts';
import { LocalRegistry } from '../../src/checkpoint/local-registry.ts';
import { readMetadata } from '../../src/checkpoint/metadata.ts';
import type { Registry } from '../../src/checkpoint/registry.ts';
import { prepareSavepoint } from '../../src/checkpoint/savepoint.ts';
import { SnapshotFiles } from '../../src/checkpoint/storage.ts';
import { SILENT } from '../../src/graph/context.ts';
import type { Io } from '../../src/runtime/io.ts';
import type { TaskSnapshot } from '../../src/runtime/snapshot.ts';
import type { TaskMail } from '../../src/runtime/task-contract.ts';
import { DirectoryStorage } from '../../src/storage/directory.ts';
import { MemoryDisk, MemoryStore } from '../../src/testing/memory-disk.ts';
import type { FileRef } from '../../state-backends/index.ts';

type Settings = Partial<Pick<CoordinatorOptions, 'every' | 'timeout' | 'minPause' | 'retain' | 'tolerate' | 'restored' | 'release'>>;

const ROOT = '/checkpoints';

export class Coordinated {
  /** Which step fails now; it may wait instead. */
  step: (name: string) => Promise<void> | undefined = () => undefined;
  /** How far the machine's clock is from the true one. */
  skew = 0;
  /** What tasks were told and others heard, in order: `a trigger 1`, `a complete 1`, `completed 1`. */
  readonly heard: string[] = [];
  readonly steps: string[] = [];
  attempt = 1;
  readonly coordinator: Coordinator;
  readonly files: SnapshotFiles;
  readonly registry: Registry;
  readonly #test = testSystem({ seed: 1 });
  readonly #ref;
  readonly #names: readonly string[];
  readonly #storage: DirectoryStorage;

  private constructor(names: readonly string[], settings: Settings, io: Io, storage: DirectoryStorage, files: SnapshotFiles, registry: Registry) {
    this.#names = names;
    this.#storage = storage;
    this.files = files;
    this.registry = registry;
    const clock = this.#test.clock;
    const own: Io = {
      ...io,
      clock: { now: () => clock.now() + this.skew, setTimeout: (fn, ms) => clock.setTimeout(fn, ms), clearTimeout: (id) => clock.clearTimeout(id) },
      elapsed: () => clock.now(),
      step: (name) => {
        this.steps.push(name);
        return this.step(name);
      },
    };
    this.coordinator = new Coordinator({
      job: 'job',
      lineage: 'line',
      attempt: () => this.attempt,
      maxParallelism: 128,
      planHash: () => 'hash',
      tasks: () => names.length,
      storage: files,
      registry,
      io: own,
      log: SILENT,
      every: 3_600_000,
      timeout: 600_000,
      minPause: 0,
      retain: 3,
      tolerate: 0,
      verify: undefined,
      unaligned: undefined,
      release: async () => {},
      restored: undefined,
      onCompleted: ({ id }) => this.heard.push(`completed ${id}`),
      onFailed: (id, { code }) => this.heard.push(`failed ${id} ${code}`),
      onIntolerable: ({ code }) => this.heard.push(`intolerable ${code}`),
      ...settings,
    } as CoordinatorOptions);
    this.#ref = this.#test.system.spawn(this.coordinator.behaviour(), { name: 'coordinator' });
  }

  static async start(names: readonly string[], settings: Settings = {}): Promise<Coordinated> {
    const disk = new MemoryDisk();
    const store = new MemoryStore();
    let of: Coordinated | undefined;
    const io: Io = {
      fs: disk.fs,
      openStore: async () => store,
      clock: { now: () => 0, setTimeout: () => undefined, clearTimeout() {} },
      elapsed: () => 0,
      random: () => 0.5,
      step: (name) => {
        of?.steps.push(name);
        return of?.step(name);
      },
    };
    const storage = new DirectoryStorage(ROOT, io);
    const files = new SnapshotFiles(storage, `${ROOT}/job`, { io });
    await files.prepare();
    const registry = await LocalRegistry.open(`${ROOT}/job`, 'job', io, { wait: false, files });
    of = new Coordinated(names, settings, io, storage, files, registry);
    of.opens(...names);
    await of.settle();
    return of;
  }

  settle(): Promise<void> {
    return this.#test.settle();
  }
  advance(ms: number): Promise<void> {
    return this.#test.advance(ms);
  }
  get now(): number {
    return this.#test.clock.now();
  }
  #tell(mail: CoordinatorMail): void {
    this.#ref.tell(mail);
  }

  /** What was heard since the last look. */
  news(): string[] {
    return this.heard.splice(0);
  }

  // ── tasks ──

  /** Tasks open in the attempt that is now; each sends to the next. */
  opens(...names: readonly string[]): void {
    const { attempt } = this;
    const tasks = names.map((name) => {
      const before = this.#names[this.#names.indexOf(name) - 1];
      return {
        name: `${name}-0`,
        tell: (mail: TaskMail) => void this.heard.push(`${name} ${toldOf(mail)}`),
        attempt,
        upstream: before === undefined ? [] : [`${before}-0`],
      };
    });
    this.#tell({ kind: 'tasks', tasks, markers: [], restoredId: 0 });
  }
  loses(...names: readonly string[]): void {
    this.#tell({ kind: 'lost', tasks: names.map((name) => `${name}-0`), attempt: this.attempt });
  }
  ack(name: string, id: number, { attempt = this.attempt, files = [] }: { attempt?: number; files?: readonly FileRef[] } = {}): void {
    this.#tell({ kind: 'ack', id, attempt, task: `${name}-0`, snapshot: snapshotOf(name, files), pauseMs: 1 });
  }
  declines(name: string, id: number): void {
    this.#tell({ kind: 'declined', id, attempt: this.attempt, task: `${name}-0`, error: new Error('disk full') });
  }
  ends(name: string): void {
    this.#tell({ kind: 'ended', attempt: this.attempt, task: `${name}-0` });
  }
  finishes(name: string): void {
    this.#tell({ kind: 'finished', attempt: this.attempt, task: `${name}-0` });
  }
  commits(name: string, id: number): void {
    this.#tell({ kind: 'committed', id, task: `${name}-0` });
  }
  /** Every task acknowledges. */
  async completes(id: number): Promise<void> {
    for (const name of this.#names) this.ack(name, id);
    await this.settle();
  }

  // ── who asks ──

  request(name: string, { stop = false, commits = false, drained = false } = {}): void {
    const settled = (what: string) => (): void => void this.heard.push(`${name} ${what}`);
    this.#tell({ kind: 'request', request: { stop, drained, commits, resolve: settled('answered'), reject: settled('refused') } });
  }
  async savepoint(name: string): Promise<void> {
    const place = { folder: `/savepoints/${name}`, storage: this.#storage };
    await prepareSavepoint(place);
    const settled = (what: string) => (): void => void this.heard.push(`${name} ${what}`);
    this.#tell({ kind: 'savepoint', request: { place, resolve: settled('written'), reject: settled('refused') } });
  }

  // ── what is on the disk ──

  write(name: string): Promise<FileRef> {
    return this.files.write(name, [Buffer.from(name)]);
  }
  async stored(): Promise<string[]> {
    await this.settle();
    const names: string[] = [];
    for (const folder of [this.files.files, this.files.checkpoints]) for await (const { name } of this.#storage.list(folder)) names.push(name);
    return names.sort();
  }
  /** Of the newest checkpoint: whether event time had been driven to its end. */
  async drained(): Promise<boolean> {
    return (await readMetadata(this.#storage, (await this.registry.checkpoints()).at(-1)!.path)).drained;
  }
  async retained(): Promise<number[]> {
    return (await this.registry.checkpoints()).map(({ id }) => id);
  }
}

function toldOf(mail: TaskMail): string {
  return mail.kind === 'trigger' ? `trigger ${mail.barrier.id}` : mail.kind === 'complete' || mail.kind === 'abort' ? `${mail.kind} ${mail.id}` : mail.kind;
}

function snapshotOf(vertex: string, files: readonly FileRef[]): TaskSnapshot {
  const range = { from: 0, to: 127 };
  return {
    vertex,
    subtask: 0,
    parallelism: 1,
    watermark: Number.NEGATIVE_INFINITY,
    processingTime: 0,
    ended: false,
    operators: {},
    keyed: files.length === 0 ? undefined : { uid: vertex, range, handle: { range, bases: [], deltas: files.map((file, i) => ({ id: i + 1, file })) } },
  };
}
