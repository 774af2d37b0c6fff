import { describe, expect, test } from 'vitest';
import {
  at,
  type BaseRef,
  chainOf,
  DELTAS_MAX,
  type DeltaRef,
  EMPTY_CHAIN,
  filesOf,
  type Handle,
  handleOf,
  overlong,
  renamed,
  wantBase,
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

describe('a chain is bounded', () => {
  const linked = (name: string, tables: readonly number[], bytes: number): BaseRef => ({
    kind: 'leveldb',
    file: file(name, 100),
    files: tables.map((number) => ({ ...file(`table-${number}`, bytes), number })),
    tables: [],
    b: 1,
    n: 1,
  });

  test('C6: whatever bases come and fail, no chain has more deltas than the most that are allowed, where checkpoints wait for a base from there on', () => {
    for (let seed = 1; seed < 10; seed++) {
      let state = seed;
      const random = (n: number): number => {
        state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
        return (state >>> 8) % n;
      };
      const fails = seed % 3 === 0 ? 1 : 0.1 * (seed % 10);
      let chain = EMPTY_CHAIN;
      let id = 0;
      for (let step = 0; step < 2 * DELTAS_MAX; step++) {
        // A checkpoint: its delta, then its handle. One that is too long is acknowledged only once a base was made.
        chain = at(withDelta(chain, delta(++id)), id);
        expect(chain.deltas.length).toBeLessThanOrEqual(DELTAS_MAX);
        const made = random(1000) / 1000 >= fails;
        if ((overlong(chain) || wantsBase(chain)) && made && chain.next === undefined) chain = withBase(chain, base(id - random(3), id));
        else if (overlong(chain) && chain.next === undefined) break; // declined: the job goes back to a checkpoint before
      }
      if (fails < 0.5) expect(id).toBe(2 * DELTAS_MAX);
    }
  });

  test('a base is wanted together once the deltas of all tasks exceed half of what their bases have, where what they share counts once', () => {
    const bases = [linked('m1', [1, 2], 1000), linked('m1', [1, 2], 1000)];
    const chains = (bytes: number) => bases.map((each) => ({ bases: [each], deltas: [delta(1, bytes)], next: undefined }));
    // Both name the same 2,100 bytes, and each has a delta of its own name.
    const apart = (bytes: number) => chains(bytes).map((chain, i) => ({ ...chain, deltas: [{ id: 1, file: file(`delta-${i}`, bytes) }] }));
    expect(wantBase(apart(500), 0)).toBe(false);
    expect(wantBase(apart(530), 0)).toBe(true);
    expect(wantBase(chains(530), 0)).toBe(false);
    expect(wantBase([...apart(530), withBase(EMPTY_CHAIN, base(1, 1))], 0)).toBe(false);
    expect(wantBase([{ ...EMPTY_CHAIN, deltas: Array.from({ length: 17 }, (_, id) => delta(id)) }, EMPTY_CHAIN])).toBe(true);
  });

  test('files of a linked base are named, and renamed, each with its number', () => {
    const ref = linked('m1', [4, 9], 10);
    expect(filesOf({ bases: [ref], deltas: [delta(2)] }).map(({ name }) => name)).toEqual(['m1', 'table-4', 'table-9', 'delta-2']);
    expect(renamed(ref, ({ name }) => file(`copy of ${name}`))).toMatchObject({
      kind: 'leveldb',
      file: { name: 'copy of m1' },
      files: [
        { name: 'copy of table-4', number: 4 },
        { name: 'copy of table-9', number: 9 },
      ],
    });
    // Two tasks take over shares of one base: it is read once, for the groups of both.
    const low = handleOf({ ...EMPTY_CHAIN, bases: [ref] }, { from: 0, to: 63 });
    const high = handleOf({ ...EMPTY_CHAIN, bases: [ref] }, { from: 64, to: 127 });
    expect(chainOf([low, high]).bases).toMatchObject([{ file: { name: 'm1' }, ranges: [{ from: 0, to: 127 }] }]);
  });
});
