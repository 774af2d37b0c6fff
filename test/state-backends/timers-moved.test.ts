// Timers that are moved: the same as taken out and set anew, for those that fire, for what is frozen, and for what is undone.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Backend, hashKey, memory, type TaskState, type TimerTable } from '../../state-backends/index.ts';

const ALL = { maxParallelism: 16, range: { from: 0, to: 15 } };

async function open(few: boolean): Promise<{ state: TaskState; timers: TimerTable }> {
  const region = await (memory() as Backend).open({ name: 'moved-0-1-abc', tracked: true });
  const state = region.task({ ...ALL, undo: true });
  return { state, timers: state.timers('op', 'timers', few) };
}

async function* each(blocks: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* blocks;
}

const listed = (timers: TimerTable): string[] => [...timers.all()].map(({ time, key, ns }) => `${time}/${String(key)}/${ns}`).sort();

const step = fc.oneof(
  fc.record({ do: fc.constant('set' as const), time: fc.nat(20), key: fc.nat(3), ns: fc.nat(1) }),
  fc.record({ do: fc.constant('delete' as const), time: fc.nat(20), key: fc.nat(3), ns: fc.nat(1) }),
  fc.record({ do: fc.constant('move' as const), time: fc.nat(20) }),
  fc.record({ do: fc.constant('take' as const), time: fc.nat(20) }),
  fc.record({ do: fc.constantFrom('begin' as const, 'commit' as const, 'rollback' as const, 'freeze' as const, 'encode' as const), time: fc.nat(20) }),
);

describe('a timer that is moved', () => {
  it('is as one taken out and set anew, whatever is frozen or undone meanwhile', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 200, size: 'max' }), async (steps) => {
        const few = await open(true);
        const plain = await open(false);
        const both = [few, plain];
        let barrier = 0;
        let within = false;
        for (const each of steps) {
          if (each.do === 'set' || each.do === 'delete') {
            const said = both.map(({ timers }) => timers[each.do as 'set'](each.time, each.key, hashKey(each.key), each.ns));
            expect(said[0]).toBe(said[1]);
          } else if (each.do === 'move') {
            const first = few.timers.first(each.time);
            const same = plain.timers.pop(each.time);
            expect(first === undefined ? undefined : [first.time, first.key, first.ns]).toEqual(same && [same.time, same.key, same.ns]);
            if (first === undefined || same === undefined) continue;
            few.timers.move(first, same.time + each.time);
            plain.timers.set(same.time + each.time, same.key, same.hash, same.ns);
          } else if (each.do === 'take') {
            for (const { timers } of both) {
              const first = timers.first(each.time);
              if (first !== undefined) timers.take(first);
            }
          } else if (each.do === 'begin') {
            if (!within) for (const { state } of both) state.beginUnit();
            within = true;
          } else if (each.do === 'commit' || each.do === 'rollback') {
            if (within) for (const { state } of both) state[each.do === 'commit' ? 'commitUnit' : 'rollbackUnit']();
            within = false;
          } else if (!within) {
            if (each.do === 'freeze') barrier++;
            for (const { state } of both) {
              if (each.do === 'freeze') state.freeze(barrier);
              else state.encode(Number.POSITIVE_INFINITY);
            }
          }
          expect(few.timers.next).toBe(plain.timers.next);
          expect(few.timers.size).toBe(plain.timers.size);
          expect(listed(few.timers)).toEqual(listed(plain.timers));
        }
        if (within) for (const { state } of both) state.commitUnit();
        for (const { state } of both) {
          state.freeze(barrier + 1);
          state.encode(Number.POSITIVE_INFINITY);
        }
        const again = await open(true);
        for (const { blocks } of few.state.takeDeltas()) if (blocks.length > 0) await again.state.load(each(blocks));
        expect(listed(again.timers)).toEqual(listed(plain.timers));
        const order = ({ timers }: { timers: TimerTable }): unknown[] => {
          const popped: unknown[] = [];
          for (let t = timers.pop(1e9); t !== undefined; t = timers.pop(1e9)) popped.push([t.time, t.key, t.ns]);
          return popped;
        };
        expect(order(few)).toEqual(order(plain));
      }),
      { numRuns: 300 },
    );
  });

  it('is in the snapshot at the time that it had when it was frozen', async () => {
    const { state, timers } = await open(true);
    timers.set(5, 'k', hashKey('k'));
    state.freeze(1);
    timers.move(timers.first(5)!, 9);
    state.encode(Number.POSITIVE_INFINITY);
    const again = await open(true);
    for (const { blocks } of state.takeDeltas()) await again.state.load(each(blocks));
    expect(listed(again.timers)).toEqual(['5/k/0']);
  });

  it('to a time where there is one already leaves one', async () => {
    const { timers } = await open(true);
    timers.set(5, 'k', hashKey('k'));
    timers.set(9, 'k', hashKey('k'));
    timers.move(timers.first(5)!, 9);
    expect(listed(timers)).toEqual(['9/k/0']);
    expect(timers.next).toBe(9);
  });
});

describe('a group that was found', () => {
  it('is held until its last row is gone', async () => {
    const { state } = await open(true);
    const table = state.ordered('op', 'slices');
    const group = table.insert('k', hashKey('k'));
    expect(table.holds(group)).toBe(false);
    const row = table.insertRow(group, 1, 1);
    expect(table.holds(group)).toBe(true);
    table.deleteRow(group, row);
    expect(table.holds(group)).toBe(false);
    expect(table.find('k', hashKey('k'))).toBeUndefined();
  });
});
