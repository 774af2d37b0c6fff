// A driver of one task's state as the engine drives it, with a plain model beside it: checkpoints, aborted ones, sweeps, restores, rescales.

import type { GroupedTable, SingleTable, TimerTable } from '../../state-backends/contract.ts';
import {
  at,
  type Backend,
  type BaseRef,
  type Chain,
  chainOf,
  type Delta,
  EMPTY_CHAIN,
  type FileRef,
  type Handle,
  handleOf,
  hashKey,
  type Key,
  type KeyGroupRange,
  keyBytes,
  type Link,
  type LinkedFileRef,
  openLinked,
  type RegionState,
  rangeOf,
  type Sweep,
  type TaskState,
  withBase,
  withDelta,
} from '../../state-backends/index.ts';

export const MAX_PARALLELISM = 128;

/** Files of checkpoints, by name. */
export type Storage = Map<string, Uint8Array[]>;

export async function* reading(blocks: readonly Uint8Array[]): AsyncIterable<Uint8Array> {
  for (const block of blocks) yield Buffer.from(block);
}

let names = 0;

/** Its bases are linked, and not swept. */
export interface Linking extends Backend {
  readonly links: true;
}
export function linking(backend: Backend): Linking {
  return { kind: backend.kind, open: (options) => backend.open(options), links: true };
}

/** One instance of an operator with one table of each kind. */
export class Instance {
  readonly region: RegionState;
  readonly task: TaskState;
  readonly single: SingleTable;
  readonly ordered: GroupedTable;
  readonly keyed: GroupedTable;
  readonly timers: TimerTable;
  chain: Chain = EMPTY_CHAIN;
  private readonly storage: Storage;
  private sweep: Sweep | undefined;
  private base: Uint8Array[] = [];
  private link: Link | undefined;
  private readonly links: boolean;
  /** Tables of the database that are stored already. */
  private readonly linked = new Map<number, LinkedFileRef>();

  private readonly range: KeyGroupRange;

  private constructor(region: RegionState, task: TaskState, storage: Storage, range: KeyGroupRange, links: boolean) {
    this.range = range;
    this.links = links;
    this.region = region;
    this.task = task;
    this.storage = storage;
    this.single = task.single('op', 'single');
    this.ordered = task.ordered('op', 'ordered');
    this.keyed = task.keyed('op', 'keyed');
    this.timers = task.timers('op', 'timers');
  }

  static async open(backend: Backend, storage: Storage, index: number, parallelism: number, handles: readonly Handle[] = [], undo = true): Promise<Instance> {
    const region = await backend.open({ name: `host/region-${names++}`, tracked: true });
    const range = rangeOf(index, parallelism, MAX_PARALLELISM);
    const instance = new Instance(region, region.task({ maxParallelism: MAX_PARALLELISM, range, undo }), storage, range, 'links' in backend);
    instance.chain = chainOf(handles);
    const source = { read: (file: { readonly name: string }) => reading(storage.get(file.name)!) };
    for (const ref of [...instance.chain.bases, ...instance.chain.deltas]) {
      if ('tables' in ref) {
        const opened = await openLinked(ref, source, { tables: ref.tables, ranges: ref.ranges }, region.scratch);
        await instance.task.loadLinked(opened, ref.tables, ref.ranges);
        await opened.close();
      } else await instance.task.load(source.read(ref.file), ref.ranges);
    }
    return instance;
  }

  // ── checkpoints ──

  freeze(id: number): void {
    this.task.freeze(id);
  }

  store(blocks: readonly Uint8Array[]): { name: string; bytes: number; crc: number } {
    const name = `file-${names++}`;
    this.storage.set(
      name,
      blocks.map((block) => Buffer.from(block)),
    );
    return { name, bytes: blocks.reduce((sum, block) => sum + block.length, 0), crc: 0 };
  }

  private collect(): void {
    for (const delta of this.task.takeDeltas() as Delta[]) {
      if (delta.blocks.length > 0) this.chain = withDelta(this.chain, { id: delta.id, file: this.store(delta.blocks) });
    }
  }

  /** Finishes the encoding; the handle is what a checkpoint would store. */
  handle(id: number): Handle {
    while (!this.task.encode(performance.now() - 1));
    this.collect();
    this.chain = at(this.chain, id);
    return handleOf(this.chain, this.range);
  }

  /** One step of encoding, whatever it does. */
  encodeSome(): void {
    this.task.encode(performance.now() - 1);
    this.collect();
  }

  /** One small step of a base. */
  async sweepSome(): Promise<void> {
    if (this.chain.next !== undefined) return;
    if (this.links) return this.linkSome();
    this.sweep ??= this.task.sweep();
    const how = this.sweep.step(performance.now() - 1);
    if (typeof how === 'object') await how;
    this.base.push(...this.sweep.take());
    if (how !== 'done') return;
    const base: BaseRef = { kind: 'rows', file: this.store(this.base), b: this.sweep.b, n: this.sweep.n };
    this.chain = withBase(this.chain, base);
    this.sweep = undefined;
    this.base = [];
  }

  async sweepAll(): Promise<void> {
    do await this.sweepSome();
    while (this.sweep !== undefined || this.link !== undefined);
  }

  private async linkSome(): Promise<void> {
    this.link ??= this.region.link!([this.task]);
    const { link } = this;
    const how = link.step(0);
    if (typeof how === 'object') await how;
    if (how !== 'done') return;
    let manifest: FileRef | undefined;
    const files: LinkedFileRef[] = [];
    for (const file of link.files) {
      const { number } = file;
      const there = number === undefined ? undefined : this.linked.get(number);
      if (there !== undefined) {
        files.push(there);
        continue;
      }
      const parts: Uint8Array[] = [];
      for await (const part of file.read()) parts.push(part);
      const stored = this.store(parts);
      if (number === undefined) manifest = stored;
      else {
        this.linked.set(number, { ...stored, number });
        files.push({ ...stored, number });
      }
    }
    this.chain = withBase(this.chain, { kind: 'leveldb', file: manifest!, files, tables: link.tables('op'), b: link.b, n: link.n });
    this.link = undefined;
    await link.close();
  }
}

// ── what state there is, as one comparable value ──

export type Contents = Map<string, unknown>;

const name = (kind: string, key: Key, ns: unknown = 0): string =>
  `${kind}:${keyBytes(key).toString('hex')}:${typeof ns === 'number' ? ns : keyBytes(ns as Key).toString('hex')}`;

/** Everything that can be found under the given keys, through the public door. */
export function contentsOf(instances: readonly Instance[], keys: readonly Key[], owner: (key: Key) => Instance): Contents {
  const out: Contents = new Map();
  for (const key of keys) {
    const instance = owner(key);
    const hash = hashKey(key);
    const row = instance.single.find(key, hash);
    if (row !== undefined) out.set(name('s', key), structuredClone(row.value));
    for (const kind of ['ordered', 'keyed'] as const) {
      for (const each of instance[kind].find(key, hash)?.rows ?? []) out.set(name(kind, key, each.ns), structuredClone(each.value));
    }
  }
  for (const instance of instances) for (const timer of instance.timers.all()) out.set(name('t', timer.key, timer.ns * 1000 + timer.time), timer.time);
  return new Map([...out].sort(([a], [b]) => (a < b ? -1 : 1)));
}
