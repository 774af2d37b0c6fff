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
