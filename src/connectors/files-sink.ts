// The file sink: exactly-once files, by a marker that is replaced atomically (files-marker.ts).
//
// What: records are encoded when they arrive and kept by the runtime in the snapshot; `commit` appends them to hidden files, one a bucket, and
// publishes those that are to be rolled under their final names. A published file is complete and never changes again.
//
// commit(n): (1) append n's records to the hidden files and sync them; (2) replace the marker: checkpoint n, the hidden files with their lengths,
// the files to publish; (3) publish: rename each that still exists, sync the directories. `open` redoes (3) of the newest marker. A crash before
// (2) leaves bytes behind the lengths of the old marker, which nobody reads; a crash behind (2) leaves only renames to be done.
//
// Invariants:
// F1  what is committed is decided by the marker alone, never by looking for a final name: whoever reads the files may move them away at once.
// F2  a final name contains uid, lineage, writer and a number that rises: two writers, or two files, never meet under one name.
// F3  hidden files belong to an attempt. A later one copies the committed length into a file of its own and never appends to the old; what a
//     resumed older attempt still writes goes where nobody looks, and its renames and creations fail, because its folder is gone.
// F4  a file is never renamed over another. Where the final name of a file is there already although the file was not renamed (its marker was removed
//     by hand, so that numbers begin anew; the directory was written by a copy of the job), the writer refuses: before the marker names the file, and
//     again before the rename. It looks first and renames then, instead of a hard link and the removal of the hidden name: a crash between
//     these two would leave a hidden file that was published already, and a reader that had taken the file away by then would be given it twice. No
//     other may make the name in between: only this identity does, and an older attempt of it has lost the folder that it would rename from.
// F5  a snapshot says what the marker said when it was taken. A marker that says less on restore was removed or replaced: what was committed behind it is
//     not known, and would be committed again. Another directory has no marker to lose.
// F6  after a commit that failed its outcome is unknown: the writer refuses everything but `close`, and must be opened again.

import type { FileHandle } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { gzip as gzipOf } from 'node:zlib';
import { MillraceError, messageOf } from '../errors.ts';
import type { SinkContext, TransactionalSink, TransactionalWriter } from '../graph/sink.ts';
import { type Io, systemIo } from '../runtime/io.ts';
import {
  fileNameOf,
  type Marker,
  NO_MARKER,
  newestMarker,
  type OpenFile,
  readMarker,
  syncDirectory,
  type Trace,
  tracesOf,
  writeMarker,
} from './files-marker.ts';
import { type Format, lineCodecOf, ndjson } from './formats.ts';
import { frame } from './framing.ts';

/** What `files.sink()` writes, and where. */
export interface FilesSinkOptions<T> {
  /** Made if it is not there. */
  directory: string;
  /** ndjson() by default. */
  format?: Format<T>;
  /**
   * When a file is full: bytes, or milliseconds since it was begun; without it, each checkpoint publishes its files. Looked at when a checkpoint commits and
   * at the end.
   */
  roll?: { bytes?: number; every?: number };
  /** The folder below the directory for this record, such as `day=2030-01-31`; none by default. */
  bucket?: (value: T) => string;
  /** The beginning of the files' names; none by default. */
  prefix?: string;
  /** Packs files with gzip; their names end in `.gz`. False by default. `roll.bytes` then counts what is packed, and about a quarter of a megabyte that is not yet. */
  gzip?: boolean;
}

/** A record as the snapshot keeps it: its line or bytes, and where they go if that is not the same for all. */
export type FileRecord = string | Uint8Array | readonly [bucket: string, content: string | Uint8Array, header?: string];

/** Every step at which a test can fail or kill the process, in the order of their first use. */
export const FILES_SINK_STEPS = [
  'sink.files.folder',
  'sink.files.fence',
  'sink.files.copy',
  'sink.files.open',
  'sink.files.append',
  'sink.files.fsync',
  'sink.files.marker.write',
  'sink.files.marker.rename',
  'sink.files.marker.sync',
  'sink.files.publish',
  'sink.files.published',
  'sink.files.sweep',
] as const;

const MARKERS = '.millrace';
const FLUSH_BYTES = 256 * 1024;
/** Several of what it gives, one behind the other, are one packed file: so lengths in a marker stand between two of them. */
const packed = promisify(gzipOf);

export function filesSink<T>(options: FilesSinkOptions<T>, io: Io = systemIo()): TransactionalSink<T, FileRecord> {
  const { directory, bucket, prefix, roll } = options;
  const format = options.format ?? (ndjson() as Format<T>);
  if (typeof directory !== 'string' || directory === '') {
    throw new MillraceError('OPTION_INVALID', 'files.sink() needs a directory.', { todo: 'Give the directory that the files are written to.' });
  }
  if (prefix !== undefined && (/[\\/\0]/.test(prefix) || prefix.startsWith('.'))) {
    throw new MillraceError('OPTION_INVALID', `'${prefix}' cannot be the prefix of files.sink().`, {
      todo: 'Give the beginning of a file name that is not hidden; folders are made by bucket.',
    });
  }
  for (const [name, limit] of Object.entries(roll ?? {})) {
    if (limit !== undefined && !(limit > 0))
      throw new MillraceError('OPTION_INVALID', `roll.${name} of files.sink() is ${limit}.`, { todo: 'Give a positive number, or leave it out.' });
  }
  const gzip = options.gzip === true;
  const extension = `${(format.extension ?? 'bin').replace(/^\./, '')}${gzip ? '.gz' : ''}`;
  const codec = lineCodecOf(format);
  const content = codec === undefined ? (value: T) => format.encode(value) : (value: T) => codec.encode(value);
  const headerOf = codec?.headerOf;
  const plain = bucket === undefined && headerOf === undefined;

  return {
    transactional: true,
    async open(context) {
      await format.open?.();
      const files = new FilesWriter({
        directory,
        extension,
        gzip,
        prefix: prefix === undefined || prefix === '' ? '' : `${prefix}-`,
        roll: roll ?? {},
        context,
        io,
      });
      await files.open();
      return {
        encode: plain
          ? (value) => content(value)
          : (value) => {
              const folder = bucket === undefined ? '' : bucketOf(bucket(value), context.uid);
              return headerOf === undefined ? [folder, content(value)] : [folder, content(value), headerOf(value)];
            },
        commit: (checkpoint, records) => files.commit(checkpoint, records),
        finish: () => files.finish(),
        snapshot: () => files.snapshot(),
        lastCommitted: () => files.lastCommitted(),
        close: () => files.close(),
      } satisfies TransactionalWriter<T, FileRecord>;
    },
  };
}

function bucketOf(name: unknown, uid: string): string {
  const valid = typeof name === 'string' && (name === '' || (!/[\\\0]/.test(name) && name.split('/').every((part) => part !== '' && !part.startsWith('.'))));
  if (valid) return name;
  throw new MillraceError('BUCKET_INVALID', `${JSON.stringify(name)} is no bucket of files.sink().`, {
    todo: "Return the path of a folder below the directory, such as 'day=2030-01-31': no part may be empty or begin with a dot.",
    uid,
  });
}

interface FilesWriterOptions {
  readonly directory: string;
  readonly extension: string;
  readonly gzip: boolean;
  readonly prefix: string;
  readonly roll: { readonly bytes?: number; readonly every?: number };
  readonly context: SinkContext;
  readonly io: Io;
}

/** What a snapshot keeps of a writer. */
interface Kept {
  readonly directory: string;
  readonly committed: number;
}

/** A hidden file in the middle of a commit. */
interface Filling {
  file: OpenFile;
  pending: (string | Uint8Array)[];
  /** Of `pending`; an estimate (characters) unless `roll.bytes` needs it exactly. */
  pendingBytes: number;
  isNew: boolean;
}

class FilesWriter {
  readonly #options: FilesWriterOptions;
  readonly #io: Io;
  readonly #context: SinkContext;
  readonly #markers: string;
  readonly #identity: string;
  readonly #name: string;
  readonly #folder: string;
  #marker: Marker = NO_MARKER;
  /** Hidden files may be longer than the marker says: a writer of this attempt was here before. */
  #overhang = false;
  #state: 'ready' | 'doubtful' | 'closed' = 'ready';

  constructor(options: FilesWriterOptions) {
    this.#options = options;
    this.#io = options.io;
    this.#context = options.context;
    this.#markers = join(options.directory, MARKERS);
    this.#identity = fileNameOf(options.context);
    this.#name = `${this.#identity}-${options.context.attempt}`;
    this.#folder = join(this.#markers, `${this.#name}.open`);
  }

  async open(): Promise<void> {
    const { attempt } = this.#context;
    await this.#io.step('sink.files.folder');
    try {
      await this.#io.fs.mkdir(this.#folder, { recursive: true });
      await syncDirectory(this.#markers, this.#io);
    } catch (error) {
      throw new MillraceError('DIRECTORY_UNWRITABLE', `The file sink cannot write to '${this.#options.directory}': ${messageOf(error)}.`, {
        todo: 'Check the path, the rights and the space there.',
        uid: this.#context.uid,
        cause: error,
      });
    }
    for (const trace of await this.#traces()) {
      if (trace.attempt > attempt) throw this.#fenced();
    }
    const older = await this.#fence();
    const newest = newestMarker(older, attempt);
    const marker = newest === undefined ? NO_MARKER : await readMarker(join(this.#markers, newest.name), this.#io);
    this.#refuseLost(marker);
    if (newest !== undefined) {
      const folders = older
        .filter((trace) => trace.attempt === newest.attempt && (trace.kind === 'folder' || trace.kind === 'fenced'))
        .map((trace) => join(this.#markers, trace.name));
      await this.#publish(marker, folders);
      if (newest.attempt === attempt) {
        this.#marker = marker;
        this.#overhang = true;
      } else {
        const open: OpenFile[] = [];
        for (const file of marker.open) open.push(await this.#adopt(file, folders));
        this.#marker = { checkpoint: marker.checkpoint, next: marker.next, open, publish: [] };
      }
    }
    const left = older.filter((trace) => trace.attempt < attempt);
    if (left.length === 0) return;
    // From here on the own marker is the newest, whatever an older attempt still writes into its own; only then its files may go.
    if (newest === undefined || newest.attempt < attempt) await this.#write(this.#marker);
    await this.#sweep(left);
  }

  async commit(checkpoint: number, records: Iterable<FileRecord>): Promise<void> {
    this.#usable();
    if (checkpoint <= this.#marker.checkpoint) {
      throw new MillraceError('COMMIT_ID_REUSED', `Checkpoint ${checkpoint} was to be committed after ${this.#marker.checkpoint}.`, {
        todo: 'Begin anew with restore none, or with a checkpoint directory of its own.',
        uid: this.#context.uid,
      });
    }
    this.#state = 'doubtful';
    try {
      await this.#cut();
      const { open, next, full } = await this.#append(records);
      const due = this.#io.clock.now();
      const publish = full;
      const kept: OpenFile[] = [];
      for (const file of open) (this.#isDue(file, due) ? publish : kept).push(file);
      await this.#advance({ checkpoint, next, open: kept, publish: publish.map((file) => [file.file, file.final]) });
    } catch (error) {
      throw await this.#named(error);
    }
    this.#state = 'ready';
  }

  async finish(): Promise<void> {
    this.#usable();
    if (this.#marker.open.length === 0) return;
    this.#state = 'doubtful';
    try {
      await this.#cut();
      const { checkpoint, next, open } = this.#marker;
      await this.#advance({ checkpoint, next, open: [], publish: open.map((file) => [file.file, file.final]) });
    } catch (error) {
      throw await this.#named(error);
    }
    this.#state = 'ready';
  }

  snapshot(): Kept {
    return { directory: resolve(this.#options.directory), committed: this.#marker.checkpoint };
  }

  /** F5. */
  #refuseLost({ checkpoint }: Marker): void {
    const kept = this.#context.restored as Kept | undefined;
    if (kept === undefined || kept.directory !== resolve(this.#options.directory) || checkpoint >= kept.committed) return;
    throw new MillraceError(
      'MARKER_LOST',
      `The file sink had committed checkpoint ${kept.committed} to '${kept.directory}', and ${checkpoint === 0 ? 'its marker is gone' : `its marker says ${checkpoint} now`}.`,
      {
        todo: `Put ${join(this.#options.directory, MARKERS)} back as it was; or go on with another directory, and compare what is written there first with what is here; or begin anew with restore none.`,
        uid: this.#context.uid,
      },
    );
  }

  async lastCommitted(): Promise<number> {
    this.#usable();
    return this.#marker.checkpoint;
  }

  async close(): Promise<void> {
    this.#state = 'closed';
  }

  #usable(): void {
    if (this.#state === 'ready') return;
    const sentence = this.#state === 'closed' ? 'The file writer is closed.' : 'The outcome of an earlier commit of this file writer is unknown.';
    throw new MillraceError('SINK_FAILED', sentence, { todo: 'Open the sink again.', uid: this.#context.uid });
  }

  async #advance(marker: Marker): Promise<void> {
    await this.#write(marker);
    this.#marker = marker;
    await this.#publish(marker, [this.#folder]);
  }

  async #write(marker: Marker): Promise<void> {
    if (!(await this.#holdsFolder())) throw this.#fenced();
    await writeMarker(this.#markers, this.#name, marker, this.#io);
  }

  #isDue(file: OpenFile, now: number): boolean {
    const { bytes, every } = this.#options.roll;
    if (bytes === undefined && every === undefined) return true;
    return (bytes !== undefined && file.length >= bytes) || (every !== undefined && now - file.since >= every);
  }

  // ─ step (1): append ─

  async #append(records: Iterable<FileRecord>): Promise<{ open: OpenFile[]; next: number; full: OpenFile[] }> {
    const { bytes: limit } = this.#options.roll;
    const filling = new Map<string, Filling>();
    for (const file of this.#marker.open) filling.set(file.bucket, { file, pending: [], pendingBytes: 0, isNew: false });
    const full: OpenFile[] = [];
    const touched = new Set<Filling>();
    let { next } = this.#marker;
    for (const record of records) {
      const [bucket, content, header] = typeof record === 'string' || record instanceof Uint8Array ? (['', record, undefined] as const) : record;
      let current = filling.get(bucket);
      if (current !== undefined && current.file.header !== header) {
        // Other columns: another file.
        await this.#flush(current, true);
        full.push(current.file);
        touched.delete(current);
        current = undefined;
      }
      if (current === undefined) {
        current = await this.#begin(bucket, header, next);
        next += 1;
        filling.set(bucket, current);
      }
      touched.add(current);
      current.pending.push(content);
      current.pendingBytes += typeof content === 'string' ? 1 + (limit === undefined ? content.length : Buffer.byteLength(content)) : 4 + content.length;
      if (limit !== undefined && current.file.length + current.pendingBytes >= limit) {
        await this.#flush(current, true);
        full.push(current.file);
        touched.delete(current);
        filling.delete(bucket);
      } else if (current.pendingBytes >= FLUSH_BYTES) {
        await this.#flush(current, false);
      }
    }
    for (const current of touched) await this.#flush(current, true);
    if (touched.size > 0 || full.length > 0) await syncDirectory(this.#folder, this.#io);
    return { open: [...filling.values()].map(({ file }) => file), next, full };
  }

  async #begin(bucket: string, header: string | undefined, number: number): Promise<Filling> {
    const { prefix, extension } = this.#options;
    const name = `${prefix}${this.#identity}-${String(number).padStart(6, '0')}.${extension}`;
    const file: OpenFile = {
      file: `.${name}`,
      final: bucket === '' ? name : `${bucket}/${name}`,
      bucket,
      ...(header === undefined ? {} : { header }),
      since: this.#io.clock.now(),
      length: 0,
    };
    if (await this.#isThere(join(this.#options.directory, file.final))) throw this.#taken(file.final);
    return { file, pending: header === undefined ? [] : [header], pendingBytes: header === undefined ? 0 : Buffer.byteLength(header) + 1, isNew: true };
  }

  async #flush(current: Filling, sync: boolean): Promise<void> {
    const plain = joined(current.pending);
    const bytes = this.#options.gzip ? await packed(plain) : plain;
    const { file } = current;
    if (current.isNew) await this.#io.step('sink.files.open');
    const handle = await this.#io.fs.open(join(this.#folder, file.file), current.isNew ? 'w' : 'r+');
    try {
      await this.#io.step('sink.files.append');
      await writeAt(handle, bytes, file.length);
      if (sync) {
        await this.#io.step('sink.files.fsync');
        await handle.sync();
      }
    } finally {
      await handle.close();
    }
    current.file = { ...file, length: file.length + bytes.length };
    current.pending = [];
    current.pendingBytes = 0;
    current.isNew = false;
  }

  /** Cuts the hidden files back to the lengths in the marker. */
  async #cut(): Promise<void> {
    if (!this.#overhang) return;
    for (const { file, length } of this.#marker.open) {
      const handle = await this.#io.fs.open(join(this.#folder, file), 'r+');
      try {
        const { size } = await handle.stat();
        if (size < length) throw this.#lost(file, length);
        if (size > length) {
          await handle.truncate(length);
          await handle.sync();
        }
      } finally {
        await handle.close();
      }
    }
    this.#overhang = false;
  }

  // ─ step (3): publish ─

  async #publish(marker: Marker, folders: readonly string[]): Promise<void> {
    const synced = new Set<string>();
    for (const [hidden, final] of marker.publish) {
      await this.#io.step('sink.files.publish');
      const target = join(this.#options.directory, final);
      await this.#io.fs.mkdir(dirname(target), { recursive: true });
      for (const folder of folders) {
        const source = join(folder, hidden);
        // F4. The target first: where another attempt has published the file, it had taken the folder away before.
        if ((await this.#isThere(target)) && (await this.#isThere(source))) throw this.#taken(final);
        try {
          await this.#io.fs.rename(source, target);
        } catch (error) {
          // Renamed before; or taken away, and then it is not ours to publish.
          if (!isMissing(error)) throw error;
          if (folder === this.#folder && !(await this.#holdsFolder())) throw this.#fenced();
        }
      }
      for (let folder = dirname(final); ; folder = dirname(folder)) {
        synced.add(join(this.#options.directory, folder));
        if (folder === '.') break;
      }
    }
    if (marker.publish.length === 0) return;
    for (const directory of [...synced, ...folders]) await syncDirectory(directory, this.#io);
    await this.#io.step('sink.files.published');
  }

  // ─ opening after another attempt ─

  /** Takes the folders of older attempts away (files-marker.ts, M3); what there is of this writer afterwards. */
  async #fence(): Promise<Trace[]> {
    const { attempt } = this.#context;
    for (const trace of await this.#traces()) {
      if (trace.kind !== 'folder' || trace.attempt >= attempt) continue;
      await this.#io.step('sink.files.fence');
      await this.#io.fs.rename(join(this.#markers, trace.name), join(this.#markers, `${this.#identity}-${trace.attempt}.fenced-${attempt}`));
    }
    await syncDirectory(this.#markers, this.#io);
    return this.#traces();
  }

  /** The committed bytes of an earlier attempt's open file, in a file of our own. */
  async #adopt(file: OpenFile, folders: readonly string[]): Promise<OpenFile> {
    for (const folder of folders) {
      let from: FileHandle;
      try {
        from = await this.#io.fs.open(join(folder, file.file), 'r');
      } catch (error) {
        if (isMissing(error)) continue;
        throw error;
      }
      try {
        await this.#io.step('sink.files.copy');
        const to = await this.#io.fs.open(join(this.#folder, file.file), 'w');
        try {
          const buffer = Buffer.allocUnsafe(Math.min(file.length, 1024 * 1024));
          for (let at = 0; at < file.length; ) {
            const { bytesRead } = await from.read(buffer, 0, Math.min(buffer.length, file.length - at), at);
            if (bytesRead === 0) throw this.#lost(file.file, file.length);
            await writeAt(to, buffer.subarray(0, bytesRead), at);
            at += bytesRead;
          }
          await to.sync();
        } finally {
          await to.close();
        }
      } finally {
        await from.close();
      }
      await syncDirectory(this.#folder, this.#io);
      return file;
    }
    throw this.#lost(file.file, file.length);
  }

  async #sweep(traces: readonly Trace[]): Promise<void> {
    await this.#io.step('sink.files.sweep');
    for (const { name } of traces) {
      try {
        await this.#io.fs.rm(join(this.#markers, name), { recursive: true, force: true });
      } catch (error) {
        this.#context.log.warn(`'${join(this.#markers, name)}' is no longer needed and could not be removed: ${messageOf(error)}.`);
      }
    }
  }

  async #traces(): Promise<Trace[]> {
    return tracesOf(this.#identity, await this.#io.fs.readdir(this.#markers));
  }

  #holdsFolder(): Promise<boolean> {
    return this.#isThere(this.#folder);
  }

  /** Also a link that leads nowhere: renaming would replace it. */
  async #isThere(path: string): Promise<boolean> {
    try {
      await this.#io.fs.lstat(path);
      return true;
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
  }

  async #named(error: unknown): Promise<unknown> {
    return isMissing(error) && !(await this.#holdsFolder()) ? this.#fenced() : error;
  }

  #fenced(): MillraceError {
    return new MillraceError('WRITER_FENCED', `A newer attempt than ${this.#context.attempt} writes the files of '${this.#identity}'.`, {
      todo: 'Stop this process: another one has taken over.',
      uid: this.#context.uid,
    });
  }

  #taken(final: string): MillraceError {
    const { directory } = this.#options;
    return new MillraceError('FILE_EXISTS', `The file sink would publish '${final}' in '${directory}', and there is a file of that name already.`, {
      todo: `Was something removed from '${join(directory, MARKERS)}', or does a copy of this job write there? Put the marker back, or begin anew with restore none.`,
      uid: this.#context.uid,
    });
  }

  #lost(file: string, length: number): MillraceError {
    return new MillraceError('FILE_CHANGED', `Of the open file '${file}' of a file sink, ${length} bytes are committed; it is shorter, or gone.`, {
      todo: `Let nothing change ${join(this.#options.directory, MARKERS)}; begin anew with restore none.`,
      uid: this.#context.uid,
    });
  }
}

function joined(contents: readonly (string | Uint8Array)[]): Buffer {
  if (contents.length > 0 && contents.every((content) => typeof content === 'string')) return Buffer.from(`${contents.join('\n')}\n`);
  return Buffer.concat(contents.map((content) => (typeof content === 'string' ? Buffer.from(`${content}\n`) : frame(content))));
}

async function writeAt(handle: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await handle.write(bytes, at, bytes.length - at, position + at)).bytesWritten;
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}
