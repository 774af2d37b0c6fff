// What a checkpoint directory of a real job is worth when one of its files is damaged: the outputs are those of an undamaged one, or the start is refused with a
// code and the file's name. Used for some damages by npm test, for every byte of small files by npm run test:chaos.
//
// What: a job with state of every kind, timers, windows and sinks takes checkpoints until its tasks have bases and deltas; then it is left as a killed process
// would leave it. Each trial copies that, damages one file, whatever files there are, goes on to the end, and compares.

import { existsSync } from 'node:fs';
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import {
  broadcastMap,
  hours,
  type Job,
  job,
  level,
  list,
  map,
  memory,
  process,
  type RunningJob,
  type RunOptions,
  reducing,
  session,
  splitList,
  sum,
  type TransactionalSink,
  tumbling,
  type,
  value,
} from 'millrace';
import { Conditions, Feed } from '../protocols/lab.ts';
import type { Random } from '../random.ts';

/** Memory where that is to be had: trials are many, and none of them asks what a power failure leaves. */
const PLACE = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

interface Entry {
  readonly key: string;
  readonly at: number;
  readonly n: number;
}

/** What is outside of the job: it outlives it, and can be copied. */
class Outside {
  /** By sink, then by identity of its writer. */
  readonly commits = new Map<string, Map<string, { readonly checkpoint: number; readonly records: readonly unknown[] }[]>>();
  readonly #conditions = new Conditions();
  #open = true;

  /** False: whoever commits waits until it is true again. */
  set open(open: boolean) {
    this.#open = open;
    this.#conditions.changed();
  }

  until(holds: () => boolean): Promise<void> {
    return this.#conditions.until(holds);
  }

  copy(): Outside {
    const copy = new Outside();
    for (const [uid, writers] of this.commits) copy.commits.set(uid, new Map([...writers].map(([identity, commits]) => [identity, [...commits]])));
    return copy;
  }

  sink(uid: string): TransactionalSink<unknown, unknown> {
    const writers = this.commits.get(uid) ?? new Map<string, { readonly checkpoint: number; readonly records: readonly unknown[] }[]>();
    this.commits.set(uid, writers);
    return {
      transactional: true,
      open: async ({ lineage, writer }) => {
        const identity = `${lineage}/${writer}`;
        const commits = writers.get(identity) ?? [];
        writers.set(identity, commits);
        return {
          commit: async (checkpoint, records) => {
            const held = [...records];
            await this.#conditions.until(() => this.#open);
            commits.push({ checkpoint, records: held });
            this.#conditions.changed();
          },
          lastCommitted: async () => commits.at(-1)?.checkpoint ?? 0,
          close: async () => {},
        };
      },
    };
  }

  count(uid: string): number {
    return [...(this.commits.get(uid)?.values() ?? [])].flat().reduce((sum, { records }) => sum + records.length, 0);
  }

  /** Every record of every sink, in an order of its own. */
  records(): string[] {
    const all = [...this.commits].flatMap(([uid, writers]) =>
      [...writers.values()].flat().flatMap(({ records }) => records.map((r) => `${uid} ${JSON.stringify(r)}`)),
    );
    return all.sort();
  }
}

const holding = process<string, Entry, unknown>()({
  state: {
    last: value<number>(),
    since: value<Date>({ ttl: hours(1_000_000) }),
    all: list<number>({ version: 3 }),
    by: map<string, string>(),
    total: reducing<number>((left, right) => left + right),
  },
  onRecord({ key, n, at }, ctx) {
    const { last, since, all, by, total } = ctx.state;
    last.set(n);
    if (since.get() === undefined) since.set(new Date(at));
    all.add(n);
    by.set(`n${n % 7}`, `${key}`.repeat(20));
    total.add(n);
    if (n % 11 === 0) all.clear();
    if (n % 5 === 0) by.delete('n1');
    ctx.timers.event.set(at + 20_000);
    ctx.emit({ key, n, last: last.get(), since: since.get()?.getTime(), all: [...all], by: [...by.keys()].sort(), total: total.get() });
  },
  onTimer({ at }, ctx) {
    ctx.emit({ key: ctx.key, at });
  },
});

function program(feed: Feed<Entry>, rules: Feed<number>, outside: Outside): Job {
  return job('damaged', (env) => {
    const entries = env.source('in', feed, { timestamp: ({ at }) => at });
    const byKey = entries.keyBy(({ key }) => key);
    byKey.process('holding', holding).sink('held', outside.sink('held'));
    byKey
      .window(tumbling(10_000))
      .aggregate(
        'sums',
        sum(({ n }: Entry) => n),
      )
      .sink('summed', outside.sink('summed'));
    byKey
      .window(session(4000))
      .process('sessions', ({ key, start, end }, values) => [{ key, start, end, of: [...values].map(({ n }) => n).sort((a, b) => a - b) }])
      .sink('met', outside.sink('met'));
    entries.sink('raw', outside.sink('raw'));
    entries
      .connect(env.source('rules', rules).broadcast())
      .process('ruled', {
        emits: type<unknown>(),
        state: { rules: broadcastMap<string, number>() },
        onLeft({ n }: Entry, ctx) {
          ctx.emit({ n });
        },
        onRight(rule: number, ctx) {
          ctx.state.rules.set(`r${rule}`, rule);
        },
      })
      .sink('out', outside.sink('out'));
    entries
      .process('lists', {
        state: { mine: splitList<number>() },
        onRecord({ n }: Entry, ctx) {
          ctx.state.mine.add(n);
        },
      })
      .sink('none', outside.sink('none'));
  });
}

/** So many that a base was made, and is all that retained checkpoints need of what was before. */
const BEFORE = 22;
const FIRST = 2;
const AFTER = 3;
const BATCH = 12;
const SPLITS = ['a', 'b'] as const;

/** The batches of one split: its own keys, in the order of their times, so that what becomes of a key does not depend on the other split. */
function batchOf(split: string, turn: number): Entry[] {
  return Array.from({ length: BATCH }, (_, i) => ({ key: `${split}${(turn * 5 + i) % 9}`, at: turn * 3000 + i * 200, n: turn * BATCH + i }));
}

function feedOf(turns: number): { feed: Feed<Entry>; rules: Feed<number> } {
  const feed = new Feed<Entry>({ splits: SPLITS });
  const rules = new Feed<number>();
  rules.push([1, 2, 3]);
  for (let turn = 0; turn < turns; turn++) push(feed, turn);
  return { feed, rules };
}
function push(feed: Feed<Entry>, turn: number): void {
  for (const split of SPLITS) feed.push(batchOf(split, turn), undefined, split);
}

export interface Fixture {
  readonly folder: string;
  readonly outside: Outside;
  /** The id of its newest checkpoint. */
  readonly newest: number;
  /** The same when the savepoint was taken. */
  readonly saved: Outside;
  /** Every output of the whole input, without damage. */
  readonly expected: readonly string[];
  remove(): Promise<void>;
}

const optionsOf = (folder: string, backend: 'memory' | 'level', parallelism: number): RunOptions => ({
  parallelism,
  checkpoints: { directory: join(folder, 'checkpoints'), every: 3_600_000 },
  state: backend === 'level' ? level({ directory: join(folder, 'state'), cacheBytes: 1 << 12 }) : memory(),
  restarts: false,
});

/** A job that was killed behind its newest checkpoint, which sinks have committed or not, and a savepoint of it in `saved`. */
export async function leftBehind(backend: 'memory' | 'level', committed: boolean): Promise<Fixture> {
  const folder = await mkdtemp(join(PLACE, 'millrace-damage-'));
  const outside = new Outside();
  const { feed, rules } = feedOf(FIRST);
  const start = (): Promise<RunningJob> => program(feed, rules, outside).start(optionsOf(join(folder, 'live'), backend, 2));
  // A second start, so that there is something of several attempts.
  const first = await start();
  await feed.taken();
  await first.stop();
  const running = await start();
  running.finished.catch(() => {});
  let saved = outside;
  let newest = 0;
  for (let turn = FIRST; turn < BEFORE; turn++) {
    const last = turn === BEFORE - 1;
    if (last) {
      await running.savepoint(join(folder, 'left', 'saved'));
      saved = outside.copy();
      outside.open = committed;
    }
    push(feed, turn);
    await feed.taken();
    newest = (await running.checkpoint()).id;
    if (!last || committed) await outside.until(() => outside.count('raw') === (turn + 1) * 2 * BATCH);
  }
  await copied(join(folder, 'live'), join(folder, 'left'));
  const left = outside.copy();
  outside.open = true;
  await running.cancel();
  await rm(join(folder, 'live'), { recursive: true });
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true });
  await cp(join(folder, 'left'), join(folder, 'straight'), { recursive: true });
  const straight = await goOn(left.copy(), join(folder, 'straight'), { backend: 'memory', parallelism: 1 });
  if ('error' in straight) throw straight.error;
  return { folder: join(folder, 'left'), outside: left, saved, newest, expected: straight.records, remove };
}

/** What is superseded goes behind a checkpoint: a copy meanwhile may miss a file. */
async function copied(from: string, to: string): Promise<void> {
  for (;;) {
    try {
      return await cp(from, to, { recursive: true });
    } catch (error) {
      if ((error as { code?: string }).code !== 'ENOENT') throw error;
    }
  }
}

/** Every file that there is, relative to the folder. */
export async function filesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && !/^(?:LOCK|LOG|LOG\.old)$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}

/** One file of each sort, drawn: files that differ in numbers only are of one sort. */
export function ofEachSort(files: readonly string[], random: Random): string[] {
  const sorts = new Map<string, string[]>();
  for (const name of files) {
    const sort = name.replace(/^state\/[^/]+/, 'state').replace(/\d+/g, '#');
    sorts.set(sort, [...(sorts.get(sort) ?? []), name]);
  }
  return [...sorts.values()].map((like) => random.of(like));
}

export type Damage =
  | { readonly kind: 'flip'; readonly byte: number; readonly bit: number }
  | { readonly kind: 'truncate'; readonly to: number }
  | { readonly kind: 'extend' | 'empty' | 'delete' }
  | { readonly kind: 'swap'; readonly with: string };

export function damageOf(random: Random, size: number, others: readonly string[]): Damage {
  const kind = random.of(['flip', 'flip', 'flip', 'flip', 'truncate', 'truncate', 'extend', 'empty', 'delete', 'swap'] as const);
  if (size > 0 && kind === 'flip') return { kind, byte: random.below(size), bit: random.below(8) };
  if (size > 0 && kind === 'truncate') return { kind, to: random.below(size) };
  if (kind === 'swap' && others.length > 0) return { kind, with: random.of(others) };
  return { kind: kind === 'empty' || kind === 'delete' ? kind : 'extend' };
}

export async function inflict(path: string, damage: Damage, folder: string): Promise<void> {
  if (damage.kind === 'delete') return rm(path);
  if (damage.kind === 'empty') return writeFile(path, '');
  const bytes = await readFile(path);
  if (damage.kind === 'flip') bytes[damage.byte]! ^= 1 << damage.bit;
  if (damage.kind === 'swap') {
    const other = join(folder, damage.with);
    await writeFile(path, await readFile(other));
    await writeFile(other, bytes);
    return;
  }
  await writeFile(
    path,
    damage.kind === 'truncate' ? bytes.subarray(0, damage.to) : damage.kind === 'extend' ? Buffer.concat([bytes, Buffer.from([0])]) : bytes,
  );
}

type Ended = { readonly records: readonly string[]; readonly restoredFrom: number | undefined } | { readonly error: unknown };

interface How {
  readonly backend: 'memory' | 'level';
  readonly parallelism: number;
  /** From the savepoint, with a checkpoint directory of its own. */
  readonly saved?: boolean;
  readonly allow?: boolean;
}

/** Goes on from what is left in the folder, with all the input there is, to the end. */
async function goOn(outside: Outside, folder: string, { backend, parallelism, saved = false, allow = false }: How): Promise<Ended> {
  try {
    const { feed, rules } = feedOf(BEFORE + AFTER);
    feed.end();
    rules.end();
    const options = optionsOf(folder, backend, parallelism);
    const elsewhere: RunOptions = {
      checkpoints: { directory: join(folder, 'elsewhere'), every: 3_600_000 },
      restore: { from: join(folder, 'saved'), allowNonRestoredState: allow },
    };
    const running = await program(feed, rules, outside).start(saved ? { ...options, ...elsewhere } : options);
    await running.finished;
    return { records: outside.records(), restoredFrom: running.restoredFrom?.id };
  } catch (error) {
    return { error };
  }
}

export type Outcome = 'unharmed' | 'fell back' | 'refused';

const CODES: ReadonlySet<unknown> = new Set(['SNAPSHOT_CORRUPT', 'RESTORE_WOULD_DUPLICATE', 'CHECKPOINT_DIRECTORY', 'CHECKPOINT_NOT_FOUND']);
const HANGS_MS = 30_000;

/** What came of a damaged file; throws where it was none of what is allowed. */
export async function trial(fixture: Fixture, name: string, damage: Damage, random: Random): Promise<Outcome> {
  const backend = random.of(['memory', 'level'] as const);
  const parallelism = random.between(1, 3);
  const saved = name.startsWith('saved');
  const allow = saved && random.once(3);
  const said = `${name}, ${JSON.stringify(damage)}, into ${backend}() at parallelism ${parallelism}${allow ? ', dropping what is not known' : ''}`;
  const folder = await mkdtemp(join(PLACE, 'millrace-damage-'));
  try {
    await cp(fixture.folder, folder, { recursive: true });
    await inflict(join(folder, name), damage, folder);
    const outside = (saved ? fixture.saved : fixture.outside).copy();
    const ended = await Promise.race([
      goOn(outside, folder, { backend, parallelism, saved, allow }),
      new Promise<never>((_, reject) => setTimeout(() => reject(new Error(`${said}: it hangs`)), HANGS_MS).unref()),
    ]);
    if ('error' in ended) {
      const { code, message } = ended.error as { code?: unknown; message: string };
      if (!CODES.has(code)) throw new Error(`${said}: the error has no code for it (${String(code)})`, { cause: ended.error });
      const others = damage.kind === 'swap' ? [damage.with] : [];
      const names =
        [name, ...others].some((each) => message.includes(basename(each))) || /\/registry\//.test(name) || (saved && code === 'CHECKPOINT_NOT_FOUND');
      if (!names) throw new Error(`${said}: the error does not name the file`, { cause: ended.error });
      return 'refused';
    }
    const wanted = fixture.expected;
    const { records } = ended;
    if (records.length !== wanted.length || records.some((record, i) => record !== wanted[i]))
      throw new Error(`${said}: other outputs\n${differences(records, wanted)}`);
    return ended.restoredFrom === fixture.newest || saved ? 'unharmed' : 'fell back';
  } finally {
    await rm(folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

function differences(got: readonly string[], wanted: readonly string[]): string {
  const balance = new Map<string, number>();
  for (const record of wanted) balance.set(record, (balance.get(record) ?? 0) + 1);
  for (const record of got) balance.set(record, (balance.get(record) ?? 0) - 1);
  const wrong = [...balance].filter(([, n]) => n !== 0);
  return wrong
    .slice(0, 5)
    .map(([record, n]) => `${n > 0 ? 'lost' : 'too much'}: ${record}`)
    .join('\n');
}
