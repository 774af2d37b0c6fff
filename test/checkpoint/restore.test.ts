import { describe, expect, it } from 'vitest';
import { type CheckpointMetadata, writersOf } from '../../src/checkpoint/metadata.ts';
import { newestWhole, refuseDuplicates, restoreVertex, settleMaxParallelism, strayed, unclaimed, writersToAsk } from '../../src/checkpoint/restore.ts';
import type { Graph, Vertex } from '../../src/graph/plan.ts';
import { buildGraph } from '../../src/graph/plan.ts';
import type { OperatorSnapshot, SplitSnapshot, TaskSnapshot } from '../../src/runtime/snapshot.ts';
import { rangeOf } from '../../state-backends/index.ts';
import { nodesOf } from '../graph/nodes.ts';

const MAX = 128;
const graph = (parallelism: number): Graph =>
  buildGraph(
    nodesOf((env) => {
      env
        .fromArray('in', [1])
        .keyBy((v) => v)
        .reduce('sum', (a, b) => a + b)
        .sink('out', { transactional: true, open: async () => ({ commit: async () => {}, lastCommitted: async () => 0, close: async () => {} }) });
    }),
    { parallelism },
  );
const vertexOf = (parallelism: number, id: string): Vertex => graph(parallelism).vertices.find((v) => v.id === id)!;
const file = (name: string) => ({ name, bytes: 1, crc: 1 });

function task(vertex: string, subtask: number, parallelism: number, more: Partial<TaskSnapshot> & { watermark?: number } = {}): TaskSnapshot {
  const range = rangeOf(subtask, parallelism, MAX);
  return {
    vertex,
    subtask,
    parallelism,
    watermark: 100 * (subtask + 1),
    processingTime: 5000 + subtask,
    ended: false,
    operators: {},
    keyed: vertex === 'sum' ? { uid: 'sum', range, handle: { range, bases: [], deltas: [{ id: 1, file: file(`delta-${subtask}`) }] } } : undefined,
    ...more,
  };
}
function metadata(tasks: TaskSnapshot[], drained = false): CheckpointMetadata {
  return { id: 5, job: 'j', lineage: 'l', attempt: 1, maxParallelism: MAX, planHash: '', startedAt: 0, durationMs: 0, drained, tasks };
}
const split = (id: string, finished = false): SplitSnapshot => ({
  id,
  split: id,
  position: 1,
  finished,
  rest: undefined,
  time: { maxTimestamp: 7, watermark: 6 },
});
const source = (splits: SplitSnapshot[]): Record<string, OperatorSnapshot> => ({ in: { splits } });

describe('what a new task takes over', () => {
  it('keyed: the handles of all old tasks whose key groups meet its own, over 1 → 3 → 2', () => {
    const names = (from: number, to: number): string[][] =>
      restoreVertex(vertexOf(to, 'sum'), metadata(Array.from({ length: from }, (_, i) => task('sum', i, from))), MAX).tasks.map((t) =>
        t.handles.flatMap((h) => h.deltas.map((d) => d.file.name)),
      );
    expect(names(1, 3)).toEqual([['delta-0'], ['delta-0'], ['delta-0']]);
    expect(names(3, 2)).toEqual([
      ['delta-0', 'delta-1'],
      ['delta-1', 'delta-2'],
    ]);
    expect(names(2, 2)).toEqual([['delta-0'], ['delta-1']]);
  });

  it('every key group has exactly one new owner', () => {
    for (const parallelism of [1, 2, 3, 7, 128]) {
      const owners = Array.from({ length: MAX }, () => 0);
      for (let i = 0; i < parallelism; i++) {
        const { from, to } = rangeOf(i, parallelism, MAX);
        for (let g = from; g <= to; g++) owners[g]! += 1;
      }
      expect(owners.every((n) => n === 1)).toBe(true);
    }
  });

  it('keyed: the least watermark of those it takes over, none of a drained checkpoint', () => {
    const old = [0, 1, 2].map((i) => task('sum', i, 3));
    expect(restoreVertex(vertexOf(2, 'sum'), metadata(old), MAX).tasks.map((t) => t.watermark)).toEqual([100, 200]);
    expect(restoreVertex(vertexOf(2, 'sum'), metadata(old, true), MAX).tasks.map((t) => t.watermark)).toEqual([-Infinity, -Infinity]);
    expect(restoreVertex(vertexOf(2, 'sum'), metadata([]), MAX).tasks.map((t) => t.watermark)).toEqual([-Infinity, -Infinity]);
  });

  it('a source: splits in the order of their ids, unfinished ones to whoever has the fewest', () => {
    const old = [task('in', 0, 2, { operators: source([split('d'), split('a', true)]) }), task('in', 1, 2, { operators: source([split('c'), split('b')]) })];
    const restored = restoreVertex(vertexOf(2, 'in'), metadata(old), MAX);
    expect(restored.tasks.map((t) => t.operators['in']!.splits!.map((s) => s.id))).toEqual([['a', 'b', 'd'], ['c']]);
    expect(restored.counts).toEqual([2, 1]);
    expect(restored.known).toEqual(new Set(['a', 'b', 'c', 'd']));
  });

  it('a source: a split that was on its way to its instance at the barrier is taken over once, as that instance had it', () => {
    const handed = (id: string): SplitSnapshot => ({ ...split(id), position: undefined, handed: true });
    const old = [task('in', 0, 2, { operators: source([split('a'), handed('b'), handed('c')]) }), task('in', 1, 2, { operators: source([split('c')]) })];
    const restored = restoreVertex(vertexOf(1, 'in'), metadata(old), MAX);
    expect(restored.tasks[0]!.operators['in']!.splits!.map(({ id, position }) => [id, position])).toEqual([
      ['a', 1],
      ['b', undefined],
      ['c', 1],
    ]);
    expect(restored.known).toEqual(new Set(['a', 'b', 'c']));
  });

  it('a source: the least watermark of the old owners of its splits, not that of the instance of its number', () => {
    const old = [task('in', 0, 2, { operators: source([split('a'), split('b')]) }), task('in', 1, 2, { operators: source([split('c')]) })];
    expect(restoreVertex(vertexOf(2, 'in'), metadata(old), MAX).tasks.map((t) => t.watermark)).toEqual([100, 100]);
    expect(restoreVertex(vertexOf(3, 'in'), metadata(old), MAX).tasks.map((t) => t.watermark)).toEqual([100, 100, 200]);
  });

  it('what is split between instances of what an ended one had kept is not given to others: its onEnd has given it away', () => {
    const parts = (items: readonly unknown[]) => ({ in: { splits: [], parts: { held: { mode: 'split', items }, seen: { mode: 'union', items } } } }) as const;
    const old = [task('in', 0, 2, { operators: parts(['a', 'b']), ended: true }), task('in', 1, 2, { operators: parts(['c']) })];
    for (const parallelism of [1, 2]) {
      const { tasks } = restoreVertex(vertexOf(parallelism, 'in'), metadata(old), MAX);
      expect(tasks.flatMap((t) => t.parts['in']!['held'])).toEqual(['c']);
      expect(tasks[0]!.parts['in']!['seen']).toEqual(['a', 'b', 'c']);
    }
  });

  it('a source counts as ended only where every split that it is given is finished', () => {
    const old = [
      task('in', 0, 2, { operators: source([split('a'), split('c')]) }),
      task('in', 1, 2, { operators: source([split('b', true)]), ended: true, watermark: Number.POSITIVE_INFINITY }),
    ];
    const restored = restoreVertex(vertexOf(2, 'in'), metadata(old), MAX);
    expect(restored.tasks.map((t) => [t.ended, t.watermark, t.operators['in']!.splits!.map((s) => s.id)])).toEqual([
      [false, 100, ['a']],
      [false, 100, ['b', 'c']],
    ]);
    const done = [0, 1].map((i) => task('in', i, 2, { operators: source([split(`s${i}`, true)]), ended: true }));
    expect(restoreVertex(vertexOf(2, 'in'), metadata(done), MAX).tasks.map((t) => t.ended)).toEqual([true, true]);
    expect(restoreVertex(vertexOf(3, 'in'), metadata(done), MAX).tasks.map((t) => t.ended)).toEqual([true, true, true]);
  });

  it('of a drained checkpoint: event time begins anew, nothing counts as ended', () => {
    const old = [task('in', 0, 1, { operators: source([split('a')]), ended: true })];
    const [restored] = restoreVertex(vertexOf(1, 'in'), metadata(old, true), MAX).tasks;
    expect(restored).toMatchObject({ watermark: -Infinity, ended: false });
    expect(restored!.operators['in']!.splits![0]!.time).toBeUndefined();
  });

  it('writers: every identity has one new owner, itself where it still runs', () => {
    const writer = (name: string) => ({ writer: name, lineage: 'l', segments: [], data: name });
    const old = [0, 1, 2, 3].map((i) => task('sum', i, 4, { operators: { out: { writers: [writer(String(i))] } } }));
    const owners = (parallelism: number) =>
      restoreVertex(vertexOf(parallelism, 'sum'), metadata(old), MAX).tasks.map((t) => t.operators['out']!.writers?.map((w) => w.writer));
    expect(owners(2)).toEqual([
      ['0', '2'],
      ['1', '3'],
    ]);
    expect(owners(1)).toEqual([['0', '1', '2', '3']]);
    expect(owners(5)).toEqual([['0'], ['1'], ['2'], ['3'], undefined]);
  });

  it('processing time never goes back', () => {
    const old = [0, 1].map((i) => task('sum', i, 2));
    expect(restoreVertex(vertexOf(1, 'sum'), metadata(old), MAX).tasks[0]!.processingTime).toBe(5001);
  });

  it('dead letters go to the first instance, the newest 1,000', () => {
    const letters = (n: number) => Array.from({ length: n }, (_, i) => ({ record: i }) as never);
    const old = [0, 1].map((i) => task('sum', i, 2, { operators: { sum: { deadLetters: letters(800), deadLettersDropped: 1 } } }));
    const [first, second] = restoreVertex(vertexOf(2, 'sum'), metadata(old), MAX).tasks;
    expect(first!.operators['sum']!.deadLetters).toHaveLength(1000);
    expect(second!.operators['sum']!.deadLetters).toBeUndefined();
  });
});

describe('which checkpoint', () => {
  const info = (id: number) => ({ id, path: `chk-${id}`, bytes: 0, startedAt: 0, durationMs: 0 });
  const whole = (id: number) => ({ checkpoint: info(id), fault: undefined, metadata: metadata([]) });
  const bad = (id: number) => ({ checkpoint: info(id), fault: new Error(`file of ${id}`), metadata: undefined });

  it('the newest that is whole, and what was passed over for it', () => {
    expect(newestWhole([whole(3), bad(2)])).toMatchObject({ chosen: { checkpoint: { id: 3 } }, passedOver: [] });
    expect(newestWhole([bad(4), bad(3), whole(2), whole(1)])).toMatchObject({
      chosen: { checkpoint: { id: 2 } },
      passedOver: [{ checkpoint: { id: 4 } }, { checkpoint: { id: 3 } }],
    });
    expect(newestWhole([bad(1)]).chosen).toBeUndefined();
  });

  it('an older one only where no sink has committed past it', () => {
    expect(() => refuseDuplicates(info(2), [bad(3)], [{ uid: 'out', writer: '0', marker: 2 }])).not.toThrow();
    expect(() => refuseDuplicates(info(2), [bad(3)], [{ uid: 'out', writer: '0', marker: 3 }])).toThrow(
      /file of 3.*sink 'out', writer 0, up to checkpoint 3.*from: 2/,
    );
  });

  it('asks of a sink every writer that may have committed: of the plan, named by metadata, and counted by a pointer', () => {
    const names = (...candidates: Parameters<typeof writersToAsk>[3]): string[] =>
      writersToAsk('out', 1, 'l', candidates).map((w) => `${w.lineage}/${w.writer}`);
    const adopted = { lineage: 'other', writer: '1', segments: [], data: undefined };
    const own = { ...adopted, lineage: 'l', writer: '0', data: 'its data' };
    const named = metadata([task('sum', 0, 1, { operators: { out: { writers: [own, adopted] } } })]);
    expect(names(whole(1))).toEqual(['l/0']);
    expect(names({ ...whole(1), metadata: named })).toEqual(['l/0', 'other/1']);
    expect(names(whole(1), { ...bad(2), checkpoint: { ...info(2), writers: { out: 3, elsewhere: 9 } } })).toEqual(['l/0', 'l/1', 'l/2']);
    expect(writersToAsk('out', 1, 'l', [{ ...whole(1), metadata: named }])[0]).toMatchObject({ data: 'its data' });
    expect(writersOf(named)).toEqual({ out: 2 });
    expect(writersOf(metadata([task('sum', 0, 1)]))).toEqual({});
  });

  it('key groups: the stored number, else the one asked for, else the default', () => {
    const settle = (asked: number | undefined, stored: number | undefined, largest = 1) => settleMaxParallelism({ asked, stored, byDefault: 128, largest });
    expect([settle(undefined, undefined), settle(64, undefined), settle(undefined, 32), settle(32, 32)]).toEqual([128, 64, 32, 32]);
    for (const [args, code] of [
      [[64, 32], 'MAX_PARALLELISM_CHANGED'],
      [[undefined, 32, 33], 'MAX_PARALLELISM_CHANGED'],
      [[32, undefined, 33], 'OPTION_INVALID'],
      [[65_536, undefined], 'OPTION_INVALID'],
      [[0, undefined], 'OPTION_INVALID'],
    ] as const)
      expect(() => settle(...(args as unknown as [number | undefined, number | undefined, number?])), String(args)).toThrow(expect.objectContaining({ code }));
  });

  it('state that the program does not claim is named; a task that holds nothing claims nothing', () => {
    const old = [task('sum', 0, 1), { ...task('old', 0, 1), operators: { gone: { deadLetters: [] } } }];
    expect(unclaimed(metadata(old), graph(1))).toEqual(['gone']);
    const renamed = buildGraph(
      nodesOf((env) => void env.fromArray('in', [1])),
      { parallelism: 1 },
    );
    expect(unclaimed(metadata([task('sum', 0, 1)]), renamed)).toEqual(['sum']);
    expect(unclaimed(metadata([{ ...task('sum', 0, 1), keyed: undefined }]), renamed)).toEqual([]);
  });
});

describe('what was in flight (semantics 2)', () => {
  const ADDRESS = 'sum left by key';
  const lanes = (address = ADDRESS, maxParallelism = MAX): Partial<TaskSnapshot> => ({
    inFlight: {
      file: file('in-flight'),
      maxParallelism,
      lanes: [
        { address, stage: 0, records: 3 },
        { address: undefined, stage: 0, records: 0 },
      ],
    },
  });
  const shares = (from: number, to: number, more = lanes(), max = MAX): string[] =>
    restoreVertex(vertexOf(to, 'sum'), metadata(Array.from({ length: from }, (_, i) => task('sum', i, from, more))), max).tasks.map((t) =>
      t.inFlight.map(({ from: old, whole, inputs }) => `${old}${whole ? '' : '?'}:${inputs.map((input) => input ?? '-').join()}`).join(' '),
    );

  it('goes to the instance that had it at the same parallelism, else to all that have some of its key groups', () => {
    expect(shares(2, 2)).toEqual(['0:0,-', '1:0,-']);
    expect(shares(1, 3)).toEqual(['0?:0,-', '0?:0,-', '0?:0,-']);
    expect(shares(3, 2)).toEqual(['0?:0,- 1?:0,-', '1?:0,- 2?:0,-']);
  });

  it('is looked for in every old instance where the number of key groups has changed, also at the same parallelism', () => {
    expect(shares(2, 2, lanes(ADDRESS, 64))).toEqual(['0?:0,- 1?:0,-', '0?:0,- 1?:0,-']);
  });

  it('astray is what no edge leads to; what brings time only never is', () => {
    const of = (address: string) => [...strayed(metadata([task('sum', 0, 2, lanes(address)), task('sum', 1, 2, lanes(address))]), graph(2))];
    expect(of(ADDRESS)).toEqual([]);
    expect(of('gone left by key')).toEqual([['gone', 6]]);
    expect(shares(2, 2, lanes('gone left by key'))).toEqual(['', '']);
  });

  it('a watermark that was on its way still is, where it is the one that the new task starts at', () => {
    const restored = (watermarks: readonly [number, number], advancing: number): [number, boolean][] =>
      restoreVertex(
        vertexOf(1, 'sum'),
        metadata(watermarks.map((watermark, i) => task('sum', i, 2, { watermark, ...(i === advancing ? { advancing: true } : {}) }))),
        MAX,
      ).tasks.map((t) => [t.watermark, t.advancing]);
    expect(restored([50, 100], 0)).toEqual([[50, true]]);
    expect(restored([50, 100], 1)).toEqual([[50, false]]);
  });
});
