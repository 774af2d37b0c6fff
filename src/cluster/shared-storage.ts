// Whether every worker of a job has the same checkpoint storage: whoever leads first leaves a file there, and its name in ZooKeeper; a process that does not find it has
// another folder under the same name.
//
// Invariant O1: the file is written before its name is; whoever reads the name finds the file, or has another storage.

import { randomBytes } from 'node:crypto';
import { below } from '../checkpoint/addresses.ts';
import type { SnapshotFiles } from '../checkpoint/storage.ts';
import { MillraceError } from '../errors.ts';
import type { Client } from './zookeeper/client.ts';
import { deposed, type Term } from './zookeeper/election.ts';
import { ZooKeeperError } from './zookeeper/errors.ts';
import { nodeName, registryOf } from './zookeeper/paths.ts';

/** By the leader. With `anew` there is nothing to lose: where the file is gone, somebody has emptied the folder. @throws STORAGE_NOT_SHARED, LEADER_DEPOSED */
export async function shareStorage(
  client: Client,
  term: Pick<Term, 'check' | 'epoch'>,
  job: string,
  files: SnapshotFiles,
  anew: () => Promise<boolean>,
): Promise<void> {
  const { storage: path } = registryOf(nodeName(job));
  await client.make(path);
  const { value, stat } = (await client.get(path))!;
  if (value.length > 0) {
    if (await has(files, value.toString())) return;
    if (!(await anew())) throw notShared(job, files);
  }
  const token = `shared-${randomBytes(8).toString('hex')}`;
  const writer = await files.storage.create(below(files.folder, token));
  await writer.append([Buffer.from(`${job}\n`)]);
  await writer.finish();
  try {
    await client.multi([term.check, { kind: 'set', path, value: Buffer.from(token), version: stat.version }]);
  } catch (error) {
    if (error instanceof ZooKeeperError && error.operation === 0 && error.reason !== undefined) throw deposed(term.epoch, error);
    throw error;
  }
}

/** By any worker, once there is a leader that has written it. @throws STORAGE_NOT_SHARED */
export async function checkStorage(client: Client, job: string, files: SnapshotFiles): Promise<void> {
  const found = await client.get(registryOf(nodeName(job)).storage);
  if (found !== undefined && found.value.length > 0 && !(await has(files, found.value.toString()))) throw notShared(job, files);
}

async function has(files: SnapshotFiles, token: string): Promise<boolean> {
  return (await files.storage.find(below(files.folder, token))) === 'file';
}

function notShared(job: string, files: SnapshotFiles): MillraceError {
  return new MillraceError(
    'STORAGE_NOT_SHARED',
    `What this process finds in ${files.folder} is not where the other workers keep the checkpoints of '${job}'.`,
    {
      todo: 'Give all of them a folder on a file system that they share, or storage: s3(). Where the folder was emptied on purpose, start the job with restore none.',
    },
  );
}
