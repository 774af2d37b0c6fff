import { describe, expect, it } from 'vitest';
import { placeOnWorkers, type Room, withoutConflicts } from '../../src/cluster/worker-placement.ts';
import type { PlannedTask } from '../../src/execution/region-tasks.ts';

/** `source×2 count×4`: the tasks of vertices with so many instances. */
function tasksOf(vertices: string): PlannedTask[] {
  return vertices.split(' ').flatMap((text, index) => {
    const [id, count] = text.split('×') as [string, string];
    const parallelism = Number(count);
    return Array.from(
      { length: parallelism },
      (_, subtask) => ({ name: `${id}-${subtask}`, vertex: { id, index, parallelism }, subtask, upstream: [] }) as unknown as PlannedTask,
    );
  });
}

/** `a:2 b:1`: workers and their slots; `a:2/2` has two hosts. */
function roomsOf(rooms: string): Room[] {
  return rooms
    .split(' ')
    .filter((text) => text !== '')
    .map((text) => {
      const [worker, slots, hosts] = text.split(/[:/]/) as [string, string, string?];
      return { worker, slots: Number(slots), ...(hosts === undefined ? {} : { hosts: Number(hosts) }) };
    });
}

/** By worker (and host, where it is not the first), what it has. */
function placed(vertices: string, rooms: string, last: Record<string, string> = {}): string {
  const before = new Map(Object.entries(last).flatMap(([worker, tasks]) => tasks.split(' ').map((task) => [task, worker] as const)));
  const placement = placeOnWorkers(tasksOf(vertices), roomsOf(rooms), before);
  if (placement === undefined) return 'not enough slots';
  const by = new Map<string, string[]>();
  for (const [task, { worker, index }] of placement) {
    const at = index === 0 ? worker : `${worker}/${index}`;
    by.set(at, [...(by.get(at) ?? []), task]);
  }
  return [...by]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([at, tasks]) => `${at}: ${tasks.sort().join(' ')}`)
    .join(', ');
}

describe('tasks on workers', () => {
  it.each<[what: string, vertices: string, rooms: string, last: Record<string, string>, expected: string]>([
    ['are spread', 's×3', 'a:4 b:4 c:4', {}, 'a: s-0, b: s-1, c: s-2'],
    ['with the same number stand together', 's×2 t×2', 'a:1 b:1', {}, 'a: s-0 t-0, b: s-1 t-1'],
    ['of narrower vertices begin at different workers', 's×1 t×1 u×2', 'a:1 b:1', {}, 'a: s-0 u-0, b: t-0 u-1'],
    ['take no more slots than there are', 's×4', 'a:1 b:3', {}, 'a: s-0, b: s-1 s-2 s-3'],
    ['are not placed where slots are missing', 's×3', 'a:1 b:1', {}, 'not enough slots'],
    ['are not placed without workers', 's×1', '', {}, 'not enough slots'],
    ['leave out who has no slots', 's×2', 'a:0 b:2', {}, 'b: s-0 s-1'],
    ['stay where they were', 's×3', 'a:2 b:2 c:2', { b: 's-0', c: 's-1', a: 's-2' }, 'a: s-2, b: s-0, c: s-1'],
    ['stay when others must move, because their worker is gone', 's×3', 'a:2 c:2', { a: 's-0', b: 's-1', c: 's-2' }, 'a: s-0 s-1, c: s-2'],
    ['move to one that has joined, as far as their worker has more than its share', 's×4', 'a:4 b:4', { a: 's-0 s-1 s-2 s-3' }, 'a: s-0 s-1, b: s-2 s-3'],
    ['move for nobody who could not take some off the fullest', 's×3', 'a:2 b:2 c:2', { a: 's-0', b: 's-1 s-2' }, 'a: s-0, b: s-1, c: s-2'],
    ['stay also where a vertex is wider or narrower now', 's×2 t×3', 'a:2 b:2', { b: 's-0 t-0', a: 's-1 t-1' }, 'a: s-1 t-1 t-2, b: s-0 t-0'],
    ['are dealt out to the hosts of a worker', 's×4', 'a:4/2', {}, 'a: s-0 s-2, a/1: s-1 s-3'],
    ['use as many hosts of a worker as they are', 's×2', 'a:4/3 b:4/3', {}, 'a: s-0, b: s-1'],
  ])('%s', (_, vertices, rooms, last, expected) => {
    expect(placed(vertices, rooms, last)).toBe(expected);
  });

  it('are placed alike each time', () => {
    const once = placed('s×5 t×3 u×7', 'a:3 b:2 c:4', { c: 's-0 u-3', a: 't-1' });
    expect(placed('s×5 t×3 u×7', 'a:3 b:2 c:4', { c: 's-0 u-3', a: 't-1' })).toBe(once);
  });
});

describe('workers that cannot reach each other', () => {
  it.each<[what: string, rooms: string, apart: [string, string][], kept: string]>([
    ['nobody is left out where all reach all', 'a:1 b:1 c:1', [], 'a b c'],
    ['one of a pair is left out: the one with fewer slots', 'a:1 b:2 c:1', [['a', 'b']], 'b c'],
    ['of equals the one with the larger id is left out', 'a:1 b:1 c:1', [['a', 'b']], 'a c'],
    [
      'whoever is in several pairs is left out alone',
      'a:1 b:9 c:1 d:1',
      [
        ['a', 'b'],
        ['b', 'c'],
        ['b', 'd'],
      ],
      'a c d',
    ],
    ['pairs of which one is gone do not count', 'a:1 c:1', [['a', 'b']], 'a c'],
    [
      'all apart: one is left',
      'a:1 b:1 c:1',
      [
        ['a', 'b'],
        ['b', 'c'],
        ['a', 'c'],
      ],
      'a',
    ],
  ])('%s', (_, rooms, apart, kept) => {
    expect(
      withoutConflicts(roomsOf(rooms), apart)
        .map(({ worker }) => worker)
        .join(' '),
    ).toBe(kept);
  });
});
