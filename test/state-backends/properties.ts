// Random operations against a plain model: what the engine may do between, around and across checkpoints, in any order.

import fc from 'fast-check';
import { expect } from 'vitest';
import { type Backend, groupOf, type Handle, hashKey, instanceOf, type Key, keyBytes } from '../../state-backends/index.ts';
import { type Contents, contentsOf, Instance, MAX_PARALLELISM, type Storage } from './model.ts';
import { expectCounted } from './recount.ts';

export const KEYS: readonly Key[] = [...Array.from({ length: 12 }, (_, i) => `key-${i}`), 1, 2.5, 7n, true, 'a\uD800', 'a\uDBFF', ['a', 1], ['a', '1'], ''];
const NAMESPACES: readonly Key[] = ['x', 'y', 1, '1', ['x'], 1n, 'z', 'w', 'v', 'u', 't', 's'];

type Step =
  | {
      readonly do: 'put' | 'mutate' | 'delete' | 'set';
      readonly table: 'single' | 'ordered' | 'keyed';
      readonly key: number;
      readonly ns: number;
      readonly value: number;
    }
  | { readonly do: 'timer' | 'untimer'; readonly key: number; readonly ns: number; readonly value: number }
  | { readonly do: 'pop'; readonly value: number }
  | { readonly do: 'rollback'; readonly steps: readonly Step[] }
  | { readonly do: 'checkpoint' | 'barrier' | 'complete' | 'abort' | 'encode' | 'sweep' | 'sweep-all' | 'maintain' | 'relieve' | 'tick' }
  | { readonly do: 'restore'; readonly parallelism: number };

const change = fc.oneof(
  fc.record({
    do: fc.constantFrom('put' as const, 'put' as const, 'mutate' as const, 'mutate' as const, 'set' as const, 'delete' as const),
    table: fc.constantFrom('single' as const, 'ordered' as const, 'keyed' as const),
    key: fc.nat(KEYS.length - 1),
    ns: fc.nat(NAMESPACES.length - 1),
    value: fc.nat(999),
  }),
  fc.record({ do: fc.constantFrom('timer' as const, 'untimer' as const), key: fc.nat(KEYS.length - 1), ns: fc.nat(2), value: fc.nat(20) }),
  fc.record({ do: fc.constant('pop' as const), value: fc.nat(20) }),
);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 30, arbitrary: change },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('rollback' as const), steps: fc.array(change, { maxLength: 6 }) }) },
  {
    weight: 15,
    arbitrary: fc.record({
      do: fc.constantFrom(
        'checkpoint' as const,
        'barrier' as const,
        'barrier' as const,
        'complete' as const,
        'abort' as const,
        'encode' as const,
        'sweep' as const,
        'sweep' as const,
        'sweep-all' as const,
        'maintain' as const,
        'relieve' as const,
        'tick' as const,
      ),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restore' as const), parallelism: fc.constantFrom(1, 2, 3) }) },
);

const CHANGES: ReadonlySet<string> = new Set(['put', 'mutate', 'set', 'delete', 'timer', 'untimer', 'pop', 'rollback']);

/** What the state should be: by table, key and namespace. */
class Model {
  rows = new Map<string, unknown>();
  timers = new Set<string>();

  clone(): Model {
    const copied = new Model();
    copied.rows = structuredClone(this.rows);
    copied.timers = new Set(this.timers);
    return copied;
  }
}

class Job {
  private readonly backend: Backend;
  private readonly storage: Storage = new Map();
  private instances: Instance[] = [];
  private model = new Model();
  private barrier = 0;
  private frozen: { id: number; model: Model } | undefined;
  private completed: { handles: readonly Handle[]; model: Model } = { handles: [], model: new Model() };

  constructor(backend: Backend) {
    this.backend = backend;
  }

  async open(parallelism: number, handles: readonly Handle[]): Promise<void> {
    this.instances = [];
    for (let i = 0; i < parallelism; i++) this.instances.push(await Instance.open(this.backend, this.storage, i, parallelism, handles));
  }

  /** Where there is room for nothing, nothing is counted once all has been written down. */
  async emptied(): Promise<void> {
    for (const { region, task } of this.instances) {
      for (let i = 0; i < 6; i++) await task.relieve();
      expectCounted(region, task);
      expect(task.stats().residentBytes).toBeLessThanOrEqual(1);
    }
  }

  async close(): Promise<void> {
    for (const instance of this.instances) await instance.region.close();
  }

  private owner = (key: Key): Instance => this.instances[instanceOf(groupOf(hashKey(key), MAX_PARALLELISM), this.instances.length, MAX_PARALLELISM)]!;

  check(): void {
    expect(contentsOf(this.instances, KEYS, this.owner)).toEqual(this.expected(this.model));
    const sizes = this.instances.map((each) => [each.single.size, each.ordered.size + each.keyed.size, each.timers.size]);
    const sum = (i: number): number => sizes.reduce((total, each) => total + each[i]!, 0);
    const singles = [...this.model.rows.keys()].filter((id) => id.startsWith('single')).length;
    expect([sum(0), sum(1), sum(2)]).toEqual([singles, this.model.rows.size - singles, this.model.timers.size]);
  }

  private expected(model: Model): Contents {
    const reference: Contents = new Map();
    for (const [id, value] of model.rows) reference.set(nameOf(id), value);
    for (const id of model.timers) {
      const [key, time, ns] = JSON.parse(id) as [number, number, number];
      reference.set(`t:${hex(KEYS[key]!)}:${ns * 1000 + time}`, time);
    }
    return new Map([...reference].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  async run(steps: readonly Step[]): Promise<void> {
    for (const each of steps) await this.apply(each);
    this.check();
    // A base of what is left, whose sweep goes on over the first half of the history again, and a checkpoint that rests on it.
    await this.apply({ do: 'checkpoint' });
    for (const each of steps.slice(0, 60)) {
      if (CHANGES.has(each.do)) await this.apply(each);
      await this.apply({ do: each.do === 'put' ? 'relieve' : 'tick' });
      if (each.do === 'mutate') await this.apply({ do: 'sweep' });
    }
    await this.apply({ do: 'sweep-all' });
    await this.apply({ do: 'checkpoint' });
    await this.restore(2);
  }

  private async apply(each: Step): Promise<void> {
    await this.perform(each);
    for (const { region, task } of this.instances) expectCounted(region, task);
  }

  private async perform(each: Step): Promise<void> {
    switch (each.do) {
      case 'rollback': {
        const before = this.model.clone();
        const owners = this.instances;
        for (const instance of owners) instance.task.beginUnit();
        for (const inner of each.steps) this.change(inner);
        for (const instance of owners) instance.task.rollbackUnit();
        this.model = before;
        return;
      }
      case 'barrier':
        if (this.frozen !== undefined) return;
        this.barrier++;
        for (const instance of this.instances) instance.freeze(this.barrier);
        this.frozen = { id: this.barrier, model: this.model.clone() };
        return;
      case 'complete':
        if (this.frozen === undefined) return;
        this.completed = { handles: this.instances.map((instance) => instance.handle(this.frozen!.id)), model: this.frozen.model };
        this.frozen = undefined;
        return;
      case 'checkpoint':
        await this.apply({ do: 'complete' });
        await this.apply({ do: 'barrier' });
        await this.apply({ do: 'complete' });
        return;
      case 'abort':
        this.frozen = undefined;
        return;
      case 'encode':
        for (const instance of this.instances) instance.encodeSome();
        return;
      case 'sweep':
        if (this.barrier > 0 && this.instances.every((instance) => instance.task !== undefined))
          for (const instance of this.instances) await this.sweeping(() => instance.sweepSome());
        return;
      case 'sweep-all':
        if (this.barrier > 0) for (const instance of this.instances) await this.sweeping(() => instance.sweepAll());
        return;
      case 'maintain':
        for (const instance of this.instances) instance.task.maintain();
        return;
      case 'relieve':
        for (const instance of this.instances) await instance.task.relieve();
        return;
      case 'tick':
        await new Promise((resolve) => setImmediate(resolve));
        return;
      case 'restore':
        await this.restore(each.parallelism);
        return;
      default:
        for (const instance of this.instances) instance.task.beginUnit();
        this.change(each);
        for (const instance of this.instances) instance.task.commitUnit();
    }
  }

  /** After a restore there is nothing to sweep from before the first barrier. */
  private async sweeping(work: () => Promise<void>): Promise<void> {
    if (this.sinceRestore < this.barrier) await work();
  }
  private sinceRestore = 0;

  private async restore(parallelism: number): Promise<void> {
    await this.close();
    await this.open(parallelism, this.completed.handles);
    this.model = this.completed.model.clone();
    this.frozen = undefined;
    this.sinceRestore = this.barrier;
    this.check();
  }

  private change(each: Step): void {
    const { model } = this;
    switch (each.do) {
      case 'put':
      case 'set':
      case 'mutate':
      case 'delete': {
        const key = KEYS[each.key]!;
        const hash = hashKey(key);
        const instance = this.owner(key);
        const ns: unknown = each.table === 'single' ? undefined : each.table === 'ordered' ? each.ns : NAMESPACES[each.ns];
        const id = JSON.stringify([each.key, each.table === 'single' ? 0 : each.ns]);
        const name = `${each.table}${id}`;
        const table = each.table === 'single' ? undefined : instance[each.table];
        const group = table?.find(key, hash);
        const row = table === undefined ? instance.single.find(key, hash) : group === undefined ? undefined : table.row(group, ns);
        expect(row !== undefined).toBe(model.rows.has(name));
        const put = (value: unknown): void => {
          if (table === undefined) {
            if (row === undefined) instance.single.insert(key, hash, value);
            else instance.single.put(row, value);
          } else if (row === undefined) {
            table.insertRow(group ?? table.insert(key, hash), ns, value);
          } else {
            table.put(row, value);
          }
        };
        if (each.do === 'put') {
          put({ n: each.value });
          model.rows.set(name, { n: each.value });
        } else if (each.do === 'set') {
          put(each.value);
          model.rows.set(name, each.value);
        } else if (row !== undefined && each.do === 'mutate') {
          (table ?? instance.single).touch(row);
          const was = model.rows.get(name);
          if (typeof row.value === 'object') {
            (row.value as { n: number; more?: number[] }).n += each.value;
            (row.value as { more?: number[] }).more = [each.value];
            const copied = structuredClone(was) as { n: number; more?: number[] };
            copied.n += each.value;
            copied.more = [each.value];
            model.rows.set(name, copied);
          } else {
            row.value = each.value;
            model.rows.set(name, each.value);
          }
        } else if (row !== undefined) {
          if (table === undefined) instance.single.delete(row);
          else table.deleteRow(group!, row);
          model.rows.delete(name);
        }
        return;
      }
      case 'timer':
      case 'untimer': {
        const key = KEYS[each.key]!;
        const id = JSON.stringify([each.key, each.value, each.ns]);
        const { timers } = this.owner(key);
        if (each.do === 'timer') expect(timers.set(each.value, key, hashKey(key), each.ns)).toBe(!model.timers.has(id));
        else expect(timers.delete(each.value, key, hashKey(key), each.ns)).toBe(model.timers.has(id));
        if (each.do === 'timer') model.timers.add(id);
        else model.timers.delete(id);
        return;
      }
      case 'pop':
        for (const instance of this.instances) {
          const popped = instance.timers.pop(each.value);
          const times = [...model.timers].map((id) => JSON.parse(id) as [number, number, number]).filter(([key]) => this.owner(KEYS[key]!) === instance);
          const earliest = Math.min(...times.map(([, time]) => time));
          if (popped === undefined) expect(earliest).toBeGreaterThan(each.value);
          else {
            expect(popped.time).toBe(earliest);
            expect(model.timers.delete(JSON.stringify([KEYS.findIndex((key) => hex(key) === hex(popped.key)), popped.time, popped.ns]))).toBe(true);
          }
          expect(instance.timers.next).toBe(
            Math.min(
              ...[...model.timers]
                .map((id) => JSON.parse(id) as [number, number, number])
                .filter(([key]) => this.owner(KEYS[key]!) === instance)
                .map(([, time]) => time),
            ),
          );
        }
        return;
      default:
        throw new Error(`${each.do} is no change.`);
    }
  }
}

const hex = (key: Key): string => keyBytes(key).toString('hex');

function nameOf(id: string): string {
  const table = id.slice(0, id.indexOf('['));
  const [key, ns] = JSON.parse(id.slice(id.indexOf('['))) as [number, number];
  const kind = table === 'single' ? 's' : table;
  return `${kind}:${hex(KEYS[key]!)}:${table === 'keyed' ? hexOf(NAMESPACES[ns]!) : ns}`;
}

/** Numbers stand as they are in the names of rows. */
const hexOf = (ns: Key): string => (typeof ns === 'number' ? String(ns) : hex(ns));

/** Random histories; the seed of a failing one is printed by fast-check. */
export async function holdsForAllHistories(backend: () => Backend, runs: number, options: { seed?: number; empties?: boolean } = {}): Promise<void> {
  const { seed, empties = false } = options;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 300, size: 'max' }), async (steps) => {
      const job = new Job(backend());
      await job.open(1, []);
      try {
        await job.run(steps);
        if (empties) await job.emptied();
      } finally {
        await job.close();
      }
    }),
    { numRuns: runs, ...(seed === undefined ? {} : { seed }), interruptAfterTimeLimit: 45_000 },
  );
}
