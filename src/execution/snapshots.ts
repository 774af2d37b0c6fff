// Everything a job run keeps on disk: the storage, the registry, and the choice of the checkpoint to start from.
//
// The choice (protocols 4): the newest registered checkpoint whose every file is whole. Falling back to an older one is refused where a sink has committed
// more than that one knows; each sink is asked behind its fence.

import { resolve } from 'node:path';
import { type FileRef, type Handle, rewritten, type TableHeader } from '../../state-backends/index.ts';
import { absolute, below, folderOf, nameIn } from '../checkpoint/addresses.ts';
import { LocalRegistry } from '../checkpoint/local-registry.ts';
import { type CheckpointMetadata, filesNamed, packMetadata, readMetadata, withFiles, withParts } from '../checkpoint/metadata.ts';
import { storageOf } from '../checkpoint/places.ts';
import type { Pointer, Registry } from '../checkpoint/registry.ts';
import { type Candidate, newestWhole, refuseDuplicates, writersToAsk } from '../checkpoint/restore.ts';
import {
  copyFile,
  prepareSavepoint,
  readSavepoint,
  removeSavepoint,
  type SavepointPlace,
  savepointAt,
  savepointFiles,
  writeSavepoint,
} from '../checkpoint/savepoint.ts';
import { attemptOf, SnapshotFiles } from '../checkpoint/storage.ts';
import type { Claims } from '../checkpoint/verify.ts';
import { asError, MillraceError, messageOf } from '../errors.ts';
import { type Logger, SILENT } from '../graph/context.ts';
import type { CheckpointInfo, CheckpointOptions, RunOptions, SavepointInfo } from '../graph/job.ts';
import { nameOf } from '../graph/node.ts';
import type { Graph } from '../graph/plan.ts';
import { isTransactional, type SinkContext, type TransactionalSink } from '../graph/sink.ts';
import type { CheckpointStorage } from '../graph/storage.ts';
import type { Io } from '../runtime/io.ts';
import { committedBy } from '../runtime/transactional-sink.ts';
import { DirectoryStorage } from '../storage/directory.ts';
import { MetricRegistry } from './metrics.ts';

export interface Chosen {
  readonly info: CheckpointInfo;
  readonly metadata: CheckpointMetadata;
  /** The folder of the savepoint that is the job's from now on. */
  readonly claimed?: string | undefined;
}

/** A job that goes on elsewhere from a savepoint takes larger attempt numbers than the one that wrote it can have reached since. */
const ATTEMPTS_SINCE = 1000;

/** What others are told of a checkpoint. */
export function bare({ id, path, bytes, startedAt, durationMs }: CheckpointInfo): CheckpointInfo {
  return { id, path, bytes, startedAt, durationMs };
}

/** Where a job's checkpoints lie. */
export function filesOf(job: string, { directory, storage: own, verify }: CheckpointOptions, io: Io): SnapshotFiles {
  const storage = own ?? new DirectoryStorage(directory, io);
  return new SnapshotFiles(storage, below(storage.root, job), { io, verify: verify ?? !storage.checksummed });
}

export interface FromOptions {
  readonly claim?: boolean | undefined;
  /** What of that snapshot's tables is to be stored on; all by default. */
  readonly keeps?: ((metadata: CheckpointMetadata) => Promise<Claims>) | undefined;
}

export class Snapshots {
  readonly files: SnapshotFiles;
  readonly registry: Registry;
  readonly #io: Io;
  readonly #log: Logger;
  readonly #job: string;
  readonly #verify: boolean | undefined;

  private constructor(job: string, files: SnapshotFiles, registry: Registry, verify: boolean | undefined, io: Io, log: Logger) {
    this.#job = job;
    this.#verify = verify;
    this.files = files;
    this.registry = registry;
    this.#io = io;
    this.#log = log;
  }

  static async open(
    job: string,
    options: CheckpointOptions,
    run: RunOptions,
    io: Io,
    log: Logger,
    registryOf?: (files: SnapshotFiles) => Promise<Registry>,
  ): Promise<Snapshots> {
    const directory = resolve(options.directory, job);
    const files = filesOf(job, options, io);
    await files.prepare();
    if (registryOf !== undefined) return new Snapshots(job, files, await registryOf(files), options.verify, io, log);
    if (options.storage !== undefined) await new DirectoryStorage(options.directory, io).prepare([directory]);
    const registry = await LocalRegistry.open(directory, job, io, { wait: run.wait ?? false, signal: run.signal, files });
    return new Snapshots(job, files, registry, options.verify, io, log);
  }

  /** Removes what older attempts left and no registered checkpoint names. Nothing is removed where one of them cannot be read. */
  async sweep(attempt: number): Promise<void> {
    const named = new Set<string>();
    const registered = await this.registry.checkpoints();
    const lineage = await this.registry.lineage();
    const origin = await this.registry.origin();
    // What the lineage was forked from is needed until it has a checkpoint of its own.
    const forked = origin !== undefined && !registered.some((c) => c.lineage === lineage) ? [origin] : [];
    for (const path of [...registered.map((c) => c.path), ...forked]) {
      named.add(nameIn(path));
      try {
        for (const { name } of filesNamed(await this.#metadata(path))) named.add(name);
      } catch (error) {
        this.#log.warn({ path, error: asError(error).message }, 'A retained checkpoint cannot be read; leftovers are kept.');
        return;
      }
    }
    const removed = await this.files.sweep(named, attempt);
    if (removed.length > 0) this.#log.info({ files: removed.length }, 'Removed what earlier attempts left behind.');
  }

  /** The newest checkpoint of the lineage that is whole, under the rule of protocols 4, or what the lineage was forked from; undefined where there is none. */
  async latest(graph: Graph, attempt: number, lineage: string): Promise<Chosen | undefined> {
    const candidates: Candidate[] = [];
    for (const checkpoint of (await this.registry.checkpoints()).reverse()) {
      if (checkpoint.lineage !== lineage) continue;
      const candidate = await this.#examine(checkpoint);
      candidates.push(candidate);
      if (candidate.fault === undefined) break;
    }
    if (candidates.length === 0) {
      const origin = await this.registry.origin();
      return origin === undefined ? undefined : this.from(origin, attempt);
    }
    const { chosen, passedOver } = newestWhole(candidates);
    if (chosen === undefined) throw passedOver[0]!.fault!;
    if (passedOver.length > 0) {
      refuseDuplicates(chosen.checkpoint, passedOver, await this.#markers(graph, attempt, lineage, [chosen, ...passedOver]));
      for (const { checkpoint, fault } of passedOver)
        this.#log.warn(
          { checkpoint: checkpoint.id, error: fault?.message },
          `Checkpoint ${checkpoint.id} cannot be used; falling back to ${chosen.checkpoint.id}.`,
        );
      // What is newer than the restored one is not of this history any more.
      for (const { checkpoint } of passedOver) await this.registry.remove(checkpoint.id);
    }
    return { info: bare(chosen.checkpoint), metadata: chosen.metadata! };
  }

  /**
   * A retained checkpoint by id, or any by the path of its metadata file, or a savepoint by that of its folder. One that lies in another checkpoint directory is
   * copied into this one, as a savepoint is: it stays the user's, and nothing of this job depends on it afterwards. Of a savepoint that is claimed files are
   * linked where that is possible.
   */
  async from(which: string | number, attempt: number, { claim = false, keeps }: FromOptions = {}): Promise<Chosen> {
    const registered = await this.registry.checkpoints();
    const id = typeof which === 'number' || /^\d+$/.test(which) ? Number(which) : undefined;
    if (id !== undefined) {
      const info = registered.find((c) => c.id === id);
      if (info === undefined) throw this.#notFound(String(which), registered);
      const examined = await this.#examine(info);
      if (examined.fault !== undefined) throw examined.fault;
      if (keeps !== undefined) return this.#import(examined.metadata!, this.files, attempt, false, keeps);
      return { info: bare(info), metadata: examined.metadata! };
    }
    const path = absolute(String(which));
    const storage = this.#storageOf(path);
    const saved = await savepointAt(path, storage);
    if (saved !== undefined) {
      const metadata = await readSavepoint(saved);
      const chosen = await this.#import(metadata, savepointFiles(saved, this.#io), attempt, claim, keeps);
      return { ...chosen, claimed: claim ? saved.folder : undefined };
    }
    if ((await storage.find(path)) !== 'file') throw this.#notFound(path, registered);
    const metadata = await this.#metadata(path);
    if (folderOf(path) !== this.files.checkpoints || keeps !== undefined)
      return this.#import(metadata, new SnapshotFiles(storage, folderOf(folderOf(path)), { io: this.#io }), attempt, false, keeps);
    const info = registered.find((c) => c.path === path) ?? { id: metadata.id, path, bytes: 0, startedAt: metadata.startedAt, durationMs: metadata.durationMs };
    const examined = await this.#examine(info);
    if (examined.fault !== undefined) throw examined.fault;
    return { info: bare(info), metadata: examined.metadata! };
  }

  /** The newest attempt that may have written beside the metadata file at that path; 0 where it is none, or of this directory. */
  async attemptBehind(which: string | number): Promise<number> {
    if (typeof which === 'number' || /^\d+$/.test(which)) return 0;
    const path = absolute(which);
    const storage = this.#storageOf(path);
    const saved = await savepointAt(path, storage);
    if (saved !== undefined) return (await readSavepoint(saved)).attempt + ATTEMPTS_SINCE;
    const own = attemptOf(nameIn(path)) ?? 0;
    if (folderOf(path) === this.files.checkpoints) return own;
    // It may be a copy of what was in a checkpoint directory once, with nothing beside it.
    return Math.max(own, (await new SnapshotFiles(storage, folderOf(folderOf(path)), { io: this.#io }).found()).attempt);
  }

  /** Where what a user has named lies. */
  #storageOf(address: string): CheckpointStorage {
    return storageOf(address, this.#io, this.files.storage);
  }

  #metadata(address: string): Promise<CheckpointMetadata> {
    return readMetadata(this.#storageOf(address), address);
  }

  async #import(original: CheckpointMetadata, theirs: SnapshotFiles, attempt: number, link: boolean, keeps?: FromOptions['keeps']): Promise<Chosen> {
    const filter = await keeps?.(original);
    const rows = new Set(original.tasks.flatMap((task) => (task.keyed === undefined ? [] : rowFilesOf(task.keyed.handle))));
    const copies = new Map<string, FileRef>();
    let bytes = 0;
    for (const file of filesNamed(original)) {
      const name = `import-a${attempt}-${copies.size}`;
      await this.#io.step('restore.import');
      const filtered = filter !== undefined && rows.has(file.name);
      // Names the file where it is damaged; a reader of rows does not know it.
      if (filtered) await theirs.check(file);
      const source = filtered ? { read: (of: FileRef) => rewritten(theirs.read(of), (_, table) => filter.table(table), original.maxParallelism) } : theirs;
      const linked = !filtered && link && (await this.#link(theirs, file, name));
      const copy = linked ? { ...file, name } : await copyFile(source, this.files, file, name);
      copies.set(file.name, copy);
      bytes += copy.bytes;
    }
    const renamed = withFiles(original, (file) => copies.get(file.name)!);
    const kept = filter === undefined ? renamed : withParts(withTables(renamed, filter.table), filter.part);
    const metadata: CheckpointMetadata = { ...kept, savepoint: undefined };
    await this.registry.raise(metadata.id);
    const imported = await this.files.writeMetadata(`chk-${metadata.id}-a${attempt}`, packMetadata(metadata));
    return { info: { id: metadata.id, path: imported, bytes, startedAt: metadata.startedAt, durationMs: metadata.durationMs }, metadata };
  }

  /** False where the storage cannot: then it is copied. */
  async #link(theirs: SnapshotFiles, file: FileRef, name: string): Promise<boolean> {
    const { storage, files } = this.files;
    if (storage.adopt === undefined) return false;
    await theirs.check(file);
    return storage.adopt(below(files, name), theirs.storage, below(theirs.files, file.name));
  }

  /** A savepoint that was claimed goes once the lineage that began with it has a checkpoint of its own. */
  async release(): Promise<void> {
    const claimed = await this.registry.claimed();
    if (claimed === undefined) return;
    if (!(await this.registry.checkpoints()).some((c) => c.lineage === claimed.lineage)) return;
    const place = this.placeOf(claimed.folder);
    const metadata = await readSavepoint(place).catch((error) => {
      // It was being removed when the process died, or the user was faster.
      if ((error as { code?: string }).code === 'CHECKPOINT_NOT_FOUND') return undefined;
      throw error;
    });
    if (metadata !== undefined) await removeSavepoint(place, filesNamed(metadata), this.#io);
    await this.registry.unclaim();
    this.#log.info({ folder: claimed.folder }, 'Removed the savepoint that was claimed.');
  }

  // ── savepoints ──

  placeOf(folder: string): SavepointPlace {
    return { folder, storage: this.#storageOf(folder) };
  }

  /** The place for a savepoint in a folder that a user has named, made for it. */
  async prepareSavepoint(folder: string): Promise<SavepointPlace> {
    const place = this.placeOf(absolute(folder));
    await prepareSavepoint(place);
    return place;
  }

  /** What the checkpoint holds, in a place that `prepareSavepoint` has made. */
  async savepoint(checkpoint: CheckpointInfo, place: SavepointPlace): Promise<SavepointInfo> {
    return writeSavepoint(await this.#metadata(checkpoint.path), this.files, place, this.#io, this.#verify);
  }

  /** Nothing was written into it. */
  async abandonSavepoint(place: SavepointPlace): Promise<void> {
    await removeSavepoint(place, [], this.#io);
  }

  #notFound(which: string, registered: readonly CheckpointInfo[]): MillraceError {
    const have = registered.length === 0 ? 'none is retained' : `retained are ${registered.map((c) => c.id).join(', ')}`;
    return new MillraceError('CHECKPOINT_NOT_FOUND', `There is no checkpoint '${which}' of the job '${this.#job}' in ${this.files.folder}; ${have}.`, {
      todo: 'Name a retained id or the path of a metadata file, or use latest or none.',
    });
  }

  async #examine(checkpoint: Pointer): Promise<Candidate> {
    // Also of one that is damaged: its writers are to be asked (protocols 4).
    let metadata: CheckpointMetadata | undefined;
    try {
      await this.#io.step('restore.read');
      metadata = await this.#metadata(checkpoint.path);
      for (const file of filesNamed(metadata)) await this.files.check(file);
      return { checkpoint, fault: undefined, metadata };
    } catch (error) {
      if ((error as { code?: string }).code !== 'SNAPSHOT_CORRUPT') throw error;
      return { checkpoint, fault: asError(error), metadata };
    }
  }

  /** Asks every transactional writer, behind its fence, how far it has committed, in whole or in part. */
  async #markers(graph: Graph, attempt: number, lineage: string, candidates: readonly Candidate[]): Promise<{ uid: string; writer: string; marker: number }[]> {
    const markers: { uid: string; writer: string; marker: number }[] = [];
    for (const vertex of graph.vertices) {
      for (const node of vertex.nodes) {
        if (node.step.kind !== 'sink' || !isTransactional(node.step.sink)) continue;
        const uid = nameOf(node);
        for (const { writer, lineage: its, data } of writersToAsk(uid, vertex.parallelism, lineage, candidates)) {
          markers.push({ uid, writer, marker: await this.#askMarker(node.step.sink, { uid, writer, lineage: its, attempt, restored: data }) });
        }
      }
    }
    return markers;
  }

  async #askMarker(
    sink: TransactionalSink<unknown, unknown>,
    identity: Pick<SinkContext, 'uid' | 'writer' | 'lineage' | 'attempt' | 'restored'>,
  ): Promise<number> {
    const abort = new AbortController();
    try {
      const writer = await sink.open({ ...identity, job: this.#job, signal: abort.signal, log: SILENT, metrics: new MetricRegistry().of({}) });
      let begun: number;
      try {
        ({ begun } = await committedBy(writer));
      } catch (error) {
        await writer.close().catch((reason) => this.#log.warn({ uid: identity.uid, error: messageOf(reason) }, 'A writer could not be closed.'));
        throw error;
      }
      await writer.close();
      return begun;
    } finally {
      abort.abort();
    }
  }

  close(): Promise<void> {
    return this.registry.close();
  }
}

/** Of a base that was linked, no file is rewritten: what counts of it stands in the metadata. */
export function rowFilesOf({ bases, deltas }: Handle): string[] {
  return [...bases.filter(({ kind }) => kind === 'rows'), ...deltas].map(({ file }) => file.name);
}

export function withTables(metadata: CheckpointMetadata, keep: (table: TableHeader) => boolean): CheckpointMetadata {
  const tasks = metadata.tasks.map((task) => {
    if (task.keyed === undefined) return task;
    const { handle } = task.keyed;
    const bases = handle.bases.map((base) => (base.kind === 'leveldb' ? { ...base, tables: base.tables.filter(keep) } : base));
    return { ...task, keyed: { ...task.keyed, handle: { ...handle, bases } } };
  });
  return { ...metadata, tasks };
}
