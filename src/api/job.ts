// `job()`: a named program. It builds a plan and runs nothing; the executor is passed in (src/index.ts).

import type { IncomingMessage, ServerResponse } from 'node:http';
import { MillraceError } from '../errors.ts';
import { GraphBuilder } from '../graph/builder.ts';
import type { CheckpointInfo, JobResult, JobStatus, Key, MetricSample, RunOptions, SavepointInfo, TreeNode } from '../graph/job.ts';
import type { Node, WatermarkStrategy } from '../graph/node.ts';
import { leastOf } from '../graph/parallelism.ts';
import { buildGraph, type Plan } from '../graph/plan.ts';
import type { Source } from '../graph/source.ts';
import { checkStrategy } from './arguments.ts';
import { from } from './stream.ts';
import type { Stream } from './streams.ts';

/** What a job's build function is given: the sources. */
export interface StreamEnvironment {
  /** A source under its uid; with `watermarks`, its records have event time. */
  source<T>(uid: string, source: Source<T>, watermarks?: WatermarkStrategy<T>): Stream<T>;
  /** Bounded. At parallelism p instance r reads the elements r, r + p, … */
  fromArray<T>(uid: string, values: readonly T[], watermarks?: WatermarkStrategy<T>): Stream<T>;
  /** On restore `make()` is called anew and as many records as the snapshot had read are passed over: give it something repeatable. */
  fromAsync<T>(uid: string, make: () => AsyncIterable<T>, watermarks?: WatermarkStrategy<T>): Stream<T>;
}

/** A job that runs. */
export interface RunningJob {
  /** Of this run. */
  readonly id: string;
  readonly name: string;
  readonly status: JobStatus;
  /** Rejects with a JobError where the job fails. */
  readonly finished: Promise<JobResult>;
  /** The checkpoint that this run started from; undefined where it began anew. */
  readonly restoredFrom: CheckpointInfo | undefined;
  /** What the CLI prints: every actor of the job with its state and figures. */
  tree(): Promise<TreeNode>;
  /** Figures of every task, and those of user code. */
  metrics(): Promise<MetricSample[]>;
  /**
   * What the job knows of one key at this moment: a copy, taken by the task that owns the key between two of its records; nothing waits for it and nothing
   * changes. Undefined where there is nothing. Rejects with STATE_NOT_FOUND, KEY_UNSUPPORTED, USER_FUNCTION_FAILED, STATE_IO or JOB_ENDED.
   *
   * @param state the name of declared state, which gives its value, an array of a list, a Map of a map, the result of an accumulator; 'value' of a running
   * reduce or aggregate; 'windows' of a window: a Windowed[] of those that are open, with the records as the value where the window makes something of
   * records ({ left, right } of two inputs); 'left' or 'right' of an interval join: the records that wait.
   * @param key left out for state that has none: an array of the items that all instances have of a `splitList` or `unionList`, the Map of a `broadcastMap`.
   */
  query<V>(uid: string, state: string, key?: Key): Promise<V | undefined>;
  /** Takes a checkpoint now; rejects with CHECKPOINTS_OFF, CHECKPOINT_FAILED, CHECKPOINT_EXPIRED or JOB_ENDED. */
  checkpoint(): Promise<CheckpointInfo>;
  /** Completed and still retained, oldest first. */
  checkpoints(): Promise<CheckpointInfo[]>;
  /**
   * Writes all that the job holds into that folder, which must be empty or not exist yet. It is yours: the job never looks at it again. Sinks commit nothing for
   * it. Rejects with SAVEPOINT_EXISTS, SAVEPOINT_FAILED, CHECKPOINTS_OFF, CHECKPOINT_FAILED, CHECKPOINT_EXPIRED or JOB_ENDED.
   */
  savepoint(directory: string): Promise<SavepointInfo>;
  /**
   * A last checkpoint, its commits, then the end; with `drain`, event time goes to the end first, so that windows fire. With `savepoint`, what that checkpoint
   * holds is written into that folder too, as `savepoint()` does.
   */
  stop(options?: { drain?: boolean; savepoint?: string }): Promise<JobResult>;
  /** Ends at once and commits nothing more; a commit that runs is awaited for 5 s. */
  cancel(): Promise<JobResult>;
  /** The control door, to mount in your own server; it asks for nothing, so put it behind your own authentication. */
  readonly handler: (request: IncomingMessage, response: ServerResponse) => void;
}

/** A named program, which has not run yet, and may run more than once. */
export interface Job {
  readonly name: string;
  /** What it was made with; options of `start` and `run` override them one by one. */
  readonly defaults: RunOptions;
  /** The graph: vertices, chains, edges, uids. JSON-serialisable. */
  plan(options?: { parallelism?: number }): Plan;
  /** Resolves when every task runs; rejects where it cannot start. */
  start(options?: RunOptions): Promise<RunningJob>;
  /** Starts, and waits for the end; rejects with a JobError where the job fails. */
  run(options?: RunOptions): Promise<JobResult>;
}

interface JobDefinition {
  readonly name: string;
  build(): Node[];
}

const DEFINITION = Symbol('definition');

/** What a job needs from outside: the sources behind `fromArray` and `fromAsync`, and who runs it. */
export interface Executor {
  arraySource<T>(values: readonly T[]): Source<T>;
  iterableSource<T>(make: () => AsyncIterable<T>): Source<T>;
  start(definition: JobDefinition, options: RunOptions): Promise<RunningJob>;
  /** Whether the job could be restored from the snapshot at that path. */
  verify?(definition: JobDefinition, options: RunOptions, path: string): Promise<object>;
  /** The steps of a key at an operator from a snapshot on. */
  replay?(definition: JobDefinition, options: object): AsyncIterable<object>;
}

/** Of a job, for the command, which may have loaded another copy of this package. */
export const VERIFY = Symbol.for('millrace.verify');
/** As VERIFY. */
const REPLAY = Symbol.for('millrace.replay');

export type JobFunction = (name: string, build: (env: StreamEnvironment) => void, defaults?: RunOptions) => Job;

export function jobsOf(executor: Executor): JobFunction {
  return (name, build, defaults = {}) => {
    if (typeof name !== 'string' || !/^[a-z0-9-]+$/.test(name))
      throw new MillraceError('JOB_NAME_INVALID', `'${String(name)}' is no name for a job.`, {
        todo: 'A name is made of lower-case letters, digits and hyphens.',
      });
    if (typeof build !== 'function') throw new MillraceError('PLAN_INVALID', `The job '${name}' needs a function that builds it.`);
    const nodes = (): Node[] => {
      const builder = new GraphBuilder();
      build(environment(builder, executor));
      return builder.nodes;
    };
    const definition: JobDefinition = { name, build: nodes };
    const start = (options: RunOptions = {}): Promise<RunningJob> => executor.start(definition, { ...defaults, ...defined(options) });
    const job: Job & {
      [DEFINITION]: JobDefinition;
      [VERIFY]: (options: RunOptions, path: string) => Promise<object> | undefined;
      [REPLAY]: (options: object) => AsyncIterable<object> | undefined;
    } = {
      [DEFINITION]: definition,
      [VERIFY]: (options, path) => executor.verify?.(definition, { ...defaults, ...defined(options) }, path),
      [REPLAY]: (options) => executor.replay?.(definition, options),
      name,
      defaults,
      plan: (options = {}) => {
        const parallelism = options.parallelism ?? leastOf(defaults.parallelism);
        return buildGraph(nodes(), { parallelism, version: defaults.version }).plan;
      },
      // An async function, so that whatever is wrong with the plan rejects instead of throwing.
      start: async (options) => start(options),
      run: async (options) => (await start(options)).finished,
    };
    return job;
  };
}

/** Of what `job()` gave: its name, and its nodes with fresh closures at each call. For those that run a job in another way. */
export function definitionOf(job: Job): JobDefinition {
  const definition = (job as Partial<{ [DEFINITION]: JobDefinition }> | undefined)?.[DEFINITION];
  if (definition === undefined) throw new MillraceError('PLAN_INVALID', 'This is no job.', { todo: 'Give what job() has returned.' });
  return definition;
}

/** Options given as undefined do not hide defaults. */
function defined(options: RunOptions): RunOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

function environment(builder: GraphBuilder, executor: Executor): StreamEnvironment {
  const source = <T>(uid: string, of: Source<T>, watermarks?: WatermarkStrategy<T>): Stream<T> => {
    if (typeof (of as Partial<Source<T>> | undefined)?.read !== 'function')
      throw new MillraceError('PLAN_INVALID', `source('${uid}') needs a source.`, { uid });
    checkStrategy(`The source '${uid}'`, uid, watermarks);
    return from<T>(
      builder,
      builder.add(uid, { kind: 'source', source: of as Source<unknown>, strategy: watermarks as WatermarkStrategy<unknown> | undefined }, []),
    );
  };
  return {
    source,
    fromArray: (uid, values, watermarks) => source(uid, executor.arraySource(values), watermarks),
    fromAsync: (uid, make, watermarks) => source(uid, executor.iterableSource(make), watermarks),
  };
}
