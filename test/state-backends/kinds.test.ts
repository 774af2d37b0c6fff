import { beforeEach, describe, expect, test } from 'vitest';
import {
  aggregating,
  type BoundKinds,
  bindKinds,
  hashKey,
  list,
  map,
  memory,
  reducing,
  type StateSpec,
  type TaskState,
  value,
} from '../../state-backends/index.ts';

let task: TaskState;
beforeEach(async () => {
  const region = await memory().open({ name: 'host/kinds', tracked: true });
  task = region.task({ maxParallelism: 128, range: { from: 0, to: 127 }, undo: false });
});

function under<S extends StateSpec>(bound: BoundKinds<S>, key: string): BoundKinds<S>['handles'] {
  bound.setCurrent(key, hashKey(key));
  return bound.handles;
}

describe('handles of keyed state', () => {
  test('act on the current key, and throw CONTEXT_USED_OUTSIDE_RECORD where there is none', () => {
    const bound = bindKinds(task, 'op', { v: value({ default: 0 }), l: list<number>(), m: map<string, number>() });
    const outside = expect.objectContaining({ code: 'CONTEXT_USED_OUTSIDE_RECORD' });
    expect(() => bound.handles.v.get()).toThrow(outside);
    under(bound, 'a').v.set(1);
    under(bound, 'b').v.update((n) => n + 5);
    expect([under(bound, 'a').v.get(), under(bound, 'b').v.get(), under(bound, 'c').v.get()]).toEqual([1, 5, 0]);
    bound.clearCurrent();
    for (const use of [
      () => bound.handles.v.set(1),
      () => bound.handles.l.add(1),
      () => bound.handles.m.size,
      () => bound.handles.m.keys(),
      () => bound.handles.l.all(),
    ]) {
      expect(use).toThrow(outside);
    }
  });

  test('a default is given fresh each time, and not stored by reading it', () => {
    const bound = bindKinds(task, 'op', { v: value({ default: { n: 0 } }), w: value<string>() });
    under(bound, 'a').v.get().n++;
    expect(bound.handles.v.get()).toEqual({ n: 0 });
    expect(bound.handles.w.get()).toBeUndefined();
    bound.handles.v.clear();
    expect(task.stats().rows).toBe(0);
  });

  test('a list keeps its order over many rows', () => {
    const bound = bindKinds(task, 'op', { l: list<number>() });
    const { l } = under(bound, 'a');
    const all = Array.from({ length: 200 }, (_, i) => i);
    for (const i of all) l.add(i);
    expect([...l]).toEqual(all);
    expect(task.stats().rows).toBe(4);
    const seen: number[] = [];
    for (const i of l) if (seen.push(i) < 300) l.add(i);
    expect(seen).toEqual(all);
    l.set([7, 8]);
    l.add(9);
    expect(under(bound, 'a').l.all()).toEqual([7, 8, 9]);
    l.set([]);
    expect([l.all(), task.stats().rows]).toEqual([[], 0]);
    l.add(1);
    l.clear();
    l.add(2);
    expect(l.all()).toEqual([2]);
  });

  test('a map is one row an entry, and iteration sees its state at the start', () => {
    const bound = bindKinds(task, 'op', { m: map<string | number, number>() });
    const { m } = under(bound, 'a');
    for (let i = 0; i < 20; i++) m.set(`k${i}`, i);
    m.set(1, 1);
    m.set('1', 2);
    expect([m.size, m.get(1), m.get('1'), m.has('k3'), m.has('nope')]).toEqual([22, 1, 2, true, false]);
    let seen = 0;
    for (const key of m.keys()) {
      seen++;
      m.delete(key);
    }
    expect([seen, m.size, [...m.entries()]]).toEqual([22, 0, []]);
    m.set('again', 3);
    expect([...m.values()]).toEqual([3]);
    m.clear();
    expect(under(bound, 'a').m.size).toBe(0);
    expect(() => m.get({} as string)).toThrow(expect.objectContaining({ code: 'KEY_UNSUPPORTED' }));
  });

  test('protocols 16: accumulators do not hand out what they change, and do not change the records they were given', () => {
    const bound = bindKinds(task, 'op', {
      r: reducing<{ n: number }>((left, right) => {
        left.n += right.n;
        return left;
      }),
      a: aggregating({
        create: () => ({ n: 0 }),
        add: (acc, v: number) => {
          acc.n += v;
          return acc;
        },
        result: (acc) => acc,
      }),
      max: reducing<number>(Math.max),
    });
    const { r, a, max } = under(bound, 'a');
    const first = { n: 1 };
    r.add(first);
    r.add({ n: 2 });
    const three = r.get();
    r.add({ n: 3 });
    expect([first, three, r.get()]).toEqual([{ n: 1 }, { n: 3 }, { n: 6 }]);
    a.add(1);
    const one = a.get();
    a.add(1);
    expect([one, a.get()]).toEqual([{ n: 1 }, { n: 2 }]);
    expect(max.get()).toBeUndefined();
    for (const n of [3, 9, 4]) max.add(n);
    expect(max.get()).toBe(9);
    r.clear();
    expect(r.get()).toBeUndefined();
  });

  test('names are unique in an operator, and only keyed kinds can be bound', () => {
    bindKinds(task, 'op', { v: value() });
    expect(() => bindKinds(task, 'op', { v: value() })).toThrow(expect.objectContaining({ code: 'STATE_MISUSED' }));
    expect(() => bindKinds(task, 'op', { w: { scope: 'keyed' } })).toThrow(expect.objectContaining({ code: 'STATE_MISUSED' }));
  });
});
