// The bases of a region whose tasks share a database: one serves them all. Made by hard links beside the running tasks, stored file by file.
//
// Who owns what: this owns the base that is made, the names of stored tables, and the copies that tasks are restored from. Tasks own their chains; they ask for a base
// after a checkpoint, and are given it when everything that it names is stored.
//
// Invariants:
//  B1  One base is made at a time. One that fails costs nothing but itself: chains stand, and the next checkpoint asks again.
//  B2  A table is stored once an attempt, under (database, number, checksum, attempt); a later base that has it names the same file. A file that a base names is in
//      every later base or in none: tables that are gone from a database do not come back. So the newest checkpoint names every stored file that a later base will.
//  B3  Tables that only failed bases have stored go when a later one does without them, and at the end of the region.
//  B4  Links that fail twice in a row are given up in this attempt: its tasks sweep from then on, each for itself (protocols 1.5).

import { crc32 } from 'node:zlib';
import {
  type BaseRef,
  type Chain,
  type FileRef,
  type LevelBaseRef,
  type Link,
  type LinkedFile,
  type LinkedFileRef,
  type OpenedBase,
  openLinked,
  type RegionState,
  type TaskState,
  wantBase,
} from '../../state-backends/index.ts';
import { MillraceError, messageOf } from '../errors.ts';
import type { Logger } from '../graph/context.ts';
import type { Io } from './io.ts';
import type { SnapshotStorage } from './snapshot.ts';

/** A task that takes part. */
export interface BaseMember {
  readonly uid: string;
  readonly state: TaskState;
  readonly chain: Chain;
  /** It has frozen a barrier. */
  readonly frozen: boolean;
  adopt(base: BaseRef): void;
}

export interface RegionBasesOptions {
  readonly state: RegionState;
  /** Unlike that of any other database whose tables lie in the same storage. */
  readonly id: string;
  readonly attempt: number;
  readonly storage: SnapshotStorage;
  readonly io: Io;
  readonly log: Logger;
}

/** Between two slices of what a base writes down. */
const PAUSE_MS = 4;
const FAILURES_MAX = 2;

interface Stored {
  readonly file: LinkedFileRef;
  /** Some base that was given to tasks has it. */
  given: boolean;
}

interface Opening {
  readonly base: Promise<OpenedBase>;
  users: number;
}

export class RegionBases {
  readonly #options: RegionBasesOptions;
  readonly #members = new Set<BaseMember>();
  readonly #stored = new Map<number, Stored>();
  readonly #opened = new Map<string, Opening>();
  #made = 0;
  #failures = 0;
  #uploadedBytes = 0;
  #making: Promise<void> | undefined;
  #closed = false;
  /** Ends the pause between two slices. */
  #hurry: (() => void) | undefined;

  constructor(options: RegionBasesOptions) {
    this.#options = options;
  }

  join(member: BaseMember): void {
    this.#members.add(member);
  }

  leave(member: BaseMember): void {
    this.#members.delete(member);
  }

  /** Of all bases of the region in this attempt: what was new in each. */
  get uploadedBytes(): number {
    return this.#uploadedBytes;
  }

  /** False: each task makes its own. */
  get shared(): boolean {
    return this.#options.state.link !== undefined && this.#failures < FAILURES_MAX;
  }

  /** Begins one where it is time for it. */
  ask(): void {
    const members = [...this.#members];
    if (!this.shared || this.#closed || this.#making !== undefined) return;
    if (members.some(({ frozen, state }) => !frozen || state.unsettled) || !wantBase(members.map(({ chain }) => chain))) return;
    const making = this.#make(members);
    this.#making = making;
    making
      .then(
        () => {
          this.#failures = 0;
        },
        (error) => {
          this.#failures += 1;
          this.#options.log.warn({ error: messageOf(error) }, 'A base could not be made; the deltas are kept.');
        },
      )
      .finally(() => {
        this.#making = undefined;
      });
  }

  /** Resolves when the base that is made is given to its tasks, rejects where it comes to nothing; at once where none is made. */
  async settled(): Promise<void> {
    await this.#making;
  }

  async #make(members: readonly BaseMember[]): Promise<void> {
    const { io, state } = this.#options;
    await io.step('base.begin');
    this.#refuseClosed();
    const link = state.link!(members.map((member) => member.state));
    try {
      for (let outcome = link.step(0); outcome !== 'done'; outcome = link.step(0)) {
        await outcome;
        await this.#pause();
        this.#refuseClosed();
      }
      await io.step('base.linked');
      const base = await this.#store(link);
      try {
        await io.step('base.made');
        this.#refuseClosed();
      } catch (error) {
        await this.#remove(base.file.name);
        throw error;
      }
      for (const member of members) if (this.#members.has(member)) member.adopt({ ...base, tables: link.tables(member.uid) });
      await this.#forget(base.files);
    } finally {
      await link.close();
    }
  }

  async #store(link: Link): Promise<Omit<LevelBaseRef, 'tables'>> {
    const { io, id } = this.#options;
    const files: LinkedFileRef[] = [];
    let manifest: FileRef | undefined;
    for (const file of link.files) {
      const { number } = file;
      const there = number === undefined ? undefined : this.#stored.get(number);
      if (number === undefined) {
        await io.step('base.upload');
        this.#made += 1;
        manifest = await this.#upload(file, `${id}-m${this.#made}`);
      } else if (there === undefined) {
        await io.step('base.copy');
        const stored = { ...(await this.#upload(file, `${id}-${number}`)), number };
        this.#stored.set(number, { file: stored, given: false });
        files.push(stored);
      } else files.push(there.file);
    }
    return { kind: 'leveldb', file: manifest!, files, b: link.b, n: link.n };
  }

  async #upload(file: LinkedFile, name: string): Promise<FileRef> {
    const { attempt, storage } = this.#options;
    let crc = 0;
    for await (const part of file.read()) crc = crc32(part, crc);
    const out = await storage.open(`linked-${name}-${crc.toString(16).padStart(8, '0')}-a${attempt}`);
    try {
      for await (const part of file.read()) {
        this.#refuseClosed();
        await out.append([part]);
      }
      const stored = await out.finish();
      this.#uploadedBytes += stored.bytes;
      return stored;
    } catch (error) {
      await out.abandon();
      throw error;
    }
  }

  /** B2, B3. */
  async #forget(files: readonly LinkedFileRef[]): Promise<void> {
    const named = new Set(files.map(({ number }) => number));
    for (const [number, stored] of [...this.#stored]) {
      if (named.has(number)) stored.given = true;
      else {
        this.#stored.delete(number);
        if (!stored.given) await this.#remove(stored.file.name);
      }
    }
  }

  /** Of what nobody names. Where that fails the next start removes it. */
  async #remove(name: string): Promise<void> {
    const { storage, log } = this.#options;
    await storage.remove(name).catch((error) => log.warn({ file: name, error: messageOf(error) }, 'A file of an unfinished base could not be removed.'));
  }

  #pause(): Promise<void> {
    const { clock } = this.#options.io;
    return new Promise((resolve) => {
      const timer = clock.setTimeout(resolve, PAUSE_MS);
      this.#hurry = () => {
        clock.clearTimeout(timer);
        resolve();
      };
    });
  }

  #refuseClosed(): void {
    if (this.#closed) throw new MillraceError('JOB_ENDED', 'The region ended while a base of its state was made.');
  }

  // ── restoring ──

  /** The base, opened; once for all tasks that begin from it. Whoever has read it releases it. */
  async open(base: LevelBaseRef): Promise<OpenedBase> {
    const { name } = base.file;
    const there = this.#opened.get(name);
    if (there !== undefined) return there.base;
    const users = [...this.#members].flatMap(({ chain }) =>
      chain.bases.filter((each): each is LevelBaseRef => each.kind === 'leveldb' && each.file.name === name),
    );
    const opening = { base: this.#open(base, users), users: users.length };
    this.#opened.set(name, opening);
    return opening.base;
  }

  async #open(base: LevelBaseRef, users: readonly LevelBaseRef[]): Promise<OpenedBase> {
    const { io, storage, state } = this.#options;
    await io.step('restore.base');
    const ranges = users.flatMap((each) => each.ranges ?? []);
    const extent = { tables: users.flatMap(({ tables }) => tables), ranges: users.some((each) => each.ranges === undefined) ? undefined : ranges };
    return openLinked(base, storage, extent, state.scratch);
  }

  async release({ file }: LevelBaseRef): Promise<void> {
    const opening = this.#opened.get(file.name);
    if (opening === undefined) return;
    opening.users -= 1;
    if (opening.users > 0) return;
    this.#opened.delete(file.name);
    await (await opening.base).close();
  }

  /** Before the region's state is closed. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#hurry?.();
    // What comes to nothing has been logged.
    await this.#making?.catch(() => undefined);
    for (const { base } of this.#opened.values())
      await base.then(
        (opened) => opened.close(),
        () => undefined,
      );
    this.#opened.clear();
    for (const { file, given } of this.#stored.values()) if (!given) await this.#remove(file.name);
  }
}
