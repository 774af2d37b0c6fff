// A window operator driven by hand: records, watermarks and the clock come when the test says so, over several instances, with real keyed state; it can be
// snapshotted and restored at another parallelism. Everything is synchronous but opening and restoring.

import { memory } from 'millrace';
import { from } from '../../src/api/stream.ts';
import type { Stream } from '../../src/api/streams.ts';
import { GraphBuilder } from '../../src/graph/builder.ts';
import type { Key } from '../../src/graph/job.ts';
import { MAIN, type Node } from '../../src/graph/node.ts';
import type { Source } from '../../src/graph/source.ts';
import { operatorOf } from '../../src/operators/operator-of.ts';
import type { Operator, OperatorEnvironment } from '../../src/runtime/operator.ts';
import { redistribute, type StatePart } from '../../src/runtime/parts.ts';
import type { Backend, Delta, RegionState, TaskState } from '../../state-backends/index.ts';
import { canonicalKey, groupOf, hashKey, instanceOf, rangeOf } from '../../state-backends/index.ts';

const MAX_PARALLELISM = 128;

export interface Stamped {
  readonly value: unknown;
  readonly timestamp: number;
}
export interface Snapshot {
  readonly files: readonly Delta[];
  readonly parts: readonly Readonly<Record<string, StatePart>>[];
  readonly watermarks: readonly number[];
  readonly now: number;
}
interface Letter {
  readonly subject: unknown;
  readonly error: unknown;
}
export interface DrivenOptions {
  readonly parallelism?: number;
  /** A function that throws is undone and becomes a letter. */
  readonly skip?: boolean;
  readonly backend?: () => Backend;
  readonly restore?: Snapshot;
  readonly seed?: number;
}

/** What a test builds: the last node of kind `window` is what is driven. */
type Build<T> = (input: Stream<T>, other: Stream<T>) => unknown;

const SOURCE = { bounded: true } as unknown as Source<unknown>;

interface Instance {
  readonly operator: Operator;
  readonly state: TaskState;
  readonly region: RegionState;
  watermark: number;
}

export class Driven<T> {
  /** Main output, side outputs by name; drained by `take`. */
  readonly #outputs = new Map<string, Stamped[]>();
  readonly letters: Letter[] = [];
  readonly node: Node;
  readonly #options: DrivenOptions;
  readonly #instances: Instance[] = [];
  #now = 0;
  #files: Delta[] = [];
  #barrier = 0;
  #seed: number;

  private constructor(node: Node, options: DrivenOptions) {
    this.node = node;
    this.#options = options;
    this.#seed = options.seed ?? 1;
  }

  static async open<T>(build: Build<T>, options: DrivenOptions = {}): Promise<Driven<T>> {
    const builder = new GraphBuilder();
    const source = (uid: string): Stream<T> => from<T>(builder, builder.add(uid, { kind: 'source', source: SOURCE, strategy: undefined }, []));
    build(source('left'), source('right'));
    const node = builder.nodes.findLast(({ step }) => step.kind === 'window')!;
    const driven = new Driven<T>(node, options);
    await driven.#open();
    return driven;
  }

  async #open(): Promise<void> {
    const { parallelism = 1, restore, skip = false, backend = memory as () => Backend } = this.#options;
    this.#now = restore?.now ?? 0;
    const old = restore?.parts.length ?? 0;
    for (let i = 0; i < parallelism; i++) {
      const region = await backend().open({ name: `h/0-${Math.random().toString(36).slice(2)}`, tracked: true });
      const range = rangeOf(i, parallelism, MAX_PARALLELISM);
      const state = region.task({ maxParallelism: MAX_PARALLELISM, range, undo: skip });
      // The least of those whose groups it takes over.
      const taken = (restore?.watermarks ?? []).filter((_, k) => {
        const other = rangeOf(k, old, MAX_PARALLELISM);
        return other.from <= range.to && range.from <= other.to;
      });
      const instance = { state, region, watermark: taken.length === 0 ? Number.NEGATIVE_INFINITY : Math.min(...taken) } as {
        -readonly [N in keyof Instance]: Instance[N];
      };
      const parts = restore === undefined ? {} : redistribute(restore.parts, { subtask: i, parallelism, maxParallelism: MAX_PARALLELISM });
      instance.operator = operatorOf(this.node)(this.#environment(instance, parts, i));
      for (const { blocks } of restore?.files ?? []) if (blocks.length > 0) await state.load(each(blocks));
      this.#instances.push(instance);
    }
    this.#files = [...(restore?.files ?? [])];
    this.#barrier = this.#files.reduce((newest, { id }) => Math.max(newest, id), 0);
  }

  #environment(instance: Instance, parts: Record<string, readonly unknown[]>, subtask: number): OperatorEnvironment {
    const output = (name: string) => (value: unknown, timestamp: number) => {
      const list = this.#outputs.get(name) ?? [];
      this.#outputs.set(name, list);
      list.push({ value, timestamp });
    };
    const known: Partial<OperatorEnvironment> = {
      node: this.node,
      uid: this.node.uid!,
      subtask,
      parallelism: this.#options.parallelism ?? 1,
      state: () => instance.state,
      output,
      watermark: () => instance.watermark,
      now: () => this.#now,
      random: () => {
        this.#seed = (Math.imul(this.#seed, 1664525) + 1013904223) >>> 0;
        return this.#seed / 2 ** 32;
      },
      unit: (run, subject) => this.#unit(instance, run, subject),
      timersChanged: () => {},
      restored: (name) => parts[name],
    };
    return known as OperatorEnvironment;
  }

  #unit(instance: Instance, run: () => void, subject: () => unknown): boolean {
    if (this.#options.skip !== true) {
      run();
      return true;
    }
    const before = [...this.#outputs].map(([name, list]) => [name, list.length] as const);
    instance.state.beginUnit();
    try {
      run();
    } catch (error) {
      instance.state.rollbackUnit();
      for (const [name, list] of this.#outputs) list.length = before.find(([of]) => of === name)?.[1] ?? 0;
      this.letters.push({ subject: subject(), error });
      return false;
    }
    instance.state.commitUnit();
    return true;
  }

  /** A record; its key is what the stream's keyBy says. */
  push(value: T, timestamp: number, right = false): this {
    const input = this.node.inputs[right ? this.node.inputs.length - 1 : 0]!;
    const key = canonicalKey(input.key!(value) as Key) as Key;
    const hash = hashKey(key);
    const { length } = this.#instances;
    const instance = this.#instances[instanceOf(groupOf(hash, MAX_PARALLELISM), length, MAX_PARALLELISM)]!;
    this.#unit(
      instance,
      () => (right ? instance.operator.processRight!(value, timestamp, key, hash) : instance.operator.process(value, timestamp, key, hash)),
      () => value,
    );
    // A task looks at the clock after each slice of records: what is due already fires at once.
    return this.clock(this.#now);
  }

  watermark(time: number): this {
    for (const instance of this.#instances) {
      if (time <= instance.watermark && time !== Number.POSITIVE_INFINITY) continue;
      instance.watermark = time;
      const outcome = instance.operator.advance?.(time, Number.POSITIVE_INFINITY) ?? 'done';
      if (outcome !== 'done') throw new Error('timers were not in memory');
    }
    return this;
  }

  clock(now: number): this {
    if (now < this.#now) throw new Error('the clock never goes back');
    this.#now = now;
    for (const { operator } of this.#instances) {
      if ((operator.nextProcessingTime ?? Number.POSITIVE_INFINITY) > now) continue;
      const outcome = operator.onProcessingTime!(now, Number.POSITIVE_INFINITY);
      if (outcome !== 'done') throw new Error('timers were not in memory');
    }
    return this;
  }

  end(): this {
    return this.watermark(Number.POSITIVE_INFINITY);
  }

  /** What the output has been given since the last call. */
  take(output: string = MAIN): Stamped[] {
    return this.#outputs.get(output)?.splice(0) ?? [];
  }
  values(output: string = MAIN): unknown[] {
    return this.take(output).map(({ value }) => value);
  }
  get lateDropped(): number {
    return this.#instances.reduce((sum, { operator }) => sum + (operator.counts?.lateDropped ?? 0), 0);
  }
  get rows(): number {
    return this.#instances.reduce((sum, { state }) => sum + state.stats().rows, 0);
  }

  snapshot(): Snapshot {
    this.#barrier += 1;
    for (const { state } of this.#instances) {
      state.freeze(this.#barrier);
      while (!state.encode(Number.POSITIVE_INFINITY));
      this.#files.push(...state.takeDeltas());
    }
    return {
      files: [...this.#files],
      parts: this.#instances.map(({ operator }) => operator.snapshot?.() ?? {}),
      watermarks: this.#instances.map(({ watermark }) => watermark),
      now: this.#now,
    };
  }

  /** Between batches of a real task: makes room where memory is short. */
  async relieve(): Promise<void> {
    for (const { state } of this.#instances) {
      state.maintain();
      if (state.pressed) await state.relieve();
    }
  }

  async close(): Promise<void> {
    for (const { region } of this.#instances) await region.close();
  }
}

async function* each(blocks: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* blocks;
}
