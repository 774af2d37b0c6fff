import { expect, it } from 'vitest';
import { SILENT } from '../../src/graph/context.ts';
import { SourceReader } from '../../src/runtime/source-reader.ts';

it('closing a reader ends every iterator, whatever `return` of the others gives or throws', async () => {
  const ended: string[] = [];
  const returns: Record<string, () => unknown> = {
    'gives nothing': () => undefined,
    throws: () => {
      throw new Error('no');
    },
    rejects: () => Promise.reject(new Error('no')),
    'is as it should be': () => Promise.resolve({ done: true, value: undefined }),
  };
  const signal = new AbortController().signal;
  const metrics = { counter: () => ({ inc() {} }), gauge() {}, histogram: () => ({ record() {} }) };
  const said: string[] = [];
  const reader = new SourceReader({
    source: {
      bounded: false,
      splits: async () => [],
      splitId: String,
      read: (split) => {
        const iterator = {
          next: () => new Promise<never>(() => {}),
          return: () => {
            ended.push(String(split));
            return returns[String(split)]!() as Promise<never>;
          },
        };
        return { [Symbol.asyncIterator]: () => iterator };
      },
    },
    strategy: undefined,
    group: undefined,
    wake: () => {},
    subtask: 1,
    parallelism: 2,
    context: { uid: 'in', signal, log: { ...SILENT, debug: (...words: unknown[]) => void said.push(JSON.stringify(words)) }, metrics, parallelism: 2 },
    deadLetter: () => {},
    now: Date.now,
    post: (fn) => fn(),
    failed: (error) => {
      throw error;
    },
    assign: () => {},
    arrived: () => {},
  });
  reader.assigned(Object.keys(returns), true);
  reader.close();
  await new Promise((resolve) => setImmediate(resolve));
  expect(ended).toEqual(Object.keys(returns));
  expect(said).toHaveLength(2);
});
