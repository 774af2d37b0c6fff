// The environment of an operator that runs outside of any task: its state is there, and nothing else. Time stands still, nothing is emitted, no timer fires.

import type { TaskState } from '../../state-backends/index.ts';
import { SILENT } from '../graph/context.ts';
import { type Node, nameOf } from '../graph/node.ts';
import type { OperatorEnvironment } from './operator.ts';

export interface BareEnvironmentOptions {
  readonly node: Node;
  readonly state: TaskState;
  /** What a snapshot has of it under a name; undefined: nothing. */
  readonly restored: (name: string) => readonly unknown[] | undefined;
  readonly signal: AbortSignal;
  /** Processing time; 0 by default. */
  readonly now?: () => number;
}

const nothing = (): void => {};

export function bareEnvironment({ node, state, restored, signal, now = () => 0 }: BareEnvironmentOptions): OperatorEnvironment {
  return {
    node,
    uid: nameOf(node),
    subtask: 0,
    parallelism: 1,
    state: () => state,
    output: () => nothing,
    watermark: () => Number.NEGATIVE_INFINITY,
    now,
    random: () => 0,
    log: SILENT,
    metrics: { counter: () => ({ inc: nothing }), gauge: nothing, histogram: () => ({ record: nothing }) },
    unit: (run) => {
      run();
      return true;
    },
    together: undefined,
    timersChanged: nothing,
    participate: nothing,
    restored,
    time: nothing,
    afterTime: nothing,
    attention: nothing,
    post: nothing,
    fail: nothing,
    failed: nothing,
    clock: { setTimeout: () => undefined, clearTimeout: nothing },
    timeEachBatch: true,
    backlog: () => false,
    signal,
  };
}
