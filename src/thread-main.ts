// What a thread of `threads: n` runs: it loads the job's module and is a host (cluster/host.ts) until its leader is gone. The composition root of such a thread.

import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { type LevelOptions, level, memory, type StateBackend } from '../state-backends/index.ts';
import { definitionOf, type Job } from './api/job.ts';
import { below } from './checkpoint/addresses.ts';
import { SnapshotFiles } from './checkpoint/storage.ts';
import { hookModules } from './cli/hook-modules.ts';
import { Host } from './cluster/host.ts';
import { errorData } from './cluster/host-mail.ts';
import type { Described, ThreadData } from './cluster/thread-data.ts';
import type { ThreadAnswer, ThreadAsk, ThreadMail } from './cluster/thread-mail.ts';
import { threadLink } from './cluster/transport/thread-link.ts';
import { MillraceError } from './errors.ts';
import { operatorOf } from './operators/operator-of.ts';
import { type Io, systemIo } from './runtime/io.ts';
import { DirectoryStorage } from './storage/directory.ts';
import { type S3Options, s3 } from './storage/s3.ts';

const {
  job: name,
  module,
  state,
  checkpoints,
  hooks,
  number,
  leader,
  aloneMs,
} = workerData as ThreadData & { readonly number: number; readonly leader: MessagePort; readonly aloneMs?: number };
const LEADER = { peer: 'the main thread' };
const io = systemIo();

// Jobs that the module starts while it is loaded run in the thread that has loaded it first.
(globalThis as Record<symbol, unknown>)[Symbol.for('millrace.host')] = true;
if (hooks) hookModules();
if (module.startsWith('file:')) process.argv[1] = fileURLToPath(module);
const { default: job } = (await import(module)) as { default?: Job };
if (job === undefined || job.name !== name)
  throw new MillraceError('MODULE_WITHOUT_JOB', `The default export of ${module} is not the job '${name}', which is to run in threads.`, {
    todo: 'Make it the default export of a module of its own, and give its address: module.',
  });
const host = new Host({
  job: definitionOf(job),
  operators: operatorOf,
  number,
  backend: backendOf(state),
  storage: checkpoints === undefined ? undefined : storageOf(checkpoints, io),
  io,
  leader: threadLink(leader, LEADER),
  aloneMs,
});
parentPort!.on('message', (message: 'beat' | ThreadAsk) => {
  // A sign of life is asked for.
  if (message === 'beat') return parentPort!.postMessage('beat');
  const { ask } = message;
  let answer: Omit<ThreadAnswer, 'ask'>;
  try {
    answer = { value: done(message) };
  } catch (error) {
    answer = { error: errorData(error) };
  }
  if (ask !== undefined) parentPort!.postMessage({ ask, ...answer } satisfies ThreadAnswer);
});
parentPort!.postMessage('ready');
await host.ended;
// Whatever the module has left open.
process.exit(0);

function done(mail: ThreadMail): unknown {
  switch (mail.kind) {
    case 'join':
      return host.join(mail.peer, threadLink(mail.port, { peer: `thread-${mail.peer}`, within: mail.within }), mail.by);
    case 'standing':
      return host.standing();
    case 'adopt':
      return host.adopt(threadLink(mail.port, LEADER), mail.parts);
    case 'end':
      return host.end();
  }
}

function backendOf({ kind, settings }: Described): StateBackend {
  if (kind === 'memory') return memory();
  return level(settings as LevelOptions);
}

function storageOf({ directory, storage, verify }: NonNullable<ThreadData['checkpoints']>, to: Io): SnapshotFiles {
  const place = storage === undefined ? new DirectoryStorage(resolve(directory), to) : s3(storage.settings as S3Options);
  return new SnapshotFiles(place, below(place.root, name), { io: to, verify: verify ?? !place.checksummed });
}
