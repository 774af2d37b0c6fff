// `millrace state ls | get | scan | diff | export | edits`: keyed state of a job that runs, or of one of its checkpoints, or of a savepoint.
//
// What: without --at a running job is asked through its door, and answers with what is there at this moment. With --at the files of a snapshot are read by
// this process, and no job is asked for more than where they lie. An export reads a snapshot too: one that is taken for it, unless --at names another.
//
// Invariants:
//  S1  Nothing is changed, neither in the job nor on the disk.
//  S2  What is printed goes out as it is read: state may be larger than memory. A reader that goes away ends the command without an error.

import { once } from 'node:events';
import type { Command } from 'commander';
import { diffSnapshots, openSnapshot, type SnapshotEntry, type SnapshotInspector } from '../checkpoint/inspect.ts';
import { MillraceError } from '../errors.ts';
import { hasPrefix, type StateSummary } from '../execution/state-queries.ts';
import type { CheckpointInfo } from '../graph/job.ts';
import { keyOf, keyText, shown } from '../observe/state-json.ts';
import { systemIo } from '../runtime/io.ts';
import { ask, chooseJob, type FoundJob } from './door-client.ts';
import { at, print } from './look-commands.ts';
import { countOf } from './option-values.ts';
import { CHECKPOINT_DIRECTORY, hasCheckpoints, notFound, storedCheckpoint } from './stored-checkpoints.ts';
import { editLines, table } from './views.ts';
import { isNamed, type Where, withWhere } from './where.ts';

/** How a snapshot is found by its id. */
export interface SnapshotFlags extends Where {
  readonly job?: string;
  readonly json?: boolean;
  readonly checkpoints?: string;
}
interface Flags extends SnapshotFlags {
  readonly at?: string;
}
interface ScanFlags extends Flags {
  readonly prefix?: string;
  readonly limit?: string;
  readonly largest?: string;
}

const SCAN_LIMIT = 100;

/** Adds the group; gives it, since others add to it. */
export function addStateCommands(program: Command): Command {
  const group = program.command('state').description('Look at keyed state: of a running job, a checkpoint or a savepoint');
  const add = (usage: string, about: string): Command =>
    withWhere(
      group
        .command(usage)
        .description(about)
        .option('--at <snapshot>', 'a savepoint or checkpoint by its path, or a retained one by its id; latest is the newest')
        .option('--checkpoints <dir>', 'where the checkpoints of a job lie that does not run (.millrace)'),
    ).option('--json', 'answer with JSON');
  const named = (command: Command): Command => command.option('--job <name>', 'which job, where several run or have checkpoints');
  add('ls [job]', 'List operators with their states, how many keys these have and how large they are').action((job: string | undefined, flags: Flags) =>
    listCommand({ ...flags, ...(job === undefined ? {} : { job }) }),
  );
  named(add('get <uid> <state> [key]', 'Show what one key has, which is a word, 12n, or JSON; without a key, all of state that has none')).action(getCommand);
  named(add('scan <uid> [state]', 'Show keys with what they have'))
    .option('--prefix <text>', 'only keys that begin so, or whose first part does')
    .option('--limit <n>', `at most so many (${SCAN_LIMIT})`)
    .option('--largest <n>', 'look at all, and show so many with the largest values')
    .action(scanCommand);
  named(add('export <uid> [state]', 'Write all of it as lines of JSON; of a running job, as a checkpoint has it that is taken now')).action(exportCommand);
  const naming = (usage: string, about: string): Command =>
    withWhere(
      named(group.command(usage).description(about)).option('--checkpoints <dir>', 'where the checkpoints of a job lie that does not run (.millrace)'),
    ).option('--json', 'lines of JSON');
  naming('diff <a> <b> [uid]', 'Show what differs between two snapshots, named as for --at').action(diffCommand);
  naming('edits <snapshot>', 'Show what was done to a snapshot without a job: who, when, of what it was made, what has changed').action(editsCommand);
  return group;
}

async function listCommand(flags: Flags): Promise<void> {
  let states: readonly StateSummary[];
  if (flags.at === undefined) {
    const job = await chooseJob(flags.job, flags);
    states = await ask<StateSummary[]>(job.url, 'GET', at(job, 'state'));
  } else {
    const snapshot = await snapshotOf(flags.at, flags);
    states = await snapshot.list();
    const { edits = [] } = snapshot.metadata;
    if (flags.json !== true && edits.length > 0) print(editLines(edits));
  }
  if (flags.json === true) print([JSON.stringify(states)]);
  else if (states.length === 0) print([flags.at === undefined ? 'The job keeps no state by key.' : 'Nothing is stored there.']);
  else {
    const hot = states.some(({ hotKeys }) => hotKeys !== undefined);
    print(
      table([
        ['OPERATOR', 'STATE', 'KIND', flags.at === undefined ? 'ROWS' : 'KEYS', 'BYTES', ...(hot ? ['HOT KEYS'] : [])],
        ...states.map(({ uid, state, kind, rows, bytes, hotKeys }) => [uid, state, kind, String(rows), String(bytes), ...(hot ? [hotText(hotKeys)] : [])]),
      ]),
    );
  }
}

/** `ada 34 %, bob 2 %`; as a door gives it, of JSON. */
function hotText(hotKeys: StateSummary['hotKeys'] = []): string {
  return hotKeys.map(({ key, share }) => `${keyText(keyOf(JSON.stringify(key)))} ${Math.round(share * 100)} %`).join(', ');
}

async function editsCommand(which: string, flags: Flags): Promise<void> {
  const { edits = [] } = (await snapshotOf(which, flags)).metadata;
  if (flags.json === true) await writeAll(edits.map((edit) => JSON.stringify(edit)));
  else print(edits.length === 0 ? ['It is as the job has written it.'] : editLines(edits));
}

async function getCommand(uid: string, state: string, text: string | undefined, flags: Flags): Promise<void> {
  const key = text === undefined ? undefined : keyOf(text);
  let answer: { found: boolean; value: unknown };
  if (flags.at === undefined) {
    const job = await chooseJob(flags.job, flags);
    answer = await ask(job.url, 'GET', question(job, 'get', { uid, state, key: text }));
  } else {
    const value = await (await snapshotOf(flags.at, flags)).get(uid, state, key);
    answer = { found: value !== undefined, value: shown(value) };
  }
  if (flags.json === true) print([JSON.stringify(answer.found ? answer : { found: false })]);
  else if (answer.found) print([JSON.stringify(answer.value, null, 2)]);
  else if (key === undefined) throw new MillraceError('STATE_NOT_FOUND', `The state '${state}' of '${uid}' is empty.`, { uid });
  else
    throw new MillraceError('STATE_NOT_FOUND', `The key ${keyText(key)} has nothing in the state '${state}' of '${uid}'.`, {
      uid,
      todo: `Is the key of that type? ${keyText(key)} was taken for a ${Array.isArray(key) ? 'list' : typeof key}; quote a word that is to be a string.`,
    });
}

async function scanCommand(uid: string, state: string | undefined, flags: ScanFlags): Promise<void> {
  const limit = flags.limit === undefined ? SCAN_LIMIT : countOf(flags.limit, '--limit');
  const largest = flags.largest === undefined ? undefined : countOf(flags.largest, '--largest');
  if (flags.at === undefined) {
    const job = await chooseJob(flags.job, flags);
    const { prefix } = flags;
    const entries = await ask<Line[]>(
      job.url,
      'GET',
      question(job, 'scan', { uid, state, prefix, limit: String(limit), largest: largest === undefined ? undefined : String(largest) }),
    );
    await writeAll(entries.map((entry) => lineOf({ ...entry, uid }, flags.json === true, state === undefined)));
    return;
  }
  const snapshot = await snapshotOf(flags.at, flags);
  const entries = snapshot.entries({ uid, state, ...(flags.prefix === undefined ? {} : { key: (key) => hasPrefix(key, flags.prefix) }) });
  await writeAll(lines(largest === undefined ? first(entries, limit) : await largestOf(entries, largest), flags.json === true, state === undefined));
}

async function exportCommand(uid: string, state: string | undefined, flags: Flags): Promise<void> {
  const snapshot = flags.at === undefined ? await taken(flags) : await snapshotOf(flags.at, flags);
  await writeAll(lines(snapshot.entries({ uid, state }), true, true));
}

async function diffCommand(a: string, b: string, uid: string | undefined, flags: Flags): Promise<void> {
  const [one, other] = [await snapshotOf(a, flags), await snapshotOf(b, flags)];
  await writeAll(
    (async function* () {
      for await (const { uid: of, state, key, change, ...sides } of diffSnapshots(one, other, uid)) {
        if (flags.json === true) {
          const values = Object.fromEntries(Object.entries(sides).map(([name, value]) => [name, shown(value)]));
          yield JSON.stringify({ uid: of, state, ...(key === undefined ? {} : { key: shown(key) }), change, ...values });
          continue;
        }
        const [before, after] = [JSON.stringify(shown(sides.before)), JSON.stringify(shown(sides.after))];
        const said = change === 'added' ? after : change === 'removed' ? before : `${before} → ${after}`;
        yield `${change === 'added' ? '+' : change === 'removed' ? '-' : '~'} ${of} ${state} ${key === undefined ? '' : `${keyText(key)} `}${said}`;
      }
    })(),
  );
}

// ── lines ──

/** As a door gives it: of JSON. */
interface Line {
  readonly uid: string;
  readonly state: string;
  readonly key?: unknown;
  readonly value: unknown;
  readonly bytes?: number;
}

function lineOf({ uid, state, key, value, bytes }: Line, json: boolean, withState: boolean): string {
  if (json) return JSON.stringify({ uid, state, ...(key === undefined ? {} : { key }), value, ...(bytes === undefined ? {} : { bytes }) });
  const cells = [
    ...(withState ? [state] : []),
    ...(key === undefined ? [] : [keyText(keyOf(JSON.stringify(key)))]),
    ...(bytes === undefined ? [] : [`${bytes} bytes`]),
  ];
  return [...cells, JSON.stringify(value)].join('\t');
}

async function* lines(entries: AsyncIterable<SnapshotEntry> | Iterable<SnapshotEntry>, json: boolean, withState: boolean): AsyncGenerator<string> {
  for await (const { uid, state, key, value } of entries)
    yield lineOf({ uid, state, ...(key === undefined ? {} : { key: shown(key) }), value: shown(value) }, json, withState);
}

async function* first(entries: AsyncIterable<SnapshotEntry>, limit: number): AsyncGenerator<SnapshotEntry> {
  let n = 0;
  for await (const entry of entries) {
    yield entry;
    if (++n >= limit) return;
  }
}

async function largestOf(entries: AsyncIterable<SnapshotEntry>, n: number): Promise<SnapshotEntry[]> {
  let found: SnapshotEntry[] = [];
  const cut = (): void => {
    found = found.sort((one, other) => other.bytes - one.bytes).slice(0, n);
  };
  for await (const entry of entries) {
    found.push(entry);
    if (found.length >= 2 * n + 64) cut();
  }
  cut();
  return found;
}

/** S2. */
export async function writeAll(all: AsyncIterable<string> | Iterable<string>): Promise<void> {
  const { stdout } = process;
  let failure: NodeJS.ErrnoException | undefined;
  const onError = (error: NodeJS.ErrnoException): void => {
    failure = error;
  };
  stdout.on('error', onError);
  for await (const line of all) {
    if (!stdout.write(`${line}\n`)) await Promise.race([once(stdout, 'drain'), once(stdout, 'close')]).catch(onError);
    if (failure !== undefined) break;
  }
  if (failure !== undefined && failure.code !== 'EPIPE') throw failure;
}

// ── which snapshot, which job ──

function question(job: FoundJob, what: 'get' | 'scan', params: Readonly<Record<string, string | undefined>>): string {
  const given = Object.entries(params).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return `${at(job, `state/${what}`)}?${new URLSearchParams(given)}`;
}

/** A checkpoint of the job that runs, as it is now. */
async function taken(flags: Flags): Promise<SnapshotInspector> {
  const job = await chooseJob(flags.job, flags);
  const { path } = await ask<CheckpointInfo>(job.url, 'POST', at(job, 'checkpoint'));
  return openSnapshot(path, systemIo());
}

async function snapshotOf(which: string, flags: Flags): Promise<SnapshotInspector> {
  return openSnapshot(await pathOfSnapshot(which, flags), systemIo());
}

/** By path; or by id, or `latest`, of the job that runs or whose checkpoints lie in the folder. */
export async function pathOfSnapshot(which: string, flags: SnapshotFlags): Promise<string> {
  const id = /^\d+$/.test(which) ? Number(which) : undefined;
  if (id === undefined && which !== 'latest') return which;
  if (flags.checkpoints !== undefined) return storedCheckpoint(flags.checkpoints, flags.job, id);
  let job: FoundJob;
  try {
    job = await chooseJob(flags.job, flags);
  } catch (error) {
    // It does not run: what it has left lies where the command keeps checkpoints, unless an address was named.
    if ((error as Partial<MillraceError>).code !== 'JOB_NOT_FOUND' || isNamed(flags) || !(await hasCheckpoints())) throw error;
    return storedCheckpoint(CHECKPOINT_DIRECTORY, flags.job, id);
  }
  const retained = await ask<CheckpointInfo[]>(job.url, 'GET', at(job, 'checkpoints'));
  const found = id === undefined ? retained.at(-1) : retained.find((checkpoint) => checkpoint.id === id);
  if (found === undefined)
    throw notFound(
      which,
      `of the job '${job.name}'`,
      retained.map((checkpoint) => checkpoint.id),
    );
  return found.path;
}
