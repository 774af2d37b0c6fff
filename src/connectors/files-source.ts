// The file source: every file is one split, read from its first record to its last.
//
// What: `splits` finds the files (globs.ts); `read` frames their bytes (framing.ts) and decodes them, in batches of about 64 KiB. With `watch` the
// directories are looked through again every second and new files become new splits; a file should appear under its name when it is complete (write
// it elsewhere, or hidden, and rename it), because what is appended to a file that was read to its end is not read.
//
// A file that has become shorter is another file under the same name (a log that was cut off to begin anew, `copytruncate`), and reading it as a new
// one could repeat records as well as lose them. So it is FILE_CHANGED wherever it is seen: when reading goes on in it, when a read comes to its end
// too soon, and with `watch` also later, for as long as the job runs, and when it comes back.
//
// Invariants:
// S1  a position counts bytes after decompression, and stands behind a whole record. A plain file goes on there by seeking, a .gz file by
//     decompressing and passing over. The header of a csv file is part of the position.
// S2  dead letters of a batch are told in the same synchronous step that ends with handing the batch over: no barrier comes between the two.
// S3  whatever happens, the file is closed and a read under way is awaited before `read` ends.

import { createReadStream } from 'node:fs';
import { createGunzip } from 'node:zlib';
import { MillraceError, messageOf } from '../errors.ts';
import type { ReadContext, Source, SourceBatch, SourceContext, WithoutTimestamps } from '../graph/source.ts';
import { type Io, systemIo } from '../runtime/io.ts';
import { type Format, lineCodecOf, ndjson } from './formats.ts';
import { decodeFrames, decodeLines, Framer, pieces, preparedFrames, type Region } from './framing.ts';
import { filesOf } from './globs.ts';
import { pause } from './pause.ts';

/** What `files.source()` reads. */
export interface FilesSourceOptions<T> {
  /** Files, directories or globs (`*`, `**`, `?`); `.gz` is unpacked. */
  path: string | string[];
  /** ndjson() by default. */
  format?: Format<T>;
  /** Go on with files that appear while the job runs, looked for each second; the source then never ends. False by default. */
  watch?: boolean;
}

export interface FileSplit {
  readonly path: string;
}

export interface FilePosition {
  /** In bytes, after decompression. */
  readonly offset: number;
  /** The line that names the columns, where the format has one and it has been read. */
  readonly header?: string;
}

const BLOCK_BYTES = 256 * 1024;
const BATCH_BYTES = 64 * 1024;
const WATCH_EVERY_MS = 1000;
/** Files whose size is asked for each time that directories are looked through: all of a few at once, many in turn. */
const SIZES_AT_ONCE = 256;
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);

export function filesSource<T>(options: FilesSourceOptions<T>, io: Io = systemIo()): Source<T, FileSplit, FilePosition> & WithoutTimestamps {
  const patterns = typeof options.path === 'string' ? [options.path] : [...options.path];
  if (patterns.length === 0 || patterns.some((pattern) => typeof pattern !== 'string' || pattern === '')) {
    throw new MillraceError('OPTION_INVALID', 'files.source() needs a path.', { todo: 'Give a file, a directory or a glob, or several of them.' });
  }
  const format = options.format ?? (ndjson() as Format<T>);
  const watch = options.watch === true;
  return {
    assignsTimestamps: false,
    bounded: !watch,
    splits: (context) => (watch ? watched(patterns, context, io) : found(patterns, context)),
    splitId: (split) => split.path,
    read: (split, from, context) => read(split.path, format, from, context, io),
  };
}

async function found(patterns: readonly string[], context: SourceContext): Promise<FileSplit[]> {
  const paths = new Set<string>();
  for (const pattern of patterns) {
    const here = await filesOf(pattern);
    // After a restore files may be gone that were read to their end.
    if (here.length === 0 && context.known.size === 0) {
      throw new MillraceError('FILE_NOT_FOUND', `There is no file at '${pattern}' (in ${process.cwd()}).`, {
        todo: 'Correct the path, or set watch to wait for files.',
        uid: context.uid,
      });
    }
    for (const path of here) paths.add(path);
  }
  return [...paths].map((path) => ({ path }));
}

async function* watched(patterns: readonly string[], context: SourceContext, io: Io): AsyncGenerator<FileSplit[]> {
  /** With the largest size that each had, or what was read of it: 0 until it is asked for. The order is that of the turns. */
  const seen = new Map<string, number>();
  while (!context.signal.aborted) {
    const fresh: FileSplit[] = [];
    for (const pattern of patterns) {
      for (const path of await filesOf(pattern)) {
        if (seen.has(path)) continue;
        seen.set(path, readOf(path, context));
        fresh.push({ path });
      }
    }
    // Before a new file is handed out: what is read of it is compared with a size from before.
    for (const { path } of fresh) await look(path, seen, context, io);
    if (fresh.length > 0) yield fresh;
    for (const path of [...seen.keys()].slice(0, SIZES_AT_ONCE)) await look(path, seen, context, io);
    await pause(WATCH_EVERY_MS, context.signal, io.clock);
  }
}

/** How much of it had been read to its end before a restore; 0 where that says nothing of its size. */
function readOf(path: string, { ended }: SourceContext): number {
  return path.endsWith('.gz') ? 0 : ((ended.get(path) as FilePosition | undefined)?.offset ?? 0);
}

/** Puts the file at the end of the turns. One that is gone may be: it was read, or reading it fails. */
async function look(path: string, seen: Map<string, number>, context: SourceContext, io: Io): Promise<void> {
  const before = seen.get(path) ?? 0;
  let size = before;
  try {
    ({ size } = await io.fs.stat(path));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw unreadable(path, error, context);
  }
  if (size < before) throw cutOff(path, before, size, context);
  seen.delete(path);
  seen.set(path, size);
}

async function* read<T>(
  path: string,
  format: Format<T>,
  from: FilePosition | undefined,
  context: ReadContext,
  io: Io,
): AsyncGenerator<SourceBatch<T, FilePosition>> {
  const start = from?.offset ?? 0;
  const codec = lineCodecOf(format);
  const framer = new Framer(codec !== undefined, start);
  const onBad = (bytes: Uint8Array, error: Error): void => context.deadLetter(bytes, error);
  let header = from?.header;
  let reader: ((line: string) => T) | undefined;

  const decode = (given: Region): SourceBatch<T, FilePosition> => {
    let { bytes } = given;
    if (codec === undefined) return { values: decodeFrames(bytes, format, onBad), position: { offset: given.offset } };
    if (given.offset === bytes.length && bytes.subarray(0, 3).equals(BYTE_ORDER_MARK)) bytes = bytes.subarray(3);
    if (codec.header && header === undefined) {
      let end = bytes.indexOf(10);
      if (end < 0) end = bytes.length;
      header = bytes.toString('utf8', 0, end > 0 && bytes[end - 1] === 13 ? end - 1 : end);
      bytes = bytes.subarray(end + 1);
    }
    reader ??= codec.reader(header);
    const values = decodeLines(bytes, codec, reader, onBad);
    return { values, position: header === undefined ? { offset: given.offset } : { offset: given.offset, header } };
  };

  const blocks = path.endsWith('.gz') ? gunzipped(path, start, context) : plain(path, start, context, io);
  for await (const block of blocks) {
    const region = framer.push(block);
    if (region === undefined) continue;
    if (codec === undefined) {
      await preparedFrames(region.bytes, format);
      yield decode(region);
    } else {
      for (const piece of pieces(region, BATCH_BYTES)) {
        if (context.signal.aborted) return;
        yield decode(piece);
      }
    }
    if (context.signal.aborted) return;
  }
  if (context.signal.aborted) return;
  const rest = framer.rest();
  if (rest === undefined) return;
  if (codec === undefined) await preparedFrames(rest.bytes, format);
  yield decode(rest);
}

/** The next block is read while this one is decoded. */
async function* plain(path: string, start: number, context: ReadContext, io: Io): AsyncGenerator<Buffer> {
  const handle = await guarded(path, context, io.fs.open(path, 'r'));
  let next: Promise<Buffer> | undefined;
  try {
    const { size } = await guarded(path, context, handle.stat());
    if (size < start) throw shorter(path, start, size, context);
    let at = start;
    const block = async (): Promise<Buffer> => {
      const buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES);
      const { bytesRead } = await handle.read(buffer, 0, BLOCK_BYTES, at);
      at += bytesRead;
      return buffer.subarray(0, bytesRead);
    };
    next = block();
    for (;;) {
      const bytes = await guarded(path, context, next);
      if (bytes.length === 0) {
        const { size: now } = await guarded(path, context, handle.stat());
        if (now < Math.max(size, at)) throw cutOff(path, Math.max(size, at), now, context);
        return;
      }
      next = block();
      // Its failure is met when it is awaited.
      next.catch(() => {});
      yield bytes;
    }
  } finally {
    await next?.catch(() => {});
    await handle.close();
  }
}

async function* gunzipped(path: string, start: number, context: ReadContext): AsyncGenerator<Buffer> {
  const file = createReadStream(path, { highWaterMark: BLOCK_BYTES });
  const gunzip = createGunzip({ chunkSize: BLOCK_BYTES });
  file.on('error', (error) => gunzip.destroy(error));
  file.pipe(gunzip);
  let passed = 0;
  try {
    for await (const block of gunzip as AsyncIterable<Buffer>) {
      const skipped = Math.min(start - passed, block.length);
      passed += skipped;
      if (skipped < block.length) yield skipped === 0 ? block : block.subarray(skipped);
    }
  } catch (error) {
    throw unreadable(path, error, context);
  } finally {
    gunzip.destroy();
    file.destroy();
  }
  if (passed < start) throw shorter(path, start, passed, context);
}

async function guarded<R>(path: string, context: ReadContext, answer: Promise<R>): Promise<R> {
  try {
    return await answer;
  } catch (error) {
    throw unreadable(path, error, context);
  }
}

function unreadable(path: string, cause: unknown, context: SourceContext | ReadContext): MillraceError {
  if ((cause as NodeJS.ErrnoException).code === 'ENOENT') {
    return new MillraceError('FILE_NOT_FOUND', `The file '${path}' is gone.`, { todo: 'Put it back: it was not read to its end.', uid: context.uid, cause });
  }
  return new MillraceError('FILE_UNREADABLE', `'${path}' cannot be read: ${messageOf(cause)}.`, { uid: context.uid, cause });
}

function shorter(path: string, offset: number, size: number, context: ReadContext): MillraceError {
  return new MillraceError('FILE_CHANGED', `'${path}' was read up to byte ${offset} and has only ${size} bytes now.`, {
    todo: 'Put the file back as it was, or begin anew with restore none.',
    uid: context.uid,
  });
}

function cutOff(path: string, before: number, now: number, context: SourceContext | ReadContext): MillraceError {
  return new MillraceError('FILE_CHANGED', `'${path}' was ${before} bytes long and is cut off at byte ${now} now; what stands in it since is not read.`, {
    todo: 'Let files that are read never change: write what is new under another name, and start the job again.',
    uid: context.uid,
  });
}
