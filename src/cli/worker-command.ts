// `millrace worker <module…>`: this process joins a cluster with the jobs that those modules export by default, and stays until they have ended or it is told to leave.
//
// Signals: the first Ctrl-C, SIGTERM or SIGHUP leaves in order, with what it led handed over behind a last checkpoint; the jobs go on elsewhere. The second one ends the
// process at once: the others notice when its session is over.
//
// Invariants:
//  W1  Options of the command line go over those of the jobs, as for `millrace run`.
//  W2  Tasks run in threads of their own unless told otherwise, so that a busy operator does not cost the membership (protocols 18).

import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { zookeeper } from '../cluster/zookeeper/index.ts';
import { MillraceError, messageOf } from '../errors.ts';
import type { RunOptions, WorkerOptions } from '../graph/job.ts';
import { type LoadedJob, loadJob } from './job-module.ts';
import { checkpointsOf, countOf, durationOf, portOf, restoreOf, stateOf } from './option-values.ts';
import { sayEvent, sayResult, warningsTo } from './run-command.ts';
import { type Said, saying } from './said.ts';
import { type ZooKeeperFlags, zookeeperOf } from './where.ts';

export interface WorkerFlags extends ZooKeeperFlags {
  zookeeper: string;
  slots?: string;
  threads?: string;
  parallelism?: string;
  host?: string;
  port?: string;
  advertise?: string;
  data?: string;
  secretFile?: string;
  tlsCert?: string;
  tlsKey?: string;
  tlsCa?: string;
  checkpoints?: string;
  every?: string;
  state?: string;
  restore?: string;
  doorPort?: string;
  json?: boolean;
}

const NAMES = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** npm hands the terminal's Ctrl-C on to its child, which has had it already. */
const ECHO_MS = 300;

export async function workerCommand(paths: readonly string[], flags: WorkerFlags, moduleArguments: readonly string[]): Promise<number> {
  const said = saying(flags.json === true);
  const worker = workerOf(flags);
  const asked = optionsOf(flags);
  const jobs: (readonly [path: string, job: LoadedJob])[] = [];
  for (const path of paths) jobs.push([path, await loadJob(path, moduleArguments)]);
  const names = jobs.map(([, { name }]) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new MillraceError('OPTION_INVALID', `Two of the modules have a job '${twice}'.`, { todo: 'Give each job a name of its own.' });
  process.on('uncaughtException', (error) => {
    said.error(new MillraceError('MODULE_FAILED', `A module threw outside of its job: ${messageOf(error)}.`, { cause: error }));
    process.exit(1);
  });

  const cluster = zookeeper(zookeeperOf(flags));
  const leaving = new AbortController();
  const off = onSignals(said, () => leaving.abort());
  try {
    const codes = await Promise.all(
      jobs.map(([path, job]) => run(job, { ...asked(path, job, said), cluster, worker, signal: leaving.signal }, said, leaving.signal)),
    );
    return Math.max(...codes);
  } finally {
    off();
    await cluster.close();
    // Whatever a module has left open.
    setTimeout(() => process.exit(), 1000).unref();
  }
}

async function run(job: LoadedJob, options: RunOptions, said: Said, leaving: AbortSignal): Promise<number> {
  try {
    said.line(`${job.name}: joins`, { job: job.name, event: 'joins', pid: process.pid });
    const running = await job.start(options);
    said.line(`${job.name}: ${running.status}`, {
      job: job.name,
      event: 'started',
      id: running.id,
      pid: process.pid,
      restoredFrom: running.restoredFrom ?? null,
    });
    if (running.controlUrl !== undefined) said.line(`${job.name}: door at ${running.controlUrl}`, { job: job.name, event: 'door', url: running.controlUrl });
    sayResult(job.name, await running.finished, said);
    return 0;
  } catch (error) {
    if (leaving.aborted && (error as { code?: string }).code === 'CLUSTER_LEFT') {
      said.line(`${job.name}: goes on without this worker`, { job: job.name, event: 'left' });
      return 0;
    }
    said.error(error);
    return 1;
  }
}

function onSignals(said: Said, leave: () => void): () => void {
  let last = { name: '', at: Number.NEGATIVE_INFINITY };
  let count = 0;
  const on = (name: string): void => {
    const at = performance.now();
    const echo = name === last.name && at - last.at < ECHO_MS;
    last = { name, at };
    if (echo) return;
    count += 1;
    if (count > 1) process.exit(1);
    said.line('leaving: what this worker leads is handed over behind a last checkpoint (once more: at once)', { event: 'leaving', signal: name });
    leave();
  };
  for (const name of NAMES) process.on(name, on);
  return () => {
    for (const name of NAMES) process.off(name, on);
  };
}

function workerOf(flags: WorkerFlags): WorkerOptions {
  const { slots, host, port, advertise, data, secretFile, tlsCert, tlsKey, tlsCa } = flags;
  const tls = [tlsCert, tlsKey, tlsCa].filter((path) => path !== undefined).length;
  if (tls !== 0 && tls !== 3)
    throw new MillraceError('OPTION_INVALID', 'For TLS there must be --tls-cert, --tls-key and --tls-ca.', { todo: 'Name all three files.' });
  return {
    slots: slots === undefined ? 1 : countOf(slots, '--slots'),
    ...(host === undefined ? {} : { host }),
    ...(port === undefined ? {} : { port: portOf(port) }),
    ...(advertise === undefined ? {} : { advertise }),
    ...(data === undefined ? {} : { data: resolve(data) }),
    ...(secretFile === undefined ? {} : { secret: secretIn(secretFile) }),
    ...(tls === 0 ? {} : { tls: { cert: tlsCert!, key: tlsKey!, ca: tlsCa! } }),
  };
}

function secretIn(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (cause) {
    throw new MillraceError('OPTION_INVALID', `The secret in ${path} cannot be read: ${messageOf(cause)}.`, {
      cause,
      todo: 'Name a file that this user can read.',
    });
  }
}

/** W1. */
function optionsOf(flags: WorkerFlags): (path: string, job: LoadedJob, said: Said) => RunOptions {
  const { parallelism, checkpoints, every, state, restore, doorPort, slots } = flags;
  if (state !== undefined) stateOf(state);
  const places = { directory: checkpoints, every: every === undefined ? undefined : durationOf(every, '--every') };
  const restored = restore === undefined ? {} : { restore: restoreOf(restore) };
  const threads =
    flags.threads === undefined
      ? Math.min(availableParallelism(), slots === undefined ? 1 : countOf(slots, '--slots'))
      : countOf(flags.threads, '--threads', 0);
  const token = process.env.MILLRACE_TOKEN;
  return (path, { defaults }, said) => ({
    ...(parallelism === undefined ? {} : { parallelism: rangeIn(parallelism) }),
    threads,
    module: defaults.module ?? pathToFileURL(resolve(path)),
    checkpoints: checkpointsOf(places, defaults.checkpoints),
    ...(state === undefined ? {} : { state: stateOf(state === 'level' && flags.data !== undefined ? `level:${join(flags.data, 'state')}` : state) }),
    ...restored,
    control:
      defaults.control === false && doorPort === undefined
        ? false
        : { ...(token === undefined ? {} : { token }), ...defaults.control, ...(doorPort === undefined ? {} : { port: portOf(doorPort) }) },
    logger: defaults.logger ?? warningsTo(said),
    onEvent: (event) => {
      sayEvent(event, said);
      defaults.onEvent?.(event);
    },
  });
}

/** `4`, or `2-8`: within the slots that there are. */
export function rangeIn(text: string): NonNullable<RunOptions['parallelism']> {
  const range = /^(\d+)-(\d+)$/.exec(text);
  if (range === null) return countOf(text, '--parallelism');
  const [min, max] = [countOf(range[1]!, '--parallelism'), countOf(range[2]!, '--parallelism')];
  if (max < min) throw new MillraceError('OPTION_INVALID', `'${text}' is no range for --parallelism.`, { todo: 'Write the smaller number first: 2-8.' });
  return { min, max };
}
