import { describe, expect, test } from 'vitest';
import {
  at,
  type BaseRef,
  chainOf,
  type DeltaRef,
  EMPTY_CHAIN,
  filesOf,
  type Handle,
  handleOf,
  wantsBase,
  withBase,
  withDelta,
} from '../../state-backends/index.ts';

const file = (name: string, bytes = 10): DeltaRef['file'] => ({ name, bytes, crc: 0 });
const delta = (id: number, bytes = 10): DeltaRef => ({ id, file: file(`delta-${id}`, bytes) });
const base = (b: number, n: number, name = `base-${b}`): BaseRef => ({ kind: 'rows', file: file(name), b, n });

describe('the chain of a snapshot', () => {
  test('C1: keeps every delta until a base replaces it', () => {
    const chain = [1, 2, 3].reduce((c, id) => withDelta(c, delta(id)), EMPTY_CHAIN);
    expect(handleOf(at(chain, 3)).deltas.map((d) => d.id)).toEqual([1, 2, 3]);
  });

  test('C2: a base (b, n) serves checkpoints after n only, with the deltas after b', () => {
    let chain = [1, 2, 3].reduce((c, id) => withDelta(c, delta(id)), EMPTY_CHAIN);
    chain = withBase(chain, base(1, 3));
    expect(handleOf(at(chain, 3))).toMatchObject({ bases: [], deltas: [{ id: 1 }, { id: 2 }, { id: 3 }] });
    chain = at(withDelta(chain, delta(4)), 4);
    expect(filesOf(handleOf(chain)).map((f) => f.name)).toEqual(['base-1', 'delta-2', 'delta-3', 'delta-4']);
    expect(chain.next).toBeUndefined();
  });

  test('C4: a file that two tasks name counts for the groups of those that still name it', () => {
    const shared = delta(1);
    const low: Handle = { range: { from: 0, to: 63 }, bases: [base(2, 2)], deltas: [delta(3)] };
    const high: Handle = { range: { from: 64, to: 127 }, bases: [], deltas: [shared, delta(2)] };
    const chain = chainOf([low, high]);
    expect(chain.bases.map((ref) => [ref.file.name, ref.ranges])).toEqual([['base-2', [{ from: 0, to: 63 }]]]);
    expect(chain.deltas.map((ref) => [ref.id, ref.ranges])).toEqual([
      [1, [{ from: 64, to: 127 }]],
      [2, [{ from: 64, to: 127 }]],
      [3, [{ from: 0, to: 63 }]],
    ]);
    const both = chainOf([
      { range: { from: 0, to: 63 }, bases: [], deltas: [shared] },
      { range: { from: 64, to: 127 }, bases: [], deltas: [shared] },
    ]);
    expect(both.deltas).toEqual([{ ...shared, ranges: [{ from: 0, to: 127 }] }]);
    const again = chainOf([handleOf(chain, { from: 32, to: 95 })]);
    expect(again.deltas.map((ref) => ref.ranges)).toEqual([[{ from: 64, to: 95 }], [{ from: 64, to: 95 }], [{ from: 32, to: 63 }]]);
  });

  test('wants a base after 16 deltas, or when they exceed half of the bases', () => {
    const many = Array.from({ length: 17 }, (_, i) => delta(i)).reduce(withDelta, EMPTY_CHAIN);
    expect([wantsBase(many), wantsBase({ ...many, deltas: many.deltas.slice(1) })]).toEqual([true, false]);
    expect(wantsBase(withDelta(EMPTY_CHAIN, delta(1, 2 << 20)))).toBe(true);
    expect(wantsBase(withBase(many, base(1, 2)))).toBe(false);
  });
});
