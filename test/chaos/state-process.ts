// A process that keeps 200,000 keys, from its newest checkpoint on, and is killed on its way by MILLRACE_FAULTS or from outside. Its one argument is its settings.
//
// It says, a line each: `leaked <file>` of what its start should have swept away, `running`, `checkpoint <id>`, and what became of what it was told to do.

import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { job, level, list, map, memory, process as processOf, type RunOptions, type Source, type, value } from 'millrace';
import { files } from 'millrace/connectors';
import { filesNamed, readMetadata } from '../../src/checkpoint/metadata.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { DirectoryStorage } from '../../src/storage/directory.ts';
import { ANSWERED, digestOf, ENTRIES, mixed, type Operation, operation, PER_SPLIT, SPLITS, withItem } from './state-model.ts';

export interface Settings {
  readonly folder: string;
  readonly backend: 'memory' | 'level';
  readonly cacheBytes: number;
  readonly parallelism: number;
  readonly every: number;
  /** Operations of each split; Infinity (null in JSON): without end. */
  readonly ends: readonly (number | null)[];
  /** From that savepoint. */
  readonly restore?: string;
  /** Behind the first checkpoint. */
  readonly task?: { readonly savepoint: string } | { readonly rescale: number } | { readonly stop: string };
}

const settings = JSON.parse(process.argv[2]!) as Settings;
const disk = new DirectoryStorage('.', systemIo());
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const BATCH = 200;

const operations: Source<Operation, number, number> = {
  bounded: true,
  splits: async () => Array.from({ length: SPLITS }, (_, split) => split),
  splitId: String,
  async *read(split, from = 0, { signal }) {
    const end = settings.ends[split] ?? Number.POSITIVE_INFINITY;
    for (let next = from; next < end && !signal.aborted; ) {
      const values = Array.from({ length: Math.min(BATCH, end - next) }, (_, i) => operation(split, next + i));
      next += values.length;
      if (next === PER_SPLIT) say('made');
      yield { values, position: next };
      // Once every key is there, time is for checkpoints and not for records.
      if (next > PER_SPLIT && settings.ends[split] === null) await sleep(10);
    }
  },
};

interface Row {
  n: number;
  h: number;
  expires: number;
}

const keys = processOf<number, Operation, unknown>()({
  emits: type<unknown>(),
  state: { row: value<Row>(), items: list<number>(), entries: map<string, number>() },
  onRecord({ split, i, key, at, what, n, gap }, ctx) {
    const { row: of, items, entries } = ctx.state;
    const forget = (): void => {
      of.clear();
      items.clear();
      entries.clear();
    };
    let row = of.get();
    if (row !== undefined) ctx.timers.event.delete(row.expires);
    if (row !== undefined && row.expires <= at) {
      ctx.emit({ key, at: row.expires });
      forget();
      row = undefined;
    }
    let digest = 0;
    if (what === 'drop') forget();
    else {
      row ??= { n: 0, h: 0, expires: 0 };
      // In place, as programs do.
      row.n += 1;
      row.h = mixed(row.h, n);
      row.expires = at + gap;
      of.set(row);
      ctx.timers.event.set(row.expires);
      if (what === 'item') items.set(withItem([...items], n));
      if (what === 'entry') entries.set(`e${n % ENTRIES}`, n);
      if (what === 'forget') entries.delete(`e${n % ENTRIES}`);
      digest = digestOf(row.n, row.h, row.expires, [...items], (place) => entries.get(`e${place}`));
    }
    if (i % ANSWERED === 0) ctx.emit({ split, i, digest });
  },
  onTimer({ at }, ctx) {
    const { row, items, entries } = ctx.state;
    if (row.get()?.expires !== at) throw new Error(`The timer of ${ctx.key} at ${at} finds ${JSON.stringify(row.get())}.`);
    ctx.emit({ key: ctx.key, at });
    row.clear();
    items.clear();
    entries.clear();
  },
});

const directory = join(settings.folder, 'checkpoints');
let told = false;
const before = await filesThere();
const running = await job('chaos', (env) => {
  env
    .source('operations', operations, { timestamp: ({ at }) => at })
    .keyBy(({ key }) => key)
    .process('keys', keys)
    .sink('out', files.sink({ directory: join(settings.folder, 'out') }));
}).start({
  parallelism: settings.parallelism,
  checkpoints: { directory, every: settings.every, tolerate: 100 },
  restarts: { max: 1000, within: 1e9, backoff: { initial: 5, max: 50 } },
  state: settings.backend === 'level' ? level({ directory: join(settings.folder, 'state'), cacheBytes: settings.cacheBytes }) : memory(),
  ...(settings.restore === undefined ? {} : { restore: { from: settings.restore, claim: true } satisfies RunOptions['restore'] }),
  onEvent: (event) => {
    if (event.type !== 'checkpoint') return;
    say(`checkpoint ${event.checkpoint.id}`);
    // The first event may come while start() is still under way.
    if (!told) setImmediate(() => void act().catch((error: unknown) => console.error(error)));
    told = true;
  },
  logger: { ...console, debug: () => {}, info: () => {}, warn: () => {}, error: console.error },
});
const { id } = running.restoredFrom ?? {};
for (const leaked of await leaks()) say(`leaked ${leaked}`);
say(`running ${id ?? 0}`);

async function act(): Promise<void> {
  const { task } = settings;
  if (task === undefined) return;
  if ('savepoint' in task) {
    await running.savepoint(task.savepoint);
    say('savepoint');
  } else if ('rescale' in task) {
    await (running as unknown as { rescale(parallelism: number): Promise<unknown> }).rescale(task.rescale);
    say('rescaled');
  } else {
    await running.stop({ savepoint: task.stop });
    say('saved');
  }
}

async function filesThere(): Promise<string[]> {
  const there: string[] = [];
  for (const folder of ['files', 'checkpoints'])
    for (const name of await readdir(join(directory, 'chaos', folder)).catch(() => [] as string[])) there.push(`${folder}/${name}`);
  return there;
}

/** What was there before the start and is still, although nothing names it. What is named is asked first: of these files fewer and fewer are. */
async function leaks(): Promise<string[]> {
  const named = new Set<string>();
  const paths = (await running.checkpoints()).map(({ path }) => path);
  try {
    for (const path of [...paths, ...(running.restoredFrom === undefined ? [] : [running.restoredFrom.path])]) {
      named.add(basename(path)).add(`${basename(path)}.copy`);
      for (const { name } of filesNamed(await readMetadata(disk, path))) named.add(name);
    }
  } catch {
    return []; // one of them was superseded meanwhile
  }
  const there = new Set(await filesThere());
  return before.filter((name) => there.has(name) && !named.has(basename(name)));
}

const { status } = await running.finished;
say(`ended ${status}`);
