// `millrace`: the composition root. Everything a program types is listed here by name.

import { createRequire } from 'node:module';
import { jobsOf } from './api/job.ts';
import { verifySnapshot } from './checkpoint/verification.ts';
import type { ClusterJob } from './cluster/cluster-job.ts';
import type { Threads } from './cluster/threads.ts';
import { arraySource } from './connectors/arrays.ts';
import { iterableSource } from './connectors/iterables.ts';
import { MillraceError } from './errors.ts';
import { JobRun } from './execution/job-run.ts';
import { SILENT } from './graph/context.ts';
import type { RunOptions } from './graph/job.ts';
import type { Node } from './graph/node.ts';
import { openDoor } from './observe/door.ts';
import { answerState } from './observe/state-requests.ts';
import { type ReplayOptions, replayOf } from './offline/replay.ts';
import { operatorOf } from './operators/operator-of.ts';
import { queryableOf } from './operators/state-views.ts';
import { systemIo } from './runtime/io.ts';

const HOOKED = Symbol.for('millrace.hooked');
const HOST = Symbol.for('millrace.host');
const here = globalThis as { readonly [HOOKED]?: boolean; readonly [HOST]?: boolean };

function refuseInHost(job: string): void {
  if (here[HOST] !== true) return;
  throw new MillraceError('OPTION_INVALID', `The module of the job '${job}' starts it while a thread loads it.`, {
    todo: 'Start it in another module than the one that exports it, or only where isMainThread of node:worker_threads is true.',
  });
}

/** Loaded where it is asked for: a job in one thread starts without it. */
async function threadsOf(definition: { readonly name: string; build(): Node[] }, options: RunOptions): Promise<Threads> {
  const [{ threadData }, { Threads }] = await Promise.all([import('./cluster/thread-data.ts'), import('./cluster/threads.ts')]);
  const data = threadData(definition, options, here[HOOKED] === true);
  return new Threads({ count: options.threads!, entry: threadEntry(), data, io: systemIo(), log: options.logger ?? SILENT });
}

/** Loaded where it is asked for, and ZooKeeper's client with it. */
async function clusterJob(definition: { readonly name: string; build(): Node[] }, options: RunOptions): Promise<ClusterJob> {
  const [{ ClusterJob }, { clusterOptions }] = await Promise.all([import('./cluster/cluster-job.ts'), import('./cluster/options.ts')]);
  const { client, worker, threads, data } = clusterOptions(definition, options, here[HOOKED] === true);
  return new ClusterJob(definition, options, {
    cluster: options.cluster!,
    data,
    replica: {
      client,
      worker,
      threads: threads === 0 ? undefined : { count: threads, entry: threadEntry() },
      internals: { operators: operatorOf, queryable: queryableOf },
      answerState,
      version: (createRequire(import.meta.url)('millrace/package.json') as { version: string }).version,
      io: systemIo(),
      log: options.logger ?? SILENT,
    },
  });
}

function threadEntry(): URL {
  return new URL(import.meta.url.endsWith('.ts') ? './thread-main.ts' : './thread-main.js', import.meta.url);
}

/**
 * A job: a named program from sources to sinks. It is built here and runs with `start()` or `run()`, or by `millrace run` of the module whose default
 * export it is.
 *
 * @param name of the job, `[a-z0-9-]+`; everything it stores lies in a folder of that name.
 * @param build adds sources, operators and sinks; called anew for each start and restart.
 * @param defaults of the options of `start` and `run`, which override them one by one; none by default.
 * @throws JOB_NAME_INVALID; UID_INVALID, UID_DUPLICATE, OPTION_INVALID, PLAN_INVALID or PLAN_EMPTY when it is planned or started.
 * @example
 * const counts = new Map<string, number>();
 * const words = job('word-count', (env) => {
 *   env.fromArray('words', ['a', 'b', 'a']).map((word) => ({ word, n: 1 })).keyBy((w) => w.word)
 *     .reduce('counts', (l, r) => ({ word: l.word, n: l.n + r.n })).forEach('out', ({ word, n }) => void counts.set(word, n));
 * });
 * assert.equal((await words.run()).status, 'finished');
 * assert.deepEqual([...counts], [['a', 2], ['b', 1]]);
 */
export const job = jobsOf({
  arraySource,
  iterableSource,
  async start(definition, options) {
    refuseInHost(definition.name);
    if (options.cluster !== undefined) {
      const job = await clusterJob(definition, options);
      // Behind it the id is known, by which the door is found.
      await job.join();
      try {
        const running = await openDoor(job, options);
        await job.start(running.controlUrl);
        return running;
      } catch (error) {
        await job.withdraw(error);
        throw error;
      }
    }
    // Without threads nothing is waited for: a job's run begins in the turn of the call.
    const hosts = options.threads === undefined || options.threads === 0 ? undefined : await threadsOf(definition, options);
    const run = new JobRun(definition, options, { operators: operatorOf, queryable: queryableOf, hosts });
    const running = await openDoor(run, options);
    await run.start();
    return running;
  },
  verify: (definition, options, path) => verifySnapshot(definition, options, path, operatorOf),
  replay: (definition, options) => replayOf(definition, options as ReplayOptions),
});

export type {
  AccumulatorState,
  BroadcastMap,
  Handles,
  ListState,
  MapState,
  ReadonlyBroadcastMap,
  StateBackend,
  StateKind,
  StateOptions,
  ValueState,
} from '../state-backends/index.ts';
export { aggregating, broadcastMap, type KeyGroupRange, level, list, map, memory, reducing, splitList, unionList, value } from '../state-backends/index.ts';
export type { Job, RunningJob, StreamEnvironment } from './api/job.ts';
export {
  type BroadcastProcess,
  type ConnectedProcess,
  type Emitting,
  type KeyedBroadcastProcess,
  type KeyedConnectedProcess,
  type KeyedContext,
  type KeyedProcess,
  type OperatorContext,
  type Output,
  output,
  type ProcessDefinition,
  process,
  type RecordContext,
  type Timer,
  type Type,
  type,
} from './api/process.ts';
export type {
  BroadcastConnectedStreams,
  BroadcastStream,
  ConnectedStreams,
  Keyed,
  KeyedBroadcastConnectedStreams,
  KeyedConnectedStreams,
  KeyedStream,
  OperatorSettings,
  ProcessedStream,
  Stream,
  Windowed,
  WindowedStream,
  WindowResults,
} from './api/streams.ts';
export type { WindowContext, WindowProcess } from './api/window-process.ts';
export type { OperatorEdit, SavepointEdit } from './checkpoint/metadata.ts';
export { type AvroOptions, avro } from './connectors/avro.ts';
export { type Change, debezium } from './connectors/debezium.ts';
export { csv, type Format, json, msgpack, ndjson, type Schema, text } from './connectors/formats.ts';
export { ingress } from './connectors/ingress.ts';
export { type ProtobufOptions, protobuf } from './connectors/protobuf.ts';
export type { RegistryOptions } from './connectors/registry.ts';
export type { SubjectOptions, SubjectStrategy } from './connectors/registry-format.ts';
export { type ErrorCode, MillraceError } from './errors.ts';
export type { LogFn, Logger, Metrics } from './graph/context.ts';
export type {
  Backoff,
  CheckpointInfo,
  CheckpointOptions,
  Cluster,
  ControlTokens,
  DeadLetter,
  ErrorPolicy,
  JobError,
  JobEvent,
  JobResult,
  JobStatus,
  Key,
  MetricSample,
  RunOptions,
  SavepointInfo,
  TlsOptions,
  TreeNode,
  WorkerOptions,
} from './graph/job.ts';
export type { AggregateFunction, AsyncMapOptions, RetryPolicy, WatermarkGenerator, WatermarkStrategy } from './graph/node.ts';
export type { Plan } from './graph/plan.ts';
export { planGraph, planText } from './graph/plan-views.ts';
export type { Sink, SinkContext, SinkWriter, TransactionalSink, TransactionalWriter } from './graph/sink.ts';
export type { ReadContext, Source, SourceBatch, SourceContext } from './graph/source.ts';
export { type ReplayOptions, replay } from './offline/replay.ts';
export {
  type EditedSavepoint,
  editSavepoint,
  type FedJob,
  type FedProcess,
  newSavepoint,
  type SavepointEditor,
  type WriteOptions,
} from './offline/savepoint-editor.ts';
export { openSnapshot, type Snapshot, type SnapshotState, type StoredEntry } from './offline/snapshot-reading.ts';
export type { StoredKey, StoredTimers } from './offline/stored-keys.ts';
export type { ReplayedTimer, ReplayStep } from './offline/watched-operator.ts';
export { avg, collect, combine, count, distinct, first, histogram, last, max, maxBy, min, minBy, sum, topN } from './operators/aggregates.ts';
export { days, hours, millis, minutes, seconds } from './time/durations.ts';
export { evictCount, evictDelta, evictTime } from './time/evictors.ts';
export type { Timers } from './time/timers.ts';
export { early, every, never, onCount, onEventTime, onProcessingTime, purging } from './time/triggers.ts';
export type { Evictor, Timed, Trigger, TriggerContext, TriggerResult, Window, WindowAssigner } from './time/window.ts';
export { type AssignerOptions, global, session, sliding, tumbling } from './time/windows.ts';
