// Savepoints made without a job: of another one, with changes, or of data alone.
//
// What: an editor notes what is to be done. `write` does it step by step, each on what the one before has made, into a folder of its own: files that are not
// touched are copied, changes are files of their own behind them.
//
// Invariants:
//  V1  What it is made of is never changed. The folder has been empty; what fails leaves nothing in it (checkpoint/savepoint.ts).
//  V2  A job that restores it has of each key what the steps made of what the other one would have restored.
//  V3  The metadata says what was done (audit.ts), behind what had been done before.

import type { AnyKind, FileRef, Handles, TableHeader } from '../../state-backends/index.ts';
import { specOf } from '../api/arguments.ts';
import { definitionOf, type Job } from '../api/job.ts';
import type { KeyedProcess, Type } from '../api/process.ts';
import { absolute } from '../checkpoint/addresses.ts';
import { openSnapshot as inspectSnapshot, type SnapshotInspector } from '../checkpoint/inspect.ts';
import { type CheckpointMetadata, filesNamed, type OperatorEdit, type SavepointEdit } from '../checkpoint/metadata.ts';
import { storageOf } from '../checkpoint/places.ts';
import { partsOf } from '../checkpoint/restore.ts';
import { copyFile, fillSavepoint, prepareSavepoint, withoutLinks, writeFile } from '../checkpoint/savepoint.ts';
import type { SnapshotFiles } from '../checkpoint/storage.ts';
import { linkedAsRows } from '../checkpoint/stored-rows.ts';
import { MillraceError } from '../errors.ts';
import type { Key, SavepointInfo } from '../graph/job.ts';
import { isKeyed, type Node, nameOf } from '../graph/node.ts';
import type { ByteRange } from '../graph/storage.ts';
import { operatorOf } from '../operators/operator-of.ts';
import { bareEnvironment } from '../runtime/bare-environment.ts';
import { rejectThenable } from '../runtime/handlers.ts';
import { type Io, systemIo } from '../runtime/io.ts';
import { redistribute } from '../runtime/parts.ts';
import { isProgramState } from '../runtime/program-state.ts';
import { auditOf, checksumOf } from './audit.ts';
import { type Counts, SharedState } from './changed-rows.ts';
import { type EditPlace, editKeyed, type ShareWork } from './keyed-edit.ts';
import { demandOperator, movedState, renamedOperator, uidsOf, withoutOperator } from './operator-moves.ts';
import { failed, RecordShares } from './record-shares.ts';
import { RowShares } from './row-shares.ts';
import { Scratch } from './scratch.ts';
import type { UnkeyedSpec } from './snapshot-reading.ts';
import { storedClocks } from './stored-clocks.ts';
import { type KeyedSpec, type StoredKey, StoredKeys, TIMER_TABLES } from './stored-keys.ts';
import { countItems, withParts, withUnkeyed } from './unkeyed-edit.ts';

/** Records for an operator offline, and what it does with each. Records are plain data. */
export interface FedProcess<T, K extends Key, R, S extends KeyedSpec> {
  /** Drawn once, when the savepoint is written. */
  records: Iterable<T> | AsyncIterable<T>;
  key: (record: T) => K;
  /** Epoch milliseconds; none by default. */
  timestamp?: (record: T) => number;
  /** Only `onRecord`, `onStart` and `onStop` are called. What it emits goes nowhere; timers that it sets are stored. */
  process: KeyedProcess<K, T, R, S>;
}

/** Records for an operator offline, which does with each what the job of that name has it do. Records are plain data. */
export interface FedJob {
  records: Iterable<unknown> | AsyncIterable<unknown>;
  /** The job that has the operator: keyed, of any kind. */
  job: Job;
  /** Of an operator with two inputs; `left` by default. */
  input?: 'left' | 'right';
  /** Epoch milliseconds; none by default. */
  timestamp?: (record: never) => number;
}

/** What `write` is told. */
export interface WriteOptions {
  /** Kept in the metadata: why this was done. */
  note?: string;
  /** Who does it; the user of this process on this machine by default. */
  by?: string;
}

/** A savepoint that was made without a job. */
export interface EditedSavepoint extends SavepointInfo {
  /** What its metadata says of how it was made. */
  readonly edit: SavepointEdit;
}

/** Notes what is to be done to a savepoint; nothing happens before `write`. The steps are done in the order of the calls. */
export interface SavepointEditor {
  /**
   * Every stored key of an operator that has something of the declared state, or a timer: read it, change it, clear it, set timers and delete them. State that is
   * declared in another version is migrated, as at a restore; state that the operator did not have may be set. `reduce` and `aggregate` have one `value`.
   */
  each<K extends Key = Key, S extends KeyedSpec = {}>(
    uid: string,
    edit: { key?: Type<K>; state?: S; each(stored: StoredKey<K, S>): void | undefined },
  ): SavepointEditor;
  /** Runs records through an operator, on what is stored of it: or on nothing, and then the savepoint has a new operator. */
  feed<T, K extends Key, R, S extends KeyedSpec = {}>(uid: string, fed: FedProcess<T, K, R, S>): SavepointEditor;
  feed(uid: string, fed: FedJob): SavepointEditor;
  /** Changes lists and broadcast maps of an operator, those of all instances together; one that is not there is added. */
  unkeyed<S extends UnkeyedSpec>(uid: string, edit: { state: S; change(state: Handles<S>): void | undefined }): SavepointEditor;
  /** Removes all that an operator has of some keys: state, windows, timers. */
  drop<K extends Key = Key>(uid: string, which: (key: K) => boolean): SavepointEditor;
  /** Removes an operator, or one of its states. Of a source its positions, of a sink what it has not committed. */
  remove(uid: string, state?: string): SavepointEditor;
  /** Gives an operator another uid; not a sink that has committed. */
  rename(uid: string, to: string): SavepointEditor;
  /** Gives a declared state of an operator another name. */
  renameState(uid: string, state: string, to: string): SavepointEditor;
  /**
   * Does it, and writes a savepoint into that folder, which must be empty or not exist yet. Rejects with SAVEPOINT_EXISTS, SAVEPOINT_FAILED, STATE_NOT_FOUND,
   * STATE_EDIT_REFUSED, SNAPSHOT_CORRUPT, SNAPSHOT_INCOMPATIBLE, STATE_NOT_SERIALIZABLE, KEY_UNSUPPORTED, USER_FUNCTION_FAILED or HANDLER_IS_ASYNC; then
   * nothing is left in the folder.
   */
  write(directory: string, options?: WriteOptions): Promise<EditedSavepoint>;
}

/**
 * A new savepoint out of a checkpoint or savepoint, with changes: what is stored of keys, lists and broadcast maps, which operators there are, and their names. The
 * old one is left as it is, and the job may run meanwhile.
 *
 * @param from the folder of a savepoint, or the metadata file of a checkpoint (`CheckpointInfo.path`).
 * @throws CHECKPOINT_NOT_FOUND and SNAPSHOT_CORRUPT reject `write`, as what it says of itself.
 * @example
 * const out: number[] = [];
 * const sums = (values: number[]) => job('sums', (env) => {
 *   env.fromArray('in', values).keyBy(() => 'all').reduce('sum', (left, right) => left + right).sink('out', collect(out));
 * });
 * const { checkpoint } = await sums([1, 2]).run({ checkpoints: { directory: 'a' } });
 * const { edit } = await editSavepoint(checkpoint!.path)
 *   .remove('in')
 *   .each('sum', { state: { value: value<number>({ default: 0 }) }, each: ({ state }) => state.value.update((sum) => sum + 100) })
 *   .write('edited', { note: 'A hundred were forgotten.' });
 * assert.match(edit.what, /'sum' changed \(value\): 1 rows written/);
 * await sums([7]).run({ checkpoints: { directory: 'b' }, restore: { from: 'edited' } });
 * assert.deepEqual(out, [1, 3, 110]);
 */
export function editSavepoint(from: string): SavepointEditor {
  const io = systemIo();
  return new Editor({ io, open: () => inspectSnapshot(from, io) });
}

/**
 * A savepoint of nothing but what is fed into it: the first state of a job that has not run yet. Sources of a job that restores it begin at their beginning.
 *
 * @param name of the job.
 * @param options `maxParallelism`: the number of key groups, which a job that restores it has for ever; 128 by default.
 * @throws JOB_NAME_INVALID, OPTION_INVALID
 * @example
 * interface Profile { user: string; country: string }
 * const profiles = process<string, Profile, string>()({
 *   state: { country: value<string>() },
 *   onRecord(profile, ctx) {
 *     if (ctx.state.country.get() !== profile.country) ctx.emit(`${ctx.key} ${ctx.state.country.get()} → ${profile.country}`);
 *     ctx.state.country.set(profile.country);
 *   },
 * });
 * const known: Profile[] = [{ user: 'ada', country: 'GB' }, { user: 'bob', country: 'DE' }];
 * await newSavepoint('moves').feed('moved', { records: known, key: ({ user }) => user, process: profiles }).write('first');
 * const out: string[] = [];
 * await job('moves', (env) => {
 *   env.fromArray('in', [{ user: 'bob', country: 'FR' }]).keyBy(({ user }) => user).process('moved', profiles).sink('out', collect(out));
 * }).run({ checkpoints: { directory: 'checkpoints' }, restore: { from: 'first' } });
 * assert.deepEqual(out, ['bob DE → FR']);
 */
export function newSavepoint(name: string, options: { maxParallelism?: number } = {}): SavepointEditor {
  const { maxParallelism = 128 } = options;
  if (typeof name !== 'string' || !/^[a-z0-9-]+$/.test(name))
    throw new MillraceError('JOB_NAME_INVALID', `'${String(name)}' is no name for a job.`, {
      todo: 'A name is made of lower-case letters, digits and hyphens.',
    });
  if (!Number.isInteger(maxParallelism) || maxParallelism < 1 || maxParallelism > 32_768)
    throw new MillraceError('OPTION_INVALID', `${maxParallelism} is no number of key groups.`, { todo: 'Write a whole number from 1 to 32,768.' });
  return new Editor({ io: systemIo(), begin: { name, maxParallelism } });
}

/** One step: metadata → metadata, and files in the place. */
type EditStep = (metadata: CheckpointMetadata, place: EditPlace) => Promise<{ readonly metadata: CheckpointMetadata; readonly done: OperatorEdit }>;

interface EditorOptions {
  readonly io: Io;
  readonly open?: () => Promise<SnapshotInspector>;
  readonly begin?: { readonly name: string; readonly maxParallelism: number };
  /** For tests. */
  readonly shareBytes?: number;
  readonly bufferBytes?: number;
}

export class Editor implements SavepointEditor {
  readonly #options: EditorOptions;
  readonly #steps: readonly EditStep[];

  constructor(options: EditorOptions, steps: readonly EditStep[] = []) {
    this.#options = options;
    this.#steps = steps;
  }

  #with(step: EditStep): Editor {
    return new Editor(this.#options, [...this.#steps, step]);
  }

  each<K extends Key = Key, S extends KeyedSpec = {}>(
    uid: string,
    { state = {} as S, each }: { key?: Type<K>; state?: S; each(stored: StoredKey<K, S>): void | undefined },
  ): SavepointEditor {
    if (typeof each !== 'function') throw new MillraceError('OPTION_INVALID', `each('${uid}') needs a function each.`, { uid });
    const { io } = this.#options;
    return this.#with(async (metadata, place) => {
      demandOperator(metadata, uid);
      const open = (shared: SharedState, stored: readonly TableHeader[]): ShareWork => {
        if (stored.length === 0)
          throw new MillraceError('STATE_NOT_FOUND', `'${uid}' keeps nothing by key in the snapshot.`, {
            uid,
            todo: 'Feed records into it with feed(); lists and broadcast maps are changed with unkeyed().',
          });
        const timers = stored.some(({ name }) => name === TIMER_TABLES.event);
        const keys = new StoredKeys(uid, shared, state, { timers, clocks: storedClocks(metadata, uid, io) });
        return {
          async run() {
            for await (const key of keys.all()) {
              try {
                rejectThenable(each(key as StoredKey<K, S>), uid);
              } catch (error) {
                throw failed(uid, error, key.key);
              }
            }
          },
        };
      };
      const edited = await editKeyed(metadata, { uid, open }, place);
      return { metadata: edited.metadata, done: operatorEdit(edited.metadata, uid, 'changed', edited.counts) };
    });
  }

  feed<T, K extends Key, R, S extends KeyedSpec>(uid: string, fed: FedProcess<T, K, R, S> | FedJob): SavepointEditor {
    const node = 'job' in fed ? nodeOf(fed.job, uid) : processNode(uid, fed.process);
    const right = 'job' in fed && fed.input === 'right';
    const key = 'job' in fed ? keyOf(node, right) : (fed.key as (value: unknown) => unknown);
    if (typeof key !== 'function') throw new MillraceError('OPTION_INVALID', `feed('${uid}') needs a function key.`, { uid });
    const { io, bufferBytes } = this.#options;
    return this.#with(async (metadata, place) => {
      const timestamp = fed.timestamp as ((value: unknown) => number) | undefined;
      const records = await RecordShares.of(fed.records, { uid, key, timestamp, io, folder: place.folder, bufferBytes });
      const given = partsOf(metadata, uid);
      const parts = given.length === 0 ? {} : redistribute(given, { subtask: 0, parallelism: 1, maxParallelism: metadata.maxParallelism });
      const abort = new AbortController();
      const open = (shared: SharedState): ShareWork => {
        const restored = (name: string): readonly unknown[] | undefined => parts[name];
        const operator = operatorOf(node)(bareEnvironment({ node, state: shared.state, restored, signal: abort.signal, now: () => io.clock.now() }));
        const within = <V>(run: () => V): V => {
          operator.enter?.();
          try {
            return run();
          } finally {
            operator.leave?.();
          }
        };
        return {
          async run(fedRecords) {
            within(() => operator.start?.());
            try {
              for await (const record of fedRecords) {
                try {
                  within(() => operator[right ? 'processRight' : 'process']!(record.value, record.timestamp, record.key, record.hash));
                } catch (error) {
                  throw failed(uid, error, record.key);
                }
              }
            } finally {
              await operator.stop?.();
            }
          },
          parts: () => operator.snapshot?.() ?? {},
        };
      };
      try {
        const edited = await editKeyed(metadata, { uid, records, open }, place);
        const added = edited.added && !uidsOf(metadata).includes(uid);
        return { metadata: edited.metadata, done: operatorEdit(edited.metadata, uid, added ? 'added' : 'changed', edited.counts) };
      } finally {
        abort.abort();
      }
    });
  }

  unkeyed<S extends UnkeyedSpec>(uid: string, { state, change }: { state: S; change(state: Handles<S>): void | undefined }): SavepointEditor {
    if (typeof change !== 'function') throw new MillraceError('OPTION_INVALID', `unkeyed('${uid}') needs a function change.`, { uid });
    const { io } = this.#options;
    return this.#with(async (metadata) => {
      const { before, after } = withUnkeyed(metadata, uid, state as Record<string, AnyKind>, storedClocks(metadata, uid, io), (handles) => {
        try {
          rejectThenable(change(handles as Handles<S>), uid);
        } catch (error) {
          throw failed(uid, error);
        }
      });
      const how = uidsOf(metadata).includes(uid) ? 'changed' : 'added';
      return { metadata: withParts(metadata, uid, after), done: operatorEdit(metadata, uid, how, countItems(before, after)) };
    });
  }

  drop<K extends Key = Key>(uid: string, which: (key: K) => boolean): SavepointEditor {
    if (typeof which !== 'function') throw new MillraceError('OPTION_INVALID', `drop('${uid}') needs a function that chooses keys.`, { uid });
    return this.#with(async (metadata, place) => {
      demandOperator(metadata, uid);
      const open = (shared: SharedState, stored: readonly TableHeader[]): ShareWork => {
        declareAll(uid, shared, stored);
        return {
          async run() {
            for (const { key, hash } of await shared.keys(uid)) {
              let chosen: boolean;
              try {
                chosen = which(key as K);
              } catch (error) {
                throw failed(uid, error, key);
              }
              if (chosen === true) shared.drop(key, hash);
            }
          },
        };
      };
      const edited = await editKeyed(metadata, { uid, open }, place);
      return { metadata: edited.metadata, done: operatorEdit(edited.metadata, uid, 'changed', edited.counts) };
    });
  }

  remove(uid: string, state?: string): SavepointEditor {
    return this.#with(async (metadata, place) => {
      demandOperator(metadata, uid);
      const { tables, rows } = await stored(metadata, uid, place, state);
      if (state === undefined) return { metadata: withoutOperator(metadata, uid), done: { uid, change: 'removed', states: [], written: 0, deleted: rows } };
      const moved = await movedState(metadata, { uid, state, to: undefined, tables }, place);
      return { metadata: moved, done: { uid, change: 'changed', states: [state], written: 0, deleted: rows } };
    });
  }

  rename(uid: string, to: string): SavepointEditor {
    return this.#with(async (metadata, place) => ({
      metadata: await renamedOperator(metadata, uid, to, place),
      done: { uid: to, change: 'renamed', from: uid, states: [], written: 0, deleted: 0 },
    }));
  }

  renameState(uid: string, state: string, to: string): SavepointEditor {
    return this.#with(async (metadata, place) => {
      demandOperator(metadata, uid);
      const { tables } = await stored(metadata, uid, place, undefined, false);
      const moved = await movedState(metadata, { uid, state, to, tables }, place);
      return { metadata: moved, done: { uid, change: 'changed', states: [`${state} → ${to}`], written: 0, deleted: 0 } };
    });
  }

  async write(directory: string, { note, by }: WriteOptions = {}): Promise<EditedSavepoint> {
    const { io, open, shareBytes } = this.#options;
    const folder = absolute(directory);
    const target = { folder, storage: storageOf(folder, io) };
    const source = await open?.();
    const begun = source?.metadata ?? this.#nothing();
    const from = source === undefined ? undefined : { id: begun.id, path: source.path, checksum: await checksumOf(source.path, source.files.storage) };
    await prepareSavepoint(target);
    const scratch = new Scratch(io);
    let edit: SavepointEdit | undefined;
    try {
      const written = await fillSavepoint(target, io, undefined, async (files, writing) => {
        const workspace = new Workspace({ source: source?.files, target: files, writing, metadata: begun, io });
        const place: EditPlace = { io, files: workspace, target: workspace, freshName: workspace.freshName, folder: scratch.folder, shareBytes };
        const operators: OperatorEdit[] = [];
        let metadata = await workspace.withoutLinks(begun);
        for (const step of this.#steps) {
          const next = await step(metadata, place);
          metadata = next.metadata;
          operators.push(next.done);
        }
        await workspace.complete(metadata);
        edit = auditOf({ at: io.clock.now(), by, note, from, operators });
        return { ...metadata, edits: [...(begun.edits ?? []), edit] };
      });
      return { ...written, edit: edit! };
    } catch (error) {
      throw spoken(error);
    } finally {
      await scratch.remove();
    }
  }

  /** What a savepoint begins with that is made of nothing. */
  #nothing(): CheckpointMetadata {
    const { io, begin } = this.#options;
    const { name, maxParallelism } = begin!;
    const lineage = Array.from({ length: 4 }, () =>
      Math.floor(io.random() * 2 ** 32)
        .toString(16)
        .padStart(8, '0'),
    ).join('');
    return {
      id: 1,
      job: name,
      lineage,
      attempt: 1,
      maxParallelism,
      planHash: '',
      startedAt: io.clock.now(),
      durationMs: 0,
      drained: false,
      tasks: [],
    };
  }
}

/** The files of a savepoint that is being made: those of the old one, and those that were written for the new one. */
class Workspace {
  readonly #source: SnapshotFiles | undefined;
  readonly #target: SnapshotFiles;
  readonly #io: Io;
  readonly #writing: (file: FileRef) => void;
  readonly #written = new Set<string>();
  readonly #taken: Set<string>;
  readonly #prefix: string;
  #names = 0;

  constructor(options: {
    source: SnapshotFiles | undefined;
    target: SnapshotFiles;
    writing: (file: FileRef) => void;
    metadata: CheckpointMetadata;
    io: Io;
  }) {
    const { source, target, writing, metadata, io } = options;
    this.#io = io;
    this.#source = source;
    this.#target = target;
    this.#writing = writing;
    this.#taken = new Set(filesNamed(metadata).map(({ name }) => name));
    this.#prefix = `edit${(metadata.edits?.length ?? 0) + 1}`;
  }

  readonly freshName = (): string => {
    for (;;) {
      const name = `${this.#prefix}-${this.#names++}`;
      if (!this.#taken.has(name)) return name;
    }
  };

  async open(name: string) {
    this.#writing({ name, bytes: 0, crc: 0 });
    this.#written.add(name);
    return this.#target.open(name);
  }

  read(file: FileRef, range?: ByteRange): AsyncIterable<Uint8Array> {
    return (this.#written.has(file.name) ? this.#target : this.#source!).read(file, range);
  }

  /** Bases that are linked databases as row files: a savepoint has no others. */
  withoutLinks(metadata: CheckpointMetadata): Promise<CheckpointMetadata> {
    return withoutLinks(metadata, async (base) => {
      await this.#io.step('savepoint.file');
      const name = this.freshName();
      this.#writing({ name, bytes: 0, crc: 0 });
      this.#written.add(name);
      return writeFile(
        this.#target,
        name,
        linkedAsRows(base, this.#source!, metadata.maxParallelism, () => true),
      );
    });
  }

  /** Copies what is not there yet, and removes what a later step has made superfluous. */
  async complete(metadata: CheckpointMetadata): Promise<void> {
    const needed = filesNamed(metadata);
    for (const file of needed) {
      if (this.#written.has(file.name)) continue;
      await this.#io.step('savepoint.file');
      this.#writing(file);
      await copyFile(this.#source!, this.#target, file, file.name);
    }
    const names = new Set(needed.map(({ name }) => name));
    for (const name of this.#written) if (!names.has(name)) await this.#target.remove(name);
  }
}

function operatorEdit(metadata: CheckpointMetadata, uid: string, change: 'changed' | 'added', { written, deleted, states }: Counts): OperatorEdit {
  const windows = metadata.tasks.some(({ operators }) => operators[uid]?.parts?.windows?.mode === 'union');
  return { uid, change, states: [...new Set([...states].map((table) => shownName(table, windows)))].sort(), written, deleted };
}

/** As people know it: what operators keep for themselves is of their timers or windows. */
function shownName(table: string, ofWindows: boolean): string {
  if (table.startsWith('.window.')) return table.slice('.window.'.length);
  if (ofWindows) return isProgramState(table, 'window') ? table : 'windows';
  return table === TIMER_TABLES.event || table === TIMER_TABLES.processing ? 'timers' : table;
}

/** Every stored table, as it is: rows can be removed, and are not read. */
function declareAll(uid: string, shared: SharedState, tables: readonly TableHeader[]): void {
  for (const { name, layout } of tables) {
    if (shared.has(name)) continue;
    const version = Math.max(...tables.filter((table) => table.name === name).map((table) => table.version));
    if (layout === 'timers') shared.state.timers(uid, name);
    else shared.state[layout](uid, name, { version, migrate: (old) => old });
  }
}

/** What an operator has stored by key: its tables, and how many rows and items it has, of one state or of all. */
async function stored(metadata: CheckpointMetadata, uid: string, place: EditPlace, state: string | undefined, counted = true) {
  const { maxParallelism } = metadata;
  const handles = metadata.tasks.flatMap(({ keyed }) => (keyed?.uid === uid ? [keyed.handle] : []));
  const options = { files: place.files, handles, maxParallelism, io: place.io, folder: place.folder };
  const shares = await RowShares.of({ ...options, shareBytes: counted ? place.shareBytes : Number.POSITIVE_INFINITY });
  let rows = 0;
  for (const task of metadata.tasks) {
    for (const [name, { items }] of Object.entries(task.operators[uid]?.parts ?? {}))
      if (!name.startsWith('.') && name !== 'windows' && (state === undefined || name === state)) rows += items.length;
  }
  const chosen = (name: string): boolean => (state === undefined ? !/^\.(?:expiry|armed)\./.test(name) : name === state || name === `.window.${state}`);
  for (let share = 0; counted && share < shares.count; share++) {
    const shared = await SharedState.open(maxParallelism);
    declareAll(uid, shared, shares.tables);
    await shares.load(share, shared.state);
    for (const { name, rows: there } of shared.state.look().tables()) if (chosen(name)) rows += there;
  }
  return { tables: shares.tables, rows };
}

// ── operators that are fed ──

function processNode(uid: string, definition: object): Node {
  const spec = specOf(uid, definition, ['onRecord'], 'keyed');
  const step = { kind: 'process', keyed: true, inputs: 'one', spec } as const;
  return { index: 0, uid, step, inputs: [], tag: undefined, parallelism: undefined, chain: undefined, onError: 'restart' };
}

function nodeOf(job: Job, uid: string): Node {
  const { name, build } = definitionOf(job);
  const node = build().find((each) => nameOf(each) === uid);
  if (node !== undefined && isKeyed(node.step)) return node;
  throw new MillraceError('STATE_NOT_FOUND', `The job '${name}' has no operator '${uid}' that keeps state by key.`, {
    uid,
    todo: 'Name a reduce, aggregate, window, join or keyed process of it.',
  });
}

function keyOf(node: Node, right: boolean): (value: unknown) => unknown {
  const input = node.inputs.find(({ port }) => (port === 'right') === right);
  if (input?.key !== undefined) return input.key;
  throw new MillraceError('OPTION_INVALID', `'${nameOf(node)}' has no ${right ? 'right' : 'left'} input by key.`, {
    uid: nameOf(node),
    todo: 'Say which input with input; a broadcast side is changed with unkeyed().',
  });
}

/** What the state backends throw, as a user meets it. */
function spoken(error: unknown): unknown {
  const { name, code, message, todo } = error as { name?: string; code?: never; message: string; todo?: string };
  if (name !== 'StateError') return error;
  const sentence = todo !== undefined && message.endsWith(todo) ? message.slice(0, -todo.length).trimEnd() : message;
  return new MillraceError(code!, sentence, { cause: error, ...(todo === undefined ? {} : { todo }) });
}
