// How a command line finds the jobs of this machine: a small file for each job whose door listens.
//
// What: `<tmp>/millrace-<uid>/<pid>-<job>.json` = { job, id, pid, url, startedAt }. The job writes it when its door listens and removes it at its end;
// whoever reads, and the next job, cleans up after processes that died without.
//
// Invariants:
//  D1  The folder is ours (0700, no link, owned by this user) or it is not used: in a shared temporary folder anyone could have made it.
//  D2  A file is seen whole or not at all: it is written beside and renamed.
//  D3  A job removes its own file only: another run of the same name in this process may have replaced it.

import { randomBytes } from 'node:crypto';
import { chmodSync, lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { MillraceError, messageOf } from '../errors.ts';

export interface Announcement {
  readonly job: string;
  readonly id: string;
  readonly pid: number;
  readonly url: string;
  /** Epoch milliseconds. */
  readonly startedAt: number;
}

const MAX_BYTES = 16 * 1024;

export function discoveryFolder(): string {
  const user = process.getuid?.() ?? userInfo().username;
  return join(tmpdir(), `millrace-${user}`);
}

/** Writes the file and gives what removes it; synchronous, so that a process that is exiting can still call it. */
export function announce(announcement: Announcement, folder = discoveryFolder()): () => void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  // Also checks the folder (D1), and removes what killed processes left, so that nothing gathers where nobody looks.
  announced(folder);
  const path = join(folder, `${announcement.pid}-${announcement.job}.json`);
  const beside = join(folder, `.${announcement.pid}-${randomBytes(6).toString('hex')}`);
  writeFileSync(beside, `${JSON.stringify(announcement)}\n`, { mode: 0o600, flag: 'wx' });
  try {
    renameSync(beside, path);
  } catch (error) {
    rmSync(beside, { force: true });
    throw error;
  }
  const remove = (): void => {
    process.off('exit', remove);
    // D3.
    if (read(path)?.id === announcement.id) rmSync(path, { force: true });
  };
  process.on('exit', remove);
  return remove;
}

/** The jobs of this user whose processes live, oldest first; files of dead ones are removed. */
export function announced(folder = discoveryFolder()): Announcement[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw unusable(folder, messageOf(error));
  }
  checkFolder(folder);
  const found: Announcement[] = [];
  for (const name of names) {
    const pid = /^\.?(\d+)-/.exec(name)?.[1];
    if (pid === undefined) continue;
    if (!lives(Number(pid))) rmSync(join(folder, name), { force: true });
    else if (name.endsWith('.json')) {
      const announcement = read(join(folder, name));
      if (announcement !== undefined) found.push(announcement);
    }
  }
  return found.sort((a, b) => a.startedAt - b.startedAt);
}

function read(path: string): Announcement | undefined {
  try {
    if (lstatSync(path).size > MAX_BYTES) return undefined;
    const { job, id, pid, url, startedAt } = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
    if (typeof job !== 'string' || typeof id !== 'string' || typeof pid !== 'number' || typeof url !== 'string' || typeof startedAt !== 'number')
      return undefined;
    return { job, id, pid, url, startedAt };
  } catch {
    // Removed meanwhile, or nothing of ours: no job is announced here.
    return undefined;
  }
}

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** D1. */
function checkFolder(folder: string): void {
  const stat = lstatSync(folder);
  if (!stat.isDirectory()) throw unusable(folder, 'it is no folder');
  const uid = process.getuid?.();
  if (uid === undefined) return;
  if (stat.uid !== uid) throw unusable(folder, 'it belongs to another user');
  if ((stat.mode & 0o077) !== 0) chmodSync(folder, 0o700);
}

function unusable(folder: string, why: string): MillraceError {
  return new MillraceError('DIRECTORY_UNWRITABLE', `The folder ${folder}, where running jobs are found, cannot be used: ${why}.`, {
    todo: 'Remove it, set TMPDIR to a folder of your own, or name the job by --url.',
  });
}
