// A base of a region's database by hard links, while the database goes on (protocols 1.3).
//
// What: (b) every task writes down what it changed before the base began and LevelDB does not have; (c) LevelDB's memory is flushed and its tables are linked
// into a folder of the same file system, as the MANIFEST names them; (d) the base serves checkpoints behind the highest barrier frozen by then.
//
// Invariants:
//  N1  Only tables that a MANIFEST names are linked, and only while that MANIFEST does not grow: else it is begun again. So no table is one that is being written.
//  N2  The MANIFEST's log is younger than every log that there was before the flush: all that was written down is in tables, and no log belongs to the base.
//  N3  A link is an inode of its own name: LevelDB may remove its own at any time. Nobody writes to it and nobody opens it as a database.

import { promises as fs } from 'node:fs';
import { join } from 'node:path';
import type { Link, LinkedFile, NumberedTable } from './contract.ts';
import type { Batch } from './level-batch.ts';
import { type LiveTable, readManifest, tableName } from './manifest.ts';
import { StateError } from './state-error.ts';
import type { Task } from './task.ts';

/** A table of state, as far as a base needs it. */
export interface Settling {
  /**
   * For a base, while no batch is in flight: what changed before the open interval and is newer than LevelDB goes into the batch, from a place on. Gives the place
   * it came to, −1 behind the last.
   */
  settle(batch: Batch, from: number, deadline: number): number;
}

/** The region whose database it is. */
export interface LinkingRegion {
  check(): void;
  /** Runs `fill` with an empty batch when no other is in flight, and writes what it has put there; resolves when that is in the database. */
  put(fill: (batch: Batch) => void): Promise<void>;
  flush(): Promise<void>;
  numberOf(uid: string, name: string): number;
}

const SLICE_MS = 1;
const TRIES = 200;
const PART_BYTES = 1 << 18;
/** The file system cannot link; its copy is as good, since tables do not change. */
const CANNOT_LINK: ReadonlySet<unknown> = new Set(['EXDEV', 'EPERM', 'EMLINK', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP']);

export class LevelLink implements Link {
  readonly b: number;
  private end = -1;
  private linked: readonly LinkedFile[] = [];
  private readonly region: LinkingRegion;
  private readonly tasks: readonly Task[];
  private readonly settling: readonly Settling[];
  private readonly directory: string;
  private readonly staging: string;
  private readonly ended: () => void;
  private table = 0;
  private position = 0;
  private state: 'settling' | 'linking' | 'done' | 'closed' = 'settling';
  private working: Promise<void> | undefined = undefined;

  constructor(region: LinkingRegion, tasks: readonly Task[], settling: readonly Settling[], directory: string, staging: string, ended: () => void) {
    this.region = region;
    this.tasks = tasks;
    this.settling = settling;
    this.directory = directory;
    this.staging = staging;
    this.ended = ended;
    this.b = Math.min(...tasks.map(({ ledger }) => ledger.lastFrozen));
    if (tasks.length === 0 || this.b === -1) throw new StateError('STATE_MISUSED', 'A base was begun before the first barrier of all its tasks.');
  }

  step(_deadline: number): 'again' | 'done' | Promise<void> {
    if (this.state === 'done' || this.state === 'closed') return 'done';
    if (this.state === 'settling') {
      // The slice begins when it is this batch's turn.
      this.working = this.region.put((batch) => this.fill(batch, performance.now() + SLICE_MS));
      return this.working;
    }
    this.working = this.link();
    return this.working;
  }

  /** (b). */
  private fill(batch: Batch, deadline: number): void {
    if (this.state !== 'settling') return;
    for (; this.table < this.settling.length; this.table++, this.position = 0) {
      this.position = this.settling[this.table]!.settle(batch, this.position, deadline);
      if (this.position !== -1) return;
    }
    this.state = 'linking';
  }

  /** (c), (d). */
  private async link(): Promise<void> {
    this.region.check();
    const before = await this.newestLog();
    await this.region.flush();
    for (let tries = 0; tries < TRIES; tries++) {
      const name = (await fs.readFile(join(this.directory, 'CURRENT'), 'latin1')).trim();
      const bytes = await fs.readFile(join(this.directory, name));
      const manifest = readManifest(bytes);
      if (manifest === undefined) continue;
      if (manifest.logNumber <= before)
        throw new StateError('STATE_IO', `The database of keyed state has not flushed its log ${before}: its MANIFEST says ${manifest.logNumber}.`);
      if (!(await this.linkAll(manifest.tables))) continue;
      const { size } = await fs.stat(join(this.directory, name));
      if (size !== bytes.length || (await fs.readFile(join(this.directory, 'CURRENT'), 'latin1')).trim() !== name) continue;
      if (this.state !== 'linking') return;
      this.end = Math.max(...this.tasks.map(({ ledger }) => ledger.lastFrozen));
      this.linked = [
        ...manifest.tables.map(({ number, bytes: size }) => ({ number, bytes: size, read: () => parts(join(this.staging, tableName(number))) })),
        { number: undefined, bytes: bytes.length, read: () => whole(bytes) },
      ];
      this.state = 'done';
      return;
    }
    throw new StateError('STATE_IO', `The tables of keyed state changed ${TRIES} times while they were linked.`);
  }

  /** False where one of them is gone already. */
  private async linkAll(tables: readonly LiveTable[]): Promise<boolean> {
    await fs.rm(this.staging, { recursive: true, force: true });
    await fs.mkdir(this.staging);
    for (const { number, bytes } of tables) {
      const [from, to] = [join(this.directory, tableName(number)), join(this.staging, tableName(number))];
      try {
        await fs.link(from, to).catch((error: { code?: unknown }) => {
          if (!CANNOT_LINK.has(error.code)) throw error;
          return fs.copyFile(from, to);
        });
        const { size } = await fs.stat(to);
        if (size !== bytes) throw new StateError('STATE_IO', `The table ${from} has ${size} bytes instead of ${bytes}.`);
      } catch (error) {
        if ((error as { code?: unknown }).code === 'ENOENT') return false;
        throw error;
      }
    }
    return true;
  }

  private async newestLog(): Promise<number> {
    const logs = (await fs.readdir(this.directory)).flatMap((name) => /^(\d+)\.log$/.exec(name)?.[1] ?? []);
    return Math.max(0, ...logs.map(Number));
  }

  get n(): number {
    return this.end;
  }

  get files(): readonly LinkedFile[] {
    return this.linked;
  }

  tables(uid: string): readonly NumberedTable[] {
    const headers = this.tasks.flatMap(({ ledger }) => ledger.headers).filter((header) => header.uid === uid);
    const byName = new Map(headers.map((header) => [header.name, { ...header, number: this.region.numberOf(uid, header.name) }]));
    return [...byName.values()];
  }

  async close(): Promise<void> {
    if (this.state === 'closed') return;
    this.state = 'closed';
    // Whoever waits for it hears of its failure there.
    await this.working?.catch(() => undefined);
    await fs.rm(this.staging, { recursive: true, force: true });
    this.ended();
  }
}

async function* parts(path: string): AsyncIterable<Uint8Array> {
  const handle = await fs.open(path, 'r');
  try {
    for (;;) {
      const buffer = Buffer.allocUnsafe(PART_BYTES);
      const { bytesRead } = await handle.read(buffer, 0, buffer.length);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await handle.close();
  }
}

async function* whole(bytes: Buffer): AsyncIterable<Uint8Array> {
  for (let at = 0; at < bytes.length; at += PART_BYTES) yield bytes.subarray(at, at + PART_BYTES);
}
