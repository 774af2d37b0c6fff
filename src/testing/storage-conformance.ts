// The conformance suite of checkpoint storage: what the engine counts on, tried at any storage, under any test runner.
//
// What: a list of cases, each a sentence and a function that rejects where the storage is found wanting. The invariants K1 … K9 are those of graph/storage.ts; the last
// cases run the engine's own layer over the storage: damage, sweeps, metadata.
//
// Invariant: every case has a folder of its own below the storage's root, and removes what it has written.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { below } from '../checkpoint/addresses.ts';
import { SnapshotFiles } from '../checkpoint/storage.ts';
import type { ByteRange, CheckpointStorage, StoredFileWriter } from '../graph/storage.ts';
import { systemIo } from '../runtime/io.ts';

/** One property of a storage: give the two to your test runner. */
export interface ConformanceCase {
  /** A sentence about what holds. */
  readonly name: string;
  /** Rejects with an AssertionError where it does not. */
  readonly run: () => Promise<void>;
}

/** What the suite may ask for beside the storage. */
export interface StorageConformanceOptions {
  /** Of the large file; 12 MiB by default, more than one part of any storage that writes in parts. */
  readonly largeBytes?: number;
  /** How many files lie in one folder; 20 by default. More than 1,000 tries a list of several pages. */
  readonly manyFiles?: number;
  /** A storage of the same place that can be made to fail and mended again; without it those cases are left out. */
  readonly breakable?: () => Promise<BreakableStorage> | BreakableStorage;
}

/** A storage whose disk or server a test can take away. */
export interface BreakableStorage {
  readonly storage: CheckpointStorage;
  /** From now on everything fails as it does where the disk or the server is gone. */
  readonly break: () => Promise<void> | void;
  readonly mend: () => Promise<void> | void;
}

/**
 * What every checkpoint storage must do, as cases for any test runner.
 * @param open - Gives the storage, which may hold other things: the cases use folders of random names below its root.
 * @param options - Sizes, and a storage that can be broken.
 * @returns Cases, none of which depends on another; they may run side by side.
 * @example
 * for (const { name, run } of storageConformance(() => directory('./stored'), { largeBytes: 1000 })) if (name.includes('empty')) await run();
 */
export function storageConformance(open: () => CheckpointStorage | Promise<CheckpointStorage>, options: StorageConformanceOptions = {}): ConformanceCase[] {
  const { largeBytes = 12 << 20, manyFiles = 20, breakable } = options;
  const cases: ConformanceCase[] = [];
  const on = (name: string, storageOf: () => Promise<CheckpointStorage>, work: (storage: CheckpointStorage, folder: string) => Promise<void>): void => {
    cases.push({
      name,
      run: async () => {
        const storage = await storageOf();
        const folder = below(storage.root, `conformance-${randomBytes(6).toString('hex')}`);
        await storage.prepare([folder]);
        try {
          await work(storage, folder);
        } finally {
          await clear(storage, folder);
        }
      },
    });
  };
  const it = (name: string, work: (storage: CheckpointStorage, folder: string) => Promise<void>): void => on(name, async () => open(), work);

  it('owns the addresses below its root, and may be prepared again', async (storage, folder) => {
    assert.ok(storage.owns(storage.root) && storage.owns(folder));
    await storage.prepare([folder]);
    assert.deepEqual(await entries(storage, folder), []);
  });

  it('gives back what was written in blocks of any size, also where their memory is used again', async (storage, folder) => {
    const address = below(folder, 'blocks');
    const writer = await storage.create(address);
    const block = Buffer.alloc(70_000);
    const written: Buffer[] = [];
    for (const [i, size] of [0, 1, 70_000, 3, 65_536, 69_999].entries()) {
      block.fill(i + 1);
      written.push(Buffer.from(block.subarray(0, size)));
      await writer.append([block.subarray(0, size)]);
      block.fill(255);
    }
    await writer.finish();
    same(await bytesOf(storage, address), Buffer.concat(written));
  });

  it('keeps an empty file', async (storage, folder) => {
    const address = below(folder, 'empty');
    await (await storage.create(address)).finish();
    assert.equal((await bytesOf(storage, address)).length, 0);
    assert.equal(await storage.find(address), 'file');
    assert.deepEqual(await entries(storage, folder), ['empty']);
  });

  it('keeps a large file, and gives any part of it', async (storage, folder) => {
    const address = below(folder, 'large');
    const writer = await storage.create(address);
    const piece = 1_000_003;
    for (let at = 0; at < largeBytes; at += piece) await writer.append([pattern(at, Math.min(piece, largeBytes - at))]);
    await writer.finish();
    let at = 0;
    for await (const part of storage.read(address)) {
      same(Buffer.from(part), pattern(at, part.byteLength));
      at += part.byteLength;
    }
    assert.equal(at, largeBytes);
    for (const range of [
      { from: 0, to: 1 },
      { from: largeBytes - 1, to: largeBytes },
      { from: Math.floor(largeBytes / 3), to: Math.floor(largeBytes / 3) + 100_000 },
    ]) {
      const to = Math.min(range.to, largeBytes);
      same(await bytesOf(storage, address, { from: range.from, to }), pattern(range.from, to - range.from));
    }
  });

  it('gives the bytes of a range, fewer where the file ends before, none of an empty range', async (storage, folder) => {
    const address = below(folder, 'ranged');
    await write(storage, address, '0123456789');
    const range = async (from: number, to: number): Promise<string> => (await bytesOf(storage, address, { from, to })).toString();
    assert.deepEqual(
      [await range(0, 10), await range(2, 5), await range(9, 10), await range(4, 4), await range(8, 100), await range(10, 20), await range(50, 60)],
      ['0123456789', '234', '9', '', '89', '', ''],
    );
  });

  it('says ENOENT of what is not there, and lists nothing in a folder that is not there', async (storage, folder) => {
    const address = below(folder, 'none');
    await rejects(bytesOf(storage, address), 'ENOENT');
    await rejects(bytesOf(storage, address, { from: 0, to: 5 }), 'ENOENT');
    assert.equal(await storage.find(address), undefined);
    assert.deepEqual(await entries(storage, below(folder, 'nowhere')), []);
  });

  it('shows nobody a file before it is finished, and everybody afterwards', async (storage, folder) => {
    const address = below(folder, 'hidden');
    const writer = await storage.create(address);
    await writer.append([pattern(0, Math.min(largeBytes, 6 << 20))]);
    await rejects(bytesOf(storage, address), 'ENOENT');
    assert.equal(await storage.find(address), undefined);
    assert.deepEqual(await entries(storage, folder), []);
    await writer.finish();
    assert.equal(await storage.find(address), 'file');
    assert.deepEqual(await entries(storage, folder), ['hidden']);
    assert.deepEqual(await unfinished(storage, folder), []);
  });

  it('keeps nothing of a write that is abandoned', async (storage, folder) => {
    for (const bytes of [undefined, 0, 1000, largeBytes]) {
      const address = below(folder, `abandoned-${bytes}`);
      const writer = await storage.create(address);
      if (bytes !== undefined) await writer.append([pattern(0, bytes)]);
      await writer.abandon();
      await rejects(bytesOf(storage, address), 'ENOENT');
      // The address is free again.
      await write(storage, address, 'another');
    }
    assert.deepEqual(await unfinished(storage, folder), []);
  });

  it('lists what was left unfinished as that, if at all, and discards it and nothing else', async (storage, folder) => {
    for (const bytes of [1000, largeBytes]) {
      const address = below(folder, `left-${bytes}`);
      const left = await storage.create(address);
      await left.append([pattern(0, bytes)]);
      await write(storage, below(folder, `left-${bytes}-beside`), 'beside');
      for (const name of await unfinished(storage, folder)) assert.equal(name, `left-${bytes}`);
      await storage.discard(address);
      assert.deepEqual(await unfinished(storage, folder), []);
      assert.equal((await bytesOf(storage, below(folder, `left-${bytes}-beside`))).toString(), 'beside');
      await rejects(bytesOf(storage, address), 'ENOENT');
      await left.abandon().catch(() => {
        // What is discarded may say so.
      });
    }
  });

  it('overwrites nothing', async (storage, folder) => {
    for (const bytes of [10, largeBytes]) {
      const address = below(folder, `once-${bytes}`);
      await write(storage, address, 'first');
      await rejects(write(storage, address, pattern(0, bytes)), 'EEXIST');
      assert.equal((await bytesOf(storage, address)).toString(), 'first');
    }
    assert.deepEqual(await unfinished(storage, folder), []);
  });

  it('lets one of many writers at one address win', async (storage, folder) => {
    const address = below(folder, 'contested');
    const outcomes = await Promise.allSettled(Array.from({ length: 8 }, (_, i) => write(storage, address, `writer ${i}`)));
    const won = outcomes.flatMap(({ status }, i) => (status === 'fulfilled' ? [`writer ${i}`] : []));
    for (const outcome of outcomes)
      if (outcome.status === 'rejected') assert.equal((outcome.reason as { code?: unknown }).code, 'EEXIST', String(outcome.reason));
    assert.equal(won.length, 1);
    assert.equal((await bytesOf(storage, address)).toString(), won[0]);
  });

  it('keeps many files that are written at once apart', async (storage, folder) => {
    const names = Array.from({ length: manyFiles }, (_, i) => `file-${i}`);
    for (let at = 0; at < names.length; at += 20) await Promise.all(names.slice(at, at + 20).map((name) => write(storage, below(folder, name), name)));
    assert.deepEqual(await entries(storage, folder), [...names].sort());
    for (const name of [names[0]!, names.at(-1)!]) assert.equal((await bytesOf(storage, below(folder, name))).toString(), name);
  });

  it('lists what lies in a folder: not what lies deeper, nor beside it under a longer name', async (storage, folder) => {
    await storage.prepare([below(folder, 'a', 'b'), below(folder, 'a-long')]);
    await write(storage, below(folder, 'a', 'one'), '1');
    await write(storage, below(folder, 'a', 'b', 'two'), '2');
    await write(storage, below(folder, 'a-long', 'three'), '3');
    assert.deepEqual(await entries(storage, below(folder, 'a')), ['b', 'one']);
    assert.deepEqual([await storage.find(below(folder, 'a')), await storage.find(below(folder, 'a-lo'))], ['folder', undefined]);
    for (const path of [['a', 'b'], ['a'], ['a-long']]) await clear(storage, below(folder, ...path));
  });

  it('removes a file, also twice', async (storage, folder) => {
    const address = below(folder, 'gone');
    await write(storage, address, 'x');
    await storage.remove(address);
    await rejects(bytesOf(storage, address), 'ENOENT');
    assert.deepEqual(await entries(storage, folder), []);
    await storage.remove(address);
    await storage.discard(address);
  });

  it('makes a folder once, whoever asks', async (storage, folder) => {
    const address = below(folder, 'deep', 'made');
    const told = await Promise.all(Array.from({ length: 4 }, () => storage.makeFolder(address)));
    assert.equal(told.filter(Boolean).length, 1);
    assert.equal(await storage.makeFolder(address), false);
    assert.deepEqual(await entries(storage, below(folder, 'deep')), ['made']);
    assert.deepEqual(await entries(storage, address), []);
    await write(storage, below(address, 'file'), 'x');
    await storage.remove(below(address, 'file'));
    await storage.removeFolder(address);
    await storage.removeFolder(address);
    assert.equal(await storage.find(address), undefined);
    assert.equal(await storage.makeFolder(address), true);
    await storage.removeFolder(address);
    await storage.removeFolder(below(folder, 'deep'));
  });

  it('adopts a file whole, where it can, and the two are then apart', async (storage, folder) => {
    const [source, target] = [below(folder, 'source'), below(folder, 'target')];
    await write(storage, source, 'adopted');
    if ((await storage.adopt?.(target, storage, source)) !== true) return;
    await storage.remove(source);
    assert.equal((await bytesOf(storage, target)).toString(), 'adopted');
  });

  // ── the engine's layer over it ──

  for (const [how, damage] of Object.entries(DAMAGES))
    it(`has a file that is ${how} found out, and named`, async (storage, folder) => {
      const files = new SnapshotFiles(storage, folder, { io: systemIo() });
      await files.prepare();
      const content = pattern(0, 5000);
      const ref = await files.write('delta-x-a1-1', [content]);
      await files.check(ref);
      const address = below(files.files, ref.name);
      await storage.remove(address);
      const damaged = damage(content);
      if (damaged !== undefined) await write(storage, address, damaged);
      const named = (error: unknown): boolean => (error as { code?: unknown }).code === 'SNAPSHOT_CORRUPT' && String(error).includes(address);
      await assert.rejects(files.check(ref), named);
      if (how !== 'flipped' && how !== 'longer') await assert.rejects(drain(files.read(ref, { from: 4000, to: 5000 })), named);
      for (const each of [files.files, files.checkpoints]) await clear(storage, each);
    });

  it('reads a range of a snapshot file, and refuses one that it does not have', async (storage, folder) => {
    const files = new SnapshotFiles(storage, folder, { io: systemIo(), verify: true });
    await files.prepare();
    const ref = await files.write('delta-x-a1-1', [pattern(0, 5000)]);
    same(await drain(files.read(ref, { from: 17, to: 4711 })), pattern(17, 4711 - 17));
    await assert.rejects(drain(files.read(ref, { from: 0, to: 5001 })), RangeError);
    for (const each of [files.files, files.checkpoints]) await clear(storage, each);
  });

  it('is swept of what older attempts left and nobody names, and of nothing else', async (storage, folder) => {
    const files = new SnapshotFiles(storage, folder, { io: systemIo() });
    await files.prepare();
    const names = ['delta-x-a1-1', 'delta-x-a1-2', 'delta-x-a2-1', 'base-x-a3-1', 'notes'];
    for (const name of names) await files.write(name, [Buffer.from(name)]);
    for (const name of ['chk-1-a1', 'chk-2-a1', 'chk-3-a3']) await files.writeMetadata(name, Buffer.from(name));
    const left = await storage.create(below(files.files, 'base-y-a1-9'));
    await left.append([pattern(0, largeBytes)]);
    assert.deepEqual(await files.found(), { attempt: 3, id: 3, metadata: below(files.checkpoints, 'chk-3-a3') });
    await files.sweep(new Set(['delta-x-a1-2', 'chk-2-a1']), 3);
    assert.deepEqual(await entries(storage, files.files), ['base-x-a3-1', 'delta-x-a1-2', 'notes']);
    assert.deepEqual(await entries(storage, files.checkpoints), ['chk-2-a1', 'chk-2-a1.copy', 'chk-3-a3', 'chk-3-a3.copy']);
    assert.deepEqual(await unfinished(storage, files.files), []);
    await left.abandon().catch(() => {
      // What is swept may say so.
    });
    await files.removeMetadata(below(files.checkpoints, 'chk-3-a3'));
    assert.deepEqual(await entries(storage, files.checkpoints), ['chk-2-a1', 'chk-2-a1.copy']);
    for (const each of [files.files, files.checkpoints]) await clear(storage, each);
  });

  if (breakable === undefined) return cases;

  // ── faults ──

  const failing = (name: string, work: (storage: CheckpointStorage, folder: string, faults: BreakableStorage) => Promise<void>): void => {
    let faults: BreakableStorage;
    const opened = async (): Promise<CheckpointStorage> => {
      faults = await breakable();
      return faults.storage;
    };
    on(name, opened, async (storage, folder) => {
      try {
        await work(storage, folder, faults);
      } finally {
        await faults.mend();
      }
    });
  };

  failing('never says that nothing is there while it is gone, nor that trying again cannot help', async (storage, folder, faults) => {
    const address = below(folder, 'there');
    await write(storage, address, 'x');
    await faults.break();
    for (const work of [
      () => bytesOf(storage, address),
      () => storage.find(address),
      () => entries(storage, folder),
      () => write(storage, below(folder, 'new'), 'y'),
      () => storage.remove(address),
      () => storage.prepare([folder]),
    ])
      await assert.rejects(work(), (error) => {
        const { code, retryable } = error as { code?: string; retryable?: boolean };
        return retryable !== false && !['ENOENT', 'EEXIST', 'SNAPSHOT_CORRUPT'].includes(code ?? '');
      });
    await faults.mend();
    assert.equal((await bytesOf(storage, address)).toString(), 'x');
    assert.deepEqual(await entries(storage, folder), ['there']);
  });

  failing('keeps nothing of a write in the middle of which it fails, once that is discarded', async (storage, folder, faults) => {
    for (const bytes of [1000, largeBytes]) {
      const address = below(folder, `broken-${bytes}`);
      const writer = await storage.create(address);
      await writer.append([pattern(0, bytes)]);
      await faults.break();
      await assert.rejects(writer.append([pattern(0, largeBytes)]).then(() => writer.finish()));
      await writer.abandon().catch(() => {
        // It is gone still.
      });
      await faults.mend();
      await rejects(bytesOf(storage, address), 'ENOENT');
      await storage.discard(address);
      await write(storage, address, 'another try');
    }
    assert.deepEqual(await unfinished(storage, folder), []);
  });

  failing('says of a read in the middle of which it fails that it failed', async (storage, folder, faults) => {
    const address = below(folder, 'read');
    await write(storage, address, pattern(0, largeBytes));
    let at = 0;
    await assert.rejects(
      (async () => {
        for await (const part of storage.read(address)) {
          at += part.byteLength;
          await faults.break();
        }
        // All of it may have been on its way already.
        if (at === largeBytes) throw new Error('It was read before it broke.');
      })(),
    );
    await faults.mend();
    same(await bytesOf(storage, address), pattern(0, largeBytes));
  });

  return cases;
}

const DAMAGES: Readonly<Record<string, (content: Buffer) => Buffer | undefined>> = {
  flipped: (content) => {
    const flipped = Buffer.from(content);
    flipped[2500]! ^= 1;
    return flipped;
  },
  truncated: (content) => content.subarray(0, content.length - 1),
  emptied: () => Buffer.alloc(0),
  longer: (content) => Buffer.concat([content, Buffer.from([0])]),
  removed: () => undefined,
};

/** Bytes of a sequence that does not repeat itself soon. */
function pattern(from: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let at = 0; at < length; ) at += PERIOD.copy(bytes, at, (from + at) % PERIOD.length);
  return bytes;
}

/** A prime number of them, so that no part of a storage begins as another does. */
const PERIOD = Buffer.from(Array.from({ length: 65_537 }, (_, i) => (i * 31 + (i >>> 8)) & 255));

async function write(storage: CheckpointStorage, address: string, content: string | Uint8Array): Promise<void> {
  let writer: StoredFileWriter | undefined;
  try {
    writer = await storage.create(address);
    await writer.append([typeof content === 'string' ? Buffer.from(content) : content]);
    await writer.finish();
  } catch (error) {
    await writer?.abandon().catch(() => {
      // The error that counts is the first.
    });
    throw error;
  }
}

function bytesOf(storage: CheckpointStorage, address: string, range?: ByteRange): Promise<Buffer> {
  return drain(storage.read(address, range));
}

async function drain(parts: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const part of parts) all.push(part);
  return Buffer.concat(all);
}

function same(found: Buffer, expected: Buffer): void {
  assert.ok(found.equals(expected), `${found.length} bytes are not the ${expected.length} that were written`);
}

async function rejects(work: Promise<unknown>, code: string): Promise<void> {
  await assert.rejects(work, (error) => {
    assert.equal((error as { code?: unknown }).code, code, String(error));
    return true;
  });
}

async function entries(storage: CheckpointStorage, folder: string): Promise<string[]> {
  const names: string[] = [];
  for await (const entry of storage.list(folder)) if (!entry.unfinished) names.push(entry.name);
  return names.sort();
}

async function unfinished(storage: CheckpointStorage, folder: string): Promise<string[]> {
  const names: string[] = [];
  for await (const entry of storage.list(folder)) if (entry.unfinished) names.push(entry.name);
  return names.sort();
}

async function clear(storage: CheckpointStorage, folder: string): Promise<void> {
  for (const name of await unfinished(storage, folder)) await storage.discard(below(folder, name));
  for (const name of await entries(storage, folder)) {
    const address = below(folder, name);
    if ((await storage.find(address)) === 'file') await storage.remove(address);
    else await storage.removeFolder(address);
  }
  await storage.removeFolder(folder);
}
