// What a task is given, what it may be told, and what it tells its job.

import type { KeyGroupRange, Looking, RegionState } from '../../state-backends/index.ts';
import type { Logger, Metrics } from '../graph/context.ts';
import type { DeadLetter } from '../graph/job.ts';
import type { Node } from '../graph/node.ts';
import type { Edge, Vertex } from '../graph/plan.ts';
import type { AlignmentGroups } from '../time/alignment-group.ts';
import type { Barrier, Channel } from './channel.ts';
import type { Io } from './io.ts';
import type { OperatorFactory } from './operator.ts';
import type { StatePart } from './parts.ts';
import type { RegionBases } from './region-bases.ts';
import type { SnapshotStorage, TaskRestore, TaskSnapshot } from './snapshot.ts';
import type { Arrival, KnownSplits } from './source-reader.ts';
import type { TaskFailure } from './units.ts';

export type TaskMail =
  | { readonly kind: 'run'; readonly fn: () => void }
  /** All tasks of the region are open: begin. */
  | { readonly kind: 'go'; readonly splits: KnownSplits }
  | { readonly kind: 'trigger'; readonly barrier: Barrier }
  | { readonly kind: 'complete'; readonly id: number }
  | { readonly kind: 'abort'; readonly id: number }
  | { readonly kind: 'assign'; readonly splits: readonly unknown[]; readonly last: boolean }
  /** To instance 0 of a source, by one that has its share. */
  | { readonly kind: 'arrived'; readonly arrival: Arrival }
  | { readonly kind: 'drain' };

/** What `Task.look` shows of a task: its state, and how far time has come there. */
export interface SeenTask {
  /** By key; of a task that has none it is empty. */
  readonly state: Looking;
  /** What an operator of the chain keeps without a key, as it would be stored. */
  readonly parts: (uid: string) => Readonly<Record<string, StatePart>>;
  readonly watermark: number;
  readonly now: number;
}

/** What a task tells its job. Calls come from its own turns only. */
export interface TaskReports {
  opened(report: { marker: number }): void;
  ack(id: number, snapshot: TaskSnapshot, pauseMs: number): void;
  declined(id: number, error: unknown): void;
  /** All commits up to `id` have resolved. */
  committed(id: number): void;
  ended(): void;
  finished(): void;
  failed(failure: TaskFailure): void;
  /** A record failed under the policy `stop`, was undone, and the source has stopped in front of it. */
  stopped(failure: TaskFailure): void;
  deadLetter(letter: DeadLetter): void;
}

export interface TaskOptions {
  readonly job: string;
  readonly vertex: Vertex;
  readonly subtask: number;
  readonly maxParallelism: number;
  readonly attempt: number;
  readonly lineage: string;
  readonly range: KeyGroupRange;
  readonly region: RegionState;
  readonly io: Io;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Undefined: checkpoints are off; one last barrier then commits the sinks. */
  readonly storage: SnapshotStorage | undefined;
  /** Of the region, where it stores anything. */
  readonly bases: RegionBases | undefined;
  readonly blocking: boolean;
  /** Watermarks after each batch of `read`, not by the clock. */
  readonly watermarkEachBatch: boolean;
  /** Of the job: splits of several sources wait for each other. */
  readonly alignment: AlignmentGroups;
  readonly inputs: readonly { readonly edge: Edge; readonly channels: readonly Channel[] }[];
  readonly outputs: readonly { readonly edge: Edge; readonly channels: readonly Channel[] }[];
  readonly operators: (node: Node) => OperatorFactory;
  readonly restore: TaskRestore | undefined;
  /** Newest checkpoint id of the snapshot restored, 0 without one. */
  readonly restoredId: number;
  /** Ids that the lineage that runs has handed out; none where it is not known which. */
  readonly usedIds: { readonly after: number; readonly to: number };
  readonly lastCheckpoint: () => number | undefined;
  /** Between the instances of a source. */
  readonly tell: (instance: number, mail: TaskMail & { readonly kind: 'assign' | 'arrived' }) => void;
  readonly reports: TaskReports;
}
