import { expect, it } from 'vitest';
import type { SnapshotStorage } from '../../src/runtime/snapshot.ts';
import { TransactionalSinkRunner } from '../../src/runtime/transactional-sink.ts';
import type { FileRef } from '../../state-backends/index.ts';
import { ANEW } from './sink-options.ts';

it('uploads a segment with the next checkpoint whose upload failed behind its rename, under another name', async () => {
  const there: string[] = [];
  const storage: Pick<SnapshotStorage, 'write'> = {
    async write(name): Promise<FileRef> {
      if (there.includes(name)) throw Object.assign(new Error(`EEXIST: ${name}`), { code: 'EEXIST' });
      there.push(name);
      if (there.length === 1) throw new Error('its folder could not be synced');
      return { name, bytes: 1, crc: 0 };
    },
  };
  const sink = new TransactionalSinkRunner(
    { transactional: true, open: async () => ({ commit: async () => {}, lastCommitted: async () => 0, close: async () => {} }) },
    0,
    { ...ANEW, storage: storage as SnapshotStorage },
  );
  await sink.open();
  sink.add('first', Number.NaN);
  await expect(sink.barrier(1)()).rejects.toThrow('could not be synced');
  sink.add('second', Number.NaN);
  const { writers } = await sink.barrier(2)();
  expect(writers[0]?.segments.map(({ checkpoint, records }) => [checkpoint, records])).toEqual([
    [1, 1],
    [2, 1],
  ]);
  expect(writers[0]?.segments.map(({ file }) => file.name)).toEqual(there.slice(1));
});

it('keeps of what it has uploaded no more than 64 MiB in memory, and commits the rest from its file', async () => {
  const files = new Map<string, Buffer>();
  const read: string[] = [];
  const storage: Pick<SnapshotStorage, 'write' | 'read'> = {
    async write(name, blocks): Promise<FileRef> {
      const bytes = Buffer.concat([...blocks]);
      files.set(name, bytes);
      return { name, bytes: bytes.length, crc: 0 };
    },
    async *read({ name }) {
      read.push(name);
      yield files.get(name)!;
    },
  };
  const committed: (readonly [number, string[]])[] = [];
  const commit = async (id: number, records: Iterable<unknown>) => void committed.push([id, [...records].map((record) => (record as string).slice(0, 6))]);
  const sink = new TransactionalSinkRunner({ transactional: true, open: async () => ({ commit, lastCommitted: async () => 0, close: async () => {} }) }, 0, {
    ...ANEW,
    storage: storage as SnapshotStorage,
  });
  await sink.open();
  for (const id of [1, 2, 3]) {
    sink.add(`seg ${id} ${'x'.repeat(30 << 20)}`, Number.NaN);
    await sink.barrier(id)();
  }
  expect(read).toEqual([]);
  await sink.complete(3);
  expect(read).toEqual([[...files.keys()][2]]);
  expect(committed).toEqual([
    [1, ['seg 1 ']],
    [2, ['seg 2 ']],
    [3, ['seg 3 ']],
  ]);
});

it('takes no more records once more than two segments wait that come to more than its sink bears, and takes barriers all the same', async () => {
  const commits: (() => void)[] = [];
  const writer = { commit: () => new Promise<void>((resolve) => void commits.push(resolve)), lastCommitted: async () => 0, close: async () => {} };
  const sink = new TransactionalSinkRunner({ transactional: true, pendingBytes: 3000, open: async () => writer }, 0, ANEW);
  await sink.open();
  const behind: boolean[] = [];
  for (const id of [1, 2, 3]) {
    sink.add('x'.repeat(1100), Number.NaN);
    await sink.barrier(id)();
    behind.push(sink.behind);
  }
  expect(behind).toEqual([false, false, true]);
  await sink.barrier(4)();
  const completed = sink.complete(4);
  for (let i = 0; i < 3; i++) {
    await expect.poll(() => commits.length).toBe(i + 1);
    commits[i]!();
  }
  await completed;
  expect(sink.behind).toBe(false);
});
