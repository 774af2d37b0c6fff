// The contract of a checkpoint registry: which checkpoints of a job are complete, and the numbers that are used once.
//
// What: `local-registry.ts` keeps it in a directory of one machine, `cluster/zookeeper/registry.ts` in ZooKeeper. Pointers only: the bytes lie in the storage, written
// before the pointer. One suite holds both to this page (test/checkpoint/registry-contract.ts).
//
// Invariants:
//  G1  The attempt number rises durably before a start or a restart does anything else.
//  G2  A checkpoint id is reserved durably, in blocks, before its first barrier leaves; it is used once in the life of a lineage (protocols 7).
//  G3  A checkpoint counts from the moment its pointer is written, and not before.
//  G4  A call that has resolved is durable. One that has failed may have been done or not; whoever opens the registry next sees which.
//  G5  One process at a time writes it: another is refused, or was (JOB_ALREADY_RUNNING, LEADER_DEPOSED).

import type { CheckpointInfo, JobResult } from '../graph/job.ts';

/** What a start must know of a checkpoint also where its metadata cannot be read. */
export interface Pointer extends CheckpointInfo {
  /** By uid of a transactional sink: its writers 0 … n − 1 may have committed this checkpoint. Pointers of older versions do not say. */
  readonly writers?: Readonly<Record<string, number>>;
}

/** A pointer, with the lineage that it belongs to: `latest` never crosses lineages. */
export interface Registered extends Pointer {
  readonly lineage: string;
}

export type Outcome = 'running' | 'finished' | 'stopped' | 'cancelled' | 'failed';

/** How many ids are reserved at once. */
export const RESERVED = 16;

export interface Registry {
  /** G1. Larger than `after`: what was found in a directory whose registry was lost. `regions`: those that are begun in it. */
  nextAttempt(after?: number, regions?: readonly number[]): Promise<number>;
  /** By region, the attempt that it was begun in last; where regions may go on without who has begun them. */
  begunIn?(): Promise<ReadonlyMap<number, number>>;
  /** The newest there was. */
  attempt(): Promise<number | undefined>;
  lineage(): Promise<string | undefined>;
  setLineage(lineage: string): Promise<void>;
  /** Ids up to this one may have been used. */
  counter(): Promise<number>;
  /** G2. */
  reserve(id: number): Promise<void>;
  /** That id is used, by another lineage: a snapshot that is brought in carries it. */
  raise(id: number): Promise<void>;
  /** Ids of the lineage that runs are above this one; undefined: it has none yet. */
  readonly since: number | undefined;
  /** G3. */
  add(checkpoint: Pointer, lineage: string): Promise<void>;
  remove(id: number): Promise<void>;
  /** Oldest first. */
  checkpoints(): Promise<Registered[]>;
  outcome(): Promise<Outcome | undefined>;
  setOutcome(outcome: Outcome): Promise<void>;
  result(): Promise<JobResult | undefined>;
  finish(result: JobResult): Promise<void>;
  /**
   * A start: `origin` is the metadata of the checkpoint that a new lineage was forked from; it holds until the lineage has one of its own. So long `claimed` is
   * kept too: the folder of the savepoint that it was imported from, where that is the job's now.
   */
  begin(lineage: string, origin: string | undefined, claimed?: string): Promise<void>;
  origin(): Promise<string | undefined>;
  claimed(): Promise<{ readonly folder: string; readonly lineage: string } | undefined>;
  unclaim(): Promise<void>;
  close(): Promise<void>;
}
