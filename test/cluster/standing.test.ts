import { job, type Source } from 'millrace';
import { describe, expect, it } from 'vitest';
import { definitionOf } from '../../src/api/job.ts';
import { PartLedger } from '../../src/cluster/part-ledger.ts';
import { type Reported, regionsKept, type StandingPart } from '../../src/cluster/standing.ts';
import { tasksOfRegion } from '../../src/execution/region-tasks.ts';
import { buildGraph } from '../../src/graph/plan.ts';
import type { TaskMail } from '../../src/runtime/task-contract.ts';

const source = { bounded: true, splits: async () => [], splitId: () => '', async *read() {} } as unknown as Source<number>;
// Two regions: no record goes from one to the other.
const two = job('two', (env) => {
  for (const name of ['left', 'right'])
    env
      .source(`${name}-in`, source)
      .keyBy((n) => n)
      .forEach(`${name}-out`, () => {});
});
const graph = buildGraph(definitionOf(two).build(), { parallelism: 2, version: undefined });
const begun = new Map([
  [0, 3],
  [1, 5],
]);
const kept = (reported: readonly Reported[], lineage = 'l') => [...regionsKept(reported, { graph, lineage, begun }).keys()];

/** A host of that number under the leader of epoch 2, with what a region has there: instance 0 at host 1, instance 1 at host 2. */
function host(number: number, ...parts: readonly (Partial<StandingPart> & { readonly region: number })[]): Reported['host'] {
  return {
    host: number,
    epoch: 2,
    peers: new Map(),
    parts: parts.map((part) => {
      const { region } = part;
      const tasks = tasksOfRegion(graph, region);
      const placement = new Map(tasks.map(({ name, subtask }) => [name, subtask + 1]));
      const attempt = begun.get(region)!;
      return {
        name: `${region}/${attempt}`,
        attempt,
        lineage: 'l',
        planHash: graph.plan.hash,
        parallelism: 2,
        maxParallelism: 128,
        placement,
        markers: new Map([...placement].filter(([, at]) => at === number).map(([task]) => [task, region])),
        ...part,
      };
    }),
  };
}
const at = (worker: string, reported: Reported['host']): Reported => ({ worker, host: reported });

describe('a region whose leader is gone', () => {
  it('is kept where each of its tasks is reported once; others are not for that', () => {
    const reported = [at('a', host(1, { region: 0 }, { region: 1 })), at('b', host(2, { region: 0 }))];
    expect(kept(reported)).toEqual([0]);
    const [, region] = [...regionsKept(reported, { graph, lineage: 'l', begun })][0]!;
    expect(region).toMatchObject({ attempt: 3, maxParallelism: 128, part: '0/3' });
    expect(region.markers.size).toBe(tasksOfRegion(graph, 0).length);
    expect(region.hosts.map(({ worker }) => worker)).toEqual(['a', 'b']);
  });

  it.each<[what: string, reported: Reported[]]>([
    ['nobody has anything of it', []],
    ['a host of it is missing', [at('a', host(1, { region: 0 }))]],
    ['a newer attempt of it was begun', [at('a', host(1, { region: 0, attempt: 2 })), at('b', host(2, { region: 0, attempt: 2 }))]],
    ['one host has an older attempt than the others', [at('a', host(1, { region: 0 })), at('b', host(2, { region: 0, attempt: 2 }))]],
    ['it is of another program', [at('a', host(1, { region: 0, planHash: 'x' })), at('b', host(2, { region: 0, planHash: 'x' }))]],
    ['it has another parallelism', [at('a', host(1, { region: 0, parallelism: 3 })), at('b', host(2, { region: 0, parallelism: 3 }))]],
    ['a task is reported twice', [at('a', host(1, { region: 0 })), at('b', host(2, { region: 0 })), at('c', host(2, { region: 0 }))]],
    ['its hosts were begun by two leaders', [at('a', host(1, { region: 0 })), at('b', { ...host(2, { region: 0 }), epoch: 1 })]],
    ['a task was never opened', [at('a', host(1, { region: 0 })), at('b', host(2, { region: 0, markers: new Map() }))]],
  ])('is begun anew where %s', (_, reported) => {
    expect(kept(reported)).toEqual([]);
  });

  it('is begun anew where the job has another lineage by now', () => {
    expect(kept([at('a', host(1, { region: 0 })), at('b', host(2, { region: 0 }))], 'other')).toEqual([]);
  });
});

describe('what a host keeps of a part', () => {
  const go: TaskMail = { kind: 'go', splits: { known: new Set(), ended: new Map(), counts: [] } };
  const trigger = (stop: boolean): TaskMail => ({ kind: 'trigger', barrier: { id: 7, startedAt: 0, stop } });
  const running = (): PartLedger => {
    const ledger = new PartLedger('0/1', ['a-0', 'b-0']);
    for (const task of ['a-0', 'b-0']) {
      ledger.said(task, 'opened', [{ marker: 4 }]);
      ledger.told(task, go);
    }
    return ledger;
  };

  it('is whole from when each task was told to begin, checkpoints or not, until it is to stop or fails', () => {
    const begins = new PartLedger('0/1', ['a-0', 'b-0']);
    begins.told('a-0', go);
    expect([begins.whole, begins.began('a-0'), begins.began('b-0')]).toEqual([false, true, false]);
    const ledger = running();
    ledger.told('a-0', trigger(false));
    ledger.said('b-0', 'declined', [7, undefined]);
    expect([ledger.whole, [...ledger.markers]]).toEqual([
      true,
      [
        ['a-0', 4],
        ['b-0', 4],
      ],
    ]);
  });

  it.each<[what: string, change: (ledger: PartLedger) => void]>([
    ['its sources stop behind a last checkpoint', (ledger) => ledger.told('a-0', trigger(true))],
    ['it is drained', (ledger) => ledger.told('a-0', { kind: 'drain' })],
    ['a task fails', (ledger) => ledger.said('b-0', 'failed', [undefined])],
    ['a task stops before a record', (ledger) => ledger.said('b-0', 'stopped', [undefined])],
    ['it ends', (ledger) => ledger.broken()],
  ])('is whole no more when %s', (_, change) => {
    const ledger = running();
    change(ledger);
    expect(ledger.whole).toBe(false);
  });

  it('says again what is said once: the last record that was seen, and of who has finished what it acknowledged last', () => {
    const ledger = running();
    for (const id of [5, 6]) {
      ledger.said('a-0', 'ack', [id, `snapshot ${id}`, 1]);
      ledger.said('b-0', 'ack', [id, `snapshot ${id}`, 1]);
    }
    ledger.said('a-0', 'ended', []);
    ledger.said('a-0', 'finished', []);
    ledger.said('b-0', 'ended', []);
    expect(ledger.again().map(({ task, report, args }) => [task, report, ...args])).toEqual([
      ['a-0', 'ended'],
      ['a-0', 'ack', 6, 'snapshot 6', 1],
      ['a-0', 'finished'],
      ['b-0', 'ended'],
    ]);
  });
});
