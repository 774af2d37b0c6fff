// Scans and questions over tasks that go down, come back, and answer in pieces: what StateQueries does about it.

import { describe, expect, it } from 'vitest';
import { MillraceError } from '../../src/errors.ts';
import { StateQueries } from '../../src/execution/state-queries.ts';
import type { AskedTask, StateQuestion } from '../../src/execution/state-questions.ts';
import type { Node } from '../../src/graph/node.ts';
import type { Vertex } from '../../src/graph/plan.ts';

type Answer = (question: StateQuestion) => unknown;

/** One task, of which the test says what it answers. */
function questions(answer: Answer, { parallelism = 1 } = {}): { queries: StateQueries; asked: StateQuestion[] } {
  const node = { uid: 'op', step: { kind: 'reduce' } } as unknown as Node;
  const vertex = { nodes: [node], head: node } as unknown as Vertex;
  const asked: StateQuestion[] = [];
  const task: AskedTask = {
    name: 'op-0',
    vertex,
    ask: async (question) => {
      asked.push(question);
      return (await answer(question)) as never;
    },
  };
  const state = {
    name: 'value',
    kind: 'reduce',
    table: 'value',
    tables: ['value'],
    view: ({ rows }: { rows(table: string): readonly { value: unknown }[] }) => rows('value')[0]?.value,
  };
  const queries = new StateQueries({
    job: 'job',
    maxParallelism: () => 128,
    ended: () => false,
    tasks: () => [task],
    parallelism: () => parallelism,
    nodes: () => [node],
    queryable: () => ({ states: [state as never], without: [] }),
    changed: async () => {},
  });
  return { queries, asked };
}

const rowsOf = (keys: readonly unknown[]) => ({ rows: keys.map((key) => [[{ ns: undefined, value: `of ${key}` }]]), watermark: 0, now: 0 });
const keysOf = (entries: readonly { key?: unknown }[]): unknown[] => entries.map(({ key }) => key);

describe('a scan', () => {
  it('begins its walk anew where the task has, and gives each key once', async () => {
    const steps: unknown[] = [{ keys: ['a', 'b'] }, 'gone', { keys: ['b', 'c'] }, 'ended'];
    const { queries, asked } = questions((question) => {
      if (question.kind === 'rows') return rowsOf(question.keys);
      return question.kind === 'step' ? steps.shift() : 'begun';
    });
    expect(keysOf(await queries.scan('op'))).toEqual(['a', 'b', 'c']);
    expect(asked.map(({ kind }) => kind)).toEqual(['walk', 'step', 'rows', 'step', 'walk', 'step', 'rows', 'step', 'leave']);
  });

  it('asks for fewer keys at once where their rows are more than a message carries, and says so of one key', async () => {
    const most = { keys: 3 };
    const { queries, asked } = questions((question) => {
      if (question.kind === 'step') return asked.some(({ kind }) => kind === 'rows') ? 'ended' : { keys: Array.from({ length: 10 }, (_, i) => `k${i}`) };
      if (question.kind !== 'rows') return 'begun';
      if (question.keys.length > most.keys) throw new MillraceError('RECORD_TOO_LARGE', 'It is too large.');
      return rowsOf(question.keys);
    });
    expect(keysOf(await queries.scan('op'))).toEqual(Array.from({ length: 10 }, (_, i) => `k${i}`));
    most.keys = 0;
    asked.length = 0;
    await expect(queries.scan('op')).rejects.toMatchObject({ code: 'RECORD_TOO_LARGE' });
    expect(asked.at(-1)!.kind).toBe('leave');
  });

  it('passes over an instance that is there no more, and asks one that is down again', async () => {
    let down = 2;
    const { queries } = questions(
      (question) => {
        if (down-- > 0) return undefined;
        if (question.kind === 'rows') return rowsOf(question.keys);
        return question.kind === 'step' ? 'ended' : 'begun';
      },
      { parallelism: 3 },
    );
    expect(await queries.scan('op')).toEqual([]);
  });
});
