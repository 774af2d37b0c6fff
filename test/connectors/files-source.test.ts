import { mkdir, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { job } from 'millrace';
import { describe, expect, it } from 'vitest';
import { type FilePosition, type FileSplit, filesSource } from '../../src/connectors/files-source.ts';
import { csv, json, msgpack, type Schema, text } from '../../src/connectors/formats.ts';
import { frame } from '../../src/connectors/framing.ts';
import { files } from '../../src/connectors/index.ts';
import { type Io, systemIo } from '../../src/runtime/io.ts';
import { rejection, Seen } from '../protocols/lab.ts';
import { batchesOf, type Letter, readContext, sourceContext, splitsOf, temporaryFolder, valuesOf } from './reading.ts';

const names = (splits: FileSplit[], folder: string): string[] => splits.map(({ path }) => path.slice(folder.length + 1));

async function tree(folder: string, contents: Record<string, string | Uint8Array>): Promise<void> {
  for (const [path, content] of Object.entries(contents)) {
    await mkdir(join(folder, path, '..'), { recursive: true });
    await writeFile(join(folder, path), content);
  }
}

describe('the files of a source', () => {
  it.each<[string, string[]]>([
    ['a.ndjson', ['a.ndjson']],
    ['*.ndjson', ['a.ndjson', 'b.ndjson']],
    ['?.ndjson', ['a.ndjson', 'b.ndjson']],
    ['d*/x.*', ['d1/x.ndjson', 'd2/x.ndjson']],
    ['**/*.ndjson', ['a.ndjson', 'b.ndjson', 'd1/deep/y.ndjson', 'd1/x.ndjson', 'd2/x.ndjson']],
    ['d1', ['d1/deep/y.ndjson', 'd1/x.ndjson']],
    ['d1/**', ['d1/deep/y.ndjson', 'd1/x.ndjson']],
    ['*', ['a.ndjson', 'b.ndjson', 'c.txt']],
    ['.hidden/*', ['.hidden/z.ndjson']],
  ])('are found by %s, sorted, without hidden ones', async (pattern, expected) => {
    const folder = await temporaryFolder();
    await tree(folder, {
      'b.ndjson': '',
      'a.ndjson': '',
      'c.txt': '',
      '.d.ndjson': '',
      'd1/x.ndjson': '',
      'd2/x.ndjson': '',
      'd1/deep/y.ndjson': '',
      'd1/.open.ndjson': '',
      '.hidden/z.ndjson': '',
    });
    expect(names(await splitsOf(filesSource({ path: join(folder, pattern) })), folder)).toEqual(expected);
  });

  it('are one split each, also when two paths name them', async () => {
    const folder = await temporaryFolder();
    await tree(folder, { 'a.txt': '', 'b.txt': '' });
    const source = filesSource({ path: [folder, join(folder, 'a*')] });
    const splits = await splitsOf(source);
    expect(splits.map((split) => source.splitId(split))).toEqual([join(folder, 'a.txt'), join(folder, 'b.txt')]);
  });

  it('must be there: FILE_NOT_FOUND names the path', async () => {
    const folder = await temporaryFolder();
    const source = filesSource({ path: join(folder, '*.ndjson') });
    await expect(splitsOf(source)).rejects.toMatchObject({ code: 'FILE_NOT_FOUND', message: expect.stringContaining('*.ndjson') });
  });

  it('may be gone after a restore, when they were read before', async () => {
    const folder = await temporaryFolder();
    expect(await splitsOf(filesSource({ path: join(folder, '*.ndjson') }), { known: new Set([join(folder, 'a.ndjson')]) })).toEqual([]);
  });

  it('appear one after the other with watch, until the attempt ends', async () => {
    const folder = await temporaryFolder();
    await tree(folder, { 'a.txt': '' });
    const source = filesSource({ path: join(folder, '*.txt'), watch: true });
    expect(source.bounded).toBe(false);
    const attempt = new AbortController();
    const seen: string[][] = [];
    for await (const splits of source.splits(sourceContext({ signal: attempt.signal })) as AsyncIterable<FileSplit[]>) {
      seen.push(names(splits, folder));
      if (seen.length === 1) {
        await tree(folder, { 'partial/b': 'whole' });
        await rename(join(folder, 'partial/b'), join(folder, 'b.txt'));
      } else attempt.abort();
    }
    expect(seen).toEqual([['a.txt'], ['b.txt']]);
  });
});

/** Time stands still: `paused` resolves when the source waits, and gives what ends that wait. */
function still(): { port: Io; paused(): Promise<() => void> } {
  const io = systemIo();
  const waits: (() => void)[] = [];
  let came = (): void => {};
  const setTimeout = (fn: () => void): void => {
    waits.push(fn);
    came();
  };
  return {
    port: { ...io, clock: { ...io.clock, setTimeout, clearTimeout: () => {} } },
    async paused() {
      while (waits.length === 0) {
        await new Promise<void>((resolve) => {
          came = resolve;
        });
      }
      return waits.shift()!;
    },
  };
}

describe('a watched file that was read to its end', () => {
  it('and is cut off then is FILE_CHANGED, with its name and both sizes', async () => {
    const folder = await temporaryFolder();
    await tree(folder, { 'a.txt': 'one\ntwo\n', 'b.txt': 'x\n' });
    const path = join(folder, 'a.txt');
    const { port, paused } = still();
    const attempt = new AbortController();
    const source = filesSource<string>({ path: folder, watch: true, format: text() }, port);
    const discovery = (source.splits(sourceContext({ signal: attempt.signal })) as AsyncIterable<FileSplit[]>)[Symbol.asyncIterator]();
    expect(names((await discovery.next()).value, folder)).toEqual(['a.txt', 'b.txt']);
    expect(await valuesOf(source, { path })).toEqual(['one', 'two']);
    const next = discovery.next();
    const failure = expect(next).rejects.toMatchObject({
      code: 'FILE_CHANGED',
      message: expect.stringMatching(/a\.txt' was 8 bytes long and is cut off at byte 4/),
    });
    const goOn = await paused();
    await truncate(path, 4);
    goOn();
    await failure;
  });

  it('may be gone, and a shorter one in its place is FILE_CHANGED', async () => {
    const folder = await temporaryFolder();
    await tree(folder, { 'a.txt': 'one\n' });
    const path = join(folder, 'a.txt');
    const { port, paused } = still();
    const source = filesSource<string>({ path: folder, watch: true, format: text() }, port);
    const discovery = (source.splits(sourceContext({})) as AsyncIterable<FileSplit[]>)[Symbol.asyncIterator]();
    await discovery.next();
    const next = discovery.next();
    const failure = expect(next).rejects.toMatchObject({ code: 'FILE_CHANGED' });
    let goOn = await paused();
    await rm(path);
    goOn();
    goOn = await paused();
    await writeFile(path, '');
    goOn();
    await failure;
  });
});

describe('reading a file', () => {
  it('that was read to its end, and became shorter while the job was away, is FILE_CHANGED when it comes back', async () => {
    const folder = await temporaryFolder();
    await tree(folder, { 'in/a.txt': 'one\ntwo\n', 'in/b.txt': 'three\n' });
    const read = new Seen<string>();
    const source = files.source<string>({ path: join(folder, 'in'), watch: true, format: text() });
    const ended = new Seen<string>();
    const told: typeof source = {
      ...source,
      async *read(split, from, context) {
        yield* source.read(split, from, context);
        (await ended.open()).write([source.splitId(split)], [Number.NaN]);
      },
    };
    const reading = job('reading', (env) => void env.source('in', told).sink('out', read));
    const options = { checkpoints: { directory: join(folder, 'checkpoints'), every: 3_600_000 }, restarts: false } as const;
    const first = await reading.start(options);
    await ended.until((splits) => splits.length === 2);
    // The source has heard of both ends before it hears of a second barrier.
    await first.checkpoint();
    await first.stop();
    // One that is as long as it was is not looked into, and one that is gone may be.
    await rm(join(folder, 'in', 'b.txt'));
    const second = await reading.start(options);
    await second.stop();
    await writeFile(join(folder, 'in', 'a.txt'), 'new\n');
    const failure = await rejection(reading.start(options).then((running) => running.finished));
    expect(failure).toMatchObject({ code: 'FILE_CHANGED', uid: 'in', message: expect.stringContaining('8 bytes long and is cut off at byte 4') });
    expect(read.values).toHaveLength(3);
  });

  it('that is cut off while it is read is FILE_CHANGED, not its end', async () => {
    const folder = await temporaryFolder();
    await tree(folder, { 'a.ndjson': bytes });
    const path = join(folder, 'a.ndjson');
    const read = async (): Promise<void> => {
      for await (const { position } of filesSource({ path }).read({ path }, undefined, readContext([])))
        if (position.offset < 100_000) await truncate(path, 100_000);
    };
    await expect(read()).rejects.toMatchObject({ code: 'FILE_CHANGED', message: expect.stringContaining('cut off at byte 100000') });
  });

  it('gives its lines, with \\r\\n, blank lines and a last line without its end', async () => {
    const folder = await temporaryFolder();
    await tree(folder, { 'a.ndjson': '\ufeff{"n":1}\r\n\n{"n":2}\n{"n":"ö"}' });
    const path = join(folder, 'a.ndjson');
    expect(await valuesOf(files.source({ path }), { path })).toEqual([{ n: 1 }, { n: 2 }, { n: 'ö' }]);
  });

  const many = Array.from({ length: 30_000 }, (_, n) => ({ n, text: 'ö'.repeat(n % 23) }));
  const bytes = Buffer.from(many.map((value) => `${JSON.stringify(value)}\n`).join(''));

  it.each([
    ['plain', 'a.ndjson', bytes],
    ['compressed', 'a.ndjson.gz', gzipSync(bytes)],
  ])('goes on behind every position it gave: %s', async (_, name, content) => {
    const folder = await temporaryFolder();
    await tree(folder, { [name]: content });
    const path = join(folder, name);
    const source = filesSource({ path });
    const batches = await batchesOf(source, { path });
    expect(batches.flatMap(({ values }) => values)).toEqual(many);
    expect(batches.length).toBeGreaterThan(5);
    let count = 0;
    for (const { values, position } of batches) {
      count += values.length;
      const rest = await valuesOf(source, { path }, position);
      expect(rest.length).toBe(many.length - count);
      expect(rest[0]).toEqual(many[count]);
    }
    expect(batches.at(-1)?.position).toEqual({ offset: bytes.length });
  });

  it('keeps lines that do not decode as dead letters, with their bytes', async () => {
    const folder = await temporaryFolder();
    await tree(folder, { 'a.ndjson': '1\n{"ü\n2\n' });
    const path = join(folder, 'a.ndjson');
    const letters: Letter[] = [];
    expect(await valuesOf(filesSource<number>({ path }), { path }, undefined, readContext(letters))).toEqual([1, 2]);
    expect(letters).toEqual([{ record: Uint8Array.from(Buffer.from('{"ü')), error: expect.objectContaining({ code: 'RECORD_UNDECODABLE' }) }]);
  });

  it('fails when the schema is asynchronous, instead of making every record a dead letter', async () => {
    const folder = await temporaryFolder();
    await tree(folder, { 'a.json': '1\n' });
    const path = join(folder, 'a.json');
    const schema: Schema<number> = { '~standard': { version: 1, vendor: 'test', validate: async (value) => ({ value }) } };
    await expect(valuesOf(filesSource({ path, format: json(schema) }), { path })).rejects.toMatchObject({ code: 'SCHEMA_IS_ASYNC' });
  });

  it('knows the columns of a csv file also in its middle', async () => {
    const folder = await temporaryFolder();
    const rows = Array.from({ length: 20_000 }, (_, n) => ({ id: String(n), name: `"${n}", the` }));
    await tree(folder, { 'a.csv': `id,name\r\n${rows.map((row) => `${row.id},"""${row.id}"", the"`).join('\r\n')}` });
    const path = join(folder, 'a.csv');
    const source = filesSource<(typeof rows)[0]>({ path, format: csv() });
    const batches = await batchesOf(source, { path });
    expect(batches.flatMap(({ values }) => values)).toEqual(rows);
    const first = batches[0]!;
    expect(first.position).toMatchObject({ header: 'id,name' } satisfies Partial<FilePosition>);
    expect(await valuesOf(source, { path }, first.position)).toEqual(rows.slice(first.values.length));
  });

  it('reads formats that are no text by their lengths', async () => {
    const folder = await temporaryFolder();
    const values = Array.from({ length: 50_000 }, (_, n) => ({ n }));
    await tree(folder, { 'a.msgpack': Buffer.concat(values.map((value) => frame(msgpack().encode(value)))) });
    const path = join(folder, 'a.msgpack');
    const source = filesSource({ path, format: msgpack<{ n: number }>() });
    const batches = await batchesOf(source, { path });
    expect(batches.flatMap((batch) => batch.values)).toEqual(values);
    expect(await valuesOf(source, { path }, batches[0]?.position)).toEqual(values.slice(batches[0]?.values.length));
  });

  it('gives an empty line of text as an empty record', async () => {
    const folder = await temporaryFolder();
    await tree(folder, { 'a.txt': 'a\n\nb\n' });
    const path = join(folder, 'a.txt');
    expect(await valuesOf(files.source({ path, format: text() }), { path })).toEqual(['a', '', 'b']);
  });

  it.each(['a.txt', 'a.txt.gz'])('refuses to go on in a file that became shorter: %s', async (name) => {
    const folder = await temporaryFolder();
    const content = Buffer.from('a\nb\nc\n');
    await tree(folder, { [name]: name.endsWith('.gz') ? gzipSync(content.subarray(0, 2)) : content });
    const path = join(folder, name);
    if (!name.endsWith('.gz')) await truncate(path, 2);
    await expect(valuesOf(filesSource({ path, format: text() }), { path }, { offset: 4 })).rejects.toMatchObject({ code: 'FILE_CHANGED' });
  });

  it('says what is wrong with a file that cannot be read', async () => {
    const folder = await temporaryFolder();
    await tree(folder, { 'a.txt.gz': 'no gzip' });
    const path = join(folder, 'a.txt.gz');
    await expect(valuesOf(filesSource({ path, format: text() }), { path })).rejects.toMatchObject({ code: 'FILE_UNREADABLE' });
    const gone = join(folder, 'gone.txt');
    await expect(valuesOf(filesSource({ path: gone, format: text() }), { path: gone })).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
  });

  it('stops when the attempt ends', async () => {
    const folder = await temporaryFolder();
    await tree(folder, { 'a.ndjson': bytes });
    const path = join(folder, 'a.ndjson');
    const attempt = new AbortController();
    let batches = 0;
    for await (const _ of filesSource({ path }).read({ path }, undefined, readContext([], { signal: attempt.signal }))) {
      batches += 1;
      attempt.abort();
    }
    expect(batches).toBe(1);
  });
});
