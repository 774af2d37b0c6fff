// A whole job under test: scripts in the place of its sources, memory in the place of its sinks, the real engine between them, under a seed.

import type { StateBackend } from '../../state-backends/index.ts';
import { definitionOf, type Job } from '../api/job.ts';
import { MillraceError } from '../errors.ts';
import { JobRun } from '../execution/job-run.ts';
import { DEFAULT_RESTARTS } from '../execution/restarts.ts';
import type { Node } from '../graph/node.ts';
import { leastOf } from '../graph/parallelism.ts';
import { CommittedSinks } from './committed-sinks.ts';
import { isCrashMarker, type SourceScript, scriptedSource } from './scripted-source.ts';
import { type InjectedFaults, SeededFaults } from './seeded-faults.ts';
import { CHECKPOINTS, replaceStep, SimulatedHost } from './simulated-host.ts';

/** What a job came to under test. */
export interface JobOutcome<Sinks extends object> {
  /** By uid of each `sink()`: what it has committed. The order between instances is open. */
  sinks: { [U in keyof Sinks]: Sinks[U][] };
  /** How often a region was restored. */
  restarts: number;
  /** How many checkpoints were completed. */
  checkpoints: number;
}

/** What `runJob` is given beside the job. */
export interface RunJobOptions {
  /** In the place of the sources of these uids. They end, and so does the job. */
  sources?: SourceScript;
  /** The job's own by default, or 1. */
  parallelism?: number;
  /** `memory()` by default. */
  state?: StateBackend;
  /** Decides what runs first where the order is open, when checkpoints are taken, and feeds `ctx.random()`; 0 by default. */
  seed?: number;
}

/**
 * Runs a whole job: with scripts instead of its sources, and with every `sink()` replaced by one in memory that commits with checkpoints. `forEach` runs as written.
 * Checkpoints are kept in memory, whatever the job says, and taken at any place that the seed chooses. Nothing sleeps: time passes as fast as the job allows.
 *
 * @param job what `job()` gave.
 * @throws PLAN_INVALID where a script names no source, or a source without a script never ends; else what the job fails with.
 * @example
 * const counts = job('counts', (env) => {
 *   env.fromArray<string>('words', []).keyBy((word) => word).aggregate('count', count()).sink('out', collect([]));
 * });
 * const script = ['a', 'b', 'a'].map((value) => ({ value }));
 * const { sinks, restarts } = await runJob<{ out: Keyed<string, number> }>(counts, { sources: { words: [...script, crashMarker(), { value: 'a' }] } });
 * assert.equal(restarts, 1);
 * assert.deepEqual(sinks.out.filter(({ key }) => key === 'a').map(({ value }) => value), [1, 2, 3]);
 */
export function runJob<Sinks extends object = Record<string, unknown>>(job: Job, options: RunJobOptions = {}): Promise<JobOutcome<Sinks>> {
  return play<Sinks>(job, options, undefined);
}

/** What `simulate` is given beside the job. */
export interface SimulateOptions {
  /** The same seed repeats the same run. */
  seed: number;
  /** As in `runJob`. */
  sources?: SourceScript;
  /**
   * What goes wrong; nothing by default. A number below 1 is the probability at each occasion; a whole number is how often it happens at most, at occasions that
   * the seed chooses.
   *
   * `crash`: a region fails, at a step of a checkpoint, a commit or a restore, or between two records of a script, and is restored. At most 100 times.
   * `slow`: such a step stalls for 1 to 1,000 ms of simulated time.
   * `drop`: a task does not hear that a checkpoint was completed, or aborted.
   */
  faults?: InjectedFaults;
}

/**
 * Runs a whole job as `runJob` does, and lets things go wrong: seed by seed, another order and other faults. What sinks hold in the end must be what they hold
 * without faults, each value once.
 *
 * @param job what `job()` gave.
 * @throws PLAN_INVALID, OPTION_INVALID; else what the job fails with.
 * @example
 * const sums = job('sums', (env) => {
 *   env.fromArray<number>('in', []).keyBy((n) => n % 2).reduce('sum', (left, right) => left + right).sink('out', collect([]));
 * });
 * const sources = { in: [1, 2, 3, 4, 5, 6].map((value) => ({ value })) };
 * for (const seed of [1, 2, 3]) {
 *   const { sinks } = await simulate<{ out: number }>(sums, { seed, sources, faults: { crash: 2, slow: 0.1, drop: 0.2 } });
 *   assert.deepEqual(sinks.out.sort((a, b) => a - b), [1, 2, 4, 6, 9, 12]);
 * }
 */
export function simulate<Sinks extends object = Record<string, unknown>>(job: Job, options: SimulateOptions): Promise<JobOutcome<Sinks>> {
  const { faults, ...rest } = options;
  return play<Sinks>(job, rest, faults ?? {});
}

async function play<Sinks extends object>(job: Job, options: RunJobOptions, injected: InjectedFaults | undefined): Promise<JobOutcome<Sinks>> {
  const { sources = {}, parallelism, state, seed = 0 } = options;
  const definition = definitionOf(job);
  const host = new SimulatedHost({ seed, state });
  const faults = injected === undefined ? undefined : new SeededFaults(host, injected);
  const sinks = new CommittedSinks();
  const reached = new Set<string>();
  const scripts = Object.values(sources);
  const markers = scripts.flat().filter(isCrashMarker).length;
  const pause = async (signal: AbortSignal): Promise<void> => {
    await host.pause(1, signal);
    await host.faults?.step('source.read');
  };

  const build = (): readonly Node[] => {
    const nodes = definition.build();
    const uids = new Set(nodes.map((node) => node.uid));
    const unknown = Object.keys(sources).find((uid) => !uids.has(uid));
    if (unknown !== undefined) throw new MillraceError('PLAN_INVALID', `The job '${definition.name}' has no source '${unknown}' to play a script.`);
    for (const node of nodes) {
      const { step, uid } = node;
      if (step.kind === 'sink') replaceStep(node, { ...step, sink: sinks.sink(uid!) });
      if (step.kind !== 'source') {
        if (uid !== undefined && uid in sources) throw new MillraceError('PLAN_INVALID', `'${uid}' plays a script, but is no source.`, { uid });
        continue;
      }
      const script = sources[uid!];
      if (script !== undefined) replaceStep(node, { ...step, source: scriptedSource({ uid: uid!, script, reached, pause }) });
      else if (!step.source.bounded)
        throw new MillraceError('PLAN_INVALID', `The source '${uid}' never ends, and has no script.`, { uid: uid!, todo: 'Give it one in `sources`.' });
    }
    return nodes;
  };

  const outcome = { restarts: 0, checkpoints: 0 };
  const { maxParallelism, version, restarts = DEFAULT_RESTARTS, checkpoints } = job.defaults;
  const own = restarts === false ? { max: 0, within: 1 } : restarts;
  const run = new JobRun(
    host.definition(definition.name, build),
    {
      parallelism: parallelism ?? leastOf(job.defaults.parallelism),
      ...(maxParallelism === undefined ? {} : { maxParallelism }),
      ...(version === undefined ? {} : { version }),
      state: host.state.backend,
      checkpoints: {
        directory: CHECKPOINTS,
        every: between(host, Math.max(0, ...scripts.map((script) => script.length))),
        timeout: Number.POSITIVE_INFINITY,
        ...(typeof checkpoints === 'object' && checkpoints.unaligned !== undefined ? { unaligned: checkpoints.unaligned } : {}),
      },
      // Crashes that the test asked for do not count against what the job allows.
      restarts: { ...own, max: faults === undefined ? own.max + markers : Number.POSITIVE_INFINITY },
      onEvent: (event) => {
        if (event.type === 'restart') outcome.restarts += 1;
        if (event.type === 'checkpoint') outcome.checkpoints += 1;
      },
    },
    host.internals(),
  );
  await host.play(run.start());
  host.faults = faults;
  const result = await host.play(run.finished);
  if (result.cause !== undefined) throw result.cause;
  return { sinks: sinks.values as { [U in keyof Sinks]: Sinks[U][] }, ...outcome };
}

/** Simulated milliseconds between two checkpoints: some twenty in the longest script, however long it is. */
function between(host: SimulatedHost, records: number): number {
  return Math.ceil(Math.max(2, records / 20) * (0.5 + host.random()));
}
