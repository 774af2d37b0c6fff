import { expect, it } from 'vitest';
import { SILENT } from '../../src/graph/context.ts';
import { SourceReader } from '../../src/runtime/source-reader.ts';

// A barrier that reached an instance before its share, and instance 0 after it had dealt: the split was in no snapshot, and the source decided anew where it begins.
it('what has been dealt to another instance is in the next snapshot of the one that dealt it, and in no later one', async () => {
  let dealt!: () => void;
  const done = new Promise<void>((resolve) => {
    dealt = resolve;
  });
  const metrics = { counter: () => ({ inc() {} }), gauge() {}, histogram: () => ({ record() {} }) };
  const reader: SourceReader = new SourceReader({
    source: {
      bounded: false,
      splits: async () => ['a', 'b', 'c'],
      splitId: String,
      read: () => ({ [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }) }),
    },
    strategy: undefined,
    group: undefined,
    wake: () => {},
    subtask: 0,
    parallelism: 2,
    context: { uid: 'in', signal: new AbortController().signal, log: SILENT, metrics, parallelism: 2 },
    deadLetter: () => {},
    now: Date.now,
    post: (fn) => fn(),
    failed: (error) => {
      throw error;
    },
    assign: (instance, splits, last) => {
      if (instance === 0) reader.assigned(splits, last);
      else dealt();
    },
  });
  reader.start({ known: new Set(), ended: new Map(), counts: [0, 0] });
  await done;
  const stored = () => reader.snapshot().map(({ id, handed }) => [id, handed]);
  expect(stored()).toEqual([
    ['a', undefined],
    ['c', undefined],
    ['b', true],
  ]);
  expect(stored()).toEqual([
    ['a', undefined],
    ['c', undefined],
  ]);
  reader.close();
});
