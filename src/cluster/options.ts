// What the options of a start mean in a cluster. Pure; each throws OPTION_INVALID, or PLAN_INVALID, with a sentence.

import { MillraceError } from '../errors.ts';
import type { RunOptions, WorkerOptions } from '../graph/job.ts';
import type { Node } from '../graph/node.ts';
import { refuseAligned, threadData } from './thread-data.ts';
import type { Client } from './zookeeper/client.ts';
import { clientOf } from './zookeeper/zookeeper.ts';

export interface ClusterOptions {
  readonly client: Client;
  readonly worker: WorkerOptions;
  readonly threads: number;
  /** For threads, which build the job from it. */
  readonly data: object | undefined;
}

export function clusterOptions(job: { readonly name: string; build(): Node[] }, options: RunOptions, hooks: boolean): ClusterOptions {
  const { cluster, worker = {}, module, threads = 0, wait, state } = options;
  const client = cluster === undefined ? undefined : clientOf(cluster);
  if (client === undefined) throw invalid(`The cluster of the job '${job.name}' is none.`, "Give what zookeeper() of 'millrace/zookeeper' has returned.");
  if (module === undefined)
    throw invalid(
      `The job '${job.name}' is to run in a cluster, and its module is not named.`,
      'Make it the default export of a module, and give its address: module: import.meta.url.',
    );
  if (wait === true) throw invalid(`The job '${job.name}' waits for nobody in a cluster: a replica that starts it joins the others.`, 'Leave `wait` out.');
  if (state !== undefined && typeof state.kind !== 'string')
    throw invalid(`The state of the job '${job.name}' is no state backend.`, 'Use memory() or level().');
  const { slots = 1, port = 0 } = worker;
  if (!Number.isInteger(slots) || slots < 0)
    throw invalid(`worker.slots ${slots}: it is a whole number from 0 on.`, 'Say how many instances of an operator this process takes.');
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw invalid(`worker.port ${port} is no port.`, 'Write a number up to 65535; 0 takes a free one.');
  refuseAligned(job, 'workers');
  return { client, worker, threads, data: threads === 0 ? undefined : threadData(job, options, hooks) };
}

function invalid(sentence: string, todo: string): MillraceError {
  return new MillraceError('OPTION_INVALID', sentence, { todo });
}
