import { crc32 as crc } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { groupOf, hashKey, memory, RowFileReader, type TaskState } from '../../state-backends/index.ts';
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

  test('is read by key groups: of its bytes those of the index and of the blocks that have any of them', async () => {
    const region = await memory().open({ name: 'host/file', tracked: true });
    const task = region.task({ maxParallelism: 128, range: { from: 0, to: 127 }, undo: false });
    const [table, timers] = [task.single('op', 'value'), task.timers('op', 'timers')];
    const keys = Array.from({ length: 8000 }, (_, i) => `k${i}`);
    for (const key of keys) table.insert(key, hashKey(key), { key, text: 'x'.repeat(50) });
    for (const key of keys.slice(0, 100)) timers.set(7, key, hashKey(key));
    for (const key of keys.slice(7000)) table.delete(table.find(key, hashKey(key))!);
    task.freeze(1);
    task.encode(Number.POSITIVE_INFINITY);
    const file = Buffer.concat(task.takeDeltas()[0]!.blocks);
    const groups = (from: number, to: number) => keys.slice(0, 7000).filter((key) => groupOf(hashKey(key), 128) >= from && groupOf(hashKey(key), 128) <= to);
    for (const [from, to, share] of [
      [0, 31, 0.3],
      [32, 127, 0.8],
      [5, 5, 0.15],
    ] as const) {
      const own = region.task({ maxParallelism: 128, range: { from, to }, undo: false });
      const [values] = [own.single('op', 'value'), own.timers('op', 'timers')];
      let bytes = 0;
      const read = (range?: { from: number; to: number }) => {
        const part = range === undefined ? file : file.subarray(range.from, range.to);
        bytes += part.length;
        return reading([part]);
      };
      await own.load({ bytes: file.length, read }, [{ from: 0, to: 127 }]);
      expect(bytes).toBeLessThan(file.length * share);
      expect(values.size).toBe(groups(from, to).length);
      for (const key of groups(from, to)) expect(values.find(key, hashKey(key))!.value).toEqual({ key, text: 'x'.repeat(50) });
      // Read whole it is as long, and blocks of others are not looked at either.
      const again = region.task({ maxParallelism: 128, range: { from, to }, undo: false });
      const [same] = [again.single('op', 'value'), again.timers('op', 'timers')];
      expect((await again.load(reading([file]))).bytes).toBeLessThan(file.length * share);
      expect(same.size).toBe(values.size);
    }
    // Damage in what is read is found, and in what is not read it is not looked for.
    const found = new Set<string>();
    for (let at = 8; at < file.length; at += 19_997) {
      const flipped = Buffer.from(file);
      flipped[at]! ^= 4;
      const own = region.task({ maxParallelism: 128, range: { from: 0, to: 31 }, undo: false });
      const [values] = [own.single('op', 'value'), own.timers('op', 'timers')];
      const read = (range?: { from: number; to: number }) => reading([range === undefined ? flipped : flipped.subarray(range.from, range.to)]);
      const outcome = await own.load({ bytes: flipped.length, read }, [{ from: 0, to: 127 }]).then(
        () => 'whole',
        (error: { code: string }) => error.code,
      );
      found.add(outcome);
      if (outcome === 'whole') expect(values.size).toBe(groups(0, 31).length);
    }
    expect([...found].sort()).toEqual(['SNAPSHOT_CORRUPT', 'whole']);
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
