// The local registry: in a directory of this machine (the contract is in registry.ts).
//
// What: a LevelDB in `<directory>/<job>/registry`. Its lock is dropped by the operating system when the process dies, also by SIGKILL, so it is what keeps two
// processes from running one job (protocols 14). Every write is synced. Pointers only: the bytes lie in the storage, written before the pointer.
//
// Invariants, beside those of the contract (G1–G5):
//  G6  One call at a time. Behind a write that failed the database is closed and opened again before anything else is done with it: what LevelDB appends to a
//      log behind half a record (a full disk) it says is written, and drops when it opens the log again. Another process may have had it meanwhile.
//  G7  It is opened only where its files are whole (level-files.ts), and not behind what lies beside it.

import { dirname, join } from 'node:path';
import { Level } from 'level';
import { MillraceError, messageOf } from '../errors.ts';
import type { JobResult } from '../graph/job.ts';
import type { Io, ValueStore } from '../runtime/io.ts';
import { DirectoryStorage } from '../storage/directory.ts';
import { below, nameIn } from './addresses.ts';
import { damageOf } from './level-files.ts';
import { type Outcome, type Pointer, RESERVED, type Registered, type Registry } from './registry.ts';
import { SnapshotFiles } from './storage.ts';

const WAIT_STEP_MS = 200;
const DAMAGE_LOOKS = 4;
const DAMAGE_LOOK_MS = 25;

export class LocalRegistry implements Registry {
  #db: ValueStore;
  readonly #directory: string;
  readonly #files: SnapshotFiles;
  readonly #io: Io;
  readonly #reopened: () => Promise<ValueStore>;
  #reserved = 0;
  #since: number | undefined;
  /** The largest number that this process has tried to write. */
  #attempt = 0;
  /** The outcome of a write is unknown (G6). */
  #doubtful = false;
  #last: Promise<unknown> = Promise.resolve();

  private constructor(db: ValueStore, directory: string, files: SnapshotFiles, io: Io, reopened: () => Promise<ValueStore>) {
    this.#db = db;
    this.#directory = directory;
    this.#files = files;
    this.#io = io;
    this.#reopened = reopened;
  }

  /**
   * In that folder, of checkpoints that lie in `files`: beside it by default. Fails with JOB_ALREADY_RUNNING where another process, or this one, holds it; with `wait`
   * it waits until that ends or `signal` aborts.
   */
  static async open(
    directory: string,
    job: string,
    io: Io,
    options: { readonly wait: boolean; readonly signal?: AbortSignal | undefined; readonly files?: SnapshotFiles },
  ): Promise<LocalRegistry> {
    const { files = new SnapshotFiles(new DirectoryStorage(dirname(directory), io), directory, { io }) } = options;
    const { openStore } = io;
    if (openStore !== undefined) {
      const store = (): Promise<ValueStore> => openStore(join(directory, 'registry'));
      return new LocalRegistry(await store(), directory, files, io, store);
    }
    for (;;) {
      const db = await openLevel(directory, files, io);
      if (db === undefined) {
        if (!options.wait || options.signal?.aborted === true) throw await alreadyRunning(directory, job, io);
        await new Promise<void>((resolve) => void io.clock.setTimeout(resolve, WAIT_STEP_MS));
        continue;
      }
      const reopened = async (): Promise<ValueStore> => {
        const again = await openLevel(directory, files, io);
        if (again === undefined) throw await alreadyRunning(directory, job, io);
        return again;
      };
      try {
        await io.fs.writeFile(join(directory, 'owner.json'), JSON.stringify({ pid: process.pid, since: io.clock.now() }));
      } catch (cause) {
        // Else this process would hold the lock for good.
        await db.close();
        throw new MillraceError('CHECKPOINT_DIRECTORY', `The checkpoint directory ${directory} cannot be written: ${messageOf(cause)}.`, { cause });
      }
      return new LocalRegistry(db, directory, files, io, reopened);
    }
  }

  /** G6. */
  #turn<R>(use: (db: ValueStore) => Promise<R>, writes: boolean): Promise<R> {
    const turn = this.#last.then(async () => {
      if (this.#doubtful) await this.#openAgain();
      try {
        return await use(this.#db);
      } catch (cause) {
        this.#doubtful ||= writes;
        throw new MillraceError(
          'CHECKPOINT_DIRECTORY',
          `The registry in ${this.#directory} cannot be ${writes ? 'written' : 'read'}: ${messageOf((cause as Error).cause ?? cause)}.`,
          { cause },
        );
      }
    });
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  async #openAgain(): Promise<void> {
    await this.#db.close();
    this.#db = await this.#reopened();
    const attempt = Number((await this.#db.get('attempt')) ?? 0);
    if (attempt > this.#attempt) {
      throw new MillraceError('JOB_ALREADY_RUNNING', `Another process has run the job with the checkpoint directory ${this.#directory} meanwhile.`, {
        retryable: false,
        todo: 'Stop this one: the other has gone on from where it was.',
      });
    }
    this.#doubtful = false;
  }

  async #get<T>(key: string): Promise<T | undefined> {
    return this.#turn((db) => db.get(key) as Promise<T | undefined>, false);
  }
  async #put(key: string, value: unknown): Promise<void> {
    await this.#turn((db) => db.put(key, value, { sync: true }), true);
  }

  /** G1. Larger than `after`: what was found in a directory whose registry was lost. */
  async nextAttempt(after = 0): Promise<number> {
    const attempt = Math.max((await this.attempt()) ?? 0, after) + 1;
    this.#attempt = attempt;
    await this.#put('attempt', attempt);
    return attempt;
  }
  /** The newest there was. */
  attempt(): Promise<number | undefined> {
    return this.#get('attempt');
  }

  lineage(): Promise<string | undefined> {
    return this.#get('lineage');
  }
  setLineage(lineage: string): Promise<void> {
    return this.#put('lineage', lineage);
  }

  async counter(): Promise<number> {
    return (await this.#get<number>('counter')) ?? 0;
  }
  /** G2. */
  async reserve(id: number): Promise<void> {
    if (id <= this.#reserved) return;
    await this.#io.step('checkpoint.reserve');
    const counter = id + RESERVED - 1;
    const since = this.#since ?? id - 1;
    const entries = [
      { type: 'put' as const, key: 'counter', value: counter },
      { type: 'put' as const, key: 'since', value: since },
    ];
    await this.#turn((db) => db.batch(entries, { sync: true }), true);
    this.#since = since;
    this.#reserved = counter;
  }

  /** That id is used, by another lineage: a snapshot that is brought in carries it. */
  async raise(id: number): Promise<void> {
    if (id > (await this.counter())) await this.#put('counter', id);
  }

  /** Ids of the lineage that runs are above this one; undefined: it has none yet. */
  get since(): number | undefined {
    return this.#since;
  }

  async add(checkpoint: Pointer, lineage: string): Promise<void> {
    const registered: Registered = { ...checkpoint, lineage };
    await this.#put(`checkpoint/${String(checkpoint.id).padStart(19, '0')}`, registered);
  }
  async remove(id: number): Promise<void> {
    await this.#turn((db) => db.del(`checkpoint/${String(id).padStart(19, '0')}`, { sync: true }), true);
  }
  /** Oldest first. */
  async checkpoints(): Promise<Registered[]> {
    return this.#turn(async (db) => {
      const found: Registered[] = [];
      for await (const value of db.values({ gt: 'checkpoint/', lt: 'checkpoint0' })) {
        const checkpoint = value as Registered;
        // The directory may have been moved since.
        found.push({ ...checkpoint, path: below(this.#files.checkpoints, nameIn(checkpoint.path)) });
      }
      return found;
    }, false);
  }

  async outcome(): Promise<Outcome | undefined> {
    return this.#get('outcome');
  }
  setOutcome(outcome: Outcome): Promise<void> {
    return this.#put('outcome', outcome);
  }
  result(): Promise<JobResult | undefined> {
    return this.#get('result');
  }
  async finish(result: JobResult): Promise<void> {
    await this.#io.step('job.finish');
    const entries: { type: 'put'; key: string; value: unknown }[] = [
      { type: 'put', key: 'outcome', value: 'finished' },
      { type: 'put', key: 'result', value: result },
    ];
    await this.#turn((db) => db.batch(entries, { sync: true }), true);
  }

  /**
   * A start: `origin` is the metadata of the checkpoint that a new lineage was forked from; it holds until the lineage has one of its own. So long `claimed` is
   * kept too: the folder of the savepoint that it was imported from, where that is the job's now.
   */
  async begin(lineage: string, origin: string | undefined, claimed?: string): Promise<void> {
    this.#since = (await this.lineage()) === lineage ? await this.#get('since') : undefined;
    const entries: ({ type: 'put'; key: string; value: unknown } | { type: 'del'; key: string })[] = [
      { type: 'put', key: 'lineage', value: lineage },
      ...(this.#since === undefined ? [{ type: 'del' as const, key: 'since' }] : []),
      { type: 'put', key: 'outcome', value: 'running' },
      { type: 'del', key: 'result' },
      origin === undefined ? { type: 'del', key: 'origin' } : { type: 'put', key: 'origin', value: origin },
      ...(claimed === undefined ? [] : [{ type: 'put' as const, key: 'claimed', value: { folder: claimed, lineage } }]),
    ];
    await this.#turn((db) => db.batch(entries, { sync: true }), true);
  }
  origin(): Promise<string | undefined> {
    return this.#get('origin');
  }

  claimed(): Promise<{ readonly folder: string; readonly lineage: string } | undefined> {
    return this.#get('claimed');
  }
  async unclaim(): Promise<void> {
    await this.#turn((db) => db.del('claimed', { sync: true }), true);
  }

  async close(): Promise<void> {
    await this.#last;
    await this.#io.fs.rm(join(this.#directory, 'owner.json'), { force: true });
    await this.#db.close();
  }
}

/** G7. Undefined where somebody has it open. */
async function openLevel(directory: string, files: SnapshotFiles, io: Io): Promise<ValueStore | undefined> {
  const folder = join(directory, 'registry');
  await refuseWithoutCurrent(directory, files, io);
  // Before it is opened: LevelDB would leave out what is damaged, and write down what is left.
  await refuseDamaged(directory, files, io);
  const db = new Level<string, unknown>(folder, { valueEncoding: 'json' });
  try {
    await db.open();
  } catch (error) {
    if ((error as { cause?: { code?: string } }).cause?.code === 'LEVEL_LOCKED') return undefined;
    throw await cannotOpen(directory, error as Error, files);
  }
  return db;
}

async function refuseDamaged(directory: string, files: SnapshotFiles, io: Io): Promise<void> {
  const folder = join(directory, 'registry');
  for (let look = 1; ; look++) {
    const damage = await damageOf(folder, io);
    if (damage === undefined) return;
    if (look === DAMAGE_LOOKS)
      throw await cannotOpen(directory, Object.assign(new Error(`${join(folder, damage.file)}: ${damage.why}`), { code: 'LEVEL_CORRUPTION' }), files);
    // Another process may have it open, and be in the middle of a change.
    await new Promise<void>((resolve) => void io.clock.setTimeout(resolve, DAMAGE_LOOK_MS));
  }
}

/** LevelDB makes a new database where CURRENT is missing, and forgets what lies beside it. A database that never got so far has no tables. */
async function refuseWithoutCurrent(directory: string, files: SnapshotFiles, io: Io): Promise<void> {
  let names: string[];
  try {
    names = await io.fs.readdir(join(directory, 'registry'));
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOENT') return;
    throw error;
  }
  if (!names.includes('CURRENT') && names.some((name) => name.endsWith('.ldb')))
    throw await cannotOpen(directory, Object.assign(new Error('its file CURRENT is gone'), { code: 'LEVEL_CORRUPTION' }), files);
}

/** Where it is damaged, the checkpoints of the job are whole as a rule: the sentence names the newest. Their names carry attempts and ids, so that both go on. */
async function cannotOpen(directory: string, error: Error, files: SnapshotFiles): Promise<MillraceError> {
  const cause = (error.cause ?? error) as Error & { code?: string };
  const damaged = cause.code === 'LEVEL_CORRUPTION' || /no such file/i.test(cause.message);
  const sentence = `The registry in ${directory} ${damaged ? 'is damaged' : 'cannot be opened'}: ${messageOf(cause)}.`;
  if (!damaged) return new MillraceError('CHECKPOINT_DIRECTORY', sentence, { cause: error, todo: 'Check the directory and its rights.' });
  const { metadata } = await files.found();
  const away = `Move ${join(directory, 'registry')} away`;
  return new MillraceError('CHECKPOINT_DIRECTORY', sentence, {
    cause: error,
    retryable: false,
    todo:
      metadata === undefined
        ? `${away}; there is no checkpoint beside it, so the job then begins anew.`
        : `${away}, keep the rest, and restore the newest checkpoint by its path: --restore ${metadata} (restore: { from: '${metadata}' }).`,
  });
}

async function alreadyRunning(directory: string, job: string, io: Io): Promise<MillraceError> {
  let who = '';
  try {
    const { pid, since } = JSON.parse(await io.fs.readFile(join(directory, 'owner.json'), 'utf8')) as { pid: number; since: number };
    who = `: process ${pid}, since ${new Date(since).toISOString()}`;
  } catch {
    // The owner is just starting or ending; the sentence does without it.
  }
  return new MillraceError('JOB_ALREADY_RUNNING', `The job '${job}' runs already with the checkpoint directory ${directory}${who}.`, {
    todo: 'Stop that one first, give this one another directory, or wait for it with --wait (option `wait`).',
  });
}
