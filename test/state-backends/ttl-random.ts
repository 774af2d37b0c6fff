// Random programs on state with a ttl, against a plain model: writes, reads, time that passes by either clock, units that are undone, checkpoints, bases,
// removal in slices, restores at another parallelism and with another ttl.
//
// The model knows one rule: what was written at t is there while now < t + ttl, and a second write or a renewal never counts from earlier than the one before.

import { expect } from 'vitest';
import {
  at,
  type Backend,
  type BoundKinds,
  bindKinds,
  type Chain,
  chainOf,
  EMPTY_CHAIN,
  EventClock,
  groupOf,
  type Handle,
  handleOf,
  hashKey,
  instanceOf,
  list,
  map,
  type RegionState,
  rangeOf,
  reducing,
  type TaskState,
  value,
  withBase,
  withDelta,
} from '../../state-backends/index.ts';
import { Random } from '../random.ts';
import { MAX_PARALLELISM, reading, type Storage } from './model.ts';

const KEYS = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];
const ENTRIES = ['x', 'y', 'z'];

interface Program {
  readonly clock: 'processing' | 'event';
  readonly renews: boolean;
  ttl: number;
}

type Shown = { value: number | undefined; list: number[]; map: [string, number][]; sum: number | undefined };

const specOf = ({ clock, renews, ttl }: Program) => {
  const options = { ttl, ttlClock: clock, ttlOn: renews ? 'read' : 'write' } as const;
  return {
    value: value<number>(options),
    list: list<number>(options),
    map: map<string, number>(options),
    sum: reducing<number>((l, r) => l + r, options),
  };
};
type Spec = ReturnType<typeof specOf>;

/** Element: [when it was written, what]. */
type Element = [number, number];

/** What there should be of one key. */
class Expected {
  value: Element | undefined;
  sum: Element | undefined;
  list: Element[] = [];
  map = new Map<string, Element>();

  clone(): Expected {
    const copy = new Expected();
    copy.value = this.value && [...this.value];
    copy.sum = this.sum && [...this.sum];
    copy.list = this.list.map((each) => [...each]);
    copy.map = new Map([...this.map].map(([k, each]) => [k, [...each]]));
    return copy;
  }
}

let files = 0;

class Instance {
  readonly region: RegionState;
  readonly task: TaskState;
  readonly bound: BoundKinds<Spec>;
  readonly event: EventClock;
  chain: Chain = EMPTY_CHAIN;
  readonly range;

  private constructor(region: RegionState, task: TaskState, world: World, range: { from: number; to: number }) {
    this.region = region;
    this.task = task;
    this.range = range;
    this.event = new EventClock(() => world.timestamp);
    this.event.advance(world.watermark);
    this.bound = bindKinds(task, 'op', specOf(world.program), { now: () => world.now, changed() {} }, this.event);
  }

  static async open(world: World, index: number, parallelism: number, handles: readonly Handle[]): Promise<Instance> {
    const region = await world.backend().open({ name: `host/ttl-${files++}`, tracked: true });
    const range = rangeOf(index, parallelism, MAX_PARALLELISM);
    const instance = new Instance(region, region.task({ maxParallelism: MAX_PARALLELISM, range, undo: true }), world, range);
    instance.chain = chainOf(handles);
    for (const ref of [...instance.chain.bases, ...instance.chain.deltas]) await instance.task.load(reading(world.storage.get(ref.file.name)!), ref.ranges);
    return instance;
  }
}

class World {
  readonly backend: () => Backend;
  readonly program: Program;
  readonly random: Random;
  readonly storage: Storage = new Map();
  now = 1000;
  watermark = Number.NEGATIVE_INFINITY;
  timestamp = Number.NaN;
  instances: Instance[] = [];
  readonly model = new Map<string, Expected>();
  checkpoint = 0;

  constructor(backend: () => Backend, random: Random) {
    this.backend = backend;
    this.random = random;
    this.program = { clock: random.of(['processing', 'event']), renews: random.once(3), ttl: random.between(1, 30) };
  }

  // ── the rule ──

  get time(): number {
    return this.program.clock === 'processing' ? this.now : this.watermark;
  }
  stamp(before = Number.NEGATIVE_INFINITY): number {
    return Math.max(before, this.time, this.program.clock === 'event' && !Number.isNaN(this.timestamp) ? this.timestamp : Number.NEGATIVE_INFINITY);
  }
  isLive(element: Element | undefined): element is Element {
    return element !== undefined && element[0] + this.program.ttl > this.time;
  }
  /** What is read is renewed, or not. */
  read(element: Element): number {
    if (this.program.renews) element[0] = this.stamp(element[0]);
    return element[1];
  }

  expected(key: string): Expected {
    let of = this.model.get(key);
    if (of === undefined) {
      of = new Expected();
      this.model.set(key, of);
    }
    return of;
  }

  shownOf(key: string): Shown {
    const { value: v, list: l, map: m, sum: s } = this.expected(key);
    return {
      value: this.isLive(v) ? this.read(v) : undefined,
      list: l.filter((each) => this.isLive(each)).map((each) => this.read(each)),
      map: [...m].filter(([, each]) => this.isLive(each)).map(([k, each]): [string, number] => [k, this.read(each)]),
      sum: this.isLive(s) ? this.read(s) : undefined,
    };
  }

  // ── the state ──

  owner(key: string): Instance {
    return this.instances[instanceOf(groupOf(hashKey(key), MAX_PARALLELISM), this.instances.length, MAX_PARALLELISM)]!;
  }
  under(key: string): BoundKinds<Spec>['handles'] {
    const { bound } = this.owner(key);
    bound.setCurrent(key, hashKey(key));
    return bound.handles;
  }

  async start(parallelism: number): Promise<void> {
    this.instances = [];
    for (let i = 0; i < parallelism; i++) this.instances.push(await Instance.open(this, i, parallelism, []));
  }

  write(key: string): void {
    const { random } = this;
    const state = this.under(key);
    const of = this.expected(key);
    const n = random.below(100);
    switch (random.below(9)) {
      case 0:
      case 1:
        state.value.set(n);
        of.value = [this.stamp(of.value?.[0]), n];
        break;
      case 2:
      case 3:
        state.list.add(n);
        of.list.push([this.stamp(), n]);
        break;
      case 4: {
        const entry = random.of(ENTRIES);
        state.map.set(entry, n);
        of.map.set(entry, [this.stamp(of.map.get(entry)?.[0]), n]);
        break;
      }
      case 5:
        state.sum.add(n);
        // The first after it expired begins anew.
        of.sum = this.isLive(of.sum) ? [this.stamp(of.sum[0]), of.sum[1] + n] : [this.stamp(of.sum?.[0]), n];
        break;
      case 6: {
        const entry = random.of(ENTRIES);
        state.map.delete(entry);
        of.map.delete(entry);
        break;
      }
      case 7: {
        const all = Array.from({ length: random.of([0, 1, 3, 70, 130]) }, (_, i) => i);
        state.list.set(all);
        of.list = all.map((i): Element => [this.stamp(), i]);
        break;
      }
      default: {
        const which = random.of(['value', 'list', 'map', 'sum'] as const);
        state[which].clear();
        if (which === 'list') of.list = [];
        else if (which === 'map') of.map = new Map();
        else of[which] = undefined;
      }
    }
  }

  look(key: string): void {
    const state = this.under(key);
    const got: Shown = { value: state.value.get(), list: state.list.all(), map: [...state.map.entries()].sort(byName), sum: state.sum.get() };
    const wanted = this.shownOf(key);
    expect(got, `of ${key} at ${this.time}, ${JSON.stringify(this.program)}`).toEqual({ ...wanted, map: wanted.map.sort(byName) });
    expect(state.map.size).toBe(wanted.map.length);
  }

  /** Removal as the engine does it; `slices`: gives up in between. */
  async expire({ bound, event }: Instance, slices: boolean): Promise<void> {
    event.advance(this.watermark);
    for (;;) {
      const deadline = slices ? performance.now() - 1 : Number.POSITIVE_INFINITY;
      let outcome = bound.nextExpiry <= this.now ? bound.expire(this.now, deadline) : 'done';
      // Behind a watermark nothing but that goes on before all of it is gone.
      if (outcome === 'done') outcome = bound.expireEvent(Number.POSITIVE_INFINITY);
      if (typeof outcome === 'object') await outcome;
      else if (outcome === 'done' || slices) return;
    }
  }

  // ── time, units, checkpoints ──

  async pass(): Promise<void> {
    const ms = this.random.below(12);
    this.now += ms;
    if (this.random.once(2)) this.watermark = Math.max(this.watermark, this.watermark === Number.NEGATIVE_INFINITY ? 1000 : this.watermark + ms);
    for (const instance of this.instances) await this.expire(instance, this.random.once(2));
  }

  unit(): void {
    const key = this.random.of(KEYS);
    const before = this.expected(key).clone();
    const { task } = this.owner(key);
    const back = this.random.once(2);
    task.beginUnit();
    for (let i = this.random.below(5); i > 0; i--) {
      if (this.random.once(3)) this.look(key);
      else this.write(key);
    }
    if (back) {
      task.rollbackUnit();
      this.model.set(key, before);
    } else task.commitUnit();
    for (const { bound } of this.instances) bound.clearCurrent();
  }

  private store(blocks: readonly Uint8Array[]) {
    const name = `ttl-file-${files++}`;
    this.storage.set(
      name,
      blocks.map((block) => Buffer.from(block)),
    );
    return { name, bytes: blocks.reduce((sum, block) => sum + block.length, 0), crc: 0 };
  }

  /** What is taken of it a moment later, when things have changed. */
  async freeze(): Promise<Handle[]> {
    const id = ++this.checkpoint;
    for (const { task } of this.instances) task.freeze(id);
    return this.instances.map((instance) => {
      while (!instance.task.encode(Number.POSITIVE_INFINITY));
      for (const delta of instance.task.takeDeltas())
        if (delta.blocks.length > 0) instance.chain = withDelta(instance.chain, { id: delta.id, file: this.store(delta.blocks) });
      instance.chain = at(instance.chain, id);
      return handleOf(instance.chain, instance.range);
    });
  }

  async base(): Promise<void> {
    const instance = this.random.of(this.instances);
    if (instance.task.unsettled || this.checkpoint === 0 || instance.chain.next !== undefined) return;
    await this.freeze();
    const sweep = instance.task.sweep();
    const blocks: Uint8Array[] = [];
    for (;;) {
      const how = sweep.step(performance.now() - 1);
      if (typeof how === 'object') await how;
      blocks.push(...sweep.take());
      if (how === 'done') break;
      if (this.random.once(3)) this.unit();
    }
    instance.chain = withBase(instance.chain, { kind: 'rows', file: this.store(blocks), b: sweep.b, n: sweep.n });
  }

  async restore(): Promise<void> {
    const another = this.random.once(3);
    // What has expired and been removed does not come back with a longer ttl; what has not been removed yet would.
    if (another) for (const instance of this.instances) await this.expire(instance, false);
    const handles = await this.freeze();
    for (const { region } of this.instances) await region.close();
    if (another) {
      for (const key of KEYS) this.forget(this.expected(key));
      this.program.ttl = this.random.between(1, 30);
    }
    // An outage counts by processing time.
    this.now += this.random.below(8);
    const parallelism = this.random.between(1, 3);
    const instances: Instance[] = [];
    for (let i = 0; i < parallelism; i++) instances.push(await Instance.open(this, i, parallelism, handles));
    this.instances = instances;
  }

  /** What has been removed. */
  private forget(of: Expected): void {
    if (!this.isLive(of.value)) of.value = undefined;
    if (!this.isLive(of.sum)) of.sum = undefined;
    of.list = of.list.filter((each) => this.isLive(each));
    for (const [k, each] of of.map) if (!this.isLive(each)) of.map.delete(k);
  }

  /** After everything has expired nothing is left, in memory or on disk. */
  async end(): Promise<void> {
    this.now += 1000;
    this.watermark = Math.max(2000, this.watermark) + 1000;
    for (const instance of this.instances) await this.expire(instance, false);
    for (const { task, region } of this.instances) {
      await task.relieve();
      expect(task.stats().rows).toBe(0);
      await region.close();
    }
  }
}

function byName([one]: [string, number], [other]: [string, number]): number {
  return one < other ? -1 : 1;
}

export async function ttlHolds(backend: () => Backend, seed: number, steps: number): Promise<void> {
  const random = new Random(seed);
  const world = new World(backend, random);
  await world.start(random.between(1, 3));
  for (let i = 0; i < steps; i++) {
    // Timestamps go ahead of the watermark, and fall behind each other; some records have none.
    const from = world.watermark === Number.NEGATIVE_INFINITY ? 1000 : world.watermark;
    world.timestamp = random.once(5) ? Number.NaN : from + random.between(-5, 15);
    if (world.watermark === Number.NEGATIVE_INFINITY && Number.isNaN(world.timestamp)) world.timestamp = 1000;
    switch (random.below(12)) {
      case 0:
      case 1:
      case 2:
        await world.pass();
        break;
      case 3:
        await world.freeze();
        break;
      case 4:
        if (random.once(2)) await world.base();
        break;
      case 5:
        if (random.once(3)) await world.restore();
        break;
      default:
        world.unit();
        for (const { task } of world.instances) {
          task.maintain();
          if (task.pressed) await task.relieve();
        }
    }
  }
  world.timestamp = Number.NaN;
  for (const key of KEYS) world.look(key);
  await world.end();
}
