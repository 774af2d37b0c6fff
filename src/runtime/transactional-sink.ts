// A sink that commits exactly once: the records of a checkpoint interval are a segment, which goes into the snapshot and is committed when the checkpoint is
// complete (protocols 5, 7, 12).
//
// Invariants:
//  K1  A segment keeps for ever the identity { uid, lineage, writer } that wrote it; each identity has a writer of its own, opened (and so fenced) and asked
//      for its marker before its pending segments are committed, which happens before the first record.
//  K2  Segments are committed oldest first; `complete(n)` commits everything up to n and only raises the target while a commit runs.
//  K3  An error out of `commit` has an unknown outcome: the task fails, and a new attempt begins again at the fence.
//     Once uploaded, a segment is kept in memory only while HELD_BYTES last; the newest are given up first, since they are committed last, and are read back then.
//  K4  A new segment with an id at or below the marker fails the job (COMMIT_ID_REUSED); only restored ones may be skipped.
//  K5  What a writer's `checked` refuses is in no checkpoint: its task fails instead, and begins again in front of it.

import { decode, encode } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import type { TransactionalSink, TransactionalWriter } from '../graph/sink.ts';
import { limitOverdraft, OVERDRAFT_STEP } from './overdraft.ts';
import { type SinkOptions, type SinkRunner, sinkFailed } from './sink-runner.ts';
import type { SegmentSnapshot, SnapshotStorage, WriterSnapshot } from './snapshot.ts';

/** Records encoded together in a segment. */
const CHUNK = 1024;
/** Bytes of uncommitted segments beyond which, with more than two segments, no more records are taken, unless the sink says otherwise. */
const PENDING_BYTES = 256 << 20;
/** Bytes of segments that are kept in memory although they lie in the storage. */
const HELD_BYTES = 64 << 20;

interface Segment {
  readonly checkpoint: number;
  readonly records: number;
  readonly bytes: number;
  /** Undefined: to be read from its file. */
  chunks: readonly Uint8Array[] | undefined;
  file: SegmentSnapshot['file'] | undefined;
}

interface Identity {
  readonly name: string;
  readonly lineage: string;
  readonly writer: TransactionalWriter<unknown, unknown>;
  readonly marker: number;
  readonly segments: Segment[];
  readonly own: boolean;
}

export interface TransactionalOptions extends SinkOptions {
  /** Undefined where the job has no checkpoints: segments then live in memory only. */
  readonly storage: SnapshotStorage | undefined;
  /** The file name of a segment, but for the number of the try: what failed may lie there under its name. */
  readonly fileName: (writer: string, checkpoint: number) => string;
  readonly restored: readonly WriterSnapshot[];
  /**
   * Ids that the lineage has handed out; none where it is not known which. A writer that has committed one of them behind the snapshot knows of a checkpoint
   * that was lost (protocols 4). A marker beyond them is of another history, and ids begin above it (protocols 7).
   */
  readonly usedIds: { readonly after: number; readonly to: number };
  /** Newest checkpoint of the snapshot restored; its segments and older ones are to be committed. */
  readonly restoredId: number;
}

export class TransactionalSinkRunner implements SinkRunner {
  readonly #sink: TransactionalSink<unknown, unknown>;
  readonly #options: TransactionalOptions;
  readonly #ownName: string;
  readonly #identities: Identity[] = [];
  /** Opened and not closed, of identities that are settled and of one that is not known to be yet. */
  readonly #writers = new Set<Identity['writer']>();
  #closed = false;
  #own: Identity | undefined;
  #encode: ((value: unknown, timestamp: number) => unknown) | undefined;
  readonly #pendingBytes: number;
  #records: unknown[] = [];
  #mark = 0;
  #chunks: Uint8Array[] = [];
  #chunkRecords = 0;
  #chunkBytes = 0;
  #uploads = 0;
  #target = 0;
  /** Commits run one after another; one that failed fails all behind it (K3). */
  #committing: Promise<void> = Promise.resolve();
  #finishing: Promise<void> | undefined;
  marker = 0;

  constructor(sink: TransactionalSink<unknown, unknown>, subtask: number, options: TransactionalOptions) {
    this.#sink = sink;
    this.#ownName = String(subtask);
    this.#options = options;
    this.#pendingBytes = sink.pendingBytes ?? PENDING_BYTES;
  }

  async open(): Promise<void> {
    try {
      await this.#openIdentities();
    } catch (error) {
      throw sinkFailed(this.#options.uid, error);
    }
  }

  async #openIdentities(): Promise<void> {
    const { restored, restoredId, usedIds, lineage: current } = this.#options;
    const isOwn = (w: { writer: string; lineage: string }): boolean => w.writer === this.#ownName && w.lineage === current;
    const own = restored.find(isOwn) ?? { writer: this.#ownName, lineage: current, segments: [], data: undefined };
    const identities = [own, ...restored.filter((w) => !isOwn(w))];
    // All at once: a writer may have to wait until what another one has left behind is over, which the fence of that one ends.
    const opened = await Promise.all(identities.map((before) => this.#openWriter(before)));
    for (const [index, before] of identities.entries()) {
      const { writer: name, lineage } = before;
      const { writer, marker, begun } = opened[index]!;
      this.marker = Math.max(this.marker, marker);
      const used = begun > usedIds.after && begun <= usedIds.to;
      if (lineage === current && used && begun > restoredId) throw committedPast(this.#options, name, begun);
      const segments: Segment[] = before.segments
        .filter((s) => s.checkpoint > marker)
        .map((s) => ({ checkpoint: s.checkpoint, records: s.records, bytes: s.file.bytes, chunks: undefined, file: s.file }));
      const identity: Identity = { name, lineage, writer, marker, segments, own: before === own };
      this.#identities.push(identity);
      if (identity.own) {
        this.#own = identity;
        this.#encode = writer.encode === undefined ? undefined : (value, timestamp) => writer.encode!(value, timestamp);
      }
    }
    this.#options.context(this.#ownName, current, undefined).metrics.gauge('pendingBytes', () => this.#uncommittedBytes());
    this.#target = this.#options.restoredId;
    await this.#commitUpTo(true);
  }

  async #openWriter({ writer: name, lineage, data }: WriterSnapshot): Promise<{ readonly writer: Identity['writer'] } & Committed> {
    await this.#options.io.step('sink.open');
    const writer = await this.#sink.open(this.#options.context(name, lineage, data));
    this.#writers.add(writer);
    if (this.#closed) {
      // Nobody else closes what comes now.
      await this.close();
      throw new Error('its task ended while it was opened');
    }
    return { writer, ...(await committedBy(writer)) };
  }

  records = 0;

  add(value: unknown, timestamp: number): void {
    this.records += 1;
    this.#records.push(this.#encode === undefined ? value : this.#encode(value, timestamp));
    if (this.#records.length % OVERDRAFT_STEP === 0) limitOverdraft(this.#records, this.#records.length);
  }
  mark(): void {
    this.#mark = this.#records.length;
  }
  rollback(): void {
    this.records -= this.#records.length - this.#mark;
    this.#records.length = this.#mark;
  }

  get behind(): boolean {
    const uncommitted = this.#own!.segments;
    return uncommitted.length > 2 && this.#uncommittedBytes() > this.#pendingBytes;
  }

  #uncommittedBytes(): number {
    return this.#own!.segments.reduce((sum, s) => sum + s.bytes, 0) + this.#chunkBytes;
  }

  drain(): void {
    if (this.#records.length >= CHUNK) this.#seal();
  }

  #seal(): void {
    if (this.#records.length === 0) return;
    const chunk = encode(this.#records);
    this.#chunks.push(chunk);
    this.#chunkRecords += this.#records.length;
    this.#chunkBytes += chunk.byteLength;
    this.#records = [];
    this.#mark = 0;
  }

  barrier(id: number): () => Promise<{ readonly writers: readonly WriterSnapshot[] }> {
    this.#seal();
    const own = this.#own!;
    if (this.#chunkRecords > 0) {
      if (id <= own.marker) {
        throw new MillraceError(
          'COMMIT_ID_REUSED',
          `The sink '${this.#options.uid}' has committed checkpoint ${own.marker} already, and is to commit ${id} with new records.`,
          {
            uid: this.#options.uid,
            todo: 'Is another job writing with the same name, or was the checkpoint directory replaced by an older one?',
          },
        );
      }
      own.segments.push({ checkpoint: id, records: this.#chunkRecords, bytes: this.#chunkBytes, chunks: this.#chunks, file: undefined });
      this.#chunks = [];
      this.#chunkRecords = 0;
      this.#chunkBytes = 0;
    }
    const now = this.#identities.map((identity) => ({ identity, segments: [...identity.segments], data: identity.writer.snapshot?.() }));
    return async () => {
      const { storage, fileName, io } = this.#options;
      try {
        await own.writer.checked?.();
      } catch (error) {
        // The checkpoint alone would be tried again, with the same records.
        const failure = sinkFailed(this.#options.uid, error);
        this.#options.failed(failure);
        throw failure;
      }
      const snapshots: WriterSnapshot[] = [];
      for (const { identity, segments, data } of now) {
        const stored: SegmentSnapshot[] = [];
        for (const segment of segments) {
          if (segment.file === undefined) {
            if (storage === undefined) continue;
            await io.step('checkpoint.segment.upload');
            this.#uploads += 1;
            segment.file = await storage.write(`${fileName(identity.name, segment.checkpoint)}-${this.#uploads}`, frames(segment.chunks!));
          }
          stored.push({ checkpoint: segment.checkpoint, file: segment.file, records: segment.records });
        }
        snapshots.push({ writer: identity.name, lineage: identity.lineage, segments: stored, data });
      }
      this.#letGo();
      return { writers: snapshots };
    };
  }

  /** What lies in the storage need not be in memory, too. */
  #letGo(): void {
    let held = 0;
    for (const segment of this.#own!.segments) {
      if (segment.chunks === undefined || segment.file === undefined) continue;
      held += segment.bytes;
      if (held > HELD_BYTES) segment.chunks = undefined;
    }
  }

  complete(id: number): Promise<void> {
    this.#target = Math.max(this.#target, id);
    this.#committing = this.#committing.then(() => this.#commitUpTo(false)).then(() => this.#settleAdopted(id));
    return this.#committing.then(this.#options.wake, (error) => {
      throw sinkFailed(this.#options.uid, error);
    });
  }

  async #commitUpTo(restoring: boolean): Promise<void> {
    const { io } = this.#options;
    for (;;) {
      let oldest: Identity | undefined;
      for (const identity of this.#identities) {
        const first = identity.segments[0];
        if (first !== undefined && first.checkpoint <= this.#target && (oldest === undefined || first.checkpoint < oldest.segments[0]!.checkpoint))
          oldest = identity;
      }
      if (oldest === undefined) return;
      const segment = oldest.segments[0]!;
      await io.step(restoring ? 'restore.commit' : 'sink.commit');
      const records = segment.chunks ?? (await this.#read(segment.file!));
      await oldest.writer.commit(segment.checkpoint, unpack(records));
      await io.step(restoring ? 'restore.committed' : 'sink.committed');
      oldest.segments.shift();
    }
  }

  /** Adopted identities that have nothing left are published and closed; later snapshots do not name them. */
  async #settleAdopted(id: number): Promise<void> {
    for (const identity of [...this.#identities]) {
      if (identity.own || identity.segments.length > 0 || id <= this.#options.restoredId) continue;
      await identity.writer.finish?.();
      this.#writers.delete(identity.writer);
      await identity.writer.close();
      this.#identities.splice(this.#identities.indexOf(identity), 1);
    }
  }

  async #read(file: SegmentSnapshot['file']): Promise<Uint8Array[]> {
    const parts: Uint8Array[] = [];
    for await (const part of this.#options.storage!.read(file)) parts.push(part);
    return unframe(Buffer.concat(parts));
  }

  settled(): Promise<unknown> {
    return Promise.allSettled([this.#committing]);
  }

  /** Two checkpoints may complete behind the last record, the second while the first still finishes: writers are finished once, after every commit. */
  finish(): Promise<void> {
    if (this.#finishing === undefined) {
      this.#finishing = this.#committing.then(async () => {
        for (const identity of this.#identities) await identity.writer.finish?.();
      });
      this.#committing = this.#finishing;
    }
    return this.#finishing;
  }

  async close(): Promise<void> {
    this.#closed = true;
    const writers = [...this.#writers];
    this.#writers.clear();
    // All are closed, whatever becomes of one.
    const closed = await Promise.allSettled(writers.map((writer) => writer.close()));
    for (const outcome of closed) if (outcome.status === 'rejected') throw outcome.reason;
  }
}

/** How far a writer has come: `marker` is the newest checkpoint that is committed as a whole, `begun` the newest of which anything is. */
interface Committed {
  readonly marker: number;
  readonly begun: number;
}

/** Behind its fence. */
export async function committedBy(writer: TransactionalWriter<unknown, unknown>): Promise<Committed> {
  const marker = await writer.lastCommitted();
  return { marker, begun: Math.max(marker, (await writer.lastBegun?.()) ?? 0) };
}

/** A segment's file: length (u32 LE) and content of each chunk. The storage checks the whole file's CRC. */
function* frames(chunks: readonly Uint8Array[]): Iterable<Uint8Array> {
  for (const chunk of chunks) {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(chunk.byteLength);
    yield length;
    yield chunk;
  }
}

function unframe(bytes: Buffer): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32LE(at);
    chunks.push(bytes.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return chunks;
}

function* unpack(chunks: readonly Uint8Array[]): Iterable<unknown> {
  for (const chunk of chunks) yield* decode(chunk) as unknown[];
}

function committedPast({ uid, restoredId }: TransactionalOptions, writer: string, marker: number): MillraceError {
  const restores = restoredId === 0 ? 'There is no checkpoint to restore' : `Checkpoint ${restoredId} is to be restored`;
  const accept = restoredId === 0 ? "restore: 'none' (--restore none)" : `restore: { from: ${restoredId} } (--restore ${restoredId})`;
  return new MillraceError('RESTORE_WOULD_DUPLICATE', `${restores}, but sink '${uid}', writer ${writer}, has committed up to checkpoint ${marker}.`, {
    uid,
    todo: `Was the registry damaged or replaced by an older one? Restore the newest metadata file by its path, or accept that records are written twice with ${accept}.`,
  });
}
