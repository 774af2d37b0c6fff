// Every step at which a process can be killed, with how it is reached. A rule test holds this list against the sources, so that no step is forgotten.

import { FILES_SINK_STEPS } from '../../src/connectors/files-sink.ts';
import { KAFKA_SINK_STEPS } from '../../src/connectors/kafka/transactional-writer.ts';
import { POSTGRES_SINK_STEPS } from '../../src/connectors/postgres/sink.ts';
import { REDIS_STREAM_STEPS } from '../../src/connectors/redis/stream-sink.ts';
import type { Query } from './workloads.ts';

/** Reached in the first run of a job; the number is the time it is killed at, late enough that something lies behind it. */
const RUNNING: Readonly<Record<string, number>> = {
  'job.attempt': 1,
  'job.finish': 1,
  'restore.state.open': 1,
  'restore.opened': 2,
  'sink.open': 1,
  'checkpoint.trigger': 4,
  'checkpoint.reserve': 1,
  'checkpoint.delta.upload': 5,
  'checkpoint.segment.upload': 4,
  'checkpoint.inflight.upload': 6,
  'checkpoint.ack': 8,
  'checkpoint.metadata.write': 3,
  'checkpoint.metadata.copy': 3,
  'checkpoint.metadata.written': 3,
  'checkpoint.register': 3,
  'checkpoint.registered': 3,
  'checkpoint.prune': 1,
  'checkpoint.prune.file': 2,
  'base.begin': 1,
  'base.linked': 1,
  'base.copy': 1,
  'base.upload': 1,
  'base.made': 1,
  'sink.commit': 2,
  'sink.committed': 2,
};

/** Reached only when a run goes on where another one was killed. */
const RESTORING: Readonly<Record<string, number>> = {
  'restore.read': 1,
  'restore.load': 2,
  'restore.base': 1,
  'restore.commit': 1,
  'restore.committed': 1,
  'sweep.remove': 1,
};

/** Of the file sink, those that a writer without a predecessor never meets. */
const TAKING_OVER: ReadonlySet<string> = new Set(['sink.files.fence', 'sink.files.copy', 'sink.files.sweep']);

export interface Step {
  readonly name: string;
  readonly at: number;
  readonly restoring: boolean;
}

export const STEPS: readonly Step[] = [
  ...Object.entries(RUNNING).map(([name, at]) => ({ name, at, restoring: false })),
  ...Object.entries(RESTORING).map(([name, at]) => ({ name, at, restoring: true })),
  ...FILES_SINK_STEPS.map((name) => ({ name, at: TAKING_OVER.has(name) || name === 'sink.files.folder' ? 1 : 3, restoring: TAKING_OVER.has(name) })),
];

/** Not reached by the trials, which make no savepoint: processes are killed at them in test/checkpoint/savepoints-killed.test.ts, and savepoints.test.ts lets them fail. */
export const SAVEPOINT_STEPS: readonly string[] = ['savepoint.file', 'savepoint.metadata', 'savepoint.written', 'savepoint.remove', 'restore.import'];

/** Not reached by the trials, which write files: processes are killed at them where these connectors are tested, as in test/e2e/kafka.test.ts. */
export const CONNECTOR_STEPS: readonly string[] = [...KAFKA_SINK_STEPS, ...POSTGRES_SINK_STEPS, ...REDIS_STREAM_STEPS];

/** Where a first run must end to leave something for a step of a restore: a registered checkpoint with a segment that is not committed, or orphans. */
export function preludeOf(step: string): string {
  if (step === 'sweep.remove') return 'checkpoint.metadata.copy=kill@4';
  if (step === 'restore.base') return 'base.begin=kill@2';
  // Commits of several writers begin at once: only one that is over has left an open file for certain.
  return step === 'sink.files.copy' ? 'sink.committed=kill@2' : 'sink.commit=kill@4';
}

/** Only a sink with files that stay open over checkpoints has something to copy, and that is the sink of cpu. */
export const ONLY_CPU: ReadonlySet<string> = new Set(['sink.files.copy']);

/** Only tasks that share a database make their bases by links. */
export const ONLY_LEVEL: ReadonlySet<string> = new Set(['base.linked', 'base.copy', 'base.made', 'restore.base']);

/** Of the steps of one base each is killed at by npm run test:chaos, and those where something new lies on a disk by npm test too. */
export const CHAOS_ONLY: ReadonlySet<string> = new Set(['base.copy', 'base.made']);

/** Where a process that runs a query of Nexmark is killed: at steps that come in it, with keyed state or without. */
const NEXMARK_STEPS: Readonly<Record<Query, string>> = {
  q0: 'sink.commit',
  q1: 'checkpoint.registered',
  q2: 'sink.committed',
  q3: 'checkpoint.delta.upload',
  q4: 'restore.load',
  q5: 'checkpoint.ack',
  q7: 'checkpoint.metadata.written',
  q8: 'checkpoint.register',
};

export function nexmarkStepOf(query: Query): Step {
  return STEPS.find(({ name }) => name === NEXMARK_STEPS[query])!;
}

/** Parallelisms of the first, the second and the last run. */
export const NEXMARK_COURSES = [
  [1, 2, 3],
  [2, 3, 1],
  [3, 1, 2],
] as const;
