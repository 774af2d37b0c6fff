// A job on a simulated host, life after life: each but the last ends in a crash, and the next one goes on from the newest checkpoint at another parallelism. Its
// program may stall for a while of simulated time, so that records wait in front of barriers.

import { definitionOf, type Job } from '../../src/api/job.ts';
import { unpackMetadata } from '../../src/checkpoint/metadata.ts';
import { MillraceError } from '../../src/errors.ts';
import { JobRun } from '../../src/execution/job-run.ts';
import { CommittedSinks } from '../../src/testing/committed-sinks.ts';
import { type SourceScript, scriptedSource } from '../../src/testing/scripted-source.ts';
import { CHECKPOINTS, replaceStep, SimulatedHost } from '../../src/testing/simulated-host.ts';
import type { Random } from '../random.ts';

export interface LivesOptions {
  readonly seed: number;
  readonly random: Random;
  /** A stall of up to so many milliseconds. */
  readonly stall: number;
  readonly sources: SourceScript;
  readonly parallelisms: readonly number[];
  readonly unaligned: boolean | { after: number };
  readonly every: number;
}

export interface Lived {
  readonly sinks: Record<string, unknown[]>;
  /** Checkpoints completed, those that had records in flight, and how many those were. */
  readonly checkpoints: number;
  readonly withRecords: number;
  readonly records: number;
  /** Lives that ended in a crash behind such a checkpoint. */
  readonly restored: number;
  /** Of those, how many of whose tasks had timers of a watermark behind them and others not. */
  readonly advancing: number;
}

export async function lives(program: (stall: () => Promise<void>) => Job, options: LivesOptions): Promise<Lived> {
  const { seed, random, sources, parallelisms, unaligned, every } = options;
  let host = new SimulatedHost({ seed });
  const sinks = new CommittedSinks();
  const tally = { checkpoints: 0, withRecords: 0, records: 0, restored: 0, advancing: 0 };
  const stall = async (): Promise<void> => {
    const ms = random.below(options.stall);
    if (ms > 0 && !random.once(3)) await host.pause(ms);
  };
  const pause = async (signal: AbortSignal): Promise<void> => {
    await host.pause(1, signal);
    await host.faults?.step('source.read');
  };
  const definition = definitionOf(program(stall));
  const build = () => {
    const nodes = definition.build();
    for (const node of nodes) {
      const { step, uid } = node;
      if (step.kind === 'sink') replaceStep(node, { ...step, sink: sinks.sink(uid!) });
      if (step.kind === 'source') replaceStep(node, { ...step, source: scriptedSource({ uid: uid!, script: sources[uid!]!, reached: new Set(), pause }) });
    }
    return nodes;
  };
  for (const [index, parallelism] of parallelisms.entries()) {
    if (index > 0) host = new SimulatedHost({ seed: seed + index, after: host });
    const last = index === parallelisms.length - 1;
    // So many checkpoints are completed before the crash.
    let left = random.between(1, 4);
    let inFlight = 0;
    let advancing = 0;
    const reading: Promise<void>[] = [];
    const run = new JobRun(
      host.definition(definition.name, build),
      {
        parallelism,
        maxParallelism: 16,
        checkpoints: { directory: CHECKPOINTS, every, timeout: Number.POSITIVE_INFINITY, unaligned },
        restarts: false,
        onEvent: (event) => {
          if (event.type !== 'checkpoint') return;
          left -= 1;
          tally.checkpoints += 1;
          const { path } = event.checkpoint;
          reading.push(
            host.io.fs.readFile(path).then((bytes) => {
              const { tasks } = unpackMetadata(bytes, path);
              advancing = tasks.filter((t) => t.advancing === true && t.keyed !== undefined).length;
              inFlight = tasks.reduce((sum, t) => sum + (t.inFlight?.lanes ?? []).reduce((n, lane) => n + lane.records, 0), 0);
              tally.records += inFlight;
              if (inFlight > 0) tally.withRecords += 1;
            }),
          );
        },
      },
      host.internals(),
    );
    await host.play(run.start());
    if (!last)
      host.faults = {
        step: (name) => (left <= 0 && random.once(4) ? Promise.reject(new MillraceError('FAULT_INJECTED', `A crash at ${name}.`)) : undefined),
        loses: () => random.once(20),
      };
    const ended = await host.play(
      run.finished.then(
        () => 'finished',
        (error) => {
          if (last) throw error;
          return 'failed';
        },
      ),
    );
    host.faults = undefined;
    await Promise.all(reading);
    if (ended === 'finished') break;
    if (inFlight > 0) tally.restored += 1;
    tally.advancing += advancing;
  }
  return { sinks: sinks.values, ...tally };
}
