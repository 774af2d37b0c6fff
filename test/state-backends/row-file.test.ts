import { crc32 as crc } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { hashKey, memory, RowFileReader, type TaskState } from '../../state-backends/index.ts';
import { reading } from './model.ts';

const open = async (): Promise<TaskState> => {
  const region = await memory().open({ name: 'host/file', tracked: true });
  const task = region.task({ maxParallelism: 128, range: { from: 0, to: 127 }, undo: false });
  task.single('op', 'value');
  task.timers('op', 'timers');
  return task;
};

async function smallFile(rows: number): Promise<Buffer> {
  const region = await memory().open({ name: 'host/file', tracked: true });
  const task = region.task({ maxParallelism: 128, range: { from: 0, to: 127 }, undo: false });
  const table = task.single('op', 'value');
  const timers = task.timers('op', 'timers');
  for (let i = 0; i < rows; i++) table.insert(`k${i}`, hashKey(`k${i}`), { n: i });
  timers.set(5, 'k0', hashKey('k0'));
  table.delete(table.find('k0', hashKey('k0'))!);
  task.freeze(1);
  task.encode(Number.POSITIVE_INFINITY);
  return Buffer.concat(task.takeDeltas()[0]!.blocks);
}

const damaged = expect.objectContaining({ code: 'SNAPSHOT_CORRUPT', retryable: false });

describe('a row file', () => {
  test('is refused after every truncation', async () => {
    const file = await smallFile(3);
    for (let n = 0; n < file.length; n++) await expect((await open()).load(reading([file.subarray(0, n)]))).rejects.toEqual(damaged);
  });

  test('is refused after every flipped bit', async () => {
    const file = await smallFile(3);
    for (let bit = 0; bit < file.length * 8; bit++) {
      const flipped = Buffer.from(file);
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      await expect((await open()).load(reading([flipped]))).rejects.toEqual(damaged);
    }
  });

  test('is refused when bytes follow, when it is doubled, when a block is missing', async () => {
    const file = await smallFile(3);
    await expect((await open()).load(reading([file, Buffer.from([0])]))).rejects.toEqual(damaged);
    await expect((await open()).load(reading([file, file]))).rejects.toEqual(damaged);
    const large = await smallFile(20_000);
    const frames: Buffer[] = [large.subarray(0, 8)];
    for (let at = 8; at < large.length; ) {
      const end = at + 9 + large.readUInt32BE(at + 4);
      frames.push(large.subarray(at, end));
      at = end;
    }
    expect(frames.length).toBeGreaterThan(5);
    await expect((await open()).load(reading(frames.filter((_, i) => i !== 3)))).rejects.toEqual(damaged);
    expect(await (await open()).load(reading(frames))).toMatchObject({ rows: 20_001 });
  });

  test('is read in chunks of any size', async () => {
    const file = await smallFile(50);
    for (const size of [1, 2, 7, 100]) {
      const chunks: Buffer[] = [];
      for (let at = 0; at < file.length; at += size) chunks.push(file.subarray(at, at + size));
      const task = await open();
      expect(await task.load(reading(chunks))).toMatchObject({ rows: 51, unknown: new Map() });
      expect(task.stats().rows).toBe(50);
    }
  });

  test('of a later format is SNAPSHOT_INCOMPATIBLE, not damaged', () => {
    const content = Buffer.from([3, 0]);
    const frame = Buffer.alloc(9 + content.length);
    frame.writeUInt32BE(content.length, 4);
    frame[8] = 1;
    content.copy(frame, 9);
    frame.writeUInt32BE(crc(frame.subarray(4)), 0);
    const reader = new RowFileReader(
      () => undefined,
      () => undefined,
    );
    expect(() => reader.push(Buffer.concat([Buffer.from('MLRSTATE'), frame]))).toThrow(expect.objectContaining({ code: 'SNAPSHOT_INCOMPATIBLE' }));
  });
});
