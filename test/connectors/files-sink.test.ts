import { appendFile, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { FILES_SINK_STEPS, type FileRecord, type FilesSinkOptions, filesSink } from '../../src/connectors/files-sink.ts';
import { csv, msgpack, text } from '../../src/connectors/formats.ts';
import { files } from '../../src/connectors/index.ts';
import type { SinkContext, TransactionalWriter } from '../../src/graph/sink.ts';
import { type Io, systemIo, withFaults } from '../../src/runtime/io.ts';
import { sinkContext, splitsOf, temporaryFolder, valuesOf } from './reading.ts';

type Writer = TransactionalWriter<unknown, FileRecord>;

/** The records of these tests are of many types. */
interface Options extends Omit<FilesSinkOptions<unknown>, 'format' | 'bucket'> {
  format?: object;
  bucket?: (value: string) => string;
}

const io = systemIo();

function open(options: Options, context: Partial<SinkContext> = {}, port: Io = io): Promise<Writer> {
  return filesSink(options as unknown as FilesSinkOptions<unknown>, port).open(sinkContext(context)) as Promise<Writer>;
}

function commit(writer: Writer, checkpoint: number, ...values: unknown[]): Promise<void> {
  return writer.commit(
    checkpoint,
    values.map((value) => writer.encode!(value, Number.NaN)),
  );
}

/** Name → content of all files a reader would look at. */
async function published(directory: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name).slice(directory.length + 1);
    if (entry.isFile() && !path.split('/').some((part) => part.startsWith('.'))) found[path] = await readFile(join(directory, path), 'utf8');
  }
  return found;
}

async function lines(directory: string): Promise<string[]> {
  return Object.entries(await published(directory))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([, content]) => content.split('\n').slice(0, -1));
}

const late = { every: 1e12 };

describe('what a file sink writes', () => {
  it('is published at each checkpoint, under names with uid, lineage, writer and number', async () => {
    const directory = join(await temporaryFolder(), 'deep/er');
    const writer = await open({ directory }, { uid: 'cpu-5m', lineage: 'x7', writer: 'w-3' });
    expect(await writer.lastCommitted()).toBe(0);
    await commit(writer, 4, { a: 1 }, { a: 2 });
    await commit(writer, 9, 'x\ny');
    expect(await published(directory)).toEqual({
      'cpu-5m-x7-w~2d~3-000001.ndjson': '{"a":1}\n{"a":2}\n',
      'cpu-5m-x7-w~2d~3-000002.ndjson': '"x\\ny"\n',
    });
    expect(await writer.lastCommitted()).toBe(9);
  });

  it('is hidden until it is rolled by its size', async () => {
    const directory = await temporaryFolder();
    const writer = await open({ directory, format: text(), roll: { bytes: 8 } });
    await commit(writer, 1, 'aaa');
    expect(await published(directory)).toEqual({});
    await commit(writer, 2, 'bbb', 'ccc', 'dddddddd', 'e');
    expect(await published(directory)).toEqual({
      'out-abc-0-000001.txt': 'aaa\nbbb\n',
      'out-abc-0-000002.txt': 'ccc\ndddddddd\n',
    });
    await writer.finish?.();
    await writer.finish?.();
    expect(await lines(directory)).toEqual(['aaa', 'bbb', 'ccc', 'dddddddd', 'e']);
  });

  it('is rolled by its age when a checkpoint commits', async () => {
    const directory = await temporaryFolder();
    let now = 0;
    const port: Io = { ...io, clock: { ...io.clock, now: () => now } };
    const writer = await open({ directory, format: text(), roll: { every: 100 } }, {}, port);
    await commit(writer, 1, 'a');
    now = 99;
    await commit(writer, 2, 'b');
    expect(await published(directory)).toEqual({});
    now = 100;
    await commit(writer, 3, 'c');
    expect(await lines(directory)).toEqual(['a', 'b', 'c']);
  });

  it('goes to the folder of its bucket, with the prefix', async () => {
    const directory = await temporaryFolder();
    const bucket = (value: string): string => (value === '-' ? '' : `day=${value[0]}/hour=${value[1]}`);
    const writer = await open({ directory, format: text(), bucket: bucket, prefix: 'part' });
    await commit(writer, 1, '11a', '12b', '11c', '-');
    expect(await published(directory)).toEqual({
      'day=1/hour=1/part-out-abc-0-000001.txt': '11a\n11c\n',
      'day=1/hour=2/part-out-abc-0-000002.txt': '12b\n',
      'part-out-abc-0-000003.txt': '-\n',
    });
  });

  it.each(['..', 'a/../b', '/etc', '.hidden', 'a//b', 'a\\b', 7])('goes to no bucket %s: BUCKET_INVALID', async (name) => {
    const writer = await open({ directory: await temporaryFolder(), bucket: () => name as string });
    expect(() => writer.encode!('x', 0)).toThrow(expect.objectContaining({ code: 'BUCKET_INVALID' }));
  });

  it('begins with the columns in csv, and begins another file where they change', async () => {
    const directory = await temporaryFolder();
    const writer = await open({ directory, format: csv(), roll: late });
    await commit(writer, 1, { a: 1, b: 2 });
    await commit(writer, 2, { a: 3, b: 4 }, { c: 5 });
    await writer.finish?.();
    expect(await published(directory)).toEqual({ 'out-abc-0-000001.csv': 'a,b\n1,2\n3,4\n', 'out-abc-0-000002.csv': 'c\n5\n' });
  });

  it('is read back by the source, in every format', async () => {
    for (const format of [msgpack<unknown>(), csv<unknown>()]) {
      const directory = await temporaryFolder();
      const writer = await open({ directory, format: format });
      const values = Array.from({ length: 20_000 }, (_, n) => ({ n: String(n), t: 'ü"' }));
      await commit(writer, 1, ...values);
      const source = files.source({ path: directory, format });
      const [split] = await splitsOf(source);
      expect(await valuesOf(source, split)).toEqual(values);
    }
  });

  it('is packed where that is asked for, over checkpoints, attempts and rolls, and read back by the source', async () => {
    for (const roll of [undefined, late, { bytes: 100_000 }]) {
      const directory = await temporaryFolder();
      const options: Options = { directory, format: csv(), gzip: true, ...(roll === undefined ? {} : { roll }) };
      const values = Array.from({ length: 60_000 }, (_, n) => ({ n: String(n), t: `ü${(n * 7919) % 60_013}` }));
      const first = await open(options);
      await commit(first, 1, ...values.slice(0, 20_000));
      await commit(first, 2, ...values.slice(20_000, 20_010));
      const second = await open(options, { attempt: 2 });
      await commit(second, 3, ...values.slice(20_010));
      await second.finish?.();
      const names = Object.keys(await published(directory));
      expect(names.every((name) => name.endsWith('.csv.gz'))).toBe(true);
      expect(names.length > 1).toBe(roll !== late);
      const source = files.source<(typeof values)[0]>({ path: directory, format: csv() });
      const read: (typeof values)[0][] = [];
      for (const split of await splitsOf(source)) read.push(...(await valuesOf(source, split)));
      expect(read.sort((a, b) => Number(a.n) - Number(b.n))).toEqual(values);
    }
  });

  it('does not meet what other sinks and writers write in the same directory', async () => {
    const directory = await temporaryFolder();
    const identities = [{ writer: '0' }, { writer: '1' }, { uid: 'other' }, { lineage: 'def' }];
    for (const [i, identity] of identities.entries()) await commit(await open({ directory, format: text() }, identity), 1, String(i));
    expect((await lines(directory)).sort()).toEqual(['0', '1', '2', '3']);
    for (const identity of identities) expect(await (await open({ directory }, { ...identity, attempt: 2 })).lastCommitted()).toBe(1);
  });
});

describe('a file sink refuses', () => {
  it('a directory that it cannot write', async () => {
    const directory = join(await temporaryFolder(), 'file');
    await writeFile(directory, '');
    await expect(open({ directory })).rejects.toMatchObject({ code: 'DIRECTORY_UNWRITABLE' });
  });

  it('options that mean nothing', () => {
    for (const wrong of [{ directory: '' }, { directory: 'a', prefix: '../x' }, { directory: 'a', roll: { bytes: 0 } }]) {
      expect(() => files.sink(wrong)).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
    }
  });

  it('a checkpoint id that does not rise: COMMIT_ID_REUSED', async () => {
    const writer = await open({ directory: await temporaryFolder() });
    await commit(writer, 7, 1);
    await expect(commit(writer, 7, 2)).rejects.toMatchObject({ code: 'COMMIT_ID_REUSED' });
    await expect(commit(writer, 6, 2)).rejects.toMatchObject({ code: 'COMMIT_ID_REUSED' });
  });

  it('to go on after a commit that failed, because its outcome is unknown', async () => {
    const writer = await open({ directory: await temporaryFolder() }, {}, withFaults(io, 'sink.files.append=fail'));
    await expect(commit(writer, 1, 'a')).rejects.toMatchObject({ code: 'FAULT_INJECTED' });
    await expect(commit(writer, 2, 'a')).rejects.toMatchObject({ code: 'SINK_FAILED' });
    await expect(writer.finish?.()).rejects.toMatchObject({ code: 'SINK_FAILED' });
    await writer.close();
  });

  it('a damaged marker', async () => {
    const directory = await temporaryFolder();
    await commit(await open({ directory }), 1, 'a');
    await writeFile(join(directory, '.millrace/out-abc-0-1'), '{');
    await expect(open({ directory }, { attempt: 2 })).rejects.toMatchObject({ code: 'SNAPSHOT_CORRUPT' });
  });

  it('to write over a file that it has published, when its marker was deleted by hand: FILE_EXISTS, and nothing is committed', async () => {
    const directory = await temporaryFolder();
    await commit(await open({ directory, format: text() }), 1, 'first');
    await rm(join(directory, '.millrace'), { recursive: true });
    const next = await open({ directory, format: text() }, { attempt: 2 });
    await expect(commit(next, 2, 'second')).rejects.toMatchObject({
      code: 'FILE_EXISTS',
      uid: 'out',
      message: expect.stringContaining('out-abc-0-000001.txt'),
    });
    expect(await published(directory)).toEqual({ 'out-abc-0-000001.txt': 'first\n' });
    expect(await (await open({ directory }, { attempt: 3 })).lastCommitted()).toBe(0);
  });

  it('to commit again what a lost marker had committed, though readers have taken the files away: MARKER_LOST', async () => {
    const directory = await temporaryFolder();
    const first = await open({ directory, format: text() });
    await commit(first, 1, 'first');
    const restored = first.snapshot?.();
    await commit(first, 2, 'second');
    const { markers, gone } = { markers: join(directory, '.millrace'), gone: join(directory, '.gone') };
    await rename(markers, gone);
    for (const name of Object.keys(await published(directory))) await rm(join(directory, name));
    const lost = { code: 'MARKER_LOST', uid: 'out', retryable: false };
    for (const attempt of [2, 3]) await expect(open({ directory }, { attempt, restored })).rejects.toMatchObject(lost);
    // Another directory has none to lose, and the marker may be put back.
    expect(await (await open({ directory: join(directory, 'other') }, { attempt: 4, restored })).lastCommitted()).toBe(0);
    await rm(markers, { recursive: true });
    await rename(gone, markers);
    const next = await open({ directory }, { attempt: 5, restored });
    expect(await next.lastCommitted()).toBe(2);
    await commit(next, 3, 'third');
    const newer = next.snapshot?.();
    await writeFile(join(markers, 'out-abc-0-5'), JSON.stringify({ checkpoint: 2, next: 3, open: [], publish: [] }));
    await expect(open({ directory }, { attempt: 6, restored: newer })).rejects.toMatchObject({
      ...lost,
      message: expect.stringContaining('its marker says 2 now'),
    });
  });

  it('to publish over a file that appeared behind its marker, until that is taken away', async () => {
    const directory = await temporaryFolder();
    const writer = await open({ directory, format: text(), roll: late });
    await commit(writer, 1, 'ours');
    await writeFile(join(directory, 'out-abc-0-000001.txt'), 'theirs');
    await expect(writer.finish?.()).rejects.toMatchObject({ code: 'FILE_EXISTS' });
    await expect(open({ directory, format: text(), roll: late }, { attempt: 2 })).rejects.toMatchObject({ code: 'FILE_EXISTS' });
    expect(await published(directory)).toEqual({ 'out-abc-0-000001.txt': 'theirs' });
    await rm(join(directory, 'out-abc-0-000001.txt'));
    await open({ directory, format: text(), roll: late }, { attempt: 3 });
    expect(await published(directory)).toEqual({ 'out-abc-0-000001.txt': 'ours\n' });
  });

  it('to lose committed bytes that somebody took away', async () => {
    const directory = await temporaryFolder();
    await commit(await open({ directory, roll: late }), 1, 'a');
    await rm(join(directory, '.millrace/out-abc-0-1.open'), { recursive: true });
    await expect(open({ directory, roll: late }, { attempt: 2 })).rejects.toMatchObject({ code: 'FILE_CHANGED' });
  });
});

/** As the runtime does it: a segment is committed again unless the marker says that it was. */
async function restore(directory: string, attempt: number, options: Partial<Options>, segments: readonly [number, string[]][]): Promise<Writer> {
  const writer = await open({ directory, format: text(), ...options }, { attempt });
  const marker = await writer.lastCommitted();
  for (const [checkpoint, values] of segments) if (checkpoint > marker) await commit(writer, checkpoint, ...values);
  return writer;
}

const bucket = (value: string): string => value[0]!;
const SEGMENTS: [number, string[]][] = [
  [7, ['a1', 'b1', 'c1']],
  [8, ['a2', 'b2', 'c2', 'a3']],
  [9, ['c3', 'd1']],
];
const EVERYTHING = SEGMENTS.flatMap(([, values]) => values).sort();

describe.each<[string, Partial<Options>]>([
  ['published at each checkpoint', { bucket }],
  ['kept open over checkpoints', { bucket, roll: late }],
  ['rolled by size', { bucket, roll: { bytes: 6 } }],
])('a crash of a sink whose files are %s', (_, options) => {
  const crashes = FILES_SINK_STEPS.flatMap((step) => [1, 2, 3, 5].map((at) => `${step}=fail@${at}`));

  it.each(crashes)('neither loses nor repeats a record: %s', async (fault) => {
    const directory = await temporaryFolder();
    const faulty = withFaults(io, fault);
    let attempt = 1;
    // Attempts fail until the fault is behind them; each begins with what the one before left.
    for (; ; attempt += 1) {
      try {
        const writer = await open({ directory, format: text(), ...options }, { attempt }, faulty);
        const marker = await writer.lastCommitted();
        for (const [checkpoint, values] of SEGMENTS) if (checkpoint > marker) await commit(writer, checkpoint, ...values);
        await writer.finish?.();
        break;
      } catch (error) {
        expect(error).toMatchObject({ code: 'FAULT_INJECTED' });
      }
    }
    expect((await lines(directory)).sort()).toEqual(EVERYTHING);
    // And once more after everything was well.
    const again = await restore(directory, attempt + 1, options, SEGMENTS);
    await again.finish?.();
    expect((await lines(directory)).sort()).toEqual(EVERYTHING);
    expect(await readdir(join(directory, '.millrace'))).toEqual([`out-abc-0-${attempt + 1}`, `out-abc-0-${attempt + 1}.open`]);
  });
});

describe('protocols 11', () => {
  it('a crash between the renames of one commit loses no bucket, though a reader moved the first file away at once', async () => {
    const directory = await temporaryFolder();
    const writer = await open({ directory, format: text(), bucket }, {}, withFaults(io, 'sink.files.publish=fail@2'));
    await expect(commit(writer, 7, 'a', 'b', 'c')).rejects.toMatchObject({ code: 'FAULT_INJECTED' });
    expect(await lines(directory)).toEqual(['a']);
    const elsewhere = await temporaryFolder();
    await rename(join(directory, 'a'), join(elsewhere, 'a'));
    const next = await restore(directory, 2, { bucket }, [[7, ['a', 'b', 'c']]]);
    expect(await next.lastCommitted()).toBe(7);
    expect(await lines(directory)).toEqual(['b', 'c']);
  });

  it('a crash after the append and before the marker does not append twice', async () => {
    const directory = await temporaryFolder();
    const writer = await open({ directory, format: text(), roll: late }, {}, withFaults(io, 'sink.files.marker.write=fail@2'));
    await commit(writer, 6, 'six');
    await expect(commit(writer, 7, 'seven')).rejects.toMatchObject({ code: 'FAULT_INJECTED' });
    const next = await restore(directory, 2, { roll: late }, [[7, ['seven']]]);
    await next.finish?.();
    expect(await lines(directory)).toEqual(['six', 'seven']);
  });

  it('the same attempt, opened again, cuts its open files back to the lengths in the marker', async () => {
    const directory = await temporaryFolder();
    await commit(await open({ directory, format: text(), roll: late }), 6, 'six');
    const folder = join(directory, '.millrace/out-abc-0-1.open');
    for (const name of await readdir(folder)) await appendFile(join(folder, name), 'half a segme');
    const again = await open({ directory, format: text(), roll: late });
    await commit(again, 7, 'seven');
    await again.finish?.();
    expect(await lines(directory)).toEqual(['six', 'seven']);
  });

  it("a resumed zombie can neither append to the new attempt's file nor publish its own", async () => {
    const directory = await temporaryFolder();
    const zombie = await open({ directory, format: text(), bucket, roll: late });
    await commit(zombie, 6, 'a6', 'b6');
    const next = await restore(directory, 2, { bucket, roll: late }, []);
    await expect(commit(zombie, 7, 'a7', 'c7')).rejects.toMatchObject({ code: 'WRITER_FENCED' });
    await expect(zombie.finish?.()).rejects.toMatchObject({ code: 'SINK_FAILED' });
    await commit(next, 7, 'a7', 'c7');
    await next.finish?.();
    expect((await lines(directory)).sort()).toEqual(['a6', 'a7', 'b6', 'c7']);
  });

  // The zombie stands still in the middle of commit(7), at each step, while the new attempt opens, commits 7 and 8 and publishes.
  it.each(FILES_SINK_STEPS.filter((step) => /append|open|fsync|marker|publish/.test(step)))(
    'a zombie that stood still at %s and is resumed changes nothing',
    async (step) => {
      for (const roll of [undefined, late]) {
        const directory = await temporaryFolder();
        let resume = (): void => {};
        let reached = (): void => {};
        const standing = new Promise<void>((resolve) => {
          reached = resolve;
        });
        let armed = false;
        const stalling: Io = {
          ...io,
          step(name) {
            if (!armed || name !== step) return undefined;
            armed = false;
            reached();
            return new Promise((resolve) => {
              resume = resolve;
            });
          },
        };
        const zombie = await open({ directory, format: text(), bucket, roll }, {}, stalling);
        await commit(zombie, 6, 'a6', 'b6');
        armed = true;
        const late7 = commit(zombie, 7, 'a7', 'c7').then(
          () => 'committed',
          (error: unknown) => (error as { code: string }).code,
        );
        const how = await Promise.race([standing.then(() => 'standing'), late7]);
        const next = await restore(directory, 2, { bucket, roll }, [
          [7, ['a7', 'c7']],
          [8, ['a8', 'b8']],
        ]);
        resume();
        if (how === 'standing') expect(['committed', 'WRITER_FENCED']).toContain(await late7);
        await next.finish?.();
        const expected = ['a6', 'a7', 'a8', 'b6', 'b8', 'c7'];
        expect((await lines(directory)).sort()).toEqual(expected);
        // Nor does what it left confuse the attempt after.
        await (await restore(directory, 3, { bucket, roll }, [[8, ['a8', 'b8']]])).finish?.();
        expect((await lines(directory)).sort()).toEqual(expected);
      }
    },
  );

  it('an older attempt that opens late refuses, and changes nothing', async () => {
    const directory = await temporaryFolder();
    await commit(await open({ directory, format: text() }, { attempt: 3 }), 7, 'a');
    await expect(open({ directory }, { attempt: 2 })).rejects.toMatchObject({ code: 'WRITER_FENCED' });
    await commit(await open({ directory, format: text() }, { attempt: 4 }), 8, 'b');
    expect(await lines(directory)).toEqual(['a', 'b']);
  });

  it('what is published never changes again', async () => {
    const directory = await temporaryFolder();
    let before: Record<string, string> = {};
    for (let attempt = 1; attempt <= 4; attempt += 1) {
      const writer = await open({ directory, format: text(), bucket, roll: { bytes: 6 } }, { attempt });
      for (let n = 0; n < 3; n += 1) {
        await commit(writer, attempt * 10 + n, `a${attempt}${n}`, `b${attempt}${n}`);
        const now = await published(directory);
        expect(now).toMatchObject(before);
        before = now;
      }
    }
    expect(Object.keys(before).length).toBe(12);
  });

  it('files that are too few to roll are published at the end, also when the last checkpoint had no records', async () => {
    const directory = await temporaryFolder();
    await mkdir(directory, { recursive: true });
    await commit(await open({ directory, format: text(), roll: late }), 1, 'a');
    const next = await restore(directory, 2, { roll: late }, []);
    await next.finish?.();
    expect(await lines(directory)).toEqual(['a']);
  });
});
